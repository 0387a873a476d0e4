//! Questions about what is published now or was then, and about the ledger: `GET /v1/bins`, `/v1/search`, `/v1/history`,
//! `/v1/log`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;

use super::failure::{Answer, ErrorAnswer, Failure};
use super::json::Json;
use super::{App, params};
use crate::error::Error;
use crate::query::{BinAnswer, BinsAnswer, HistoryAnswer, Pattern, RecordAnswer, RecordsAnswer, SearchAnswer, Stretch};

/// The targets of a page, unless the request says otherwise.
const TARGETS: usize = 100;
/// The most of them.
const MAX_TARGETS: usize = 10_000;
/// The changes of a page of a path's history, unless the request says otherwise.
const CHANGES: usize = 100;
/// The most of them.
const MAX_CHANGES: usize = 10_000;
/// The ledger records of a page, unless the request says otherwise.
const RECORDS: usize = 20;
/// The most of them.
const MAX_RECORDS: usize = 1_000;

/// The bins, published now or at a point in history.
#[utoipa::path(
    get, path = "/v1/bins", tag = "history", operation_id = "listBins",
    params(("at" = Option<String>, Query, description = "A checkpoint, `seq:N`, a time, or how long ago")),
    responses((status = 200, description = "Versions, sizes and ages", body = BinsAnswer))
)]
pub async fn bins(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<BinsAnswer>> {
    let query = params::query(&uri, &["at"])?;
    let at = app.at(&query, "at")?;
    let _turn = app.turn().await?;
    Ok(Json(app.query.bins(at).await?))
}

/// A bin in full.
#[utoipa::path(
    get, path = "/v1/bins/{bin}", tag = "history", operation_id = "getBin",
    params(
        ("bin" = String, Path, description = "Its role's name, such as `bins-0a`"),
        ("at" = Option<String>, Query, description = "A checkpoint, `seq:N`, a time, or how long ago"),
        ("after" = Option<String>, Query, description = "Only targets behind this path"),
        ("limit" = Option<u64>, Query, description = "1 to 10,000 of them; 100 when absent"),
    ),
    responses(
        (status = 200, description = "It", body = BinAnswer),
        (status = 400, description = "There is no such bin", body = ErrorAnswer),
        (status = 404, description = "Nothing is published yet", body = ErrorAnswer),
    )
)]
pub async fn bin(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<BinAnswer>> {
    let query = params::query(&uri, &["at", "after", "limit"])?;
    let name = params::rest(&uri, "/v1/bins/", "bin")?;
    let (at, limit) = (app.at(&query, "at")?, params::limit(&query, TARGETS, MAX_TARGETS)?);
    let _turn = app.turn().await?;
    let found = app.query.bin(&name, at, query.get("after").map(String::as_str), limit).await?;
    found.map(Json).ok_or_else(|| Failure::not_found("nothing is published yet"))
}

/// The targets whose paths match a pattern.
#[utoipa::path(
    get, path = "/v1/search", tag = "history", operation_id = "search",
    params(
        ("glob" = String, Query, description = "`*` is any characters, `/` too, `?` one, `[a-z]` one of these, `{a,b}` either; without any of them it is looked for anywhere in the path"),
        ("at" = Option<String>, Query, description = "A checkpoint, `seq:N`, a time, or how long ago"),
        ("after" = Option<String>, Query, description = "Only targets behind this one of the page before"),
        ("limit" = Option<u64>, Query, description = "1 to 10,000 of them; 100 when absent"),
    ),
    responses((status = 200, description = "A page of them", body = SearchAnswer))
)]
pub async fn search(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<SearchAnswer>> {
    let query = params::query(&uri, &["glob", "at", "after", "limit"])?;
    let glob = query.get("glob").ok_or_else(|| Error::invalid("glob", "is required"))?;
    let (pattern, at, limit) =
        (Pattern::new(glob)?, app.at(&query, "at")?, params::limit(&query, TARGETS, MAX_TARGETS)?);
    let _turn = app.turn().await?;
    let after = query.get("after").map(String::as_str);
    Ok(Json(app.query.find_targets(&pattern, at, after, limit).await?))
}

/// Every change of a path, newest first.
#[utoipa::path(
    get, path = "/v1/history/{path}", tag = "history", operation_id = "getHistory",
    params(
        ("path" = String, Path, description = "The target's path; may hold `/`"),
        ("before" = Option<u64>, Query, description = "Only what stands in its partition before this offset: `before` of the page before"),
        ("limit" = Option<u64>, Query, description = "Read back until there are so many changes, 1 to 10,000; 100 when absent"),
    ),
    responses(
        (status = 200, description = "A page of them", body = HistoryAnswer),
        (status = 400, description = "No possible path", body = ErrorAnswer),
    )
)]
pub async fn history(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<HistoryAnswer>> {
    let query = params::query(&uri, &["before", "limit"])?;
    let path = params::rest(&uri, "/v1/history/", "path")?;
    let (before, limit) = (params::number(&query, "before")?, params::limit(&query, CHANGES, MAX_CHANGES)?);
    let _turn = app.turn().await?;
    Ok(Json(app.query.history(&path, before, limit).await?))
}

/// Records of the ledger, decoded.
#[utoipa::path(
    get, path = "/v1/log", tag = "history", operation_id = "listRecords",
    params(
        ("from" = Option<u64>, Query, description = "The first seq; the newest records when absent"),
        ("to" = Option<u64>, Query, description = "Nothing behind this seq"),
        ("kind" = Option<String>, Query, description = "Only these, with commas between: format, settings, root, commit, cut, checkpoint, renew, recovery"),
        ("limit" = Option<u64>, Query, description = "1 to 1,000 of them; 20 when absent"),
    ),
    responses((status = 200, description = "A stretch of it", body = RecordsAnswer))
)]
pub async fn records(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<RecordsAnswer>> {
    let query = params::query(&uri, &["from", "to", "kind", "limit"])?;
    let stretch = Stretch {
        from: params::number(&query, "from")?,
        to: params::number(&query, "to")?,
        kinds: query.get("kind").map(|kinds| kinds.split(',').map(str::to_owned).collect()).unwrap_or_default(),
        limit: params::limit(&query, RECORDS, MAX_RECORDS)?,
    };
    let _turn = app.turn().await?;
    Ok(Json(app.query.records(&stretch).await?))
}

/// A record of the ledger with the segments that it names.
#[utoipa::path(
    get, path = "/v1/log/{seq}", tag = "history", operation_id = "getRecord",
    params(("seq" = u64, Path, description = "Its position")),
    responses(
        (status = 200, description = "It", body = RecordAnswer),
        (status = 404, description = "Nothing stands there", body = ErrorAnswer),
    )
)]
pub async fn record(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<RecordAnswer>> {
    params::query(&uri, &[])?;
    let text = params::rest(&uri, "/v1/log/", "seq")?;
    let seq = text.parse().map_err(|_| Error::invalid("seq", format!("must be a number, not {text:?}")))?;
    let _turn = app.turn().await?;
    let found = app.query.record(seq).await?;
    found.map(Json).ok_or_else(|| Failure::not_found(format!("nothing stands at seq {seq} of the ledger")))
}
