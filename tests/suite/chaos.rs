//! Several processes on a real Kafka of three nodes and a store that is slow and fails, all of them killed, stopped
//! where they stand and started again while producers post batches that span partitions.
//!
//! At the end every acknowledged batch is there exactly once, no batch is split in any checkpoint that was ever
//! published, the audit is clean, and a python-tuf client that kept its cache has followed without an error. A short
//! schedule by default; `KILLS=n` for more blows, `SEED=n` for others.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tuflog::log::kafka::KafkaLog;

use crate::clients::Follower;
use crate::help::{self, PATIENCE};
use crate::kafka::Cluster;
use crate::s3::proxy::{Act, Proxy, Seen};
use crate::s3::{ACCESS_KEY, Bucket, SECRET_KEY};
use crate::server::{self, Server};
use crate::writers::{self, Known};

const WRITERS: u64 = 6;
const CREDENTIALS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
/// What each process does.
const ROLES: [&str; 4] = ["intake,fold,compact,http", "intake,http,compact", "fold,compact", "intake,fold,http"];

/// A worker, and what has been done to it.
struct Worker {
    data: PathBuf,
    roles: &'static str,
    server: Option<Server>,
    stopped: bool,
}

impl Worker {
    fn start(&mut self) {
        let options = ["--roles", self.roles, "--patience-ms", "500", "--min-free-mib", "0"];
        self.server = Some(Server::spawn(&self.data, &options, &CREDENTIALS));
        self.stopped = false;
    }

    fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
    }

    fn halt(&mut self) {
        if let Some(server) = self.server.as_ref().filter(|_| !self.stopped) {
            server.signal(rustix::process::Signal::STOP);
            self.stopped = true;
        }
    }

    fn wake(&mut self) {
        if let Some(server) = self.server.as_ref().filter(|_| self.stopped) {
            server.signal(rustix::process::Signal::CONT);
            self.stopped = false;
        }
    }

    /// Where producers reach it, if they can.
    fn url(&self) -> Option<String> {
        let takes = self.roles.contains("intake") && !self.stopped;
        self.server.as_ref().filter(|_| takes).and_then(Server::found_url)
    }
}

/// Reads timestamp.json from one node after the other for as long as the test runs: it never goes back.
async fn watch(known: Arc<Known>, seen: Arc<AtomicU64>) {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
    while !known.stop.load(Ordering::SeqCst) {
        let urls = known.urls.lock().unwrap().clone();
        if let Some(url) = fastrand::choice(&urls)
            && let Ok(answer) = client.get(format!("{url}/metadata/timestamp.json")).send().await
            && answer.status() == 200
            && let Ok(timestamp) = answer.json::<Value>().await
        {
            let version = timestamp["signed"]["version"].as_u64().expect("a version");
            let before = seen.fetch_max(version, Ordering::SeqCst);
            assert!(version >= before, "timestamp {version} after {before}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn nothing_is_lost_or_split_while_everything_dies() {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (blows, seed) = (number("KILLS", 14), number("SEED", 1));
    let mut dice = fastrand::Rng::with_seed(seed);
    let (scratch, bucket, cluster) = (help::scratch(), Bucket::new(), Cluster::start(3));
    let settings = cluster.fresh();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let proxy = runtime.block_on(Proxy::start(|_: &Seen| Act::Pass));
    let through = bucket.through(&proxy);

    let mut workers: Vec<Worker> = Vec::new();
    for (i, roles) in ROLES.into_iter().enumerate() {
        let data = scratch.path().join(format!("worker-{i}"));
        if i == 0 {
            let kafka = ["--kafka-brokers", &settings.brokers, "--kafka-repo", &settings.repo];
            server::init(&data, &[&["--bins", "32", "--partitions", "8"], &kafka[..]].concat());
        } else {
            std::fs::create_dir(&data).unwrap();
        }
        let text = format!(
            "keys = \"../worker-0/keys\"\n[kafka]\nbrokers = \"{}\"\nrepo = \"{}\"\n[store]\nurl = \"{}\"\n\
             endpoint = \"{}\"\nallow_http = true\n",
            settings.brokers,
            settings.repo,
            through.url(),
            through.endpoint()
        );
        std::fs::write(data.join("tuflog.toml"), text).unwrap();
        workers.push(Worker { data, roles, server: None, stopped: false });
    }
    workers.iter_mut().for_each(Worker::start);
    for worker in &workers {
        worker.server.as_ref().unwrap().wait_ready();
    }

    let known = Arc::new(Known::default());
    let timestamp = Arc::new(AtomicU64::new(0));
    let tell = |workers: &[Worker]| *known.urls.lock().unwrap() = workers.iter().filter_map(Worker::url).collect();
    tell(&workers);
    let writing: Vec<_> = (0..WRITERS).map(|w| runtime.spawn(writers::write(known.clone(), w))).collect();
    let watching = runtime.spawn(watch(known.clone(), timestamp.clone()));
    let published = bucket.dir.join("a/prefix");
    let follower = Follower::start(&workers[0].data.join("root.json"), &published, scratch.path());

    let mut broker_down = None;
    for blow in 0..blows {
        std::thread::sleep(Duration::from_millis(dice.u64(200..2_500)));
        let at = dice.usize(0..workers.len());
        let worker = &mut workers[at];
        match dice.u32(0..12) {
            0..=3 => worker.kill(),
            4 => {
                worker.kill();
                let _ = std::fs::remove_dir_all(worker.data.join("state")); // its disk is lost
            }
            5 | 6 => worker.halt(),
            7 => worker.wake(),
            8 => {
                // One broker at a time: two of three would be an outage, not a blow.
                match broker_down.take() {
                    Some(n) => cluster.restart(n),
                    None => {
                        let n = dice.usize(1..4);
                        cluster.kill(n);
                        broker_down = Some(n);
                    }
                }
            }
            9 => {
                let ms = dice.u64(5..200);
                proxy.rule(move |_| Act::Late(Duration::from_millis(ms)));
            }
            10 => {
                let chance = dice.u64(2..8);
                proxy.rule(move |seen: &Seen| match fastrand::u64(0..chance) {
                    0 if seen.is_put() => Act::DropAnswer,
                    1 => Act::Answer(503, "busy"),
                    _ => Act::Pass,
                });
            }
            _ => proxy.rule(|_| Act::Pass),
        }
        // Somebody always works: the dead come back sooner or later.
        for other in &mut workers {
            if other.server.as_ref().is_none_or(Server::has_ended) && dice.bool() {
                other.start();
            } else if other.stopped && dice.u32(0..4) == 0 {
                other.wake();
            }
        }
        tell(&workers);
        println!("blow {blow}: {} acknowledged", known.acknowledged.lock().unwrap().len());
    }

    // Everything heals, and what was accepted is answered and published.
    proxy.rule(|_| Act::Pass);
    if let Some(n) = broker_down.take() {
        cluster.restart(n);
    }
    cluster.wait();
    for worker in &mut workers {
        worker.wake();
        if worker.server.as_ref().is_none_or(Server::has_ended) {
            worker.start();
        }
    }
    for worker in &workers {
        worker.server.as_ref().unwrap().wait_ready();
    }
    tell(&workers);
    known.stop.store(true, Ordering::SeqCst);
    runtime.block_on(async {
        for task in writing.into_iter().chain([watching]) {
            tokio::time::timeout(PATIENCE, task).await.expect("every batch is acknowledged in the end").unwrap();
        }
    });
    let follows = follower.stop();
    for worker in &mut workers {
        worker.server.take().unwrap().stop();
    }

    let acknowledged = known.acknowledged.lock().unwrap();
    assert!(acknowledged.len() as u64 > blows, "the writers got something done");
    let log = runtime.block_on(KafkaLog::open(&settings)).unwrap();
    runtime.block_on(writers::check_ledger(&log, &acknowledged));
    writers::check_published(&server::published(&published), &acknowledged);
    let checkpoints = check_every_checkpoint(&published);
    let out = server::command(&["audit", "--data", workers[1].data.to_str().unwrap()]).envs(CREDENTIALS).output();
    let out = out.expect("the binary runs");
    assert!(out.status.success(), "{}", server::said(&out));
    println!(
        "{blows} blows, {} batches in {} posts, {checkpoints} checkpoints walked, {follows} refreshes of python-tuf",
        acknowledged.len(),
        known.posts.load(Ordering::Relaxed)
    );
}

/// Walks every snapshot that was ever stored: each batch is in it whole or not at all. Answers how many there were.
fn check_every_checkpoint(store: &Path) -> usize {
    let read = |name: String| -> Option<Value> {
        let bytes = std::fs::read(store.join("metadata").join(name)).ok()?;
        Some(serde_json::from_slice(&bytes).unwrap())
    };
    let mut bins: BTreeMap<String, (u64, HashMap<String, u64>)> = BTreeMap::new();
    let mut total: HashMap<String, u64> = HashMap::new();
    let mut n = 0;
    while let Some(snapshot) = read(format!("{}.snapshot.json", n + 1)) {
        n += 1;
        for (role, meta) in snapshot["signed"]["meta"].as_object().unwrap() {
            let version = meta["version"].as_u64().unwrap();
            if role == "targets.json" || bins.get(role).is_some_and(|(v, _)| *v == version) {
                continue;
            }
            let file = read(format!("{version}.{role}")).unwrap_or_else(|| panic!("{version}.{role} is not stored"));
            let mut counts: HashMap<String, u64> = HashMap::new();
            for path in file["signed"]["targets"].as_object().unwrap().keys() {
                if let Some((id, _)) = path.split_once('/') {
                    *counts.entry(id.to_owned()).or_default() += 1;
                }
            }
            for (id, count) in &counts {
                *total.entry(id.clone()).or_default() += count;
            }
            if let Some((_, before)) = bins.insert(role.clone(), (version, counts)) {
                for (id, count) in before {
                    *total.get_mut(&id).unwrap() -= count;
                }
            }
        }
        for (id, count) in &total {
            assert!([0, writers::left_of(id)].contains(count), "checkpoint {n} has {count} paths of {id}");
        }
    }
    n
}
