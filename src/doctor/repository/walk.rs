//! The way of a client through a repository: timestamp, snapshot, targets, and then every delegated role.
//!
//! A client visits the roles on the way to one target; here all of them are visited, several at a time, but no more than
//! [`MOST_ROLES`]. A file that is missing or cannot be read ends the way only where nothing beyond can be known. A role
//! that several files delegate to is read once, or again where a file further down wants other signatures.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;

use super::checks::delegations::Delegated;
use super::checks::listed::as_listed;
use super::checks::meta::{self, Meta};
use super::checks::{Check, EVERY, SNAPSHOT, TARGETS, TIMESTAMP, common, targets};
use super::clients::{Client, Clients, RoleKind};
use super::fetch::{Answer, MAX_FILE, Source};
use super::file::{File, Look, broken};
use super::found::{Effect, Fault, Found};
use super::graph::{Graph, Met, Parent};
use super::json::Json;
use super::report::Seen;
use super::roots::Root;

/// The most delegated roles that are read: those of PEP 458.
pub const MOST_ROLES: usize = 16_384;
/// How many files are asked for at a time.
const AT_A_TIME: usize = 8;

/// The clients that come to a role by each of the files that delegate to it; tough loads it once.
const OFTEN: Clients = Clients::ALL.without(Clients::of(&[Client::Tough]));

/// A walk under way.
pub struct Walk<'w> {
    /// Where files come from.
    pub source: &'w Source<'w>,
    /// Unix seconds.
    pub now: u64,
    /// What was found.
    pub found: Found,
    /// What was seen.
    pub seen: Seen,
    /// Who is told of what was seen.
    pub watch: &'w dyn Fn(&Seen),
}

/// What is asked of one file.
struct Asked<'a> {
    /// Its name, with its version.
    name: String,
    /// Its `_type`.
    kind: &'static str,
    /// Whose size limit counts.
    sized: RoleKind,
    /// How it is named, unless it is the timestamp.
    listed: Option<&'a Meta>,
    /// Who must sign it, as each says that delegates to it.
    parents: Vec<Parent>,
    /// Whether that is not the root.
    delegated: bool,
    checks: &'static [Check],
}

static MISSING: Fault = Fault {
    name: "file-missing",
    what: "a file that is named is not there",
    why: "clients give up; with a delegated role missing, they miss what it lists (all bins must be there, empty ones too)",
    fix: "publish every file before the one that names it, and keep it as long as it is named",
    choice: false,
};

static UNREADABLE: Fault = Fault {
    name: "file-unreadable",
    what: "a file cannot be read",
    why: "clients give up",
    fix: "see what the server says; a missing file must be answered with 404",
    choice: false,
};

static TOO_LARGE: Fault = Fault {
    name: "file-too-large",
    what: "a file is larger than is read here, and what it holds was not checked",
    why: "clients read all of it before they look at it",
    fix: "delegate to more roles, so that each is small",
    choice: false,
};

static NOT_NAMED: Fault = Fault {
    name: "role-not-in-snapshot",
    what: "a delegated role is not in the snapshot",
    why: "clients do not know its version, and miss what it lists; tough gives up (all bins must be named, empty ones too)",
    fix: "name every delegated role in the snapshot, and never take one off",
    choice: false,
};

static SAMPLED: Fault = Fault {
    name: "not-all-read",
    what: "there are more delegated roles, or there is more to compare, than are looked at here",
    why: "what else there is was not checked",
    fix: "nothing; what was looked at comes from all over",
    choice: true,
};

static TIME_UP: Fault = Fault {
    name: "time-up",
    what: "the time was up before everything was read",
    why: "what was not read was not checked; clients wait for the same files",
    fix: "give it more time with --timeout, or find out why the server is slow",
    choice: false,
};

impl Walk<'_> {
    /// Asks for a file; what came instead of one or of nothing is put down, as breaking it.
    pub async fn get(&mut self, name: &str, delegated: bool) -> Option<Vec<u8>> {
        let answer = self.source.get(name).await;
        self.take(answer, name, delegated)
    }

    /// The same of an answer that has come.
    pub fn take(&mut self, answer: Answer, name: &str, delegated: bool) -> Option<Vec<u8>> {
        let all = broken(Clients::ALL, delegated);
        match answer {
            Answer::File(bytes) => {
                self.seen.files += 1;
                self.seen.bytes += bytes.len() as u64;
                (self.watch)(&self.seen);
                return Some(bytes);
            }
            Answer::Late => {
                if !self.seen.sampled {
                    self.found.add(&TIME_UP, Effect::struggle(Clients::ALL), name, "", "not read any more");
                }
                self.seen.sampled = true;
            }
            Answer::Absent(None) => self.found.add(&MISSING, all, name, "", "not there"),
            Answer::Absent(Some(status)) => self.found.add(&MISSING, all, name, "", &format!("HTTP status {status}")),
            Answer::Failed(why) => self.found.add(&UNREADABLE, all, name, "", &why),
            Answer::TooLarge => {
                // Of a root and of a timestamp nothing lists the length, and no client reads so much then.
                let unlisted = name == "timestamp.json" || name.ends_with("root.json");
                let effect = if unlisted { Effect::refuse(Clients::ALL) } else { Effect::struggle(Clients::ALL) };
                self.found.add(&TOO_LARGE, effect, name, "", &format!("more than {MAX_FILE} bytes"));
            }
        }
        None
    }

    /// Walks on from the newest root.
    pub async fn from(&mut self, root: &Root) {
        let name = |version: u64, role: &str| match root.consistent {
            true => format!("{version}.{role}.json"),
            false => format!("{role}.json"),
        };
        let asked = |role: &'static str, name, sized, listed, checks| Asked {
            name,
            kind: role,
            sized,
            listed,
            parents: vec![Parent { by: "the root".into(), keys: root.keys.clone(), signers: root.signers(role) }],
            delegated: false,
            checks,
        };
        let timestamp = asked("timestamp", "timestamp.json".into(), RoleKind::Timestamp, None, TIMESTAMP);
        let Some(bytes) = self.get(&timestamp.name, false).await else { return };
        let listed = self.look(&timestamp, &bytes, |file| {
            let named = file.get("meta").and_then(|meta| Meta::of(meta.get("snapshot.json")?));
            (version(file), named)
        });
        let Some((version_of_timestamp, named)) = listed else { return };
        self.seen.timestamp = version_of_timestamp;
        let Some(meta) = named else { return };

        let snapshot = asked("snapshot", name(meta.version, "snapshot"), RoleKind::Snapshot, Some(&meta), SNAPSHOT);
        let Some(bytes) = self.get(&snapshot.name, false).await else { return };
        let entries = self.look(&snapshot, &bytes, |file| (version(file), entries(file)));
        let Some((version_of_snapshot, entries)) = entries else { return };
        self.seen.snapshot = version_of_snapshot;
        let Some(meta) = entries.get("targets.json") else { return };

        let targets = asked("targets", name(meta.version, "targets"), RoleKind::Targets, Some(meta), TARGETS);
        let Some(bytes) = self.get(&targets.name, false).await else { return };
        let mut graph = Graph::default();
        let listed = self.look(&targets, &bytes, |file| read(&mut graph, 0, &targets.name, file));
        self.seen.targets += listed.unwrap_or(0);
        self.delegated(root, &entries, &mut graph).await;
        graph.finish(&mut self.found);
        let late = self.seen.sampled;
        self.seen.sampled |= graph.left_out;
        if self.seen.sampled && !late {
            let is = format!("{} delegated roles were read", self.seen.delegated);
            self.found.add(&SAMPLED, Effect::default(), "targets.json", "signed.delegations", &is);
        }
    }

    /// Visits all delegated roles, level by level, until the time is up.
    async fn delegated(&mut self, root: &Root, entries: &BTreeMap<String, Meta>, graph: &mut Graph) {
        let source = self.source;
        let (mut level, mut asked_for) = (vec![0], 0);
        while !level.is_empty() {
            let (mut tasks, mut new) = (Vec::new(), BTreeSet::new());
            for met in level.drain(..).flat_map(|from| graph.follow(from)).collect::<Vec<_>>() {
                let (role, again) = match met {
                    Met::New(role) => (role, None),
                    Met::Again(role, _) if new.contains(&role) => continue, // it is looked at for all of them
                    Met::Again(role, parent) => (role, Some(parent)),
                    Met::Known => continue,
                };
                let listed_as = format!("{}.json", graph.name(role));
                match entries.get(&listed_as) {
                    Some(meta) => {
                        let encoded = encode(graph.name(role));
                        let name = match root.consistent {
                            true => format!("{}.{encoded}.json", meta.version),
                            false => format!("{encoded}.json"),
                        };
                        new.insert(role);
                        tasks.push((name, role, meta, again));
                    }
                    None if again.is_some() => {}
                    None => {
                        let effect = broken(Clients::ALL, true);
                        self.found.add(&NOT_NAMED, effect, "snapshot.json", "signed.meta", &listed_as);
                    }
                }
            }
            let room = MOST_ROLES - asked_for;
            graph.left_out |= tasks.len() > room;
            tasks.truncate(room);
            asked_for += tasks.len();
            let answers = tasks.into_iter().map(|task| async move { (source.get(&task.0).await, task) });
            let mut answers = futures::stream::iter(answers).buffered(AT_A_TIME);
            while let Some((answer, (name, role, meta, again))) = answers.next().await {
                if matches!((&answer, &again), (Answer::Absent(_) | Answer::Failed(_) | Answer::TooLarge, Some(_))) {
                    continue; // it was told when it was asked for first
                }
                let is_late = matches!(answer, Answer::Late);
                let Some(bytes) = self.take(answer, &name, true) else {
                    if is_late {
                        return;
                    }
                    continue;
                };
                if let Some(parent) = again {
                    self.signed(&name, &bytes, &parent);
                    continue;
                }
                self.seen.delegated += 1;
                let asked = Asked {
                    name,
                    kind: "targets",
                    sized: RoleKind::Targets,
                    listed: Some(meta),
                    parents: graph.parents(role),
                    delegated: true,
                    checks: TARGETS,
                };
                if let Some(listed) = self.look(&asked, &bytes, |file| read(graph, role, &asked.name, file)) {
                    self.seen.targets += listed;
                    level.push(role);
                }
            }
        }
    }

    /// Checks only whether a file that was looked at is signed as one more file wants it.
    fn signed(&mut self, name: &str, bytes: &[u8], parent: &Parent) {
        let mut aside = Found::default();
        if let Some(file) = File::open(name, true, bytes, &mut aside) {
            let mut look = Look { file: &file, now: self.now, found: &mut self.found };
            common::signatures_for(&mut look, &parent.keys, &parent.signers, &parent.by, OFTEN);
        }
    }

    /// Makes every check of a file that is there, and gives what `read` takes from its signed part.
    fn look<T>(&mut self, asked: &Asked<'_>, bytes: &[u8], read: impl FnOnce(&Json<'_>) -> T) -> Option<T> {
        let file = File::open(&asked.name, asked.delegated, bytes, &mut self.found)?;
        let mut look = Look { file: &file, now: self.now, found: &mut self.found };
        common::kind(&mut look, asked.kind);
        common::size(&mut look, asked.sized, asked.listed.and_then(|meta| meta.length));
        if let Some(meta) = asked.listed {
            as_listed(&mut look, bytes, meta);
        }
        for (i, parent) in asked.parents.iter().enumerate() {
            let clients = if i == 0 { Clients::ALL } else { OFTEN };
            common::signatures_for(&mut look, &parent.keys, &parent.signers, &parent.by, clients);
        }
        for check in EVERY.iter().chain(asked.checks) {
            check(&mut look);
        }
        Some(read(file.signed()))
    }
}

/// Takes in what the file of a role delegates and lists; answers how many targets that are.
fn read(graph: &mut Graph, role: usize, name: &str, file: &Json<'_>) -> u64 {
    let delegated = Delegated::of(file, &mut graph.budget);
    graph.read(role, name, delegated);
    graph.targets(role, targets::paths(file));
    targets::count(file) as u64
}

fn version(file: &Json<'_>) -> u64 {
    file.get("version").and_then(Json::count).unwrap_or(0)
}

/// The entries of a snapshot that can be read.
fn entries(file: &Json<'_>) -> BTreeMap<String, Meta> {
    let members = file.get("meta").and_then(Json::object).unwrap_or_default();
    members.iter().filter_map(|(name, entry)| Some((name.clone().into_owned(), meta::Meta::of(entry)?))).collect()
}

/// A role as it stands in the name of its file.
fn encode(role: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'~');
    let byte = |b: u8| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") };
    role.bytes().map(byte).collect()
}
