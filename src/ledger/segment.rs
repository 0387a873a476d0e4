//! Segments: the records of topic `changes`. JSON Lines: a header that says which batches it holds parts of, then one
//! canonical change a line.
//!
//! ```text
//!   {"batches":[{"count":2,"id":"upload-7","index":0}],"kind":"segment","partition":3,"v":1}
//!   {"hashes":{"sha256":"…"},"length":12,"op":"add","path":"a/b"}
//!   {"op":"remove","path":"a/c"}
//! ```

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::record::{decode, encode};
use crate::bins::{Layout, PartitionId};
use crate::change::{Batch, Change};
use crate::error::{Error, Result};

/// The first line of a segment.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum HeaderRecord {
    /// It is one.
    Segment(Header),
}

/// What a segment holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The partition it stands in.
    pub partition: PartitionId,
    /// Whose changes follow, in this order.
    pub batches: Vec<Part>,
}

/// A batch's share of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The batch's index in the group's Commit.
    pub index: u32,
    /// The batch's id.
    pub id: String,
    /// How many change lines it has here.
    pub count: u32,
}

/// A segment as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The partition it stands in.
    pub partition: PartitionId,
    /// Each batch's share, in order.
    pub parts: Vec<(Part, Vec<Change>)>,
}

impl Segment {
    /// Reads a segment. An error means that no intake wrote it.
    pub fn decode(bytes: &Bytes) -> Result<Segment> {
        let corrupt = |why: &str| Error::corrupt(format!("not a segment: {why}"));
        if bytes.last() != Some(&b'\n') {
            return Err(corrupt("does not end with a newline"));
        }
        let mut start = 0;
        let mut lines =
            memchr::memchr_iter(b'\n', bytes).map(|end| bytes.slice(std::mem::replace(&mut start, end + 1)..end));
        let HeaderRecord::Segment(header) = decode(&lines.next().unwrap_or_default(), &["segment"])?;
        let mut parts = Vec::with_capacity(header.batches.len());
        for part in header.batches {
            let mut changes = Vec::with_capacity((part.count as usize).min(bytes.len() / 16));
            for _ in 0..part.count {
                let line = lines.next().ok_or_else(|| corrupt("has fewer changes than its header says"))?;
                changes.push(Change::from_line(&line).map_err(|e| corrupt(&e.to_string()))?);
            }
            parts.push((part, changes));
        }
        if lines.next().is_some() {
            return Err(corrupt("has more changes than its header says"));
        }
        Ok(Segment { partition: header.partition, parts })
    }
}

/// A group of batches cut into segments.
#[derive(Debug, Default)]
pub struct Cutting {
    /// The segments, in the order in which a Commit names them: by partition, then as the changes come.
    pub segments: Vec<(PartitionId, Bytes)>,
    /// For each batch how many changes it has in each partition, by rising partition.
    pub parts: Vec<Vec<(PartitionId, u32)>>,
}

#[derive(Default)]
struct Open {
    batches: Vec<Part>,
    lines: Vec<u8>,
    header_bytes: usize,
}

impl Open {
    fn close(&mut self, partition: PartitionId) -> Bytes {
        let Open { batches, lines, .. } = std::mem::take(self);
        let mut out = encode(&HeaderRecord::Segment(Header { partition, batches })).to_vec();
        out.reserve_exact(lines.len() + 1);
        out.push(b'\n');
        out.extend_from_slice(&lines);
        out.into()
    }
}

/// Cuts a group of batches into segments of at most `max_bytes`, normally [`MAX_SEGMENT_BYTES`]; one change alone may
/// be more.
///
/// [`MAX_SEGMENT_BYTES`]: super::MAX_SEGMENT_BYTES
pub fn cut(batches: &[Batch], layout: Layout, max_bytes: usize) -> Cutting {
    let partitions = usize::from(layout.partitions());
    let mut open: Vec<Open> = (0..partitions).map(|_| Open::default()).collect();
    let mut closed: Vec<Vec<Bytes>> = vec![Vec::new(); partitions];
    let mut parts = Vec::with_capacity(batches.len());
    for (index, batch) in batches.iter().enumerate() {
        let mut counts = vec![0u32; partitions];
        for change in &batch.changes {
            let partition = layout.partition_of(layout.bin_at(change.place()));
            let p = usize::from(partition);
            counts[p] += 1;
            let part_bytes = batch.id.len() + 64;
            if !open[p].batches.is_empty()
                && open[p].header_bytes + part_bytes + open[p].lines.len() + change.line_len() > max_bytes
            {
                closed[p].push(open[p].close(partition));
            }
            let segment = &mut open[p];
            match segment.batches.last_mut() {
                Some(part) if part.index == index as u32 => part.count += 1,
                _ => {
                    segment.batches.push(Part { index: index as u32, id: batch.id.clone(), count: 1 });
                    segment.header_bytes += if segment.header_bytes == 0 { 128 + part_bytes } else { part_bytes };
                }
            }
            change.write_line(&mut segment.lines);
        }
        let touched = counts.into_iter().enumerate().filter(|(_, count)| *count > 0);
        parts.push(touched.map(|(p, count)| (p as PartitionId, count)).collect());
    }
    let mut segments = Vec::new();
    for (p, (closed, mut open)) in closed.into_iter().zip(open).enumerate() {
        let partition = p as PartitionId;
        segments.extend(closed.into_iter().map(|s| (partition, s)));
        if !open.batches.is_empty() {
            segments.push((partition, open.close(partition)));
        }
    }
    Cutting { segments, parts }
}
