//! Request bodies, bounded in size, in time and in all that are in memory at once.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::{Answer, Failure};
use crate::change::MAX_BATCH_BYTES;
use crate::error::Error;
use crate::pool::Pool;

/// The largest body: a batch as large as one may be, with room for a spelling that is not canonical.
pub const MAX_BODY_BYTES: usize = MAX_BATCH_BYTES + (8 << 20);
/// How many bytes of bodies may be in memory at once; beyond it 503.
pub const MAX_BODIES_BYTES: usize = 4 * MAX_BODY_BYTES;
/// How much of a body that is too large is read and dropped, so that its sender gets to read the answer.
const DROPPED_BYTES: usize = 256 << 20;

/// The room for bodies.
pub struct Bodies {
    room: Arc<Semaphore>,
    pool: Pool,
    patience: Duration,
}

/// A whole body; its room is given back when it is dropped.
pub struct Whole {
    /// What was sent, without its transfer or content encoding.
    pub bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    /// `patience` is how long a body may take to come.
    pub fn new(pool: Pool, patience: Duration) -> Bodies {
        Bodies { room: Arc::new(Semaphore::new(MAX_BODIES_BYTES)), pool, patience }
    }

    /// Reads a body to its end, and undoes gzip.
    pub async fn read(&self, headers: &HeaderMap, body: Body) -> Answer<Whole> {
        let encoding = headers.get(header::CONTENT_ENCODING).map_or("identity", |v| v.to_str().unwrap_or("?"));
        let gzip = match encoding.trim() {
            "identity" => false,
            "gzip" => true,
            other => {
                let what = format!("must be gzip or identity, not {other:?}");
                return Err(Error::invalid("Content-Encoding", what).into());
            }
        };
        let whole = match tokio::time::timeout(self.patience, self.read_all(headers, body)).await {
            Ok(whole) => whole?,
            Err(_) => return Err(Failure::timed_out()),
        };
        if !gzip {
            return Ok(whole);
        }
        let room = self.room.clone();
        self.pool.run(move || gunzip(&room, &whole)).await
    }

    async fn read_all(&self, headers: &HeaderMap, body: Body) -> Answer<Whole> {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        let mut room = None;
        let mut chunks = body.into_data_stream();
        let mut whole = BytesMut::new();
        let mut first = Bytes::new();
        let mut length = 0;
        let mut too_large = announced.is_some_and(|n| n > MAX_BODY_BYTES);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|e| {
                Failure::from(Error::invalid("body", format!("did not come to its end: {e}"))).closing()
            })?;
            length += chunk.len();
            too_large |= length > MAX_BODY_BYTES;
            if too_large {
                (whole, first, room) = (BytesMut::new(), Bytes::new(), None);
                if length > DROPPED_BYTES {
                    break;
                }
                continue;
            }
            take(&self.room, &mut room, chunk.len())?;
            if first.is_empty() && whole.is_empty() {
                first = chunk; // most bodies are one chunk: no copy
                continue;
            }
            if whole.is_empty() {
                whole.reserve(announced.unwrap_or(2 * length));
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&chunk);
        }
        if too_large {
            let what = format!("too large: the limit of a request is {MAX_BODY_BYTES} bytes; split the batch");
            return Err(Failure::too_large(what).closing());
        }
        let bytes = if whole.is_empty() { first } else { whole.freeze() };
        Ok(Whole { bytes, _room: room })
    }
}

fn gunzip(all: &Arc<Semaphore>, packed: &Whole) -> Answer<Whole> {
    let (mut out, mut room) = (Vec::new(), None);
    let mut reader = flate2::bufread::GzDecoder::new(&packed.bytes[..]);
    let mut chunk = [0; 16 << 10];
    loop {
        let n = reader.read(&mut chunk).map_err(|e| Error::invalid("body", format!("is not gzip: {e}")))?;
        if n == 0 {
            return Ok(Whole { bytes: out.into(), _room: room });
        }
        if out.len() + n > MAX_BODY_BYTES {
            let what = format!("too large: the limit of a request is {MAX_BODY_BYTES} bytes unpacked; split the batch");
            return Err(Failure::too_large(what));
        }
        take(all, &mut room, n)?;
        out.extend_from_slice(&chunk[..n]);
    }
}

/// Takes room for more bytes; never waits, for those who wait would hold what others wait for.
fn take(all: &Arc<Semaphore>, room: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Answer<()> {
    let busy = |_| Failure::from(Error::unavailable("too many large requests at once: try again")).closing();
    let more = all.clone().try_acquire_many_owned(bytes as u32).map_err(busy)?;
    match room {
        None => *room = Some(more),
        Some(room) => room.merge(more),
    }
    Ok(())
}
