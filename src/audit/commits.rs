//! Commits: what they name is gathered, then decoded and applied to the replayed bins, the partitions side by side.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt, stream};
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use super::objects::Listed;
use super::replay::{Replay, Step, Stop};
use super::segments::{self, Bad, Gathered};
use crate::bins::{Bin, Layout, PartitionId};
use crate::error::Error;
use crate::fold::changes::Changes;
use crate::fold::state::{self, Durability};
use crate::ledger::Outcome;
use crate::ledger::follower::Mark;
use crate::ledger::record::Commit;
use crate::log::{Offset, Partition};

/// How many bytes of segments are decoded and applied together.
const RUN_BYTES: usize = 16 << 20;

const SCRATCH_PREFIX: &str = "tuflog-audit-";

/// The bins as replayed, once the layout is known.
pub(super) struct Bins {
    pub layout: Layout,
    pub state: Arc<state::State>,
    /// By partition, what changed since the last cut.
    pub dirty: Vec<BTreeSet<Bin>>,
    /// By bin, the version in the last cut's snapshot; 0 before cut 1.
    pub versions: Vec<u64>,
    /// By bin, how many targets it had when it was rebuilt last.
    pub counts: Vec<u64>,
    /// The bins whose published version was not found right.
    pub unsound: BTreeSet<Bin>,
    pub listed: Listed,
    changes: Vec<Changes>,
    _scratch: Scratch,
}

/// A temporary directory for the replayed bins. Also removes those of audits that were killed: nobody locks them.
struct Scratch {
    dir: TempDir,
    _lock: File,
}

impl Scratch {
    fn new(within: Option<&Path>) -> io::Result<Scratch> {
        let within = within.map_or_else(std::env::temp_dir, Path::to_owned);
        for entry in fs::read_dir(&within)?.flatten() {
            let left = entry.file_name().to_string_lossy().starts_with(SCRATCH_PREFIX);
            if left && lock(&entry.path()).is_ok() {
                let _ = fs::remove_dir_all(entry.path()); // another's, perhaps: the audit does not depend on it
            }
        }
        loop {
            let dir = tempfile::Builder::new().prefix(SCRATCH_PREFIX).tempdir_in(&within)?;
            match lock(dir.path()) {
                Ok(lock) if dir.path().exists() => return Ok(Scratch { dir, _lock: lock }),
                Ok(_) => {} // one that started at the same time took it for left behind
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotFound) => {} // or is about to
                Err(e) => return Err(e),
            }
        }
    }
}

fn lock(dir: &Path) -> io::Result<File> {
    let handle = File::open(dir)?;
    flock(&handle, FlockOperation::NonBlockingLockExclusive)?;
    Ok(handle)
}

impl Replay<'_> {
    /// Makes room for the bins, once the layout is known.
    pub(super) fn open_bins(&mut self) -> Step {
        let layout = self.state.layout()?;
        let scratch = Scratch::new(self.options.scratch.as_deref())
            .map_err(|e| Error::unavailable(format!("no temporary directory for the audit: {e}")))?;
        let opened = state::State::open_with(state::options(), scratch.dir.path(), layout, Durability::Flushes)?;
        let (bins, partitions) = (layout.bins() as usize, usize::from(layout.partitions()));
        self.bins = Some(Bins {
            layout,
            state: Arc::new(opened),
            dirty: vec![BTreeSet::new(); partitions],
            versions: vec![0; bins],
            counts: vec![0; bins],
            unsound: BTreeSet::new(),
            listed: Listed::new(std::mem::take(&mut self.names), layout),
            // From where the state stands: what lies before is of earlier Commits, or is fetched.
            changes: (0..).zip(&self.state.ends).map(|(p, end)| Changes::new(&*self.log, p, *end)).collect(),
            _scratch: scratch,
        });
        let (cut, upto) = (self.state.cut, self.options.range.to.unwrap_or(u64::MAX));
        let objects = self.bins()?.listed.count_cuts(cut, upto);
        self.pace.expect(objects);
        Ok(())
    }

    /// What is known once there is a Format record, which the ledger state demands to be the first.
    pub(super) fn bins(&mut self) -> Step<&mut Bins> {
        self.bins.as_mut().ok_or_else(|| Error::corrupt("the ledger begins without a Format record").into())
    }

    /// Gathers a Commit with its segments.
    pub(super) async fn commit(&mut self, seq: Offset, commit: Commit, outcomes: Vec<Outcome>) -> Step {
        self.report.commits += 1;
        for outcome in &outcomes {
            *match outcome {
                Outcome::Valid => &mut self.report.batches_valid,
                Outcome::Duplicate { .. } | Outcome::Repeated => &mut self.report.batches_duplicate,
                Outcome::Conflict { .. } => &mut self.report.batches_conflict,
                Outcome::Void => &mut self.report.batches_void,
            } += 1;
        }
        if self.blind.is_some() {
            return Ok(());
        }
        if let Err(finding) = segments::check_commit(seq, &commit, &outcomes) {
            self.find(finding)?;
        }
        let counting = commit.batches.iter().zip(&outcomes).filter(|(_, o)| **o != Outcome::Void);
        let touched: BTreeSet<PartitionId> = counting.flat_map(|(b, _)| b.parts.iter().map(|(p, _)| *p)).collect();
        let mut found = Vec::new();
        for named in commit.segments.iter().filter(|s| touched.contains(&s.partition)) {
            let log = self.log.clone();
            let mut payload = self.bins()?.changes[usize::from(named.partition)].at(&*log, named.offset).await?;
            if payload.is_none() {
                // The reader may not have come to it; what the log does not give by its offset either is not there.
                let record = log.fetch(Partition::Changes(named.partition), named.offset).await?;
                payload = record.map(|r| r.payload);
            }
            if self.is_lost(named, payload.as_ref()) {
                self.flush().await?;
                self.blind = Some(seq);
                return Ok(());
            }
            match payload {
                Some(bytes) => {
                    self.run_bytes += bytes.len();
                    found.push((named.clone(), bytes));
                }
                None => {
                    let finding = self.astray(seq, &commit, &outcomes, named, None).await?;
                    return Err(self.lost(finding));
                }
            }
        }
        self.run.push(Gathered { seq, commit, outcomes, segments: found });
        if self.run_bytes >= RUN_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Ends with what is wrong in a run of Commits.
    async fn bad(&mut self, run: &[Gathered], bad: Bad) -> Step<Stop> {
        let finding = match bad {
            Bad::Found(finding) => finding,
            Bad::Astray(seq, named) => {
                let Some(of) = run.iter().find(|g| g.seq == seq) else { return Ok(Stop::Enough) };
                let found = of.segments.iter().find(|(s, _)| *s == named).map(|(_, bytes)| bytes);
                self.astray(seq, &of.commit, &of.outcomes, &named, found).await?
            }
        };
        Ok(self.lost(finding))
    }

    /// Decodes and applies what was gathered, the partitions side by side.
    pub(super) async fn flush(&mut self) -> Step {
        let run = Arc::new(std::mem::take(&mut self.run));
        self.run_bytes = 0;
        let touched: BTreeSet<PartitionId> =
            run.iter().flat_map(|g| g.segments.iter().map(|(s, _)| s.partition)).collect();
        if touched.is_empty() {
            return Ok(());
        }
        let (pool, parallel) = (self.options.pool.clone(), self.options.parallel.max(1));
        let layout = self.bins()?.layout;
        let decode = |p: PartitionId| {
            let run = run.clone();
            pool.run(move || segments::decode(&run, p, layout))
        };
        let decoding: Vec<_> = stream::iter(touched.iter().copied().map(decode)).buffered(parallel).collect().await;
        let mut decoded = Vec::with_capacity(decoding.len());
        for found in decoding {
            match found {
                Ok(found) => decoded.push(found),
                Err(bad) => return Err(self.bad(&run, bad).await?),
            }
        }
        let (decoded, own) = (Arc::new(decoded), run.clone());
        let all = decoded.clone();
        let digests = pool.run(move || segments::check_digests(&own, &all)).await;
        self.report.batch_digests += digests.map_err(|finding| self.lost(finding))?;
        let Some(next) = run.last().map(|last| last.seq + 1) else { return Ok(()) };
        let bins = self.bins()?;
        let work = touched.iter().enumerate().map(|(at, p)| {
            let (p, decoded, state) = (*p, decoded.clone(), bins.state.clone());
            let mut dirty = std::mem::take(&mut bins.dirty[usize::from(p)]);
            pool.run(move || {
                let batches = &decoded[at].batches;
                let applied = if batches.is_empty() {
                    Ok(())
                } else {
                    state.apply(p, batches, &Mark { next, last: None }, &mut dirty)
                };
                applied.map(|()| dirty)
            })
        });
        let work: Vec<_> = work.collect();
        let applied: Vec<_> = stream::iter(work).buffered(parallel).collect().await;
        for ((p, dirty), found) in touched.into_iter().zip(applied).zip(&*decoded) {
            self.report.segments += found.segments;
            self.report.changes += found.batches.iter().map(|b| b.changes.len() as u64).sum::<u64>();
            self.bins()?.dirty[usize::from(p)] = dirty?;
        }
        Ok(())
    }
}
