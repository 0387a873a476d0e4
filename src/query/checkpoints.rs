//! The checkpoints: a page of them, and one in full: what it waited for and how long each of its stages took.
//!
//! Durations are differences between the times at which the log took records, by its own clock.

use std::collections::{BTreeMap, BTreeSet};

use super::receipts::is_commit;
use super::timeline::{Checkpoints, Goal, Placed};
use super::{
    CheckpointAnswer, CheckpointDetail, CheckpointsAnswer, ObjectAnswer, PartitionCut, Query, READ_BYTES, Stages,
    TimestampAnswer,
};
use crate::error::Result;
use crate::ledger::record::Commit;
use crate::ledger::{Event, Outcome, Record};
use crate::log::{Offset, Partition};
use crate::store;
use crate::tuf::parse::Timestamp;

impl Query {
    /// The published checkpoints below `before`, newest first, at most `limit`.
    pub async fn checkpoints(&self, before: Option<u64>, limit: usize) -> Result<CheckpointsAnswer> {
        let Some(timestamp) = self.timestamp().await? else {
            return Ok(CheckpointsAnswer { checkpoints: vec![], before: None });
        };
        let high = before.unwrap_or(u64::MAX).min(timestamp.snapshot.version + 1);
        let mut found: BTreeMap<u64, Placed> = BTreeMap::new();
        // A Recovery leaves numbers out: where there are too few, those before them are looked for.
        let mut low = high;
        while found.len() < limit && low > 1 {
            let first = low.saturating_sub((limit - found.len()) as u64).max(1);
            let mut next = self.search(Goal::Number(first)).await?.1;
            let mut behind: Option<Checkpoints<'_>> = None;
            while let Some(placed) = next.filter(|placed| placed.checkpoint.n < low) {
                let checkpoints = match &mut behind {
                    Some(checkpoints) => checkpoints,
                    None => behind.insert(self.checkpoints_from(placed.checkpoint.seq + 1).await?),
                };
                next = checkpoints.next().await?;
                found.insert(placed.checkpoint.n, placed);
            }
            low = first;
        }
        let mut checkpoints = Vec::new();
        for placed in found.values().rev() {
            checkpoints.push(self.describe(placed, &timestamp).await?);
        }
        let before = checkpoints.last().map(|c| c.n).filter(|n| *n > 1);
        Ok(CheckpointsAnswer { checkpoints, before })
    }

    /// A published checkpoint in full; `None` when there is none of this number.
    pub async fn checkpoint(&self, n: u64) -> Result<Option<CheckpointAnswer>> {
        let Some(timestamp) = self.timestamp().await?.filter(|t| (1..=t.snapshot.version).contains(&n)) else {
            return Ok(None);
        };
        let (previous, found) = self.search(Goal::Number(n)).await?;
        let Some(found) = found.filter(|found| found.checkpoint.n == n) else { return Ok(None) };
        let mut answer = self.describe(&found, &timestamp).await?;
        answer.detail = self.detail(previous, &found).await?;
        Ok(Some(answer))
    }

    /// How many ledger positions the newest Commit is ahead of the published Cut at `seq`; 0 when nothing that is
    /// committed waits. Of a long tail all is counted, without reading it.
    pub async fn behind(&self, seq: Offset) -> Result<u64> {
        let end = self.log.end(Partition::Ledger).await?;
        let tail = self.log.reader(Partition::Ledger, seq).read(READ_BYTES).await?;
        let last = match tail.last() {
            Some(r) if r.offset + 1 < end => end - 1,
            _ => tail.iter().rev().find(|r| is_commit(&r.payload)).map_or(seq, |r| r.offset),
        };
        Ok(last.saturating_sub(seq))
    }

    async fn describe(&self, placed: &Placed, timestamp: &Timestamp) -> Result<CheckpointAnswer> {
        let c = &placed.checkpoint;
        let snapshot = ObjectAnswer {
            name: store::metadata_name(c.n, "snapshot"),
            length: c.snapshot.length,
            sha256: hex::encode(c.snapshot.sha256),
        };
        let newest = c.n == timestamp.snapshot.version;
        let stamp = TimestampAnswer { version: timestamp.version, expires: timestamp.expires };
        Ok(CheckpointAnswer {
            n: c.n,
            seq: c.seq,
            time: self.cut_time(c.seq).await?,
            snapshot,
            ends: c.ends.clone(),
            ledger_state: c.state.as_ref().map(|_| store::ledger_state_name(c.n)),
            timestamp: newest.then_some(stamp),
            detail: None,
        })
    }

    /// What a checkpoint came of; `None` for one that a Recovery has left, whose records may be lost.
    async fn detail(&self, previous: Option<Placed>, of: &Placed) -> Result<Option<CheckpointDetail>> {
        let c = &of.checkpoint;
        let from = previous.as_ref().map_or(0, |p| p.checkpoint.seq + 1);
        let mut walk = self.walk_between(from, c.seq + 1).await?;
        let (mut batches, mut changes, mut parts) = (0, 0, BTreeMap::new());
        let (mut first_ms, mut cut_ms) = (None, None);
        let mut open = None;
        while walk.state.next <= c.seq {
            let Some(entry) = walk.next().await? else { break };
            match (entry.record, entry.event) {
                (Record::Commit(Commit { batches: named, .. }), Event::Commit(outcomes)) => {
                    for (batch, _) in named.iter().zip(outcomes).filter(|(_, o)| *o == Outcome::Valid) {
                        first_ms.get_or_insert(entry.time_ms);
                        batches += 1;
                        for (partition, count) in &batch.parts {
                            changes += u64::from(*count);
                            *parts.entry(*partition).or_insert(0) += u64::from(*count);
                        }
                    }
                }
                (Record::Cut(_), Event::Cut) if entry.seq == c.seq => {
                    (open, cut_ms) = (walk.state.open.clone(), Some(entry.time_ms));
                }
                _ => {}
            }
        }
        let (Some(open), Some(cut_ms)) = (open, cut_ms) else { return Ok(None) };
        let waited: BTreeSet<_> = open.wait.iter().copied().collect();
        let reports = self.reports(c.n, open.folds_from, &waited).await?;
        let mut partitions = Vec::new();
        for (partition, end) in (0..).zip(&c.ends) {
            let report = reports.get(&partition);
            let before = previous.as_ref().and_then(|p| p.checkpoint.ends.get(usize::from(partition)).copied());
            partitions.push(PartitionCut {
                partition,
                from: before.unwrap_or(0),
                end: *end,
                changes: parts.get(&partition).copied().unwrap_or(0),
                bins: report.map_or(0, |r| r.report.bins.len() as u64),
                bytes: report.map_or(0, |r| r.report.bins.iter().map(|b| b.length).sum()),
                reported_ms: report.map(|r| r.time_ms.saturating_sub(cut_ms)),
            });
        }
        let last = reports.values().max_by_key(|r| r.offset);
        let folded_ms = last.map_or(cut_ms, |r| r.time_ms).max(cut_ms);
        let layout = self.layout().await?;
        let mut bins: Vec<String> =
            reports.values().flat_map(|r| r.report.bins.iter().map(|b| layout.name(b.bin))).collect();
        bins.sort_unstable();
        Ok(Some(CheckpointDetail {
            previous: previous.map(|p| p.checkpoint.n),
            checkpoint_seq: of.at,
            batches,
            changes,
            all_bins: open.all,
            targets_json: open.targets,
            waited_for: last.map(|r| r.report.partition),
            partitions,
            bins,
            stages: Stages {
                gathered_ms: first_ms.map_or(0, |first| cut_ms.saturating_sub(first)),
                folded_ms: folded_ms - cut_ms,
                sealed_ms: of.time_ms.saturating_sub(folded_ms),
            },
        }))
    }
}
