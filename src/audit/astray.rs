//! Segments that are not where, or not what, their Commit says: which of the kinds of damage it is.
//!
//! Whether a segment is altered, gone or elsewhere shows by its neighbours: the one that the Commit names may stand
//! nearby, and what stands in its place may be another's.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::damage::Damage;
use super::finding::{Finding, Value};
use super::replay::Replay;
use super::segments;
use crate::bins::{PartitionId, sha256};
use crate::error::Result;
use crate::ledger::Outcome;
use crate::ledger::record::{Commit, SegmentRef};
use crate::ledger::segment::Segment;
use crate::log::{Offset, Partition};

/// How far from its place a segment is looked for, in offsets.
const REACH: u64 = 64;

impl Replay<'_> {
    /// What became of a segment that is not there, or has another digest than the Commit at `seq` says.
    pub(super) async fn astray(
        &self,
        seq: Offset,
        commit: &Commit,
        outcomes: &[Outcome],
        named: &SegmentRef,
        found: Option<&Bytes>,
    ) -> Result<Box<Finding>> {
        let (of, at, place) = (Partition::Changes(named.partition), named.offset, segments::place(named));
        let names = format!("Commit {seq} names it, with sha256 {}", hex::encode(named.digest));
        let (mut elsewhere, mut repeated) = (None, None);
        for offset in at.saturating_sub(REACH)..=at + REACH {
            let Some(r) = self.log.fetch(of, offset).await?.filter(|_| offset != at) else { continue };
            if sha256(&r.payload) == named.digest {
                elsewhere = elsewhere.or(Some(offset));
            } else if offset < at && found == Some(&r.payload) {
                repeated = Some(offset);
            }
        }
        let finding = |damage, what: String| {
            let values = |f: Box<Finding>, bytes: &Bytes| {
                let expected = Value::stated(None, bytes.len() as u64, &named.digest);
                f.values(Some(expected), Some(Value::of(bytes)))
            };
            let finding = Finding::new(damage, &place, what);
            Ok(if damage == Damage::RecordAltered {
                found.map_or(finding.clone(), |b| values(finding, b))
            } else {
                finding
            })
        };
        if let (Some(first), Some(_)) = (repeated, found) {
            let own = elsewhere.map_or(String::new(), |own| format!(", and its own stands at {own}"));
            return finding(Damage::RecordDuplicated, format!("{names}; the same bytes as at {first} stand here{own}"));
        }
        match elsewhere {
            Some(own) if own < at => {
                let what = format!("{names}, and it stands at {own}: what stood between is gone, or stands elsewhere");
                return finding(Damage::RecordDropped, what);
            }
            Some(own) => {
                let what = format!(
                    "{names}, and it stands at {own}: the order is another, one was put in, or the Commit is altered"
                );
                return finding(Damage::RecordReordered, what);
            }
            None => {}
        }
        if found.is_some_and(|bytes| is_of(commit, bytes)) {
            return finding(Damage::RecordAltered, format!("{names}, and it has another digest than its Commit says"));
        }
        let instead = if found.is_some() { "; another segment stands in its place" } else { "" };
        match self.whole_elsewhere(commit, outcomes, named.partition).await? {
            Some(id) => {
                let what = format!("{names}{instead}: what batch {id:?} has in other partitions is there");
                finding(Damage::SplitBatch, what)
            }
            None => finding(Damage::RecordDropped, format!("{names}{instead}")),
        }
    }

    /// A batch that counts and has changes in a partition, and in another one whose segments are all there.
    async fn whole_elsewhere(
        &self,
        commit: &Commit,
        outcomes: &[Outcome],
        partition: PartitionId,
    ) -> Result<Option<String>> {
        let mut lacking = BTreeSet::from([partition]);
        for s in commit.segments.iter().filter(|s| s.partition != partition) {
            let found = self.log.fetch(Partition::Changes(s.partition), s.offset).await?;
            if found.is_none_or(|r| sha256(&r.payload) != s.digest) {
                lacking.insert(s.partition);
            }
        }
        let split = commit.batches.iter().zip(outcomes).find(|(batch, outcome)| {
            let here = batch.parts.iter().any(|(p, _)| *p == partition);
            **outcome != Outcome::Void && here && batch.parts.iter().any(|(p, _)| !lacking.contains(p))
        });
        Ok(split.map(|(batch, _)| batch.id.clone()))
    }
}

/// False if bytes are a segment that has nothing of any batch of a Commit.
fn is_of(commit: &Commit, bytes: &Bytes) -> bool {
    let Ok(segment) = Segment::decode(bytes) else { return true };
    segment.parts.iter().any(|(part, _)| commit.batches.iter().any(|batch| batch.id == part.id))
}
