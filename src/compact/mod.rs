//! The compactor: turns what the folds report about a cut into its snapshot and timestamp.
//!
//! Owns invariant 3's order (bins, then snapshot, then Checkpoint, then timestamp), invariant 4 (versions only rise,
//! entries never leave the snapshot) and invariant 9 (everything online is renewed before it expires). Any number may
//! run: whatever two of them do for the same cut is the same bytes, and the ledger takes the first.
//!
//! ```text
//!   something to publish ─► Cut n ─► FoldReport of every waiting partition ─► snapshot n stored, synced
//!                                                      ─► Checkpoint n ─► (read back) ─► timestamp.json moves
//! ```

mod build;
mod entries;
mod pointer;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::bins::PartitionId;
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::ledger::record::{Cut, Renew};
use crate::ledger::{Event, FoldReport, Follower, Outcome, Record, State, saved, slots};
use crate::log::{Log, Offset, Partition, Reader};
use crate::pool::Pool;
use crate::store::Store;
use crate::tuf::key::KeyRing;
use crate::tuf::role::Meta;

use entries::Entries;

/// How much is read at once, in bytes.
const READ_BYTES: usize = 1 << 20;
/// A clock that is this far behind the log's own is not believed, in seconds.
const MAX_CLOCK_LAG_S: u64 = 300;
/// How soon the pointer is looked at again while another is about to move it, in milliseconds; the longer it has been
/// behind, the later.
const POINTER_POLL_MS: u64 = 10;
/// Renewals alone do not make a cut before this share of the renewal period has passed since the last one.
const RENEWAL_SHARE: u64 = 64;

/// What a compactor works with.
#[derive(Clone)]
pub struct Parts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The online keys.
    pub keys: Arc<KeyRing>,
    /// The time of Cuts and Renews.
    pub clock: Arc<dyn Clock>,
    /// Where rendering runs.
    pub pool: Pool,
    /// The least time between two cuts, in milliseconds; set to 0 when the node stops.
    pub min_cut_interval_ms: Arc<AtomicU64>,
    /// How long a compactor that did not make the last cut waits before it acts in another's place, in milliseconds.
    pub patience_ms: u64,
    /// False for one that only follows what the others do, and says where the pointer stands.
    pub acts: bool,
    /// Told where the pointer stands whenever it has moved.
    pub published: Arc<watch::Sender<Published>>,
}

/// Where the pointer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The timestamp's version; 0 before the first.
    pub version: u64,
    /// The checkpoint it points to.
    pub n: u64,
    /// The seq of that checkpoint's Cut: every batch below it is published.
    pub seq: Offset,
}

/// What a compactor has read of the ledger since it began, and whether anything waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// The seq of the next ledger record.
    pub next: Offset,
    /// Everything committed before it is published.
    pub settled: bool,
    /// Batches that were valid.
    pub batches: u64,
    /// Their changes.
    pub changes: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// How long it took from the Cut of each to it, by the log's clock, together in milliseconds.
    pub cut_ms: u64,
}

/// See the module.
pub struct Compactor {
    parts: Parts,
    follower: Follower,
    folds: Box<dyn Reader>,
    /// What of topic `folds` has been read.
    folds_read: Range<Offset>,
    /// Reports beyond the last Checkpoint, by (cut, partition) and part.
    reports: BTreeMap<(u64, PartitionId), BTreeMap<u32, FoldReport>>,
    /// The entries of the last checkpoint's snapshot, and its targets.json.
    last: Option<(u64, Entries, Meta)>,
    /// The same for the open cut, once it is built.
    built: Option<(u64, Entries, Meta)>,
    /// The ledger state right after the open cut, if that cut stores it.
    state_objects: Option<saved::Objects>,
    /// The offset of a record appended here: nothing more is appended before it has been read.
    awaited: Option<Offset>,
    /// The number of a Cut appended here last.
    own_cut: u64,
    /// Since when there has been something to do that another may be doing, in clock ticks.
    waiting_since: Option<u64>,
    last_cut_ticks: Option<u64>,
    /// The seq of the Cut of each checkpoint that the pointer does not cover yet, and of the one it stands at.
    cut_seqs: BTreeMap<u64, Offset>,
    /// When the log took the last record that was read. Not the latest such time: a clock that was wrong once and is
    /// right again must not look wrong.
    log_time: u64,
    followed: Followed,
    /// When the log took the Cut that is open, in Unix milliseconds, if that was read here.
    cut_at_ms: Option<u64>,
    pointer: u64,
    /// Since when the pointer has been behind and is another's to move, in clock ticks.
    pointer_since: Option<u64>,
}

impl Compactor {
    /// Goes on from a ledger state.
    pub async fn new(parts: Parts, state: State) -> Result<Compactor> {
        // A topic that has lost its end gets the reports again: from folds that start again, or render again.
        let end = parts.log.end(Partition::Folds).await?;
        let folds_from = state.open.as_ref().map_or(end, |open| open.folds_from.min(end));
        let folds = parts.log.reader(Partition::Folds, folds_from);
        let follower = Follower::new(&*parts.log, state).await?;
        let mut compactor = Compactor {
            parts,
            follower,
            folds,
            folds_read: folds_from..folds_from,
            reports: BTreeMap::new(),
            last: None,
            built: None,
            state_objects: None,
            awaited: None,
            own_cut: 0,
            waiting_since: None,
            last_cut_ticks: None,
            cut_seqs: BTreeMap::new(),
            log_time: 0,
            followed: Followed::default(),
            cut_at_ms: None,
            pointer: 0,
            pointer_since: None,
        };
        let state = &compactor.follower.state;
        if let Some(stamp) = &state.stamp {
            // Of an earlier cut than the open one; its exact seq is not known here, only that it is below.
            compactor.cut_seqs.insert(stamp.n, 0);
        }
        if compactor.follower.state.open.is_some() {
            compactor.enter_cut()?;
        }
        Ok(compactor)
    }

    /// One bounded piece of work. Answers false when there was nothing to do now. After an error that is not fatal it
    /// may be called again.
    pub async fn step(&mut self) -> Result<bool> {
        let mut worked = self.read_ledger().await?;
        if self.move_pointer().await? {
            return Ok(true);
        }
        if !self.parts.acts {
            return Ok(worked);
        }
        worked |= self.read_folds().await?;
        if self.awaited.is_some_and(|offset| self.follower.state.next <= offset) {
            return Ok(worked);
        }
        self.awaited = None;
        let now = self.parts.clock.now();
        // Half of what this very timestamp has: settings that have changed since say nothing about it.
        if let Some(stamp) = &self.follower.state.stamp
            && now >= stamp.time + (stamp.expires - stamp.time) / 2
        {
            self.check_clock(now)?;
            return self.append(Record::Renew(Renew { after: stamp.version, time: now })).await;
        }
        match self.follower.state.open.clone() {
            Some(open) => Ok(self.build(&open).await? | worked),
            None => Ok(self.cut(now).await? | worked),
        }
    }

    /// Completes when [`Compactor::step`] may have something new to read. Time alone may also give it something to
    /// do: see [`Compactor::due_in_ms`]. Cancel-safe.
    pub async fn ready(&mut self) -> Result<()> {
        tokio::select! {
            done = self.follower.ready() => done,
            done = self.folds.ready(), if self.parts.acts => done,
        }
    }

    /// In how many milliseconds at most it should be stepped again though nothing came.
    pub fn due_in_ms(&self) -> u64 {
        const IDLE_MS: u64 = 1_000;
        let ticks = self.parts.clock.ticks_ms();
        let pace = self.last_cut_ticks.map(|t| (t + self.min_cut_interval_ms()).saturating_sub(ticks));
        let patience = self.waiting_since.map(|t| (t + self.parts.patience_ms).saturating_sub(ticks));
        let pointer = self.pointer_since.map(|t| POINTER_POLL_MS.max(ticks.saturating_sub(t) / 8));
        [pace, patience, pointer].into_iter().flatten().filter(|ms| *ms > 0).min().unwrap_or(IDLE_MS).min(IDLE_MS)
    }

    /// The state after the last record read.
    pub fn state(&self) -> &State {
        &self.follower.state
    }

    /// What it has read so far.
    pub fn followed(&self) -> Followed {
        let s = &self.follower.state;
        let is_published = s.stamp.as_ref().is_some_and(|stamp| stamp.version <= self.pointer);
        let settled = s.open.is_none() && s.touched.is_empty() && is_published;
        Followed { next: s.next, settled, ..self.followed }
    }

    /// True when everything committed so far is published.
    pub fn is_settled(&self) -> bool {
        self.followed().settled
    }

    fn min_cut_interval_ms(&self) -> u64 {
        self.parts.min_cut_interval_ms.load(Ordering::Relaxed)
    }

    async fn read_ledger(&mut self) -> Result<bool> {
        let mut worked = false;
        while let Some(entry) = self.follower.next().await? {
            worked = true;
            self.log_time = entry.time_ms / 1_000;
            if let (Record::Commit(commit), Event::Commit(outcomes)) = (&entry.record, &entry.event) {
                for (batch, _) in commit.batches.iter().zip(outcomes).filter(|(_, o)| **o == Outcome::Valid) {
                    self.followed.batches += 1;
                    self.followed.changes += batch.parts.iter().map(|(_, count)| u64::from(*count)).sum::<u64>();
                }
            }
            match entry.event {
                Event::Cut => {
                    self.cut_at_ms = Some(entry.time_ms);
                    self.enter_cut()?;
                    break;
                }
                Event::Checkpoint(n) => {
                    self.followed.checkpoints += 1;
                    self.followed.cut_ms += self.cut_at_ms.take().map_or(0, |at| entry.time_ms.saturating_sub(at));
                    self.reports.retain(|(of, _), _| *of > n);
                    self.last = self.built.take().filter(|(of, ..)| *of == n);
                    self.state_objects = None;
                    self.waiting_since = None;
                    break;
                }
                Event::Renew => break,
                _ => {}
            }
        }
        Ok(worked)
    }

    fn enter_cut(&mut self) -> Result<()> {
        let state = &self.follower.state;
        let Some(open) = &state.open else { return Ok(()) };
        if open.folds_from < self.folds_read.start {
            // Cut by another, and perhaps reported, before this compactor began to read the reports.
            self.folds.seek(open.folds_from);
            self.folds_read = open.folds_from..open.folds_from;
        }
        (self.built, self.state_objects, self.waiting_since) = (None, None, None);
        self.last_cut_ticks = Some(self.parts.clock.ticks_ms());
        self.cut_seqs.insert(open.n, open.seq);
        if self.parts.acts && open.n % open.settings.state_every == 0 {
            self.state_objects = Some(saved::save(state)?);
        }
        Ok(())
    }

    async fn read_folds(&mut self) -> Result<bool> {
        let records = self.folds.read(READ_BYTES).await?;
        let worked = !records.is_empty();
        for r in records {
            self.folds_read.end = r.offset + 1;
            let report = match FoldReport::decode(&r.payload) {
                Ok(report) => report,
                Err(e) if e.kind == Kind::Unsupported => return Err(e.context(format!("folds offset {}", r.offset))),
                Err(e) => {
                    // Nobody's word for anything, as a stray segment is.
                    tracing::warn!(offset = r.offset, error = %e, "topic folds has a record that is no report: passed over");
                    continue;
                }
            };
            if report.n <= self.follower.state.done {
                continue;
            }
            let parts = self.reports.entry((report.n, report.partition)).or_default();
            match parts.get(&report.part) {
                Some(other) if *other != report => {
                    let what =
                        format!("two different reports of partition {} about cut {}", report.partition, report.n);
                    return Err(Error::corrupt(what));
                }
                _ => drop(parts.insert(report.part, report)),
            }
        }
        Ok(worked)
    }

    /// Appends a Cut if there is something to publish.
    async fn cut(&mut self, now: u64) -> Result<bool> {
        let state = &self.follower.state;
        let (Some(layout), Some(root)) = (state.layout, &state.root) else { return Ok(false) };
        let changed = state.cut == 0
            || !state.touched.is_empty()
            || state.render_all
            || state.cut_root.as_ref().is_none_or(|r| r.root.version != root.root.version);
        if !changed {
            let (since, s) = (state.cut_time, &state.settings);
            let rested = now >= since + s.bin_period_s() / RENEWAL_SHARE;
            let due = || slots::due(0..layout.bins(), layout.bins(), s.bin_period_s(), since, now).next().is_some();
            let targets = now >= state.targets_time + s.targets_expiry_s / 2;
            if !(now >= since + s.snapshot_expiry_s / 2 || targets || rested && now > since && due()) {
                self.waiting_since = None;
                return Ok(false);
            }
        }
        let ticks = self.parts.clock.ticks_ms();
        if self.last_cut_ticks.is_some_and(|t| ticks < t + self.min_cut_interval_ms()) || !self.my_turn(ticks) {
            return Ok(false);
        }
        self.check_clock(now)?;
        let n = self.follower.state.cut + 1;
        // The reports of this cut stand behind all that was read before it is there.
        let folds_from = self.folds_read.end;
        self.own_cut = n;
        self.append(Record::Cut(Cut { n, time: now, folds_from })).await
    }

    /// True for the compactor that made the last cut, and for another once it has waited out its patience.
    fn my_turn(&mut self, ticks: u64) -> bool {
        let since = *self.waiting_since.get_or_insert(ticks);
        let mine = self.own_cut > 0 && self.own_cut == self.follower.state.cut;
        mine || ticks >= since + self.parts.patience_ms
    }

    fn check_clock(&self, now: u64) -> Result<()> {
        if now + MAX_CLOCK_LAG_S < self.log_time {
            let behind = self.log_time - now;
            return Err(Error::unavailable(format!("this node's clock is {behind} s behind the log's: set it right")));
        }
        Ok(())
    }

    async fn append(&mut self, record: Record) -> Result<bool> {
        self.awaited = Some(self.parts.log.append(Partition::Ledger, record.encode()).await?);
        Ok(true)
    }
}
