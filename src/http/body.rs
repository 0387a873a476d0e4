//! Request bodies, bounded in size, in time and in all that are in memory at once.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
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
/// How many bytes of large bodies may be in memory at once; beyond it 503.
pub const MAX_BODIES_BYTES: usize = 4 * MAX_BODY_BYTES;
/// A body up to here is small. Small ones have room of their own: no number of large ones keeps them out.
const SMALL_BODY_BYTES: usize = 1 << 20;
/// How many bytes of small bodies may be in memory at once; beyond it 503.
const SMALL_BODIES_BYTES: usize = 64 << 20;
/// How long a body may stand still while it comes.
const STILL_PATIENCE: Duration = Duration::from_secs(10);
/// How much of a body that is too large is read and dropped, so that its sender gets to read the answer.
const DROPPED_BYTES: usize = 256 << 20;

/// The room for bodies.
pub struct Bodies {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    pool: Pool,
    patience: Duration,
}

/// A whole body; its room is given back when it is dropped.
pub struct Whole {
    /// What was sent, without its transfer or content encoding.
    pub bytes: Bytes,
    _room: Room,
}

/// The room that one body takes.
struct Room {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    bytes: usize,
    held: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Takes room for more bytes; never waits, for those who wait would hold what others wait for.
    fn grow(&mut self, more: usize) -> Answer<()> {
        let before = self.bytes;
        self.bytes += more;
        let (all, bytes) = match self.bytes {
            small if small <= SMALL_BODY_BYTES => (&self.small, more),
            _ if before > SMALL_BODY_BYTES => (&self.large, more),
            all => {
                self.held = None;
                (&self.large, all)
            }
        };
        let busy = |_| Failure::from(Error::unavailable("too many large requests at once: try again")).closing();
        let taken = all.clone().try_acquire_many_owned(bytes as u32).map_err(busy)?;
        match &mut self.held {
            None => self.held = Some(taken),
            Some(held) => held.merge(taken),
        }
        Ok(())
    }

    fn clear(&mut self) {
        (self.bytes, self.held) = (0, None);
    }
}

impl Bodies {
    /// `patience` is how long a body may take to come.
    pub fn new(pool: Pool, patience: Duration) -> Bodies {
        let semaphore = |bytes| Arc::new(Semaphore::new(bytes));
        Bodies { small: semaphore(SMALL_BODIES_BYTES), large: semaphore(MAX_BODIES_BYTES), pool, patience }
    }

    fn room(&self) -> Room {
        Room { small: self.small.clone(), large: self.large.clone(), bytes: 0, held: None }
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
        let room = self.room();
        self.pool.run(move || gunzip(room, &whole)).await
    }

    async fn read_all(&self, headers: &HeaderMap, body: Body) -> Answer<Whole> {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        let mut room = self.room();
        let mut chunks = body.into_data_stream();
        let mut whole = BytesMut::new();
        let mut first = Bytes::new();
        let mut length = 0;
        let mut too_large = announced.is_some_and(|n| n > MAX_BODY_BYTES);
        while let Some(chunk) = next(&mut chunks).await? {
            length += chunk.len();
            too_large |= length > MAX_BODY_BYTES;
            if too_large {
                (whole, first) = (BytesMut::new(), Bytes::new());
                room.clear();
                if length > DROPPED_BYTES {
                    break;
                }
                continue;
            }
            room.grow(chunk.len())?;
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

async fn next(chunks: &mut BodyDataStream) -> Answer<Option<Bytes>> {
    match tokio::time::timeout(STILL_PATIENCE, chunks.next()).await {
        Ok(chunk) => chunk
            .transpose()
            .map_err(|e| Failure::from(Error::invalid("body", format!("did not come to its end: {e}"))).closing()),
        Err(_) => Err(Failure::timed_out()),
    }
}

fn gunzip(mut room: Room, packed: &Whole) -> Answer<Whole> {
    let mut out = Vec::new();
    let mut reader = flate2::bufread::MultiGzDecoder::new(&packed.bytes[..]);
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
        room.grow(n)?;
        out.extend_from_slice(&chunk[..n]);
    }
}
