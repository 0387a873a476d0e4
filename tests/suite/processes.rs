//! Several processes of one repository on a real Kafka: who does what, what the others do when one is gone, and how it
//! is said when something is set up wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tuflog::log::kafka::KafkaSettings;

use crate::help::{self, PATIENCE};
use crate::kafka;
use crate::server::{self, Server};
use crate::writers::{self, Known};

/// A repository on the shared one-node Kafka, with a store in a directory that its processes share.
struct Repository {
    settings: KafkaSettings,
    dir: TempDir,
}

impl Repository {
    fn new() -> Repository {
        let repository = Repository { settings: kafka::one().fresh(), dir: help::scratch() };
        let made = repository.init("first");
        assert!(made.status.success(), "{}", server::said(&made));
        repository
    }

    fn init(&self, name: &str) -> std::process::Output {
        let (data, KafkaSettings { brokers, repo, .. }) = (self.path(name), &self.settings);
        let args = ["init", "--data", data.to_str().unwrap(), "--kafka-brokers", brokers, "--kafka-repo", repo];
        let one = ["--kafka-replication", "1", "--kafka-min-insync", "1", "--bins", "32", "--partitions", "4"];
        server::command(&[&args[..], &one].concat()).output().expect("the binary runs")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Starts a process with a directory of its own, without waiting for it.
    fn spawn(&self, name: &str, options: &[&str]) -> Server {
        let (data, KafkaSettings { brokers, repo, .. }) = (self.path(name), &self.settings);
        std::fs::create_dir_all(&data).unwrap();
        let text = format!(
            "keys = \"../first/keys\"\npatience_ms = 300\n[kafka]\nbrokers = \"{brokers}\"\nrepo = \"{repo}\"\n\
             [store]\nurl = \"file://{}\"\n",
            self.store().display()
        );
        std::fs::write(data.join("tuflog.toml"), text).unwrap();
        Server::spawn(&data, options, &[])
    }

    fn start(&self, name: &str, options: &[&str]) -> Server {
        let server = self.spawn(name, options);
        server.wait_ready();
        server
    }

    fn audit(&self, name: &str) {
        server::run(&["audit", "--data", self.path(name).to_str().unwrap()]);
    }
}

/// Posts until the answer is `published`; answers how long that took.
fn publish(server: &Server, path: &str) -> Duration {
    let (start, hash) = (Instant::now(), "ab".repeat(32));
    let args = ["add", path, "--length", "1", "--sha256", &hash, "--wait", "published", "--server", &server.url()];
    loop {
        let out = server::command(&args).output().expect("the binary runs");
        if out.status.success() && server::said(&out).contains("is published") {
            return start.elapsed();
        }
        assert!(start.elapsed() < PATIENCE, "{path}: {}", server::said(&out));
    }
}

/// The partitions that a process says it folds.
fn folded(server: &Server) -> Vec<u64> {
    let (status, body) = server.get("/v1/status").expect("an answer");
    assert_eq!(status, 200);
    let answer: Value = serde_json::from_slice(&body).unwrap();
    answer["partitions"].as_array().unwrap().iter().map(|p| p["partition"].as_u64().unwrap()).collect()
}

fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn partitions_are_spread_and_a_killed_worker_s_are_taken_over() {
    let repository = Repository::new();
    let (one, two) = (repository.start("one", &[]), repository.start("two", &[]));
    until("each folds half", || folded(&one).len() == 2 && folded(&two).len() == 2);
    for i in 0..4 {
        publish(&one, &format!("before/{i}"));
    }
    one.kill();
    let taken_over = (0..8).map(|i| publish(&two, &format!("after/{i}"))).max().unwrap();
    until("it folds all", || folded(&two).len() == 4);
    // An empty disk, beside a worker that goes on.
    std::fs::remove_dir_all(repository.path("one").join("state")).unwrap();
    let one = repository.start("one", &[]);
    until("each folds half again", || folded(&one).len() == 2 && folded(&two).len() == 2);
    for i in 0..4 {
        publish(&one, &format!("again/{i}"));
    }
    one.stop();
    two.stop();
    assert_eq!(server::published(&repository.store()).len(), 16);
    repository.audit("two");
    println!("a killed worker's partitions publish again within {taken_over:?}");
}

#[test]
fn a_compactor_that_stands_still_is_stood_in_for_and_wakes_without_harm() {
    let repository = Repository::new();
    // Nobody compacts: nothing is published, and the worker says that it is not ready for clients.
    let worker = repository.spawn("worker", &["--roles", "intake,fold,http"]);
    let says = || worker.get("/readyz").map(|(_, body)| String::from_utf8_lossy(&body).into_owned());
    until("it says so", || says().is_some_and(|said| said.contains("no checkpoint yet")));
    drop(worker);
    let one = repository.spawn("one", &["--roles", "compact"]);
    let worker = repository.start("worker", &["--roles", "intake,fold,http"]);
    one.wait_ready();
    let two = repository.start("two", &["--roles", "compact"]);
    publish(&worker, "a");
    one.signal(Signal::STOP);
    let stood_in = publish(&worker, "b");
    two.signal(Signal::STOP);
    one.signal(Signal::CONT);
    publish(&worker, "c");
    two.signal(Signal::CONT);
    publish(&worker, "d");
    for server in [one, two, worker] {
        server.stop();
    }
    assert_eq!(server::published(&repository.store()).len(), 4);
    repository.audit("worker");
    println!("a compactor that stands still is stood in for within {stood_in:?}");
}

#[test]
fn a_rolling_restart_under_load_loses_no_request() {
    let repository = Repository::new();
    let mut servers = vec![repository.start("one", &[]), repository.start("two", &[])];
    let known = Arc::new(Known::default());
    let tell = |servers: &[Server]| *known.urls.lock().unwrap() = servers.iter().map(Server::url).collect();
    tell(&servers);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let writing: Vec<_> = (0..4).map(|w| runtime.spawn(writers::write(known.clone(), w))).collect();
    let pointer = repository.store().join("metadata/timestamp.json");
    let watching = std::thread::spawn({
        let known = known.clone();
        move || gaps(&pointer, &known)
    });
    for name in ["one", "two", "one", "two"] {
        std::thread::sleep(Duration::from_millis(1_500));
        servers.remove(0).stop();
        servers.push(repository.start(name, &[]));
        tell(&servers);
    }
    std::thread::sleep(Duration::from_millis(500));
    known.stop.store(true, Ordering::SeqCst);
    runtime.block_on(async {
        for task in writing {
            tokio::time::timeout(PATIENCE, task).await.expect("every batch is acknowledged").unwrap();
        }
    });
    let longest = watching.join().unwrap();
    servers.into_iter().for_each(Server::stop);
    let acknowledged = known.acknowledged.lock().unwrap();
    writers::check_published(&server::published(&repository.store()), &acknowledged);
    repository.audit("one");
    println!("{} batches; the longest time without a new timestamp was {longest:?}", acknowledged.len());
}

/// The longest time for which the pointer did not move while producers were at work.
fn gaps(pointer: &Path, known: &Known) -> Duration {
    let (mut last, mut moved, mut longest) = (Vec::new(), Instant::now(), Duration::ZERO);
    while !known.stop.load(Ordering::SeqCst) {
        let now = std::fs::read(pointer).unwrap_or_default();
        if now != last {
            longest = longest.max(moved.elapsed());
            (last, moved) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    longest
}

#[test]
fn roles_say_what_a_process_does_and_reads_need_no_keys() {
    let repository = Repository::new();
    let worker = repository.start("worker", &["--roles", "intake,fold,compact"]);
    // Without the role http a process answers batches and probes.
    let hash = "ab".repeat(32);
    let body = json!({"id": "x", "changes": [{"op": "add", "path": "a", "length": 1, "hashes": {"sha256": hash}}]});
    let posted = post(&worker, &body);
    assert!(posted.contains("\"state\":\"published\""), "{posted}");
    assert_eq!(worker.get("/metadata/timestamp.json").unwrap().0, 404);
    assert_eq!(worker.get("/metrics").unwrap().0, 200);

    let reader = repository.start("reader", &["--roles", "http", "--keys", "/nonexistent"]);
    assert_eq!(reader.get("/metadata/timestamp.json").unwrap().0, 200);
    until("it has read the batch", || reader.get("/v1/batches/x").unwrap().0 == 200);
    assert_eq!(reader.get("/v1/targets/a").unwrap().0, 200);
    let refused = post(&reader, &body);
    assert!(refused.contains("Unavailable") && refused.contains("roles"), "{refused}");

    let lag = server::run(&["lag", "--json", "--server", &reader.url()]);
    let lag: Value = serde_json::from_str(&lag).unwrap();
    let tool = || {
        let group = format!("{}.folds", repository.settings.repo);
        kafka::tool(kafka::one(), "kafka-consumer-groups", &["--describe", "--group", &group])
    };
    let told = |text: &str| -> Vec<(u64, u64, u64)> {
        let rows = text.lines().filter(|l| l.contains(".changes"));
        let number = |text: &str| text.parse().unwrap_or(0);
        let row = |l: &str| {
            let words: Vec<&str> = l.split_whitespace().collect();
            (number(words[2]), number(words[3]), number(words[4]))
        };
        let mut rows: Vec<_> = rows.map(row).collect();
        rows.sort_unstable();
        rows
    };
    let ours: Vec<(u64, u64, u64)> = lag["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            let number = |key: &str| p[key].as_u64().unwrap();
            (number("partition"), number("published"), number("end"))
        })
        .collect();
    until("Kafka's tool shows the same", || told(&tool()) == ours);
    reader.stop();
    worker.stop();
    repository.audit("reader");
}

fn post(server: &Server, body: &Value) -> String {
    let url = format!("{}/v1/batches?wait=published", server.url());
    let out = std::process::Command::new("curl").args(["-s", "-m", "60", "-d", &body.to_string(), &url]).output();
    String::from_utf8_lossy(&out.expect("curl").stdout).into_owned()
}

#[test]
fn what_is_set_up_wrong_is_said() {
    let repository = Repository::new();
    let again = repository.init("second");
    assert_eq!(again.status.code(), Some(1));
    assert!(server::said(&again).contains("is a repository already"), "{}", server::said(&again));
    assert!(!repository.path("second").join("keys").exists());

    let (brokers, data) = (&repository.settings.brokers, repository.path("third"));
    let data = data.to_str().unwrap();
    let args = ["init", "--data", data, "--kafka-brokers", brokers, "--kafka-repo", "another"];
    let copies = server::command(&args).output().unwrap();
    assert!(
        !copies.status.success() && server::said(&copies).contains("--kafka-replication"),
        "{}",
        server::said(&copies)
    );
    let one = server::command(&[&args[..], &["--kafka-replication", "1", "--kafka-min-insync", "1"]].concat()).output();
    assert!(one.as_ref().unwrap().status.success(), "{}", server::said(&one.unwrap()));

    let first = repository.start("one", &["--kafka-member", "same"]);
    let clash = repository.spawn("two", &["--kafka-member", "same"]);
    until("one of them ends", || first.has_ended() || clash.has_ended());
    let said = first.said() + &clash.said();
    assert!(said.contains("kafka.member") && said.contains("give each its own"), "{said}");
    drop((first, clash));

    let data = help::scratch();
    server::init(&data.path().join("embedded"), &[]);
    let embedded = data.path().join("embedded");
    let roles = server::command(&["serve", "--data", embedded.to_str().unwrap(), "--roles", "fold"]).output().unwrap();
    assert_eq!(roles.status.code(), Some(2));
    assert!(server::said(&roles).contains("kafka.brokers"), "{}", server::said(&roles));
}
