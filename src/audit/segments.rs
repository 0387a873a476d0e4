//! The segments that a Commit names: checked against it and decoded.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::damage::Damage;
use super::finding::Finding;
use crate::bins::{Layout, PartitionId, sha256};
use crate::change::{Change, MAX_BATCH_CHANGES, check_id, content_digest};
use crate::fold::state::BatchChanges;
use crate::ledger::Outcome;
use crate::ledger::record::{Commit, SegmentRef};
use crate::ledger::segment::Segment;
use crate::log::Offset;

/// A Commit with its segments, still to be applied.
pub struct Gathered {
    /// Its position.
    pub seq: Offset,
    /// What it says.
    pub commit: Commit,
    /// What became of its batches.
    pub outcomes: Vec<Outcome>,
    /// The segments it names, of the partitions in which a batch that is not void has changes.
    pub segments: Vec<(SegmentRef, Bytes)>,
}

/// What a run of Commits changes in one partition.
#[derive(Default)]
pub struct Decoded {
    /// Segments decoded.
    pub segments: u64,
    /// What the valid batches change, in the order in which it applies.
    pub batches: Vec<BatchChanges>,
}

/// Why a run of Commits cannot be applied.
pub enum Bad {
    /// The segment that the Commit at a seq names has another digest.
    Astray(Offset, SegmentRef),
    /// Something else is wrong.
    Found(Box<Finding>),
}

impl From<Box<Finding>> for Bad {
    fn from(finding: Box<Finding>) -> Bad {
        Bad::Found(finding)
    }
}

/// The place of a segment, for a finding.
pub fn place(segment: &SegmentRef) -> String {
    format!("segment {} of partition {}", segment.offset, segment.partition)
}

/// Checks what a Commit says by itself, where a batch counts.
pub fn check_commit(seq: Offset, commit: &Commit, outcomes: &[Outcome]) -> std::result::Result<(), Box<Finding>> {
    let wrong =
        |what: String| Finding::new(Damage::RecordAltered, format!("ledger seq {seq}"), format!("Commit that {what}"));
    for (batch, _) in commit.batches.iter().zip(outcomes).filter(|(_, o)| **o != Outcome::Void) {
        check_id(&batch.id).map_err(|e| wrong(format!("names a batch that no intake lets through: {e}")))?;
        let count: u64 = batch.parts.iter().map(|(_, n)| u64::from(*n)).sum();
        if count > MAX_BATCH_CHANGES as u64 {
            return Err(wrong(format!("gives batch {:?} {count} changes; the limit is {MAX_BATCH_CHANGES}", batch.id)));
        }
    }
    Ok(())
}

/// Decodes and checks what a run of Commits changes in one partition.
pub fn decode(run: &[Gathered], partition: PartitionId, layout: Layout) -> std::result::Result<Decoded, Bad> {
    let mut decoded = Decoded::default();
    run.iter().try_for_each(|gathered| decode_one(gathered, partition, layout, &mut decoded))?;
    Ok(decoded)
}

/// Checks the content digest of every valid batch of a run, given what it changes in each partition. Answers how many.
pub fn check_digests(run: &[Gathered], decoded: &[Decoded]) -> std::result::Result<u64, Box<Finding>> {
    let mut changes: BTreeMap<(Offset, u32), Vec<&BatchChanges>> = BTreeMap::new();
    for batch in decoded.iter().flat_map(|d| &d.batches) {
        changes.entry((batch.seq, batch.index)).or_default().push(batch);
    }
    let mut checked = 0;
    for Gathered { seq, commit, outcomes, .. } in run {
        let batches = commit.batches.iter().zip(outcomes).enumerate();
        for (index, (batch, _)) in batches.filter(|(_, (_, o))| **o == Outcome::Valid) {
            let parts = changes.remove(&(*seq, index as u32)).unwrap_or_default();
            let found = content_digest(parts.iter().flat_map(|p| &p.changes));
            if found != batch.digest {
                let (id, is, want) = (&batch.id, hex::encode(found), hex::encode(batch.digest));
                let what = format!("Commit whose batch {id:?} has digest {want}, and {is} by its changes");
                return Err(Finding::new(Damage::RecordAltered, format!("ledger seq {seq}"), what));
            }
            checked += 1;
        }
    }
    Ok(checked)
}

/// What the valid batches of a Commit change in a partition, in the order in which they apply.
fn decode_one(
    gathered: &Gathered,
    partition: PartitionId,
    layout: Layout,
    decoded: &mut Decoded,
) -> std::result::Result<(), Bad> {
    let Gathered { seq, commit, outcomes, segments } = gathered;
    let mut changes: BTreeMap<u32, Vec<Change>> = BTreeMap::new();
    for (named, bytes) in segments.iter().filter(|(named, _)| named.partition == partition) {
        let wrong = |what: String| {
            Finding::new(Damage::RecordAltered, place(named), format!("Commit {seq} names it, and it {what}"))
        };
        if sha256(bytes) != named.digest {
            return Err(Bad::Astray(*seq, named.clone()));
        }
        let segment = Segment::decode(bytes).map_err(|e| wrong(format!("does not decode: {e}")))?;
        if segment.partition != partition {
            return Err(wrong(format!("says it is of partition {}", segment.partition)).into());
        }
        decoded.segments += 1;
        for (part, lines) in segment.parts {
            match commit.batches.get(part.index as usize) {
                Some(batch) if batch.id == part.id => {}
                _ => {
                    // Its digest is the one that the Commit says.
                    let what = format!(
                        "Commit whose {} holds batch {:?} at index {}, it does not",
                        place(named),
                        part.id,
                        part.index
                    );
                    return Err(Finding::new(Damage::RecordAltered, format!("ledger seq {seq}"), what).into());
                }
            }
            let stray = lines.iter().find(|c| layout.partition_of(layout.bin_at(c.place())) != partition);
            if let Some(stray) = stray {
                return Err(wrong(format!("holds path {:?}, which is of another partition", stray.path())).into());
            }
            changes.entry(part.index).or_default().extend(lines);
        }
    }
    for (index, (batch, outcome)) in commit.batches.iter().zip(outcomes).enumerate() {
        let changes = changes.remove(&(index as u32)).unwrap_or_default();
        let count = batch.parts.iter().find_map(|(p, n)| (*p == partition).then_some(*n)).unwrap_or(0);
        let found = changes.len() as u64;
        if *outcome != Outcome::Void && found != u64::from(count) {
            let elsewhere = found < u64::from(count) && batch.parts.len() > 1;
            let (damage, or) = match elsewhere {
                true => (Damage::SplitBatch, "; what it has in other partitions is there, or its Commit is altered"),
                false => (Damage::RecordAltered, ""),
            };
            let what = format!(
                "Commit and segments of partition {partition}: batch {:?} has {count} changes in the Commit, {found} in \
                 the segments{or}",
                batch.id
            );
            return Err(Finding::new(damage, format!("ledger seq {seq}"), what).into());
        }
        if *outcome != Outcome::Valid || changes.is_empty() {
            continue;
        }
        decoded.batches.push(BatchChanges { seq: *seq, index: index as u32, changes });
    }
    Ok(())
}
