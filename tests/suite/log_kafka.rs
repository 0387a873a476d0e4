//! What the log on Kafka promises beyond the contract: it outlives its brokers, and refuses what it could not rely on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tuflog::error::{Error, Kind};
use tuflog::log::kafka::{KafkaLog, KafkaSettings};
use tuflog::log::{Log, Offset, Partition, Reader, Record};

use crate::help::{PATIENCE, child, scratch};
use crate::kafka::{self, Cluster, kcat, tool};

const P: Partition = Partition::Changes(5);
/// Where the child of a test finds its cluster.
const CHILD_BROKERS: &str = "TUFLOG_TEST_BROKERS";

async fn started(cluster: impl FnOnce() -> Cluster + Send + 'static) -> Arc<Cluster> {
    Arc::new(tokio::task::spawn_blocking(cluster).await.unwrap())
}

async fn shared(cluster: fn() -> &'static Cluster) -> &'static Cluster {
    tokio::task::spawn_blocking(cluster).await.unwrap()
}

async fn open(settings: &KafkaSettings) -> Arc<KafkaLog> {
    Arc::new(KafkaLog::open(settings).await.unwrap())
}

async fn refused(settings: &KafkaSettings) -> Error {
    KafkaLog::open(settings).await.err().expect("open refuses")
}

async fn append(log: &KafkaLog, to: Partition, payload: impl Into<String>) -> Offset {
    log.append(to, payload.into().into()).await.unwrap()
}

/// Reads until it has passed `last`; what does not work for the moment is tried again.
async fn read_to(reader: &mut dyn Reader, last: Offset) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    while records.last().is_none_or(|record| record.offset < last) {
        reader.ready().await.unwrap();
        match reader.read(1 << 20).await {
            Ok(more) => records.extend(more),
            Err(e) => assert_eq!(e.kind, Kind::Unavailable, "{e}"),
        }
    }
    records
}

/// How many appends have been answered `Ok`.
#[derive(Clone, Default)]
struct Progress(Arc<AtomicUsize>);

impl Progress {
    /// Waits until the log takes appends again and has answered some more.
    fn wait(&self) {
        let (before, start) = (self.0.load(Ordering::SeqCst), Instant::now());
        while self.0.load(Ordering::SeqCst) < before + 50 {
            assert!(start.elapsed() < Duration::from_secs(60), "no append is answered");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Appends and reads while `disturb` runs. Then: every answered append stands where the answer said, what was refused
/// is not there, and the reader that was there all along saw what a new one sees, in order.
async fn holds_while(cluster: &Arc<Cluster>, disturb: impl FnOnce(&Cluster, &str, &Progress) + Send + 'static) {
    let settings = cluster.repo().await;
    let (log, topic) = (open(&settings).await, format!("{}.changes", settings.repo));
    let (over, progress) = (Arc::new(AtomicBool::new(false)), Progress::default());
    let writers = (0..4).map(|writer| {
        let (log, over, progress) = (log.clone(), over.clone(), progress.clone());
        tokio::spawn(async move {
            let mut answers = Vec::new();
            for i in 0.. {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let payload = format!("{writer}-{i}");
                let answer = log.append(P, payload.clone().into()).await;
                progress.0.fetch_add(answer.is_ok().into(), Ordering::SeqCst);
                answers.push((payload, answer));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            answers
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut reader = log.reader(P, 0);
    let following = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|record: &Record| record.payload[..] != *b"the end") {
            reader.ready().await.unwrap();
            match reader.read(1 << 10).await {
                Ok(records) => seen.extend(records),
                Err(e) => assert_eq!(e.kind, Kind::Unavailable, "{e}"),
            }
        }
        seen
    });
    let disturbed = cluster.clone();
    tokio::task::spawn_blocking(move || disturb(&disturbed, &topic, &progress)).await.unwrap();
    over.store(true, Ordering::SeqCst);
    let mut answers = Vec::new();
    for writer in writers {
        answers.extend(writer.await.unwrap());
    }
    let last = loop {
        // A late record must not stand behind the end.
        match log.append(P, "the end".into()).await {
            Ok(last) => break last,
            Err(e) => assert!(!e.is_fatal(), "{e}"),
        }
    };
    let seen = following.await.unwrap();
    let there = read_to(&mut *log.reader(P, 0), last).await;
    assert!(seen.is_sorted_by(|a, b| a.offset < b.offset));
    assert!(seen == there, "the reader saw {} records, {} are there", seen.len(), there.len());
    let by_offset: BTreeMap<Offset, &Record> = there.iter().map(|record| (record.offset, record)).collect();
    for (payload, answer) in answers {
        match answer {
            Ok(offset) => {
                assert_eq!(by_offset[&offset].payload, payload)
            }
            Err(e) if e.kind == Kind::Unavailable => assert!(there.iter().all(|record| record.payload != payload)),
            Err(e) => assert_eq!(e.kind, Kind::Indeterminate, "{e}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_broker_killed_and_started_again_loses_nothing_and_the_log_goes_on_by_itself() {
    let all = async {
        let cluster = started(|| Cluster::start(1)).await;
        holds_while(&cluster, |cluster, _, progress| {
            progress.wait();
            for _ in 0..2 {
                cluster.restart(1);
                progress.wait();
            }
        })
        .await;

        // Away for longer than an append may take.
        let log = open(&KafkaSettings { message_timeout_ms: 1_000, ..cluster.repo().await }).await;
        let mut reader = log.reader(P, 0);
        append(&log, P, "before").await;
        assert_eq!(read_to(&mut *reader, 0).await.len(), 1);
        cluster.kill(1);
        assert_eq!(log.append(P, "meanwhile".into()).await.unwrap_err().kind, Kind::Indeterminate);
        reader.ready().await.unwrap();
        assert_eq!(reader.read(100).await.unwrap_err().kind, Kind::Unavailable);
        assert_eq!(log.end(P).await.unwrap_err().kind, Kind::Unavailable);
        let restarted = cluster.clone();
        tokio::task::spawn_blocking(move || {
            restarted.restart(1);
            restarted.wait();
        })
        .await
        .unwrap();
        let last = loop {
            match log.append(P, "after".into()).await {
                Ok(offset) => break offset,
                Err(e) => assert!(!e.is_fatal(), "{e}"),
            }
        };
        assert_eq!(read_to(&mut *reader, last).await.last().unwrap().payload, "after");
    };
    tokio::time::timeout(PATIENCE, all).await.expect("it hangs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_broker_of_three_may_be_killed_or_stand_still_and_the_log_goes_on() {
    let all = async {
        let cluster = started(|| Cluster::start(3)).await;
        holds_while(&cluster, |cluster, topic, progress| {
            progress.wait();
            let leader = cluster.leader(topic, 5);
            cluster.kill(leader);
            progress.wait();
            cluster.restart(leader);
            cluster.wait();
            let leader = cluster.leader(topic, 5);
            cluster.stop(leader);
            progress.wait(); // the others went on
            cluster.cont(leader);
            progress.wait();
        })
        .await;
    };
    tokio::time::timeout(PATIENCE, all).await.expect("it hangs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_keep_less_than_the_log_needs_are_refused_with_topic_setting_and_both_values() {
    let cluster = shared(kafka::one).await;
    let settings = cluster.fresh();
    let e = refused(&settings).await;
    assert!(
        e.kind == Kind::Invalid && e.message.contains("does not exist") && e.message.contains("tuflog init"),
        "{e}"
    );

    let create = |partitions, copies, insync| KafkaLog::create_topics(&settings, partitions, copies, insync);
    let e = create(4, 3, 2).await.unwrap_err();
    assert!(e.kind == Kind::Invalid && e.message.contains("eplication"), "{e}");
    create(4, 1, 1).await.unwrap();
    create(4, 1, 1).await.unwrap(); // nothing to do
    assert_eq!(open(&settings).await.partitions(), 4);
    let e = create(8, 1, 1).await.unwrap_err();
    assert!(e.kind == Kind::Invalid && e.message.contains("has 4 partitions, must have 8"), "{e}");

    for (topic, setting, value, good) in [
        ("ledger", "retention.ms", "604800000", "-1"),
        ("changes", "cleanup.policy", "compact", "delete"),
        ("folds", "max.message.bytes", "1048588", "2101248"),
        ("ledger", "message.timestamp.type", "CreateTime", "LogAppendTime"),
    ] {
        let topic = format!("{}.{topic}", settings.repo);
        let alter = |value: &str| {
            let (topic, add) = (topic.clone(), format!("{setting}={value}"));
            move || tool(cluster, "kafka-configs", &["--alter", "--topic", &topic, "--add-config", &add])
        };
        tokio::task::spawn_blocking(alter(value)).await.unwrap();
        for e in [refused(&settings).await, create(4, 1, 1).await.unwrap_err()] {
            let parts = [&topic, setting, value, good, "kafka-configs"];
            assert!(e.kind == Kind::Invalid && parts.iter().all(|part| e.message.contains(part)), "{e}");
        }
        tokio::task::spawn_blocking(alter(good)).await.unwrap();
    }
    open(&settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_are_wrong_or_not_the_users_are_refused_by_name() {
    let with = |name: &str, value: &str| {
        let mut settings = KafkaSettings::new("127.0.0.1:1", "r");
        settings.options.insert(name.into(), value.into());
        settings
    };
    for (name, value) in
        [("acks", "1"), ("isolation.level", "read_committed"), ("no.such.setting", "1"), ("linger.ms", "x")]
    {
        let e = refused(&with(name, value)).await;
        assert_eq!((e.kind, e.field), (Kind::Invalid, Some(format!("kafka.{name}"))));
    }
    for repo in ["", "a/b", ".."] {
        let e = refused(&KafkaSettings::new("127.0.0.1:1", repo)).await;
        assert_eq!((e.kind, e.field.as_deref()), (Kind::Invalid, Some("kafka.repo")));
    }
    assert_eq!(refused(&KafkaSettings::new("127.0.0.1:1", "r")).await.kind, Kind::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_the_log_does_not_have_is_corrupt() {
    let cluster = shared(kafka::one).await;
    let settings = cluster.repo().await;
    let log = open(&settings).await;
    for i in 0..10 {
        append(&log, Partition::Ledger, format!("{i}")).await;
    }
    let corrupt = async |at| {
        let mut reader = log.reader(Partition::Ledger, at);
        for _ in 0..2 {
            reader.ready().await.unwrap();
            assert_eq!(reader.read(100).await.unwrap_err().kind, Kind::Corrupt);
        }
        reader
    };
    let mut reader = corrupt(11).await;
    reader.seek(9);
    assert_eq!(read_to(&mut *reader, 9).await.len(), 1);

    let topic = format!("{}.ledger", settings.repo);
    let plan = format!(r#"{{"version":1,"partitions":[{{"topic":"{topic}","partition":0,"offset":5}}]}}"#);
    let dir = scratch();
    let file = dir.path().join("plan.json");
    std::fs::write(&file, plan).unwrap();
    let delete = move || tool(cluster, "kafka-delete-records", &["--offset-json-file", file.to_str().unwrap()]);
    tokio::task::spawn_blocking(delete).await.unwrap();
    corrupt(0).await;
    assert_eq!(log.fetch(Partition::Ledger, 4).await.unwrap_err().kind, Kind::Corrupt);
    assert_eq!(log.fetch(Partition::Ledger, 5).await.unwrap().unwrap().payload, "5");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_open_transaction_stalls_nobody_and_its_markers_are_gaps() {
    let cluster = shared(kafka::one).await;
    let settings = cluster.repo().await;
    let log = open(&settings).await;
    let mut reader = log.reader(Partition::Ledger, 0);
    let topic = format!("{}.ledger", settings.repo);
    let (brokers, id) = (cluster.bootstrap(), settings.repo.clone());
    let stranger = tokio::task::spawn_blocking(move || {
        let mut config = ClientConfig::new();
        let stranger: BaseProducer =
            config.set("bootstrap.servers", brokers).set("transactional.id", id).create().unwrap();
        stranger.init_transactions(Duration::from_secs(20)).unwrap();
        stranger.begin_transaction().unwrap();
        stranger.send(BaseRecord::<(), str>::to(&topic).partition(0).payload("stranger")).map_err(|e| e.0).unwrap();
        stranger.flush(Duration::from_secs(10)).unwrap();
        stranger
    });
    let stranger = stranger.await.unwrap();
    let ours = append(&log, Partition::Ledger, "ours").await;
    assert_eq!((ours, read_to(&mut *reader, ours).await.len()), (1, 2), "read while the transaction is open");
    tokio::task::spawn_blocking(move || stranger.abort_transaction(Duration::from_secs(20)).unwrap()).await.unwrap();

    // The marker is the last thing in the partition now, and no record.
    while log.end(Partition::Ledger).await.unwrap() < 3 {} // the coordinator writes it in its own time
    assert_eq!(log.fetch(Partition::Ledger, 2).await.unwrap(), None);
    assert_eq!(log.reader(Partition::Ledger, 2).read(100).await.unwrap(), []);
    let next = append(&log, Partition::Ledger, "next").await;
    assert_eq!(read_to(&mut *reader, next).await.len(), 1);
    assert_eq!(log.fetch(Partition::Ledger, 2).await.unwrap(), None);
    assert_eq!(log.fetch(Partition::Ledger, next).await.unwrap().unwrap().payload, "next");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_is_read_at_once_and_records_are_plain_to_other_tools() {
    let cluster = shared(kafka::one).await;
    let settings = cluster.repo().await;
    let log = open(&settings).await;
    append(&log, P, r#"{"v":1,"kind":"x"}"#).await;
    append(&log, Partition::Ledger, "commit").await;
    assert_eq!(open(&settings).await.reader(P, 0).read(100).await.unwrap().len(), 1, "by a handle that knows nothing");
    let read = |topic: &'static str| {
        let topic = format!("{}.{topic}", settings.repo);
        move || kcat(cluster, &["-C", "-q", "-e", "-t", &topic, "-f", "%p %k %s\n"], "")
    };
    let changes = tokio::task::spawn_blocking(read("changes")).await.unwrap();
    assert_eq!(changes, "5 a {\"v\":1,\"kind\":\"x\"}\n");
    assert_eq!(tokio::task::spawn_blocking(read("ledger")).await.unwrap(), "0  commit\n");

    let e = log.append(P, vec![0; (2 << 20) + 1].into()).await.unwrap_err();
    assert!(e.kind == Kind::Invalid && e.too_large, "{e}");
    assert_eq!(log.append(Partition::Changes(8), "x".into()).await.unwrap_err().kind, Kind::Invalid);
    let mut rng = fastrand::Rng::with_seed(1);
    let noise: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(2 << 20).collect();
    let largest = log.append(P, noise.clone().into()).await.unwrap();
    assert!(log.fetch(P, largest).await.unwrap().unwrap().payload == noise);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_passwords_and_rights_works_and_what_is_wrong_is_said_within_seconds() {
    let cluster = shared(kafka::one).await;
    let repo = cluster.repo().await.repo;
    let user = |mechanism: &str, password: &str| {
        let mut settings = KafkaSettings::new(cluster.sasl_bootstrap(), repo.clone());
        settings.options = [
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", &cluster.authority()),
            ("sasl.mechanism", mechanism),
            ("sasl.username", "tuflog"),
            ("sasl.password", password),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        settings
    };
    let timed = async |settings: &KafkaSettings| {
        let start = Instant::now();
        let e = refused(settings).await;
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
        assert_eq!(e.kind, Kind::Invalid, "{e}");
        e.message
    };
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        let message = timed(&user(mechanism, "wrong")).await;
        assert!(message.to_lowercase().contains("authentication"), "{message}");
    }
    let mut stranger = user("PLAIN", "tuflog-secret");
    stranger.options.insert("ssl.ca.location".into(), "/etc/ssl/certs/ca-certificates.crt".into());
    let message = timed(&stranger).await;
    assert!(message.to_lowercase().contains("certificate"), "{message}");

    let message = timed(&user("PLAIN", "tuflog-secret")).await;
    assert!(message.contains(&format!("topic {repo}.changes")) && message.contains("authoriz"), "{message}");
    let prefix = format!("{repo}.");
    let rights = ["Describe", "DescribeConfigs", "Read", "Write"].map(|right| ["--operation", right]).concat();
    let grant = move || {
        let who =
            ["--add", "--allow-principal", "User:tuflog", "--resource-pattern-type", "prefixed", "--topic", &prefix];
        tool(cluster, "kafka-acls", &[&who[..], &rights].concat())
    };
    tokio::task::spawn_blocking(grant).await.unwrap();
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        let log = open(&user(mechanism, "tuflog-secret")).await;
        let at = append(&log, P, mechanism).await;
        assert_eq!(read_to(&mut *log.reader(P, at), at).await[0].payload, mechanism);
        assert_eq!(log.fetch(P, at).await.unwrap().unwrap().payload, mechanism);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_log_leaves_no_thread_behind() {
    let Ok(brokers) = std::env::var(CHILD_BROKERS) else {
        let cluster = shared(kafka::one).await;
        let dir = scratch();
        let mut child = child("log_kafka::a_dropped_log_leaves_no_thread_behind", dir.path());
        let out = tokio::task::spawn_blocking(move || child.env(CHILD_BROKERS, cluster.bootstrap()).output().unwrap());
        let out = out.await.unwrap();
        let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success() && text.contains("1 passed"), "{text}");
        return;
    };
    let kafkas = || {
        let names = std::fs::read_dir("/proc/self/task").unwrap();
        let names = names.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
        names.filter(|name| name.starts_with("rdk") || name.starts_with("kafka")).count()
    };
    let settings = KafkaSettings::new(brokers, "threads");
    KafkaLog::create_topics(&settings, 1, 1, 1).await.unwrap();
    for _ in 0..3 {
        let log = open(&settings).await;
        let mut reader = log.reader(Partition::Ledger, 0);
        let last = append(&log, Partition::Ledger, "x").await;
        read_to(&mut *reader, last).await;
        log.fetch(Partition::Ledger, last).await.unwrap().unwrap();
        assert!(kafkas() > 0);
        drop(log);
        assert_eq!(reader.ready().await.unwrap_err().kind, Kind::Unavailable, "a reader outlives its log");
    }
    let start = Instant::now();
    while kafkas() > 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "{} threads are left", kafkas());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
