//! `POST /v1/batches` and `GET /v1/batches/{id}`: the way in, and the receipt.
//!
//! Nothing is answered before the batch's Commit has been read back, and a batch that was accepted goes its way though
//! its sender hangs up. Waiting for `published` waits for the pointer to move.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::body::Whole;
use super::failure::{Answer, ErrorAnswer, Failure};
use super::json::Json;
use super::{App, params};
use crate::change::{Batch, BatchRequest, check_id};
use crate::clock::Stopwatch;
use crate::compact::Published;
use crate::error::{Error, Kind, Result};
use crate::intake::Receipt;
use crate::ledger::ids::Seen;
use crate::query::{BatchAnswer, BatchState};

/// Publishes a batch of changes: all or nothing, and visible in one snapshot.
///
/// The same id with the same changes is the same batch, however often it is sent within the horizon: the answer is the
/// first receipt. An `Unavailable` did not happen; after an `Indeterminate`, or no answer at all, send it again with
/// the same id.
#[utoipa::path(
    post, path = "/v1/batches", tag = "batches", operation_id = "postBatch", request_body = BatchRequest,
    params(("wait" = Option<String>, Query, description =
        "`committed` (as without it) or `published`: answer when clients can see it, or after 30 s how far it came")),
    responses(
        (status = 202, description = "Committed: it will be published", body = BatchAnswer),
        (status = 200, description = "Published", body = BatchAnswer),
        (status = 400, description = "Refused: `field` names what is wrong", body = ErrorAnswer),
        (status = 401, description = "No known token", body = ErrorAnswer),
        (status = 403, description = "The token lacks the scope publish", body = ErrorAnswer),
        (status = 409, description = "The id stands for other content", body = ErrorAnswer),
        (status = 413, description = "Above the limits of a batch", body = ErrorAnswer),
        (status = 503, description = "Try again with the same id, after Retry-After", body = ErrorAnswer),
    )
)]
pub async fn post(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap, body: Body) -> Answer<Response> {
    let started = Stopwatch::start();
    let query = params::query(&uri, &["wait"])?;
    let wait = match query.get("wait").map(String::as_str) {
        None | Some("committed") => false,
        Some("published") => true,
        Some(other) => {
            let what = format!("must be committed or published, not {other:?}");
            return Err(Error::invalid("wait", what).into());
        }
    };
    if !app.options.takes_batches {
        return Err(Error::unavailable(
            "this node takes no batches (its roles lack intake): send them to one that does",
        )
        .into());
    }
    app.health.check_writes()?;
    let whole = app.bodies.read(&headers, body).await?;
    let outcome = submit(&app, whole).await;
    app.metrics.batch(&outcome, started);
    let Submitted { id, removes, receipt } = outcome?;
    if receipt.seq > receipt.basis {
        app.visible.expect(receipt.seq, started);
    }
    let answer = answer(&app, id, removes, receipt, wait).await?;
    let status = if answer.state == BatchState::Published { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(answer)).into_response())
}

/// A batch that the ledger has decided.
pub(super) struct Submitted {
    /// Its id.
    pub id: String,
    /// Its content digest, if it removes anything.
    pub removes: Option<crate::bins::Sha256Digest>,
    /// Where it stands.
    pub receipt: Receipt,
}

async fn submit(app: &App, whole: Whole) -> Result<Submitted> {
    let extra_hashes = app.options.extra_hashes.clone();
    let size = whole.bytes.len();
    let read = move || {
        let batch = BatchRequest::parse(&whole.bytes)?.validate(random_id, &extra_hashes);
        drop(whole);
        batch
    };
    let batch: Batch = app.pool.run_on(size, read).await?;
    let id = batch.id.clone();
    let removes = batch.changes.iter().any(|c| c.removes()).then_some(batch.digest);
    let decided = tokio::time::timeout(app.options.wait, app.intake.submit(batch));
    let receipt = decided.await.unwrap_or_else(|_| {
        Err(Error::indeterminate(format!("batch {id:?} is accepted but not yet committed: try again with the same id")))
    })?;
    Ok(Submitted { id, removes, receipt })
}

async fn answer(
    app: &App,
    id: String,
    removes: Option<crate::bins::Sha256Digest>,
    receipt: Receipt,
    wait: bool,
) -> Result<BatchAnswer> {
    let Receipt { seq, basis } = receipt;
    let now = if wait {
        let mut published = app.published.clone();
        match tokio::time::timeout(app.options.wait, published.wait_for(|p| p.seq > seq)).await {
            Ok(Ok(p)) => *p,
            _ => *app.published.borrow(), // too long, or the node stops: say how far it came
        }
    } else if seq > basis {
        Published::default() // just committed: 202, and not by luck 200
    } else {
        *app.published.borrow()
    };
    match removes {
        Some(digest) => app.query.receipt(&id, Seen { seq, digest }, basis, now, None).await,
        None if now.seq > seq => app.query.receipt_of_adds(&id, seq, basis).await,
        None => {
            let state = BatchState::Committed;
            Ok(BatchAnswer { batch: id, seq, basis, state, checkpoint: None, not_found: vec![] })
        }
    }
}

/// The receipt of a batch: how far it has come.
///
/// An id is remembered for as long as the horizon reaches. Beyond it, and before a void batch is tried again, ask with
/// `history=full`, which reads the whole ledger; when the same id was valid more than once it answers the newest.
#[utoipa::path(
    get, path = "/v1/batches/{id}", tag = "batches", operation_id = "getBatch",
    params(
        ("id" = String, Path, description = "The batch's id"),
        ("history" = Option<String>, Query, description = "`full` looks beyond the horizon"),
    ),
    responses(
        (status = 200, description = "Its receipt", body = BatchAnswer),
        (status = 404, description = "Not known; `basis` says as of which seq", body = ErrorAnswer),
        (status = 503, description = "Try again after Retry-After", body = ErrorAnswer),
    )
)]
pub async fn get(State(app): State<Arc<App>>, uri: Uri) -> Answer<Json<BatchAnswer>> {
    let id = params::rest(&uri, "/v1/batches/", "id")?;
    check_id(&id)?;
    let query = params::query(&uri, &["history"])?;
    let full = params::full(&query, "history")?;
    let known = app.intake.lookup(&id).await?;
    let seen = match known.seen {
        None if full => {
            let busy = || Error::unavailable("the history is being read for others: try again");
            let _turn = app.scans.try_acquire().map_err(|_| busy())?;
            // At and above the floor the intake has looked; so together they have seen all there is up to the basis.
            app.query.find(&id, known.floor).await?
        }
        seen => seen,
    };
    let Some(seen) = seen else {
        let more = if full { "" } else { " within the horizon; ?history=full looks beyond it" };
        return Err(Failure::not_found_at(format!("batch {id:?} is not known{more}"), known.basis));
    };
    let published = *app.published.borrow();
    let folds = (app.folds)();
    Ok(Json(app.query.receipt(&id, seen, known.basis, published, Some(&folds)).await?))
}

/// 128 random bits as hex. Without the system's randomness there is no id that is safe to make up.
fn random_id() -> String {
    let mut bytes = [0; 16];
    match getrandom::fill(&mut bytes) {
        Ok(()) => hex::encode(bytes),
        Err(_) => String::new(), // no valid id: the batch is refused, and its producer told to send one
    }
}

/// What became of a POST, as a metric's label.
pub(super) fn outcome(result: &Result<Submitted>) -> &'static str {
    match result {
        Ok(s) if s.receipt.seq > s.receipt.basis => "committed",
        Ok(_) => "duplicate",
        Err(e) => match e.kind {
            Kind::Invalid => "invalid",
            Kind::Conflict => "conflict",
            Kind::Unavailable => "unavailable",
            Kind::Indeterminate => "indeterminate",
            Kind::Unsupported | Kind::Corrupt => "failed",
        },
    }
}
