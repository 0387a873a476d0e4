//! Producers for the tests that kill: each posts batches for ever, one id until it is acknowledged.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tuflog::ledger::state::{Event, Outcome, State};
use tuflog::ledger::{Follower, Record};
use tuflog::log::Log;

/// What the writers know.
#[derive(Default)]
pub struct Known {
    /// Acknowledged: id → seq.
    pub acknowledged: Mutex<BTreeMap<String, u64>>,
    /// The addresses that may answer now.
    pub urls: Mutex<Vec<String>>,
    pub stop: AtomicBool,
    pub posts: AtomicU64,
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
pub async fn write(known: Arc<Known>, writer: u64) {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
    let mut k = 0;
    while !known.stop.load(Ordering::SeqCst) {
        let id = format!("w{writer}-{k}");
        let body = batch(&id, size(writer, k));
        let mut basis: Option<u64> = None;
        loop {
            let urls = known.urls.lock().unwrap().clone();
            let Some(url) = fastrand::choice(&urls) else {
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

/// How many targets a batch adds; the first of them it removes again.
fn size(writer: u64, k: u64) -> u64 {
    1 + (k * 7 + writer) % 40
}

/// The number of paths that a batch leaves, from its id.
pub fn left_of(id: &str) -> u64 {
    let (writer, k) = id[1..].split_once('-').unwrap();
    size(writer.parse().unwrap(), k.parse().unwrap()) - 1
}

/// Every acknowledged batch is published, whole.
pub fn check_published(published: &BTreeMap<String, u64>, acknowledged: &BTreeMap<String, u64>) {
    for id in acknowledged.keys() {
        for i in 0..=left_of(id) {
            let want = (i > 0).then_some(i);
            assert_eq!(published.get(&format!("{id}/{i}")).copied(), want, "{id}/{i}");
        }
    }
}

/// Every acknowledged batch is valid exactly once in the whole ledger, and stands where its receipt says.
pub async fn check_ledger(log: &dyn Log, acknowledged: &BTreeMap<String, u64>) {
    let mut follower = Follower::new(log, State::default()).await.unwrap();
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
    for (id, seq) in acknowledged {
        assert_eq!(times.get(id), Some(&1), "{id} is valid exactly once");
        assert_eq!(valid.get(id), Some(seq), "{id} stands where its receipt says");
    }
}
