//! What is said of a repository: findings, and a verdict for each client.
//!
//! **How bad a finding is follows from the clients that are judged.** A finding for which one of them refuses the
//! repository or misses targets is an error; one with which one of them struggles a warning; everything else a note.
//! The judged clients are those that are named, or else the general ones that can use the repository's form of
//! delegation: hash bins that tough cannot read are a choice, and do not make every such repository a faulty one.

use std::cmp::Reverse;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::clients::{Client, Clients};
use super::found::{Entry, Found};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It concerns no client that is judged.
    Note,
    /// A judged client struggles, or soon will.
    Warning,
    /// A judged client refuses the repository, or misses targets.
    Error,
}

impl Level {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// Where a fault was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spot {
    /// The file, such as `3.snapshot.json`.
    pub file: String,
    /// The field in it, such as `signed.expires`; empty for the whole file.
    pub field: String,
    /// What stands there; what a terminal would obey is escaped, and a long text cut.
    pub is: String,
}

/// A fault, wherever it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Which, such as `expires-form`. Names are stable.
    pub name: String,
    /// How bad it is for the judged clients.
    pub level: Level,
    /// The clients that refuse the repository for it.
    pub refuse: Vec<Client>,
    /// The clients that miss targets.
    pub miss: Vec<Client>,
    /// The clients with which it works, but slowly, or not for long, or not always.
    pub struggle: Vec<Client>,
    /// How many places have it.
    pub count: u64,
    /// The first of them.
    pub spots: Vec<Spot>,
    /// What is wrong.
    pub what: String,
    /// Why it matters: what the clients do.
    pub why: String,
    /// What to do.
    pub fix: String,
}

/// Whether a client can use the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It can.
    CanUse,
    /// It can, but see the warnings.
    WithWarnings,
    /// It does not find some of the targets.
    MissesTargets,
    /// It refuses it.
    CannotUse,
}

/// The verdict for a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Judged {
    /// Which.
    pub client: Client,
    /// Whether it decides how bad findings are.
    pub judged: bool,
    /// Whether it can use the repository.
    pub verdict: Verdict,
    /// The names of the findings that decide this.
    pub because: Vec<String>,
}

/// What was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// Where: the folder or URL of the metadata.
    pub repository: String,
    /// How many files were read.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// The version of the newest root.
    pub root: u64,
    /// The version of the timestamp; 0 if it could not be read.
    pub timestamp: u64,
    /// The version of the snapshot; 0 if it could not be read.
    pub snapshot: u64,
    /// How many delegated roles were read.
    pub delegated: u64,
    /// How many targets they and `targets.json` list.
    pub targets: u64,
    /// Whether something was left out: more roles, delegations or comparisons than the doctor makes, or no time.
    pub sampled: bool,
}

/// Everything that is said of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// What was looked at.
    pub seen: Seen,
    /// How many findings are errors.
    pub errors: usize,
    /// How many are warnings.
    pub warnings: usize,
    /// How many are notes.
    pub notes: usize,
    /// The findings, the worst first.
    pub findings: Vec<Finding>,
    /// One verdict for each client, or for each that was named.
    pub clients: Vec<Judged>,
}

impl Report {
    /// Judges what was found for the clients `named`, or if there are none for the general ones.
    pub fn of(seen: Seen, found: Found, named: Clients) -> Report {
        let entries = found.into_entries();
        let choices = entries.iter().filter(|e| e.fault.choice).fold(Clients::NONE, |all, e| all | e.effect.hurt());
        let judged = if named.is_empty() { Clients::GENERAL - choices } else { named };
        let told = if named.is_empty() { Clients::ALL } else { named };
        let concerns = |e: &&Entry| e.effect.all().is_empty() || !(e.effect.all() & told).is_empty();
        let mut findings: Vec<Finding> = entries.iter().filter(concerns).map(|e| finding(e, judged, told)).collect();
        findings.sort_by_key(|f| Reverse(f.level)); // stable: the rest is as it was met
        let clients = told.iter().map(|client| verdict(client, judged, &findings)).collect();
        let count = |level| findings.iter().filter(|f| f.level == level).count();
        let [errors, warnings, notes] = [Level::Error, Level::Warning, Level::Note].map(count);
        Report { seen, errors, warnings, notes, findings, clients }
    }
}

fn finding(entry: &Entry, judged: Clients, told: Clients) -> Finding {
    let Entry { fault, effect, count, spots } = entry;
    let level = if !(effect.hurt() & judged).is_empty() {
        Level::Error
    } else if !(effect.struggle & judged).is_empty() {
        Level::Warning
    } else {
        Level::Note
    };
    let list = |clients: Clients| (clients & told).iter().collect();
    Finding {
        name: fault.name.into(),
        level,
        refuse: list(effect.refuse),
        miss: list(effect.miss),
        struggle: list(effect.struggle),
        count: *count,
        spots: spots.clone(),
        what: fault.what.into(),
        why: fault.why.into(),
        fix: fault.fix.into(),
    }
}

fn verdict(client: Client, judged: Clients, findings: &[Finding]) -> Judged {
    let (mut verdict, mut because) = (Verdict::CanUse, Vec::<String>::new());
    for f in findings {
        let here =
            [(&f.refuse, Verdict::CannotUse), (&f.miss, Verdict::MissesTargets), (&f.struggle, Verdict::WithWarnings)];
        let Some((_, worst)) = here.into_iter().find(|(clients, _)| clients.contains(&client)) else { continue };
        if worst > verdict {
            (verdict, because) = (worst, Vec::new());
        }
        if worst == verdict && !because.contains(&f.name) {
            because.push(f.name.clone());
        }
    }
    Judged { client, judged: judged.has(client), verdict, because }
}
