//! The audit: clean where the engine worked, and able to fail.

mod ledger_damage;
mod range;
mod repository;
mod resume;
mod store_damage;
mod tamper;
mod tamper_kafka;
mod tamper_store;

use std::sync::Arc;

use tuflog::audit::{self, Options};
use tuflog::clock::ManualClock;
use tuflog::ledger::record::{BatchRef, Commit, Record};
use tuflog::log::embedded::EmbeddedLog;
use tuflog::log::memory::{Faults, MemoryLog};
use tuflog::log::{Log, Partition};

use crate::help::{block_on, scratch};
use repository::{DAY, Repository, START, add, clean, remove};

/// A report without what is never twice the same.
fn timeless(report: audit::Report) -> audit::Report {
    audit::Report { seconds: 0.0, rebuilding_seconds: 0.0, loading_seconds: 0.0, ..report }
}

fn memory() -> Arc<dyn Log> {
    Arc::new(MemoryLog::new(1, Faults::NONE))
}

/// Everything that happens to a repository: cuts 1 to 9 and more.
fn story(repository: &mut Repository) {
    let r = repository;
    r.publish("first", (0..40).map(|i| add(&format!("pool/{i}"), "v1")).collect());
    r.publish(
        "second",
        vec![add("pool/1", "v2"), remove("pool/2"), remove("pool/none"), remove("pool/none"), add("a", "a")],
    );
    r.commit("one-of-two", vec![add("pool/3", "v3")]);
    r.publish("two-of-two", vec![remove("pool/3"), add("pool/4", "v3")]);
    r.wait(DAY); // a Renew, and the bins whose slot has come
    r.rotate();
    // Some segments in every partition.
    r.publish("large", (0..2_500).map(|i| add(&format!("{}/{i}", "long-name".repeat(100)), "l")).collect());
    r.change_settings(2, |s| s.bins_expiry_s = 4 * DAY);
    r.wait(5 * DAY);
    r.publish("last", vec![remove("a")]);
}

#[test]
fn a_repository_that_the_engine_made_is_clean() {
    let mut r = Repository::on(memory());
    let empty = clean(r.audit());
    assert_eq!((empty.cuts, empty.checkpoints, empty.targets, empty.roots), (1, 1, 0, 1), "{empty}");
    story(&mut r);
    let report = clean(r.audit());
    println!("{report}");
    assert_eq!((report.batches_valid, report.targets), (6, 40 - 2 + 2_500), "{report}");
    assert_eq!(report.changes, 40 + 5 + 1 + 2 + 2_500 + 1);
    assert!(report.segments > 4 + 4 + 1 + 2 + 4, "the large batch has several segments in a partition: {report}");
    assert_eq!(report.batch_digests, report.batches_valid, "each one, over however many partitions");
    assert!(
        report.cuts == report.checkpoints && report.cuts >= 9 && report.renews >= 2 && report.roots == 2,
        "{report}"
    );
    assert_eq!(report.objects as usize, r.objects().len() + 1, "every object and the pointer");
    assert!(report.notes.is_empty() && report.reports > 20 && report.signatures > report.cuts * 2, "{report}");
}

#[test]
fn content_that_comes_back_before_the_cut_makes_no_new_version() {
    let mut r = Repository::on(memory());
    r.publish("a", vec![add("x", "a")]);
    r.commit("b", vec![add("x", "b")]);
    r.publish("a-again", vec![add("x", "a")]);
    assert_eq!(r.bin_version("x"), 2);
    let report = clean(r.audit());
    assert_eq!((report.cuts, report.batches_valid), (3, 3));
}

#[test]
fn bins_are_renewed_a_few_at_a_time_and_audited_as_such() {
    let mut r = Repository::on(memory());
    r.publish("a", vec![add("x", "a")]);
    let cuts_before = clean(r.audit()).cuts;
    (0..28).for_each(|_| r.wait(DAY / 4));
    let report = clean(r.audit());
    assert!(report.cuts >= cuts_before + 8, "{report}");
    assert!(report.renews >= 6, "{report}");
}

#[test]
fn void_and_repeated_records_are_legal() {
    let mut r = Repository::on(memory());
    r.publish("a", vec![add("x", "a")]);
    let records = block_on(r.log.reader(Partition::Ledger, 0).read(usize::MAX)).unwrap();
    for record in &records {
        r.append(Record::decode(&record.payload).unwrap()); // late copies of everything
    }
    let BatchRef { digest, .. } =
        BatchRef { id: "z".into(), digest: [1; 32], basis: 0, parts: vec![(0, 1)], inbox: None };
    let nowhere = BatchRef { id: "nowhere".into(), digest, basis: 0, parts: vec![(0, 1)], inbox: None };
    r.append(Record::Commit(Commit { batches: vec![nowhere], segments: vec![] }));
    r.publish("b", vec![add("x", "b")]);
    let report = clean(r.audit());
    assert_eq!((report.batches_valid, report.batches_duplicate, report.batches_void), (2, 1, 1));
}

#[test]
fn what_a_killed_node_leaves_undone_is_noted() {
    let mut r = Repository::on(memory());
    r.commit("a", vec![add("x", "a")]);
    let notes = |r: &Repository| clean(r.audit()).notes;
    assert_eq!(notes(&r), ["there are batches after the last cut: serve will publish them"]);
    assert!(r.step_compactor()); // Cut 2
    let unfinished = ["cut 2 has no Checkpoint yet: serve will finish it"];
    assert_eq!(notes(&r), unfinished);
    r.step_folds();
    assert_eq!(r.bin_version("x"), 2);
    assert_eq!(notes(&r), unfinished);
    let behind = "metadata/timestamp.json is behind: at version 1, the ledger says 2; serve will move it";
    for _ in 0..10 {
        let now = notes(&r);
        if now != unfinished {
            assert_eq!(now, [behind]);
            r.settle();
            assert_eq!(notes(&r), [""; 0]);
            return;
        }
        r.step_compactor();
    }
    panic!("no Checkpoint after 10 steps");
}

#[test]
fn a_data_directory_is_audited_with_threads_and_nothing_in_it_changes() {
    let dir = scratch();
    let path = dir.path().to_owned();
    let log = EmbeddedLog::open(&path.join("log"), Arc::new(ManualClock::new(START))).unwrap();
    let mut r = Repository::new(log, dir);
    story(&mut r);
    let expected = clean(r.audit());
    let Repository { dir, log, .. } = r; // the rest of the node is closed
    drop(log);
    std::fs::write(path.join("store/.new/left"), "of a crash").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let audit = |told: &mut u64| {
        let audit = audit::run_data_dir(&path, Options::threads(2), |p| *told = p.seq.max(*told));
        runtime.block_on(audit).unwrap()
    };
    let mut told = 0;
    let without = clean(audit(&mut told));
    assert!(without.notes[0].contains("root.json is missing"), "{without}");
    let first = std::fs::read(path.join("store/metadata/1.root.json")).unwrap();
    std::fs::write(path.join("root.json"), [&first[..], b"\n"].concat()).unwrap();
    let other = audit(&mut told);
    let [finding] = &other.findings[..] else { panic!("{other}") };
    assert!(finding.place.ends_with("root.json") && finding.expected.is_some() && finding.found.is_some(), "{other}");
    std::fs::write(path.join("root.json"), first).unwrap();
    let report = clean(audit(&mut told));
    assert_eq!(told, report.records);
    assert_eq!(timeless(report), timeless(expected));
    assert!(path.join("store/.new/left").exists());
    drop(dir);
}
