//! Segments → the changes of the valid batches of one Commit.

use bytes::Bytes;

use super::state::BatchChanges;
use crate::bins::{Layout, PartitionId};
use crate::error::{Error, Result};
use crate::ledger::segment::Segment;
use crate::log::Offset;

/// Takes from a Commit's segments, in its order, what each of the `wanted` (index, count) batches has in them.
pub fn decode(
    segments: &[Bytes],
    ids: &[String],
    wanted: &[(usize, u32)],
    layout: Layout,
    partition: PartitionId,
    seq: Offset,
) -> Result<Vec<BatchChanges>> {
    let index_of = |i: usize| wanted.iter().position(|(w, _)| *w == i);
    let mut batches: Vec<BatchChanges> =
        wanted.iter().map(|(i, _)| BatchChanges { seq, index: *i as u32, changes: vec![] }).collect();
    for bytes in segments {
        let segment = Segment::decode(bytes)?;
        for (part, changes) in segment.parts {
            if ids.get(part.index as usize) != Some(&part.id) {
                return Err(Error::corrupt(format!(
                    "a segment holds batch {:?} at an index its Commit gives to another",
                    part.id
                )));
            }
            if segment.partition != partition
                || changes.iter().any(|c| layout.partition_of(layout.bin_at(c.place())) != partition)
            {
                return Err(Error::corrupt(format!(
                    "a segment of batch {:?} holds changes of another partition",
                    part.id
                )));
            }
            if let Some(at) = index_of(part.index as usize) {
                batches[at].changes.extend(changes);
            }
        }
    }
    for (batch, (i, count)) in batches.iter().zip(wanted) {
        if batch.changes.len() != *count as usize {
            let (is, id) = (batch.changes.len(), &ids[*i]);
            return Err(Error::corrupt(format!(
                "batch {id:?} has {is} changes in its segments, its Commit says {count}"
            )));
        }
    }
    Ok(batches)
}
