//! The inbox: batches that producers in any language write to the log itself, sequenced exactly once.
//!
//! ```text
//!   topic inbox ─► chunk of one partition ─► segments + ONE Commit, whose batches carry their places
//!                       ▲                        │
//!                       └── the next one ◄── read back: the places have passed in the ledger state
//!                                                │
//!   topic inbox-rejects ◄── what is no batch, what conflicts          group's offset ◄── all below is decided
//! ```
//!
//! Owns the intakes' half of *once, for ever*: the batches of an inbox partition reach the ledger in its order. A chunk
//! is one group with one Commit, and the next chunk departs only when this intake's own reader has seen every place of
//! this one pass, whoever's Commit did it. So whatever is appended late, again, or by two intakes at once finds its
//! places passed, and the ledger ([`ledger::inbox`](crate::ledger::inbox)) drops it. Partitions run side by side.
//!
//! **Refusals** are appended before anything behind them departs, and again by whoever starts before them, so each is
//! there at least once. What depends on the ledger (a conflict) is refused by the ledger's verdict.
//!
//! **Where it starts**: at the group's offset. What lies below the ledger's next offset is only looked at for refusals
//! that may not have been written; if the group has no offset, or one that cannot be, the ledger's is taken. An operator
//! who sets the group's offset ahead skips records; one who sets it back gets old refusals again, and nothing twice.

mod line;
mod record;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, select_all};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;

use super::group::{self, Queued};
use super::pace::Pace;
use crate::bins::PartitionId;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::ledger::{Event, Follower, MAX_SEGMENT_BYTES, Outcome, Record, State};
use crate::log::{self, Log, Offset, Partition};
use crate::pool::Pool;

use line::Line;
use record::{Item, check_basis};

/// How many bytes of records are read at once; in memory small batches are many times as large.
const READ_BYTES: usize = 1 << 20;

/// How many partitions an inbox may have. The ledger knows partition `p` of the `g`th inbox of a repository as
/// `g` × this + `p`, so that one made anew begins at offset 0 without anything counting as sequenced.
pub const MAX_PARTITIONS: PartitionId = 1 << 10;
/// The highest generation.
pub const MAX_GENERATION: PartitionId = PartitionId::MAX / MAX_PARTITIONS;

/// What an inbox is made of.
pub struct Parts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Which partitions are whose.
    pub source: Arc<dyn log::Inbox>,
    /// Where heavy work runs.
    pub pool: Pool,
    /// The hash algorithms admitted beside sha256: all intakes should have the same.
    pub extra_hashes: Arc<[String]>,
    /// How many partitions may have content in memory, some MiB each.
    pub lines: usize,
    /// How often the inbox was made anew, at most [`MAX_GENERATION`]: all intakes should have the same.
    pub generation: PartitionId,
}

/// What a flight brought.
enum Landed {
    /// So many refusals are written.
    Refused(Result<usize>),
    /// A Commit was answered.
    Committed(Result<Offset>),
}

/// Of a partition's line with this number.
type Flight = (PartitionId, u64, Landed);

/// See the module.
pub struct Inbox {
    parts: Parts,
    follower: Follower,
    owned: watch::Receiver<Result<BTreeSet<PartitionId>>>,
    lines: BTreeMap<PartitionId, Line>,
    flights: FuturesUnordered<BoxFuture<'static, Flight>>,
    landed: VecDeque<Flight>,
    next_number: u64,
    /// Who is first at the next step: none waits for ever.
    turn: PartitionId,
    segment_bytes: usize,
    pace: Pace,
}

impl Inbox {
    /// Goes on from a ledger state.
    pub async fn new(parts: Parts, state: State) -> Result<Inbox> {
        let follower = Follower::new(&*parts.log, state).await?;
        Ok(Inbox {
            owned: parts.source.owned(),
            parts,
            follower,
            lines: BTreeMap::new(),
            flights: FuturesUnordered::new(),
            landed: VecDeque::new(),
            next_number: 0,
            turn: 0,
            segment_bytes: MAX_SEGMENT_BYTES,
            pace: Pace::default(),
        })
    }

    /// Cuts segments at another size than [`MAX_SEGMENT_BYTES`]: for tests, which have small batches.
    pub fn with_segment_bytes(self, segment_bytes: usize) -> Inbox {
        Inbox { segment_bytes, ..self }
    }

    /// Holds batches back while cuts are slow, by this clock: see [`super::pace`].
    pub fn paced(self, clock: Arc<dyn Clock>, min_cut_interval_ms: u64) -> Inbox {
        Inbox { pace: Pace::by(clock, min_cut_interval_ms), ..self }
    }

    /// One bounded piece of work: reads the ledger, and moves every partition on by a step. Never waits for an append.
    /// Answers false when there was nothing to do now.
    pub async fn step(&mut self) -> Result<bool> {
        let mut worked = self.read_ledger().await?;
        while let Some(Some(landed)) = self.flights.next().now_or_never() {
            self.landed.push_back(landed);
        }
        // What one partition meets does not hold up the others; it is said when all had their turn.
        let mut trouble = None;
        while let Some((partition, number, landed)) = self.landed.pop_front() {
            worked = true;
            note(&mut trouble, self.land(partition, number, landed))?;
        }
        if self.follower.state.layout.is_none() {
            return Ok(worked); // the beginning of the ledger has not been read
        }
        let owned = self.owned.borrow_and_update().clone()?;
        if owned.last().is_some_and(|last| *last >= MAX_PARTITIONS) {
            return Err(Error::invalid("kafka", format!("the inbox has more than {MAX_PARTITIONS} partitions")));
        }
        self.lines.retain(|partition, _| owned.contains(partition));
        for partition in owned {
            if !self.lines.contains_key(&partition) {
                let opened = self.open(partition).await;
                worked |= note(&mut trouble, opened)?.is_some();
            }
        }
        let (before, from): (Vec<_>, Vec<_>) = self.lines.keys().copied().partition(|p| *p < self.turn);
        for partition in from.into_iter().chain(before) {
            let moved = self.advance(partition).await;
            if note(&mut trouble, moved)? == Some(true) {
                (worked, self.turn) = (true, partition.wrapping_add(1));
            }
        }
        match trouble {
            Some(e) => Err(e),
            None => Ok(worked),
        }
    }

    /// Completes when [`Inbox::step`] may have something to do; it is to be stepped now and then, as an intake.
    /// Cancel-safe.
    pub async fn ready(&mut self) -> Result<()> {
        if !self.landed.is_empty() {
            return Ok(());
        }
        let free = self.is_free();
        let Inbox { lines, flights, landed, follower, owned, .. } = self;
        let readers = lines.values_mut().filter(|line| free && line.is_idle());
        let mut readers: Vec<_> = readers.map(|line| line.reader.ready()).collect();
        readers.push(Box::pin(std::future::pending()));
        tokio::select! {
            Some(flight) = flights.next(), if !flights.is_empty() => landed.push_back(flight),
            done = follower.ready() => done?,
            Ok(()) = owned.changed() => {}
            (done, _, _) = select_all(readers) => done?,
        }
        Ok(())
    }

    /// Whether another partition may be read.
    fn is_free(&self) -> bool {
        self.lines.values().filter(|line| !line.is_idle()).count() < self.parts.lines.max(1)
    }

    async fn read_ledger(&mut self) -> Result<bool> {
        let mut worked = false;
        while let Some(entry) = self.follower.next().await? {
            worked = true;
            self.pace.read(&entry);
            let (Record::Commit(commit), Event::Commit(outcomes)) = (&entry.record, &entry.event) else { continue };
            for (batch, outcome) in commit.batches.iter().zip(outcomes) {
                if let (Some((partition, offset)), Outcome::Conflict { first }) = (batch.inbox, outcome)
                    && let Some(partition) = partition.checked_sub(self.parts.generation * MAX_PARTITIONS)
                    && let Some(line) = self.lines.get_mut(&partition)
                {
                    line.conflicts(offset, *first);
                }
            }
        }
        Ok(worked)
    }

    /// Finds where a partition goes on.
    async fn open(&mut self, partition: PartitionId) -> Result<()> {
        let source = &self.parts.source;
        let told = source.told(partition).await?;
        let span = source.span(partition).await?;
        let told = told.filter(|told| *told <= span.end);
        let next = self.follower.state.inbox.next(self.in_ledger(partition));
        if next > span.end {
            return Err(self.made_anew(partition, next, span.end));
        }
        if told.is_none() && next > span.start {
            tracing::warn!(partition, next, "inbox: the group has no offset; what stands below counts as taken in");
        }
        let at = told.unwrap_or(next);
        if at < span.start && next < span.start {
            let lost = span.start - at.max(next);
            tracing::warn!(partition, lost, "inbox: records were removed by retention before they were sequenced");
        }
        let at = at.max(span.start);
        tracing::info!(partition, at, next, "takes in the inbox");
        let reader = self.parts.log.reader(Partition::Inbox(partition), at);
        let line = Line::new(self.next_number, reader, at, told);
        self.next_number += 1;
        self.lines.insert(partition, line);
        Ok(())
    }

    /// As the ledger knows a partition.
    fn in_ledger(&self, partition: PartitionId) -> PartitionId {
        self.parts.generation * MAX_PARTITIONS + partition
    }

    /// The topic is shorter than what was taken in. Not fatal: whatever else this process does goes on.
    fn made_anew(&self, partition: PartitionId, next: Offset, end: Offset) -> Error {
        let generation = self.parts.generation + 1;
        Error::unavailable(format!(
            "inbox partition {partition} was taken in up to {next}, and ends at {end}: records were lost, or the topic \
             was made anew. Nothing is taken in before every intake has inbox_generation = {generation}, and then \
             everything that is there"
        ))
    }

    /// One step of a partition: it writes refusals, sends its chunk, tells what is decided, or reads on.
    async fn advance(&mut self, partition: PartitionId) -> Result<bool> {
        let (free, state) = (self.is_free(), &self.follower.state);
        let Some(line) = self.lines.get_mut(&partition).filter(|line| !line.in_flight) else { return Ok(false) };
        line.settle(state);
        if !line.refusals.is_empty() {
            tracing::info!(partition, refused = line.refusals.len(), "inbox: see topic inbox-rejects");
            let (log, refusals) = (self.parts.log.clone(), line.refusals.clone());
            let writing = async move {
                for refusal in &refusals {
                    group::append(&*log, Partition::Rejects, refusal.clone()).await?;
                }
                Ok(refusals.len())
            };
            let number = line.number;
            line.in_flight = true;
            self.flights.push(writing.map(move |done| (partition, number, Landed::Refused(done))).boxed());
            return Ok(true);
        }
        if line.chunk.is_empty() {
            if line.told.is_none_or(|told| told < line.done()) {
                line.told = Some(line.done());
                self.parts.source.tell(partition, line.done());
            }
            if line.queue.is_empty() {
                return if free { self.read(partition).await } else { Ok(false) };
            }
            line.fill(state);
            return Ok(true);
        }
        if line.sent.is_some_and(|seq| state.next <= seq) {
            return Ok(false); // its Commit has not been read yet
        }
        if !self.pace.admits(0) {
            return Ok(false);
        }
        let queued =
            |item: &Item| Queued { batch: item.batch.clone(), basis: item.basis, inbox: Some(item.place), room: None };
        let group = line.chunk.iter().map(queued).collect();
        let (log, pool, layout) = (self.parts.log.clone(), self.parts.pool.clone(), state.layout()?);
        let flight = group::fly(log, pool, layout, self.segment_bytes, group);
        let number = line.number;
        line.in_flight = true;
        self.flights.push(flight.map(move |done| (partition, number, Landed::Committed(done))).boxed());
        Ok(true)
    }

    /// Reads on in a partition that has nothing left.
    async fn read(&mut self, partition: PartitionId) -> Result<bool> {
        let named = self.in_ledger(partition);
        let Some(line) = self.lines.get_mut(&partition) else { return Ok(false) };
        let records = match line.reader.read(READ_BYTES).await {
            Err(e) if e.kind == Kind::Corrupt => {
                let (behind, span) = (line.behind, self.parts.source.span(partition).await?);
                let start = span.start;
                if behind > span.end {
                    self.lines.remove(&partition);
                    return Err(self.made_anew(partition, behind, span.end));
                }
                let Some(line) = self.lines.get_mut(&partition).filter(|_| start > behind) else { return Err(e) };
                let lost = start - line.behind;
                tracing::warn!(partition, lost, "inbox: records were removed by retention before they were read");
                line.reader.seek(start);
                line.behind = start;
                return Ok(true);
            }
            records => records?,
        };
        let Some(last) = records.last().map(|r| r.offset) else { return Ok(false) };
        let size: usize = records.iter().map(|r| r.payload.len()).sum();
        let extra_hashes = self.parts.extra_hashes.clone();
        let parse =
            move || -> Vec<_> { records.iter().map(|record| Item::read(named, record, &extra_hashes)).collect() };
        let parsed = self.parts.pool.run_on(size, parse).await;
        let state = &self.follower.state;
        let ahead = |item: &Item| item.batch.basis.is_some_and(|basis| basis > state.basis());
        let end = match parsed.iter().flatten().any(ahead) {
            true => self.parts.log.end(Partition::Ledger).await,
            false => Ok(Offset::MAX),
        };
        let end = end.inspect_err(|_| line.reader.seek(line.behind))?;
        line.behind = last + 1;
        for item in parsed {
            match item {
                Err(refusal) => line.refuse(*refusal),
                Ok(item) if state.inbox.has_passed(item.place) => {
                    item.refused_before(state).into_iter().for_each(|refusal| line.refuse(refusal));
                }
                Ok(item) => match check_basis(&item, end) {
                    Ok(()) => line.queue.push_back(item),
                    Err(e) => line.refuse(item.refuse(&e)),
                },
            }
        }
        Ok(true)
    }

    /// A flight has ended. What was committed is decided by the ledger as read, never here.
    fn land(&mut self, partition: PartitionId, number: u64, landed: Landed) -> Result<()> {
        let line = self.lines.get_mut(&partition).filter(|line| line.number == number);
        let Some(line) = line else { return Ok(()) }; // another intake's now
        line.in_flight = false;
        match landed {
            Landed::Refused(Ok(written)) => drop(line.refusals.drain(..written)),
            Landed::Committed(Ok(seq)) => line.sent = Some(seq),
            Landed::Committed(Err(e)) if group::is_too_much(&e) => line.too_much(&e),
            Landed::Committed(Err(e)) => {
                line.sent = None; // the same again, with the same places: it may have happened
                return Err(e);
            }
            Landed::Refused(Err(e)) => return Err(e),
        }
        Ok(())
    }
}

/// Keeps the first trouble that time may heal; what is fatal goes on up.
fn note<T>(trouble: &mut Option<Error>, done: Result<T>) -> Result<Option<T>> {
    match done {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.is_fatal() => Err(e),
        Err(e) => {
            trouble.get_or_insert(e);
            Ok(None)
        }
    }
}
