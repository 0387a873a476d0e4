//! Checkpoints by number, place and time. The ledger has no index: it is searched, for its checkpoints stand in order.
//!
//! A late repeat of a Checkpoint may stand anywhere behind the first, but names a Cut that stands before it: the first
//! Checkpoint read from a place on whose Cut is not before that place is the valid one. So a search asks, at some
//! twenty places of a ledger of a million records, for the checkpoint that comes next.

use std::collections::VecDeque;

use super::Query;
use super::receipts::is_commit;
use crate::bins::PartitionId;
use crate::error::{Error, Result};
use crate::ledger::Record;
use crate::ledger::record::{Checkpoint, Recovery};
use crate::log::{self, Offset, Partition, Reader};
use crate::recover::{self, Anchor};

/// How much is read at first from a place on, in bytes; then more.
const FIRST_BYTES: usize = 16 << 10;
/// How much is read at most at once, in bytes.
const READ_BYTES: usize = 1 << 20;
/// How far from the ledger's end a search begins: most questions are about what is new.
const NEAR: u64 = 64;

/// A Checkpoint as it stands in the ledger. Of a Recovery, the checkpoint that it goes on from: its own may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Where it stands.
    pub at: Offset,
    /// When the log took it, in Unix milliseconds.
    pub time_ms: u64,
    /// What it says; `seq` is that of its Cut, or of the Recovery.
    pub checkpoint: Checkpoint,
}

/// What a search looks for: the first checkpoint that has come so far.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// Of at least this number.
    Number(u64),
    /// Whose Cut stands behind this seq.
    Behind(Offset),
    /// Whose Cut was made after this time, in Unix seconds.
    After(u64),
    /// That has applied this offset of a partition.
    Applied(PartitionId, Offset),
}

/// What was left behind by a Recovery: everything from the first seq up to that of the Recovery is void.
pub(super) type Void = std::ops::Range<Offset>;

/// The Checkpoint that a Recovery goes on from. Everything valid before the Recovery is in it.
fn resumed(seq: Offset, Recovery { n, snapshot, ends, .. }: Recovery) -> Checkpoint {
    Checkpoint { n, seq, snapshot, state: None, ends }
}

/// Which place of a ledger is looked at next: at first near its end, then half-way.
#[derive(Debug)]
struct Bisection {
    low: Offset,
    high: Offset,
    end: Offset,
    /// How far from the end; `None` once the goal lies before that, or all of it is near.
    near: Option<u64>,
}

impl Bisection {
    fn new(end: Offset) -> Bisection {
        Bisection { low: 0, high: end, end, near: Some(NEAR) }
    }

    /// The next place; `None` when there is none left.
    fn place(&self) -> Option<Offset> {
        let half = self.low + self.high.checked_sub(self.low)? / 2;
        let place = self.near.and_then(|back| self.end.checked_sub(back)).filter(|place| *place > self.low);
        (self.low < self.high).then(|| place.map_or(half, |place| place.min(self.high - 1)))
    }

    /// At `place` and all behind it the goal is reached.
    fn reached(&mut self, place: Offset) {
        self.high = place;
        self.near = self.near.and_then(|back| back.checked_mul(8)).filter(|back| *back < self.end);
    }

    /// Before `from` it is not.
    fn missed(&mut self, from: Offset) {
        (self.low, self.near) = (from, None);
    }
}

/// The checkpoints whose Cuts stand at a place or behind it, in their order.
pub(super) struct Checkpoints<'a> {
    voids: &'a [Void],
    from: Offset,
    reader: Box<dyn Reader>,
    bytes: usize,
    records: VecDeque<log::Record>,
}

impl Checkpoints<'_> {
    /// The next one; `None` while there is none.
    pub async fn next(&mut self) -> Result<Option<Placed>> {
        loop {
            if self.records.is_empty() {
                tokio::task::yield_now().await; // a long scan holds up nobody
                self.records = self.reader.read(self.bytes).await?.into();
                self.bytes = (self.bytes * 4).min(READ_BYTES);
            }
            let Some(r) = self.records.pop_front() else { return Ok(None) };
            if is_commit(&r.payload) || void_at(self.voids, r.offset).is_some() {
                continue;
            }
            let checkpoint = match Record::decode(&r.payload)? {
                Record::Checkpoint(c) if c.seq >= self.from => c,
                Record::Recovery(recovery) => resumed(r.offset, *recovery),
                _ => continue,
            };
            self.from = checkpoint.seq + 1;
            return Ok(Some(Placed { at: r.offset, time_ms: r.time_ms, checkpoint }));
        }
    }
}

fn void_at(voids: &[Void], seq: Offset) -> Option<&Void> {
    voids.iter().find(|void| void.contains(&seq))
}

impl Query {
    /// The checkpoints whose Cuts stand at `from` or behind it.
    pub(super) async fn checkpoints_from(&self, from: Offset) -> Result<Checkpoints<'_>> {
        let voids = self.voids().await?;
        let from = void_at(voids, from).map_or(from, |void| void.end);
        let reader = self.log.reader(Partition::Ledger, from);
        Ok(Checkpoints { voids, from, reader, bytes: FIRST_BYTES, records: VecDeque::new() })
    }

    /// The first of them.
    pub(super) async fn next_checkpoint(&self, from: Offset) -> Result<Option<Placed>> {
        self.checkpoints_from(from).await?.next().await
    }

    /// The first checkpoint that has come as far as the goal, and the one before it.
    pub(super) async fn search(&self, goal: Goal) -> Result<(Option<Placed>, Option<Placed>)> {
        let mut bisection = Bisection::new(self.log.end(Partition::Ledger).await?);
        let (mut before, mut first) = (None, None);
        while let Some(place) = bisection.place() {
            match self.next_checkpoint(place).await? {
                Some(found) if !self.has_reached(&found, goal).await? => {
                    bisection.missed(found.checkpoint.seq + 1);
                    before = Some(found);
                }
                found => {
                    bisection.reached(place);
                    first = found.or(first);
                }
            }
        }
        Ok((before, first))
    }

    /// Where to look for the last checkpoint whose Cut does not stand behind a seq: one that a Recovery has left behind
    /// may still hold the checkpoint that it goes on from.
    pub(super) async fn seq_or_recovery(&self, seq: Offset) -> Result<Offset> {
        let voids = self.voids().await?;
        Ok(void_at(voids, seq).or(void_at(voids, seq.saturating_add(1))).map_or(seq, |void| void.end))
    }

    async fn has_reached(&self, found: &Placed, goal: Goal) -> Result<bool> {
        Ok(match goal {
            Goal::Number(n) => found.checkpoint.n >= n,
            Goal::Behind(seq) => found.checkpoint.seq > seq,
            Goal::After(time) => self.cut_time(found.checkpoint.seq).await? > time,
            Goal::Applied(partition, offset) => {
                found.checkpoint.ends.get(usize::from(partition)).is_none_or(|end| *end > offset)
            }
        })
    }

    /// Checkpoint `n`, from the ledger.
    pub(super) async fn find_checkpoint(&self, n: u64) -> Result<Option<Placed>> {
        let (_, found) = self.search(Goal::Number(n)).await?;
        Ok(found.filter(|found| found.checkpoint.n == n))
    }

    /// When the Cut at a seq was made, in Unix seconds.
    pub async fn cut_time(&self, seq: Offset) -> Result<u64> {
        let record = self.log.fetch(Partition::Ledger, seq).await?;
        match record.map(|r| Record::decode(&r.payload)).transpose()? {
            Some(Record::Cut(cut)) => Ok(cut.time),
            Some(Record::Recovery(r)) => Ok(r.time), // that of its timestamp: its Cut may be lost
            _ => Err(Error::corrupt(format!("a Checkpoint names seq {seq}, where no Cut is"))),
        }
    }

    /// What the Recoveries of this ledger have left behind. None is appended while anybody works on a repository.
    pub(super) async fn voids(&self) -> Result<&[Void]> {
        if let Some(voids) = self.voids.get() {
            return Ok(voids);
        }
        let end = self.log.end(Partition::Ledger).await?;
        let recovered = match recover::last_anchor(&*self.log, end, |c| c.state.is_some()).await? {
            Some(Anchor::Checkpoint(c)) => recover::recovered_before(&*self.store, &c).await?,
            Some(Anchor::Recovery(..)) => true,
            None => end > 0, // nothing is known, and little is to be read
        };
        let recoveries = if recovered { recover::recoveries_since(&*self.log, 0).await? } else { vec![] };
        let voids = recoveries.into_iter().map(|(seq, r)| r.kept..seq).collect();
        Ok(self.voids.get_or_init(|| voids))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many places are looked at to find the goal, if a checkpoint stands at every `stride`-th place.
    fn looks(end: Offset, goal: Offset, stride: Offset) -> u32 {
        let (mut bisection, mut looks) = (Bisection::new(end), 0);
        while let Some(place) = bisection.place() {
            assert!((bisection.low..bisection.high).contains(&place));
            looks += 1;
            let found = place.div_ceil(stride).saturating_mul(stride);
            if found < goal && found < end {
                bisection.missed(found + 1);
            } else {
                bisection.reached(place);
            }
        }
        assert!(bisection.high <= goal.min(end) && (goal >= end || goal - bisection.high < stride));
        looks
    }

    #[test]
    fn the_first_checkpoints_of_any_ledger_are_found() {
        for end in (0..64).map(|bits| 1 << bits).flat_map(|end| [end - 1, end, end + 1]) {
            for goal in [0, 3, 9, 99] {
                assert!(looks(end, goal, 3) <= 90, "{goal} of {end}");
            }
        }
        assert!(looks(1_000_000, 999_990, 3) <= 8, "what is new is found soon");
    }

    proptest! {
        #[test]
        fn a_search_ends_at_its_goal(end in 0u64..3_000_000, goal in 0u64..3_000_000, stride in 1u64..500) {
            prop_assert!(looks(end, goal / stride * stride, stride) <= 40);
        }
    }
}
