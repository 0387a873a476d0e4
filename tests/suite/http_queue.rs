//! The API in front of an intake that this test drives: a full queue, a hung-up client, a Commit that does not come.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tuflog::http::Options;
use tuflog::intake::{Handle, Intake};
use tuflog::log::{Log, Partition};
use tuflog::pool::Pool;
use tuflog::recover;

use crate::help::{PATIENCE, scratch};
use crate::http_site::{Site, add, fresh, refused};

/// A site whose intake stands still, with room for `queue_bytes`.
async fn standing(queue_bytes: usize, wait: Duration) -> (Site, Intake, Handle, Arc<dyn Log>) {
    let dir = scratch();
    let (log, store) = fresh(dir.path(), 100).await;
    let end = log.end(Partition::Ledger).await.unwrap();
    let state = recover::advance(&*log, recover::start(&*log, &*store).await.unwrap(), end).await.unwrap();
    let (intake, handle) = Intake::new(log.clone(), Pool::Inline, state, 4, queue_bytes).await.unwrap();
    let site = Site::over(log.clone(), store, dir, handle.clone(), Options { wait, ..Options::default() }).await;
    (site, intake, handle, log)
}

async fn until(mut condition: impl FnMut() -> bool) {
    let met = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, met).await.expect("waited in vain");
}

async fn drive_until_seen(intake: &mut Intake, id: &str) {
    let seen = async {
        while intake.state().ids.get(id).is_none() {
            if !intake.step().await.unwrap() {
                intake.ready().await.unwrap();
            }
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("waited in vain for the Commit of {id}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_says_when_to_try_again_and_then_there_is_room() {
    let (site, mut intake, handle, _) = standing(1_000, Duration::from_secs(60)).await;
    let body = |id: &str| json!({"id": id, "changes": [add("a", "a"), add("b", "b")]}).to_string();
    let first = tokio::spawn(site.client.post(site.url("/v1/batches")).body(body("one")).send());
    until(|| handle.queued_bytes() > 0).await;
    let full = site.client.post(site.url("/v1/batches")).body(body("two")).send().await.unwrap();
    refused(full, 503, "Unavailable").await;
    drive_until_seen(&mut intake, "one").await;
    assert_eq!(first.await.unwrap().unwrap().status(), 202);
    while handle.queued_bytes() > 0 {
        intake.step().await.unwrap(); // the append's answer gives the room back
    }
    let again = tokio::spawn(site.client.post(site.url("/v1/batches")).body(body("two")).send());
    drive_until_seen(&mut intake, "two").await;
    assert_eq!(again.await.unwrap().unwrap().status(), 202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_goes_its_way_though_its_sender_hangs_up() {
    let (site, mut intake, handle, _) = standing(1 << 20, Duration::from_secs(60)).await;
    let body = json!({"id": "left", "changes": [add("a", "a")]}).to_string();
    let mut stream = tokio::net::TcpStream::connect(site.addr).await.unwrap();
    let head = format!("POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    until(|| handle.queued_bytes() > 0).await;
    intake.step().await.unwrap(); // accepted: from here on it needs nobody
    drop(stream);
    drive_until_seen(&mut intake, "left").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_does_not_come_in_time_is_indeterminate_and_sent_again_it_is_committed() {
    let (site, mut intake, handle, _) = standing(1 << 20, Duration::from_millis(50)).await;
    let body = json!({"id": "slow", "changes": [add("a", "a")]}).to_string();
    let response = site.client.post(site.url("/v1/batches")).body(body.clone()).send().await.unwrap();
    refused(response, 503, "Indeterminate").await;
    assert!(handle.queued_bytes() > 0, "the intake has not looked at it");
    intake.step().await.unwrap();
    assert_eq!(handle.queued_bytes(), 0, "nobody waits for it any more: it is not accepted late, with a basis of then");
    let again = tokio::spawn(site.client.post(site.url("/v1/batches?wait=published")).body(body).send());
    let answered = async {
        loop {
            if !intake.step().await.unwrap() {
                intake.ready().await.unwrap();
            }
        }
    };
    let response = tokio::select! {
        never = answered => never,
        response = again => response.unwrap().unwrap(),
    };
    assert_eq!(response.status(), 202, "committed, and nothing here publishes: it says how far it came");
    assert_eq!(response.json::<serde_json::Value>().await.unwrap()["state"], "committed");
}
