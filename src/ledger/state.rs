//! What the ledger folds to: record × state → event, state.
//!
//! Everybody who reads the ledger holds one of these, and all that have read the same prefix hold equal ones. A record
//! that does not follow from its predecessor is void: it changes nothing but the position, for every reader alike.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::ids::{Ids, Seen};
use super::inbox::Inbox;
use super::record::{BatchRef, Checkpoint, Commit, Cut, Format, ObjectRef, Record, Renew, Settings, StateRef};
use super::{EPOCH, slots};
use crate::bins::{Layout, PartitionId, Sha256Digest};
use crate::error::{Error, Result};
use crate::log::Offset;
use crate::tuf::root::Root;

/// A root with its published bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedRoot {
    /// Parsed.
    pub root: Root,
    /// The whole of `N.root.json`.
    pub document: String,
}

/// What became of a batch at its Commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It applies at this seq.
    Valid,
    /// It is the batch that was valid at `first`: nothing applies again.
    Duplicate {
        /// The seq of the valid one.
        first: Offset,
    },
    /// Its id stands for other content since `first`: it does not apply.
    Conflict {
        /// The seq of the valid one.
        first: Offset,
    },
    /// Its inbox record was sequenced before, whatever came of it then: nothing applies again.
    Repeated,
    /// A late, early or malformed append: it does not apply anywhere.
    Void,
}

/// What a record did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The outcome of each batch of the Commit.
    Commit(Vec<Outcome>),
    /// [`State::open`] is a new cut.
    Cut,
    /// Cut `n` has its checkpoint.
    Checkpoint(u64),
    /// The timestamp is renewed.
    Renew,
    /// Layout, settings or root changed.
    Changed,
    /// Nothing: the record is void.
    Void,
}

/// A cut that has no Checkpoint yet.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenCut {
    /// Its number: the version of everything it publishes.
    pub n: u64,
    /// Its seq: the cut is of the ledger up to here.
    pub seq: Offset,
    /// Its time, in Unix seconds: expiry counts from here.
    pub time: u64,
    /// The time of the previous cut: renewal slots after it, up to `time`, are due.
    pub previous_time: u64,
    /// True when every bin is rendered: at the first cut and when keys or settings changed.
    pub all: bool,
    /// True when targets.json is rendered.
    pub targets: bool,
    /// The partitions that report.
    pub wait: BTreeSet<PartitionId>,
    /// Where in `folds` its reports begin.
    pub folds_from: Offset,
    /// Per partition one past the highest offset applied up to the cut.
    pub ends: Vec<Offset>,
    /// The root whose keys sign it.
    pub root: Arc<SignedRoot>,
    /// The roots that are new since the previous cut: published before the timestamp moves.
    pub new_roots: Vec<Arc<SignedRoot>>,
    /// The settings in force at it.
    pub settings: Settings,
}

/// What timestamp.json says, but for its signature.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamp {
    /// How many valid Checkpoint and Renew records there were.
    pub version: u64,
    /// The checkpoint it points to.
    pub n: u64,
    /// That checkpoint's snapshot.
    pub snapshot: ObjectRef,
    /// Unix seconds: the time in force when it was made.
    pub time: u64,
    /// Unix seconds.
    pub expires: u64,
    /// The root whose keys sign it: those of the checkpoint.
    pub root: Arc<SignedRoot>,
}

/// A stored part of the remembered ids.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdsChunk {
    /// The cut that wrote it.
    pub n: u64,
    /// It holds the ids remembered up to this seq, from the chunk before on.
    pub upto: Offset,
    /// Of the stored object.
    #[serde(with = "hex::serde")]
    #[schemars(with = "String")]
    pub sha256: Sha256Digest,
}

/// The state of the ledger after a prefix of it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct State {
    /// The seq of the next record: the only position that anybody persists.
    pub next: Offset,
    /// `None` before the Format record.
    pub layout: Option<Layout>,
    /// Number of the settings in force; 0 before the first.
    pub settings_revision: u64,
    /// The settings in force.
    pub settings: Settings,
    /// Commits with a basis below it are void; ids below it are forgotten. Never falls.
    pub floor: Offset,
    /// The seq of the last Recovery, 0 if there was none: Commits with a basis below it are void too.
    pub recovered: Offset,
    /// The batch ids remembered.
    pub ids: Ids,
    /// How far each partition of the inbox is sequenced.
    pub inbox: Inbox,
    /// The newest root.
    pub root: Option<Arc<SignedRoot>>,
    /// The roots since the last cut.
    pub new_roots: Vec<Arc<SignedRoot>>,
    /// The root that signed the last cut.
    pub cut_root: Option<Arc<SignedRoot>>,
    /// Keys or settings changed since the last cut.
    pub render_all: bool,
    /// The latest time of any valid Cut or Renew.
    pub time: u64,
    /// Number of the last cut; 0 before the first.
    pub cut: u64,
    /// Time of the last cut.
    pub cut_time: u64,
    /// Seq of the last cut.
    pub cut_seq: Offset,
    /// Number of the last checkpoint.
    pub done: u64,
    /// Time of the last cut that rendered targets.json.
    pub targets_time: u64,
    /// `None` before the first checkpoint.
    pub stamp: Option<Stamp>,
    /// Partitions with content committed since the last cut.
    pub touched: BTreeSet<PartitionId>,
    /// Per partition one past the highest offset applied so far.
    pub ends: Vec<Offset>,
    /// The cut in flight.
    pub open: Option<OpenCut>,
    /// The stored parts of the remembered ids, oldest first.
    pub chunks: Vec<IdsChunk>,
}

impl State {
    /// Takes the record at `seq`. An error is fatal: nobody may go on from here.
    pub fn apply(&mut self, seq: Offset, record: &Record) -> Result<Event> {
        if seq < self.next {
            return Err(Error::corrupt(format!("ledger: seq {seq} read after position {}", self.next)));
        }
        self.next = seq + 1;
        self.floor = self.floor.max(seq.saturating_sub(self.settings.horizon));
        self.ids.stand_at(seq, self.floor);
        let floor = self.floor;
        self.chunks.retain(|c| c.upto >= floor);
        if self.layout.is_none() && !matches!(record, Record::Format(_)) {
            return Err(Error::corrupt(format!("ledger: seq {seq} stands before the Format record")));
        }
        match record {
            Record::Format(f) => self.format(f),
            Record::Settings(s) => Ok(self.new_settings(s.revision, &s.settings)),
            Record::Root(r) => Ok(self.new_root(&r.document)),
            Record::Commit(c) => Ok(Event::Commit(self.commit(seq, c))),
            Record::Cut(c) => Ok(self.new_cut(seq, c)),
            Record::Checkpoint(c) => self.checkpoint(c),
            Record::Renew(r) => Ok(self.renew(r)),
            Record::Recovery(r) => Err(Error::corrupt(format!(
                "records were lost, and the repository has been recovered from checkpoint {}: what was read before \
                 counts no more; start this process again",
                r.n
            ))),
        }
    }

    /// The layout; an error before the Format record.
    pub fn layout(&self) -> Result<Layout> {
        self.layout.ok_or_else(|| Error::invalid("data", "the ledger is empty: run `tuflog init` first"))
    }

    /// Commits with a basis below it are void.
    pub fn least_basis(&self) -> Offset {
        self.floor.max(self.recovered)
    }

    /// The newest seq read: the basis of a batch whose id was looked up in this state and not found.
    pub fn basis(&self) -> Offset {
        self.next.saturating_sub(1)
    }

    fn format(&mut self, f: &Format) -> Result<Event> {
        if f.epoch != EPOCH {
            let what = format!("the ledger is of rendering epoch {}, this program of {EPOCH}: upgrade tuflog", f.epoch);
            return Err(Error::unsupported(what));
        }
        if self.layout.is_some() {
            return Ok(Event::Void);
        }
        let layout = Layout::new(f.bins, f.partitions).map_err(|e| Error::corrupt(format!("Format record: {e}")))?;
        self.layout = Some(layout);
        self.ends = vec![0; layout.partitions().into()];
        Ok(Event::Changed)
    }

    fn new_settings(&mut self, revision: u64, settings: &Settings) -> Event {
        let lowers = self.settings_revision > 0 && settings.horizon < self.settings.horizon;
        if revision != self.settings_revision + 1 || lowers || settings.check().is_err() {
            return Event::Void;
        }
        (self.settings_revision, self.settings, self.render_all) = (revision, settings.clone(), true);
        Event::Changed
    }

    fn new_root(&mut self, document: &str) -> Event {
        let parsed = match &self.root {
            None => Root::verify_first(document.as_bytes()),
            Some(current) => Root::verify_next(&current.root, document.as_bytes()),
        };
        let Ok(root) = parsed else { return Event::Void };
        self.render_all |= self.root.as_ref().is_none_or(|old| old.root.targets != root.targets);
        let root = Arc::new(SignedRoot { root, document: document.to_owned() });
        self.new_roots.push(root.clone());
        self.root = Some(root);
        Event::Changed
    }

    fn commit(&mut self, seq: Offset, commit: &Commit) -> Vec<Outcome> {
        let mut held = BTreeSet::new();
        let batches = commit.batches.iter();
        batches
            .map(|batch| {
                if !self.is_formed(commit, batch) {
                    held.extend(batch.inbox.map(|(partition, _)| partition));
                    return Outcome::Void;
                }
                let Some(place) = batch.inbox else { return self.batch(seq, commit, batch) };
                if self.inbox.has_passed(place) {
                    return Outcome::Repeated;
                }
                // What stands behind a void one in the inbox must not pass it by: it gets another chance.
                let outcome = if held.contains(&place.0) { Outcome::Void } else { self.batch(seq, commit, batch) };
                match outcome {
                    Outcome::Void => drop(held.insert(place.0)),
                    _ => self.inbox.pass(place),
                }
                outcome
            })
            .collect()
    }

    fn is_formed(&self, commit: &Commit, batch: &BatchRef) -> bool {
        let partitions = self.ends.len();
        let rising = batch.parts.windows(2).all(|w| w[0].0 < w[1].0);
        rising
            && !batch.parts.is_empty()
            && batch.parts.iter().all(|(p, count)| {
                *count > 0 && usize::from(*p) < partitions && commit.segments.iter().any(|s| s.partition == *p)
            })
    }

    fn batch(&mut self, seq: Offset, commit: &Commit, batch: &BatchRef) -> Outcome {
        if batch.basis < self.least_basis() || batch.basis > seq {
            return Outcome::Void;
        }
        if let Some(Seen { seq: first, digest }) = self.ids.get(&batch.id) {
            return if digest == batch.digest { Outcome::Duplicate { first } } else { Outcome::Conflict { first } };
        }
        self.ids.remember(&batch.id, seq, batch.digest);
        for (p, _) in &batch.parts {
            self.touched.insert(*p);
            for s in commit.segments.iter().filter(|s| s.partition == *p) {
                let end = &mut self.ends[usize::from(*p)];
                *end = (*end).max(s.offset + 1);
            }
        }
        Outcome::Valid
    }

    fn new_cut(&mut self, seq: Offset, cut: &Cut) -> Event {
        let Some(root) = self.root.clone().filter(|_| cut.n == self.cut + 1 && self.done == self.cut) else {
            return Event::Void;
        };
        let Some(layout) = self.layout else { return Event::Void };
        self.time = self.time.max(cut.time);
        let (previous_time, all) = (self.cut_time, self.render_all || cut.n == 1);
        let mut wait = std::mem::take(&mut self.touched);
        if all {
            wait.extend(0..layout.partitions());
        } else {
            let due =
                slots::due(0..layout.bins(), layout.bins(), self.settings.bin_period_s(), previous_time, self.time);
            wait.extend(due.map(|b| layout.partition_of(b)));
        }
        let targets = all || self.time >= self.targets_time + self.settings.targets_expiry_s / 2;
        if targets {
            self.targets_time = self.time;
        }
        (self.cut, self.cut_time, self.cut_seq, self.render_all) = (cut.n, self.time, seq, false);
        self.cut_root = Some(root.clone());
        self.open = Some(OpenCut {
            n: cut.n,
            seq,
            time: self.time,
            previous_time,
            all,
            targets,
            wait,
            folds_from: cut.folds_from,
            ends: self.ends.clone(),
            root,
            new_roots: std::mem::take(&mut self.new_roots),
            settings: self.settings.clone(),
        });
        Event::Cut
    }

    fn checkpoint(&mut self, c: &Checkpoint) -> Result<Event> {
        let Some(open) = self.open.take_if(|open| open.n == c.n) else { return Ok(Event::Void) };
        // Where the verdicts of some ids are all that is known, the ends are not.
        let ends = if self.ids.is_limited() { &c.ends } else { &open.ends };
        if (c.seq, &c.ends) != (open.seq, ends) {
            let (says, is) = ((c.seq, &c.ends), (open.seq, &open.ends));
            let what = format!("Checkpoint {}: cut and partitions end at {says:?}, the ledger says {is:?}", c.n);
            return Err(Error::corrupt(what));
        }
        if let Some(StateRef { ids, .. }) = &c.state {
            self.chunks.push(IdsChunk { n: c.n, upto: open.seq, sha256: *ids });
        }
        self.done = c.n;
        self.stamp = Some(Stamp {
            version: self.stamp.as_ref().map_or(0, |s| s.version) + 1,
            n: c.n,
            snapshot: c.snapshot.clone(),
            time: self.time,
            expires: self.time + open.settings.timestamp_expiry_s,
            root: open.root,
        });
        Ok(Event::Checkpoint(c.n))
    }

    fn renew(&mut self, r: &Renew) -> Event {
        // Signed with the keys of the checkpoint it points to: new keys take effect at a Cut.
        let Some(stamp) = self.stamp.as_mut().filter(|s| s.version == r.after) else { return Event::Void };
        self.time = self.time.max(r.time);
        (stamp.version, stamp.time) = (r.after + 1, self.time);
        stamp.expires = self.time + self.settings.timestamp_expiry_s;
        Event::Renew
    }
}
