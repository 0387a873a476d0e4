//! The real binary, killed with -9 at random moments under load and started again, many times: at the end the audit is
//! clean and every acknowledged batch is there exactly once. `KILLS=n` for more; `SEED=n` for other moments.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tuflog::clock::SystemClock;
use tuflog::log::embedded::EmbeddedLog;

use crate::help;
use crate::server::{self, Server};
use crate::writers::{self, Known};

const WRITERS: u64 = 6;

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
    let writers: Vec<_> = (0..WRITERS).map(|w| runtime.spawn(writers::write(known.clone(), w))).collect();
    let mut restarts = Vec::new();
    for kill in 0..kills {
        let server = Server::start(&data, &[]);
        restarts.push(server.started_in());
        *known.urls.lock().unwrap() = vec![server.url()];
        std::thread::sleep(Duration::from_millis(dice.u64(1..700)));
        known.urls.lock().unwrap().clear();
        server.kill();
        if kill == kills / 2 {
            std::fs::remove_dir_all(data.join("state")).unwrap(); // an empty disk, once
        }
    }
    let server = Server::start(&data, &[]);
    *known.urls.lock().unwrap() = vec![server.url()];
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
    let log = EmbeddedLog::open(&data.join("log"), Arc::new(SystemClock)).unwrap();
    runtime.block_on(writers::check_ledger(&*log, &acknowledged));
    writers::check_published(&server::published(&data.join("store")), &acknowledged);
    let (batches, posts) = (acknowledged.len(), known.posts.load(Ordering::Relaxed));
    restarts.sort();
    println!(
        "{kills} kills, {batches} batches in {posts} posts, restart p50 {:?} max {:?}",
        restarts[restarts.len() / 2],
        restarts[restarts.len() - 1]
    );
}
