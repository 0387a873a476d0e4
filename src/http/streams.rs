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
/// How many large records are on their way to readers at a time; each takes some 100 MiB at most.
pub(super) const LARGE: usize = 4;
/// The pieces in which a stream is sent, in bytes.
const FRAME_BYTES: usize = 256 << 10;
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
    let (send, texts) = tokio::sync::mpsc::channel::<Result<Option<Bytes>>>(4);
    // A task of its own, for what it compares borrows from the query.
    tokio::spawn(async move {
        let _permit = permit;
        let mut bins = std::pin::pin!(app.query.diff_lines(&diff, pattern.as_ref()));
        loop {
            let found = tokio::select! {
                found = bins.next() => found.map(|found| found.and_then(|lines| text_of(&lines))).transpose(),
                () = app.ending.cancelled() => Err(stopping()),
                () = send.closed() => return,
            };
            let last = !matches!(found, Ok(Some(_)));
            if send.send(found).await.is_err() || last {
                return;
            }
        }
    });
    // The end is said: a task that dies does not make an answer that looks whole.
    let lines = stream::unfold(Some(texts), |texts| async move {
        let mut texts = texts?;
        match texts.recv().await.unwrap_or_else(|| Err(Error::unavailable("the comparison ended early"))) {
            Ok(text) => Some((Ok(text?), Some(texts))),
            Err(e) => Some((Err(e), None)),
        }
    });
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
        without_batches: false,
    };
    let permit = app.stream()?;
    let replay = app.query.replay(options).await?.within(app.large.clone());
    let frames = followed(app, replay, follow, permit).flat_map(|told| {
        stream::iter(match told {
            Ok(Told { lines, .. }) if lines.is_empty() => vec![Ok(NEWLINE)], // nothing has come: it is alive
            Ok(Told { lines, .. }) => frames(lines).into_iter().map(Ok).collect(),
            Err(e) => vec![Err(e)],
        })
    });
    Ok(json_lines(frames))
}

const NEWLINE: Bytes = Bytes::from_static(b"\n");

/// Lines as they are sent: short ones together, long ones in pieces and without a copy.
fn frames(lines: Vec<Line>) -> Vec<Bytes> {
    let (mut frames, mut short) = (Vec::new(), Vec::new());
    for line in lines {
        if line.text.len() < FRAME_BYTES {
            short.extend_from_slice(&line.text);
            short.push(b'\n');
        }
        if !short.is_empty() && (short.len() >= FRAME_BYTES || line.text.len() >= FRAME_BYTES) {
            frames.push(std::mem::take(&mut short).into());
        }
        if line.text.len() >= FRAME_BYTES {
            let text = Bytes::from(line.text);
            let pieces = (0..text.len()).step_by(FRAME_BYTES);
            frames.extend(pieces.map(|at| text.slice(at..text.len().min(at + FRAME_BYTES))));
            frames.push(NEWLINE);
        }
    }
    if !short.is_empty() {
        frames.push(short.into());
    }
    frames
}

/// The change feed: an event for each batch that applies and for each checkpoint, from now on or from a seq.
///
/// The data of an event is a line of `schemas/replay.json`. An event's id is the seq of its ledger record, said with the
/// last event of that record: a client that reconnects sends it as `Last-Event-ID` and misses nothing, for at the beginning
/// and while nothing comes an id comes alone; of a Commit whose
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
        Some(last) => last.map(|seq| seq.saturating_add(1)), // beyond every end, if it is the greatest number
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
    let without_batches = !wanted.iter().any(|kind| kind == "batch");
    let replay = app.query.replay(ReplayOptions { from, to: None, filter, without_batches }).await?;
    let replay = replay.within(app.large.clone());
    let (published, ending) = (app.published.clone(), app.ending.clone());
    // Clients find a checkpoint when timestamp.json leads to it, which is after the ledger has it.
    let visible = followed(app, replay, true, permit).then(move |told| {
        let n = told.iter().flat_map(|told| &told.lines).filter_map(|line| line.checkpoint).max();
        let (mut published, ending) = (published.clone(), ending.clone());
        async move {
            tokio::select! {
                visible = published.wait_for(|p| n.is_none_or(|n| p.n >= n)) => drop(visible.map_err(|_| stopping())?),
                () = ending.cancelled() => return Err(stopping()),
            }
            told
        }
    });
    let events = visible.flat_map(move |told| {
        let events: Vec<Event> = match told {
            Ok(Told { position, lines }) if lines.is_empty() => passed(position).into_iter().collect(),
            Ok(Told { lines, .. }) => {
                let lines = lines.iter().filter(|l| l.valid && wanted.iter().any(|w| w == l.kind)).collect::<Vec<_>>();
                lines.iter().enumerate().map(|(i, line)| event(line, i + 1 == lines.len())).collect()
            }
            Err(e) => {
                tracing::warn!(error = %e, "a feed ends");
                vec![]
            }
        };
        stream::iter(events)
    });
    // A client to which nothing has come yet goes on from here too.
    let events = stream::iter(passed(from)).chain(events).map(Ok::<_, Infallible>);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)).into_response())
}

fn event(line: &Line, last: bool) -> Event {
    let event = Event::default().event(line.kind).data(String::from_utf8_lossy(&line.text));
    if last { event.id(line.seq.to_string()) } else { event }
}

/// No event, but the id of one: everything before `position` has been read.
fn passed(position: Offset) -> Option<Event> {
    position.checked_sub(1).map(|seq| Event::default().id(seq.to_string()))
}

/// What a replay has to tell.
struct Told {
    /// Everything before this seq has been told.
    position: Offset,
    /// Those of one record; none when nothing comes.
    lines: Vec<Line>,
}

/// The lines of a replay, record by record; with `follow`, until the server stops, and none now and then while nothing
/// comes.
fn followed(
    app: Arc<App>,
    replay: Replay,
    follow: bool,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Told>> + Send {
    stream::unfold(Some((app, replay, permit)), move |state| async move {
        let (app, mut replay, permit) = state?;
        loop {
            let next = tokio::select! {
                next = replay.next() => next,
                () = app.ending.cancelled() => return Some((Err(stopping()), None)),
            };
            match next {
                Ok(Some(lines)) => {
                    let told = Told { position: replay.position(), lines };
                    return Some((Ok(told), Some((app, replay, permit))));
                }
                Ok(None) if follow && !replay.is_done() => {}
                Ok(None) => return None,
                Err(e) => return Some((Err(e), None)),
            }
            tokio::select! {
                ready = replay.ready() => if let Err(e) = ready { return Some((Err(e), None)) },
                () = app.ending.cancelled() => return Some((Err(stopping()), None)),
                () = tokio::time::sleep(ALIVE) => {
                    let told = Told { position: replay.position(), lines: vec![] };
                    return Some((Ok(told), Some((app, replay, permit))));
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_the_lines_and_none_is_long() {
        let line = |length: usize| Line {
            seq: 0,
            kind: "batch",
            valid: true,
            last: false,
            checkpoint: None,
            text: (0..length).map(|i| b'a' + (i % 23) as u8).collect(),
        };
        for lengths in
            [&[][..], &[1, 2, 3], &[FRAME_BYTES], &[5, 3 * FRAME_BYTES + 7, 9], &[100_000; 9], &[FRAME_BYTES - 1, 0]]
        {
            let whole: Vec<u8> = lengths.iter().flat_map(|n| [line(*n).text, b"\n".to_vec()].concat()).collect();
            let frames = frames(lengths.iter().map(|n| line(*n)).collect());
            assert!(frames.concat() == whole, "{lengths:?}");
            assert!(frames.iter().all(|frame| frame.len() <= 2 * FRAME_BYTES && !frame.is_empty()), "{lengths:?}");
        }
    }
}
