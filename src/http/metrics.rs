//! What Prometheus scrapes: `tuflog_…`, with units in the names.
//!
//! Handles are plain fields: whoever knows a number updates it, and the engine's rooms need not know of Prometheus.
//! What can be read when it is asked for (positions, queue, what is published) is sampled at each scrape.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::batches::{Submitted, outcome};
use super::failure::Answer;
use super::streams::STREAMS;
use super::{App, process, status};
use crate::clock::Stopwatch;
use crate::error::Result;
use crate::log::Offset;
use crate::query::PartitionLag;
use crate::store::local;

/// Buckets of request and commit times, in seconds.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.25, 2.5, 10.0, 30.0];
/// How many POSTs are watched at a time until they are visible; more are not measured.
const WATCHED: usize = 16_384;

/// A gauge that holds what does not fit an `i64` badly: positions and byte counts.
pub type Number = Gauge<u64, AtomicU64>;

/// A route and how it answered.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Request {
    /// The method.
    pub method: &'static str,
    /// The route's pattern, such as `/v1/batches/{id}`.
    pub route: String,
    /// The status code.
    pub status: u16,
}

/// A route.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Route {
    /// Its pattern.
    pub route: String,
}

/// What became of a POST.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Outcome {
    /// `committed`, `duplicate`, `conflict`, `invalid`, `unavailable`, `indeterminate` or `failed`.
    pub outcome: &'static str,
}

/// A partition.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Partition {
    /// Its number.
    pub partition: u16,
}

/// A kind of stored object.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Object {
    /// `bin`, `snapshot`, `targets`, `root` or `state`.
    pub object: &'static str,
}

/// A role of the published metadata.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Role {
    /// `root`, `timestamp`, `snapshot`, `targets` or `bins`.
    pub role: String,
}

/// A role of this process.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ProcessRole {
    /// `intake`, `fold`, `compact` or `http`.
    pub role: &'static str,
}

/// What the store was asked for.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StoreOp {
    /// `create`, `sync`, `get`, `length`, `swap` or `list`.
    pub op: &'static str,
}

/// The same, with what became of it.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StoreRequest {
    /// See [`StoreOp`].
    pub op: &'static str,
    /// `ok` or `error`.
    pub outcome: &'static str,
}

/// This process, under the names that Prometheus has for all.
#[derive(Default)]
struct Process {
    cpu: Counter<f64, AtomicU64>,
    memory: Number,
    open_files: Number,
    max_files: Number,
}

impl Process {
    fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("process");
        r.register_with_unit("cpu", "CPU time of all threads", Unit::Seconds, self.cpu.clone());
        r.register_with_unit("resident_memory", "Memory in use", Unit::Bytes, self.memory.clone());
        r.register("open_fds", "Open files", self.open_files.clone());
        r.register("max_fds", "How many there may be", self.max_files.clone());
    }

    fn sample(&self) {
        if let Some(usage) = process::usage_of(Path::new("/proc/self")) {
            self.cpu.inc_by((usage.cpu_s - self.cpu.get()).max(0.0));
            self.memory.set(usage.rss_bytes);
        }
        let (open, limit) = process::open_files();
        self.open_files.set(open);
        self.max_files.set(limit);
    }
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

type Times<L> = Family<L, Histogram, fn() -> Histogram>;

/// All of them, and the registry they are encoded from.
pub struct Metrics {
    registry: Registry,
    /// Requests answered.
    pub requests: Family<Request, Counter>,
    /// Time to the answer's head.
    pub request_seconds: Times<Route>,
    /// POSTed batches by what became of them.
    pub batches: Family<Outcome, Counter>,
    /// From a POST's head to its Commit read back.
    pub commit_seconds: Histogram,
    /// From a POST's head to the pointer leading to it.
    pub visible_seconds: Histogram,
    /// Objects created in the store: see [`super::metered`].
    pub objects: Family<Object, Counter>,
    /// Their bytes.
    pub object_bytes: Family<Object, Counter>,
    /// Requests to the store.
    pub store_requests: Family<StoreRequest, Counter>,
    /// How long they took.
    pub store_seconds: Times<StoreOp>,
    ledger_batches: Counter,
    ledger_changes: Counter,
    checkpoints: Counter,
    cut_seconds: Counter<f64, AtomicU64>,
    queue_bytes: Number,
    queue_limit: Number,
    partition_lag: Family<Partition, Number>,
    roles: Family<ProcessRole, Number>,
    streams: Number,
    disk_free: Number,
    process: Process,
    ledger_next: Number,
    fold_position: Family<Partition, Number>,
    inbox_lag: Family<Partition, Number>,
    timestamp_version: Number,
    checkpoint: Number,
    published_lag: Number,
    published_age: Number,
    /// When the published cut was made, in Unix seconds; 0 before it is known.
    published_time: AtomicU64,
    expires: Family<Role, Number>,
    ready: Gauge,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// A registry with everything in it.
    pub fn new() -> Metrics {
        let mut m = Metrics {
            registry: Registry::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            batches: Family::default(),
            commit_seconds: seconds(),
            visible_seconds: seconds(),
            objects: Family::default(),
            object_bytes: Family::default(),
            store_requests: Family::default(),
            store_seconds: Family::new_with_constructor(seconds),
            ledger_batches: Counter::default(),
            ledger_changes: Counter::default(),
            checkpoints: Counter::default(),
            cut_seconds: Counter::default(),
            queue_bytes: Number::default(),
            queue_limit: Number::default(),
            partition_lag: Family::default(),
            roles: Family::default(),
            streams: Number::default(),
            disk_free: Number::default(),
            process: Process::default(),
            ledger_next: Number::default(),
            fold_position: Family::default(),
            inbox_lag: Family::default(),
            timestamp_version: Number::default(),
            checkpoint: Number::default(),
            published_lag: Number::default(),
            published_age: Number::default(),
            published_time: AtomicU64::default(),
            expires: Family::default(),
            ready: Gauge::default(),
        };
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        m.process.register(&mut m.registry);
        let r = m.registry.sub_registry_with_prefix("tuflog");
        r.register("build", "The program", version);
        r.register("role", "1 for each role of this process", m.roles.clone());
        r.register(
            "ledger_batches",
            "Batches committed, as read in the ledger since the start",
            m.ledger_batches.clone(),
        );
        r.register("ledger_changes", "Their changes", m.ledger_changes.clone());
        r.register("checkpoints", "Checkpoints, as read in the ledger since the start", m.checkpoints.clone());
        let help = "Time from Cut to Checkpoint, of all these checkpoints, by the log's clock";
        r.register_with_unit("cut", help, Unit::Seconds, m.cut_seconds.clone());
        r.register("store_requests", "Requests to the store by what became of them", m.store_requests.clone());
        let help = "Time of a request to the store, with its repeats";
        r.register_with_unit("store_request", help, Unit::Seconds, m.store_seconds.clone());
        let help = "Changes that may be queued or in flight";
        r.register_with_unit("queue_limit", help, Unit::Bytes, m.queue_limit.clone());
        let help = "Segments of a partition that the newest checkpoint has not applied";
        r.register("partition_lag_records", help, m.partition_lag.clone());
        r.register("streams", "Streams being read: diff, replay, feed", m.streams.clone());
        r.register_with_unit("disk_free", "Free space where the data directory lies", Unit::Bytes, m.disk_free.clone());
        r.register("http_requests", "Requests answered", m.requests.clone());
        let help = "Time from a request's head to its answer's head";
        r.register_with_unit("http_request", help, Unit::Seconds, m.request_seconds.clone());
        r.register("batches", "POSTed batches by what became of them", m.batches.clone());
        let help = "Time from a POST's head to its Commit read back";
        r.register_with_unit("batch_commit", help, Unit::Seconds, m.commit_seconds.clone());
        let help = "Time from a POST's head to timestamp.json leading to it";
        r.register_with_unit("batch_visible", help, Unit::Seconds, m.visible_seconds.clone());
        r.register("objects_created", "Objects created in the store", m.objects.clone());
        r.register_with_unit("objects_created", "Bytes of objects created", Unit::Bytes, m.object_bytes.clone());
        r.register_with_unit("queue", "Changes queued or in flight", Unit::Bytes, m.queue_bytes.clone());
        r.register("ledger_next_seq", "The seq after the newest ledger record", m.ledger_next.clone());
        r.register("fold_position_seq", "The ledger seq a fold takes next", m.fold_position.clone());
        r.register("inbox_lag_records", "Inbox records that are not decided", m.inbox_lag.clone());
        r.register("timestamp_version", "Version of timestamp.json", m.timestamp_version.clone());
        r.register("checkpoint", "The checkpoint timestamp.json leads to", m.checkpoint.clone());
        let help = "Ledger positions from the published cut to the newest commit: 0 when nothing committed waits";
        r.register("published_lag_seqs", help, m.published_lag.clone());
        let help = "Time since the published cut was made";
        r.register_with_unit("published_age", help, Unit::Seconds, m.published_age.clone());
        let help = "Unix time at which clients stop believing a role";
        r.register_with_unit("role_expires", help, Unit::Seconds, m.expires.clone());
        r.register("ready", "1 when the node should get traffic", m.ready.clone());
        m
    }

    /// Counts a request.
    pub(super) fn request(&self, method: &'static str, route: &str, status: u16, seconds: f64) {
        self.requests.get_or_create(&Request { method, route: route.to_owned(), status }).inc();
        self.request_seconds.get_or_create(&Route { route: route.to_owned() }).observe(seconds);
    }

    /// Counts a POSTed batch.
    pub(super) fn batch(&self, result: &Result<Submitted>, started: Stopwatch) {
        let outcome = outcome(result);
        self.batches.get_or_create(&Outcome { outcome }).inc();
        if outcome == "committed" {
            self.commit_seconds.observe(started.seconds());
        }
    }

    /// Everything in OpenMetrics text, sampled now.
    pub(super) async fn scrape(&self, app: &App) -> Result<String> {
        if let Ok(next) = app.query.ledger_end().await {
            self.ledger_next.set(next);
        }
        self.queue_bytes.set(app.intake.queued_bytes() as u64);
        self.queue_limit.set(app.intake.queue_bytes() as u64);
        self.streams.set((STREAMS - app.streams.available_permits()) as u64);
        for role in app.options.roles.iter() {
            self.roles.get_or_create(&ProcessRole { role: role.name() }).set(1);
        }
        if let Some(Ok(free)) = app.options.disk.as_deref().map(local::free_bytes) {
            self.disk_free.set(free);
        }
        self.process.sample();
        let followed = *app.followed.borrow();
        self.ledger_batches.inc_by(followed.batches.saturating_sub(self.ledger_batches.get()));
        self.ledger_changes.inc_by(followed.changes.saturating_sub(self.ledger_changes.get()));
        self.checkpoints.inc_by(followed.checkpoints.saturating_sub(self.checkpoints.get()));
        self.cut_seconds.inc_by((followed.cut_ms as f64 / 1e3 - self.cut_seconds.get()).max(0.0));
        if let Ok((_, partitions)) = app.query.fold_lag().await {
            for PartitionLag { partition, lag, .. } in partitions {
                self.partition_lag.get_or_create(&Partition { partition }).set(lag);
            }
        }
        self.fold_position.clear(); // partitions come and go
        for (partition, position) in (app.folds)() {
            self.fold_position.get_or_create(&Partition { partition }).set(position);
        }
        self.inbox_lag.clear();
        match app.query.inbox_lag().await {
            Ok(lags) => lags.iter().for_each(|of| {
                self.inbox_lag.get_or_create(&Partition { partition: of.partition }).set(of.lag);
            }),
            // What only the inbox lacks, such as a right to see its group, leaves out one metric.
            Err(e) => tracing::debug!(error = %e, "the inbox is not measured"),
        }
        // A store that cannot be read takes nothing from the other metrics, which tell of just that.
        match status::published(app).await {
            Ok(Some(p)) => {
                self.timestamp_version.set(p.version);
                self.checkpoint.set(p.checkpoint);
                self.published_lag.set(p.behind);
                self.published_time.store(p.time, Ordering::Relaxed);
            }
            Ok(None) => {}
            Err(e) => tracing::warn!(error = %e, "what is published is not measured"),
        }
        let published_time = self.published_time.load(Ordering::Relaxed);
        if published_time > 0 {
            self.published_age.set(app.clock.now().saturating_sub(published_time));
        }
        let (expiries, unknown) = app.query.expiries().await;
        for expiry in expiries {
            self.expires.get_or_create(&Role { role: expiry.role }).set(expiry.expires);
        }
        for e in unknown {
            tracing::warn!(error = %e, "when a role expires is not measured");
        }
        self.ready.set(i64::from(app.health.reasons().is_empty()));
        let mut out = String::new();
        match text::encode(&mut out, &self.registry) {
            Ok(()) => Ok(out),
            Err(e) => Err(crate::Error::unavailable(format!("metrics cannot be written: {e}"))),
        }
    }
}

/// Metrics as OpenMetrics text.
#[utoipa::path(
    get, path = "/metrics", tag = "operation", operation_id = "metrics",
    responses((status = 200, description = "Metrics", content_type = "application/openmetrics-text"))
)]
pub async fn get(State(app): State<Arc<App>>) -> Answer<Response> {
    let text = app.metrics.scrape(&app).await?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// POSTs that are committed and not yet visible.
#[derive(Default)]
pub struct Visible(Mutex<VecDeque<(Offset, Stopwatch)>>);

impl Visible {
    /// Watches a batch committed at `seq`.
    pub(super) fn expect(&self, seq: Offset, started: Stopwatch) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.len() < WATCHED {
            watched.push_back((seq, started));
        }
    }

    /// Everything below `seq` has become visible.
    pub(super) fn reached(&self, seq: Offset, mut tell: impl FnMut(f64)) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|(at, started)| {
            let waits = *at >= seq;
            if !waits {
                tell(started.seconds());
            }
            waits
        });
    }
}
