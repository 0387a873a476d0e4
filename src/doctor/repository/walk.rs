//! The way of a client through a repository: timestamp, snapshot, targets, and then every delegated role.
//!
//! A client visits the roles on the way to one target; here all of them are visited, several at a time, but no more than
//! [`MOST_ROLES`]. A file that is missing or cannot be read ends the way only where nothing beyond can be known.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use futures::StreamExt;

use super::checks::delegations::edges;
use super::checks::edge::Edge;
use super::checks::listed::as_listed;
use super::checks::meta::{self, Meta};
use super::checks::{self, Check, EVERY, SNAPSHOT, TARGETS, TIMESTAMP, common, root, targets};
use super::clients::{Clients, RoleKind};
use super::fetch::{Answer, MAX_FILE, Source};
use super::file::{File, Look, broken};
use super::found::{Effect, Fault, Found};
use super::json::Json;
use super::keys::{Keys, Signers};
use super::report::Seen;
use super::roots::Root;

/// The most delegated roles that are read: those of PEP 458.
pub const MOST_ROLES: usize = 16_384;
/// How many files are asked for at a time.
const AT_A_TIME: usize = 8;

/// A walk under way.
pub struct Walk<'w> {
    /// Where files come from.
    pub source: &'w Source,
    /// Unix seconds.
    pub now: u64,
    /// What was found.
    pub found: Found,
    /// What was seen.
    pub seen: Seen,
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
    /// Who must sign it, and whose keys those are.
    keys: &'a Keys,
    signers: &'a Signers,
    by: &'a str,
    /// The delegation that leads to it, unless the root does.
    edge: Option<&'a Edge>,
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
    what: "there are more delegated roles than are read here",
    why: "what the others hold was not checked",
    fix: "nothing; those that were read come from all over",
    choice: true,
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
                return Some(bytes);
            }
            Answer::Absent(None) => self.found.add(&MISSING, all, name, "", "not there"),
            Answer::Absent(Some(status)) => self.found.add(&MISSING, all, name, "", &format!("HTTP status {status}")),
            Answer::Failed(why) => self.found.add(&UNREADABLE, all, name, "", &why),
            Answer::TooLarge => {
                let effect = Effect::struggle(Clients::ALL);
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
            keys: &root.keys,
            signers: root.signers(role),
            by: "the root",
            edge: None,
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
        let Some(delegated) = self.look(&targets, &bytes, |file| Delegated::of(file, MOST_ROLES)) else { return };
        self.seen.targets += delegated.targets;
        let from = targets.name.clone();
        self.delegated(root, &entries, from, delegated).await;
    }

    /// Visits all delegated roles, level by level.
    async fn delegated(&mut self, root: &Root, entries: &BTreeMap<String, Meta>, from: String, first: Delegated) {
        let source = self.source;
        let (mut visited, mut asked_for) = (BTreeSet::new(), 0);
        let mut level = vec![(from, first)];
        while !level.is_empty() {
            let mut tasks = Vec::new();
            for (from, Delegated { keys, edges, left_out, .. }) in level.drain(..) {
                let (from, keys) = (Rc::new(from), Rc::new(keys));
                self.seen.sampled |= left_out;
                for edge in edges {
                    if !visited.insert(edge.role.clone()) {
                        continue;
                    }
                    let listed_as = format!("{}.json", edge.role);
                    let Some(meta) = entries.get(&listed_as) else {
                        self.found.add(
                            &NOT_NAMED,
                            broken(Clients::ALL, true),
                            "snapshot.json",
                            "signed.meta",
                            &listed_as,
                        );
                        continue;
                    };
                    let encoded = encode(&edge.role);
                    let name = match root.consistent {
                        true => format!("{}.{encoded}.json", meta.version),
                        false => format!("{encoded}.json"),
                    };
                    tasks.push((name, edge, meta, keys.clone(), from.clone()));
                }
            }
            let room = MOST_ROLES - asked_for;
            self.seen.sampled |= tasks.len() > room;
            tasks.truncate(room);
            asked_for += tasks.len();
            let answers = tasks.into_iter().map(|task| async move { (source.get(&task.0).await, task) });
            let mut answers = futures::stream::iter(answers).buffered(AT_A_TIME);
            while let Some((answer, (name, edge, meta, keys, from))) = answers.next().await {
                let Some(bytes) = self.take(answer, &name, true) else { continue };
                self.seen.delegated += 1;
                let asked = Asked {
                    name,
                    kind: "targets",
                    sized: RoleKind::Targets,
                    listed: Some(meta),
                    keys: &keys,
                    signers: &edge.signers,
                    by: &from,
                    edge: Some(&edge),
                    checks: TARGETS,
                };
                if let Some(found) = self.look(&asked, &bytes, |file| Delegated::of(file, MOST_ROLES)) {
                    self.seen.targets += found.targets;
                    level.push((asked.name, found));
                }
            }
        }
        if self.seen.sampled {
            let is = format!("{} were read", self.seen.delegated);
            self.found.add(&SAMPLED, Effect::default(), "targets.json", "signed.delegations", &is);
        }
    }

    /// Makes every check of a file that is there, and gives what `read` takes from its signed part.
    fn look<T>(&mut self, asked: &Asked<'_>, bytes: &[u8], read: impl Fn(&Json<'_>) -> T) -> Option<T> {
        let file = File::open(&asked.name, asked.edge.is_some(), bytes, &mut self.found)?;
        let mut look = Look { file: &file, now: self.now, found: &mut self.found };
        common::kind(&mut look, asked.kind);
        common::size(&mut look, asked.sized, asked.listed.and_then(|meta| meta.length));
        if let Some(meta) = asked.listed {
            as_listed(&mut look, bytes, meta);
        }
        common::signatures(&mut look, asked.keys, asked.signers, asked.by);
        for check in EVERY.iter().chain(asked.checks) {
            check(&mut look);
        }
        if let Some(edge) = asked.edge {
            targets::misplaced(&mut look, &edge.leads);
        }
        Some(read(file.signed()))
    }
}

/// What targets delegate.
struct Delegated {
    keys: Keys,
    edges: Vec<Edge>,
    left_out: bool,
    /// How many targets the file lists.
    targets: u64,
}

impl Delegated {
    fn of(file: &Json<'_>, most: usize) -> Delegated {
        let (edges, left_out) = edges(file, most);
        let keys = root::read_keys(file.get("delegations").and_then(|d| d.get("keys")));
        Delegated { keys, edges, left_out, targets: checks::targets::count(file) as u64 }
    }
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
