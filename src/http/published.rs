//! `GET /v1/targets`, `/v1/route`, `/v1/checkpoints`, `/v1/status`, and the probes of an orchestrator.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::failure::{Answer, ErrorAnswer, Failure};
use super::json::Json;
use super::{App, params};
use crate::bins::PartitionId;
use crate::error::{Error, Result};
use crate::log::Offset;
use crate::query::{CheckpointAnswer, CheckpointsAnswer, LagAnswer, RouteAnswer, TargetAnswer};

/// The checkpoints of a page, unless the request says otherwise.
const PAGE: u64 = 20;
/// The most checkpoints of a page.
const MAX_PAGE: u64 = 1_000;

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
}

/// See [`StatusAnswer::queue`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct QueueStatus {
    /// Bytes of changes queued or in flight.
    pub bytes: u64,
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

/// See [`readyz`].
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReadyAnswer {
    /// True when the node should get traffic.
    pub ready: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// A target as clients find it now, with the bin that lists it and that bin's version.
#[utoipa::path(
    get, path = "/v1/targets/{path}", tag = "published", operation_id = "getTarget",
    params(("path" = String, Path, description = "The target's path; may hold `/`")),
    responses(
        (status = 200, description = "The published entry", body = TargetAnswer),
        (status = 400, description = "No possible path", body = ErrorAnswer),
        (status = 404, description = "Nothing is published under it", body = ErrorAnswer),
    )
)]
pub async fn target(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<TargetAnswer>> {
    params::query(&uri, &[])?;
    let path = params::rest(&uri, "/v1/targets/", "path")?;
    let found = app.target(&path).await?;
    found.map(Json).ok_or_else(|| Failure::not_found(format!("no target is published under {path:?}")))
}

/// Where a path lives: its bin and partition, whether anything is published there or not.
#[utoipa::path(
    get, path = "/v1/route/{path}", tag = "published", operation_id = "getRoute",
    params(("path" = String, Path, description = "The path; may hold `/`")),
    responses(
        (status = 200, description = "Where it lives", body = RouteAnswer),
        (status = 400, description = "No possible path", body = ErrorAnswer),
    )
)]
pub async fn route(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<RouteAnswer>> {
    params::query(&uri, &[])?;
    let path = params::rest(&uri, "/v1/route/", "path")?;
    Ok(Json(app.query.route(&path).await?))
}

/// The published checkpoints, newest first.
#[utoipa::path(
    get, path = "/v1/checkpoints", tag = "published", operation_id = "listCheckpoints",
    params(
        ("before" = Option<u64>, Query, description = "Only checkpoints below this number"),
        ("limit" = Option<u64>, Query, description = "1 to 1,000 of them; 20 when absent"),
    ),
    responses((status = 200, description = "A page of them", body = CheckpointsAnswer))
)]
pub async fn checkpoints(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<CheckpointsAnswer>> {
    let query = params::query(&uri, &["before", "limit"])?;
    let limit = params::number(&query, "limit")?.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Error::invalid("limit", format!("must be from 1 to {MAX_PAGE}, not {limit}")).into());
    }
    let before = params::number(&query, "before")?;
    let _turn = app.pages.acquire().await.map_err(|_| Error::unavailable("the server is stopping: try again"))?;
    Ok(Json(app.query.checkpoints(before, limit as usize).await?))
}

/// A published checkpoint.
#[utoipa::path(
    get, path = "/v1/checkpoints/{n}", tag = "published", operation_id = "getCheckpoint",
    params(("n" = u64, Path, description = "Its number")),
    responses(
        (status = 200, description = "It", body = CheckpointAnswer),
        (status = 404, description = "None of this number is published", body = ErrorAnswer),
    )
)]
pub async fn checkpoint(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<CheckpointAnswer>> {
    params::query(&uri, &[])?;
    let text = params::rest(&uri, "/v1/checkpoints/", "n")?;
    let n = text.parse().map_err(|_| Error::invalid("n", format!("must be a number, not {text:?}")))?;
    let _turn = app.pages.acquire().await.map_err(|_| Error::unavailable("the server is stopping: try again"))?;
    let found = app.query.checkpoint(n).await?;
    found.map(Json).ok_or_else(|| Failure::not_found(format!("no checkpoint {n} is published")))
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
        queue: QueueStatus { bytes: app.intake.queued_bytes() as u64 },
        ready: reasons.is_empty(),
        reasons,
        partitions: partitions.collect(),
        uptime_s: app.started.seconds() as u64,
    }))
}

/// How far what is published is behind the log, by partition.
#[utoipa::path(
    get, path = "/v1/lag", tag = "published", operation_id = "getLag",
    responses((status = 200, description = "Ends in the log and in the newest checkpoint", body = LagAnswer))
)]
pub async fn lag(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<LagAnswer>> {
    params::query(&uri, &[])?;
    let _turn = app.pages.acquire().await.map_err(|_| Error::unavailable("the server is stopping: try again"))?;
    Ok(Json(app.query.lag().await?))
}

/// What clients see now: of one moment, for the pointer is read once and the rest follows from it.
pub(super) async fn published(app: &App) -> Result<Option<PublishedStatus>> {
    let Some(timestamp) = app.query.timestamp().await? else { return Ok(None) };
    let n = timestamp.snapshot.version;
    let known = *app.published.borrow();
    let seq = if known.n == n && known.seq > 0 { known.seq } else { app.query.published().await?.seq };
    let time = app.query.cut_time(seq).await?;
    Ok(Some(PublishedStatus { version: timestamp.version, checkpoint: n, seq, time, expires: timestamp.expires }))
}

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "operation", operation_id = "healthz", responses((status = 200, description = "Alive")))]
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// The node should get traffic, or why not.
#[utoipa::path(
    get, path = "/readyz", tag = "operation", operation_id = "readyz",
    responses(
        (status = 200, description = "Ready", body = ReadyAnswer),
        (status = 503, description = "Not ready, with the reasons", body = ReadyAnswer),
    )
)]
pub async fn readyz(State(app): State<Arc<App>>) -> Response {
    let reasons = app.health.reasons();
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ReadyAnswer { ready, reasons })).into_response()
}
