//! `GET /v1/status` and `/v1/rates`: where the node stands, and how it got there.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::failure::Answer;
use super::json::Json;
use super::rates::{Rates, RatesAnswer};
use super::{App, params};
use crate::bins::PartitionId;
use crate::error::Result;
use crate::log::Offset;
use crate::query::ExpiryAnswer;

/// Where the node stands.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StatusAnswer {
    /// Of tuflog.
    pub version: String,
    /// How the repository is laid out.
    pub layout: LayoutStatus,
    /// The ledger.
    pub ledger: LedgerStatus,
    /// What clients see; absent before the first checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<PublishedStatus>,
    /// The queue of the intake.
    pub queue: QueueStatus,
    /// What this process does: `intake`, `fold`, `compact`, `http`.
    #[serde(default)]
    pub roles: Vec<String>,
    /// When what is published expires, the soonest first.
    #[serde(default)]
    pub expiries: Vec<ExpiryAnswer>,
    /// What of this could not be said, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// How much came in and was published lately, as this node saw it; absent where no node runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
    /// True when the node should get traffic.
    pub ready: bool,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// How far each partition's fold has come.
    pub partitions: Vec<PartitionStatus>,
    /// For how long the node has been running, in seconds.
    pub uptime_s: u64,
}

/// See [`StatusAnswer::layout`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LayoutStatus {
    /// Number of hash bins.
    pub bins: u32,
    /// Number of partitions.
    #[schema(value_type = u16)]
    pub partitions: PartitionId,
}

/// See [`StatusAnswer::ledger`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LedgerStatus {
    /// The seq that the next record will have at least.
    #[schema(value_type = u64)]
    pub next: Offset,
}

/// See [`StatusAnswer::published`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PublishedStatus {
    /// The timestamp's version.
    pub version: u64,
    /// The checkpoint it leads to.
    pub checkpoint: u64,
    /// The seq of that checkpoint's Cut: every batch committed below is published.
    #[schema(value_type = u64)]
    pub seq: Offset,
    /// When it was cut, in Unix seconds.
    pub time: u64,
    /// When clients stop believing the timestamp, in Unix seconds.
    pub expires: u64,
    /// How many ledger positions the newest Commit is ahead of it; 0 when nothing committed waits.
    #[serde(default)]
    pub behind: u64,
}

/// See [`StatusAnswer::queue`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct QueueStatus {
    /// Bytes of changes queued or in flight.
    pub bytes: u64,
    /// How many there may be: beyond it a POST answers 503.
    #[serde(default)]
    pub limit: u64,
}

/// See [`StatusAnswer::partitions`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PartitionStatus {
    /// The partition.
    #[schema(value_type = u16)]
    pub partition: PartitionId,
    /// The seq of the next ledger record that its fold takes.
    #[schema(value_type = u64)]
    pub position: Offset,
    /// How many ledger positions it is behind.
    pub behind: u64,
}

/// Where the node stands.
#[utoipa::path(
    get, path = "/v1/status", tag = "published", operation_id = "getStatus",
    responses((status = 200, description = "Positions, queue and readiness", body = StatusAnswer))
)]
pub async fn status(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<StatusAnswer>> {
    params::query(&uri, &[])?;
    let layout = app.query.layout().await?;
    let next = app.query.ledger_end().await?;
    let reasons = app.health.reasons();
    let (expiries, unknown) = app.query.expiries().await;
    let folds = (app.folds)();
    let partitions = folds.into_iter().map(|(partition, position)| PartitionStatus {
        partition,
        position,
        behind: next.saturating_sub(position),
    });
    Ok(Json(StatusAnswer {
        version: env!("CARGO_PKG_VERSION").into(),
        layout: LayoutStatus { bins: layout.bins(), partitions: layout.partitions() },
        ledger: LedgerStatus { next },
        published: published(&app).await?,
        queue: QueueStatus { bytes: app.intake.queued_bytes() as u64, limit: app.intake.queue_bytes() as u64 },
        roles: app.options.roles.iter().map(|role| role.name().to_owned()).collect(),
        expiries,
        warnings: unknown.into_iter().map(|e| e.message).collect(),
        rates: Some(app.rates.lately()),
        ready: reasons.is_empty(),
        reasons,
        partitions: partitions.collect(),
        uptime_s: app.started.seconds() as u64,
    }))
}

/// How much came in and was published in each of the last seconds, as this node saw it.
#[utoipa::path(
    get, path = "/v1/rates", tag = "published", operation_id = "getRates",
    params(("after" = Option<u64>, Query, description = "Only seconds after this Unix time")),
    responses((status = 200, description = "The seconds since the node started, at most the last 15 minutes", body = RatesAnswer))
)]
pub async fn rates(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<RatesAnswer>> {
    let query = params::query(&uri, &["after"])?;
    Ok(Json(app.rates.since(params::number(&query, "after")?.unwrap_or(0))))
}

/// What clients see now: of one moment, for the pointer is read once and the rest follows from it.
pub(super) async fn published(app: &App) -> Result<Option<PublishedStatus>> {
    let Some(timestamp) = app.query.timestamp().await? else { return Ok(None) };
    let n = timestamp.snapshot.version;
    let known = *app.published.borrow();
    let seq = if known.n == n && known.seq > 0 { known.seq } else { app.query.cut_seq(n).await? };
    let time = app.query.cut_time(seq).await?;
    // A Commit of nothing but repeats waits for no cut.
    let behind = if app.followed.borrow().settled { 0 } else { app.query.behind(seq).await? };
    let (version, expires) = (timestamp.version, timestamp.expires);
    Ok(Some(PublishedStatus { version, checkpoint: n, seq, time, expires, behind }))
}
