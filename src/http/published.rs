//! `GET /v1/targets`, `/v1/route`, `/v1/checkpoints`, `/v1/lag`, and the probes of an orchestrator.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::failure::{Answer, ErrorAnswer, Failure};
use super::json::Json;
use super::{App, params};
use crate::error::Error;
use crate::query::{CheckpointAnswer, CheckpointsAnswer, LagAnswer, RouteAnswer, TargetAnswer};

/// The checkpoints of a page, unless the request says otherwise.
const PAGE: usize = 20;
/// The most checkpoints of a page.
const MAX_PAGE: usize = 1_000;

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
    params(
        ("path" = String, Path, description = "The target's path; may hold `/`"),
        ("at" = Option<String>, Query, description = "As it was at a checkpoint (`7`), a ledger position (`seq:1234`), a time (`2026-11-27T10:30:00Z`) or some time ago (`2h`)"),
        ("origin" = Option<String>, Query, description = "`full` looks for what brought it in its whole partition, if it cannot be said at once"),
    ),
    responses(
        (status = 200, description = "The published entry", body = TargetAnswer),
        (status = 400, description = "No possible path", body = ErrorAnswer),
        (status = 404, description = "Nothing is published under it", body = ErrorAnswer),
    )
)]
pub async fn target(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<TargetAnswer>> {
    let query = params::query(&uri, &["at", "origin"])?;
    let path = params::rest(&uri, "/v1/targets/", "path")?;
    let (at, full) = (app.at(&query, "at")?, params::full(&query, "origin")?);
    let _turn = if full { app.turn().await? } else { app.read().await? };
    let found = app.query.target_and_origin(&path, at, full).await?;
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
    let limit = params::limit(&query, PAGE, MAX_PAGE)?;
    let before = params::number(&query, "before")?;
    let _turn = app.turn().await?;
    Ok(Json(app.query.checkpoints(before, limit).await?))
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
    let _turn = app.turn().await?;
    let found = app.query.checkpoint(n).await?;
    found.map(Json).ok_or_else(|| Failure::not_found(format!("no checkpoint {n} is published")))
}

/// How far what is published is behind the log, by partition.
#[utoipa::path(
    get, path = "/v1/lag", tag = "published", operation_id = "getLag",
    responses((status = 200, description = "Ends in the log and in the newest checkpoint", body = LagAnswer))
)]
pub async fn lag(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<LagAnswer>> {
    params::query(&uri, &[])?;
    let _turn = app.read().await?;
    Ok(Json(app.query.lag().await?))
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
