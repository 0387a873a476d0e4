//! The one thread that writes the embedded log, and the queue in front of it.
//!
//! The queue is bounded by bytes: an append waits (asynchronously, first come first served) until there is room.
//! What was accepted into the queue is written even when the log is closed meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::Shared;
use super::medium::{Entry, Failure, Medium};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::log::{Offset, Partition};

/// The payload that may wait to be written, and so the most that one batch holds.
const QUEUE_BYTES: usize = 8 << 20;
/// What a record costs beside its payload.
const RECORD_BYTES: usize = 64;

pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    room: Arc<Semaphore>,
}

struct State {
    jobs: Vec<Job>,
    closed: bool,
}

struct Job {
    to: Partition,
    payload: Bytes,
    answer: oneshot::Sender<Result<Offset>>,
    _room: OwnedSemaphorePermit,
}

impl Queue {
    pub fn new() -> Queue {
        Queue {
            state: Mutex::new(State { jobs: Vec::new(), closed: false }),
            arrived: Condvar::new(),
            room: Arc::new(Semaphore::new(QUEUE_BYTES)),
        }
    }

    /// Takes an append in as soon as there is room; what it answers comes later.
    pub async fn push(&self, to: Partition, payload: Bytes) -> Result<oneshot::Receiver<Result<Offset>>> {
        let closed = || Error::unavailable("the log is closed");
        let size = (payload.len() + RECORD_BYTES).min(QUEUE_BYTES) as u32;
        let room = self.room.clone().acquire_many_owned(size).await.map_err(|_| closed())?;
        let (answer, receiver) = oneshot::channel();
        let mut state = self.state();
        if state.closed {
            return Err(closed());
        }
        state.jobs.push(Job { to, payload, answer, _room: room });
        self.arrived.notify_one();
        Ok(receiver)
    }

    /// Refuses further appends. The writer ends once it has written what is there.
    pub fn close(&self) {
        self.state().closed = true;
        self.arrived.notify_one();
    }

    /// Waits for appends and takes all of them; `None` when it is closed and empty.
    fn take(&self) -> Option<Vec<Job>> {
        let waiting = |state: &mut State| state.jobs.is_empty() && !state.closed;
        let mut state = self.arrived.wait_while(self.state(), waiting).unwrap_or_else(PoisonError::into_inner);
        if state.jobs.is_empty() { None } else { Some(std::mem::take(&mut state.jobs)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the database can be written.
enum Health {
    Good,
    /// After a write failed for want of room: reopen first.
    Reopen,
    /// For good.
    Failed(Error),
}

/// Closes the queue when the writer ends, however it ends, so that nobody waits for an answer that cannot come.
struct CloseAtEnd<'a>(&'a Queue);

impl Drop for CloseAtEnd<'_> {
    fn drop(&mut self) {
        self.0.close();
        self.0.state().jobs.clear();
    }
}

/// Writes what comes into the queue until it is closed.
pub(super) fn run(shared: &Shared, dir: &Path, clock: &dyn Clock) {
    let Some(queue) = &shared.queue else { return };
    let _close = CloseAtEnd(queue);
    let mut health = Health::Good;
    while let Some(jobs) = queue.take() {
        if matches!(health, Health::Reopen) {
            health = match reopen(shared, dir) {
                Ok(()) => Health::Good,
                Err(e) if e.is_fatal() => Health::Failed(e),
                Err(e) => {
                    refuse(jobs, &e);
                    continue;
                }
            };
        }
        if let Health::Failed(e) = &health {
            refuse(jobs, e);
            continue;
        }
        match write(shared, &jobs, clock.now_ms()) {
            Ok((offsets, ends)) => {
                ends.into_iter().for_each(|(of, end)| shared.publish_end(of, end));
                for (job, offset) in jobs.into_iter().zip(offsets) {
                    let _ = job.answer.send(Ok(offset)); // it may have stopped waiting
                }
            }
            Err(Failure::Passing(why)) => {
                tracing::warn!(%why, "an append to the log failed; it will be opened again");
                health = Health::Reopen;
                refuse(jobs, &Error::indeterminate(format!("the append may have failed: {why}")));
            }
            Err(Failure::Fatal(e)) => {
                tracing::error!(error = %e, "the log failed");
                refuse(jobs, &e);
                health = Health::Failed(e);
            }
        }
    }
}

fn refuse(jobs: Vec<Job>, why: &Error) {
    for job in jobs {
        let _ = job.answer.send(Err(why.clone()));
    }
}

type Written = (Vec<Offset>, BTreeMap<Partition, Offset>);

/// Writes all of `jobs` in one batch. Answers their offsets, and the new ends.
fn write(shared: &Shared, jobs: &[Job], time_ms: u64) -> std::result::Result<Written, Failure> {
    let mut ends = BTreeMap::new();
    let entry = |job: &'_ Job| {
        let end = ends.entry(job.to).or_insert_with(|| shared.end(job.to));
        *end += 1;
        *end - 1
    };
    let offsets: Vec<Offset> = jobs.iter().map(entry).collect();
    let entries: Vec<Entry<'_>> = jobs
        .iter()
        .zip(&offsets)
        .map(|(job, offset)| Entry { to: job.to, offset: *offset, time_ms, payload: &job.payload })
        .collect();
    match &*shared.medium.read().unwrap_or_else(PoisonError::into_inner) {
        Some(medium) => medium.write(&entries)?,
        None => return Err(Failure::Fatal(Error::corrupt("the log was closed under its writer"))),
    }
    Ok((offsets, ends))
}

/// Opens the database again and publishes what it holds, which may be more than was answered, never less.
fn reopen(shared: &Shared, dir: &Path) -> Result<()> {
    Medium::check_room(dir)?; // while readers still have the old handle
    let mut medium = shared.medium.write().unwrap_or_else(PoisonError::into_inner);
    *medium = None; // RocksDB's lock: the old handle goes first
    let opened = Medium::open(dir)?;
    let ends = opened.ends()?;
    let published: Vec<(Partition, Offset)> = {
        let known = shared.ends.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(of, end)| (*of, *end.borrow())).collect()
    };
    for (of, end) in published {
        if ends.get(&of).copied().unwrap_or(0) < end {
            return Err(Error::corrupt(format!("{of:?} ended at {end} before the log was opened again, not any more")));
        }
    }
    *medium = Some(opened);
    drop(medium);
    ends.into_iter().for_each(|(of, end)| shared.publish_end(of, end));
    tracing::info!("the log is open again");
    Ok(())
}
