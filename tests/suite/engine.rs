//! The whole engine on each log and the local store: from a batch to a verified timestamp, and back up after
//! a restart from each of the three sources.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tuflog::audit;
use tuflog::change::{Batch, Change};
use tuflog::clock::{Clock, ManualClock, SystemClock};
use tuflog::config::Roles;
use tuflog::fold::state::State as BinState;
use tuflog::ledger::Record;
use tuflog::ledger::record::{Format, RootRecord, Settings, SettingsRecord};
use tuflog::log::embedded::EmbeddedLog;
use tuflog::log::kafka::{KafkaLog, KafkaSettings};
use tuflog::log::{Log, Partition};
use tuflog::node::{Engine, Parts};
use tuflog::pool::Pool;
use tuflog::recover;
use tuflog::store::local::LocalStore;
use tuflog::store::{POINTER, Store, metadata_name};
use tuflog::tuf::{Envelope, KeyRing, RoleKeys, Root, Signer, parse};

use crate::help::PATIENCE;
use crate::kafka;

const BINS: u32 = 16;

fn keys() -> (Arc<Signer>, Arc<Signer>) {
    (Arc::new(Signer::from_seed(&[1; 32])), Arc::new(Signer::from_seed(&[2; 32])))
}

/// The first root: the same bytes at every call.
fn root() -> (Root, String) {
    static EXPIRES: OnceLock<u64> = OnceLock::new();
    let (root_key, online) = keys();
    let role = |key: &Signer| RoleKeys::new(vec![*key.public().key_id()], 1);
    let root = Root {
        version: 1,
        expires: *EXPIRES.get_or_init(|| SystemClock.now() + 365 * 86_400),
        keys: [&root_key, &online].map(|k| (*k.public().key_id(), k.public().clone())).into(),
        root: role(&root_key),
        targets: role(&online),
        snapshot: role(&online),
        timestamp: role(&online),
    };
    let document = String::from_utf8(root.render(&[root_key]).unwrap()).unwrap();
    (root, document)
}

/// The log of the test: on Kafka where settings say how, else embedded in `dir`.
async fn open_log(dir: &Path, kafka: Option<&KafkaSettings>) -> Arc<dyn Log> {
    match kafka {
        Some(settings) => Arc::new(KafkaLog::open(settings).await.unwrap()),
        None => EmbeddedLog::open(&dir.join("log"), Arc::new(SystemClock)).unwrap(),
    }
}

async fn start(dir: &Path, kafka: Option<&KafkaSettings>) -> (Engine, Arc<dyn Log>, Arc<dyn Store>) {
    start_at(dir, kafka, Arc::new(SystemClock)).await
}

async fn start_at(
    dir: &Path,
    kafka: Option<&KafkaSettings>,
    clock: Arc<dyn Clock>,
) -> (Engine, Arc<dyn Log>, Arc<dyn Store>) {
    let log = open_log(dir, kafka).await;
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(&dir.join("store")).unwrap());
    if log.end(Partition::Ledger).await.unwrap() == 0 {
        let settings = Settings { state_every: 4, ..Settings::default() };
        for record in [
            Record::Format(Format { epoch: 1, bins: BINS, partitions: 4 }),
            Record::Settings(SettingsRecord { revision: 1, settings }),
            Record::Root(RootRecord { document: root().1 }),
        ] {
            log.append(Partition::Ledger, record.encode()).await.unwrap();
        }
    }
    let state = recover::advance(&*log, recover::start(&*log, &*store).await.unwrap(), 3).await.unwrap();
    let mut ring = KeyRing::default();
    ring.insert(keys().1);
    let parts = Parts {
        log: log.clone(),
        store: store.clone(),
        state: Arc::new(BinState::open(&dir.join("state"), state.layout().unwrap()).unwrap()),
        keys: Arc::new(ring),
        clock,
        pool: Pool::threads(2),
        uploads: 4,
        groups: 4,
        queue_bytes: 1 << 20,
        min_cut_interval_ms: 0,
        health: Arc::default(),
        roles: Roles::default(),
        membership: None,
        inbox: None,
        inbox_generation: 0,
        extra_hashes: Arc::default(),
        patience_ms: 0,
    };
    (Engine::start(parts, state).await.unwrap(), log, store)
}

fn add(path: &str, length: u64) -> Change {
    Change::add(path.into(), length, &[("sha256".into(), "ab".repeat(32))].into(), None).unwrap()
}

/// Everything a client would read, verified on the way: path → length.
async fn published(store: &dyn Store) -> (u64, std::collections::BTreeMap<String, u64>) {
    let (root, _) = root();
    let get = async |name: String| store.get(&name).await.unwrap().unwrap_or_else(|| panic!("{name} is missing"));
    let bytes = get(POINTER.into()).await;
    let e = Envelope::open(&bytes).unwrap();
    e.verify(&root.keys, &root.timestamp).unwrap();
    let timestamp = parse::parse_timestamp(e.signed).unwrap();
    let bytes = get(metadata_name(timestamp.snapshot.version, "snapshot")).await;
    assert_eq!(tuflog::bins::sha256(&bytes), timestamp.snapshot.sha256);
    let e = Envelope::open(&bytes).unwrap();
    e.verify(&root.keys, &root.snapshot).unwrap();
    let snapshot = parse::parse_snapshot(e.signed).unwrap();
    let mut all = std::collections::BTreeMap::new();
    for (name, version) in &snapshot.bins {
        let bytes = get(metadata_name(*version, name)).await;
        let e = Envelope::open(&bytes).unwrap();
        e.verify(&root.keys, &root.targets).unwrap();
        for (path, fragment) in parse::parse_bin(e.signed).unwrap().targets {
            let fragment: serde_json::Value = serde_json::from_str(fragment).unwrap();
            all.insert(path.into_owned(), fragment["length"].as_u64().unwrap());
        }
    }
    assert_eq!(snapshot.bins.len(), BINS as usize);
    (timestamp.version, all)
}

async fn submit(engine: &Engine, id: &str, changes: Vec<Change>) -> u64 {
    let receipt = engine.intake.submit(Batch::new(id.into(), None, changes).unwrap()).await.unwrap();
    let mut published = engine.published.clone();
    let visible = published.wait_for(|p| p.seq > receipt.seq);
    tokio::time::timeout(PATIENCE, visible).await.expect("it is published").unwrap();
    receipt.seq
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_becomes_visible_and_survives_a_restart_from_each_source() {
    visible_and_survives(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_becomes_visible_and_survives_a_restart_from_each_source_on_kafka() {
    let cluster = tokio::task::spawn_blocking(kafka::one).await.unwrap();
    visible_and_survives(Some(&cluster.repo().await)).await;
}

/// Every object below a directory.
fn objects(dir: &Path, below: &Path, all: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => objects(&path, below, all),
            false => drop(all.insert(path.strip_prefix(below).unwrap().to_owned(), std::fs::read(&path).unwrap())),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_ledger_gives_the_same_bytes_on_kafka_and_embedded() {
    let cluster = tokio::task::spawn_blocking(kafka::one).await.unwrap();
    let (repo, clock) = (cluster.repo().await, Arc::new(ManualClock::new(SystemClock.now())));
    let mut stores = Vec::new();
    for kafka in [None, Some(&repo)] {
        let dir = tempfile::tempdir().unwrap();
        let (mut engine, ..) = start_at(dir.path(), kafka, clock.clone()).await;
        engine.published.clone().wait_for(|p| p.n == 1).await.unwrap();
        for i in 0..12 {
            let mut changes: Vec<Change> = (0..i).map(|k| add(&format!("p/{}", (i * k) % 17), i + k)).collect();
            changes.push(Change::remove(format!("p/{}", i % 5)).unwrap());
            submit(&engine, &format!("batch-{i}"), changes).await;
        }
        engine.drain().await.unwrap();
        engine.stop().await.unwrap();
        let (mut all, store) = (BTreeMap::new(), dir.path().join("store"));
        objects(&store, &store, &mut all);
        stores.push(all);
    }
    assert!(stores[0].keys().eq(stores[1].keys()), "{:?} {:?}", stores[0].keys(), stores[1].keys());
    for (name, bytes) in &stores[0] {
        assert!(stores[1][name] == *bytes, "{} differs", name.display());
    }
    assert!(stores[0].len() > 30 && stores[0].contains_key(Path::new("ledger/4.state.json")));
}

async fn visible_and_survives(kafka: Option<&KafkaSettings>) {
    let dir = tempfile::tempdir().unwrap();
    let (mut engine, _, store) = start(dir.path(), kafka).await;
    let first = submit(&engine, "one", (0..100).map(|i| add(&format!("a/{i}"), i)).collect()).await;
    assert_eq!(submit(&engine, "one", (0..100).map(|i| add(&format!("a/{i}"), i)).collect()).await, first);
    let other = Batch::new("one".into(), None, vec![add("x", 1)]).unwrap();
    assert_eq!(engine.intake.submit(other).await.unwrap_err().kind, tuflog::error::Kind::Conflict);
    for i in 0..20 {
        submit(&engine, &format!("more-{i}"), vec![Change::remove(format!("a/{i}")).unwrap(), add("b", i)]).await;
    }
    engine.drain().await.unwrap();
    engine.stop().await.unwrap();
    let (_, all) = published(&*store).await;
    assert_eq!((all.len(), all["b"], all.contains_key("a/19"), all["a/20"]), (81, 19, false, 20));
    drop(store);
    for source in ["local", "checkpoint"] {
        if source == "checkpoint" {
            std::fs::remove_dir_all(dir.path().join("state")).unwrap();
        }
        let (mut engine, _, store) = start(dir.path(), kafka).await;
        assert_eq!(submit(&engine, "one", (0..100).map(|i| add(&format!("a/{i}"), i)).collect()).await, first);
        submit(&engine, source, vec![add(source, 7)]).await;
        engine.drain().await.unwrap();
        engine.stop().await.unwrap();
        let (_, now) = published(&*store).await;
        assert_eq!((now[source], now["b"], now["a/20"]), (7, 19, 20));
        assert_eq!(now.len(), if source == "local" { 82 } else { 83 });
    }
    let (log, store) =
        (open_log(dir.path(), kafka).await, LocalStore::open_read_only(&dir.path().join("store")).unwrap());
    let shipped_root = Some(dir.path().join("store/metadata/1.root.json"));
    let options = audit::Options { shipped_root, ..audit::Options::threads(2) };
    let report = audit::run(log, Arc::new(store), options, |_| {}).await.unwrap();
    assert!(report.is_clean() && report.notes.is_empty(), "{report}");
    assert_eq!((report.batches_valid, report.targets), (23, 83));
}

/// A copy of the log in `dir` without the last `lost` reports.
async fn lose_reports(dir: &Path, lost: u64) {
    let (from, to) = (open_log(dir, None).await, EmbeddedLog::open(&dir.join("copy"), Arc::new(SystemClock)).unwrap());
    let changes = (0..4).map(Partition::Changes);
    for of in changes.chain([Partition::Ledger, Partition::Folds]) {
        let (mut reader, mut end) = (from.reader(of, 0), from.end(of).await.unwrap());
        if of == Partition::Folds {
            end -= lost;
        }
        let mut next = 0;
        while next < end {
            for record in reader.read(1 << 20).await.unwrap().into_iter().filter(|record| record.offset < end) {
                next = to.append(of, record.payload).await.unwrap() + 1;
            }
        }
    }
    drop((from, to));
    std::fs::remove_dir_all(dir.join("log")).unwrap();
    std::fs::rename(dir.join("copy"), dir.join("log")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_that_are_foreign_or_lost_stop_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (mut engine, log, store) = start(dir.path(), None).await;
    submit(&engine, "one", (0..50).map(|i| add(&format!("a/{i}"), i)).collect()).await;
    log.append(Partition::Folds, "no report".into()).await.unwrap();
    submit(&engine, "two", vec![add("b", 1)]).await;
    engine.drain().await.unwrap();
    engine.stop().await.unwrap();
    drop((log, store));
    // Where a fold has its state, and where it starts from the checkpoint's bins.
    for (lost, id) in [(1, "three"), (3, "four")] {
        lose_reports(dir.path(), lost).await;
        let (mut engine, log, store) = start(dir.path(), None).await;
        submit(&engine, id, vec![add(id, 1)]).await;
        engine.drain().await.unwrap();
        engine.stop().await.unwrap();
        assert!(published(&*store).await.1.contains_key(id));
        drop((log, store));
        std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    }
}
