//! What a fold says about a cut: the records of topic `folds`.
//!
//! A report is a pure function of the ledger: every fold of a partition that passes cut `n` appends the same bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MAX_SEGMENT_BYTES;
use super::record::{decode, encode};
use crate::bins::{Bin, PartitionId, Sha256Digest};
use crate::error::{Error, Result};
use crate::log::Offset;

/// One record of the folds topic.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum FoldRecord {
    /// A fold has passed a cut.
    FoldReport(FoldReport),
}

/// What one partition did at one cut. One that is too large for a record is split into numbered parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FoldReport {
    /// The cut.
    pub n: u64,
    /// The partition.
    pub partition: PartitionId,
    /// Which part of the report this is, from 0.
    pub part: u32,
    /// How many parts the report has.
    pub parts: u32,
    /// One past the highest offset of `changes` applied up to the cut.
    pub offset: Offset,
    /// The bins rendered at this cut, by rising bin. Their objects are durable.
    pub bins: Vec<RenderedBin>,
    /// The removals since the previous cut that found nothing, by rising (seq, index).
    pub absent: Vec<Absent>,
}

/// A bin that got a new version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenderedBin {
    /// The bin's index.
    pub bin: Bin,
    /// The stored file's length in bytes.
    pub length: u64,
    /// Of the stored bytes.
    #[serde(with = "hex::serde")]
    #[schemars(with = "String")]
    pub sha256: Sha256Digest,
}

/// The paths that a batch removed although they were not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Absent {
    /// The seq of the batch's Commit.
    pub seq: Offset,
    /// The batch's index in it.
    pub index: u32,
    /// In the order in which the batch names them.
    pub paths: Vec<String>,
}

impl FoldReport {
    /// Canonical JSON records of at most [`MAX_SEGMENT_BYTES`].
    pub fn encode(&self) -> Vec<Bytes> {
        // Generous for a number, two keys and their punctuation; a path or a digest adds itself.
        const BIN: usize = 128;
        const BATCH: usize = 64;
        let mut parts: Vec<FoldReport> = vec![self.empty()];
        let mut used = 256;
        let mut room = |parts: &mut Vec<FoldReport>, bytes: usize| {
            if used + bytes > MAX_SEGMENT_BYTES {
                parts.push(self.empty());
                used = 256;
            }
            used += bytes;
        };
        for bin in &self.bins {
            room(&mut parts, BIN);
            parts.last_mut().expect("never empty").bins.push(bin.clone());
        }
        for Absent { seq, index, paths } in &self.absent {
            for path in paths {
                room(&mut parts, BATCH + path.len() + 3);
                let last = &mut parts.last_mut().expect("never empty").absent;
                match last.last_mut() {
                    Some(a) if (a.seq, a.index) == (*seq, *index) => a.paths.push(path.clone()),
                    _ => last.push(Absent { seq: *seq, index: *index, paths: vec![path.clone()] }),
                }
            }
        }
        let count = parts.len() as u32;
        let numbered = parts.into_iter().enumerate().map(|(i, p)| FoldReport { part: i as u32, parts: count, ..p });
        numbered.map(|p| encode(&FoldRecord::FoldReport(p))).collect()
    }

    fn empty(&self) -> FoldReport {
        FoldReport { part: 0, parts: 1, bins: vec![], absent: vec![], ..*self }
    }

    /// One part of a report.
    pub fn decode(bytes: &[u8]) -> Result<FoldReport> {
        let FoldRecord::FoldReport(report) = decode(bytes, &["fold-report"])?;
        if report.part >= report.parts {
            return Err(Error::corrupt("not a record: fold-report: part number beyond its parts"));
        }
        Ok(report)
    }

    /// Puts the parts of one report together; `None` while some are missing.
    pub fn join(parts: &BTreeMap<u32, FoldReport>) -> Option<FoldReport> {
        let first = parts.get(&0)?;
        if parts.len() as u32 != first.parts {
            return None;
        }
        let mut whole = FoldReport { part: 0, parts: 1, bins: vec![], absent: vec![], ..*first };
        for part in parts.values() {
            whole.bins.extend(part.bins.iter().cloned());
            for a in &part.absent {
                match whole.absent.last_mut() {
                    Some(last) if (last.seq, last.index) == (a.seq, a.index) => {
                        last.paths.extend(a.paths.iter().cloned())
                    }
                    _ => whole.absent.push(a.clone()),
                }
            }
        }
        Some(whole)
    }
}
