//! One question, one answer: of a running node, of its stopped data directory, of a log on Kafka and the store; and what
//! is exported of the past is what clients accepted then.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::clients::{self, Files};
use crate::kafka;
use crate::server::{self, Server};

/// Every question, and what of its answers depends on when it is asked.
const QUESTIONS: &[(&[&str], &[&str])] = &[
    (&["status"], &["ready", "reasons", "roles", "queue", "rates", "partitions", "uptime_s"]),
    (&["lag"], &[]),
    (&["route", "a/0"], &[]),
    (&["batch", "b2"], &["basis"]),
    (&["target", "a/0"], &[]),
    (&["target", "a/0", "--at", "3"], &[]),
    (&["target", "gone", "--at", "seq:14"], &[]),
    (&["search", "*"], &[]),
    (&["search", "a/", "--at", "2", "--limit", "2"], &[]),
    (&["bins", "--sort", "size"], &[]),
    (&["bins", "--at", "2"], &[]),
    (&["bin", "bins-3", "--limit", "2"], &[]),
    (&["checkpoints", "--limit", "3"], &[]),
    (&["checkpoint", "3"], &[]),
    (&["log", "--from", "0", "--to", "1000"], &[]),
    (&["log", "--kind", "commit", "--limit", "2"], &[]),
    (&["log", "5"], &[]),
    (&["history", "a/0"], &[]),
    (&["history", "gone"], &[]),
    (&["diff", "2", "5"], &[]),
    (&["diff", "5", "2", "--filter", "a/"], &[]),
    (&["replay"], &[]),
    (&["replay", "--from", "7", "--to", "20", "--filter", "a/*"], &[]),
];

/// The answer to a question, as JSON, or as the lines of it.
fn answer(question: &[&str], whom: &[&str], leave: &[&str]) -> Vec<Value> {
    let json: &[&str] = if question[0] == "replay" { &[] } else { &["--json"] };
    let text = server::run(&[question, whom, json].concat());
    let mut values: Vec<Value> =
        serde_json::Deserializer::from_str(&text).into_iter().map(|v| v.expect("JSON")).collect();
    for value in &mut values {
        leave.iter().for_each(|name| drop(value.as_object_mut().and_then(|fields| fields.remove(*name))));
    }
    assert!(!values.is_empty(), "{question:?} has an answer");
    values
}

fn publish(server: &Server, id: &str, lines: &str) {
    let url = server.url();
    let args = ["import", "--format", "jsonl", "--wait", "published", "--server", &url, "--again", "-"];
    // Ids are import's own; what has one of ours goes another way.
    if id.is_empty() {
        let mut child = server::command(&args).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
        child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("it reads");
        assert!(child.wait().expect("its end").success());
        return;
    }
    let path = lines;
    let (hash, length) = ("cd".repeat(32), "5");
    server::run(&[
        "add",
        path,
        "--length",
        length,
        "--sha256",
        &hash,
        "--batch-id",
        id,
        "--wait",
        "published",
        "--server",
        &url,
    ]);
}

/// Adds, replacements and removals in a dozen checkpoints.
fn live_through(server: &Server) {
    let add = |path: String, byte: &str| {
        let hash = byte.repeat(32);
        format!(
            "{{\"op\":\"add\",\"path\":\"{path}\",\"length\":3,\"hashes\":{{\"sha256\":\"{hash}\"}},\"custom\":{{\"v\":1}}}}\n"
        )
    };
    let many: String = (0..40).map(|n| add(format!("a/{n}"), "ab")).collect();
    publish(server, "", &many);
    publish(server, "b1", "gone");
    publish(server, "b2", "a/0");
    server::run(&["remove", "gone", "a/7", "--wait", "published", "--server", &server.url()]);
    let some: String = (0..10).map(|n| add(format!("a/{n}"), "ef")).collect();
    publish(server, "", &some);
}

#[test]
fn a_stopped_directory_answers_as_the_node_did() {
    let dir = crate::help::scratch();
    let data = dir.path().join("data");
    server::init(&data, &["--bins", "16"]);
    let node = Server::start(&data, &[]);
    live_through(&node);
    let url = node.url();
    let live: Vec<_> = QUESTIONS.iter().map(|(q, leave)| answer(q, &["--server", &url], leave)).collect();
    node.stop();
    for ((question, leave), live) in QUESTIONS.iter().zip(live) {
        assert_eq!(answer(question, &["--data", data.to_str().unwrap()], leave), live, "{question:?}");
    }
}

#[test]
fn a_log_on_kafka_and_a_store_answer_as_the_node_does() {
    let dir = crate::help::scratch();
    let settings = kafka::one().fresh();
    let (data, store) = (dir.path().join("data"), format!("file://{}", dir.path().join("store").display()));
    let log = ["--kafka-brokers", &settings.brokers, "--kafka-repo", &settings.repo];
    let one = ["--kafka-replication", "1", "--kafka-min-insync", "1", "--bins", "16"];
    server::init(&data, &[&log[..], &one].concat());
    let node = Server::start(&data, &[&log[..], &["--store-url", &store]].concat());
    live_through(&node);
    let url = node.url();
    let here = [&log[..], &["--store-url", &store]].concat();
    for (question, leave) in QUESTIONS {
        assert_eq!(answer(question, &here, leave), answer(question, &["--server", &url], leave), "{question:?}");
    }
    node.stop();
}

#[test]
fn what_is_exported_is_accepted_as_it_was_then() {
    let dir = crate::help::scratch();
    let data = dir.path().join("data");
    server::init(&data, &["--bins", "16"]);
    let node = Server::start(&data, &[]);
    live_through(&node);
    let now: Value =
        serde_json::from_slice(&node.get("/metadata/timestamp.json").expect("it answers").1).expect("JSON");
    let newest = now["signed"]["meta"]["snapshot.json"]["version"].as_u64().expect("a number");
    node.stop();
    let data = data.to_str().unwrap();
    for n in [2, newest - 1, newest] {
        let (to, at) = (dir.path().join(format!("then-{n}")), n.to_string());
        let said = server::run(&["export", "--at", &at, "--data", data, "--json", to.to_str().unwrap()]);
        let said: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(said["checkpoint"], n);
        let found = server::run(&["search", "*", "--at", &at, "--data", data, "--json"]);
        let found: Value = serde_json::from_str(&found).expect("JSON");
        let mut jobs: Vec<(String, Value)> = Vec::new();
        for target in found["targets"].as_array().expect("targets") {
            let want = serde_json::json!({"length": target["length"], "sha256": target["hashes"]["sha256"]});
            jobs.push((target["path"].as_str().expect("a path").to_owned(), want));
        }
        jobs.push(("never/there".into(), Value::Null));
        let files = Files::serve(&to);
        clients::resolves(&files.url(), &to.join("root.json"), &dir.path().join(format!("cache-{n}")), &jobs);
    }
    // A directory that holds something is left alone; without the key nothing but the newest can be had.
    let taken = dir.path().join("then-2");
    let out = server::command(&["export", "--at", "2", "--data", data, taken.to_str().unwrap()]).output().unwrap();
    assert!(!out.status.success() && server::said(&out).contains("is not empty"), "{}", server::said(&out));
    std::fs::rename(dir.path().join("data/keys"), dir.path().join("keys")).unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    let out = server::command(&["export", "--at", "2", "--data", data, old.to_str().unwrap()]).output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{}", server::said(&out));
    assert!(server::said(&out).contains("--keys") && !old.exists(), "{}", server::said(&out));
    server::run(&["export", "--data", data, new.to_str().unwrap()]);
    let other = ["--keys", dir.path().join("keys").to_str().unwrap()].map(str::to_owned);
    server::run(&["export", "--at", "2", "--data", data, &other[0], &other[1], old.to_str().unwrap()]);
    let same = |name: &str| std::fs::read(old.join(name)).unwrap() == std::fs::read(taken.join(name)).unwrap();
    assert!(same("metadata/timestamp.json") && same("metadata/2.snapshot.json"));
}
