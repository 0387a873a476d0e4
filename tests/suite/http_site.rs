//! A node in this process: the engine on the embedded log and a local store, behind the HTTP API.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tuflog::bins::{PartitionId, sha256};
use tuflog::clock::{Clock, SystemClock};
use tuflog::compact::{Followed, Published};
use tuflog::config::Roles;
use tuflog::fold::state::State as BinState;
use tuflog::http::metered::MeteredStore;
use tuflog::http::metrics::Metrics;
use tuflog::http::{App, Cause, Health, Options, Parts, serve};
use tuflog::intake;
use tuflog::ledger::Record;
use tuflog::ledger::record::{Format, RootRecord, Settings, SettingsRecord};
use tuflog::log::embedded::EmbeddedLog;
use tuflog::log::{Log, Offset, Partition};
use tuflog::node::{self, Engine};
use tuflog::pool::Pool;
use tuflog::query::Query;
use tuflog::recover;
use tuflog::store::Store;
use tuflog::store::local::LocalStore;
use tuflog::tuf::{KeyRing, RoleKeys, Root, Signer};

use crate::help::scratch;

pub const BINS: u32 = 16;
pub const PARTITIONS: u32 = 4;

/// A running node.
pub struct Site {
    pub addr: SocketAddr,
    pub client: Client,
    pub health: Arc<Health>,
    pub log: Arc<dyn Log>,
    pub store: Arc<dyn Store>,
    pub dir: TempDir,
    engine: Option<Engine>,
    shutdown: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

/// What a test can set.
pub struct Setup {
    pub options: Options,
    pub horizon: u64,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { options: Options::default(), horizon: 65_536 }
    }
}

/// Log and store of a fresh repository in `dir`.
pub async fn fresh(dir: &Path, horizon: u64) -> (Arc<dyn Log>, Arc<dyn Store>) {
    let log: Arc<dyn Log> = EmbeddedLog::open(&dir.join("log"), Arc::new(SystemClock)).unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(&dir.join("store")).unwrap());
    let settings = Settings { state_every: 4, horizon, ..Settings::default() };
    for record in [
        Record::Format(Format { epoch: 1, bins: BINS, partitions: PARTITIONS }),
        Record::Settings(SettingsRecord { revision: 1, settings }),
        Record::Root(RootRecord { document: root() }),
    ] {
        log.append(Partition::Ledger, record.encode()).await.unwrap();
    }
    (log, store)
}

fn key(seed: u8) -> Arc<Signer> {
    Arc::new(Signer::from_seed(&[seed; 32]))
}

fn root() -> String {
    let role = |key: &Signer| RoleKeys::new(vec![*key.public().key_id()], 1);
    let root = Root {
        version: 1,
        expires: SystemClock.now() + 365 * 86_400,
        keys: [key(1), key(2)].map(|k| (*k.public().key_id(), k.public().clone())).into(),
        root: role(&key(1)),
        targets: role(&key(2)),
        snapshot: role(&key(2)),
        timestamp: role(&key(2)),
    };
    String::from_utf8(root.render(&[key(1)]).unwrap()).unwrap()
}

impl Site {
    /// A fresh repository, its node ready, its first checkpoint published.
    pub async fn start() -> Site {
        Site::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Site {
        let dir = scratch();
        let (log, store) = fresh(dir.path(), setup.horizon).await;
        let metrics = Arc::new(Metrics::new());
        let store: Arc<dyn Store> = Arc::new(MeteredStore::new(store, metrics.clone()));
        let state = recover::start(&*log, &*store).await.unwrap();
        let state = recover::advance(&*log, state, 3).await.unwrap();
        let mut ring = KeyRing::default();
        ring.insert(key(2));
        let parts = node::Parts {
            log: log.clone(),
            store: store.clone(),
            state: Arc::new(BinState::open(&dir.path().join("state"), state.layout().unwrap()).unwrap()),
            keys: Arc::new(ring),
            clock: Arc::new(SystemClock),
            pool: Pool::threads(2),
            uploads: 4,
            groups: 4,
            queue_bytes: 64 << 20,
            min_cut_interval_ms: 0,
            health: Arc::default(),
            roles: Roles::default(),
            membership: None,
            inbox: None,
            inbox_generation: 0,
            extra_hashes: Arc::default(),
            patience_ms: 0,
        };
        let engine = Engine::start(parts, state).await.unwrap();
        let mut published = engine.published.clone();
        published.wait_for(|p| p.n > 0).await.unwrap();
        let progress = engine.progress.clone();
        let folds = move || progress.folds();
        let (intake, stands) = (engine.intake.clone(), (engine.published.clone(), engine.followed.clone()));
        let mut site = Site::serve(log, store, dir, intake, stands, Box::new(folds), metrics, setup.options).await;
        site.engine = Some(engine);
        site
    }

    /// The API over an intake that somebody else drives.
    pub async fn over(
        log: Arc<dyn Log>,
        store: Arc<dyn Store>,
        dir: TempDir,
        intake: intake::Handle,
        options: Options,
    ) -> Site {
        let stands = (watch::channel(Published::default()).1, watch::channel(Followed::default()).1);
        let metrics = Arc::new(Metrics::new());
        Site::serve(log, store, dir, intake, stands, Box::new(BTreeMap::new), metrics, options).await
    }

    #[allow(clippy::too_many_arguments)] // once
    async fn serve(
        log: Arc<dyn Log>,
        store: Arc<dyn Store>,
        dir: TempDir,
        intake: intake::Handle,
        (published, followed): (watch::Receiver<Published>, watch::Receiver<Followed>),
        folds: Box<dyn Fn() -> BTreeMap<PartitionId, Offset> + Send + Sync>,
        metrics: Arc<Metrics>,
        options: Options,
    ) -> Site {
        let (health, pool) = (Arc::new(Health::new()), Pool::threads(2));
        health.clear(Cause::Starting);
        let app = App::new(Parts {
            intake,
            query: Query::new(log.clone(), store.clone(), pool.clone()),
            store: store.clone(),
            published,
            followed,
            folds,
            clock: Arc::new(SystemClock),
            pool,
            health: health.clone(),
            metrics,
            options,
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (shutdown, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(listener, app, async { drop(stopped.await) }));
        let (shutdown, serving) = (Some(shutdown), Some(serving));
        Site { addr, client: Client::new(), health, log, store, dir, engine: None, shutdown, serving }
    }

    /// Ends serving, as a drain does: what is under way is answered.
    pub fn stop_serving(&mut self) -> JoinHandle<()> {
        drop(self.shutdown.take());
        self.serving.take().expect("stopped once")
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    /// A request with headers.
    pub async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
        let request = headers.iter().fold(self.client.request(method, self.url(path)), |r, (k, v)| r.header(*k, *v));
        request.send().await.unwrap()
    }

    /// The JSON of a successful GET.
    pub async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    pub async fn post(&self, query: &str, body: &Value) -> (StatusCode, Value) {
        let body = self.client.post(self.url(&format!("/v1/batches{query}"))).body(body.to_string());
        let response = body.send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    /// Publishes and waits until it is visible.
    pub async fn publish(&self, id: &str, changes: Vec<Value>) -> Value {
        let (status, answer) = self.post("?wait=published", &json!({"id": id, "changes": changes})).await;
        assert_eq!((status, answer["state"].as_str()), (StatusCode::OK, Some("published")), "{answer}");
        answer
    }

    /// Sends bytes and reads the answer to the end of the connection.
    pub async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// What a client sees: path → entry, through timestamp, snapshot and bins over HTTP.
    pub async fn visible(&self) -> BTreeMap<String, Value> {
        let timestamp = self.json("/metadata/timestamp.json").await;
        let n = &timestamp["signed"]["meta"]["snapshot.json"]["version"];
        let snapshot = self.json(&format!("/metadata/{n}.snapshot.json")).await;
        let mut all = BTreeMap::new();
        for (file, meta) in snapshot["signed"]["meta"].as_object().unwrap() {
            if file.starts_with("bins-") {
                let bin = self.json(&format!("/metadata/{}.{file}", meta["version"])).await;
                let targets = bin["signed"]["targets"].as_object().unwrap();
                all.extend(targets.iter().map(|(path, entry)| (path.clone(), entry.clone())));
            }
        }
        all
    }

    pub async fn stop(mut self) {
        let serving = self.stop_serving();
        if let Some(mut engine) = self.engine.take() {
            engine.drain().await.unwrap();
            engine.stop().await.unwrap();
        }
        serving.await.unwrap();
    }
}

/// Asserts status and kind of an error, and that it has the one form; answers its detail.
pub async fn refused(response: Response, status: u16, kind: &str) -> Value {
    let (is, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{is}: {text:?}: {e}"));
    let error = body["error"].clone();
    assert_eq!((is, error["kind"].as_str()), (status, Some(kind)), "{text}");
    assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()) && body.as_object().unwrap().len() == 1, "{text}");
    assert_eq!(headers.get("content-type").unwrap(), "application/json");
    assert!(text.ends_with("}\n"), "{text}");
    assert_eq!(headers.contains_key("retry-after"), status == 503, "{text}");
    assert_eq!(error["retry_after_s"].is_u64(), status == 503, "{text}");
    assert_eq!(headers.contains_key("www-authenticate"), status == 401, "{text}");
    error
}

/// The digest of a target's content.
pub fn digest(content: &str) -> String {
    hex::encode(sha256(content.as_bytes()))
}

pub fn add(path: &str, content: &str) -> Value {
    json!({"op": "add", "path": path, "length": content.len(), "hashes": {"sha256": digest(content)}})
}

pub fn remove(path: &str) -> Value {
    json!({"op": "remove", "path": path})
}
