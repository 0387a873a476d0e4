//! Checkpoints by number, place and time. The ledger has no index: it is searched, for its checkpoints stand in order.
//!
//! A late repeat of a Checkpoint may stand anywhere behind the first, but names a Cut that stands before it: the first
//! Checkpoint read from a place on whose Cut is not before that place is the valid one. So a search asks, at some
//! twenty places of a ledger of a million records, for the checkpoint that comes next.

use super::Query;
use super::receipts::is_commit;
use crate::bins::PartitionId;
use crate::error::{Error, Result};
use crate::ledger::Record;
use crate::ledger::record::{Checkpoint, Recovery};
use crate::log::{Offset, Partition};
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

impl Query {
    /// The first checkpoint whose Cut stands at `from` or behind it; `None` while there is none.
    pub(super) async fn next_checkpoint(&self, from: Offset) -> Result<Option<Placed>> {
        let voids = self.voids().await?;
        let void_at = |seq: Offset| voids.iter().find(|void| void.contains(&seq));
        let from = void_at(from).map_or(from, |void| void.end);
        let (mut reader, mut bytes) = (self.log.reader(Partition::Ledger, from), FIRST_BYTES);
        loop {
            let records = reader.read(bytes).await?;
            if records.is_empty() {
                return Ok(None);
            }
            bytes = (bytes * 4).min(READ_BYTES);
            for r in records.iter().filter(|r| !is_commit(&r.payload) && void_at(r.offset).is_none()) {
                let checkpoint = match Record::decode(&r.payload)? {
                    Record::Checkpoint(c) if c.seq >= from => c,
                    Record::Recovery(recovery) => resumed(r.offset, *recovery),
                    _ => continue,
                };
                return Ok(Some(Placed { at: r.offset, time_ms: r.time_ms, checkpoint }));
            }
        }
    }

    /// The first checkpoint that has come as far as the goal, and the one before it.
    pub(super) async fn search(&self, goal: Goal) -> Result<(Option<Placed>, Option<Placed>)> {
        let end = self.log.end(Partition::Ledger).await?;
        let (mut low, mut high, mut near) = (0, end, Some(NEAR));
        let (mut before, mut first) = (None, None);
        while low < high {
            let middle = match near {
                Some(back) if end - low > back => (end - back).min(high - 1),
                _ => low + (high - low) / 2,
            };
            match self.next_checkpoint(middle).await? {
                Some(found) if !self.has_reached(&found, goal).await? => {
                    (low, before, near) = (found.checkpoint.seq + 1, Some(found), None);
                }
                found => {
                    (high, near) = (middle, near.map(|back| back * 8));
                    first = found.or(first);
                }
            }
        }
        Ok((before, first))
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
