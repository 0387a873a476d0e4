//! What the embedded log adds to the contract: restarts, crashes, a full disk, a damaged disk.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use tuflog::clock::ManualClock;
use tuflog::error::Kind;
use tuflog::log::embedded::EmbeddedLog;
use tuflog::log::{Log, Offset, Partition, Record};
use tuflog::store::local::free_bytes;

use crate::help::{child, child_dir, child_on_small_disk, scratch};

const PARTITIONS: [Partition; 4] =
    [Partition::Ledger, Partition::Folds, Partition::Changes(0), Partition::Changes(300)];

fn open(dir: &Path) -> Arc<EmbeddedLog> {
    EmbeddedLog::open(dir, Arc::new(ManualClock::new(1))).unwrap()
}

/// A payload that tells its number; some are large enough for a blob file.
fn payload(i: u64) -> Bytes {
    let mut bytes = i.to_be_bytes().to_vec();
    bytes.resize(8 + [0, 100, 5_000, 120_000][i as usize % 4], i as u8);
    bytes.into()
}

async fn all(log: &EmbeddedLog, of: Partition) -> Vec<Record> {
    log.reader(of, 0).read(usize::MAX).await.unwrap()
}

/// The write-ahead logs, oldest first.
fn wals(dir: &Path) -> Vec<PathBuf> {
    let mut wals: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    wals.retain(|path| path.extension().is_some_and(|ext| ext == "log") && fs::metadata(path).unwrap().len() > 0);
    wals.sort();
    wals
}

#[tokio::test]
async fn reopening_keeps_every_answered_append_and_goes_on_behind_the_last() {
    let dir = scratch();
    let mut answered = BTreeMap::new();
    for round in 0..4 {
        let log = open(dir.path());
        for i in round * 200..(round + 1) * 200 {
            let to = PARTITIONS[(i + i / 4) as usize % 4];
            let offset = log.append(to, payload(i)).await.unwrap();
            assert!(answered.insert((to, offset), payload(i)).is_none());
        }
    }
    let log = open(dir.path());
    for of in PARTITIONS {
        assert_eq!(log.end(of).await.unwrap(), 200);
        for record in all(&log, of).await {
            assert_eq!(answered.remove(&(of, record.offset)), Some(record.payload));
        }
    }
    assert!(answered.is_empty());
}

#[tokio::test]
async fn a_killed_process_loses_no_answered_append() {
    let dir = scratch();
    let mut answered: BTreeMap<(Partition, Offset), u64> = BTreeMap::new();
    for round in 0..6u64 {
        let mut child = child("log_embedded::child_that_appends_until_it_is_killed", dir.path());
        let mut child = child.env("ROUND", round.to_string()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut left = fastrand::usize(1..400);
        while let Some(line) = lines.next().transpose().unwrap() {
            let Some(answer) = line.strip_prefix("answered ") else { continue };
            let [to, offset, i] = answer.split(' ').map(|n| n.parse().unwrap()).collect::<Vec<u64>>()[..] else {
                panic!("{line}")
            };
            assert!(answered.insert((PARTITIONS[to as usize], offset), i).is_none(), "an offset was given out twice");
            left = left.saturating_sub(1);
            if left == 0 {
                child.kill().unwrap(); // SIGKILL; what it printed before is still in the pipe
            }
        }
        child.wait().unwrap();
        let log = open(dir.path());
        for of in PARTITIONS {
            let there: BTreeMap<Offset, Bytes> =
                all(&log, of).await.into_iter().map(|r| (r.offset, r.payload)).collect();
            for ((_, offset), i) in answered.range((of, 0)..=(of, Offset::MAX)) {
                assert!(there.get(offset) == Some(&payload(*i)), "round {round}: {of:?} {offset}");
            }
        }
    }
}

#[tokio::test]
async fn child_that_appends_until_it_is_killed() {
    let Some(dir) = child_dir() else { return };
    let round: u64 = std::env::var("ROUND").unwrap().parse().unwrap();
    let log = open(&dir);
    let append = |i: u64| {
        let to = (i + i / 4) as usize % 4;
        log.append(PARTITIONS[to], payload(i)).map(move |answer| (to, answer.unwrap(), i))
    };
    let mut flying: FuturesUnordered<_> = (0..16).map(|i| append(round << 32 | i)).collect();
    let mut next = 16;
    while let Some((to, offset, i)) = flying.next().await {
        println!("answered {to} {offset} {i}");
        flying.push(append(round << 32 | next));
        next += 1;
    }
}

#[test]
fn a_full_disk_loses_nothing_and_the_log_goes_on_when_there_is_room() {
    child_on_small_disk("log_embedded::child_on_a_full_disk", 60);
}

#[tokio::test]
async fn child_on_a_full_disk() {
    let Some(dir) = child_dir() else { return };
    for free in [7, 12, 18, 24, 30] {
        fill_and_make_room(&dir, free << 20).await; // it fails in another place each time: log, flush, manifest
    }
}

async fn fill_and_make_room(dir: &Path, free: u64) {
    let (ballast, dir) = (dir.join("ballast"), dir.join("log"));
    fs::write(&ballast, vec![1; (free_bytes(dir.parent().unwrap()).unwrap() - free) as usize]).unwrap();
    let log = open(&dir);
    let mut reader = log.reader(Partition::Ledger, 0);
    let (mut answered, mut unknown, mut refused) = (BTreeMap::new(), Vec::new(), 0);
    let append = |i: u64| {
        let mut bytes = vec![0; 150_000];
        fastrand::Rng::with_seed(i).fill(&mut bytes); // it must not compress
        bytes[..8].copy_from_slice(&i.to_be_bytes());
        log.append(Partition::Ledger, bytes.into())
    };
    let mut i = 0;
    while refused < 3 {
        match append(i).await {
            Ok(offset) => drop(answered.insert(offset, i)),
            Err(e) if e.kind == Kind::Indeterminate => unknown.push(i),
            Err(e) if e.kind == Kind::Unavailable => refused += 1,
            Err(e) => panic!("{e}"),
        }
        i += 1;
    }
    println!("{free} bytes free: {} answered, {} unknown", answered.len(), unknown.len());
    assert!(!answered.is_empty() && !unknown.is_empty());
    let mut seen = reader.read(usize::MAX).await.unwrap();
    assert!(seen.len() >= answered.len(), "readers do not mind a full disk");
    let restarted = EmbeddedLog::open(&dir, Arc::new(ManualClock::new(1))).err().expect("an error");
    assert!(restarted.kind == Kind::Unavailable && restarted.message.contains("full"), "{restarted}");

    // Room comes back bit by bit: at first too little to go on, or to open again.
    let file = fs::File::options().write(true).open(&ballast).unwrap();
    while file.metadata().unwrap().len() > 0 {
        file.set_len(file.metadata().unwrap().len().saturating_sub(1 << 20)).unwrap();
        match append(i).await {
            Ok(offset) => drop(answered.insert(offset, i)),
            Err(e) if e.kind == Kind::Indeterminate => unknown.push(i),
            Err(e) => assert_eq!(e.kind, Kind::Unavailable, "{e}"),
        }
        i += 1;
    }
    for i in i..i + 20 {
        answered.insert(append(i).await.expect("there is room again"), i);
    }
    seen.extend(reader.read(usize::MAX).await.unwrap());
    let number = |record: &Record| u64::from_be_bytes(record.payload[..8].try_into().unwrap());
    for (offset, i) in &answered {
        assert_eq!(seen.iter().filter(|record| record.offset == *offset && number(record) == *i).count(), 1);
    }
    let strangers: Vec<u64> = seen.iter().map(number).filter(|i| !answered.values().any(|a| a == i)).collect();
    assert!(strangers.iter().all(|i| unknown.contains(i)), "only what was left open may be there beside");
    drop(log);
    assert_eq!(all(&open(&dir), Partition::Ledger).await, seen);
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_write_that_fails_for_another_reason_fails_the_log_for_good() {
    let dir = scratch();
    let child = child("log_embedded::child_whose_files_may_not_grow", dir.path());
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 4000; exec \"$0\" \"$@\""]).arg(child.get_program());
    let out =
        limited.args(child.get_args()).envs(child.get_envs().filter_map(|(k, v)| Some((k, v?)))).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&out.stderr));
    let answered = text.lines().find_map(|line| line.strip_prefix("answered ")).unwrap().parse().unwrap();
    let there = all(&open(dir.path()), Partition::Ledger).now_or_never().unwrap();
    assert!((answered..=answered + 1).contains(&there.len()), "{answered} answered, {} there", there.len());
}

#[tokio::test]
async fn child_whose_files_may_not_grow() {
    let Some(dir) = child_dir() else { return };
    let log = open(&dir);
    let mut answered = 0;
    let error = loop {
        match log.append(Partition::Ledger, payload(3)).await {
            Ok(_) => answered += 1,
            Err(e) => break e,
        }
    };
    println!("answered {answered}");
    assert!(answered > 0 && error.kind == Kind::Corrupt, "{error}");
    assert_eq!(log.append(Partition::Folds, payload(0)).await, Err(error), "no matter what");
    assert_eq!(all(&log, Partition::Ledger).await.len(), answered, "what was answered can be read");
}

#[tokio::test]
async fn a_torn_tail_that_was_never_answered_is_forgotten() {
    let dir = scratch();
    let log = open(dir.path());
    log.append(Partition::Ledger, payload(1)).await.unwrap();
    drop(log);
    let wal = wals(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&wal).unwrap();
    bytes.extend_from_slice(&[0xa5; 100]); // a write that the crash cut off
    fs::write(&wal, bytes).unwrap();
    let log = open(dir.path());
    assert_eq!(log.append(Partition::Ledger, payload(2)).await.unwrap(), 1);
    assert_eq!(all(&log, Partition::Ledger).await.len(), 2);
}

#[tokio::test]
async fn losing_an_answered_append_to_damage_is_corrupt_not_silent() {
    for damage in ["cut", "flip"] {
        let dir = scratch();
        let log = open(dir.path());
        for i in 0..10 {
            log.append(Partition::Ledger, payload(4 * i + 1)).await.unwrap();
        }
        drop(log);
        let wal = wals(dir.path()).pop().unwrap();
        let mut bytes = fs::read(&wal).unwrap();
        let middle = bytes.iter().rposition(|b| *b != 0).unwrap() / 2;
        if damage == "cut" {
            bytes.truncate(middle)
        } else {
            bytes[middle] ^= 1
        }
        fs::write(&wal, bytes).unwrap();
        let error = EmbeddedLog::open(dir.path(), Arc::new(ManualClock::new(1))).err().expect("an error");
        assert_eq!(error.kind, Kind::Corrupt, "{damage}: {error}");
    }
}

#[tokio::test]
async fn a_second_writer_is_refused() {
    let dir = scratch();
    let _log = open(dir.path());
    let second = EmbeddedLog::open(dir.path(), Arc::new(ManualClock::new(1)));
    assert_eq!(second.err().expect("an error").kind, Kind::Unavailable);
}

#[tokio::test]
async fn the_log_of_a_stopped_node_can_be_read_but_not_written() {
    let dir = scratch();
    assert_eq!(EmbeddedLog::open_read_only(dir.path()).err().expect("an error").kind, Kind::Invalid);
    let log = open(dir.path());
    log.append(Partition::Folds, payload(3)).await.unwrap();
    drop(log);
    let log = EmbeddedLog::open_read_only(dir.path()).unwrap();
    assert_eq!(all(&log, Partition::Folds).await[0].payload, payload(3));
    assert_eq!((log.end(Partition::Folds).await, log.end(Partition::Ledger).await), (Ok(1), Ok(0)));
    assert_eq!(log.append(Partition::Folds, payload(1)).await.unwrap_err().kind, Kind::Invalid);
}

#[tokio::test]
async fn closing_writes_what_was_accepted_and_tells_everybody_else() {
    let dir = scratch();
    let log = open(dir.path());
    let mut accepted: Vec<_> = (0..50).map(|_| log.append(Partition::Ledger, payload(3))).collect();
    let answered = accepted.iter_mut().filter_map(|append| append.now_or_never()).count();
    let late = log.append(Partition::Ledger, payload(1));
    let mut reader = log.reader(Partition::Changes(0), 0);
    let (closed, ()) = futures::join!(reader.ready(), async { drop(log) });
    assert_eq!(closed.unwrap_err().kind, Kind::Unavailable);
    assert_eq!(late.await.unwrap_err().kind, Kind::Unavailable);
    assert_eq!(reader.read(1).await, Ok(vec![]), "nothing was there when it closed");
    for append in accepted.into_iter().skip(answered) {
        append.await.unwrap();
    }
    assert_eq!(open(dir.path()).end(Partition::Ledger).await, Ok(50));
}
