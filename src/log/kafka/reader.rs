//! A reader: one consumer, placed by offset, woken by librdkafka itself.
//!
//! What is there when a reader is placed is not skipped over in silence: until it has seen that much, a read waits for
//! it (some milliseconds, or `Unavailable`). After that a read takes what has arrived and waits for nothing.
//!
//! A seek takes a new consumer (8 ms and more), but for a short step forward, and for readers of the ledger that stand
//! near its end: those share one ([`Tail`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::consumer::{Cursor, Event};
use super::tail::Tail;
use super::{PATIENCE, Shared, closed, lock};
use crate::error::{Error, Kind, Result};
use crate::log::{Offset, Partition, Reader, Record};

/// The most that one read gives, whatever it may.
const READ_BYTES: usize = 8 << 20;

/// How long the shared consumer may take to bring what is known to be there; a consumer of one's own would be there.
const TAIL_PATIENCE: Duration = Duration::from_millis(250);

/// A seek forward by at most so many offsets reads over them instead of placing a new consumer.
const STEP: Offset = 256;

pub(super) struct KafkaReader {
    shared: Arc<Shared>,
    of: Partition,
    /// Where the next read begins.
    next: Offset,
    /// Its consumer, which stands behind what is held; `None` until it is needed.
    cursor: Option<Cursor>,
    /// Where it reads instead of having one.
    tail: Option<Arc<Tail>>,
    /// Records that have arrived.
    held: VecDeque<Record>,
    held_bytes: usize,
    /// What it must have seen before a read may be empty: `None` as long as that is not known.
    until: Option<Offset>,
    /// Whether its consumer has seen the end of the partition since the last record.
    at_end: bool,
    /// What the next read answers when nothing is held. A place that is not there stays so until a seek.
    error: Option<Error>,
}

impl KafkaReader {
    pub fn new(shared: Arc<Shared>, of: Partition, from: Offset) -> KafkaReader {
        let (held, held_bytes, cursor, tail) = (VecDeque::new(), 0, None, None);
        KafkaReader { shared, of, next: from, cursor, tail, held, held_bytes, until: None, at_end: false, error: None }
    }

    /// The offset behind what is held.
    fn behind(&self) -> Offset {
        self.held.back().map_or(self.next, |record| record.offset + 1)
    }

    fn placed(&mut self) -> Result<&Cursor> {
        self.shared.check_open()?;
        let at = self.behind();
        let cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None => Cursor::tail(&self.shared, self.of, at)?,
        };
        Ok(self.cursor.insert(cursor))
    }

    fn take(&mut self, event: Event) {
        self.at_end = matches!(event, Event::End);
        match event {
            Event::Record(record) if record.offset < self.behind() => {} // read already
            Event::Record(record) => {
                self.held_bytes += record.payload.len();
                self.held.push_back(record);
            }
            Event::End => self.until = self.until.map(|_| 0),
            Event::Trouble(e) => self.error = Some(e),
            Event::Broken(e) => {
                let of = self.of;
                self.error = Some(e.context(format!("{of:?}, position {}", self.behind())));
            }
        }
    }

    /// Waits for an event and takes it.
    async fn wait(&mut self) -> Result<()> {
        let closing = self.shared.closed.clone();
        let cursor = self.placed()?;
        let event = tokio::select! {
            event = cursor.next() => event,
            () = closing.cancelled() => return Err(closed()),
        };
        self.take(event);
        Ok(())
    }

    /// Takes what has arrived, as far as `max_bytes` need it.
    fn gather(&mut self, max_bytes: usize) -> Result<()> {
        while self.error.is_none() && (self.held.is_empty() || self.held_bytes <= max_bytes) {
            let Some(event) = self.placed()?.now() else { break };
            self.take(event);
        }
        Ok(())
    }

    /// Goes over to the shared consumer if it can, or has its own shared when that has met the end.
    fn share(&mut self) -> Result<()> {
        if self.of != Partition::Ledger || self.tail.is_some() || !self.held.is_empty() || self.error.is_some() {
            return Ok(());
        }
        self.shared.check_open()?;
        let mut shared = lock(&self.shared.tail);
        if let Some(tail) = shared.as_ref().filter(|tail| tail.holds(self.next)) {
            (self.tail, self.cursor) = (Some(tail.clone()), None);
        } else if self.at_end
            && shared.as_ref().is_none_or(|tail| tail.is_over())
            && let Some(cursor) = self.cursor.take()
        {
            let tail = Tail::start(&self.shared, cursor, self.next)?;
            (*shared, self.tail) = (Some(tail.clone()), Some(tail));
        }
        Ok(())
    }

    /// What the shared consumer has; `None` when it cannot be read there.
    async fn read_shared(&mut self, tail: &Tail, max_bytes: usize) -> Result<Option<Vec<Record>>> {
        loop {
            let Some(records) = tail.read(self.next, max_bytes) else { return Ok(None) };
            if let Some(last) = records.last() {
                self.next = last.offset + 1;
                self.shared.note(self.of, self.next);
                return Ok(Some(records));
            }
            if self.next >= self.until().await? {
                return Ok(Some(records));
            }
            tail.ready(self.next).await;
        }
    }

    /// What it must have seen before a read may be empty.
    async fn until(&mut self) -> Result<Offset> {
        match self.until {
            Some(until) => Ok(until),
            None => Ok(*self.until.insert(self.shared.end(self.of).await?)),
        }
    }

    async fn read(&mut self, max_bytes: usize) -> Result<Vec<Record>> {
        let max_bytes = max_bytes.min(READ_BYTES);
        self.share()?;
        if let Some(tail) = self.tail.clone() {
            let shared = tokio::time::timeout(TAIL_PATIENCE, self.read_shared(&tail, max_bytes)).await;
            if let Some(records) = shared.unwrap_or(Ok(None))? {
                return Ok(records);
            }
            (self.tail, self.at_end) = (None, false);
        }
        if self.error.is_none() {
            self.gather(max_bytes)?;
        }
        while self.held.is_empty() && self.error.is_none() {
            self.placed()?; // connects meanwhile
            if self.next >= self.until().await? {
                return Ok(Vec::new());
            }
            let waited = tokio::time::timeout(PATIENCE, self.wait()).await;
            waited.unwrap_or_else(|_| Err(Error::unavailable(format!("{:?} gives no record", self.of))))?;
            self.gather(max_bytes)?;
        }
        if self.held.is_empty() {
            return match &self.error {
                Some(e) if e.kind == Kind::Corrupt => Err(e.clone()),
                _ => self.error.take().map_or(Ok(Vec::new()), Err),
            };
        }
        let (mut records, mut bytes) = (Vec::new(), 0);
        while let Some(record) = self.held.front() {
            bytes += record.payload.len();
            if bytes > max_bytes && !records.is_empty() {
                break;
            }
            self.next = record.offset + 1;
            self.held_bytes -= record.payload.len();
            records.extend(self.held.pop_front());
        }
        self.shared.note(self.of, self.next);
        Ok(records)
    }

    async fn ready(&mut self) -> Result<()> {
        self.share()?;
        if let Some(tail) = &self.tail {
            tail.ready(self.next).await;
            return Ok(());
        }
        while self.held.is_empty() && self.error.is_none() {
            self.wait().await?;
        }
        Ok(())
    }
}

impl Reader for KafkaReader {
    fn read(&mut self, max_bytes: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        Box::pin(KafkaReader::read(self, max_bytes))
    }

    fn ready(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(KafkaReader::ready(self))
    }

    fn seek(&mut self, at: Offset) {
        if at == self.next && self.error.is_none() {
            return;
        }
        let known = self.shared.note(self.of, 0);
        if self.tail.as_ref().is_some_and(|tail| tail.holds(at)) {
            (self.next, self.until) = (at, Some(known));
            return;
        }
        let near = self.next..=known.min(self.next.saturating_add(STEP));
        if near.contains(&at) && self.cursor.is_some() && self.error.is_none() {
            self.held.retain(|record| record.offset >= at);
            self.held_bytes = self.held.iter().map(|record| record.payload.len()).sum();
            self.next = at;
            // What others of this process have seen is there; where the end was met, nothing need be waited for.
            self.until = Some(if self.at_end { 0 } else { known });
            return;
        }
        // A new consumer is there sooner than one that waits at the broker comes back.
        *self = KafkaReader::new(self.shared.clone(), self.of, at);
    }
}
