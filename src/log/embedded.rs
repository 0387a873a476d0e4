//! The log of a single node, on RocksDB: no server, one directory.
//!
//! It owns the durability of every append: an append is answered after the write that holds it was synced, and
//! never before. One thread writes. It takes whatever is waiting (*group commit*), gives out the offsets, writes
//! all of it as one batch with one sync, moves the ends, answers. Hence offsets are dense, and an append that was
//! called after another was answered stands after it. Readers never meet the writer: they read the database up to
//! the end the writer last published.
//!
//! ```text
//!   append ─► queue (bounded by bytes) ─► writer: batch + sync ─► end ─► answers
//!                                                                  └──► readers wake
//! ```
//!
//! # What is assumed of the medium
//!
//! - What was synced stays. When a sync fails, nobody knows what the medium holds: the log is failed from then on,
//!   every append answers `Corrupt`, and the process is meant to end. A full disk is the exception, see below.
//! - A torn end of the write-ahead log was never answered: one batch is in flight at a time, and the next one is
//!   written after it was synced. So recovery goes to the first record that does not check (RocksDB's *point in
//!   time*) and forgets the rest. As that would also forget good records behind a damaged one, the file
//!   `ACKNOWLEDGED` keeps a lower bound of what was answered, and a log that ends before it is `Corrupt`.
//! - What recovery finds in the write-ahead log is written and synced to tables before the open returns, so a
//!   record that a killed process had not synced is durable before a reader can see it.
//!
//! # When the disk is full
//!
//! The batch that hit it answers `Indeterminate`. RocksDB's handle stays unusable for writes even when there is
//! room again, so the writer reopens the database before the next append; readers wait for that moment. While
//! there is not even the room that recovery needs, appends answer `Unavailable` and nothing is written.
//!
//! Reads are done where they are polled, decompression included: they are of memory or of the page cache as a rule,
//! and a reader bounds each one by its `max_bytes`.

mod medium;
mod value;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;

use self::medium::Medium;
use self::writer::Queue;
use super::{Log, Offset, Partition, Reader, Record};
use crate::clock::Clock;
use crate::error::{Error, Result};

/// The embedded log. Dropping it writes what was accepted, ends the writer and closes the database.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    /// `None` once the log is closed, and while a reopen failed.
    medium: RwLock<Option<Medium>>,
    /// The end of each partition as readers may know it.
    ends: Mutex<BTreeMap<Partition, watch::Sender<Offset>>>,
    /// `None` in a log that was opened to read.
    queue: Option<Queue>,
}

impl EmbeddedLog {
    /// Opens or creates the log in `dir`, which it has to itself.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Arc<EmbeddedLog>> {
        let shared = Arc::new(Shared::new(Medium::open(dir)?, Some(Queue::new()))?);
        let (dir, state) = (dir.to_owned(), shared.clone());
        let writer = std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || writer::run(&state, &dir, clock.as_ref()))
            .map_err(|e| Error::unavailable(format!("cannot start the log's writer: {e}")))?;
        Ok(Arc::new(EmbeddedLog { shared, writer: Some(writer) }))
    }

    /// Opens the log of a stopped node to read it. Appends answer `Invalid`.
    ///
    /// It takes no lock: that no node is writing is the caller's to make sure.
    pub fn open_read_only(dir: &Path) -> Result<Arc<EmbeddedLog>> {
        let shared = Arc::new(Shared::new(Medium::open_read_only(dir)?, None)?);
        Ok(Arc::new(EmbeddedLog { shared, writer: None }))
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        if let Some(queue) = &self.shared.queue {
            queue.close();
        }
        if let Some(writer) = self.writer.take() {
            let _ = writer.join(); // it panicked: its queue is closed, and there is nobody to tell
        }
        *self.shared.medium.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.shared.ends.lock().unwrap_or_else(PoisonError::into_inner).clear(); // wakes the readers
    }
}

impl Shared {
    fn new(medium: Medium, queue: Option<Queue>) -> Result<Shared> {
        let ends = medium.ends()?.into_iter().map(|(of, end)| (of, watch::channel(end).0)).collect();
        Ok(Shared { medium: RwLock::new(Some(medium)), ends: Mutex::new(ends), queue })
    }

    /// Runs `work` on the open database.
    fn on_medium<T>(&self, work: impl FnOnce(&Medium) -> Result<T>) -> Result<T> {
        match &*self.medium.read().unwrap_or_else(PoisonError::into_inner) {
            Some(medium) => work(medium),
            None => Err(Error::unavailable("the log is not open")),
        }
    }

    fn end(&self, of: Partition) -> Offset {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.get(&of).map_or(0, |end| *end.borrow())
    }

    fn watch_end(&self, of: Partition) -> watch::Receiver<Offset> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.entry(of).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    fn publish_end(&self, of: Partition, end: Offset) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.entry(of).or_insert_with(|| watch::channel(0).0).send_replace(end);
    }

    /// The records of `of` from `from` on that readers may see.
    fn scan(&self, of: Partition, from: Offset, max_bytes: usize) -> Result<Vec<Record>> {
        let end = self.end(of);
        if from >= end { Ok(Vec::new()) } else { self.on_medium(|medium| medium.scan(of, from..end, max_bytes)) }
    }
}

impl Log for EmbeddedLog {
    fn append(&self, to: Partition, payload: Bytes) -> BoxFuture<'static, Result<Offset>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            let Some(queue) = &shared.queue else {
                return Err(Error::invalid("log", "was opened to read only"));
            };
            let answer = queue.push(to, payload).await?;
            answer.await.unwrap_or_else(|_| Err(Error::indeterminate("the log closed before it answered the append")))
        })
    }

    fn reader(&self, of: Partition, from: Offset) -> Box<dyn Reader> {
        Box::new(EmbeddedReader { end: self.shared.watch_end(of), shared: self.shared.clone(), of, next: from })
    }

    fn fetch(&self, of: Partition, at: Offset) -> BoxFuture<'_, Result<Option<Record>>> {
        Box::pin(async move {
            if at >= self.shared.end(of) {
                return Ok(None);
            }
            self.shared.on_medium(|medium| medium.get(of, at))
        })
    }

    fn end(&self, of: Partition) -> BoxFuture<'_, Result<Offset>> {
        Box::pin(async move { Ok(self.shared.end(of)) })
    }
}

struct EmbeddedReader {
    shared: Arc<Shared>,
    end: watch::Receiver<Offset>,
    of: Partition,
    next: Offset,
}

impl Reader for EmbeddedReader {
    fn read(&mut self, max_bytes: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        Box::pin(async move {
            let records = self.shared.scan(self.of, self.next, max_bytes)?;
            self.next = records.last().map_or(self.next, |last| last.offset + 1);
            Ok(records)
        })
    }

    fn ready(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            match self.end.wait_for(|end| *end > self.next).await {
                Ok(_) => Ok(()),
                Err(_) => Err(Error::unavailable("the log is closed")),
            }
        })
    }

    fn seek(&mut self, at: Offset) {
        self.next = at;
    }
}
