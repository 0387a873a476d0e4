//! History as a stream of JSON Lines, in the order of the ledger: what was committed with its verdict and its changes,
//! cuts and checkpoints. From any place on, and for as long as somebody reads.
//!
//! A line is bounded as its batch is. Its changes stand as they do in the segments, copied and not parsed again; those of
//! one path in the order in which they apply.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Query;
use super::records::{VerdictKind, first_of};
use super::search::Pattern;
use super::walk::{Entry, Walk};
use crate::bins::{Layout, PartitionId};
use crate::change::{Change, ChangeRequest};
use crate::error::{Error, Result};
use crate::fold::changes::Changes;
use crate::fold::decode::decode;
use crate::ledger::record::Commit;
use crate::ledger::{Event, Outcome, Record};
use crate::log::Offset;
use crate::pool::Pool;

/// One line of a replay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ReplayLine {
    /// A batch that a Commit names.
    Batch {
        /// The seq of the Commit.
        seq: Offset,
        /// Its place in the Commit, from 0.
        index: u32,
        /// Its id.
        batch: String,
        /// When the log took the Commit, in Unix milliseconds.
        time_ms: u64,
        /// Whether it applies.
        verdict: VerdictKind,
        /// The seq of the batch that it repeats, or whose id it has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        first: Option<Offset>,
        /// Its changes, if it applies.
        changes: Vec<ChangeRequest>,
    },
    /// A checkpoint will be made of the ledger up to here.
    Cut {
        /// Its seq.
        seq: Offset,
        /// Its number.
        n: u64,
        /// Its time, in Unix seconds: expiry counts from here.
        time: u64,
        /// When the log took it, in Unix milliseconds.
        time_ms: u64,
    },
    /// What was committed before its Cut is published.
    Checkpoint {
        /// Its seq.
        seq: Offset,
        /// Its number.
        n: u64,
        /// The seq of its Cut.
        cut: Offset,
        /// SHA-256 of `N.snapshot.json`.
        snapshot: String,
        /// For each partition one past the highest offset of `changes` applied.
        ends: Vec<Offset>,
        /// When the log took it, in Unix milliseconds.
        time_ms: u64,
    },
    /// Records were lost: what stands from seq `kept` up to here is void, and the repository goes on from checkpoint `n`.
    Recovery {
        /// Its seq.
        seq: Offset,
        /// The checkpoint.
        n: u64,
        /// The first seq that is void.
        kept: Offset,
        /// When the log took it, in Unix milliseconds.
        time_ms: u64,
    },
}

/// A line, written, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The seq of the ledger record that it is of.
    pub seq: Offset,
    /// Its `kind`.
    pub kind: &'static str,
    /// False for a batch that does not apply.
    pub valid: bool,
    /// True for the last line of its seq: whoever has read it goes on behind that.
    pub last: bool,
    /// The number of the checkpoint that it tells of, if it does.
    pub checkpoint: Option<u64>,
    /// JSON, without a newline.
    pub text: Vec<u8>,
}

/// What is replayed.
#[derive(Clone, Debug, Default)]
pub struct ReplayOptions {
    /// From this seq on.
    pub from: Offset,
    /// Up to this one.
    pub to: Option<Offset>,
    /// Only changes of paths that match, and batches that have any.
    pub filter: Option<Pattern>,
    /// No batches: of the changes nothing is read.
    pub without_batches: bool,
}

/// A replay under way.
pub struct Replay {
    walk: Walk,
    pool: Pool,
    layout: Option<Layout>,
    changes: Vec<Changes>,
    options: ReplayOptions,
    /// A Commit that waits for a segment.
    held: Option<Entry>,
    /// Of this partition.
    lacks: Option<PartitionId>,
    next: Offset,
    /// Room for large records, and that for the one whose lines are out.
    room: Option<Arc<Semaphore>>,
    taken: Option<OwnedSemaphorePermit>,
}

/// A Commit of more segments is a large record: 2 MiB and more, and several times that while it is written.
const FEW_SEGMENTS: usize = 4;

impl Query {
    /// Begins a replay.
    ///
    /// # Errors
    /// `Invalid` for a place beyond the ledger's end.
    pub async fn replay(&self, options: ReplayOptions) -> Result<Replay> {
        let end = self.ledger_end().await?;
        if options.from > end {
            return Err(Error::invalid("from", format!("the ledger ends at seq {end}, {} is beyond it", options.from)));
        }
        let walk = self.walk(options.from).await?;
        let next = options.from;
        Ok(Replay {
            walk,
            pool: self.pool.clone(),
            layout: None,
            changes: vec![],
            options,
            held: None,
            lacks: None,
            next,
            room: None,
            taken: None,
        })
    }
}

impl Replay {
    /// Shares room for large records with others: each takes a permit from when it is read until the next is asked for.
    pub fn within(self, room: Arc<Semaphore>) -> Replay {
        Replay { room: Some(room), ..self }
    }

    /// The lines of the next ledger record that has any; `None` when there is none now, and for good behind `to`.
    pub async fn next(&mut self) -> Result<Option<Vec<Line>>> {
        self.taken = None;
        loop {
            if self.options.to.is_some_and(|to| self.next > to) {
                return Ok(None);
            }
            let entry = match self.held.take() {
                Some(entry) => entry,
                None => match self.walk.next().await? {
                    Some(entry) if self.options.to.is_none_or(|to| entry.seq <= to) => entry,
                    Some(entry) => {
                        self.next = entry.seq; // behind the last that was asked for
                        return Ok(None);
                    }
                    None => return Ok(None),
                },
            };
            let seq = entry.seq;
            let mut lines = match (&entry.record, &entry.event) {
                (Record::Commit(_), _) if self.options.without_batches => vec![],
                (Record::Commit(commit), Event::Commit(outcomes)) => {
                    if let Some(room) = self.room.clone().filter(|_| commit.segments.len() > FEW_SEGMENTS) {
                        self.taken = room.acquire_owned().await.ok(); // never closed
                    }
                    match self.batches(&entry, commit.clone(), outcomes.clone()).await {
                        Ok(Some(lines)) => lines,
                        Ok(None) => {
                            (self.held, self.taken) = (Some(entry), None);
                            return Ok(None);
                        }
                        Err(e) => {
                            (self.held, self.taken) = (Some(entry), None);
                            return Err(e.context(format!("Commit {seq}")));
                        }
                    }
                }
                _ => line_of(&entry)?.into_iter().collect(),
            };
            self.next = seq + 1;
            if let Some(last) = lines.last_mut() {
                last.last = true;
                return Ok(Some(lines));
            }
        }
    }

    /// True when everything up to `to` was answered.
    pub fn is_done(&self) -> bool {
        self.options.to.is_some_and(|to| self.next > to)
    }

    /// The seq to go on from: everything below it has been answered.
    pub fn position(&self) -> Offset {
        self.next
    }

    /// Completes when [`Replay::next`] may have something. Cancel-safe.
    pub async fn ready(&mut self) -> Result<()> {
        match self.lacks.filter(|_| self.held.is_some()) {
            Some(partition) => self.changes[usize::from(partition)].ready().await,
            None => self.walk.ready().await,
        }
    }

    /// The lines of a Commit; `None` while a segment is not there yet.
    async fn batches(&mut self, entry: &Entry, commit: Commit, outcomes: Vec<Outcome>) -> Result<Option<Vec<Line>>> {
        let valid = |index: usize| outcomes.get(index) == Some(&Outcome::Valid);
        let layout = self.layout().await?;
        let touched = commit.batches.iter().enumerate().filter(|(index, _)| valid(*index));
        let touched: std::collections::BTreeSet<PartitionId> =
            touched.flat_map(|(_, batch)| batch.parts.iter().map(|(p, _)| *p)).collect();
        let mut segments: Vec<(PartitionId, Vec<Bytes>)> = Vec::with_capacity(touched.len());
        for partition in touched {
            let mut found = Vec::new();
            for named in commit.segments.iter().filter(|s| s.partition == partition) {
                let log = self.walk.log.clone();
                match self.changes[usize::from(partition)].find(&*log, named).await? {
                    Some(payload) => found.push(payload),
                    None => {
                        self.lacks = Some(partition);
                        return Ok(None); // not there yet; what was taken already is fetched again
                    }
                }
            }
            segments.push((partition, found));
        }
        let (seq, time_ms, filter) = (entry.seq, entry.time_ms, self.options.filter.clone());
        let bytes = segments.iter().flat_map(|(_, s)| s.iter().map(Bytes::len)).sum();
        let write = move || -> Result<Vec<Line>> {
            let ids: Vec<String> = commit.batches.iter().map(|b| b.id.clone()).collect();
            let mut changes: Vec<Vec<Change>> = vec![Vec::new(); commit.batches.len()];
            for (partition, segments) in segments {
                let count = |(index, batch): (usize, &crate::ledger::record::BatchRef)| {
                    let part = batch.parts.iter().find(|(p, _)| *p == partition)?;
                    (outcomes.get(index) == Some(&Outcome::Valid)).then_some((index, part.1))
                };
                let wanted: Vec<(usize, u32)> = commit.batches.iter().enumerate().filter_map(count).collect();
                for found in decode(&segments, &ids, &wanted, layout, partition, seq)? {
                    changes[found.index as usize].extend(found.changes);
                }
            }
            let mut lines = Vec::with_capacity(ids.len());
            for (index, ((id, outcome), changes)) in ids.iter().zip(&outcomes).zip(changes).enumerate() {
                let matches = |change: &&Change| filter.as_ref().is_none_or(|filter| filter.matches(change.path()));
                let kept: Vec<&Change> = changes.iter().filter(matches).collect();
                if filter.is_some() && kept.is_empty() {
                    continue;
                }
                let text = batch_line(id, &kept, (seq, index), time_ms, *outcome);
                lines.push(Line {
                    seq,
                    kind: "batch",
                    valid: *outcome == Outcome::Valid,
                    last: false,
                    checkpoint: None,
                    text,
                });
            }
            Ok(lines)
        };
        self.pool.run_on(bytes, write).await.map(Some)
    }

    /// The layout, and with it a reader for each partition.
    async fn layout(&mut self) -> Result<Layout> {
        if let Some(layout) = self.layout {
            return Ok(layout);
        }
        let layout = self.walk.state.layout()?;
        let ends = &self.walk.state.ends;
        // Where the state stands after this very Commit, its own segments lie before the ends: they are fetched.
        self.changes = (0..layout.partitions())
            .map(|p| {
                let from = if self.options.from == 0 { 0 } else { ends.get(usize::from(p)).copied().unwrap_or(0) };
                Changes::new(&*self.walk.log, p, from)
            })
            .collect();
        Ok(*self.layout.insert(layout))
    }
}

/// A batch as one line, its changes copied as they stand. Ids and lines need no escaping.
fn batch_line(id: &str, changes: &[&Change], (seq, index): (Offset, usize), time_ms: u64, outcome: Outcome) -> Vec<u8> {
    let mut out = Vec::with_capacity(160 + id.len() + changes.iter().map(|c| c.line_len()).sum::<usize>());
    let _ = write!(out, "{{\"batch\":\"{id}\",\"changes\":["); // a Vec takes everything
    for (i, change) in changes.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        change.write_line(&mut out);
        out.pop(); // its newline
    }
    out.push(b']');
    if let Some(first) = first_of(outcome) {
        let _ = write!(out, ",\"first\":{first}");
    }
    let verdict = VerdictKind::from(outcome).name();
    let _ = write!(
        out,
        ",\"index\":{index},\"kind\":\"batch\",\"seq\":{seq},\"time_ms\":{time_ms},\"verdict\":\"{verdict}\"}}"
    );
    out
}

/// The line of a record that is no Commit, if it has one.
fn line_of(entry: &Entry) -> Result<Option<Line>> {
    let (seq, time_ms) = (entry.seq, entry.time_ms);
    let mut checkpoint = None;
    let (kind, line) = match (&entry.record, &entry.event) {
        (Record::Cut(cut), Event::Cut) => ("cut", ReplayLine::Cut { seq, n: cut.n, time: cut.time, time_ms }),
        (Record::Checkpoint(c), Event::Checkpoint(n)) => {
            checkpoint = Some(*n);
            let (snapshot, ends) = (hex::encode(c.snapshot.sha256), c.ends.clone());
            ("checkpoint", ReplayLine::Checkpoint { seq, n: *n, cut: c.seq, snapshot, ends, time_ms })
        }
        (Record::Recovery(r), _) => ("recovery", ReplayLine::Recovery { seq, n: r.n, kept: r.kept, time_ms }),
        _ => return Ok(None),
    };
    let text = serde_json::to_vec(&line).map_err(|e| Error::corrupt(format!("ledger seq {seq}: {e}")))?;
    Ok(Some(Line { seq, kind, valid: true, last: false, checkpoint, text }))
}
