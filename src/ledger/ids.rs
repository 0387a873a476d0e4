//! Which batch ids are remembered: those found valid at or above the floor.
//!
//! An id is kept as the first 16 bytes of its SHA-256, so that memory does not follow the length of ids: about 100
//! bytes each.

use std::collections::{HashMap, VecDeque};

use crate::bins::{Sha256Digest, sha256};
use crate::error::{Error, Result};
use crate::log::Offset;

type Key = [u8; 16];

/// A remembered batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The seq of the Commit in which it was valid.
    pub seq: Offset,
    /// Its content digest.
    pub digest: Sha256Digest,
}

/// The remembered ids, in the order of the ledger.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    seen: HashMap<Key, Seen>,
    order: VecDeque<(Offset, Key)>,
}

impl PartialEq for Ids {
    fn eq(&self, other: &Ids) -> bool {
        self.order == other.order && self.seen == other.seen
    }
}

fn key(id: &str) -> Key {
    let digest = sha256(id.as_bytes());
    std::array::from_fn(|i| digest[i])
}

impl Ids {
    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// True when none is.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// The batch with this id.
    pub fn get(&self, id: &str) -> Option<Seen> {
        self.seen.get(&key(id)).copied()
    }

    /// Remembers a batch found valid at `seq`, which must not be below an earlier one.
    pub fn remember(&mut self, id: &str, seq: Offset, digest: Sha256Digest) {
        self.insert(key(id), Seen { seq, digest });
    }

    fn insert(&mut self, key: Key, seen: Seen) {
        self.seen.insert(key, seen);
        self.order.push_back((seen.seq, key));
    }

    /// Forgets what lies below the floor.
    pub fn forget_below(&mut self, floor: Offset) {
        while let Some((seq, key)) = self.order.front().copied().filter(|(seq, _)| *seq < floor) {
            self.order.pop_front();
            // An id may have been remembered again since, at a higher seq.
            if self.seen.get(&key).is_some_and(|s| s.seq == seq) {
                self.seen.remove(&key);
            }
        }
    }

    /// The ids remembered at or after `from`, as lines `KEY DIGEST SEQ` (hex, hex, decimal) in ledger order.
    pub fn lines_from(&self, from: Offset) -> Vec<u8> {
        let start = self.order.partition_point(|(seq, _)| *seq < from);
        let mut out = Vec::new();
        for (seq, key) in self.order.range(start..) {
            if let Some(seen) = self.seen.get(key).filter(|s| s.seq == *seq) {
                out.extend_from_slice(format!("{} {} {seq}\n", hex::encode(key), hex::encode(seen.digest)).as_bytes());
            }
        }
        out
    }

    /// Reads what [`Ids::lines_from`] wrote, in ledger order over all calls.
    pub fn read_lines(&mut self, text: &[u8]) -> Result<()> {
        let corrupt = || Error::corrupt("stored batch ids: not lines of KEY DIGEST SEQ in rising order");
        let text = std::str::from_utf8(text).map_err(|_| corrupt())?;
        for line in text.lines() {
            let mut fields = line.split(' ');
            let (mut key, mut digest) = ([0; 16], [0; 32]);
            hex::decode_to_slice(fields.next().ok_or_else(corrupt)?, &mut key).map_err(|_| corrupt())?;
            hex::decode_to_slice(fields.next().ok_or_else(corrupt)?, &mut digest).map_err(|_| corrupt())?;
            let seq = fields.next().and_then(|s| s.parse().ok()).ok_or_else(corrupt)?;
            if fields.next().is_some() || self.order.back().is_some_and(|(last, _)| *last > seq) {
                return Err(corrupt());
            }
            self.insert(key, Seen { seq, digest });
        }
        Ok(())
    }
}
