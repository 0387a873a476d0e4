//! The tamper suite: every kind of record, flipped, dropped, repeated, moved and cut short, in a real data directory;
//! the binary names each damage and its place, and none passes.
//!
//! What leaves no trace is in the tables too, each with the reason: it is what `src/audit/mod.rs` says that no audit
//! can see. A log has no chain of digests, so what nothing was made of and nothing refers to can be changed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::future::join_all;
use serde_json::Value;
use tempfile::TempDir;
use tuflog::audit::{self, Damage};
use tuflog::clock::ManualClock;
use tuflog::error::Kind;
use tuflog::log::embedded::EmbeddedLog;
use tuflog::log::memory::{Faults, MemoryLog};
use tuflog::log::{Log, Offset, Partition};
use tuflog::store::Store;
use tuflog::store::local::LocalStore;

use super::repository::{DAY, Repository, START, add, clean, in_memory, options, remove, replay_dir};
use crate::help::block_on;
use crate::schemas::Checker;
use crate::server;

/// A log, record by record.
pub type Records = BTreeMap<Partition, Vec<Bytes>>;

/// A repository with all kinds of records and objects: its store and root.json lie in `dir`.
pub struct History {
    pub dir: TempDir,
    pub records: Records,
}

/// A data directory of its own, made of a history.
pub struct DataDir {
    pub dir: TempDir,
    pub cuts: u64,
}

/// What is done to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A digit behind this text becomes another.
    Flip(&'static str),
    Drop,
    /// It stands there again, right behind itself.
    Duplicate,
    /// It changes places with the next.
    Swap,
    /// Its second half is gone.
    Truncate,
    /// Everything behind it in its partition is gone.
    CutBehind,
}

/// What the audit says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// The name of the damage, and the place.
    Found(&'static str, &'static str),
    /// Exit code 4, with this on stderr.
    Unreadable(&'static str),
    /// Nothing: it leaves no trace, for this reason.
    NoTrace(&'static str),
}

pub use Op::{CutBehind, Drop, Duplicate, Flip, Swap, Truncate};
pub use Says::{Found, NoTrace, Unreadable};

/// The kind of a record, which of that kind, what is done to it, and what the audit says.
pub type Case = (&'static str, usize, Op, Says);

pub fn history() -> History {
    let mut r = Repository::on(Arc::new(MemoryLog::new(1, Faults::NONE)));
    r.publish("a", (0..12).map(|i| add(&format!("pool/{i}"), "a")).collect());
    r.publish("b", vec![add("x", "b")]);
    r.publish("c", vec![add("pool/1", "c"), remove("pool/2"), remove("none")]);
    r.commit("d", vec![add("x", "d")]);
    r.publish("e", vec![add("x", "e")]);
    r.wait(DAY * 3 / 4);
    r.publish("f", vec![add("x", "f")]);
    r.rotate();
    r.change_settings(2, |s| s.snapshot_expiry_s -= DAY);
    r.publish("g", (0..12).map(|i| add(&format!("pool/{i}"), "g")).collect());
    r.publish("h", vec![add("x", "h")]);
    r.wait(DAY * 3 / 4);
    clean(r.audit());
    let mut records = Records::new();
    for of in [Partition::Ledger, Partition::Folds].into_iter().chain((0..4).map(Partition::Changes)) {
        let all = block_on(r.log.reader(of, 0).read(usize::MAX)).unwrap();
        records.insert(of, all.into_iter().map(|r| r.payload).collect());
    }
    std::fs::copy(r.path("metadata/1.root.json"), r.dir.path().join("root.json")).unwrap();
    let Repository { dir, .. } = r;
    History { dir, records }
}

/// Appends every record to a log that is empty.
pub fn write(log: &dyn Log, records: &Records) {
    let all = records.iter().flat_map(|(of, all)| all.iter().enumerate().map(move |(at, r)| (*of, at, r.clone())));
    let appends = all.map(|(of, at, r)| {
        let append = log.append(of, r);
        async move { assert_eq!(append.await.unwrap(), at as Offset) }
    });
    block_on(join_all(appends.collect::<Vec<_>>()));
}

/// A data directory with these records, and the store of the history, of which nothing may be changed.
fn with_log(of: &Path, records: &Records) -> TempDir {
    let dir = in_memory();
    std::os::unix::fs::symlink(of.join("store"), dir.path().join("store")).unwrap();
    std::fs::copy(of.join("root.json"), dir.path().join("root.json")).unwrap();
    let log = EmbeddedLog::open(&dir.path().join("log"), Arc::new(ManualClock::new(START))).unwrap();
    write(&*log, records);
    dir
}

/// A data directory of its own, in which everything may be changed.
pub fn data_dir() -> DataDir {
    let History { dir: of, records } = history();
    let dir = with_log(of.path(), &records);
    std::fs::remove_file(dir.path().join("store")).unwrap();
    std::fs::rename(of.path().join("store"), dir.path().join("store")).unwrap();
    let cuts = of_kind(&records, "cut").len() as u64;
    DataDir { dir, cuts }
}

impl DataDir {
    pub fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    /// The file of a bin that a cut has rendered.
    pub fn bin_of_cut(&self, n: u64) -> String {
        let files = std::fs::read_dir(self.dir.path().join("store/metadata")).unwrap();
        let names = files.map(|f| f.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(&format!("{n}.bins-"))).min().unwrap()
    }
}

/// Where the records of a kind stand.
pub fn of_kind(records: &Records, kind: &str) -> Vec<(Partition, usize)> {
    let mark = format!("\"kind\":\"{kind}\"");
    let all = records.iter().flat_map(|(of, all)| all.iter().enumerate().map(move |(at, r)| (*of, at, r)));
    let wanted = all
        .filter(|(_, _, r)| memchr::memmem::find(r.split(|b| *b == b'\n').next().unwrap(), mark.as_bytes()).is_some());
    wanted.map(|(of, at, _)| (of, at)).collect()
}

/// The records with one of them tampered with.
pub fn tampered(history: &History, (kind, nth, op, _): Case) -> Records {
    let mut records = history.records.clone();
    let (of, at) = of_kind(&records, kind)[nth];
    let all = records.get_mut(&of).unwrap();
    match op {
        Flip(behind) => {
            let mut bytes = all[at].to_vec();
            let from =
                memchr::memmem::find(&bytes, behind.as_bytes()).unwrap_or_else(|| panic!("{behind}: {:?}", all[at]));
            let digit = (from + behind.len()..bytes.len()).find(|i| bytes[*i].is_ascii_digit()).unwrap();
            bytes[digit] ^= 1;
            all[at] = bytes.into();
        }
        Drop => drop(all.remove(at)),
        Duplicate => all.insert(at, all[at].clone()),
        Swap => all.swap(at, at + 1),
        Truncate => all[at] = all[at].slice(..all[at].len() / 2),
        CutBehind => all.truncate(at + 1),
    }
    records
}

/// Runs the audit and holds it to what it must say.
pub fn check(case: impl std::fmt::Debug, says: Says, command: &mut std::process::Command) -> Result<(), String> {
    let out = command.arg("--json").arg("--scratch").arg(replay_dir()).output().unwrap();
    if !out.stdout.is_empty() {
        static SCHEMAS: OnceLock<Checker> = OnceLock::new();
        SCHEMAS.get_or_init(Checker::new).good("audit.json", &out.stdout);
    }
    let (code, report) = (out.status.code(), serde_json::from_slice::<Value>(&out.stdout).unwrap_or_default());
    let text = |of: &Value, field: &str| of[field].as_str().unwrap_or_default().to_owned();
    let finding = &report["findings"][0];
    let found = (text(finding, "damage"), text(finding, "place"));
    let good = match says {
        Found(damage, place) => {
            code == Some(1) && text(&report, "verdict") == "damaged" && (&found.0[..], &found.1[..]) == (damage, place)
        }
        Unreadable(why) => code == Some(4) && server::said(&out).contains(why),
        NoTrace(_) => code == Some(0) && text(&report, "verdict") == "whole",
    };
    let said = || {
        format!(
            "{case:?}\n    exit {code:?}, {found:?}: {}\n    {}",
            text(finding, "message"),
            String::from_utf8_lossy(&out.stderr).trim()
        )
    };
    if good { Ok(()) } else { Err(said()) }
}

fn audit(data: &Path) -> std::process::Command {
    server::command(&["audit", "--data", data.to_str().unwrap()])
}

/// Runs all of a table before it complains.
fn check_all(cases: &[Case]) {
    let history = history();
    let check = |case: &Case| {
        let data = with_log(history.dir.path(), &tampered(&history, *case));
        check(case, case.3, &mut audit(data.path())).err()
    };
    let bad: Vec<String> = cases.iter().filter_map(check).collect();
    assert!(bad.is_empty(), "{} of {}:\n{}", bad.len(), cases.len(), bad.join("\n"));
}

#[test]
fn the_history_as_it_was_is_whole() {
    let history = history();
    let data = with_log(history.dir.path(), &history.records);
    check("as it was", NoTrace("nothing was done"), &mut audit(data.path())).unwrap();
}

#[test]
fn the_help_lists_every_damage_and_every_exit_code() {
    let help = server::run(&["audit", "--help"]).split_whitespace().collect::<Vec<_>>().join(" ");
    let schema = serde_json::to_value(schemars::schema_for!(Damage)).unwrap();
    let names = schema["oneOf"].as_array().unwrap().iter().map(|of| of["const"].as_str().unwrap());
    let missing: Vec<&str> = names.filter(|name| !help.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for code in ["0 whole", "1 damaged", "2 usage", "3 incomplete", "4 log or store"] {
        assert!(help.contains(code), "{code}: {help}");
    }
}

#[test]
fn every_kind_of_ledger_record() {
    check_all(&[
        ("format", 0, Flip("\"bins\":"), Found("record_altered", "ledger seq 0")),
        ("format", 0, Flip("\"epoch\":"), Unreadable("upgrade tuflog")),
        ("format", 0, Drop, Found("record_dropped", "Format")),
        ("format", 0, Duplicate, Found("record_duplicated", "ledger seq 1")),
        ("format", 0, Swap, Found("record_reordered", "ledger seq 0")),
        ("format", 0, Truncate, Found("record_altered", "ledger seq 0")),
        ("format", 0, CutBehind, Found("record_dropped", "ledger seq 1")),
        ("settings", 0, Flip("\"snapshot_expiry_s\":"), Found("record_altered", "ledger seq 3")),
        ("settings", 0, Flip("\"bins_expiry_s\":"), Found("record_altered", "ledger seq 3")),
        ("settings", 0, Flip("\"state_every\":"), Found("record_altered", "ledger seq 6")),
        ("settings", 0, Flip("\"horizon\":"), Found("record_altered", "ledger seq 6")),
        ("settings", 0, Drop, Found("record_dropped", "a record before ledger seq 2")),
        ("settings", 1, Drop, Found("record_dropped", "a record before ledger seq 27")),
        ("settings", 0, Duplicate, Found("record_duplicated", "ledger seq 2")),
        ("settings", 0, Swap, NoTrace("nothing depends on the order of the first Settings and the first Root")),
        ("settings", 1, Swap, Found("record_reordered", "ledger seq 27")),
        ("settings", 0, Truncate, Found("record_altered", "ledger seq 1")),
        ("settings", 0, CutBehind, Found("record_dropped", "ledger seq 2")),
        ("root", 0, Flip("\\\"sig\\\":\\\""), Found("record_altered", "ledger seq 2")),
        ("root", 0, Flip("\\\"expires\\\":\\\""), Found("record_altered", "ledger seq 2")),
        ("root", 1, Flip("\\\"sig\\\":\\\""), Found("record_altered", "ledger seq 24")),
        ("root", 0, Drop, Found("record_dropped", "root")),
        ("root", 1, Drop, Found("record_dropped", "a record before ledger seq 24")),
        ("root", 0, Duplicate, Found("record_duplicated", "ledger seq 3")),
        ("root", 1, Duplicate, Found("record_duplicated", "ledger seq 25")),
        ("root", 0, Swap, Found("record_reordered", "ledger seq 2")),
        ("root", 1, Swap, Found("record_reordered", "ledger seq 24")),
        ("root", 1, Truncate, Found("record_altered", "ledger seq 24")),
        ("root", 1, CutBehind, Found("record_dropped", "ledger seq 25")),
        ("commit", 0, Flip("\"digest\":\""), Found("record_altered", "ledger seq 5")),
        ("commit", 0, Flip("\"parts\":[[0,"), Found("record_altered", "ledger seq 5")),
        ("commit", 1, Flip("\"parts\":"), Found("record_altered", "ledger seq 8")),
        ("commit", 1, Flip("\"offset\":"), Found("record_reordered", "segment 0 of partition 0")),
        ("commit", 1, Flip("\"basis\":"), NoTrace("a basis decides only whether the batch is void")),
        ("commit", 0, Drop, Found("record_dropped", "a record before ledger seq 5")),
        ("commit", 1, Drop, Found("record_dropped", "a record before ledger seq 8")),
        ("commit", 4, Drop, Found("record_dropped", "a record before ledger seq 15")),
        ("commit", 0, Duplicate, Found("record_duplicated", "ledger seq 6")),
        ("commit", 1, Duplicate, Found("record_duplicated", "ledger seq 9")),
        ("commit", 1, Swap, Found("record_reordered", "ledger seq 8")),
        ("commit", 3, Swap, Found("record_reordered", "ledger seq 16")),
        ("commit", 1, Truncate, Found("record_altered", "ledger seq 8")),
        ("commit", 1, CutBehind, Found("record_dropped", "ledger seq 9")),
        ("cut", 1, Flip("\"n\":"), Found("record_altered", "ledger seq 6")),
        ("cut", 2, Flip("\"n\":"), Found("record_altered", "ledger seq 9")),
        ("cut", 1, Flip("\"time\":17"), Found("record_altered", "ledger seq 6")),
        ("cut", 1, Drop, Found("record_dropped", "Cut 2")),
        ("cut", 1, Duplicate, Found("record_duplicated", "ledger seq 7")),
        ("cut", 1, Swap, Found("record_reordered", "ledger seq 6")),
        ("cut", 1, Truncate, Found("record_altered", "ledger seq 6")),
        ("cut", 1, CutBehind, Found("record_dropped", "ledger seq 7")),
        ("checkpoint", 1, Flip("\"n\":"), Found("record_altered", "ledger seq 7")),
        ("checkpoint", 2, Flip("\"n\":"), Found("record_altered", "ledger seq 10")),
        ("checkpoint", 1, Flip("\"seq\":"), Found("record_altered", "ledger seq 7")),
        ("checkpoint", 1, Flip("\"ends\":["), Found("record_altered", "ledger seq 7")),
        ("checkpoint", 1, Flip("\"length\":"), Found("record_altered", "ledger seq 7")),
        ("checkpoint", 1, Flip("\"sha256\":\""), Found("record_altered", "ledger seq 7")),
        ("checkpoint", 1, Flip("\"ids\":\""), Found("record_altered", "ledger seq 7")),
        ("checkpoint", 1, Drop, Found("record_dropped", "Checkpoint 2")),
        ("checkpoint", 1, Duplicate, Found("record_duplicated", "ledger seq 8")),
        ("checkpoint", 1, Swap, Found("record_reordered", "ledger seq 12")),
        ("checkpoint", 1, Truncate, Found("record_altered", "ledger seq 7")),
        ("checkpoint", 1, CutBehind, Found("record_dropped", "ledger seq 8")),
        ("renew", 0, Flip("\"after\":"), Found("record_altered", "ledger seq 19")),
        ("renew", 0, Flip("\"time\":17"), Found("record_altered", "ledger seq 19")),
        ("renew", 1, Flip("\"time\":17"), Found("record_altered", "ledger seq 37")),
        ("renew", 0, Drop, Found("record_dropped", "a record before ledger seq 18")),
        ("renew", 1, Drop, Found("record_dropped", "a record before ledger seq 36")),
        ("renew", 0, Duplicate, Found("record_duplicated", "ledger seq 19")),
        ("renew", 0, Swap, Found("record_reordered", "ledger seq 18")),
        (
            "checkpoint",
            11,
            Duplicate,
            NoTrace("a repeat behind the last Cut is what an append without an answer leaves"),
        ),
        ("cut", 11, Duplicate, NoTrace("the same")),
        ("checkpoint", 11, Drop, Found("record_dropped", "ledger seq 38")),
        ("renew", 0, Truncate, Found("record_altered", "ledger seq 18")),
        ("renew", 0, CutBehind, Found("record_dropped", "ledger seq 19")),
    ]);
}

#[test]
fn segments_and_fold_reports() {
    check_all(&[
        ("segment", 0, Flip("\"length\":"), Found("record_altered", "segment 0 of partition 0")),
        ("segment", 0, Drop, Found("split_batch", "segment 0 of partition 0")),
        ("segment", 0, Duplicate, Found("record_duplicated", "segment 1 of partition 0")),
        ("segment", 0, Swap, Found("record_reordered", "segment 0 of partition 0")),
        ("segment", 0, Truncate, Found("record_altered", "segment 0 of partition 0")),
        ("segment", 0, CutBehind, Found("record_dropped", "segment 1 of partition 0")),
        ("segment", 1, Flip("\"length\":"), Found("record_altered", "segment 1 of partition 0")),
        ("segment", 1, Drop, Found("record_dropped", "segment 1 of partition 0")),
        ("segment", 1, Duplicate, Found("record_duplicated", "segment 2 of partition 0")),
        ("segment", 1, Swap, Found("record_reordered", "segment 1 of partition 0")),
        ("segment", 1, Truncate, Found("record_altered", "segment 1 of partition 0")),
        ("segment", 1, CutBehind, Found("record_dropped", "segment 2 of partition 0")),
        ("segment", 8, CutBehind, Found("split_batch", "segment 1 of partition 1")),
        ("segment", 9, Drop, Found("split_batch", "segment 1 of partition 1")),
        ("fold-report", 5, Flip("\"offset\":"), Found("record_altered", "folds offset 5")),
        ("fold-report", 5, Flip("\"sha256\":\""), Found("record_altered", "folds offset 5")),
        ("fold-report", 5, Drop, Found("record_dropped", "report of partition 1 about cut 2")),
        ("fold-report", 5, Duplicate, NoTrace("a report may stand there any number of times")),
        ("fold-report", 5, Swap, NoTrace("reports have no order")),
        ("fold-report", 5, Truncate, Found("record_altered", "folds offset 5")),
        ("fold-report", 5, CutBehind, Found("record_dropped", "report of partition 2 about cut 2")),
    ]);
}

/// What a ledger record says that nothing else does, and nothing was made of: and of times those below the one in force.
const UNWITNESSED: [&str; 2] = ["\"basis\":", "\"folds_from\":"];

#[test]
fn a_flipped_bit_anywhere_in_the_ledger() {
    let history = history();
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(&history.dir.path().join("store")).unwrap());
    let (mut tried, mut passed) = (0, Vec::new());
    for (seq, record) in history.records[&Partition::Ledger].iter().enumerate() {
        for at in (seq % 29..record.len()).step_by(29) {
            let (mut records, mut bytes) = (history.records.clone(), record.to_vec());
            bytes[at] ^= 1;
            records.get_mut(&Partition::Ledger).unwrap()[seq] = bytes.clone().into();
            let log = MemoryLog::new(1, Faults::NONE);
            write(&log, &records);
            let is_whole = match block_on(audit::run(Arc::new(log), store.clone(), options(), |_| {})) {
                Ok(report) => report.is_clean(),
                Err(e) => {
                    assert_eq!(e.kind, Kind::Unsupported, "{e}");
                    false
                }
            };
            tried += 1;
            let head = std::str::from_utf8(&record[..at]).unwrap();
            let unwitnessed = UNWITNESSED.iter().any(|key| {
                head.rfind(key).is_some_and(|from| head[from + key.len()..].bytes().all(|b| b.is_ascii_digit()))
            });
            let time_of = |bytes: &[u8]| {
                let record: Value = serde_json::from_slice(bytes).ok()?;
                record["time"].as_u64().filter(|_| record["kind"] == "cut")
            };
            let in_force = history.records[&Partition::Ledger][..seq].iter().filter_map(|r| time_of(r)).max();
            let is_below = time_of(&bytes).is_some_and(|time| Some(time) < in_force.max(time_of(record)));
            if is_whole && !unwitnessed && !is_below {
                passed.push(format!("seq {seq}, byte {at}: {}", String::from_utf8_lossy(&bytes)));
            }
        }
    }
    println!("{tried} flips");
    assert!(passed.is_empty(), "{} of {tried} leave no trace:\n{}", passed.len(), passed.join("\n"));
}
