//! A log that lost acknowledged records, on the embedded log and on a real Kafka: what is missing is said exactly and
//! nothing is written; with the word of an operator the repository goes on from what is published, and nothing of it
//! is lost or there twice.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tuflog::audit;
use tuflog::bins::Layout;
use tuflog::change::{Batch, BatchRequest};
use tuflog::clock::SystemClock;
use tuflog::doctor::Severity;
use tuflog::error::{Error, Result};
use tuflog::ledger::Record;
use tuflog::ledger::record::{BatchRef, Commit};
use tuflog::ledger::segment::cut;
use tuflog::log::embedded::EmbeddedLog;
use tuflog::log::kafka::{KafkaLog, KafkaSettings};
use tuflog::log::{self, Log, Offset, Partition, Reader};
use tuflog::pool::Pool;
use tuflog::query::Query;
use tuflog::recover::{loss, repair};
use tuflog::store::local::LocalStore;

use crate::clients::Follower;
use crate::doctor::{doctor, find};
use crate::help::{PATIENCE, scratch};
use crate::kafka;
use crate::server::{self, Server};

const PARTITIONS: u16 = 4;
const PATHS: u64 = 32;

/// A repository of one process, and its log.
struct Site {
    runtime: Runtime,
    dir: TempDir,
    kafka: Option<KafkaSettings>,
}

impl Site {
    fn new(on_kafka: bool) -> Site {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let site = Site { runtime, dir: scratch(), kafka: on_kafka.then(|| kafka::one().fresh()) };
        let mut options = vec!["--bins", "16", "--partitions", "4"];
        if let Some(KafkaSettings { brokers, repo, .. }) = &site.kafka {
            options.extend(["--kafka-brokers", brokers, "--kafka-repo", repo]);
            options.extend(["--kafka-replication", "1", "--kafka-min-insync", "1"]);
        }
        server::init(&site.data(), &options);
        site
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn store(&self) -> PathBuf {
        self.data().join("store")
    }

    fn log(&self) -> Arc<dyn Log> {
        match &self.kafka {
            Some(settings) => Arc::new(self.runtime.block_on(KafkaLog::open(settings)).unwrap()),
            None => EmbeddedLog::open(&self.data().join("log"), Arc::new(SystemClock)).unwrap(),
        }
    }

    /// Everything in a partition of the log.
    fn records(&self, log: &dyn Log, of: Partition) -> Vec<Bytes> {
        self.runtime.block_on(async {
            let (end, mut reader) = (log.end(of).await.unwrap(), log.reader(of, 0));
            let mut all = Vec::new();
            while (all.len() as u64) < end {
                for r in reader.read(1 << 20).await.unwrap() {
                    assert_eq!(r.offset, all.len() as u64, "the tests have no gaps");
                    all.push(r.payload);
                }
            }
            all
        })
    }

    fn ledger(&self) -> Vec<Record> {
        let log = self.log();
        self.records(&*log, Partition::Ledger).iter().map(|r| Record::decode(r).unwrap()).collect()
    }

    /// The log in another place, with only the first records of each partition: that of a cluster that lost the rest.
    fn lose(&mut self, keep: impl Fn(Partition) -> Option<Offset>) {
        let partitions =
            [Partition::Ledger, Partition::Folds].into_iter().chain((0..PARTITIONS).map(Partition::Changes));
        let (old, mut copies) = (self.log(), Vec::new());
        for of in partitions {
            let mut records = self.records(&*old, of);
            records.truncate(keep(of).map_or(usize::MAX, |n| n as usize));
            copies.push((of, records));
        }
        drop(old);
        if let Some(settings) = &mut self.kafka {
            let (old, file) = (settings.repo.clone(), self.dir.path().join("data/tuflog.toml"));
            *settings = kafka::one().fresh();
            self.runtime.block_on(KafkaLog::create_topics(settings, PARTITIONS, 1, 1)).unwrap();
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.contains(&old), "{text}");
            fs::write(&file, text.replace(&format!("\"{old}\""), &format!("\"{}\"", settings.repo))).unwrap();
        } else {
            fs::remove_dir_all(self.data().join("log")).unwrap();
            fs::create_dir(self.data().join("log")).unwrap();
        }
        let new = self.log();
        for (of, records) in copies {
            for (at, r) in records.into_iter().enumerate() {
                assert_eq!(self.runtime.block_on(new.append(of, r)).unwrap(), at as u64);
            }
        }
    }

    fn serve(&self) -> Server {
        Server::start(&self.data(), &[])
    }

    /// One that makes a cut at once, and then none for long.
    fn serve_slowly(&self) -> Server {
        Server::start(&self.data(), &["--min-cut-interval-ms", "600000"])
    }

    fn run(&self, args: &[&str]) -> Output {
        let data = self.data();
        let args = [&["recover", "--data", data.to_str().unwrap(), "--json"], args].concat();
        server::command(&args).output().expect("the binary runs")
    }

    /// What is missing. Nothing is written.
    fn missing(&self, args: &[&str]) -> Value {
        let before = (self.ends(), files(&self.store()));
        let out = self.run(args);
        assert_eq!(out.status.code(), Some(4), "{}", server::said(&out));
        assert_eq!((self.ends(), files(&self.store())), before, "nothing is written");
        let report: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!((&report["missing"], &report["done"]), (&json!(true), &json!(null)));
        report
    }

    fn ends(&self) -> Vec<Offset> {
        let log = self.log();
        let partitions =
            [Partition::Ledger, Partition::Folds].into_iter().chain((0..PARTITIONS).map(Partition::Changes));
        partitions.map(|of| self.runtime.block_on(log.end(of)).unwrap()).collect()
    }

    /// Goes on without what is missing; answers what was committed again.
    fn accept(&self, args: &[&str]) -> Vec<String> {
        let start = Instant::now();
        loop {
            let out = self.run(&[&["--accept-loss"], args].concat());
            // A process that has just been killed is a member of its group until its session ends.
            if out.status.code() == Some(3) && start.elapsed() < PATIENCE {
                assert!(server::said(&out).contains("at work"), "{}", server::said(&out));
                std::thread::sleep(Duration::from_millis(300));
                continue;
            }
            assert_eq!(out.status.code(), Some(0), "{}", server::said(&out));
            let done: Value = serde_json::from_slice(&out.stdout).unwrap();
            let again = done["done"]["committed_again"].as_array().unwrap();
            return again.iter().map(|pair| pair[0].as_str().unwrap().to_owned()).collect();
        }
    }

    /// The same, where there may be nothing left to do.
    fn accept_all(&self) {
        let out = self.run(&["--accept-loss"]);
        assert_eq!(out.status.code(), Some(0), "{}", server::said(&out));
    }

    /// Nothing is missing now, whatever is asked.
    fn is_whole(&self) {
        for args in [&[][..], &["--accept-loss"]] {
            let ends = self.ends();
            let start = Instant::now();
            let out = loop {
                let out = self.run(args);
                if out.status.code() != Some(3) || start.elapsed() > PATIENCE {
                    break out;
                }
                std::thread::sleep(Duration::from_millis(300));
            };
            assert_eq!(out.status.code(), Some(0), "{}", server::said(&out));
            let report: Value = serde_json::from_slice(&out.stdout).unwrap();
            assert_eq!((&report["missing"], &report["done"]), (&json!(false), &json!(null)), "{report}");
            assert_eq!(self.ends(), ends);
        }
    }

    /// The batches that are published, each of them whole.
    fn published(&self) -> Vec<String> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for path in server::published(&self.store()).keys() {
            *counts.entry(path.split_once('/').unwrap().0.to_owned()).or_default() += 1;
        }
        assert!(counts.values().all(|n| *n == PATHS), "{counts:?}");
        counts.into_keys().collect()
    }

    fn audit(&self) -> Value {
        let out = server::command(&["audit", "--json", "--data", self.data().to_str().unwrap()]).output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{}", server::said(&out));
        serde_json::from_slice(&out.stdout).unwrap()
    }
}

fn files(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let entry = entry.unwrap();
        match entry.path().is_dir() {
            true => all.extend(files(&entry.path())),
            false => drop(all.insert(entry.path(), entry.metadata().unwrap().len())),
        }
    }
    all
}

fn batch(id: &str) -> Value {
    let add = |i| json!({"op": "add", "path": format!("{id}/{i}"), "length": 1, "hashes": {"sha256": "ab".repeat(32)}});
    json!({"id": id, "changes": (0..PATHS).map(add).collect::<Vec<_>>()})
}

/// Posts a batch; answers its receipt.
fn post_body(server: &Server, body: &str, wait: &str) -> Value {
    let addr = server.url().strip_prefix("http://").unwrap().to_owned();
    let mut stream = TcpStream::connect(&addr).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST /v1/batches?wait={wait} HTTP/1.0\r\nHost: {addr}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 ") || head.contains(" 202 "), "{answer}");
    serde_json::from_str(body).unwrap()
}

fn post(server: &Server, id: &str, wait: &str) -> Value {
    post_body(server, &batch(id).to_string(), wait)
}

/// Batches a to d published, each in a checkpoint of its own; e and f committed and not published.
fn story(site: &Site) {
    let node = site.serve();
    for id in ["a", "b", "c", "d"] {
        assert_eq!(post(&node, id, "published")["state"], "published");
    }
    node.stop();
    copy(&site.data().join("state"), &site.dir.path().join("old-state"));
    let node = site.serve_slowly();
    ["e", "f"].iter().for_each(|id| drop(post(&node, id, "committed")));
    let start = Instant::now();
    while !node.get("/v1/batches/f").is_some_and(|(_, body)| String::from_utf8_lossy(&body).contains("\"folded\"")) {
        assert!(start.elapsed() < PATIENCE, "f is not folded");
    }
    node.kill();
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status().expect("cp");
    assert!(copied.success());
}

/// Where the last Cut stands, and the Commit of a batch.
fn places(ledger: &[Record]) -> (u64, u64, BTreeMap<String, (u64, Commit)>) {
    let (mut last, mut n, mut commits) = (0, 0, BTreeMap::new());
    for (seq, record) in (0..).zip(ledger) {
        match record {
            Record::Cut(c) => (last, n) = (seq, c.n),
            Record::Commit(c) => drop(commits.insert(c.batches[0].id.clone(), (seq, c.clone()))),
            _ => {}
        }
    }
    (last, n, commits)
}

/// Where the first Recovery stands, and the first seq that it makes void.
fn recovered(ledger: &[Record]) -> (u64, u64) {
    let recovery = (0..).zip(ledger).find_map(|(at, record)| match record {
        Record::Recovery(recovery) => Some((at, recovery.kept)),
        _ => None,
    });
    recovery.expect("a Recovery")
}

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|b| b["id"].as_str().unwrap()).collect()
}

/// What is lost of the story: how much of the ledger stays, from the seqs of d's Commit and of the last Cut; and the
/// batch whose segments are gone, with all behind them.
struct Loss {
    ledger: fn(u64, u64) -> Option<u64>,
    segments: Option<&'static str>,
    published: &'static [&'static str],
    again: &'static [&'static str],
    lost_batches: &'static [&'static str],
    uncommitted: &'static [&'static str],
}

/// The ledger ends before the last Cut.
const BEFORE_CUT: Loss = Loss {
    ledger: |_, cut| Some(cut),
    segments: None,
    published: &["a", "b", "c", "d"],
    again: &[],
    lost_batches: &[],
    uncommitted: &["e", "f"],
};
/// It ends before a Commit that is published.
const BEFORE_COMMIT: Loss = Loss { ledger: |d, _| Some(d), uncommitted: &["d", "e", "f"], ..BEFORE_CUT };
/// It ends after the last Cut: its Checkpoint and what follows are lost.
const AFTER_CUT: Loss = Loss { ledger: |_, cut| Some(cut + 1), ..BEFORE_CUT };
/// The Checkpoint is there, the last Commit not.
const LAST_COMMIT: Loss = Loss { ledger: |_, cut| Some(cut + 3), again: &["e"], uncommitted: &["f"], ..BEFORE_CUT };
/// A partition of changes has lost the segments of a batch that is not published.
const SEGMENTS: Loss = Loss {
    ledger: |_, _| None,
    segments: Some("f"),
    again: &["e"],
    lost_batches: &["f"],
    uncommitted: &[],
    ..BEFORE_CUT
};
/// The same, of one that is published, and of all behind it.
const MORE_SEGMENTS: Loss = Loss { segments: Some("d"), again: &[], lost_batches: &["d", "e", "f"], ..SEGMENTS };
/// Both end early.
const BOTH: Loss = Loss { segments: Some("d"), lost_batches: &["d"], ..BEFORE_CUT };

/// Loses it all, and goes on; with a client that follows, if `followed`.
fn loses(on_kafka: bool, loss: &Loss, followed: bool) {
    let mut site = Site::new(on_kafka);
    story(&site);
    let follow = || Follower::start(&site.data().join("root.json"), &site.store(), site.dir.path());
    let follower = followed.then(follow);
    assert_eq!(site.published(), ["a", "b", "c", "d"]);
    let ledger = site.ledger();
    let (cut, n, commits) = places(&ledger);
    let keep = (loss.ledger)(commits["d"].0, cut);
    let gone = loss.segments.map(|id| commits[id].1.segments[0].clone());
    site.lose(|of| match of {
        Partition::Ledger => keep,
        Partition::Changes(p) => gone.as_ref().filter(|s| s.partition == p).map(|s| s.offset),
        _ => None,
    });

    // A node refuses to start where it can tell, and says what helps.
    if keep.is_none_or(|keep| keep <= cut + 1) {
        let data = site.data();
        let args = ["serve", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        let out = server::command(&args).output().unwrap();
        assert_eq!(out.status.code(), Some(4), "{}", server::said(&out));
        assert!(server::said(&out).contains("tuflog recover"), "{}", server::said(&out));
    }

    // Exactly what is missing is said.
    let file = site.dir.path().join("lost.jsonl");
    let report = site.missing(&["--save", file.to_str().unwrap()]);
    let end = ledger.len() as u64;
    let lost = keep.map(|keep| json!([keep, end]));
    assert_eq!(report["lost_seqs"], lost.unwrap_or(json!(null)), "{report:#}");
    assert_eq!((&report["checkpoint"], &report["ledger_end"]), (&json!(n), &json!(keep.unwrap_or(end))), "{report:#}");
    assert_eq!(ids(&report["again"]), loss.again, "{report:#}");
    assert_eq!(ids(&report["lost_batches"]), loss.lost_batches, "{report:#}");
    for b in report["lost_batches"].as_array().unwrap() {
        assert_eq!(b["published"], b["id"] == "d", "{report:#}");
    }
    if loss.segments.is_none() {
        assert_eq!(ids(&report["uncommitted"]), loss.uncommitted, "{report:#}");
        for b in report["uncommitted"].as_array().unwrap() {
            assert_eq!(b["published"], b["id"] == "d", "{report:#}");
        }
    }
    let named: Vec<Value> = commits
        .iter()
        .filter(|(_, (seq, _))| keep.is_none_or(|keep| *seq < keep))
        .flat_map(|(_, (seq, c))| c.segments.iter().map(move |s| (seq, s)))
        .filter(|(_, s)| gone.as_ref().is_some_and(|g| g.partition == s.partition && s.offset >= g.offset))
        .map(|(seq, s)| json!({"partition": s.partition, "offset": s.offset, "seq": seq, "other": false}))
        .collect();
    assert_eq!(report["lost_segments"], json!(named), "{report:#}");

    // It goes on.
    assert_eq!(site.accept(&[]), loss.again);
    site.is_whole();
    let node = site.serve();
    post(&node, "g", "published");
    if on_kafka {
        // Nobody recovers what others work on.
        let (other, config) = (site.dir.path().join("other"), site.data().join("tuflog.toml"));
        let args = ["recover", "--data", other.to_str().unwrap(), "--config", config.to_str().unwrap()];
        let out = server::command(&[&args[..], &["--accept-loss"]].concat()).output().unwrap();
        let said = server::said(&out);
        assert!(out.status.code() == Some(3) && said.contains(".folds") && said.contains(".inbox"), "{said}");
        assert!(said.contains("1 × ") && said.contains("for 6 s"), "{said}");
    } else {
        let out = site.run(&[]);
        let said = server::said(&out);
        assert!(out.status.code() == Some(3) && said.contains("stop it first") && !said.contains("--server"), "{said}");
    }
    let published = |more: &[&str]| {
        let mut all: Vec<String> = [loss.published, loss.again, more].concat().iter().map(|s| s.to_string()).collect();
        all.sort();
        all
    };
    assert_eq!(site.published(), published(&["g"]));
    // What is known is known, what is not is taken: here what was saved.
    assert_eq!(post(&node, "a", "published")["state"], "published");
    let saved = fs::read_to_string(&file).unwrap();
    let mut more = vec!["g"];
    if loss.segments.is_none() {
        let salvaged: Vec<String> = loss.uncommitted.iter().map(|id| format!("salvaged:{id}")).collect();
        assert_eq!(lines(&file), salvaged);
        saved.lines().for_each(|line| drop(post_body(&node, line, "published")));
        more.extend(loss.uncommitted.iter().filter(|id| **id != "d"));
        // The producer's own retry is no conflict.
        loss.uncommitted.iter().for_each(|id| assert_eq!(post(&node, id, "published")["state"], "published"));
    }
    for id in loss.lost_batches.iter().filter(|id| **id != "d") {
        post(&node, id, "published");
        more.push(id);
    }
    assert_eq!(site.published(), published(&more));
    node.stop();
    site.serve().stop();
    site.is_whole();
    // At every place that is void, what is published is the checkpoint that it goes on from.
    let (at, kept) = recovered(&site.ledger());
    for seq in [kept - 1, kept, at - 1, at] {
        let (data, place) = (site.data(), format!("seq:{seq}"));
        let then = server::run(&["bins", "--at", &place, "--json", "--data", data.to_str().unwrap()]);
        let then: Value = serde_json::from_str(&then).unwrap();
        assert_eq!(then["checkpoint"], n, "at {place} of {kept} to {at}");
    }
    let audit = site.audit();
    assert_eq!(audit["recoveries"][0]["checkpoint"], json!(n), "{audit:#}");
    assert!(follower.is_none_or(|f| f.stop() > 0));
}

#[test]
fn the_embedded_ledger_ends_before_the_last_cut() {
    loses(false, &BEFORE_CUT, false);
}

#[test]
fn the_embedded_ledger_ends_before_a_published_commit() {
    loses(false, &BEFORE_COMMIT, false);
}

#[test]
fn the_embedded_ledger_ends_before_the_last_checkpoint() {
    loses(false, &AFTER_CUT, false);
}

#[test]
fn the_embedded_ledger_lost_its_last_commit() {
    loses(false, &LAST_COMMIT, false);
}

#[test]
fn embedded_segments_are_lost() {
    loses(false, &SEGMENTS, false);
}

#[test]
fn embedded_segments_that_are_published_are_lost() {
    loses(false, &MORE_SEGMENTS, false);
}

#[test]
fn the_embedded_ledger_and_segments_are_lost() {
    loses(false, &BOTH, true);
}

#[test]
fn a_ledger_on_kafka_ends_before_the_last_cut() {
    loses(true, &BEFORE_CUT, false);
}

#[test]
fn segments_on_kafka_are_lost() {
    loses(true, &SEGMENTS, false);
}

#[test]
fn a_ledger_and_segments_on_kafka_are_lost() {
    loses(true, &BOTH, true);
}

/// Appends nothing any more after so many records.
struct Stopping {
    log: Arc<dyn Log>,
    left: AtomicU64,
}

impl Log for Stopping {
    fn append(&self, to: Partition, payload: Bytes) -> BoxFuture<'static, Result<Offset>> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match left {
            Ok(_) => self.log.append(to, payload),
            Err(_) => Box::pin(async { Err(Error::unavailable("cut off")) }),
        }
    }

    fn reader(&self, of: Partition, from: Offset) -> Box<dyn Reader> {
        self.log.reader(of, from)
    }

    fn fetch(&self, of: Partition, at: Offset) -> BoxFuture<'_, Result<Option<log::Record>>> {
        self.log.fetch(of, at)
    }

    fn end(&self, of: Partition) -> BoxFuture<'_, Result<Offset>> {
        self.log.end(of)
    }
}

/// Recovers up to so many appends; answers whether that was enough.
async fn recover_until(log: Arc<dyn Log>, store: &LocalStore, state: &Path, appends: u64) -> bool {
    let log: Arc<dyn Log> = Arc::new(Stopping { log, left: AtomicU64::new(appends) });
    let survey = loss::survey(&*log, store, Some(state), None).await.unwrap();
    let (seq, recovery) = match survey.unfinished.clone() {
        Some(unfinished) => (unfinished.seq, unfinished.recovery),
        None if !survey.report.is_missing() => return true,
        None => match repair::recover(&*log, store, &survey.plan).await {
            Ok(recovered) => recovered,
            Err(_) => return false,
        },
    };
    repair::commit_again(log, store, Pool::Inline, (seq, &recovery)).await.is_ok()
}

fn lines(file: &Path) -> Vec<String> {
    let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
    fs::read_to_string(file).unwrap().lines().map(id).collect()
}

#[test]
fn what_was_saved_is_never_replaced() {
    let mut site = Site::new(false);
    story(&site);
    let (cut, ..) = places(&site.ledger());
    site.lose(|of| if of == Partition::Ledger { Some(cut + 3) } else { None });
    let place = |name: &str| site.dir.path().join(name);
    let (file, again) = (place("lost"), place("lost.again"));
    let save = |file: &Path| site.run(&["--accept-loss", "--save", file.to_str().unwrap()]);
    // One that stands in the way is refused before anything is written.
    for (name, other) in [("lost", &again), ("lost.again", &file)] {
        let ends = site.ends();
        fs::write(place(name), "mine").unwrap();
        let out = save(&file);
        let said = server::said(&out);
        assert!(out.status.code() == Some(2) && said.contains(name) && said.contains("name another file"), "{said}");
        assert_eq!((fs::read(place(name)).unwrap(), other.exists()), (b"mine".to_vec(), false));
        assert_eq!(site.ends(), ends);
        fs::remove_file(place(name)).unwrap();
    }
    assert_eq!(site.accept(&["--save", file.to_str().unwrap()]), ["e"]);
    let saved = (fs::read(&file).unwrap(), fs::read(&again).unwrap());
    assert_eq!((lines(&file).len(), lines(&again)), (1, vec!["e".to_owned()]));
    assert_eq!(save(&file).status.code(), Some(2));
    assert_eq!((fs::read(&file).unwrap(), fs::read(&again).unwrap()), saved);
    // With nothing missing any more another name holds what is left: nothing to be committed again.
    assert_eq!(save(&place("more")).status.code(), Some(0));
    assert_eq!(lines(&place("more.again")), [""; 0]);
}

/// A site whose recovery was cut off right after its Recovery: e is still to be committed again.
fn unfinished() -> Site {
    let mut site = Site::new(false);
    story(&site);
    let (_, _, commits) = places(&site.ledger());
    let gone = commits["f"].1.segments[0].clone();
    site.lose(|of| (of == Partition::Changes(gone.partition)).then_some(gone.offset));
    let store = LocalStore::open(&site.store()).unwrap();
    let state = site.data().join("state");
    assert!(!site.runtime.block_on(recover_until(site.log(), &store, &state, 1)));
    assert!(matches!(site.ledger().last(), Some(Record::Recovery(_))));
    site
}

#[test]
fn an_unfinished_recovery_is_reported_and_the_run_that_finishes_it_saves() {
    let site = unfinished();
    let seq = site.ledger().len() as u64 - 1;
    let place = |name: &str| site.dir.path().join(name);
    let report = site.missing(&["--save", place("first").to_str().unwrap()]);
    assert_eq!((ids(&report["again"]), &report["unfinished"]), (vec!["e"], &json!(seq)), "{report:#}");
    assert_eq!(lines(&place("first.again")), ["e"]);
    let data = site.data();
    let out = server::command(&["recover", "--data", data.to_str().unwrap()]).output().unwrap();
    let said = server::said(&out);
    assert_eq!(out.status.code(), Some(4), "{said}");
    let whole = format!("ledger       {} records, none of them missing", seq + 1);
    assert!(said.contains(&whole) && !said.contains("ends before"), "{said}");
    assert!(
        said.contains("to be committed again: 1\n  e of seq ") && said.contains("--accept-loss finishes"),
        "{said}"
    );
    assert_eq!(site.accept(&["--save", place("second").to_str().unwrap()]), ["e"]);
    assert_eq!(lines(&place("second.again")), ["e"]);
    site.is_whole();
}

#[test]
fn serve_finishes_an_unfinished_recovery_before_it_takes_batches() {
    let site = unfinished();
    let report = doctor(&["--data", site.data().to_str().unwrap()], &[]);
    find(&report, Severity::Warning, "log.unfinished-recovery", &["1 batch", "finishes it"]);
    // Also one without bin state.
    fs::remove_dir_all(site.data().join("state")).unwrap();
    let node = site.serve();
    post(&node, "g", "published");
    node.stop();
    assert_eq!(site.published(), ["a", "b", "c", "d", "e", "g"]);
    let (_, _, commits) = places(&site.ledger());
    assert!(commits["e"].0 < commits["g"].0, "e comes first: {commits:?}");
    let report = doctor(&["--data", site.data().to_str().unwrap()], &[]);
    assert!(report.findings.iter().all(|f| f.check != "unfinished-recovery"), "{report:#?}");
    site.is_whole();
    assert_eq!(site.audit()["recoveries"].as_array().unwrap().len(), 1);
}

#[test]
fn a_recovery_that_stands_twice_is_one() {
    // An append without an answer may have happened twice.
    let site = unfinished();
    let recovery = site.ledger().pop().unwrap();
    let log = site.log();
    site.runtime.block_on(log.append(Partition::Ledger, recovery.encode())).unwrap();
    drop(log);
    let node = site.serve();
    post(&node, "g", "published");
    node.stop();
    assert_eq!(site.published(), ["a", "b", "c", "d", "e", "g"]);
    site.is_whole();
}

/// Cut off after every so many appends, then done again.
fn cut_off(loss: &Loss, appends: impl Iterator<Item = u64>) {
    let mut site = Site::new(false);
    story(&site);
    let (cut, _, commits) = places(&site.ledger());
    let gone = loss.segments.map(|id| commits[id].1.segments[0].clone());
    let keep = (loss.ledger)(commits["d"].0, cut);
    site.lose(|of| match of {
        Partition::Ledger => keep,
        Partition::Changes(p) => gone.as_ref().filter(|s| s.partition == p).map(|s| s.offset),
        _ => None,
    });
    let (data, original) = (site.data(), site.dir.path().join("original"));
    fs::rename(&data, &original).unwrap();
    let mut enough = 0;
    for appends in appends {
        copy(&original, &data);
        let store = LocalStore::open(&site.store()).unwrap();
        let mut times = 0;
        loop {
            let log = site.log();
            let done = site.runtime.block_on(recover_until(log, &store, &data.join("state"), appends));
            times += 1;
            if done {
                break;
            }
            assert!(appends > 0 || times < 3, "nothing can be done with no append");
            if times == 2 {
                drop(store);
                break;
            }
        }
        enough += u64::from(times == 1);
        site.accept_all();
        let node = site.serve();
        post(&node, "g", "published");
        node.stop();
        let mut all = [loss.published, loss.again, &["g"]].concat();
        all.sort();
        assert_eq!(site.published(), all, "after {appends} appends");
        assert_eq!(site.audit()["recoveries"].as_array().unwrap().len(), 1, "after {appends} appends");
        let ledger = site.ledger();
        let commits = ledger.iter().filter_map(|r| if let Record::Commit(c) = r { Some(&c.batches) } else { None });
        for id in loss.again {
            let times = commits.clone().flatten().filter(|b| b.id == *id).count();
            assert_eq!(times, 2, "{id}: once before and once after");
        }
        fs::remove_dir_all(&data).unwrap();
    }
    assert!(enough > 0, "the last one is not cut off");
}

#[test]
fn a_recovery_that_is_cut_off_while_it_commits_again_is_done_again() {
    cut_off(&SEGMENTS, (0..7).chain([100]));
}

#[test]
fn a_recovery_that_is_cut_off_while_it_fills_the_ledger_is_done_again() {
    cut_off(&BEFORE_CUT, [0, 1, 100, 1_000].into_iter());
}

#[test]
fn what_was_on_its_way_is_void_and_a_worker_with_old_bin_state_goes_on() {
    let mut site = Site::new(false);
    story(&site);
    let (_, _, commits) = places(&site.ledger());
    let gone = commits["f"].1.segments[0].clone();
    site.lose(|of| (of == Partition::Changes(gone.partition)).then_some(gone.offset));
    let data = site.data();
    let out = server::command(&["recover", "--data", data.to_str().unwrap()]).output().unwrap();
    let (said, f) = (server::said(&out), &commits["f"]);
    println!("{said}");
    let segment = format!("  partition {}, offset {} of Commit {}: is gone\n", gone.partition, gone.offset, f.0);
    let lost =
        format!("lost batches: 1\n  f of seq {}: not published\nwhole, to be committed again: 1\n  e of seq ", f.0);
    assert!(said.contains(&segment) && said.contains(&lost) && said.contains("nothing was written"), "{said}");
    assert_eq!(site.accept(&[]), ["e"]);
    // Of an intake that stood still: its Commit, with the basis that it had.
    let late = commits["c"].1.clone();
    let batches = late.batches.iter().map(|b| BatchRef { id: "late".into(), ..b.clone() }).collect();
    let late = Record::Commit(Commit { batches, ..late });
    site.runtime.block_on(site.log().append(Partition::Ledger, late.encode())).unwrap();
    fs::remove_dir_all(site.data().join("state")).unwrap();
    fs::rename(site.dir.path().join("old-state"), site.data().join("state")).unwrap();
    let node = site.serve();
    post(&node, "g", "published");
    let (status, _) = node.get("/v1/batches/late?history=full").unwrap();
    assert_eq!(status, 404);
    let (status, body) = node.get("/v1/batches/a?history=full").unwrap();
    assert!(status == 200 && String::from_utf8_lossy(&body).contains("published"));
    node.stop();
    assert_eq!(site.published(), ["a", "b", "c", "d", "e", "g"]);
    let audit = site.audit();
    assert_eq!((&audit["batches_void"], &audit["findings"]), (&json!(1), &json!([])), "{audit:#}");
}

/// A log whose ledger has lost its beginning.
struct Headless {
    log: Arc<dyn Log>,
    first: Offset,
}

impl Log for Headless {
    fn append(&self, to: Partition, payload: Bytes) -> BoxFuture<'static, Result<Offset>> {
        self.log.append(to, payload)
    }

    fn reader(&self, of: Partition, from: Offset) -> Box<dyn Reader> {
        self.log.reader(of, if of == Partition::Ledger { from.max(self.first) } else { from })
    }

    fn fetch(&self, of: Partition, at: Offset) -> BoxFuture<'_, Result<Option<log::Record>>> {
        match of == Partition::Ledger && at < self.first {
            true => Box::pin(async { Ok(None) }),
            false => self.log.fetch(of, at),
        }
    }

    fn end(&self, of: Partition) -> BoxFuture<'_, Result<Offset>> {
        self.log.end(of)
    }
}

#[test]
fn a_ledger_that_lost_its_beginning_goes_on_from_a_stored_state() {
    let site = Site::new(false);
    let node = site.serve();
    let all: Vec<String> = (0..66).map(|i| format!("b{i}")).collect();
    all.iter().for_each(|id| drop(post(&node, id, "published")));
    node.stop();
    let store = Arc::new(LocalStore::open(&site.store()).unwrap());
    let log: Arc<dyn Log> = Arc::new(Headless { log: site.log(), first: 7 });
    let recovered = site.runtime.block_on(async {
        let survey = loss::survey(&*log, &*store, None, None).await.unwrap();
        assert_eq!((survey.report.ledger_begins, survey.report.lost_seqs), (Some(7), None));
        assert!(survey.report.lost_segments.is_empty() && survey.report.uncommitted.is_empty());
        let (seq, recovery) = repair::recover(&*log, &*store, &survey.plan).await.unwrap();
        let again = repair::commit_again(log.clone(), &*store, Pool::Inline, (seq, &recovery)).await.unwrap();
        assert_eq!(again, []);
        assert!(!loss::survey(&*log, &*store, None, None).await.unwrap().report.is_missing());
        let query = Query::new(log.clone(), store.clone(), Pool::Inline);
        assert_eq!(query.layout().await.unwrap().bins(), 16);
        let report = audit::run(log, store, audit::Options::default(), |_| ()).await.unwrap();
        assert!(report.is_clean(), "{report}");
        assert_eq!((report.recoveries[0].from, report.recoveries[0].to), (0, seq));
        recovery
    });
    let node = site.serve();
    post(&node, "g", "published");
    assert_eq!(post(&node, "b65", "published")["checkpoint"], recovered.n, "it is remembered");
    node.stop();
    assert_eq!(site.published().len(), 67);
}

/// A log of which one record of changes is gone.
struct Holed {
    log: Arc<dyn Log>,
    at: (u16, Offset),
}

struct HoledReader(Box<dyn Reader>, Offset);

impl Reader for HoledReader {
    fn read(&mut self, max_bytes: usize) -> BoxFuture<'_, Result<Vec<log::Record>>> {
        Box::pin(async move {
            let mut records = self.0.read(max_bytes).await?;
            records.retain(|r| r.offset != self.1);
            Ok(records)
        })
    }

    fn ready(&mut self) -> BoxFuture<'_, Result<()>> {
        self.0.ready()
    }

    fn seek(&mut self, at: Offset) {
        self.0.seek(at);
    }
}

impl Log for Holed {
    fn append(&self, to: Partition, payload: Bytes) -> BoxFuture<'static, Result<Offset>> {
        self.log.append(to, payload)
    }

    fn reader(&self, of: Partition, from: Offset) -> Box<dyn Reader> {
        let reader = self.log.reader(of, from);
        if of == Partition::Changes(self.at.0) { Box::new(HoledReader(reader, self.at.1)) } else { reader }
    }

    fn fetch(&self, of: Partition, at: Offset) -> BoxFuture<'_, Result<Option<log::Record>>> {
        self.log.fetch(of, at)
    }

    fn end(&self, of: Partition) -> BoxFuture<'_, Result<Offset>> {
        self.log.end(of)
    }
}

#[test]
fn an_uncommitted_batch_with_a_hole_is_known_to_be_incomplete() {
    let site = Site::new(false);
    let node = site.serve();
    post(&node, "a", "published");
    node.stop();
    let (log, store) = (site.log(), LocalStore::open(&site.store()).unwrap());
    let (long, longer) = ("l".repeat(128), format!("{}x", "l".repeat(127)));
    let request = BatchRequest::parse(batch("h").to_string().as_bytes()).unwrap();
    let changes = request.validate(|| "h".into(), &[]).unwrap().changes;
    let cuts = ["h", &long, &longer].map(|id| {
        let batch = Batch::new(id.to_owned(), None, changes.clone()).unwrap();
        cut(&[batch], Layout::new(16, 4).unwrap(), 256).segments
    });
    let mut offsets: Vec<(u16, Offset)> = Vec::new();
    for (i, segments) in cuts.into_iter().enumerate() {
        for (partition, bytes) in segments {
            let at = site.runtime.block_on(log.append(Partition::Changes(partition), bytes)).unwrap();
            if i == 0 {
                offsets.push((partition, at));
            }
        }
    }
    // One of the first batch's that has others of it on both sides.
    let of = |p: u16| offsets.iter().filter(move |(partition, _)| *partition == p).map(|(_, at)| *at);
    let partition = (0..PARTITIONS).max_by_key(|p| of(*p).count()).unwrap();
    let at = of(partition).nth(1).unwrap();
    assert!(of(partition).count() > 2);
    let holed: Arc<dyn Log> = Arc::new(Holed { log: log.clone(), at: (partition, at) });
    let survey = |log: Arc<dyn Log>| site.runtime.block_on(loss::survey(&*log, &store, None, None)).unwrap().report;
    let found = survey(holed).uncommitted;
    let incomplete: Vec<(&str, bool)> = found.iter().map(|u| (u.id.as_str(), u.incomplete)).collect();
    assert_eq!(incomplete, [("h", true), (long.as_str(), false), (longer.as_str(), false)]);
    assert!(survey(log.clone()).uncommitted.iter().all(|u| !u.incomplete && u.changes == PATHS as usize));
    // Ids that are too long stay different.
    assert_eq!(found[0].salvage_id, "salvaged:h");
    assert!(found[1].salvage_id.len() == 128 && found[2].salvage_id.len() == 128);
    assert_ne!(found[1].salvage_id, found[2].salvage_id);
}

/// Nothing of the ledger is left, or nothing of the whole log.
fn loses_the_ledger(on_kafka: bool, keep: Option<u64>) {
    let mut site = Site::new(on_kafka);
    story(&site);
    site.lose(|of| if of == Partition::Ledger { Some(0) } else { keep });
    let given: &[&str] = if on_kafka { &[] } else { &["--partitions", "4"] };
    let report = site.missing(given);
    assert_eq!((&report["checkpoint"], &report["ledger_end"]), (&json!(5), &json!(0)), "{report:#}");
    let there: &[&str] = if keep.is_none() { &["a", "b", "c", "d", "e", "f"] } else { &[] };
    assert_eq!(ids(&report["uncommitted"]), there, "{report:#}");
    for b in report["uncommitted"].as_array().unwrap() {
        assert_eq!(b["published"], json!(!["e", "f"].contains(&b["id"].as_str().unwrap())), "{report:#}");
    }
    assert_eq!(site.accept(given), [""; 0]);
    site.is_whole();
    let node = site.serve();
    for id in ["e", "f", "g"] {
        post(&node, id, "published");
    }
    node.stop();
    site.serve().stop();
    assert_eq!(site.published(), ["a", "b", "c", "d", "e", "f", "g"]);
    assert_eq!(site.audit()["recoveries"].as_array().unwrap().len(), 1);
}

#[test]
fn an_embedded_repository_without_its_ledger_goes_on() {
    loses_the_ledger(false, None);
}

#[test]
fn a_repository_on_kafka_without_any_of_its_log_goes_on() {
    loses_the_ledger(true, Some(0));
}
