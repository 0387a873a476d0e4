//! An audit that is cut off goes on where it was, and comes to the same report.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tuflog::audit::{self, Damage, Options, Report, Verdict};
use tuflog::bins::sha256;
use tuflog::error::{Error, Kind};
use tuflog::ledger::report::FoldReport;
use tuflog::log::memory::{Faults, MemoryLog};
use tuflog::log::{Log, Partition};

use super::repository::{Changed, DAY, Repository, add, clean, in_memory, options, replay_dir};
use super::tamper::data_dir;
use super::{story, timeless};
use crate::help::{PATIENCE, block_on};
use crate::server;

fn repository() -> Repository {
    let mut r = Repository::on(Arc::new(MemoryLog::new(1, Faults::NONE)));
    story(&mut r);
    r.wait(DAY / 2);
    clean(r.audit());
    r
}

fn resumable(file: &Path) -> Options {
    Options { resume: Some(file.into()), save_every_ms: 0, max_findings: 100, ..options() }
}

/// Runs until a number of cuts has been told, or to the end.
fn run_until(r: &Repository, file: &Path, cuts: u64) -> Result<Report, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let options = Options { stop: stop.clone(), ..resumable(file) };
    block_on(audit::run(r.log.clone(), r.store(), options, |p| stop.store(p.cuts >= cuts, Ordering::Relaxed)))
}

/// But for where it was resumed.
fn in_one_go(mut report: Report) -> Report {
    report.covered.resumed_at.clear();
    report.notes.retain(|note| !note.ends_with("was not looked at again"));
    timeless(report)
}

#[test]
fn cut_off_at_any_cut_it_goes_on_to_the_same_report() {
    let (r, dir) = (repository(), in_memory());
    let (file, whole) = (dir.path().join("progress"), clean(r.audit()));
    for cuts in 1..=whole.cuts {
        let cut_off = run_until(&r, &file, cuts).unwrap();
        assert_eq!((cut_off.verdict, cut_off.complete), (Verdict::Incomplete, false), "{cut_off}");
        assert_eq!(file.exists(), cuts > 1, "kept from checkpoint 1 on");
        let report = clean(run_until(&r, &file, u64::MAX).unwrap());
        let expected: Vec<u64> = (cuts > 1).then_some(cuts - 1).into_iter().collect();
        assert_eq!(report.covered.resumed_at, expected, "{report}");
        assert_eq!(in_one_go(report), timeless(whole.clone()));
        assert!(!file.exists(), "removed when it has come to its end");
    }
    // In many pieces.
    for cuts in 1..whole.cuts {
        run_until(&r, &file, cuts + 1).unwrap();
    }
    let report = clean(run_until(&r, &file, u64::MAX).unwrap());
    assert!(report.covered.resumed_at.len() as u64 >= whole.cuts - 2, "{report}");
    assert_eq!(in_one_go(report), timeless(whole));
}

#[test]
fn findings_are_kept_and_none_is_lost_between_two_runs() {
    let (mut r, dir) = (repository(), in_memory());
    // A late report that is wrong, about a cut long verified when it is read.
    let reports = block_on(r.log.reader(Partition::Folds, 0).read(usize::MAX)).unwrap();
    let mut late = FoldReport::decode(&reports[0].payload).unwrap();
    late.offset += 7;
    block_on(r.log.append(Partition::Folds, late.encode().remove(0))).unwrap();
    // And one that nothing asks for.
    let decoded: Vec<FoldReport> = reports.iter().map(|r| FoldReport::decode(&r.payload).unwrap()).collect();
    let asked = |n: u64, partition: u16| decoded.iter().any(|d| (d.n, d.partition) == (n, partition));
    let idle = (0..4).find_map(|p| (2..5).find(|n| !asked(*n, p)).map(|n| (n, p))).expect("an idle partition");
    let unasked = FoldReport { n: idle.0, partition: idle.1, bins: vec![], absent: vec![], ..decoded[0].clone() };
    block_on(r.log.append(Partition::Folds, unasked.encode().remove(0))).unwrap();
    r.publish("after", vec![add("after", "a")]);
    let name = format!("metadata/2.{}.json", r.layout.name(r.layout.bin_of("pool/1")));
    let bytes = [&std::fs::read(r.path(&name)).unwrap()[..], b"\n"].concat();
    let _changed = Changed::file(&r.path(&name), Some(&bytes));
    let _stray = Changed::file(&r.path("metadata/note.txt"), Some(b"x"));
    let whole = block_on(audit::run(r.log.clone(), r.store(), Options { max_findings: 100, ..options() }, |_| {}));
    let whole = whole.unwrap();
    let damages: Vec<Damage> = whole.findings.iter().map(|f| f.damage).collect();
    assert_eq!(
        damages,
        [Damage::RecordAltered, Damage::ObjectAltered, Damage::RecordAdded, Damage::ObjectAdded],
        "{whole}"
    );
    let file = dir.path().join("progress");
    let mut resumed = 0;
    for cuts in 1..=whole.cuts {
        run_until(&r, &file, cuts).unwrap();
        let report = run_until(&r, &file, u64::MAX).unwrap();
        assert_eq!(report.verdict, Verdict::Damaged);
        resumed += report.covered.resumed_at.len();
        assert_eq!(in_one_go(report), timeless(whole.clone()));
        assert!(!file.exists());
    }
    assert!(resumed > 3, "while the altered bin is published there is nothing to go on from, but later: {resumed}");
    // With one finding allowed it stops there, and the file stays for who wants to see more.
    run_until(&r, &file, whole.cuts).unwrap();
    let options = Options { max_findings: 1, ..resumable(&file) };
    let report = block_on(audit::run(r.log.clone(), r.store(), options, |_| {})).unwrap();
    assert_eq!((report.findings.len(), report.complete, file.exists()), (2, false, true), "{report}");
    assert_eq!(in_one_go(run_until(&r, &file, u64::MAX).unwrap()), timeless(whole));
}

#[test]
fn a_file_of_something_else_is_refused() {
    let (r, other, dir) = (repository(), repository(), in_memory());
    let file = dir.path().join("progress");
    let refused =
        |r: &Repository, options: Options| block_on(audit::run(r.log.clone(), r.store(), options, |_| {})).unwrap_err();
    let e = refused(&r, Options { resume: Some(dir.path().join("none/progress")), ..options() });
    assert_eq!((e.kind, e.field.as_deref()), (Kind::Invalid, Some("--resume")), "{e}");
    for garbage in ["", "x", "{\"v\":1}"] {
        std::fs::write(&file, garbage).unwrap();
        let e = refused(&r, resumable(&file));
        assert!(e.field.as_deref() == Some("--resume") && e.message.contains("no progress file"), "{e}");
    }
    std::fs::remove_file(&file).unwrap();
    run_until(&r, &file, 5).unwrap();
    let kept = std::fs::read_to_string(&file).unwrap();
    let range = audit::Range { from: Some(2), to: None };
    let e = refused(&r, Options { range, ..resumable(&file) });
    assert!(e.message.contains("an audit without --from and --to: say the same"), "{e}");
    std::fs::write(&file, kept.replacen("\"v\":2", "\"v\":9", 1)).unwrap();
    assert!(refused(&r, resumable(&file)).message.contains("is of version 9"), "another version");
    // The same keys and layout, but other roots would be another repository: here the record that brings it differs.
    let root: Value = serde_json::from_str(kept.lines().next().unwrap()).unwrap();
    let foreign = kept.replace(root["root"].as_str().unwrap(), &hex::encode(sha256(b"another")));
    std::fs::write(&file, foreign).unwrap();
    assert!(refused(&other, resumable(&file)).message.contains("of the audit of another repository"));
    // A file that was altered.
    std::fs::write(&file, kept.replacen("\"records\":", "\"records\":18446744073709551615", 1)).unwrap();
    assert!(refused(&r, resumable(&file)).message.contains("progress file"), "no number");
    for (from, to) in
        [("\"bins\":", "\"bins\":7"), ("\"checkpoint_version\":", "\"checkpoint_version\":9"), ("\n", "\n0")]
    {
        std::fs::write(&file, kept.replacen(from, to, 1)).unwrap();
        assert!(refused(&r, resumable(&file)).message.contains("was damaged"), "{from}");
    }
    // A store that does not hold what was verified, or more of it.
    std::fs::write(&file, &kept).unwrap();
    let stray = r.path("metadata/2.targets.json");
    let was = std::fs::read(&stray).ok();
    for other in [None, Some(&b"x"[..])].into_iter().filter(|other| other.is_some() != was.is_some()) {
        let _changed = Changed::file(&stray, other);
        assert!(refused(&r, resumable(&file)).message.contains("does not hold the same objects up to checkpoint"));
    }
    // A log that has lost what was verified.
    std::fs::write(&file, &kept).unwrap();
    let shorter = MemoryLog::new(1, Faults::NONE);
    let records = block_on(r.log.reader(Partition::Ledger, 0).read(usize::MAX)).unwrap();
    for record in &records[..6] {
        block_on(shorter.append(Partition::Ledger, record.payload.clone())).unwrap();
    }
    let e = block_on(audit::run(Arc::new(shorter), r.store(), resumable(&file), |_| {})).unwrap_err();
    assert_eq!(e.kind, Kind::Corrupt, "{e}");
    assert!(e.message.contains("does not hold Checkpoint 4 any more as it stood at seq"), "{e}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), kept, "nothing of it is changed");
}

/// The binary is held up where it reads the bin of a cut, which is a pipe: then it is killed, or interrupted.
#[test]
fn the_binary_goes_on_after_kill_and_after_an_interrupt() {
    let data = data_dir();
    let file = data.dir.path().join("progress");
    let replay = replay_dir();
    let (replay, file_name) = (replay.to_str().unwrap(), file.to_str().unwrap());
    let args = ["audit", "--data", data.path(), "--scratch", replay, "--resume", file_name];
    let held_up = |bin: &str, signal: Signal| {
        let path = data.dir.path().join("store/metadata").join(bin);
        let (bytes, before) = (std::fs::read(&path).unwrap(), std::fs::read(&file).ok());
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        let child = server::command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let start = std::time::Instant::now();
        while std::fs::read(&file).ok() == before {
            assert!(start.elapsed() < PATIENCE, "nothing is kept");
            std::thread::yield_now();
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        // With somebody at its other end the pipe holds up nobody.
        let _end = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        let out = child.wait_with_output().unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        out
    };
    let killed = held_up(&data.bin_of_cut(4), Signal::KILL);
    assert_eq!(killed.status.code(), None, "{}", server::said(&killed));
    let interrupted = held_up(&data.bin_of_cut(5), Signal::INT);
    let said = server::said(&interrupted);
    assert_eq!(interrupted.status.code(), Some(3), "{said}");
    assert!(said.contains("audit      incomplete: nothing wrong so far"), "{said}");
    assert!(said.contains("error: cut off at ledger seq") && said.contains("hint: the same command goes on"), "{said}");
    let report: Value = serde_json::from_str(&server::run(&[&args[..], &["--json"]].concat())).unwrap();
    assert_eq!(report["verdict"], "whole", "{report:#}");
    assert_eq!(report["covered"]["resumed_at"][0], 1, "{report:#}");
    assert_eq!(report["covered"]["resumed_at"].as_array().unwrap().len(), 2, "{report:#}");
    assert_eq!(report["covered"]["to"], data.cuts, "{report:#}");
    assert!(!file.exists());
}
