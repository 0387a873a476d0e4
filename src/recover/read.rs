//! The ledger as far as it is there, read once from its last Recovery on, or from its beginning.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::{Anchor, READ_BYTES, last_anchor, recovered_state, recovery_since, state_at};
use crate::bins::{PartitionId, Sha256Digest};
use crate::error::{Error, Result};
use crate::ledger::state::SignedRoot;
use crate::ledger::{Event, Outcome, Record, State};
use crate::log::{Log, Offset, Partition};
use crate::store::Store;

/// See the module.
pub struct Read {
    /// At its end.
    pub state: State,
    /// The first record, if it is not the one that a ledger begins with.
    pub first: Option<Offset>,
    /// One past the last record that is no filler of a recovery.
    pub end: Offset,
    /// By number, the seq of the Cut (or the Recovery).
    pub cuts: BTreeMap<u64, Offset>,
    pub roots: BTreeMap<u64, Arc<SignedRoot>>,
    pub segments: BTreeMap<(PartitionId, Offset), Named>,
    /// The ids that are decided.
    pub ids: HashSet<String>,
    /// Segments below it are not looked at.
    pub from: Vec<Offset>,
}

/// A segment as a Commit names it.
pub struct Named {
    pub digest: Sha256Digest,
    pub seq: Offset,
    /// A valid batch has changes in its partition.
    pub needed: bool,
}

/// Reads the ledger.
pub async fn read(log: &dyn Log, store: &dyn Store) -> Result<Read> {
    let end = log.end(Partition::Ledger).await?;
    let first = log.reader(Partition::Ledger, 0).read(1).await?.into_iter().next();
    let start = match (recovery_since(log, 0).await?, &first) {
        (Some((seq, r)), _) => recovered_state(store, seq, &r).await?,
        (None, Some(r)) if !matches!(Record::decode(&r.payload)?, Record::Format(_)) => {
            match last_anchor(log, end, |c| c.state.is_some()).await? {
                Some(Anchor::Checkpoint(c)) => state_at(log, store, c.seq + 1).await?,
                _ => {
                    let what = "the ledger has lost its beginning, and no Checkpoint that is left names a stored state";
                    return Err(Error::corrupt(what));
                }
            }
        }
        _ => State::default(),
    };
    let known = [start.stamp.as_ref().map(|s| &s.root), start.cut_root.as_ref(), start.root.as_ref()];
    let roots = known.into_iter().flatten().chain(&start.new_roots).map(|r| (r.root.version, r.clone())).collect();
    let cuts = start.stamp.iter().map(|s| (s.n, start.next.saturating_sub(1))).collect();
    let from = start.ends.clone();
    let (segments, ids, last) = (BTreeMap::new(), HashSet::new(), start.next);
    let first = match &first {
        Some(r) if !matches!(Record::decode(&r.payload)?, Record::Format(_)) => Some(r.offset),
        _ => None,
    };
    let mut read = Read { state: start, first, end: last, cuts, roots, segments, ids, from };
    if let Some(open) = &read.state.open {
        read.cuts.insert(open.n, open.seq);
    }
    let mut reader = log.reader(Partition::Ledger, read.state.next);
    while read.state.next < end {
        let records = reader.read(READ_BYTES).await?;
        if records.is_empty() {
            break;
        }
        for r in records {
            let at = |e: Error| e.context(format!("ledger seq {}", r.offset));
            let record = Record::decode(&r.payload).map_err(at)?;
            let event = read.state.apply(r.offset, &record).map_err(at)?;
            read.take(r.offset, &record, &event);
        }
    }
    Ok(read)
}

impl Read {
    fn take(&mut self, seq: Offset, record: &Record, event: &Event) {
        match (record, event) {
            (Record::Cut(c), _) if c.n == 0 => return, // a filler
            (Record::Cut(c), Event::Cut) => drop(self.cuts.insert(c.n, seq)),
            (Record::Root(_), Event::Changed) => {
                self.roots.extend(self.state.root.iter().map(|r| (r.root.version, r.clone())));
            }
            (Record::Commit(commit), Event::Commit(outcomes)) => {
                let valid =
                    || commit.batches.iter().zip(outcomes).filter(|(_, o)| **o == Outcome::Valid).map(|(b, _)| b);
                let touched: BTreeSet<PartitionId> = valid().flat_map(|b| b.parts.iter().map(|(p, _)| *p)).collect();
                let decided = commit.batches.iter().zip(outcomes).filter(|(_, o)| **o != Outcome::Void);
                self.ids.extend(decided.map(|(b, _)| b.id.clone()));
                for s in &commit.segments {
                    let needed = touched.contains(&s.partition);
                    let known = self.segments.get(&(s.partition, s.offset)).is_some_and(|n| n.needed);
                    if needed || !known {
                        self.segments.insert((s.partition, s.offset), Named { digest: s.digest, seq, needed });
                    }
                }
            }
            _ => {}
        }
        self.end = seq + 1;
    }
}
