//! The log in memory, with seeded faults: for tests and for simulation.
//!
//! It owns a fault model and one promise: it misbehaves only as the contract allows ([`super`]), and the same seed
//! with the same calls gives the same history. There is no clock, no thread and no map order in it; every choice
//! comes from one seeded generator, and every future but [`Reader::ready`] completes at its first poll.
//!
//! An append that is hit by a fault ends as one of
//!
//! | what happens | the record | the answer |
//! |---|---|---|
//! | refused | never there | `Unavailable` |
//! | lost | never there | `Indeterminate` |
//! | unanswered | there at once | `Indeterminate` |
//! | doubled | there twice | one of the two offsets |
//! | delayed | there after some [`MemoryLog::tick`]s | `Indeterminate` |
//!
//! Reads see nothing, or less than there is (*lag*), or fail (*outage*), but never anything wrong.
//!
//! The medium is the process's memory: what is answered is as durable as the test. To restart a node on the same
//! log, keep a clone.

use std::collections::BTreeMap;
use std::ops::RangeFrom;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::{Log, Offset, Partition, Reader, Record};
use crate::error::{Error, Result};

/// How often things go wrong. The default is never.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Percent of the appends that are refused, lost, unanswered, doubled or delayed.
    pub percent: u8,
    /// Percent of the records that leave one or two offsets free before them.
    pub gap_percent: u8,
    /// Percent of the reads, fetches and ends that see less than there is.
    pub lag_percent: u8,
    /// Percent of the reads, fetches and ends that answer `Unavailable`.
    pub outage_percent: u8,
}

impl Faults {
    /// Nothing goes wrong, and offsets are dense.
    pub const NONE: Faults = Faults { percent: 0, gap_percent: 0, lag_percent: 0, outage_percent: 0 };
    /// Everything goes wrong, often.
    pub const MANY: Faults = Faults { percent: 30, gap_percent: 10, lag_percent: 25, outage_percent: 5 };
}

/// A log in memory. A clone is another handle on the same log.
#[derive(Clone)]
pub struct MemoryLog(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Counts the records that landed, to wake the readers.
    landed: watch::Sender<u64>,
}

struct State {
    rng: fastrand::Rng,
    faults: Faults,
    time: u64,
    ticks: u64,
    topics: BTreeMap<Partition, Topic>,
    /// Delayed appends with the tick at which they land, in the order in which they were sent.
    late: Vec<(u64, Partition, Bytes)>,
}

#[derive(Default)]
struct Topic {
    records: BTreeMap<Offset, Record>,
    /// One past what was answered or read: the least that [`Log::end`] may say.
    known: Offset,
}

impl Topic {
    fn end(&self) -> Offset {
        self.records.last_key_value().map_or(0, |(offset, _)| offset + 1)
    }
}

impl MemoryLog {
    /// An empty log. `seed` decides everything that will go wrong.
    pub fn new(seed: u64, faults: Faults) -> MemoryLog {
        let rng = fastrand::Rng::with_seed(seed);
        let state = State { rng, faults, time: 0, ticks: 0, topics: BTreeMap::new(), late: Vec::new() };
        MemoryLog(Arc::new(Shared { state: Mutex::new(state), landed: watch::channel(0).0 }))
    }

    /// Changes how often things go wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.0.state().faults = faults;
    }

    /// Sets the time, in Unix seconds, that records carry from now on.
    pub fn set_time(&self, now: u64) {
        self.0.state().time = now;
    }

    /// Lets a moment pass: delayed appends that are due land.
    pub fn tick(&self) {
        let mut state = self.0.state();
        state.ticks += 1;
        let now = state.ticks;
        self.0.deliver(&mut state, |due| due <= now);
    }

    /// Lands every delayed append now.
    pub fn deliver_late(&self) {
        self.0.deliver(&mut self.0.state(), |_| true);
    }

    /// How many delayed appends have not landed yet.
    pub fn in_flight(&self) -> usize {
        self.0.state().late.len()
    }

    /// Everything that is in a partition, without faults: for checkers.
    pub fn records(&self, of: Partition) -> Vec<Record> {
        self.records_from(of, 0)
    }

    /// What stands at an offset and after it, without faults.
    pub fn records_from(&self, of: Partition, from: Offset) -> Vec<Record> {
        let found = |topic: &Topic| topic.records.range(from..).map(|(_, record)| record.clone()).collect();
        self.0.state().topics.get(&of).map_or_else(Vec::new, found)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, to: Partition, payload: Bytes) -> Result<Offset> {
        let mut state = self.state();
        let answer = state.append(to, payload);
        self.landed.send_modify(|n| *n += 1);
        answer
    }

    fn deliver(&self, state: &mut State, due: impl Fn(u64) -> bool) {
        let (now, later) = std::mem::take(&mut state.late).into_iter().partition::<Vec<_>, _>(|late| due(late.0));
        state.late = later;
        for (_, to, payload) in now {
            state.land(to, payload);
        }
        self.landed.send_modify(|n| *n += 1);
    }
}

impl State {
    fn chance(&mut self, percent: u8) -> bool {
        // No draw when there is no question: a calm log does not depend on its seed.
        percent > 0 && self.rng.u8(0..100) < percent
    }

    fn append(&mut self, to: Partition, payload: Bytes) -> Result<Offset> {
        let unknown = || Error::indeterminate("the log did not answer the append");
        let offset = if !self.chance(self.faults.percent) {
            self.land(to, payload)
        } else {
            match self.rng.u8(0..7) {
                0 => return Err(Error::unavailable("the log refused the append")),
                1 => return Err(unknown()),
                2 | 3 => {
                    self.land(to, payload);
                    return Err(unknown());
                }
                4 => {
                    let both = [self.land(to, payload.clone()), self.land(to, payload)];
                    both[usize::from(self.rng.bool())]
                }
                _ => {
                    // Either soon, or after everybody has lost patience.
                    let wait = if self.rng.bool() { self.rng.u64(0..20) } else { self.rng.u64(40..340) };
                    self.late.push((self.ticks + wait, to, payload));
                    return Err(unknown());
                }
            }
        };
        let topic = self.topics.entry(to).or_default();
        topic.known = topic.known.max(offset + 1);
        Ok(offset)
    }

    fn land(&mut self, to: Partition, payload: Bytes) -> Offset {
        let gap = if self.chance(self.faults.gap_percent) { self.rng.u64(1..3) } else { 0 };
        let topic = self.topics.entry(to).or_default();
        let offset = topic.end() + gap;
        topic.records.insert(offset, Record { offset, time_ms: self.time * 1_000, payload });
        offset
    }

    fn outage(&mut self) -> Result<()> {
        if self.chance(self.faults.outage_percent) {
            return Err(Error::unavailable("the log cannot be reached"));
        }
        Ok(())
    }

    fn read(&mut self, of: Partition, from: RangeFrom<Offset>, max_bytes: usize) -> Result<Vec<Record>> {
        self.outage()?;
        let most = if self.chance(self.faults.lag_percent) { self.rng.usize(0..3) } else { usize::MAX };
        let Some(topic) = self.topics.get_mut(&of) else { return Ok(Vec::new()) };
        let (mut records, mut bytes) = (Vec::new(), 0);
        for record in topic.records.range(from).map(|(_, record)| record).take(most) {
            bytes += record.payload.len();
            if bytes > max_bytes && !records.is_empty() {
                break;
            }
            topic.known = topic.known.max(record.offset + 1);
            records.push(record.clone());
        }
        Ok(records)
    }

    fn fetch(&mut self, of: Partition, at: Offset) -> Result<Option<Record>> {
        self.outage()?;
        if self.chance(self.faults.lag_percent) {
            return Ok(None);
        }
        let Some(topic) = self.topics.get_mut(&of) else { return Ok(None) };
        let record = topic.records.get(&at).cloned();
        if record.is_some() {
            topic.known = topic.known.max(at + 1);
        }
        Ok(record)
    }

    fn end(&mut self, of: Partition) -> Result<Offset> {
        self.outage()?;
        let lag = self.chance(self.faults.lag_percent);
        let Some(topic) = self.topics.get_mut(&of) else { return Ok(0) };
        let end = if lag { topic.known } else { topic.end() };
        topic.known = end; // an end that was observed does not go back
        Ok(end)
    }
}

impl Log for MemoryLog {
    fn append(&self, to: Partition, payload: Bytes) -> BoxFuture<'static, Result<Offset>> {
        let shared = self.0.clone();
        Box::pin(async move { shared.append(to, payload) })
    }

    fn reader(&self, of: Partition, from: Offset) -> Box<dyn Reader> {
        Box::new(MemoryReader { landed: self.0.landed.subscribe(), shared: self.0.clone(), of, next: from })
    }

    fn fetch(&self, of: Partition, at: Offset) -> BoxFuture<'_, Result<Option<Record>>> {
        Box::pin(async move { self.0.state().fetch(of, at) })
    }

    fn end(&self, of: Partition) -> BoxFuture<'_, Result<Offset>> {
        Box::pin(async move { self.0.state().end(of) })
    }
}

struct MemoryReader {
    shared: Arc<Shared>,
    landed: watch::Receiver<u64>,
    of: Partition,
    next: Offset,
}

impl Reader for MemoryReader {
    fn read(&mut self, max_bytes: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        Box::pin(async move {
            let records = self.shared.state().read(self.of, self.next.., max_bytes)?;
            self.next = records.last().map_or(self.next, |last| last.offset + 1);
            Ok(records)
        })
    }

    fn ready(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            loop {
                self.landed.borrow_and_update();
                if self.shared.state().topics.get(&self.of).is_some_and(|topic| topic.end() > self.next) {
                    return Ok(());
                }
                if self.landed.changed().await.is_err() {
                    return Err(Error::unavailable("the log is closed"));
                }
            }
        })
    }

    fn seek(&mut self, at: Offset) {
        self.next = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn history(seed: u64) -> (Vec<Result<Offset>>, Vec<Record>, Vec<usize>) {
        let log = MemoryLog::new(seed, Faults::MANY);
        let mut reader = log.reader(Partition::Folds, 0);
        let (mut answers, mut reads) = (Vec::new(), Vec::new());
        for i in 0u32..200 {
            log.set_time(u64::from(i));
            answers.push(log.append(Partition::Folds, i.to_be_bytes().to_vec().into()).now_or_never().unwrap());
            reads.push(reader.read(16).now_or_never().unwrap().map_or(99, |records| records.len()));
            log.tick();
        }
        log.deliver_late();
        (answers, log.records(Partition::Folds), reads)
    }

    #[test]
    fn the_same_seed_gives_the_same_history_and_another_seed_another() {
        assert_eq!(history(7), history(7));
        assert_ne!(history(7), history(8));
    }

    #[test]
    fn every_kind_of_fault_happens() {
        let (answers, records, reads) = history(3);
        let kinds = |kind| answers.iter().filter(|a| matches!(a, Err(e) if e.kind == kind)).count();
        let times = |i: u32| records.iter().filter(|r| r.payload[..] == i.to_be_bytes()).count();
        assert!(kinds(crate::error::Kind::Unavailable) > 0 && kinds(crate::error::Kind::Indeterminate) > 0);
        for (i, answer) in (0u32..).zip(&answers) {
            match answer {
                Ok(offset) => assert!(records.iter().any(|r| r.offset == *offset && r.payload[..] == i.to_be_bytes())),
                Err(e) if e.kind == crate::error::Kind::Unavailable => assert_eq!(times(i), 0),
                Err(_) => assert!(times(i) <= 1),
            }
        }
        let unknown = || (0u32..).zip(&answers).filter(|(_, a)| a.is_err());
        assert!(unknown().any(|(i, _)| times(i) == 1), "unanswered");
        assert!(unknown().any(|(i, _)| times(i) == 0), "lost");
        assert!((0..200).any(|i| times(i) == 2), "doubled");
        assert!(
            records.iter().any(|r| r.time() > u64::from(u32::from_be_bytes(r.payload[..].try_into().unwrap()))),
            "late"
        );
        assert!(records.iter().zip(0..).any(|(r, i)| r.offset > i), "gaps");
        assert!(reads.contains(&0) && reads.contains(&99), "lag and outage");
    }

    #[test]
    fn a_delayed_append_lands_by_ticks_alone() {
        let log = MemoryLog::new(1, Faults { percent: 100, ..Faults::NONE });
        while log.in_flight() == 0 {
            let _ = log.append(Partition::Ledger, Bytes::from_static(b"x")).now_or_never().unwrap();
        }
        let before = log.records(Partition::Ledger).len();
        (0..340).for_each(|_| log.tick());
        assert_eq!((log.in_flight(), log.records(Partition::Ledger).len()), (0, before + 1));
    }
}
