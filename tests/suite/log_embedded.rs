//! What the embedded log adds to the contract: restarts, crashes, a full disk, a damaged disk.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use tuflog::clock::ManualClock;
use tuflog::error::Kind;
use tuflog::log::embedded::EmbeddedLog;
use tuflog::log::{Log, Offset, Partition, Record};

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
    let ballast = dir.join("ballast");
    fs::write(&ballast, vec![1; 36 << 20]).unwrap();
    let log = open(&dir.join("log"));
    let mut reader = log.reader(Partition::Ledger, 0);
    let (mut answered, mut unknown, mut refused) = (BTreeMap::new(), Vec::new(), 0);
    let append = |i: u64| log.append(Partition::Ledger, [&i.to_be_bytes()[..], &[i as u8; 150_000]].concat().into());
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
    assert!(answered.len() > 20 && !unknown.is_empty(), "{} answered, {} unknown", answered.len(), unknown.len());
    let mut seen = reader.read(usize::MAX).await.unwrap();
    assert!(seen.len() >= answered.len(), "readers do not mind a full disk");

    fs::remove_file(&ballast).unwrap();
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
    let log = open(&dir.join("log"));
    assert_eq!(all(&log, Partition::Ledger).await, seen);
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
