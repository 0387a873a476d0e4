//! Answers without an end that is known: `GET /v1/diff` and `/v1/replay` as JSON Lines, `/v1/feed` as server-sent events.
//!
//! A stream is written as fast as its reader takes it. There are only so many at a time, and they end when the server
//! stops: whoever follows goes on at the next server from the seq read last.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;

use super::failure::{Answer, ErrorAnswer};
use super::{App, params};
use crate::error::{Error, Result};
use crate::log::Offset;
use crate::query::{DiffLine, Line, Pattern, Replay, ReplayOptions};

/// How many streams there may be at a time; more get 503.
pub(super) const STREAMS: usize = 64;
/// How often a feed on which nothing happens says that it is alive.
const ALIVE: Duration = Duration::from_secs(15);
/// The kinds of events of the feed.
const EVENTS: [&str; 2] = ["batch", "checkpoint"];

/// What changed between two points in history: the targets that were added, changed and removed.
#[utoipa::path(
    get, path = "/v1/diff", tag = "history", operation_id = "diff",
    params(
        ("from" = String, Query, description = "A checkpoint, `seq:N`, a time, or how long ago"),
        ("to" = Option<String>, Query, description = "The same; the newest checkpoint when absent"),
        ("glob" = Option<String>, Query, description = "Only paths that match"),
    ),
    responses(
        (status = 200, description = "One JSON document a line, as schemas/diff.json describes it", content_type = "application/jsonl", body = DiffLine),
        (status = 400, description = "There was no checkpoint then", body = ErrorAnswer),
    )
)]
pub async fn diff(State(app): State<Arc<App>>, uri: Uri) -> Answer<Response> {
    let query = params::query(&uri, &["from", "to", "glob"])?;
    let from = app.at(&query, "from")?.ok_or_else(|| Error::invalid("from", "is required"))?;
    let pattern = query.get("glob").map(|glob| Pattern::new(glob)).transpose()?;
    let permit = app.stream()?;
    let diff = app.query.diff(from, app.at(&query, "to")?).await?;
    let (send, lines) = tokio::sync::mpsc::channel::<Result<Bytes>>(4);
    // A task of its own, for what it compares borrows from the query.
    tokio::spawn(async move {
        let _permit = permit;
        let mut bins = std::pin::pin!(app.query.diff_lines(&diff, pattern.as_ref()));
        loop {
            let found = tokio::select! {
                found = bins.next() => found,
                () = app.ending.cancelled() => Some(Err(stopping())),
                () = send.closed() => None,
            };
            let Some(found) = found else { return };
            let text = found.and_then(|lines| text_of(&lines));
            let failed = text.is_err();
            if send.send(text).await.is_err() || failed {
                return;
            }
        }
    });
    let lines = stream::unfold(lines, |mut lines| async move { Some((lines.recv().await?, lines)) });
    Ok(json_lines(lines))
}

fn stopping() -> Error {
    Error::unavailable("the server is stopping")
}

fn text_of(lines: &[DiffLine]) -> Result<Bytes> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line).map_err(|e| Error::corrupt(format!("{:?}: {e}", line.path)))?;
        text.push(b'\n');
    }
    Ok(text.into())
}

/// History in the order of the ledger: batches with verdict and changes, cuts, checkpoints.
#[utoipa::path(
    get, path = "/v1/replay", tag = "history", operation_id = "replay",
    params(
        ("from" = Option<u64>, Query, description = "The first seq; 0 when absent"),
        ("to" = Option<u64>, Query, description = "Nothing behind this seq"),
        ("glob" = Option<String>, Query, description = "Only changes of paths that match"),
        ("follow" = Option<String>, Query, description = "`true` goes on with what comes"),
    ),
    responses((status = 200, description = "One JSON document a line, as schemas/replay.json describes it", content_type = "application/jsonl"))
)]
pub async fn replay(State(app): State<Arc<App>>, uri: Uri) -> Answer<Response> {
    let query = params::query(&uri, &["from", "to", "glob", "follow"])?;
    let follow = match query.get("follow").map(String::as_str) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(Error::invalid("follow", format!("must be true or false, not {other:?}")).into()),
    };
    let options = ReplayOptions {
        from: params::number(&query, "from")?.unwrap_or(0),
        to: params::number(&query, "to")?,
        filter: query.get("glob").map(|glob| Pattern::new(glob)).transpose()?,
    };
    let permit = app.stream()?;
    let replay = app.query.replay(options).await?;
    let lines = followed(app, replay, follow, permit).map(|lines| {
        let lines = lines?;
        if lines.is_empty() {
            return Ok(Bytes::from_static(b"\n")); // nothing has come, and the connection is alive
        }
        let mut text = Vec::with_capacity(lines.iter().map(|line| line.text.len() + 1).sum());
        for line in lines {
            text.extend_from_slice(&line.text);
            text.push(b'\n');
        }
        Ok(Bytes::from(text))
    });
    Ok(json_lines(lines))
}

/// The change feed: an event for each batch that applies and for each checkpoint, from now on or from a seq.
///
/// The data of an event is a line of `schemas/replay.json`. An event's id is the seq of its ledger record, said with the
/// last event of that record: a client that reconnects sends it as `Last-Event-ID` and misses nothing; of a Commit whose
/// batches it had not all read it gets all again, which `seq` and `index` tell apart.
#[utoipa::path(
    get, path = "/v1/feed", tag = "history", operation_id = "feed",
    params(
        ("from" = Option<u64>, Query, description = "The first seq; what comes from now on when absent"),
        ("Last-Event-ID" = Option<u64>, Header, description = "Go on behind this seq"),
        ("glob" = Option<String>, Query, description = "Only changes of paths that match"),
        ("events" = Option<String>, Query, description = "Only these, with commas between: batch, checkpoint"),
    ),
    responses((status = 200, description = "Server-sent events `batch` and `checkpoint`", content_type = "text/event-stream"))
)]
pub async fn feed(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Answer<Response> {
    let query = params::query(&uri, &["from", "glob", "events"])?;
    let wanted: Vec<String> = match query.get("events") {
        Some(names) => names.split(',').map(str::to_owned).collect(),
        None => EVENTS.map(str::to_owned).to_vec(),
    };
    if let Some(other) = wanted.iter().find(|name| !EVENTS.contains(&name.as_str())) {
        return Err(Error::invalid("events", format!("must be of {}, not {other:?}", EVENTS.join(", "))).into());
    }
    let last = headers.get("last-event-id").map(|id| id.to_str().ok().and_then(|id| id.trim().parse::<Offset>().ok()));
    let last = match last {
        Some(None) => return Err(Error::invalid("Last-Event-ID", "must be the seq of an event of this feed").into()),
        Some(last) => last.map(|seq| seq + 1),
        None => None,
    };
    let permit = app.stream()?;
    let end = app.query.ledger_end().await?;
    let from = last.or(params::number(&query, "from")?).unwrap_or(end);
    if from > end {
        let what = format!("the ledger ends at {end}, seq {from} is beyond it: is this another repository?");
        return Err(Error::invalid(if last.is_some() { "Last-Event-ID" } else { "from" }, what).into());
    }
    let filter = query.get("glob").map(|glob| Pattern::new(glob)).transpose()?;
    let replay = app.query.replay(ReplayOptions { from, to: None, filter }).await?;
    let events = followed(app, replay, true, permit).flat_map(move |lines| {
        let lines = match lines {
            Ok(lines) => lines.into_iter().filter(|l| l.valid && wanted.iter().any(|w| w == l.kind)).collect(),
            Err(e) => {
                tracing::warn!(error = %e, "a feed ends");
                vec![]
            }
        };
        let count = lines.len();
        stream::iter(
            lines.into_iter().enumerate().map(move |(i, line)| Ok::<_, Infallible>(event(&line, i + 1 == count))),
        )
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)).into_response())
}

fn event(line: &Line, last: bool) -> Event {
    let event = Event::default().event(line.kind).data(String::from_utf8_lossy(&line.text));
    if last { event.id(line.seq.to_string()) } else { event }
}

/// The lines of a replay, record by record; with `follow`, until the server stops, and none now and then while nothing
/// comes.
fn followed(
    app: Arc<App>,
    replay: Replay,
    follow: bool,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Vec<Line>>> + Send {
    stream::unfold(Some((app, replay, permit)), move |state| async move {
        let (app, mut replay, permit) = state?;
        loop {
            match replay.next().await {
                Ok(Some(lines)) => return Some((Ok(lines), Some((app, replay, permit)))),
                Ok(None) if follow && !replay.is_done() => {}
                Ok(None) => return None,
                Err(e) => return Some((Err(e), None)),
            }
            tokio::select! {
                ready = replay.ready() => if let Err(e) = ready { return Some((Err(e), None)) },
                () = app.ending.cancelled() => return Some((Err(stopping()), None)),
                () = tokio::time::sleep(ALIVE) => return Some((Ok(vec![]), Some((app, replay, permit)))),
            }
        }
    })
}

fn json_lines(lines: impl Stream<Item = Result<Bytes>> + Send + 'static) -> Response {
    // An error cuts the answer off: a reader sees that it did not come to its end.
    let body = Body::from_stream(lines.inspect(|line| {
        if let Err(e) = line {
            tracing::warn!(error = %e, "a stream ends early");
        }
    }));
    ([(header::CONTENT_TYPE, "application/jsonl")], body).into_response()
}
