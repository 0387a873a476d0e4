//! The real binary, killed with -9 at random moments under load and started again, many times: at the end the audit is
//! clean and every acknowledged batch is there exactly once. `KILLS=n` for more; `SEED=n` for other moments.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tuflog::clock::SystemClock;
use tuflog::ledger::state::{Event, Outcome, State};
use tuflog::ledger::{Follower, Record};
use tuflog::log::embedded::EmbeddedLog;

use crate::help;
use crate::server::{self, Server};

const WRITERS: u64 = 6;

/// What the writers know.
#[derive(Default)]
struct Known {
    /// Acknowledged: id → seq.
    acknowledged: Mutex<BTreeMap<String, u64>>,
    /// The address that answers now.
    url: Mutex<Option<String>>,
    stop: AtomicBool,
    posts: AtomicU64,
}

/// A batch of a writer: adds of its own paths over all partitions, and a replacement of a path that all share.
fn batch(id: &str, n: u64) -> Value {
    let add = |path: String, length: u64| json!({"op": "add", "path": path, "length": length, "hashes": {"sha256": "ab".repeat(32)}});
    let mut changes: Vec<Value> = (0..n).map(|i| add(format!("{id}/{i}"), i)).collect();
    changes.push(add("shared".into(), n));
    changes.push(json!({"op": "remove", "path": format!("{id}/0")}));
    json!({"id": id, "changes": changes})
}

/// Posts batches for ever, each until it is acknowledged, with one id however often.
async fn write(known: Arc<Known>, writer: u64) {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
    let mut k = 0;
    while !known.stop.load(Ordering::SeqCst) {
        let id = format!("w{writer}-{k}");
        let body = batch(&id, 1 + (k * 7 + writer) % 40);
        let mut basis: Option<u64> = None;
        loop {
            let url = known.url.lock().unwrap().clone();
            let Some(url) = url else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let mut body = body.clone();
            if let Some(basis) = basis {
                body["basis"] = basis.into();
            }
            known.posts.fetch_add(1, Ordering::Relaxed);
            let sent = client.post(format!("{url}/v1/batches")).json(&body).send().await;
            let Ok(answer) = sent else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let status = answer.status();
            let Ok(answer) = answer.json::<Value>().await else { continue };
            match status.as_u16() {
                200 | 202 => {
                    let seq = answer["seq"].as_u64().expect("a receipt has a seq");
                    known.acknowledged.lock().unwrap().insert(id.clone(), seq);
                    break;
                }
                503 => {
                    basis = basis.or(answer["error"]["basis"].as_u64());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                _ => panic!("{id}: {status} {answer}"),
            }
        }
        k += 1;
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9_at_any_moment() {
    let kills: u64 = std::env::var("KILLS").ok().and_then(|k| k.parse().ok()).unwrap_or(12);
    let seed: u64 = std::env::var("SEED").ok().and_then(|k| k.parse().ok()).unwrap_or(1);
    let mut dice = fastrand::Rng::with_seed(seed);
    let scratch = help::scratch();
    let data = scratch.path().join("data");
    server::init(&data, &["--bins", "32", "--partitions", "4"]);
    let known = Arc::new(Known::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let writers: Vec<_> = (0..WRITERS).map(|w| runtime.spawn(write(known.clone(), w))).collect();
    let mut restarts = Vec::new();
    for kill in 0..kills {
        let server = Server::start(&data, &[]);
        restarts.push(server.started_in());
        *known.url.lock().unwrap() = Some(server.url());
        std::thread::sleep(Duration::from_millis(dice.u64(1..700)));
        *known.url.lock().unwrap() = None;
        server.kill();
        if kill == kills / 2 {
            std::fs::remove_dir_all(data.join("state")).unwrap(); // an empty disk, once
        }
    }
    let server = Server::start(&data, &[]);
    *known.url.lock().unwrap() = Some(server.url());
    known.stop.store(true, Ordering::SeqCst);
    runtime.block_on(async {
        for w in writers {
            tokio::time::timeout(help::PATIENCE, w).await.expect("every batch is acknowledged in the end").unwrap();
        }
    });
    server.stop();

    server::run(&["audit", "--data", data.to_str().unwrap()]);
    let acknowledged = known.acknowledged.lock().unwrap();
    assert!(acknowledged.len() > kills as usize, "the writers got something done");
    let (valid, times) = runtime.block_on(replay(&data));
    for (id, seq) in acknowledged.iter() {
        assert_eq!(times.get(id), Some(&1), "{id} is valid exactly once");
        assert_eq!(valid.get(id), Some(seq), "{id} stands where its receipt says");
    }
    let published = server::published(&data.join("store"));
    for id in acknowledged.keys() {
        let (writer, k) = id[1..].split_once('-').unwrap();
        let n = 1 + (k.parse::<u64>().unwrap() * 7 + writer.parse::<u64>().unwrap()) % 40;
        for i in 0..n {
            let want = (i > 0).then_some(i);
            assert_eq!(published.get(&format!("{id}/{i}")).copied(), want, "{id}/{i}");
        }
    }
    let (batches, posts) = (acknowledged.len(), known.posts.load(Ordering::Relaxed));
    restarts.sort();
    println!(
        "{kills} kills, {batches} batches in {posts} posts, restart p50 {:?} max {:?}",
        restarts[restarts.len() / 2],
        restarts[restarts.len() - 1]
    );
}

/// Reads the whole ledger: where each id was valid first, and how often.
async fn replay(data: &std::path::Path) -> (HashMap<String, u64>, HashMap<String, u32>) {
    let log = EmbeddedLog::open(&data.join("log"), Arc::new(SystemClock)).unwrap();
    let mut follower = Follower::new(&*log, State::default()).await.unwrap();
    let (mut valid, mut times) = (HashMap::new(), HashMap::new());
    while let Some(entry) = follower.next().await.unwrap() {
        let (Record::Commit(commit), Event::Commit(outcomes)) = (entry.record, entry.event) else { continue };
        for (batch, outcome) in commit.batches.into_iter().zip(outcomes) {
            if outcome == Outcome::Valid {
                valid.entry(batch.id.clone()).or_insert(entry.seq);
                *times.entry(batch.id).or_insert(0) += 1;
            }
        }
    }
    (valid, times)
}
