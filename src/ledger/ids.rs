//! Which batch ids are remembered: those found valid at or above the floor.
//!
//! An id is kept as the first 16 bytes of its SHA-256, so that memory does not follow the length of ids: about 120
//! bytes each, once for all readers of a process that share a [`Table`]. What is valid is a function of the ledger, so
//! readers that stand at different places differ only in how much of one table counts for them: what lies at or above
//! a reader's floor and below the record it stands at. What it finds at that very record is its own until it goes on.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

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

/// What any number of readers of one ledger remember together.
#[derive(Clone, Debug, Default)]
pub struct Table(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    seen: HashMap<Key, Seen>,
    /// The rest: an id may be valid again once it is forgotten, and a reader that is behind still needs the first.
    again: BTreeMap<(Key, Offset), Sha256Digest>,
    /// In the order of the ledger.
    order: VecDeque<(Offset, Key)>,
    /// The floors of those who read.
    floors: Vec<Weak<AtomicU64>>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Adds what a reader found, unless another did before.
    fn add(&mut self, key: Key, seen: Seen) {
        if self.get(key, seen.seq..seen.seq + 1).is_some() {
            return;
        }
        match self.seen.entry(key) {
            Entry::Vacant(free) => drop(free.insert(seen)),
            Entry::Occupied(_) => drop(self.again.insert((key, seen.seq), seen.digest)),
        }
        // Behind what is there, but for a reader that is so far behind that the others have forgotten it.
        let at = match self.order.back() {
            Some((last, _)) if *last > seen.seq => self.order.partition_point(|(seq, _)| *seq <= seen.seq),
            _ => self.order.len(),
        };
        self.order.insert(at, (seen.seq, key));
    }

    /// Forgets what lies below every floor.
    fn trim(&mut self) {
        self.floors.retain(|floor| floor.strong_count() > 0);
        let floors = self.floors.iter().filter_map(Weak::upgrade).map(|floor| floor.load(Ordering::Relaxed));
        let floor = floors.min().unwrap_or(Offset::MAX);
        while let Some((seq, key)) = self.order.front().copied().filter(|(seq, _)| *seq < floor) {
            self.order.pop_front();
            match self.seen.entry(key) {
                Entry::Occupied(taken) if taken.get().seq == seq => drop(taken.remove()),
                _ => drop(self.again.remove(&(key, seq))),
            }
        }
    }

    /// The batch with this id that was valid last at a seq within.
    fn get(&self, key: Key, within: Range<Offset>) -> Option<Seen> {
        match self.seen.get(&key) {
            Some(seen) if within.contains(&seen.seq) => Some(*seen),
            _ if self.again.is_empty() => None,
            _ => {
                let (&(_, seq), &digest) = self.again.range((key, within.start)..(key, within.end)).next_back()?;
                Some(Seen { seq, digest })
            }
        }
    }
}

/// The ids that one reader remembers.
#[derive(Debug, Default)]
pub struct Ids {
    table: Table,
    floor: Arc<AtomicU64>,
    /// The record it stands at.
    at: Offset,
    /// What it found there, in order.
    here: Vec<Key>,
    found: HashMap<Key, Seen>,
}

impl PartialEq for Ids {
    fn eq(&self, other: &Ids) -> bool {
        self.lines_from(0) == other.lines_from(0)
    }
}

/// A clone has a table of its own, for it may come to read another ledger.
impl Clone for Ids {
    fn clone(&self) -> Ids {
        let mut own = Ids::default();
        self.visit(0, |key, seen| own.remember_key(key, seen));
        own.floor.store(self.floor(), Ordering::Relaxed);
        if own.at != self.at {
            own.stand_at(self.at, self.floor());
        }
        own
    }
}

fn key(id: &str) -> Key {
    let digest = sha256(id.as_bytes());
    std::array::from_fn(|i| digest[i])
}

impl Ids {
    fn floor(&self) -> Offset {
        self.floor.load(Ordering::Relaxed)
    }

    /// Remembers in a table that others of the same ledger share, from now on.
    pub fn share(&mut self, table: &Table) {
        let mut known = Vec::new();
        self.visit_settled(0, |key, seen| known.push((key, seen)));
        let mut entries = table.lock();
        entries.floors.push(Arc::downgrade(&self.floor));
        known.into_iter().for_each(|(key, seen)| entries.add(key, seen));
        drop(entries);
        self.table = table.clone();
    }

    /// Goes on to the record at `seq`, and forgets what lies below the floor.
    pub fn stand_at(&mut self, seq: Offset, floor: Offset) {
        if self.here.is_empty() && floor == self.floor() {
            self.at = seq;
            return;
        }
        self.settle();
        self.at = seq;
        self.floor.store(floor, Ordering::Relaxed);
        self.table.lock().trim();
    }

    /// Gives to the table what was found where it stands.
    fn settle(&mut self) {
        let mut entries = self.table.lock();
        if entries.floors.is_empty() {
            entries.floors.push(Arc::downgrade(&self.floor));
        }
        for key in self.here.drain(..) {
            if let Some(seen) = self.found.remove(&key) {
                entries.add(key, seen);
            }
        }
    }

    /// The batch with this id.
    pub fn get(&self, id: &str) -> Option<Seen> {
        let key = key(id);
        if let Some(seen) = self.found.get(&key) {
            return Some(*seen);
        }
        let floor = self.floor();
        self.table.lock().get(key, floor..self.at.max(floor))
    }

    /// Remembers a batch found valid at `seq`, where it stands.
    pub fn remember(&mut self, id: &str, seq: Offset, digest: Sha256Digest) {
        self.remember_key(key(id), Seen { seq, digest });
    }

    fn remember_key(&mut self, key: Key, seen: Seen) {
        if seen.seq != self.at {
            self.settle();
            self.at = seen.seq;
        }
        self.here.push(key);
        self.found.insert(key, seen);
    }

    /// Calls `each` with what is remembered at or after `from`, in ledger order.
    fn visit(&self, from: Offset, mut each: impl FnMut(Key, Seen)) {
        self.visit_settled(from, &mut each);
        let here = self.here.iter().filter_map(|key| self.found.get_key_value(key));
        here.filter(|(_, seen)| seen.seq >= from).for_each(|(key, seen)| each(*key, *seen));
    }

    /// The same without what was found where it stands.
    fn visit_settled(&self, from: Offset, mut each: impl FnMut(Key, Seen)) {
        let from = from.max(self.floor());
        let entries = self.table.lock();
        let start = entries.order.partition_point(|(seq, _)| *seq < from);
        for (seq, key) in entries.order.range(start..).take_while(|(seq, _)| *seq < self.at) {
            if let Some(seen) = entries.get(*key, *seq..seq + 1) {
                each(*key, seen);
            }
        }
    }

    /// The ids remembered at or after `from`, as lines `KEY DIGEST SEQ` (hex, hex, decimal) in ledger order.
    pub fn lines_from(&self, from: Offset) -> Vec<u8> {
        let mut out = Vec::new();
        self.visit(from, |key, seen| {
            let (key, digest) = (hex::encode(key), hex::encode(seen.digest));
            out.extend_from_slice(format!("{key} {digest} {}\n", seen.seq).as_bytes());
        });
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
            if fields.next().is_some() || seq < self.at {
                return Err(corrupt());
            }
            self.remember_key(key, Seen { seq, digest });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a reader alone remembers: (id, seq) by id, as a plain map.
    #[derive(Clone, Default)]
    struct Model(BTreeMap<u8, Seen>);

    impl Model {
        fn read(&mut self, seq: Offset, floor: Offset, ids: &[u8]) {
            self.0.retain(|_, seen| seen.seq >= floor);
            for id in ids {
                self.0.entry(*id).or_insert(Seen { seq, digest: [*id ^ seq as u8; 32] });
            }
        }
    }

    fn read(ids: &mut Ids, seq: Offset, floor: Offset, batches: &[u8]) {
        ids.stand_at(seq, floor);
        for id in batches {
            if ids.get(&id.to_string()).is_none() {
                ids.remember(&id.to_string(), seq, [*id ^ seq as u8; 32]);
            }
        }
    }

    proptest! {
        /// Readers go on in any order, join late, and end: each remembers what it would remember alone.
        #[test]
        fn a_table_that_is_shared_is_a_table_of_ones_own(
            ledger in proptest::collection::vec(proptest::collection::vec(0u8..12, 0..5), 1..40),
            horizon in 0u64..12, turns in proptest::collection::vec((0usize..4, 1usize..8), 1..60),
            joins in proptest::collection::vec(0usize..40, 4),
        ) {
            let table = Table::default();
            let mut readers: Vec<(Ids, Model, usize)> = (0..4).map(|_| Default::default()).collect();
            for (turn, (who, steps)) in turns.into_iter().enumerate() {
                for _ in 0..steps {
                    let (ids, model, next) = &mut readers[who];
                    let Some(batches) = ledger.get(*next) else { break };
                    let seq = *next as u64;
                    if joins[who] == *next {
                        ids.share(&table);
                    }
                    read(ids, seq, seq.saturating_sub(horizon), batches);
                    model.read(seq, seq.saturating_sub(horizon), batches);
                    *next += 1;
                    for id in 0..12u8 {
                        prop_assert_eq!(ids.get(&id.to_string()), model.0.get(&id).copied(), "reader {} at {}", who, seq);
                    }
                    let lines = String::from_utf8(ids.lines_from(0)).unwrap();
                    prop_assert_eq!(lines.lines().count(), model.0.len());
                    let mut again = Ids::default();
                    again.read_lines(lines.as_bytes()).unwrap();
                    prop_assert_eq!(&again, &*ids);
                    prop_assert_eq!(&ids.clone(), &*ids);
                }
                if turn == 30 {
                    readers[3] = Default::default(); // it ends, and begins anew
                }
            }
            let least = readers.iter().map(|(ids, ..)| ids.floor()).min().unwrap_or_default();
            drop(readers.split_off(1));
            readers[0].0.stand_at(1_000, 1_000);
            prop_assert_eq!(readers[0].0.table.lock().order.len(), 0, "least floor was {}", least);
        }
    }
}
