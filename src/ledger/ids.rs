//! Which batch ids are remembered: those found valid at or above the floor.
//!
//! An id is kept as the first 16 bytes of its SHA-256, so that memory does not follow the length of ids: about 150
//! bytes each, once for all readers of a process that share a [`Table`]. What is valid is a function of the ledger, so
//! readers that stand at different places differ only in how much of one table counts for them: what lies at or above
//! a reader's floor and below the record it stands at. What it finds at that very record is its own until it goes on.
//! What counts for nobody is forgotten, so a reader that stands still costs no more than its own horizon.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// Some ids: whoever asks about no others need not remember the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Only {
    keys: Arc<HashSet<Key>>,
    /// They, as they stand in what is stored.
    lines: Arc<HashSet<[u8; 32]>>,
}

impl<'a> FromIterator<&'a str> for Only {
    fn from_iter<T: IntoIterator<Item = &'a str>>(ids: T) -> Only {
        let keys: HashSet<Key> = ids.into_iter().map(key).collect();
        let line = |key: &Key| {
            let mut line = [0; 32];
            hex::encode_to_slice(key, &mut line).map(|()| line).ok() // which has just the room it takes
        };
        Only { lines: Arc::new(keys.iter().filter_map(line).collect()), keys: Arc::new(keys) }
    }
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
    order: BTreeMap<Offset, Vec<Key>>,
    /// Of those who read.
    windows: Vec<Arc<Window>>,
}

/// What of a table counts for a reader.
#[derive(Debug, Default)]
struct Window {
    /// What lies below it is forgotten.
    floor: AtomicU64,
    /// The record it stands at: what was found there and later is not settled.
    at: AtomicU64,
}

impl Window {
    fn range(&self) -> Range<Offset> {
        let floor = self.floor.load(Ordering::Relaxed);
        floor..self.at.load(Ordering::Relaxed).max(floor)
    }
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
        self.order.entry(seen.seq).or_default().push(key);
    }

    /// Forgets what a reader needs no more and no other one needs. A reader that is behind needs nothing from where it
    /// stands on: it adds that again when it comes there.
    fn forget(&mut self, left: Range<Offset>) {
        if left.is_empty() {
            return;
        }
        let windows: Vec<Range<Offset>> = self.windows.iter().map(|w| w.range()).collect();
        let seqs: Vec<Offset> = self.order.range(left).map(|(seq, _)| *seq).collect();
        for seq in seqs.into_iter().filter(|seq| !windows.iter().any(|w| w.contains(seq))) {
            for key in self.order.remove(&seq).unwrap_or_default() {
                match self.seen.entry(key) {
                    Entry::Occupied(taken) if taken.get().seq == seq => drop(taken.remove()),
                    _ => drop(self.again.remove(&(key, seq))),
                }
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
#[derive(Debug)]
pub struct Ids {
    table: Table,
    window: Arc<Window>,
    /// What it found at the record where it stands, in order.
    here: Vec<Key>,
    found: HashMap<Key, Seen>,
    /// If it is asked about these alone.
    only: Option<Only>,
}

impl Default for Ids {
    fn default() -> Ids {
        let (table, window, here, found) = Default::default();
        let ids = Ids { table, window, here, found, only: None };
        ids.table.lock().windows.push(ids.window.clone());
        ids
    }
}

impl Drop for Ids {
    fn drop(&mut self) {
        self.leave();
    }
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
        own.only.clone_from(&self.only);
        self.visit(0).into_iter().for_each(|(key, seen)| own.remember_key(key, seen));
        own.window.floor.store(self.window.range().start, Ordering::Relaxed);
        if own.at() != self.at() {
            own.stand_at(self.at(), self.window.range().start);
        }
        own
    }
}

fn key(id: &str) -> Key {
    let digest = sha256(id.as_bytes());
    std::array::from_fn(|i| digest[i])
}

impl Ids {
    fn at(&self) -> Offset {
        self.window.at.load(Ordering::Relaxed)
    }

    /// Remembers none but these, from now on. What it says of the others counts no more.
    pub fn limit_to(&mut self, only: &Only) {
        self.only = Some(only.clone());
    }

    /// Whether it remembers some ids only.
    pub fn is_limited(&self) -> bool {
        self.only.is_some()
    }

    /// Remembers in a table that others of the same ledger share, from now on.
    pub fn share(&mut self, table: &Table) {
        let known = self.settled(0);
        self.leave();
        let mut entries = table.lock();
        entries.windows.push(self.window.clone());
        known.into_iter().for_each(|(key, seen)| entries.add(key, seen));
        drop(entries);
        self.table = table.clone();
    }

    /// Another reader that stands at the same place, on the same table.
    pub fn another(&self) -> Ids {
        let Range { start: floor, .. } = self.window.range();
        let window = Arc::new(Window { floor: floor.into(), at: self.at().into() });
        self.table.lock().windows.push(window.clone());
        Ids {
            table: self.table.clone(),
            window,
            here: self.here.clone(),
            found: self.found.clone(),
            only: self.only.clone(),
        }
    }

    fn leave(&self) {
        let mut entries = self.table.lock();
        entries.windows.retain(|w| !Arc::ptr_eq(w, &self.window));
        entries.forget(self.window.range());
    }

    /// Goes on to the record at `seq`, and forgets what lies below the floor.
    pub fn stand_at(&mut self, seq: Offset, floor: Offset) {
        let was = self.window.range();
        if self.here.is_empty() && floor == was.start {
            return self.window.at.store(seq, Ordering::Relaxed);
        }
        let mut entries = self.table.lock();
        for key in self.here.drain(..) {
            if let Some(seen) = self.found.remove(&key) {
                entries.add(key, seen);
            }
        }
        // Under the same lock: what was added is not to be forgotten before it counts.
        self.window.at.store(seq, Ordering::Relaxed);
        self.window.floor.store(floor, Ordering::Relaxed);
        entries.forget(was.start..floor.max(was.start));
    }

    /// The batch with this id.
    pub fn get(&self, id: &str) -> Option<Seen> {
        let key = key(id);
        match self.found.get(&key) {
            Some(seen) => Some(*seen),
            None => self.table.lock().get(key, self.window.range()),
        }
    }

    /// Remembers a batch found valid at `seq`, where it stands.
    pub fn remember(&mut self, id: &str, seq: Offset, digest: Sha256Digest) {
        self.remember_key(key(id), Seen { seq, digest });
    }

    fn remember_key(&mut self, key: Key, seen: Seen) {
        if self.only.as_ref().is_some_and(|only| !only.keys.contains(&key)) {
            return;
        }
        if seen.seq != self.at() {
            self.stand_at(seen.seq, self.window.range().start);
        }
        self.here.push(key);
        self.found.insert(key, seen);
    }

    /// What is remembered at or after `from`, in ledger order.
    fn visit(&self, from: Offset) -> Vec<(Key, Seen)> {
        let mut all = self.settled(from);
        let here = self.here.iter().filter_map(|key| Some((*key, *self.found.get(key)?)));
        all.extend(here.filter(|(_, seen)| seen.seq >= from));
        all
    }

    /// The same without what was found where it stands.
    fn settled(&self, from: Offset) -> Vec<(Key, Seen)> {
        let window = self.window.range();
        let entries = self.table.lock();
        let within = entries.order.range(from.clamp(window.start, window.end)..window.end);
        let each = within.flat_map(|(seq, keys)| keys.iter().map(move |key| (*seq, *key)));
        each.filter_map(|(seq, key)| Some((key, entries.get(key, seq..seq + 1)?))).collect()
    }

    /// The ids remembered at or after `from`, as lines `KEY DIGEST SEQ` (hex, hex, decimal) in ledger order.
    pub fn lines_from(&self, from: Offset) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, seen) in self.visit(from) {
            let (key, digest) = (hex::encode(key), hex::encode(seen.digest));
            out.extend_from_slice(format!("{key} {digest} {}\n", seen.seq).as_bytes());
        }
        out
    }

    /// Reads what [`Ids::lines_from`] wrote, in ledger order over all calls.
    pub fn read_lines(&mut self, text: &[u8]) -> Result<()> {
        let corrupt = || Error::corrupt("stored batch ids: not lines of KEY DIGEST SEQ in rising order");
        let text = std::str::from_utf8(text).map_err(|_| corrupt())?;
        for line in text.lines() {
            let key_of = |line: &str| line.as_bytes().first_chunk().copied();
            if self.only.as_ref().is_some_and(|only| key_of(line).is_some_and(|key| !only.lines.contains(&key))) {
                continue;
            }
            let mut fields = line.split(' ');
            let (mut key, mut digest) = ([0; 16], [0; 32]);
            hex::decode_to_slice(fields.next().ok_or_else(corrupt)?, &mut key).map_err(|_| corrupt())?;
            hex::decode_to_slice(fields.next().ok_or_else(corrupt)?, &mut digest).map_err(|_| corrupt())?;
            let seq = fields.next().and_then(|s| s.parse().ok()).ok_or_else(corrupt)?;
            if fields.next().is_some() || seq < self.at() {
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
                    prop_assert_eq!(&ids.another(), &*ids);
                    if seq % 5 == 4 {
                        *ids = ids.another(); // and it goes on as well
                    }
                }
                if turn == 30 {
                    readers[3] = Default::default(); // it ends, and begins anew
                }
            }
            let needed = |seq: &u64| {
                let shares = |ids: &Ids| Arc::ptr_eq(&ids.table.0, &table.0);
                readers.iter().any(|(ids, ..)| shares(ids) && ids.window.range().contains(seq))
            };
            let entries = table.lock();
            prop_assert!(entries.order.keys().all(needed), "what nobody needs is forgotten");
            prop_assert_eq!(entries.order.values().map(Vec::len).sum::<usize>(), entries.seen.len() + entries.again.len());
            drop(entries);
            drop(readers);
            prop_assert!(table.lock().seen.is_empty() && table.lock().order.is_empty());
        }
    }
}
