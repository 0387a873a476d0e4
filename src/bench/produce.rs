//! The producers: each has one batch on its way at a time, and keeps what it was promised.
//!
//! Owns what is known of every batch: sent, acknowledged with a seq, or in doubt. A producer whose batch comes to
//! nothing ends, so that the order of its changes stays known.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use futures::stream::{self, StreamExt};

use super::Run;
use super::load::{Batch, Lane, Step};
use super::options::Until;
use super::report::{Finding, Kind};
use crate::client::{Client, Wait};
use crate::error;
use crate::query::{BatchAnswer, BatchState};

/// How many batches are kept for the readers to look at.
const RECENT: usize = 64;
/// How many changes a batch has that adds targets before the load.
const FILL: u64 = 10_000;
/// How many of those are on their way at a time.
const FILLING: usize = 4;

/// A batch that was sent.
pub struct Sent {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub lane: u32,
    /// What it does.
    pub steps: Rc<[Step]>,
    /// Where it was committed, once that is known.
    pub seq: Cell<Option<u64>>,
}

/// An acknowledged batch.
#[derive(Clone, Copy)]
pub struct Acknowledged {
    /// Whose it is.
    pub lane: u32,
    /// Its number there.
    pub number: u32,
    /// Where its receipt says that it is committed.
    pub seq: u64,
}

/// What the producers know.
#[derive(Default)]
pub struct Known {
    /// By lane.
    pub lanes: Vec<RefCell<Lane>>,
    /// The batches sent last, newest last.
    pub recent: RefCell<VecDeque<Rc<Sent>>>,
    /// All that must be there in the end.
    pub acknowledged: RefCell<Vec<Acknowledged>>,
    /// What came to nothing, or did not: by lane at most one batch, its last.
    pub doubts: RefCell<Vec<(u32, Rc<[Step]>)>>,
    /// The batch with the highest seq.
    last: RefCell<Option<(BatchAnswer, Rc<Batch>)>>,
    /// How many changes are still to be sent, if the load ends with their number.
    left: Cell<u64>,
}

/// When the batches of a producer are due: seconds from the load's begin to its first, and between two.
#[derive(Clone, Copy)]
struct Pace {
    first_s: f64,
    every_s: f64,
}

impl Known {
    /// Nothing is sent yet.
    pub fn new(lanes: Vec<RefCell<Lane>>) -> Known {
        Known { lanes, ..Known::default() }
    }

    /// A batch is being sent.
    fn sent(&self, lane: u32, batch: &Batch) -> Rc<Sent> {
        let (id, steps) = (batch.id.clone(), batch.steps.clone());
        let sent = Rc::new(Sent { id, lane, steps, seq: Cell::new(None) });
        let mut recent = self.recent.borrow_mut();
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(sent.clone());
        sent
    }
}

/// How late a timer may be by itself, in seconds.
const TIMER_S: f64 = 0.002;

impl Run<'_> {
    /// Adds targets before the load: each lane gets its share.
    pub async fn fill(&self, progress: impl Fn(u64)) {
        let (targets, lanes) = (self.options.targets, u64::from(self.options.producers));
        let done = Cell::new(0);
        let fill = async |lane: u64| {
            let mut left = targets / lanes + u64::from(lane < targets % lanes);
            let mut last_seq = None;
            while left > 0 && !self.options.stop.is_cancelled() {
                let size = left.min(FILL);
                left -= size;
                let batch = self.known.lanes[lane as usize].borrow_mut().fill(&self.load, size as usize);
                let due = self.tally.borrow().now();
                if self.send(lane as u32, batch, Wait::Committed, due, &mut last_seq).await.is_none() {
                    return;
                }
                done.set(done.get() + size);
                progress(done.get());
            }
        };
        stream::iter(0..lanes).map(fill).buffer_unordered(FILLING).collect::<Vec<()>>().await;
    }

    /// Runs all producers to the end of the load.
    pub async fn produce(&self) {
        let options = &self.options;
        self.known.left.set(match options.until {
            Until::Changes(n) => n,
            Until::Seconds(_) => u64::MAX,
        });
        let every_s = options.rate.map(|r| f64::from(options.producers) * options.batch_size as f64 / r);
        let pace =
            |lane| every_s.map(|s| Pace { first_s: s * f64::from(lane) / f64::from(options.producers), every_s: s });
        let producers = (0..options.producers).map(|n| self.producer(n, options.wait, options.batch_size, pace(n)));
        let mut producers: stream::FuturesUnordered<_> = producers.collect();
        let all = async { while producers.next().await.is_some() {} };
        let ended = &Cell::new(false);
        let probes = (0..options.probes).map(|n| async move {
            while !ended.get() && self.is_on(self.tally.borrow().now()) && self.probe(options.producers + n).await {}
        });
        let mut probes: stream::FuturesUnordered<_> = probes.collect();
        let probing = async { while probes.next().await.is_some() {} };
        let all = async {
            all.await;
            ended.set(true);
        };
        futures::join!(all, probing);
    }

    async fn producer(&self, lane: u32, wait: Wait, size: usize, pace: Option<Pace>) {
        let (mut last_seq, mut turn) = (None, 0);
        loop {
            let now = self.tally.borrow().now();
            let mut due = pace.map_or(now, |p| self.tally.borrow().began() + p.first_s + p.every_s * f64::from(turn));
            turn += 1;
            if !self.is_on(due) {
                return;
            }
            if due > now {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs_f64(due - now)) => {}
                    () = self.options.stop.cancelled() => return,
                }
                due = self.tally.borrow().now().min(due + TIMER_S); // so much late is the timer's doing, not the server's
            }
            let size = self.known.left.get().min(size as u64);
            if size == 0 {
                return;
            }
            self.known.left.set(self.known.left.get() - size);
            let batch = self.known.lanes[lane as usize].borrow_mut().next(&self.load, size as usize);
            if self.send(lane, batch, wait, due, &mut last_seq).await.is_none() {
                return;
            }
        }
    }

    async fn probe(&self, lane: u32) -> bool {
        let batch = self.known.lanes[lane as usize].borrow_mut().next(&self.load, 1);
        let due = self.tally.borrow().now();
        self.send(lane, batch, Wait::Published, due, &mut None).await.is_some()
    }

    /// True if the load is to go on at `now`.
    fn is_on(&self, now: f64) -> bool {
        let over = match self.options.until {
            Until::Seconds(s) => now - self.tally.borrow().began() >= s,
            Until::Changes(_) => self.known.left.get() == 0,
        };
        !over && !self.options.stop.is_cancelled()
    }

    /// Sends a batch until it is decided, and remembers what came of it; `None` if it came to nothing.
    pub async fn send(&self, lane: u32, batch: Batch, wait: Wait, due: f64, last_seq: &mut Option<u64>) -> Option<()> {
        let batch = Rc::new(batch);
        let sent = self.known.sent(lane, &batch);
        let client = self.client(lane);
        let posted = match client.post(&batch.id, wait, None, |basis| batch.body(basis)).await {
            Ok(posted) => posted,
            Err(failure) => {
                if ![error::Kind::Invalid, error::Kind::Conflict].contains(&failure.kind()) {
                    self.known.doubts.borrow_mut().push((lane, batch.steps.clone()));
                }
                self.found(Finding::new(Kind::Refused, format!("batch {}: {failure}", batch.id)));
                return None;
            }
        };
        let receipt = posted.receipt;
        if receipt.batch != batch.id {
            let message = format!("the receipt of batch {} is of {}", batch.id, receipt.batch);
            self.found(Finding::new(Kind::WrongReceipt, message));
        }
        if last_seq.is_some_and(|last| receipt.seq <= last) {
            let (id, seq, last) = (&batch.id, receipt.seq, last_seq.unwrap_or_default());
            let message = format!("batch {id} has seq {seq}, the one acknowledged before it was sent has {last}");
            self.found(Finding::new(Kind::WrongReceipt, message));
        }
        *last_seq = Some(receipt.seq);
        sent.seq.set(Some(receipt.seq));
        let acknowledged = Acknowledged { lane, number: batch.number, seq: receipt.seq };
        self.known.acknowledged.borrow_mut().push(acknowledged);
        let changes = batch.steps.len() as u64;
        self.tally.borrow_mut().committed(due, changes, receipt.seq, posted.tries);
        if self.known.last.borrow().as_ref().is_none_or(|(last, _)| receipt.seq > last.seq) {
            *self.known.last.borrow_mut() = Some((receipt.clone(), batch.clone()));
        }
        match wait {
            Wait::Committed => self.tally.borrow_mut().took(due),
            Wait::Published => self.published(client, receipt, &batch).await?,
        }
        if wait == self.options.wait {
            self.tally.borrow_mut().answered(); // no probe, whose wait would count as load
        }
        Some(())
    }

    /// Waits until a batch is published; `None` if that comes to nothing.
    async fn published(&self, client: &Client, receipt: BatchAnswer, batch: &Batch) -> Option<()> {
        let receipt = match receipt.state {
            BatchState::Published => receipt,
            _ => match client.published(receipt, |basis| batch.body(basis)).await {
                Ok(receipt) => receipt,
                Err(failure) => {
                    let message = format!("batch {} was acknowledged, then: {failure}", batch.id);
                    self.found(Finding::new(Kind::Refused, message));
                    return None;
                }
            },
        };
        if let Some(path) = receipt.not_found.first() {
            let message = format!("batch {}: there was nothing to remove at {path}, its receipt says", batch.id);
            self.found(Finding::new(Kind::WrongReceipt, message));
        }
        self.tally.borrow_mut().published(receipt.seq, receipt.checkpoint);
        Some(())
    }

    /// Waits until everything that was acknowledged is published, for at most `patience`.
    pub async fn settle(&self, patience: Duration) {
        let Some((receipt, batch)) = self.known.last.borrow_mut().take() else { return };
        let (id, seq) = (receipt.batch.clone(), receipt.seq);
        let client = self.client(0);
        if tokio::time::timeout(patience, self.published(client, receipt, &batch)).await.is_err() {
            let message = format!("batch {id} (seq {seq}) is not published after {} s", patience.as_secs());
            self.found(Finding::new(Kind::NotVisible, message));
        }
    }
}
