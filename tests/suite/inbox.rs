//! The inbox on a real Kafka: batches that kcat writes are published exactly once or refused with a reason, while the
//! intakes are killed, stopped where they stand, and started again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tuflog::ledger::state::{Event, Outcome, State};
use tuflog::ledger::{Follower, Record};
use tuflog::log::kafka::{KafkaLog, KafkaSettings};

use crate::help::{self, PATIENCE};
use crate::kafka::{self, Cluster, kcat, tool};
use crate::server::{self, Server};

fn init(cluster: &Cluster, data: &Path) -> KafkaSettings {
    let settings = cluster.fresh();
    let kafka = ["--kafka-brokers", &settings.brokers, "--kafka-repo", &settings.repo];
    let copies = ["--kafka-replication", "1", "--kafka-min-insync", "1"];
    server::init(data, &[&["--bins", "8", "--partitions", "4"], &kafka[..], &copies].concat());
    settings
}

fn add(path: &str, length: u64) -> Value {
    json!({"op": "add", "path": path, "length": length, "hashes": {"sha256": "ab".repeat(32)}})
}

/// Tries until it has something.
fn wait<T>(what: &dyn Fn() -> String, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{}", what());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Topic `inbox-rejects`, by place.
fn refusals(cluster: &Cluster, repo: &str) -> BTreeMap<(u64, u64), Value> {
    let text = kcat(cluster, &["-C", "-q", "-e", "-t", &format!("{repo}.inbox-rejects")], "");
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    all.map(|v| ((v["partition"].as_u64().unwrap(), v["offset"].as_u64().unwrap()), v)).collect()
}

/// Waits until Kafka's own tool says that the inbox's group is at the end of every partition.
fn wait_for_no_lag(cluster: &Cluster, repo: &str, servers: &[&Server]) {
    let members = || {
        let group = format!("{repo}.inbox");
        tool(cluster, "kafka-consumer-groups", &["--describe", "--group", &group, "--members", "--verbose"])
    };
    let said = || servers.iter().map(|s| s.said() + "\n").collect::<String>();
    wait(&|| format!("the inbox has lag: {}{}", said(), members()), || {
        let text = tool(cluster, "kafka-consumer-groups", &["--describe", "--group", &format!("{repo}.inbox")]);
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let lags: Vec<&str> = rows.iter().filter(|r| r.len() > 5 && r[1].ends_with(".inbox")).map(|r| r[5]).collect();

        (lags.len() == 4 && lags.iter().all(|lag| *lag == "0")).then_some(())
    });
}

fn published(server: &Server, id: &str) -> Value {
    wait(&|| id.into(), || {
        let (status, body) = server.get(&format!("/v1/batches/{id}"))?;
        let answer: Value = serde_json::from_slice(&body).ok()?;
        (status == 200 && answer["state"] == "published").then_some(answer)
    })
}

#[test]
fn what_kcat_writes_is_published_once_or_refused_with_the_reason() {
    let (scratch, cluster) = (help::scratch(), kafka::one());
    let data = scratch.path().join("data");
    let settings = init(cluster, &data);
    let server = Server::start(&data, &["--min-free-mib", "0"]);
    let topic = format!("{}.inbox", settings.repo);
    let remove = json!({"op": "remove", "path": "a"});
    let records = [
        json!({"changes": [add("plain", 1)]}).to_string(),
        json!({"id": "own", "changes": [add("own", 2)]}).to_string(),
        json!({"id": "own", "changes": [add("own", 2)]}).to_string(),
        json!({"id": "own", "changes": [add("other", 3)]}).to_string(),
        "no JSON".into(),
        json!({"id": "inbox:0:0", "changes": [add("forged", 4)]}).to_string(),
        json!({"id": "field", "changes": [add("fine", 1), add("../x", 1)]}).to_string(),
        json!({"changes": vec![&remove; 100_001]}).to_string(),
        json!({"basis": 1_000_000, "changes": [add("future", 1)]}).to_string(),
        json!({"changes": [add("last", 5)]}).to_string(),
    ];
    // Packed with what we could not read: the broker packs again.
    let options = ["-P", "-t", &topic, "-p", "2", "-z", "gzip", "-X", "message.max.bytes=8000000"];
    kcat(cluster, &options, &records.join("\n"));

    published(&server, "inbox:2:9");
    let own = published(&server, "own");
    assert_eq!(own["checkpoint"].as_u64().map(|n| n > 0), Some(true));
    wait_for_no_lag(cluster, &settings.repo, &[&server]);
    let (_, lag) = server.get("/v1/lag").unwrap();
    let lag: Value = serde_json::from_slice(&lag).unwrap();
    let partition = |p: u64, n: u64| json!({"partition": p, "decided": n, "end": n, "lag": 0});
    assert_eq!(lag["inbox"], json!([partition(0, 0), partition(1, 0), partition(2, 10), partition(3, 0)]));
    let (_, metrics) = server.get("/metrics").unwrap();
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    assert!(metrics.contains("tuflog_inbox_lag_records{partition=\"2\"} 0\n"), "{metrics}");
    // Its last Commit may be of nothing but a repeat.
    kcat(cluster, &["-P", "-t", &topic, "-p", "3"], &records[1]);
    wait_for_no_lag(cluster, &settings.repo, &[&server]);
    let (_, metrics) = server.get("/metrics").unwrap();
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    assert!(metrics.contains("tuflog_published_lag_seqs 0\n"), "{metrics}");
    let refused = refusals(cluster, &settings.repo);
    let expected = [
        (3, "Conflict", None, Some("own"), "stands for other content"),
        (4, "Invalid", None, None, "not a valid request"),
        (5, "Invalid", Some("id"), Some("inbox:0:0"), "must not begin with inbox:"),
        (6, "Invalid", Some("changes[1].path"), Some("field"), "must not hold . or .."),
        (7, "Invalid", Some("changes"), None, "too many"),
        (8, "Invalid", Some("basis"), Some("inbox:2:8"), "beyond the end"),
    ];
    assert_eq!(refused.keys().copied().collect::<Vec<_>>(), expected.map(|(offset, ..)| (2, offset)));
    for (offset, kind, field, id, message) in expected {
        let (v, record) = (&refused[&(2, offset)], &records[offset as usize]);
        assert_eq!((v["kind"].as_str(), &v["v"]), (Some("inbox-reject"), &json!(1)));
        assert_eq!((v["error"]["kind"].as_str(), v["error"]["field"].as_str()), (Some(kind), field), "{v}");
        assert_eq!(v["id"].as_str(), id, "{v}");
        assert!(v["error"]["message"].as_str().unwrap().contains(message), "{v}");
        assert!(record.starts_with(v["record"].as_str().unwrap()) && v["record"].as_str().unwrap().len() <= 1_024);
    }
    server.stop();
    let paths = server::published(&data.join("store"));
    assert_eq!(paths, [("last", 5), ("own", 2), ("plain", 1)].map(|(path, n)| (path.to_owned(), n)).into());
    server::run(&["audit", "--data", data.to_str().unwrap()]);
}

#[test]
fn what_retention_removed_is_passed_over_and_an_inbox_made_anew_begins_anew_when_it_is_told_so() {
    let (scratch, cluster) = (help::scratch(), kafka::one());
    let data = scratch.path().join("data");
    let settings = init(cluster, &data);
    let topic = format!("{}.inbox", settings.repo);
    let write = |path: &str| {
        kcat(cluster, &["-P", "-t", &topic, "-p", "1"], &json!({"changes": [add(path, 1)]}).to_string());
    };
    ["a", "b", "c"].into_iter().for_each(write);
    let place = json!({"topic": topic, "partition": 1, "offset": 2});
    let plan = scratch.path().join("plan.json");
    std::fs::write(&plan, json!({"version": 1, "partitions": [place]}).to_string()).unwrap();
    tool(cluster, "kafka-delete-records", &["--offset-json-file", plan.to_str().unwrap()]);
    let server = Server::start(&data, &["--min-free-mib", "0"]);
    published(&server, "inbox:1:2");
    assert!(server.said().contains("removed by retention"), "{}", server.said());
    server.stop();
    let paths = server::published(&data.join("store"));
    assert_eq!(paths.keys().collect::<Vec<_>>(), ["c"]);

    tool(cluster, "kafka-topics", &["--delete", "--topic", &topic]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    wait(&|| "the topic is not made anew".into(), || {
        runtime.block_on(KafkaLog::create_topics(&settings, 4, 1, 1)).ok()
    });
    write("d");
    let mut server = Server::spawn(&data, &["--min-free-mib", "0"], &[]);
    wait(&|| server.said(), || server.said().contains("made anew").then_some(()));
    assert!(server.said().contains("inbox_generation = 1"), "{}", server.said());
    assert!(!server.has_ended(), "the rest of the process goes on");
    server.terminate();
    let server = Server::start(&data, &["--min-free-mib", "0", "--inbox-generation", "1"]);
    published(&server, "inbox:1025:0");
    server.stop();
    assert_eq!(server::published(&data.join("store")).keys().collect::<Vec<_>>(), ["c", "d"]);
}

/// Writes records through kcat until it is told to stop; answers how many.
fn stream(brokers: String, topic: String, stop: Arc<AtomicBool>) -> u64 {
    let mut command = kafka::kcat_command();
    command.args(["-P", "-b", &brokers, "-t", &topic, "-X", "enable.idempotence=true", "-X", "linger.ms=2"]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("kcat: run make setup");
    let mut input = child.stdin.take().unwrap();
    let mut n = 0;
    while !stop.load(Ordering::SeqCst) {
        let mut lines = String::new();
        for _ in 0..5 {
            let changes = [add(&format!("m/{n}"), n), add("shared", n)];
            lines += &match n % 10 {
                7 => format!("garbage {n}\n"),
                3 => json!({"id": format!("own-{n}"), "changes": changes}).to_string() + "\n",
                _ => json!({"changes": changes}).to_string() + "\n",
            };
            n += 1;
        }
        input.write_all(lines.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(input);
    assert!(child.wait().unwrap().success());
    n
}

#[test]
fn every_record_is_sequenced_once_while_intakes_are_killed_and_stopped() {
    let (scratch, cluster) = (help::scratch(), kafka::one());
    let data = |i: usize| scratch.path().join(format!("worker-{i}"));
    let settings = init(cluster, &data(0));
    let roles = ["intake,fold,compact,http", "intake,http", "intake,http"];
    for i in 0..roles.len() {
        if i > 0 {
            std::fs::create_dir(data(i)).unwrap();
        }
        let text = format!(
            "keys = \"../worker-0/keys\"\n[kafka]\nbrokers = \"{}\"\nrepo = \"{}\"\n[store]\nurl = \"file://{}\"\n",
            settings.brokers,
            settings.repo,
            scratch.path().join("store").display()
        );
        std::fs::write(data(i).join("tuflog.toml"), text).unwrap();
    }
    let start = |i: usize| Server::start(&data(i), &["--roles", roles[i], "--min-free-mib", "0"]);
    let mut servers: Vec<Option<Server>> = (0..roles.len()).map(|i| Some(start(i))).collect();
    let (stop, topic) = (Arc::new(AtomicBool::new(false)), format!("{}.inbox", settings.repo));
    let (brokers, name, over) = (settings.brokers.clone(), topic.clone(), stop.clone());
    let writer = std::thread::spawn(move || stream(brokers, name, over));
    let pause = |ms| std::thread::sleep(Duration::from_millis(ms));

    pause(1_000);
    for i in [1, 0, 1] {
        servers[i].take().unwrap().kill();
        pause(300);
        servers[i] = Some(start(i));
        pause(700);
    }
    // Stopped for longer than its session: the others take its partitions, and it goes on with what it had in flight.
    servers[2].as_ref().unwrap().signal(rustix::process::Signal::STOP);
    pause(8_000);
    servers[2].as_ref().unwrap().signal(rustix::process::Signal::CONT);
    pause(500);
    servers[1].take().unwrap().kill(); // its partitions wait for its session to end
    pause(500);
    stop.store(true, Ordering::SeqCst);
    let written = writer.join().unwrap();
    wait_for_no_lag(cluster, &settings.repo, &servers.iter().flatten().collect::<Vec<_>>());
    servers.into_iter().flatten().rev().for_each(Server::stop);

    let inbox = kcat(cluster, &["-C", "-q", "-e", "-t", &topic, "-f", "%p %o %s\n"], "");
    let refused: BTreeSet<(u64, u64)> = refusals(cluster, &settings.repo).into_keys().collect();
    let valid = tokio::runtime::Runtime::new().unwrap().block_on(valid_by_place(&settings));
    let paths = server::published(&scratch.path().join("store"));
    let mut count = 0;
    for line in inbox.lines() {
        let mut parts = line.splitn(3, ' ');
        let mut number = || parts.next().unwrap().parse::<u64>().unwrap();
        let place = (number(), number());
        let record = parts.next().unwrap();
        count += 1;
        if record.starts_with("garbage") {
            assert!(refused.contains(&place) && !valid.contains_key(&place), "{place:?}");
            continue;
        }
        assert_eq!(valid.get(&place), Some(&1), "{place:?} is valid exactly once");
        let batch: Value = serde_json::from_str(record).unwrap();
        let change = &batch["changes"][0];
        assert_eq!(paths.get(change["path"].as_str().unwrap()).copied(), change["length"].as_u64());
    }
    assert_eq!(count, written);
    assert_eq!(refused.len() as u64, written / 10 + u64::from(written % 10 > 7), "nothing but garbage is refused");
    let out = server::command(&["audit", "--data", data(0).to_str().unwrap()]).output().unwrap();
    assert!(out.status.success(), "{}", server::said(&out));
    println!("{written} records, {} of them refused", refused.len());
}

/// How often each inbox record was found valid, in the whole ledger.
async fn valid_by_place(settings: &KafkaSettings) -> BTreeMap<(u64, u64), u32> {
    let log = KafkaLog::open(settings).await.unwrap();
    let mut follower = Follower::new(&log, State::default()).await.unwrap();
    let (mut valid, mut repeated) = (BTreeMap::new(), 0);
    while let Some(entry) = follower.next().await.unwrap() {
        let (Record::Commit(commit), Event::Commit(outcomes)) = (entry.record, entry.event) else { continue };
        for (batch, outcome) in commit.batches.iter().zip(outcomes) {
            let (partition, offset) = batch.inbox.expect("all came by the inbox");
            repeated += u32::from(outcome == Outcome::Repeated);
            if outcome == Outcome::Valid {
                *valid.entry((u64::from(partition), offset)).or_default() += 1;
            }
        }
    }
    println!("{repeated} records were sent again");
    valid
}
