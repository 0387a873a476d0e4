//! The intake: requests → segments + Commit → receipt.
//!
//! Owns invariant 1's producer half (nothing is answered before this intake's own reader has passed the Commit) and
//! invariant 8 (its queue is bounded; full means `Unavailable`, nothing lost).
//!
//! ```text
//!   submit ─► queue ─► group: segments appended side by side ─► one Commit appended      (several groups in flight)
//!                 ledger reader: Commit read back ─► verdict of each batch ─► receipt
//! ```
//!
//! What producers write to the log's own inbox has a way of its own to the same groups: see [`inbox`].

mod group;
pub mod inbox;
mod pace;
mod waiting;

use std::collections::VecDeque;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::bins::{Layout, Sha256Digest};
use crate::change::Batch;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::ledger::ids::Seen;
use crate::ledger::{Event, Follower, MAX_SEGMENT_BYTES, Outcome, Record, State};
use crate::log::{Log, Offset};
use crate::pool::Pool;

use group::{Group, Queued};
use pace::Pace;
use waiting::Waiting;

/// How many groups are in flight at a time, unless configured otherwise.
pub const DEFAULT_GROUPS: usize = 4;
/// How many bytes of change lines may be queued or in flight, unless configured otherwise.
pub const DEFAULT_QUEUE_BYTES: usize = 64 << 20;
/// What a queued batch costs beside its lines.
const BATCH_OVERHEAD: usize = 512;
/// How many messages may wait to be looked at; each batch among them has its bytes reserved already.
const MESSAGES: usize = 65_536;

/// Where a batch stands in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The seq of the Commit in which it is valid.
    pub seq: Offset,
    /// The basis with which it was committed, or for a batch known before, the newest seq read.
    pub basis: Offset,
}

/// What an intake knows about an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The remembered batch.
    pub seen: Option<Seen>,
    /// The newest seq read: a basis for a batch whose id is not remembered.
    pub basis: Offset,
    /// Ids below it are forgotten.
    pub floor: Offset,
}

enum Message {
    Submit(Box<Submission>),
    Lookup(String, oneshot::Sender<Known>),
    Drain(oneshot::Sender<()>),
}

struct Submission {
    batch: Batch,
    room: OwnedSemaphorePermit,
    reply: oneshot::Sender<Result<Receipt>>,
}

/// Hands requests to an [`Intake`], from any number of tasks.
#[derive(Clone)]
pub struct Handle {
    messages: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
    queue_bytes: usize,
}

impl Handle {
    /// Queues a batch; completes when it is decided. Full or stopping: `Unavailable`, and nothing happened.
    pub async fn submit(&self, batch: Batch) -> Result<Receipt> {
        let (reply, receipt) = oneshot::channel();
        let cost = (batch.bytes + BATCH_OVERHEAD).min(self.queue_bytes) as u32;
        let full = |_| Error::unavailable("the intake queue is full: try again");
        let room = self.room.clone().try_acquire_many_owned(cost).map_err(full)?;
        let message = Message::Submit(Box::new(Submission { batch, room, reply }));
        self.messages.try_send(message).map_err(|_| Error::unavailable("the intake is busy or stopping: try again"))?;
        receipt.await.unwrap_or_else(|_| Err(Error::indeterminate("the intake stopped: try again with the same id")))
    }

    /// What the intake knows about an id now.
    pub async fn lookup(&self, id: &str) -> Result<Known> {
        let (reply, known) = oneshot::channel();
        let gone = || Error::unavailable("the intake is busy or stopping: try again");
        self.messages.send(Message::Lookup(id.to_owned(), reply)).await.map_err(|_| gone())?;
        known.await.map_err(|_| gone())
    }

    /// Refuses batches from now on; completes when all that were accepted are decided.
    pub async fn drain(&self) {
        let (reply, done) = oneshot::channel();
        if self.messages.send(Message::Drain(reply)).await.is_ok() {
            let _ = done.await;
        }
    }

    /// How many bytes may be queued or in flight.
    pub fn queue_bytes(&self) -> usize {
        self.queue_bytes
    }

    /// How many bytes are queued or in flight.
    pub fn queued_bytes(&self) -> usize {
        self.queue_bytes - self.room.available_permits()
    }
}

/// What became of a group's appends: its Commit's offset, or why there is none (or none known).
type Flight = BoxFuture<'static, (u64, Result<Offset>)>;

/// See the module.
pub struct Intake {
    log: Arc<dyn Log>,
    pool: Pool,
    follower: Follower,
    messages: mpsc::Receiver<Message>,
    arrived: VecDeque<Message>,
    queue: VecDeque<Queued>,
    waiting: Waiting,
    groups: Vec<Group>,
    flights: FuturesUnordered<Flight>,
    landed: VecDeque<(u64, Result<Offset>)>,
    next_group: u64,
    max_groups: usize,
    segment_bytes: usize,
    pace: Pace,
    drain: Option<Vec<oneshot::Sender<()>>>,
}

impl Intake {
    /// Goes on from a ledger state.
    pub async fn new(
        log: Arc<dyn Log>,
        pool: Pool,
        state: State,
        max_groups: usize,
        queue_bytes: usize,
    ) -> Result<(Intake, Handle)> {
        let queue_bytes = queue_bytes.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        let (sender, messages) = mpsc::channel(MESSAGES);
        let follower = Follower::new(&*log, state).await?;
        let intake = Intake {
            log,
            pool,
            follower,
            messages,
            arrived: VecDeque::new(),
            queue: VecDeque::new(),
            waiting: Waiting::default(),
            groups: Vec::new(),
            flights: FuturesUnordered::new(),
            landed: VecDeque::new(),
            next_group: 0,
            max_groups: max_groups.max(1),
            segment_bytes: MAX_SEGMENT_BYTES,
            pace: Pace::default(),
            drain: None,
        };
        Ok((intake, Handle { messages: sender, room: Arc::new(Semaphore::new(queue_bytes)), queue_bytes }))
    }

    /// Cuts segments at another size than [`MAX_SEGMENT_BYTES`]: for tests, which have small batches.
    pub fn with_segment_bytes(self, segment_bytes: usize) -> Intake {
        Intake { segment_bytes, ..self }
    }

    /// Holds batches back while cuts are slow, by this clock: see [`pace`].
    pub fn paced(self, clock: Arc<dyn Clock>, min_cut_interval_ms: u64) -> Intake {
        Intake { pace: Pace::by(clock, min_cut_interval_ms), ..self }
    }

    /// The state after the last record read.
    pub fn state(&self) -> &State {
        &self.follower.state
    }

    /// One bounded piece of work: takes messages, sends groups on their way, reads the ledger. Never waits for an
    /// append. Answers false when there was nothing to do now.
    pub async fn step(&mut self) -> Result<bool> {
        let mut worked = self.read_ledger().await?;
        while let Ok(message) = self.messages.try_recv() {
            self.arrived.push_back(message);
        }
        while let Some(message) = self.arrived.pop_front() {
            worked = true;
            self.take(message);
        }
        worked |= self.depart().await?;
        while let Some(Some(landed)) = self.flights.next().now_or_never() {
            self.landed.push_back(landed);
        }
        while let Some((id, landed)) = self.landed.pop_front() {
            worked = true;
            self.land(id, landed)?;
        }
        if self.drain.is_some() && self.queue.is_empty() && self.flights.is_empty() && self.waiting.is_empty() {
            for done in self.drain.iter_mut().flat_map(std::mem::take) {
                let _ = done.send(());
            }
        }
        Ok(worked)
    }

    /// Completes when [`Intake::step`] may have something to do; time alone may also give it something (a cut that is
    /// stuck holds nothing back), so it is to be stepped now and then. Cancel-safe.
    pub async fn ready(&mut self) -> Result<()> {
        if !self.landed.is_empty() || !self.arrived.is_empty() {
            return Ok(());
        }
        tokio::select! {
            Some(message) = self.messages.recv() => self.arrived.push_back(message),
            Some(landed) = self.flights.next(), if !self.flights.is_empty() => self.landed.push_back(landed),
            done = self.follower.ready() => done?,
        }
        Ok(())
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Lookup(id, reply) => {
                let state = &self.follower.state;
                let _ = reply.send(Known { seen: state.ids.get(&id), basis: state.basis(), floor: state.floor });
            }
            Message::Drain(reply) => self.drain.get_or_insert_default().push(reply),
            // Nobody waits for it any more, so its producer may count on its not being accepted late: without a basis of
            // its own it would get a fresh one, and could apply a second time.
            Message::Submit(s) if s.reply.is_closed() => {}
            Message::Submit(s) => {
                let Submission { batch, room, reply } = *s;
                match self.accept(&batch) {
                    Err(e) => drop(reply.send(Err(e))),
                    Ok(Accepted::Known(receipt)) => drop(reply.send(Ok(receipt))),
                    Ok(Accepted::New(basis)) => {
                        self.waiting.add(&batch.id, batch.digest, basis, reply);
                        self.queue.push_back(Queued { batch, basis, inbox: None, room: Some(room) });
                    }
                }
            }
        }
    }

    /// Decides whether a batch goes into the queue. Its basis is what its producer sent, else the newest seq of this
    /// very state, in which its id was looked up; it stays as it is from here on.
    fn accept(&self, batch: &Batch) -> Result<Accepted> {
        let state = &self.follower.state;
        if let Some(seen) = state.ids.get(&batch.id) {
            return known(&batch.id, batch.digest, seen, state.basis()).map(Accepted::Known);
        }
        if self.drain.is_some() {
            return Err(Error::unavailable("the server is stopping: try again"));
        }
        if state.layout.is_none() {
            return Err(Error::unavailable("this node has not read the ledger yet: try again"));
        }
        let basis = batch.basis.unwrap_or(state.basis());
        if basis > state.basis() {
            let newest = state.basis();
            return Err(Error::unavailable(format!(
                "basis {basis} is ahead of this node, which has read up to {newest}"
            )));
        }
        if basis < state.least_basis() {
            // No basis: the id may have been valid and is forgotten, so only a lookup in the whole history gives one.
            return Err(Error { basis: None, ..beyond_horizon(state) });
        }
        Ok(Accepted::New(basis))
    }

    async fn read_ledger(&mut self) -> Result<bool> {
        let mut worked = false;
        while let Some(entry) = self.follower.next().await? {
            worked = true;
            self.pace.read(&entry);
            let (Record::Commit(commit), Event::Commit(outcomes)) = (&entry.record, &entry.event) else { continue };
            let state = &self.follower.state;
            for (batch, outcome) in commit.batches.iter().zip(outcomes) {
                // A void batch decides nothing, but for one of ours that fell below the floor: see below.
                if *outcome != Outcome::Void
                    && let Some(seen) = state.ids.get(&batch.id)
                {
                    self.waiting.decide(&batch.id, |digest, basis| known(&batch.id, digest, seen, basis));
                }
            }
        }
        if worked {
            let state = &self.follower.state;
            self.waiting.expire(state.least_basis(), || beyond_horizon(state));
            // What is decided is dropped where it still waits: else retries crowd out what could succeed.
            let (waiting, groups) = (&self.waiting, &mut self.groups);
            self.queue.retain(|q| waiting.is_open(&q.batch.id, q.batch.digest));
            groups.retain(|g| g.batches.iter().any(|(id, digest)| waiting.is_open(id, *digest)));
        }
        Ok(worked)
    }

    /// Sends groups on their way while there is room in flight.
    async fn depart(&mut self) -> Result<bool> {
        let mut worked = false;
        while !self.queue.is_empty() && self.flights.len() < self.max_groups {
            let flying = self.groups.iter().map(|g| g.changes).sum();
            if self.drain.is_none() && !self.pace.admits(flying) {
                break;
            }
            let group = group::take(&mut self.queue);
            let batches = group.iter().map(|q| (q.batch.id.clone(), q.batch.digest)).collect();
            let id = self.next_group;
            self.next_group += 1;
            let changes = group.iter().map(|q| q.batch.changes.len() as u64).sum();
            self.groups.push(Group { id, batches, changes });
            let layout = self.follower.state.layout()?;
            let flight = group::fly(self.log.clone(), self.pool.clone(), layout, self.segment_bytes, group);
            self.flights.push(async move { (id, flight.await) }.boxed());
            worked = true;
        }
        Ok(worked)
    }

    /// A group's appends have ended. What was committed is answered by the ledger, never from here.
    fn land(&mut self, id: u64, landed: Result<Offset>) -> Result<()> {
        let Some(at) = self.groups.iter().position(|g| g.id == id) else { return Ok(()) };
        let group = self.groups.swap_remove(at);
        match landed {
            Ok(_) => Ok(()),
            Err(e) if e.is_fatal() => Err(e),
            Err(e) => {
                for (id, digest) in &group.batches {
                    self.waiting.fail(id, *digest, &e);
                }
                Ok(())
            }
        }
    }
}

enum Accepted {
    Known(Receipt),
    New(Offset),
}

/// Appends one group of batches that were committed before, with its Commit, and answers that Commit's seq: for recovery
/// alone, where nobody waits for a verdict but the caller, who reads it in the ledger.
pub async fn commit(
    log: Arc<dyn Log>,
    pool: Pool,
    layout: Layout,
    batches: Vec<Batch>,
    basis: Offset,
) -> Result<Offset> {
    let queued = batches.into_iter().map(|batch| Queued { batch, basis, inbox: None, room: None }).collect();
    group::fly(log, pool, layout, MAX_SEGMENT_BYTES, queued).await
}

/// The answer about an id that is remembered.
fn known(id: &str, digest: Sha256Digest, seen: Seen, basis: Offset) -> Result<Receipt> {
    match seen.digest == digest {
        true => Ok(Receipt { seq: seen.seq, basis }),
        false => Err(Error::conflict(format!("batch id {id:?} stands for other content since seq {}", seen.seq))),
    }
}

/// For a batch that this intake has waited for without a gap since its basis, the newest seq read is a new basis.
fn beyond_horizon(state: &State) -> Error {
    let what = "the ledger has grown beyond the horizon since the batch's basis: look the id up with ?history=full and, \
                if it is not found, send it again with the basis of that answer";
    Error { basis: Some(state.basis()), ..Error::indeterminate(what) }
}
