//! What is missing: the ledger against what the store has published, and every segment that the ledger names. Reads
//! only.
//!
//! The end of a log does not show that there was more. What shows it: the published timestamp, the stored ledger
//! states, and a bin state that has read more. Segments are missing if a Commit that is there names them and they are
//! not there, or hold other bytes.
//!
//! Memory follows the number of segments (about 150 bytes each) and the size of what no Commit names.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use serde::Serialize;

use super::batches::{self, Orphan, Walk};
use super::plan::{self, Plan};
use super::read::{self, Read};
use super::repair::{self, Unfinished};
use super::{READ_BYTES, pointer};
use crate::bins::{Layout, PartitionId, Sha256Digest, sha256};
use crate::error::{Error, Result};
use crate::fold::state::State as BinState;
use crate::ledger::Record;
use crate::ledger::follower::Mark;
use crate::ledger::record::Commit;
use crate::log::{Log, Offset, Partition};
use crate::store::Store;

/// How many seqs beyond the last of which there is evidence are not used again either, where the ledger lost its end.
const MARGIN: u64 = 256;

/// What is missing.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The last published checkpoint.
    pub checkpoint: u64,
    /// The version of the timestamp that points to it.
    pub timestamp: u64,
    /// When that timestamp expires, in Unix seconds.
    pub expires: u64,
    /// One past the last record of the ledger that is there.
    pub ledger_end: Offset,
    /// The first record of the ledger that is there, if it is not the first that there was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger_begins: Option<Offset>,
    /// Seqs of the ledger that are evidently lost: `[from, to)`. There may have been more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_seqs: Option<(Offset, Offset)>,
    /// What shows it.
    pub evidence: Vec<String>,
    /// Seqs of which batch ids are forgotten though their batches may be published: `[from, to)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<(Offset, Offset)>,
    /// Segments that the ledger names and that are gone, or are others.
    pub lost_segments: Vec<LostSegment>,
    /// The batches that have changes in them.
    pub lost_batches: Vec<LostBatch>,
    /// Batches that are there whole and not in the checkpoint: they are committed again.
    pub again: Vec<BatchAt>,
    /// Batches whose segments no Commit names: never acknowledged, or their Commit is lost.
    pub uncommitted: Vec<Uncommitted>,
    /// The seq of a Recovery after which [`Report::again`] is still to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Offset>,
}

/// A segment that is not what its Commit says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostSegment {
    /// The partition of `changes`.
    pub partition: PartitionId,
    /// The offset there.
    pub offset: Offset,
    /// The seq of the Commit that names it.
    pub seq: Offset,
    /// True if another record stands there now.
    pub other: bool,
}

/// A batch, and where its Commit stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BatchAt {
    /// Its id.
    pub id: String,
    /// The seq of its Commit.
    pub seq: Offset,
}

/// A batch of which segments are lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostBatch {
    /// Its id.
    pub id: String,
    /// The seq of its Commit.
    pub seq: Offset,
    /// True if it is part of the checkpoint: only its history is lost.
    pub published: bool,
}

/// A batch that no Commit names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Uncommitted {
    /// Its id.
    pub id: String,
    /// `[partition, offset]` of its segments.
    pub segments: Vec<(PartitionId, Offset)>,
    /// How many of its changes are there. Others may have been lost with the ends of other partitions.
    pub changes: usize,
    /// True if some are evidently gone: records between its segments.
    pub incomplete: bool,
    /// The id under which what is there is saved, to be posted again.
    pub salvage_id: String,
    /// True if the checkpoint says of each of the paths that are left what it does.
    pub published: bool,
}

impl Report {
    /// True if something is.
    pub fn is_missing(&self) -> bool {
        self.needs_recovery() || self.unfinished.is_some()
    }

    /// True if nobody can go on without a Recovery.
    pub fn needs_recovery(&self) -> bool {
        self.lost_seqs.is_some() || self.ledger_begins.is_some() || !self.lost_segments.is_empty()
    }
}

/// What was found.
pub struct Survey {
    /// For people and programs.
    pub report: Report,
    /// What to do about it.
    pub plan: Plan,
    /// The Recovery after which something is still to be committed again.
    pub unfinished: Option<Unfinished>,
    /// The batches that no Commit names, with their changes.
    pub orphans: Vec<Orphan>,
}

impl Survey {
    /// Walks over the Commits whose batches are to be committed again.
    pub async fn walk(&self, log: &dyn Log, store: &dyn Store) -> Result<Walk> {
        match &self.unfinished {
            Some(u) => Walk::new(log, store, u.recovery.kept, u.seq).await,
            None => Walk::new(log, store, self.plan.kept, self.report.ledger_end).await,
        }
    }
}

/// Looks at everything. `bin_state` is where this process's would be; `partitions` helps where the ledger is empty.
pub async fn survey(
    log: &dyn Log,
    store: &dyn Store,
    bin_state: Option<&Path>,
    partitions: Option<PartitionId>,
) -> Result<Survey> {
    let read = read::read(log, store).await?;
    let pointer = pointer(store).await?;
    let mut report = Report { ledger_end: read.end, ..Report::default() };
    report.ledger_begins = read.first.filter(|_| read.state.recovered == 0);
    let base = plan::base(log, store, &read, pointer.as_ref()).await?;
    (report.checkpoint, report.timestamp, report.expires) = (base.n, base.version, base.expires);
    let stored = plan::stored(store, base.n).await?;
    let mut plan = plan::plan(log, store, &read, base, stored.as_ref(), partitions).await?;

    // The end of the ledger.
    let mut lost_end = read.end;
    let mut shows = |report: &mut Report, end: Offset, what: String| {
        if end > read.end {
            report.evidence.push(what);
            lost_end = lost_end.max(end);
        }
    };
    let version = read.state.stamp.as_ref().map_or(0, |s| s.version);
    let records = plan.version.saturating_sub(version) + plan.n.saturating_sub(read.state.cut);
    let what = format!("timestamp {} over checkpoint {} is published", plan.version, plan.n);
    shows(&mut report, read.end + records, what);
    if let Some((n, seq)) = plan::last_stored(store).await? {
        shows(&mut report, seq + 1, format!("the stored ledger state of cut {n} is of seq {seq}"));
    }
    for (partition, mark) in bin_state.map_or(Ok(vec![]), |dir| marks(dir, plan.layout))? {
        let other = match mark.last.filter(|(seq, _)| *seq < read.end) {
            Some((seq, digest)) => {
                log.fetch(Partition::Ledger, seq).await?.is_none_or(|r| sha256(&r.payload) != digest)
            }
            None => false,
        };
        let since = mark.last.is_some_and(|(seq, _)| seq >= read.state.recovered);
        if read.state.recovered > 0 && (other || !since) {
            continue; // of the ledger before its Recovery: it is rebuilt
        }
        if other {
            return Err(Error::corrupt(
                "the bin state has read another ledger than this one, or this one has gone on after it lost records, \
                 which cannot be told apart: if this ledger is the right one, remove DIR/state",
            ));
        }
        let what = format!("the bin state of partition {partition} has read up to seq {}", mark.next.saturating_sub(1));
        shows(&mut report, mark.next, what);
    }
    if lost_end > read.end {
        report.lost_seqs = Some((read.end, lost_end));
        plan.lost = vec![(read.end, lost_end)];
        plan.free_from = lost_end + MARGIN;
    }

    // Segments.
    let orphans = segments(log, &read, plan.layout, &mut report).await?;
    for s in &report.lost_segments {
        match plan.lost_changes.last_mut().filter(|(p, ..)| *p == s.partition) {
            Some((_, _, to)) => *to = s.offset + 1, // they come by rising offset
            None => plan.lost_changes.push((s.partition, s.offset, s.offset + 1)),
        }
    }

    // Batches.
    if report.needs_recovery() {
        batches(log, store, &read, &plan, &mut report).await?;
        if !read.cuts.contains_key(&plan.n) {
            let known = stored.map_or(0, |s| s.next).max(read.end);
            report.forgotten = Some((known, lost_end)).filter(|(from, to)| from < to);
        }
    }
    let root = &plan.roots[0].root;
    let snapshot = super::snapshot(store, plan.n, &plan.snapshot, root).await?;
    let published = batches::are_published(store, &snapshot, plan.layout, root, &orphans).await?;
    for (orphan, published) in orphans.iter().zip(published) {
        report.uncommitted.push(Uncommitted {
            id: orphan.id.clone(),
            segments: orphan.segments.clone(),
            changes: orphan.changes.len(),
            incomplete: orphan.incomplete,
            salvage_id: orphan.salvage_id(),
            published,
        });
    }
    let mut unfinished = None;
    if !report.needs_recovery() {
        unfinished = repair::unfinished(log, store, &read.state).await?;
        let left = unfinished.iter().flat_map(|u| &u.left);
        report.again = left.map(|(seq, id)| BatchAt { id: id.clone(), seq: *seq }).collect();
        report.unfinished = unfinished.as_ref().map(|u| u.seq);
    }
    Ok(Survey { report, plan, unfinished, orphans })
}

/// What became of the batches whose Commits are there.
async fn batches(log: &dyn Log, store: &dyn Store, read: &Read, plan: &Plan, report: &mut Report) -> Result<()> {
    for (seq, id) in batches::survivors(log, store, (plan.kept, read.end), |_| true).await? {
        report.again.push(BatchAt { id, seq });
    }
    let mut lost: BTreeMap<Offset, BTreeSet<PartitionId>> = BTreeMap::new();
    for s in &report.lost_segments {
        lost.entry(s.seq).or_default().insert(s.partition);
    }
    let again: HashSet<(Offset, &str)> = report.again.iter().map(|b| (b.seq, b.id.as_str())).collect();
    for (seq, partitions) in lost {
        let Some(commit) = commit(log, seq).await? else { continue };
        for batch in commit.batches.iter().filter(|b| b.parts.iter().any(|(p, _)| partitions.contains(p))) {
            if !again.contains(&(seq, batch.id.as_str())) {
                let published = seq < plan.kept;
                report.lost_batches.push(LostBatch { id: batch.id.clone(), seq, published });
            }
        }
    }
    Ok(())
}

/// Where the bin state in a directory stands.
fn marks(dir: &Path, layout: Layout) -> Result<Vec<(PartitionId, Mark)>> {
    if !dir.join("CURRENT").exists() {
        return Ok(vec![]);
    }
    let state = BinState::open(dir, layout)?;
    let mark = |p| Ok(state.mark(p)?.map(|mark| (p, mark)));
    (0..layout.partitions()).filter_map(|p| mark(p).transpose()).collect()
}

async fn commit(log: &dyn Log, seq: Offset) -> Result<Option<Commit>> {
    let Some(r) = log.fetch(Partition::Ledger, seq).await? else { return Ok(None) };
    match Record::decode(&r.payload)? {
        Record::Commit(commit) => Ok(Some(commit)),
        _ => Ok(None),
    }
}

/// Compares every segment with what its Commit says; answers the batches of those that no Commit names.
async fn segments(log: &dyn Log, read: &Read, layout: Layout, report: &mut Report) -> Result<Vec<Orphan>> {
    let digests: HashSet<Sha256Digest> = read.segments.values().map(|n| n.digest).collect();
    let mut orphans = batches::Orphans::default();
    for partition in 0..layout.partitions() {
        let (of, from) = (Partition::Changes(partition), read.from.get(usize::from(partition)).copied().unwrap_or(0));
        let mut right: HashSet<Offset> = HashSet::new();
        let mut others: HashSet<Offset> = HashSet::new();
        let (mut reader, end) = (log.reader(of, from), log.end(of).await?);
        let mut next = from;
        while next < end {
            let records = reader.read(READ_BYTES).await?;
            if records.is_empty() {
                break;
            }
            for r in records {
                if r.offset > next {
                    orphans.hole(partition, next);
                }
                next = r.offset + 1;
                let digest = sha256(&r.payload);
                match read.segments.get(&(partition, r.offset)) {
                    Some(named) if named.digest == digest => drop(right.insert(r.offset)),
                    named => {
                        if named.is_some() {
                            others.insert(r.offset);
                        }
                        // An append that was tried again leaves the same bytes twice.
                        if !digests.contains(&digest) {
                            orphans.add(partition, r.offset, digest, &r.payload, &read.ids);
                        }
                    }
                }
            }
        }
        for ((_, offset), named) in read.segments.range((partition, 0)..=(partition, Offset::MAX)) {
            if named.needed && !right.contains(offset) {
                let mut other = others.contains(offset);
                if !other && let Some(r) = log.fetch(of, *offset).await? {
                    other = sha256(&r.payload) != named.digest;
                    if !other {
                        continue; // from before the last Recovery on
                    }
                }
                report.lost_segments.push(LostSegment { partition, offset: *offset, seq: named.seq, other });
            }
        }
    }
    Ok(orphans.into_batches())
}
