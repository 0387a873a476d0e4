//! The fold: one partition's consumer. Log → bin state → signed bins.
//!
//! Owns invariant 5 (any batching, any restart, any number of workers give the same bytes) and its part of
//! invariant 3: the position passes a Cut only when that cut's objects are durable, in the one write that also clears
//! the dirty marks and keeps the report. Everything before that write is done again after a crash; everything after
//! it (appending the report) is done until the report's Checkpoint is read.
//!
//! ```text
//!   ledger ─► Commit: valid batches' segments ─► state.apply (targets, dirty marks, position: one write)
//!          ─► Cut n:  dirty ∪ due ∪ all ─► render, sign, store (concurrently) ─► sync ─► state.pass ─► FoldReport n
//!          ─► Checkpoint n: the report has done its work
//! ```

pub mod changes;
pub mod decode;
mod keys;
mod render;
mod scout;
pub mod state;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::bins::{Bin, Layout, PartitionId, Sha256Digest};
use crate::change::Change;
use crate::error::{Error, Result};
use crate::ledger::follower::{Entry, Mark};
use crate::ledger::record::Commit;
use crate::ledger::report::{FoldReport, RenderedBin};
use crate::ledger::state::OpenCut;
use crate::ledger::{Event, Follower, Outcome, Record, ids, slots};
use crate::log::{Log, Offset, Partition};
use crate::pool::Pool;
use crate::store::{self, Store};
use crate::tuf::key::KeyRing;
use crate::tuf::role::Meta;

use changes::Changes;
use decode::decode;
use render::{CutOfBins, Rendered};
use scout::Scout;
use state::{BatchChanges, Passed, State};

/// How many changes are written to bin state at once.
const APPLY_CHANGES: usize = 20_000;
/// How many ledger records are read at once, before others have their turn.
const RUN_RECORDS: usize = 1_000;
/// What a look into bin state counts as, in bytes of changes to write.
const LOOKUP_BYTES: usize = 4 << 10;
/// How many bins are rendered and signed at a time.
const RENDERED_AHEAD: usize = 4;
/// How many ledger records without anything for this partition the stored position may lag behind.
const ADVANCE_RECORDS: u64 = 1_000;

/// What a fold works with.
#[derive(Clone)]
pub struct Parts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The worker's bin state.
    pub state: Arc<State>,
    /// The online keys.
    pub keys: Arc<KeyRing>,
    /// Where rendering and applying run.
    pub pool: Pool,
    /// How many bins are stored at a time.
    pub uploads: usize,
    /// What the readers of the ledger in this process remember together.
    pub ids: ids::Table,
    /// The seq of the ledger's last Recovery, 0 without one: none is appended while a process works on the repository.
    pub recovered: Offset,
}

/// The fold of one partition. See the module.
pub struct Fold {
    parts: Parts,
    partition: PartitionId,
    layout: Layout,
    follower: Follower,
    scout: Scout,
    changes: Changes,
    /// An entry that was read but not passed: a Cut before which there is work to write, or a Commit one of whose
    /// segments is not there yet. The follower does not go on before it is done.
    held: Option<Entry>,
    /// What was read and is still to be written.
    run: Option<Arc<Run>>,
    /// Everything below it is done, but perhaps not stored.
    position: Offset,
    stored: Offset,
    dirty: BTreeSet<Bin>,
    report: Option<Outgoing>,
    /// See [`Fold::published`].
    published: Option<(u64, Offset)>,
}

/// The report of the last cut.
struct Outgoing {
    n: u64,
    /// What is still to be appended.
    records: Vec<Bytes>,
}

impl Outgoing {
    fn new(report: &FoldReport) -> Outgoing {
        Outgoing { n: report.n, records: report.encode() }
    }
}

impl Fold {
    /// Goes on from bin state; `follower` must stand where the state's position is.
    pub fn new(parts: Parts, partition: PartitionId, mut follower: Follower) -> Result<Fold> {
        follower.state.ids.share(&parts.ids);
        let (layout, position) = (follower.state.layout()?, follower.state.next);
        let stored = parts.state.position(partition)?.unwrap_or(0);
        if stored != position {
            let what = format!("partition {partition}: state stands at {stored}, its ledger state at {position}");
            return Err(Error::corrupt(what));
        }
        let scout = Scout::new(&*parts.log, position);
        let changes = Changes::new(&*parts.log, partition, follower.state.ends[usize::from(partition)]);
        let dirty = parts.state.dirty(partition)?;
        let report = parts.state.report(partition)?.as_ref().map(Outgoing::new);
        Ok(Fold {
            parts,
            partition,
            layout,
            follower,
            scout,
            changes,
            held: None,
            run: None,
            position,
            stored,
            dirty,
            report,
            published: None,
        })
    }

    /// The seq of the next ledger record it will take.
    pub fn position(&self) -> Offset {
        self.position
    }

    /// The last checkpoint that it has passed, and the offset of this partition in it: one past the highest of what
    /// is published.
    pub fn published(&self) -> Option<(u64, Offset)> {
        self.published
    }

    /// The partition it folds.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// One bounded piece of work: appends a report, applies a run of Commits, or passes a Cut. Answers false when
    /// there was nothing to do. After an error that is not fatal it may be called again.
    pub async fn step(&mut self) -> Result<bool> {
        if let Some(record) = self.report.as_ref().and_then(|r| r.records.last().cloned()) {
            self.parts.log.append(Partition::Folds, record).await?;
            if let Some(report) = &mut self.report {
                report.records.pop();
            }
            return Ok(true);
        }
        if self.run.is_none() {
            if self.held.as_ref().is_some_and(|e| e.event == Event::Cut) {
                return self.pass().await.map(|()| true);
            }
            self.gather().await?;
        }
        self.write().await
    }

    /// Completes when [`Fold::step`] may have something to do. Cancel-safe.
    pub async fn ready(&mut self) -> Result<()> {
        match &self.held {
            Some(_) => self.changes.ready().await,
            None => self.follower.ready().await,
        }
    }

    /// Reads a run of the ledger up to the next Cut into `self.run`.
    async fn gather(&mut self) -> Result<()> {
        let mut run = Run::default();
        for _ in 0..RUN_RECORDS {
            if run.changes >= APPLY_CHANGES {
                break;
            }
            let entry = match self.held.take() {
                Some(entry) => entry,
                None => match self.follower.next().await {
                    Ok(Some(entry)) => entry,
                    Ok(None) => break,
                    Err(e) if run.mark.next == 0 => return Err(e),
                    Err(_) => break, // what was read is written first
                },
            };
            match (&entry.record, &entry.event) {
                (Record::Commit(commit), Event::Commit(outcomes)) => {
                    match self.collect(entry.seq, commit, outcomes).await {
                        Ok(Some(batches)) => {
                            let changes = || batches.iter().flat_map(|b| &b.changes);
                            run.changes += changes().count();
                            // A removal may read from the disk.
                            let bytes = |c: &Change| if c.removes() { LOOKUP_BYTES } else { c.line_len() };
                            run.bytes += changes().map(bytes).sum::<usize>();
                            run.batches.extend(batches);
                        }
                        found => {
                            self.held = Some(entry);
                            match found {
                                Err(e) if run.mark.next == 0 => return Err(e),
                                _ => break,
                            }
                        }
                    }
                }
                (_, Event::Cut) => {
                    self.held = Some(entry);
                    break;
                }
                (Record::Checkpoint(c), Event::Checkpoint(n)) => {
                    run.reported |= self.report.as_ref().is_some_and(|r| r.n <= *n);
                    run.published = Some((*n, c.ends[usize::from(self.partition)]));
                }
                _ => {}
            }
            if self.held.is_none() {
                run.mark = self.follower.mark();
            }
        }
        if run.mark.next > 0 {
            self.run = Some(Arc::new(run));
        }
        Ok(())
    }

    /// Writes the run that was gathered. Answers whether there was one, or a Cut to pass.
    async fn write(&mut self) -> Result<bool> {
        let Some(run) = self.run.clone() else {
            return Ok(self.held.as_ref().is_some_and(|e| e.event == Event::Cut));
        };
        if !run.batches.is_empty() {
            let (state, partition, mut dirty) =
                (self.parts.state.clone(), self.partition, std::mem::take(&mut self.dirty));
            let work = run.clone();
            let (written, dirty) = self
                .parts
                .pool
                .run_on(run.bytes, move || (state.apply(partition, &work.batches, &work.mark, &mut dirty), dirty))
                .await;
            self.dirty = dirty;
            written?;
            self.stored = run.mark.next;
        }
        if run.reported || run.mark.next > self.stored + ADVANCE_RECORDS {
            self.parts.state.advance(self.partition, &run.mark, run.reported)?;
            self.stored = run.mark.next;
        }
        if run.reported {
            self.report = None;
        }
        self.published = run.published.or(self.published);
        self.position = run.mark.next;
        self.run = None;
        Ok(true)
    }

    /// What the valid batches of a Commit change in this partition; `None` while a segment is not there yet.
    async fn collect(
        &mut self,
        seq: Offset,
        commit: &Commit,
        outcomes: &[Outcome],
    ) -> Result<Option<Vec<BatchChanges>>> {
        let valid = |index: usize| outcomes.get(index) == Some(&Outcome::Valid);
        let count_of = |index: usize| {
            let here = |(p, count): &(PartitionId, u32)| (*p == self.partition).then_some(*count);
            commit.batches[index].parts.iter().find_map(here).filter(|_| valid(index))
        };
        let wanted: Vec<(usize, u32)> = (0..commit.batches.len()).filter_map(|i| Some((i, count_of(i)?))).collect();
        if wanted.is_empty() {
            return Ok(Some(vec![]));
        }
        let mut segments = Vec::new();
        for named in commit.segments.iter().filter(|s| s.partition == self.partition) {
            match self.changes.take(&*self.parts.log, named).await? {
                Some(payload) => segments.push(payload),
                None => return Ok(None),
            }
        }
        let ids: Vec<String> = commit.batches.iter().map(|b| b.id.clone()).collect();
        let (layout, partition) = (self.layout, self.partition);
        let bytes = segments.iter().map(Bytes::len).sum();
        let batches =
            self.parts.pool.run_on(bytes, move || decode(&segments, &ids, &wanted, layout, partition, seq)).await;
        batches.map(Some).map_err(|e| e.context(format!("Commit {seq}, partition {}", self.partition)))
    }

    /// Passes the Cut that is held.
    async fn pass(&mut self) -> Result<()> {
        let (Some(entry), Some(cut)) = (&self.held, &self.follower.state.open) else { return Ok(()) };
        let (seq, cut) = (entry.seq, cut.clone());
        let done = self.scout.last_checkpoint(seq).await?;
        let mut passed = Passed { mark: self.follower.mark(), ..Passed::default() };
        if done >= cut.n {
            // Settled at every cut, not once at the last of several: whoever starts again in between may not be able to
            // read as far ahead, and render the next one.
            for bin in self.dirty.clone() {
                let state = self.parts.state.clone();
                passed.published.push((bin, self.parts.pool.run(move || render::content_digest(&state, bin)).await?));
            }
            passed.absent_reported = true;
            passed.clean = std::mem::take(&mut self.dirty);
            self.settle(&passed)?;
        } else {
            let rendered = self.render(&cut).await?;
            let mut bins = Vec::with_capacity(rendered.len());
            let mut names = Vec::with_capacity(rendered.len());
            for Stored { bin, name, content, length, sha256 } in rendered {
                bins.push(RenderedBin { bin, length, sha256 });
                passed.published.push((bin, content));
                names.push(name);
            }
            self.parts.store.sync(&names).await?;
            if cut.wait.contains(&self.partition) {
                let offset = cut.ends[usize::from(self.partition)];
                let absent = self.parts.state.absent(self.partition)?;
                let report =
                    FoldReport { n: cut.n, partition: self.partition, part: 0, parts: 1, offset, bins, absent };
                passed.report = Some(report);
                passed.absent_reported = true;
            }
            passed.clean = std::mem::take(&mut self.dirty);
            self.settle(&passed)?;
            self.report = passed.report.as_ref().map(Outgoing::new);
        }
        (self.position, self.stored, self.held) = (passed.mark.next, passed.mark.next, None);
        Ok(())
    }

    fn settle(&mut self, passed: &Passed) -> Result<()> {
        self.parts.state.pass(self.partition, passed).inspect_err(|_| self.dirty = passed.clean.clone())
    }

    /// Renders, signs and stores what the cut changes or renews here, by rising bin.
    async fn render(&self, cut: &OpenCut) -> Result<Vec<Stored>> {
        let (layout, settings) = (self.layout, &cut.settings);
        let bins = layout.bins_of(self.partition);
        let always: BTreeSet<Bin> = match cut.all {
            true => bins.collect(),
            false => slots::due(bins, layout.bins(), settings.bin_period_s(), cut.previous_time, cut.time).collect(),
        };
        let candidates: BTreeSet<Bin> = always.union(&self.dirty).copied().collect();
        if candidates.is_empty() {
            return Ok(vec![]);
        }
        let signers = self.parts.keys.signers(&cut.root.root.targets.key_ids)?.into();
        let of_bins = CutOfBins { n: cut.n, expires: cut.time + settings.bins_expiry_s, signers };
        let render = async |bin: Bin| {
            let (state, of_bins, always) = (self.parts.state.clone(), of_bins.clone(), always.contains(&bin));
            let rendered = self.parts.pool.run(move || render::bin(&state, bin, &of_bins, always)).await?;
            Ok::<_, Error>(rendered.map(|rendered| (bin, rendered)))
        };
        let store = async |(bin, rendered): (Bin, Rendered)| {
            let name = store::metadata_name(cut.n, &layout.name(bin));
            let stored = store::create_signed(&*self.parts.store, &name, rendered.file.clone()).await?;
            let meta = if stored == rendered.file { rendered.meta } else { Meta::of(cut.n, &stored) };
            let Meta { length, sha256, .. } = meta;
            Ok(Stored { bin, name, content: rendered.content, length, sha256 })
        };
        // Rendered ahead of the uploads, so that none of those waits for a signature; nor for one before it that is slow.
        let rendered = stream::iter(candidates).map(render).buffer_unordered(RENDERED_AHEAD);
        let stored =
            rendered.try_filter_map(async |r| Ok(r)).map_ok(store).try_buffer_unordered(self.parts.uploads.max(1));
        let mut stored: Vec<Stored> = stored.try_collect().await?;
        stored.sort_unstable_by_key(|stored| stored.bin);
        Ok(stored)
    }
}

/// A run of the ledger, read but not yet written to bin state.
#[derive(Default)]
struct Run {
    batches: Vec<BatchChanges>,
    changes: usize,
    /// What its changes take, in bytes.
    bytes: usize,
    /// The place after the last entry of the run; at 0 while it has none.
    mark: Mark,
    /// The Checkpoint of the report was read.
    reported: bool,
    /// The last Checkpoint of the run, with the partition's offset in it.
    published: Option<(u64, Offset)>,
}

/// A bin rendered and stored, not yet durable.
struct Stored {
    bin: Bin,
    name: String,
    content: Sha256Digest,
    length: u64,
    sha256: Sha256Digest,
}
