//! The HTTP API: batches in through the intake, answers from published state, metadata to TUF clients.
//!
//! ```text
//!   serve.rs      connections                         failure.rs   the one form of errors
//!   params.rs     paths and query parameters          body.rs      request bodies, bounded
//!   batches.rs    POST and receipts                   published.rs targets, checkpoints, lag, probes
//!   status.rs     where the node stands               rates.rs     what happened in the last seconds
//!   explore.rs    bins, search, history, the ledger   streams.rs   diff, replay, the change feed
//!   metadata.rs   what TUF clients fetch              variants.rs  its compressed copies
//!   files.rs      target files                        auth.rs      tokens
//!   health.rs     ready or not                        metrics.rs   Prometheus; metered.rs counts objects
//!   json.rs       JSON answers                        process.rs   what /proc shows of a process
//!   console.rs    a page for people
//! ```
//!
//! Owns the edge half of invariant 8: bodies, connections and readers of the history are bounded, and what finds no
//! room gets 503 with Retry-After. With tokens configured, everything below `/v1` and `/metrics` needs one; metadata,
//! target files, the console's files and the probes are public.

mod auth;
mod batches;
mod body;
mod console;
mod explore;
mod failure;
mod files;
mod health;
mod json;
mod metadata;
pub mod metered;
pub mod metrics;
pub mod openapi;
mod params;
pub mod process;
mod published;
mod rates;
mod serve;
mod status;
mod streams;
mod variants;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

pub use auth::{Scope, Tokens};
pub use body::{MAX_BODIES_BYTES, MAX_BODY_BYTES};
pub use failure::{ErrorAnswer, ErrorDetail};
pub use health::{Cause, Health};
pub use published::ReadyAnswer;
pub use rates::{Rates, RatesAnswer, SecondAnswer};
pub use serve::{open_files, serve};
pub use status::{LayoutStatus, LedgerStatus, PartitionStatus, PublishedStatus, QueueStatus, StatusAnswer};

use crate::bins::PartitionId;
use crate::clock::{Clock, Stopwatch};
use crate::compact::{Followed, Published};
use crate::config::{Roles, defaults};
use crate::intake;
use crate::log::Offset;
use crate::pool::Pool;
use crate::query::{At, Query, TargetAnswer};
use crate::store::Store;
use failure::{Answer, Failure};
use metrics::{Metrics, Visible};
use variants::Variants;

/// How many requests may read the whole ledger at a time; more get 503.
const SCANS: usize = 2;
/// How many questions that read much of log or store are answered at a time; more wait, but not for ever.
const PAGES: usize = 4;
/// For how long: then they get 503.
const PAGE_WAIT: Duration = Duration::from_secs(10);
/// How many files may be read from the store into memory at a time; more wait.
const READS: usize = 32;

/// How the API behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Hash algorithms admitted beside sha256.
    pub extra_hashes: Arc<[String]>,
    /// The directory of target files.
    pub targets: Option<PathBuf>,
    /// Who may do what; everybody everything when there is none.
    pub tokens: Option<Tokens>,
    /// How long `?wait=published` waits, and a POST for its Commit.
    pub wait: Duration,
    /// How long a request's body may take to come.
    pub request: Duration,
    /// The directory whose free space is shown.
    pub disk: Option<PathBuf>,
    /// What this process does.
    pub roles: Roles,
    /// False for a node that answers only questions.
    pub takes_batches: bool,
    /// False for a node that answers only the probes and for its metrics.
    pub serves: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            extra_hashes: Arc::default(),
            targets: None,
            tokens: None,
            wait: Duration::from_secs(defaults::WAIT_S),
            request: Duration::from_secs(defaults::REQUEST_S),
            disk: None,
            roles: Roles::default(),
            takes_batches: true,
            serves: true,
        }
    }
}

/// What the API works with.
pub struct Parts {
    /// Takes batches.
    pub intake: intake::Handle,
    /// Answers questions.
    pub query: Query,
    /// Where metadata is read from.
    pub store: Arc<dyn Store>,
    /// Where the pointer stands.
    pub published: watch::Receiver<Published>,
    /// What this node has read of the ledger.
    pub followed: watch::Receiver<Followed>,
    /// The position of each partition that is folded here: the ledger seq its fold takes next.
    pub folds: Box<dyn Fn() -> BTreeMap<PartitionId, Offset> + Send + Sync>,
    /// For the age of what is published.
    pub clock: Arc<dyn Clock>,
    /// Where large requests are parsed and files compressed.
    pub pool: Pool,
    /// Ready or not.
    pub health: Arc<Health>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// How to behave.
    pub options: Options,
}

/// The state of the API, shared by all requests.
pub struct App {
    intake: intake::Handle,
    query: Query,
    store: Arc<dyn Store>,
    published: watch::Receiver<Published>,
    followed: watch::Receiver<Followed>,
    folds: Box<dyn Fn() -> BTreeMap<PartitionId, Offset> + Send + Sync>,
    clock: Arc<dyn Clock>,
    pool: Pool,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    options: Options,
    bodies: body::Bodies,
    files: variants::Cache,
    scans: Semaphore,
    pages: Semaphore,
    reads: Semaphore,
    streams: Arc<Semaphore>,
    /// For records of which few are kept in memory at a time.
    large: Arc<Semaphore>,
    visible: Visible,
    rates: rates::Recorder,
    /// Ends the streams.
    ending: CancellationToken,
    started: Stopwatch,
}

impl App {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Arc<App> {
        let Parts { intake, query, store, published, followed, folds, clock, pool, health, metrics, options } = parts;
        Arc::new(App {
            bodies: body::Bodies::new(pool.clone(), options.request),
            files: variants::Cache::default(),
            scans: Semaphore::new(SCANS),
            pages: Semaphore::new(PAGES),
            reads: Semaphore::new(READS),
            streams: Arc::new(Semaphore::new(streams::STREAMS)),
            large: Arc::new(Semaphore::new(streams::LARGE)),
            visible: Visible::default(),
            rates: rates::Recorder::default(),
            ending: CancellationToken::new(),
            started: Stopwatch::start(),
            intake,
            query,
            store,
            published,
            followed,
            folds,
            clock,
            pool,
            health,
            metrics,
            options,
        })
    }

    /// Measures how long batches take to become visible, until the compactor is gone. The first checkpoint makes the
    /// node ready.
    async fn watch_published(&self) {
        let mut published = self.published.clone();
        loop {
            let now = *published.borrow_and_update();
            if now.version > 0 {
                self.health.clear(Cause::Unpublished);
                self.visible.reached(now.seq, |seconds| {
                    self.metrics.visible_seconds.observe(seconds);
                    self.rates.visible(seconds);
                });
            }
            if published.changed().await.is_err() {
                return;
            }
        }
    }

    /// Takes note of each second.
    async fn record_rates(&self) {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            seconds.tick().await;
            let followed = *self.followed.borrow();
            self.rates.tick(self.clock.now(), followed);
        }
    }

    /// The published target at a path; see [`Query::target`].
    async fn target(&self, path: &str) -> crate::Result<Option<TargetAnswer>> {
        let _turn = self.read().await?;
        self.query.target(path, None).await
    }

    /// A turn to read a file into memory; waits for it.
    async fn read(&self) -> crate::Result<SemaphorePermit<'_>> {
        turn(&self.reads).await
    }

    /// The point in history that a parameter names.
    fn at(&self, query: &BTreeMap<String, String>, name: &str) -> crate::Result<Option<At>> {
        let parse = |text: &String| {
            At::parse(text, self.clock.now()).map_err(|e| crate::Error { field: Some(name.to_owned()), ..e })
        };
        query.get(name).map(parse).transpose()
    }

    /// A turn for a question that reads much; waits for it a while.
    async fn turn(&self) -> crate::Result<SemaphorePermit<'_>> {
        let busy = |_| crate::Error::unavailable(format!("{PAGES} long questions are being answered: try again"));
        tokio::time::timeout(PAGE_WAIT, turn(&self.pages)).await.map_err(busy)?
    }

    /// Room for a stream.
    fn stream(&self) -> crate::Result<OwnedSemaphorePermit> {
        let busy = |_| crate::Error::unavailable(format!("{} streams are being read: try again", streams::STREAMS));
        self.streams.clone().try_acquire_owned().map_err(busy)
    }

    /// A versioned metadata file by its name.
    async fn file(&self, name: &str) -> crate::Result<Option<Arc<Variants>>> {
        if let Some(file) = self.files.get(name) {
            return Ok(Some(file));
        }
        let _turn = self.reads.acquire().await;
        if let Some(file) = self.files.get(name) {
            return Ok(Some(file)); // read by another meanwhile: many ask for a new snapshot at once
        }
        let bytes = self.store.get(&format!("metadata/{name}")).await?;
        Ok(bytes.map(|bytes| self.files.put(name, Variants::new(bytes))))
    }

    /// Which scope a request needs, from its path and method alone: a route added later is not forgotten.
    fn authorize(&self, method: &Method, path: &str, headers: &HeaderMap) -> Answer<()> {
        let Some(tokens) = &self.options.tokens else { return Ok(()) };
        let reads = [Method::GET, Method::HEAD].contains(method);
        match path {
            _ if path.starts_with("/v1/") || path == "/v1" => {
                tokens.check(headers, if reads { Scope::Read } else { Scope::Publish })
            }
            "/metrics" => tokens.check(headers, Scope::Read),
            _ => Ok(()),
        }
    }
}

async fn turn(of: &Semaphore) -> crate::Result<SemaphorePermit<'_>> {
    of.acquire().await.map_err(|_| crate::Error::unavailable("the server is stopping: try again"))
}

/// The routes.
pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/healthz", get(published::healthz))
        .route("/readyz", get(published::readyz))
        .route("/metrics", get(metrics::get));
    if app.options.takes_batches || app.options.serves {
        router = router.route("/v1/batches", post(batches::post)).route("/v1/batches/{id}", get(batches::get));
    }
    if app.options.serves {
        router = router.merge(queries());
    }
    router
        .method_not_allowed_fallback(async || Failure::method_not_allowed())
        .fallback(async || Failure::not_found("there is no such path; /openapi.json lists them"))
        .layer(from_fn_with_state(app.clone(), around))
        .with_state(app)
}

/// What a node with the role `http` answers.
fn queries() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(console::page))
        .route("/console/{name}", get(console::file))
        .route("/v1/targets/{*path}", get(published::target))
        .route("/v1/route/{*path}", get(published::route))
        .route("/v1/checkpoints", get(published::checkpoints))
        .route("/v1/checkpoints/{n}", get(published::checkpoint))
        .route("/v1/bins", get(explore::bins))
        .route("/v1/bins/{bin}", get(explore::bin))
        .route("/v1/search", get(explore::search))
        .route("/v1/history/{*path}", get(explore::history))
        .route("/v1/log", get(explore::records))
        .route("/v1/log/{seq}", get(explore::record))
        .route("/v1/diff", get(streams::diff))
        .route("/v1/replay", get(streams::replay))
        .route("/v1/feed", get(streams::feed))
        .route("/v1/status", get(status::status))
        .route("/v1/rates", get(status::rates))
        .route("/v1/lag", get(published::lag))
        .route("/metadata/{name}", get(metadata::get))
        .route("/targets/{*path}", get(files::get))
        .route("/openapi.json", get(openapi::get))
}

/// Around every request: its token, its line in the log, its count; and a panic becomes an answer.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Stopwatch::start();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let route = request.extensions().get::<MatchedPath>().map_or("none", |m| m.as_str()).to_owned();
    let response = match app.authorize(&method, &path, request.headers()) {
        Err(refusal) => refusal.into_response(),
        Ok(()) => match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(_) => Failure::internal("this request hit a defect in tuflog; its log has more").into_response(),
        },
    };
    let (status, seconds) = (response.status().as_u16(), started.seconds());
    let name = match method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "other",
    };
    app.metrics.request(name, &route, status, seconds);
    let ms = (seconds * 1e4).round() / 10.0;
    if method == Method::POST {
        tracing::info!(%method, path, status, ms, "request");
    } else {
        tracing::debug!(%method, path, status, ms, "request");
    }
    response
}
