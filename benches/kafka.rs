//! Speed of the whole path on a real Kafka, as ratios within one run.
//!
//! `cargo bench --profile dev --bench kafka -- [chain] [rate] [folds] [--nodes 1|3] [--seconds N]`; without names all
//! three, on one node. Brokers run on loopback and keep their data in memory (`tests/kafka/cluster.sh`).
//!
//! | name | what is compared |
//! |---|---|
//! | chain | POST to visible of one change, idle, against the five appends and reads that it consists of, made bare |
//! | rate | batches of 1,000 until published, against the same engine on the memory log |
//! | folds | bins stored by one fold and by eight, in a store that takes 30 ms an object, against four uploads at a time |

#[allow(dead_code)]
#[path = "../tests/suite/help.rs"]
mod help;
#[allow(dead_code)]
#[path = "../tests/suite/kafka.rs"]
mod kafka;
#[allow(dead_code)]
#[path = "../tests/suite/server.rs"]
mod server;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use futures::future::{BoxFuture, join_all};
use tuflog::change::{Batch, Change};
use tuflog::clock::{Clock, SystemClock};
use tuflog::config::{Roles, defaults};
use tuflog::error::Result;
use tuflog::fold::state::State as BinState;
use tuflog::ledger::Record;
use tuflog::ledger::record::{Format, RootRecord, Settings, SettingsRecord};
use tuflog::log::kafka::KafkaLog;
use tuflog::log::memory::{Faults, MemoryLog};
use tuflog::log::{Log, Partition};
use tuflog::node::{Engine, Parts};
use tuflog::pool::Pool;
use tuflog::recover;
use tuflog::store::local::LocalStore;
use tuflog::store::{Created, Store};
use tuflog::tuf::{KeyRing, RoleKeys, Root, Signer};

use crate::kafka::Cluster;
use crate::server::Server;

/// Speed of the whole path on a real Kafka.
#[derive(Parser)]
struct Args {
    /// What to measure.
    names: Vec<Name>,
    /// How many brokers, 1 or 3.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// How long each load runs.
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Name {
    Chain,
    Rate,
    Folds,
}

#[tokio::main]
async fn main() {
    let Args { names, nodes, seconds, .. } = Args::parse();
    let cluster = Cluster::start(nodes);
    println!("{nodes} broker(s)");
    let wanted = |name| names.is_empty() || names.contains(&name);
    if wanted(Name::Chain) {
        chain(&cluster).await;
    }
    if wanted(Name::Rate) {
        rate(&cluster, Duration::from_secs(seconds)).await;
    }
    if wanted(Name::Folds) {
        folds(&cluster, Duration::from_secs(seconds)).await;
    }
}

/// p50 and p99 in milliseconds.
fn quantiles(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    (at(50), at(99))
}

// --- chain

/// Appends of a chain: where, and how large. Segment, Commit, Cut, report, Checkpoint.
const CHAIN: [(Partition, usize); 5] = [
    (Partition::Changes(0), 300),
    (Partition::Ledger, 400),
    (Partition::Ledger, 60),
    (Partition::Folds, 400),
    (Partition::Ledger, 300),
];
const ROUNDS: usize = 400;

async fn chain(cluster: &Cluster) {
    // Halves of the one before and after the other: a machine that changes its mind shows.
    let mut bare = bare_chain(cluster).await;
    let posts = posts(cluster).await;
    bare.extend(bare_chain(cluster).await);
    let ((bare, bare99), (post, post99)) = (quantiles(bare), quantiles(posts));
    println!("chain: bare p50 {bare:.1} ms, p99 {bare99:.1} ms; POST to visible p50 {post:.1} ms, p99 {post99:.1} ms");
    println!("chain: p50 {:.2} times the bare chain", post / bare);
}

async fn bare_chain(cluster: &Cluster) -> Vec<Duration> {
    let log = KafkaLog::open(&cluster.repo().await).await.unwrap();
    let mut readers = CHAIN.map(|(of, _)| (of, log.reader(of, 0)));
    let mut times = Vec::new();
    for round in 0..ROUNDS / 2 + 20 {
        let start = Instant::now();
        for (i, (of, size)) in CHAIN.into_iter().enumerate() {
            let at = log.append(of, Bytes::from(vec![b' '; size])).await.unwrap();
            let reader = &mut readers[i].1;
            while reader.read(1 << 20).await.unwrap().last().is_none_or(|last| last.offset < at) {
                reader.ready().await.unwrap();
            }
        }
        if round >= 20 {
            times.push(start.elapsed());
        }
    }
    times
}

async fn posts(cluster: &Cluster) -> Vec<Duration> {
    let (scratch, settings) = (help::scratch(), cluster.fresh());
    let data = scratch.path().join("data");
    let mut options = vec!["--kafka-brokers", &settings.brokers, "--kafka-repo", &settings.repo];
    if !cluster.bootstrap().contains(',') {
        options.extend(["--kafka-replication", "1", "--kafka-min-insync", "1"]);
    }
    server::init(&data, &options);
    let server = Server::start(&data, &["--min-free-mib", "0"]);
    let (client, url) = (reqwest::Client::new(), format!("{}/v1/batches?wait=published", server.url()));
    let mut times = Vec::new();
    for n in 0..ROUNDS + 20 {
        let hash = "ab".repeat(32);
        let body = format!(
            r#"{{"changes":[{{"op":"add","path":"dir/file-{n}","length":{n},"hashes":{{"sha256":"{hash}"}}}}]}}"#
        );
        let start = Instant::now();
        let answer = client.post(&url).header("content-type", "application/json").body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap();
        if n >= 20 {
            times.push(start.elapsed());
        }
    }
    server.stop();
    times
}

// --- an engine in this process

fn root() -> (Arc<Signer>, String) {
    let (root_key, online) = (Arc::new(Signer::from_seed(&[1; 32])), Arc::new(Signer::from_seed(&[2; 32])));
    let role = |key: &Signer| RoleKeys::new(vec![*key.public().key_id()], 1);
    let root = Root {
        version: 1,
        expires: SystemClock.now() + 365 * 86_400,
        keys: [&root_key, &online].map(|k| (*k.public().key_id(), k.public().clone())).into(),
        root: role(&root_key),
        targets: role(&online),
        snapshot: role(&online),
        timestamp: role(&online),
    };
    (online.clone(), String::from_utf8(root.render(&[root_key]).unwrap()).unwrap())
}

async fn engine(dir: &Path, log: Arc<dyn Log>, store: Arc<dyn Store>, bins: u32, partitions: u16) -> Engine {
    let (online, document) = root();
    for record in [
        Record::Format(Format { epoch: 1, bins, partitions: partitions.into() }),
        Record::Settings(SettingsRecord { revision: 1, settings: Settings::default() }),
        Record::Root(RootRecord { document }),
    ] {
        log.append(Partition::Ledger, record.encode()).await.unwrap();
    }
    let state = recover::advance(&*log, recover::start(&*log, &*store).await.unwrap(), 3).await.unwrap();
    let mut ring = KeyRing::default();
    ring.insert(online);
    let parts = Parts {
        state: Arc::new(BinState::open(&dir.join("state"), state.layout().unwrap()).unwrap()),
        log,
        store,
        keys: Arc::new(ring),
        clock: Arc::new(SystemClock),
        pool: Pool::threads(2),
        uploads: defaults::UPLOADS as usize,
        groups: defaults::GROUPS as usize,
        queue_bytes: (defaults::QUEUE_MIB << 20) as usize,
        min_cut_interval_ms: defaults::MIN_CUT_INTERVAL_MS,
        health: Arc::default(),
        roles: Roles::default(),
        membership: None,
        inbox: None,
        inbox_generation: 0,
        extra_hashes: Arc::default(),
        patience_ms: 0,
    };
    Engine::start(parts, state).await.unwrap()
}

/// Producers that have one batch each on the way, for some time, and pause after each; answers changes a second, until
/// all are published.
async fn load(engine: &mut Engine, producers: usize, batch: usize, pause: Duration, time: Duration) -> f64 {
    let (start, count) = (Instant::now(), AtomicU64::new(0));
    let producer = async |_| {
        while start.elapsed() < time {
            let n = count.fetch_add(batch as u64, Ordering::Relaxed);
            let hashes = [("sha256".to_owned(), "ab".repeat(32))];
            let add = |i| Change::add(format!("pool/file-{i}"), i, &hashes.clone().into(), None).unwrap();
            let batch = Batch::new(format!("batch-{n}"), None, (n..n + batch as u64).map(add).collect()).unwrap();
            engine.intake.submit(batch).await.unwrap();
            tokio::time::sleep(pause).await;
        }
    };
    join_all((0..producers).map(producer)).await;
    engine.drain().await.unwrap();
    count.into_inner() as f64 / start.elapsed().as_secs_f64()
}

// --- rate

async fn rate(cluster: &Cluster, time: Duration) {
    let (mut memory, mut kafka) = (0.0, 0.0);
    for _ in 0..2 {
        memory += one_rate(Arc::new(MemoryLog::new(1, Faults::default())), time / 2).await / 2.0;
        kafka += one_rate(Arc::new(KafkaLog::open(&cluster.repo().await).await.unwrap()), time / 2).await / 2.0;
    }
    println!("rate: batches of 1,000: {memory:.0} changes/s on the memory log, {kafka:.0} on Kafka");
    println!("rate: {:.0} % of the memory log", kafka / memory * 100.0);
}

async fn one_rate(log: Arc<dyn Log>, time: Duration) -> f64 {
    let scratch = help::scratch();
    let store = Arc::new(LocalStore::open(&scratch.path().join("store")).unwrap());
    let mut engine = engine(scratch.path(), log, store, 1_024, kafka::PARTITIONS).await;
    load(&mut engine, 32, 1_000, Duration::ZERO, time).await
}

// --- folds

/// How long the slow store takes over an object.
const SLOW: Duration = Duration::from_millis(30);
const BINS_EACH: u32 = 256;

/// A store that takes its time.
struct SlowStore {
    inner: LocalStore,
    bins: AtomicU64,
}

impl Store for SlowStore {
    fn create<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<Created>> {
        Box::pin(async move {
            tokio::time::sleep(SLOW).await;
            self.bins.fetch_add(u64::from(!name.contains("snapshot")), Ordering::Relaxed);
            self.inner.create(name, bytes).await
        })
    }

    fn sync<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<()>> {
        self.inner.sync(names)
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        Box::pin(async move {
            tokio::time::sleep(SLOW).await;
            self.inner.get(name).await
        })
    }

    fn swap_pointer<'a>(&'a self, old: Option<&'a Bytes>, new: Bytes) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            tokio::time::sleep(SLOW).await;
            self.inner.swap_pointer(old, new).await
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        self.inner.list(prefix)
    }
}

async fn folds(cluster: &Cluster, time: Duration) {
    let one = one_folds(cluster, 1, time).await;
    let eight = one_folds(cluster, 8, time).await;
    let bound = defaults::UPLOADS as f64 / SLOW.as_secs_f64();
    let (uploads, slow) = (defaults::UPLOADS, SLOW.as_millis());
    println!("folds: one stores {one:.0} bins/s, {:.0} % of {uploads}/{slow} ms", one / bound * 100.0);
    println!("folds: eight store {eight:.0} bins/s, {:.1} times one", eight / one);
}

async fn one_folds(cluster: &Cluster, partitions: u16, time: Duration) -> f64 {
    // In memory: what is measured is the store's time, not the disk's.
    let (scratch, settings) = (tempfile::tempdir_in("/dev/shm").unwrap(), cluster.fresh());
    let copies = if cluster.bootstrap().contains(',') { (3, 2) } else { (1, 1) };
    KafkaLog::create_topics(&settings, partitions, copies.0, copies.1).await.unwrap();
    let log = Arc::new(KafkaLog::open(&settings).await.unwrap());
    let inner = LocalStore::open(&scratch.path().join("store")).unwrap();
    let store = Arc::new(SlowStore { inner, bins: AtomicU64::new(0) });
    let bins = BINS_EACH * u32::from(partitions);
    let mut engine = engine(scratch.path(), log, store.clone(), bins, partitions).await;
    let (start, before) = (Instant::now(), store.bins.load(Ordering::Relaxed));
    // So many changes that every cut has every bin, and no more.
    load(&mut engine, 1, 4 * bins as usize, Duration::from_millis(500), time).await;
    (store.bins.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64()
}
