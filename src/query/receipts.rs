//! Receipts: from a batch's seq to the checkpoint that covers it, and the removals in it that found nothing.
//!
//! The covering checkpoint of a seq is the first Checkpoint record after it whose Cut stands after it too: a late
//! repeat of an older Checkpoint names a Cut below. It is valid, for the next Cut can only follow it. What its folds
//! reported stands in `folds` at or after the place that its Cut names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::{BatchAnswer, BatchState, Query, READ_BYTES};
use crate::bins::PartitionId;
use crate::compact::Published;
use crate::error::{Error, Kind, Result};
use crate::ledger::ids::Seen;
use crate::ledger::record::BatchRef;
use crate::ledger::report::Absent;
use crate::ledger::{FoldReport, Record};
use crate::log::{Offset, Partition};

/// How many covering checkpoints are remembered.
const COVERS: usize = 256;
/// How many reports' absent removals are remembered.
const REPORTS: usize = 256;
/// How many absent paths are remembered in all; what has more is read again each time.
const ABSENT_PATHS: usize = 100_000;

/// What was found for earlier receipts. All of it is immutable, and bounded.
#[derive(Default)]
pub(super) struct Cache {
    /// By the seq of the Cut: it covers every seq from the first number on.
    covers: Mutex<BTreeMap<Offset, (Offset, u64)>>,
    /// By cut and partition. Held while reports are read, so that many who wait for one cut read it once.
    absent: tokio::sync::Mutex<Reports>,
}

/// What each partition found absent at a cut.
type Reports = BTreeMap<(u64, PartitionId), Arc<Vec<Absent>>>;

/// Commits come by the thousand and are recognised by how their canonical JSON begins.
pub(super) fn is_commit(payload: &[u8]) -> bool {
    payload.starts_with(b"{\"batches\":")
}

impl Query {
    /// The receipt of a remembered batch. `basis` is what to answer as such; `folds` gives each partition's position
    /// (the seq it takes next), where it is known.
    pub async fn receipt(
        &self,
        id: &str,
        seen: Seen,
        basis: Offset,
        published: Published,
        folds: Option<&BTreeMap<PartitionId, Offset>>,
    ) -> Result<BatchAnswer> {
        let mut answer = BatchAnswer {
            batch: id.to_owned(),
            seq: seen.seq,
            basis,
            state: BatchState::Committed,
            checkpoint: None,
            not_found: vec![],
        };
        if published.seq <= seen.seq && folds.is_none() {
            return Ok(answer);
        }
        let batches = self.committed(id, seen).await?;
        let parts: BTreeSet<PartitionId> = batches.iter().flat_map(|(_, b)| &b.parts).map(|(p, _)| *p).collect();
        if published.seq <= seen.seq {
            let applied = |p: &PartitionId| folds.and_then(|f| f.get(p)).is_some_and(|at| *at > seen.seq);
            if parts.iter().all(applied) {
                answer.state = BatchState::Folded;
            }
            return Ok(answer);
        }
        let (n, cut_seq) = self.covering(seen.seq).await?.ok_or_else(|| {
            Error::corrupt(format!("seq {} is published but no Checkpoint in the ledger covers it", seen.seq))
        })?;
        (answer.state, answer.checkpoint) = (BatchState::Published, Some(n));
        answer.not_found = self.not_found(n, cut_seq, seen.seq, &batches, &parts).await?;
        Ok(answer)
    }

    /// The receipt of a batch that is published and removes nothing: as [`Query::receipt`], with less to read.
    pub async fn receipt_of_adds(&self, id: &str, seq: Offset, basis: Offset) -> Result<BatchAnswer> {
        let checkpoint = self.covering(seq).await?.map(|(n, _)| n);
        let state = BatchState::Published;
        Ok(BatchAnswer { batch: id.to_owned(), seq, basis, state, checkpoint, not_found: vec![] })
    }

    /// The batches with this id and content in a Commit, with their indexes. More than one only if an id stands in it
    /// twice; only one of them is valid then, and only that one has anything in the reports.
    async fn committed(&self, id: &str, seen: Seen) -> Result<Vec<(u32, BatchRef)>> {
        let seq = seen.seq;
        let record = self.log.fetch(Partition::Ledger, seq).await?;
        let Some(Record::Commit(commit)) = record.map(|r| Record::decode(&r.payload)).transpose()? else {
            return Err(Error::corrupt(format!("seq {seq} has committed batch {id:?} but holds no Commit")));
        };
        let numbered = (0..).zip(commit.batches);
        Ok(numbered.filter(|(_, b)| b.id == id && b.digest == seen.digest).collect())
    }

    /// Number and Cut's seq of the checkpoint that covers a seq; `None` while there is none.
    pub async fn covering(&self, seq: Offset) -> Result<Option<(u64, Offset)>> {
        if let Some((cut, (from, n))) = lock(&self.receipts.covers).range(seq + 1..).next()
            && *from <= seq
        {
            return Ok(Some((*n, *cut)));
        }
        let Some(found) = self.next_checkpoint(seq + 1).await? else { return Ok(None) };
        let (n, cut) = (found.checkpoint.n, found.checkpoint.seq);
        let mut covers = lock(&self.receipts.covers);
        let from = covers.get(&cut).map_or(seq, |(from, _)| (*from).min(seq));
        covers.insert(cut, (from, n));
        if covers.len() > COVERS {
            covers.pop_first();
        }
        Ok(Some((n, cut)))
    }

    /// The paths that a batch removed although they were not there, sorted.
    async fn not_found(
        &self,
        n: u64,
        cut_seq: Offset,
        seq: Offset,
        batches: &[(u32, BatchRef)],
        parts: &BTreeSet<PartitionId>,
    ) -> Result<Vec<String>> {
        let mut cache = self.receipts.absent.lock().await;
        let mut found: BTreeMap<PartitionId, Arc<Vec<Absent>>> = BTreeMap::new();
        for p in parts {
            if let Some(absent) = cache.get(&(n, *p)) {
                found.insert(*p, absent.clone());
            }
        }
        if found.len() < parts.len() {
            let record = self.log.fetch(Partition::Ledger, cut_seq).await?;
            let record = record.map(|r| Record::decode(&r.payload)).transpose()?;
            if matches!(record, Some(Record::Recovery(_))) {
                return Ok(vec![]); // what was reported of it may be lost, and is not looked for
            }
            let Some(Record::Cut(cut)) = record else {
                return Err(Error::corrupt(format!("Checkpoint {n} names seq {cut_seq}, where no Cut is")));
            };
            for (p, reported) in self.reports(n, cut.folds_from, parts).await? {
                let absent = Arc::new(reported.report.absent);
                let held: usize = cache.values().flat_map(|a| a.iter()).map(|a| a.paths.len()).sum();
                let own: usize = absent.iter().map(|a| a.paths.len()).sum();
                if held + own <= ABSENT_PATHS {
                    cache.insert((n, p), absent.clone());
                } else if own <= ABSENT_PATHS {
                    cache.clear();
                    cache.insert((n, p), absent.clone());
                }
                if cache.len() > REPORTS {
                    cache.pop_first();
                }
                found.insert(p, absent);
            }
        }
        drop(cache);
        let own = |a: &&Absent| a.seq == seq && batches.iter().any(|(index, _)| *index == a.index);
        let absent = found.values().flat_map(|absent| absent.iter().filter(own));
        let paths: BTreeSet<String> = absent.flat_map(|a| a.paths.iter().cloned()).collect();
        Ok(paths.into_iter().collect())
    }

    /// What the partitions said about cut `n`, read from its place in `folds` until all of `parts` are whole.
    pub(super) async fn reports(
        &self,
        n: u64,
        from: Offset,
        parts: &BTreeSet<PartitionId>,
    ) -> Result<BTreeMap<PartitionId, Reported>> {
        let mut reader = self.log.reader(Partition::Folds, from);
        let mut open: BTreeMap<PartitionId, BTreeMap<u32, FoldReport>> = BTreeMap::new();
        let mut whole = BTreeMap::new();
        while !parts.iter().all(|p| whole.contains_key(p)) {
            let records = reader.read(READ_BYTES).await?;
            if records.is_empty() {
                break; // a batch that is void in this Commit names partitions that had no reason to report
            }
            for r in records {
                let (offset, time_ms, size) = (r.offset, r.time_ms, r.payload.len());
                let decode = move || FoldReport::decode(&r.payload);
                let report = match self.pool.run_on(size, decode).await {
                    Ok(report) => report,
                    Err(e) if e.kind == Kind::Unsupported => return Err(e),
                    Err(_) => continue, // no report: see the compactor
                };
                if report.n != n || whole.contains_key(&report.partition) {
                    continue;
                }
                let (partition, of) = (report.partition, open.entry(report.partition).or_default());
                of.insert(report.part, report);
                if let Some(report) = FoldReport::join(of) {
                    open.remove(&partition);
                    whole.insert(partition, Reported { offset, time_ms, report });
                }
            }
        }
        Ok(whole)
    }
}

/// A fold's report, whole.
pub(super) struct Reported {
    /// Where its last part stands in `folds`.
    pub offset: Offset,
    /// When the log took that, in Unix milliseconds.
    pub time_ms: u64,
    pub report: FoldReport,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
