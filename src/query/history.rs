//! Every change of a path. It is read from the one partition that the path belongs to, backwards from its end; which
//! Commit names a segment is then looked up near the checkpoint that has applied it.

use std::collections::BTreeMap;

use bytes::Bytes;
use memchr::memmem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::receipts::is_commit;
use super::targets::Entry;
use super::timeline::Goal;
use super::verdict::Judge;
use super::view::View;
use super::{EntryAnswer, Origin, Query, READ_BYTES};
use crate::bins::PartitionId;
use crate::change::{Change, Op, check_path};
use crate::error::Result;
use crate::ledger::segment::{Part, Segment};
use crate::ledger::{Outcome, Record};
use crate::log::{self, Offset, Partition};

/// How many offsets are looked at first, from the end; then twice as many, and so on.
const FIRST_WINDOW: u64 = 32;
/// How many offsets are looked at at most before what was found is looked up.
const MAX_WINDOW: u64 = 4_096;
/// How many offsets are looked at for an answer, at most by one look more.
const LOOKED_AT: u64 = 100_000;
/// How much of a partition is read at once, in bytes.
const SEGMENT_BYTES: usize = 4 << 20;

/// Every change of a path, or a page of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct HistoryAnswer {
    /// The path.
    pub path: String,
    /// The role that lists it.
    pub bin: String,
    /// The partition it lives in.
    #[schema(value_type = u16)]
    pub partition: PartitionId,
    /// Newest first: by falling seq, and in a batch from its end.
    pub changes: Vec<HistoryChange>,
    /// Of the partition was read what stands at this offset and behind it.
    #[schema(value_type = u64)]
    pub read_from: Offset,
    /// And before this one.
    #[schema(value_type = u64)]
    pub read_to: Offset,
    /// What to ask for as `before` to read on; absent when the partition was read to its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub before: Option<Offset>,
}

/// A change that was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct HistoryChange {
    /// `add` (also for a replacement) or `remove`.
    pub op: Op,
    /// What was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<EntryAnswer>,
    /// The batch that brought it.
    pub batch: String,
    /// The seq of its Commit.
    #[schema(value_type = u64)]
    pub seq: Offset,
    /// When the log took that, in Unix seconds.
    pub time: u64,
    /// The checkpoint that published it; absent while none has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<u64>,
}

/// A segment in which a path was found: what each batch changes at it there, without the rest of the segment.
/// That it cannot be read counts only if a Commit names it.
struct Hit(Result<Vec<(Part, Vec<Change>)>>);

impl Hit {
    /// The ids of its batches.
    fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flatten().map(|(part, _)| part.id.as_str())
    }

    /// How many changes it has.
    fn count(&self) -> usize {
        self.0.iter().flatten().map(|(_, changes)| changes.len()).sum()
    }
}

/// Reads from a segment what it changes at a path.
fn changes_at(path: &str, payload: &Bytes) -> Result<Vec<(Part, Vec<Change>)>> {
    let mut parts = Vec::new();
    for (part, changes) in Segment::decode(payload)?.parts {
        // Copied, for a change shares the bytes of what it was read from.
        let copy = |change: &Change| {
            let mut line = Vec::with_capacity(change.line_len());
            change.write_line(&mut line);
            line.pop(); // its newline
            Change::from_line(&line.into())
        };
        let of_path: Vec<Change> = changes.iter().filter(|c| c.path() == path).map(copy).collect::<Result<_>>()?;
        if !of_path.is_empty() {
            parts.push((part, of_path));
        }
    }
    Ok(parts)
}

/// A Commit that names a segment.
struct Named {
    seq: Offset,
    time: u64,
}

/// What the line of a change of a path holds, and no other path's.
fn needle(path: &str) -> String {
    format!("\"path\":\"{path}\"}}\n") // a path has no character that is escaped, and stands last
}

impl Query {
    /// The changes of a path that were applied, newest first; read backwards from `before`, an offset of its partition,
    /// or from its end, until `limit` were found, or it was looked at so much as is reasonable at once. A segment's are answered together, so
    /// the last one may bring more.
    ///
    /// # Errors
    /// `Invalid` for what can be no path.
    pub async fn history(&self, path: &str, before: Option<Offset>, limit: usize) -> Result<HistoryAnswer> {
        self.read_back(path, before, limit, limit).await
    }

    /// The same until there are `limit` changes; of one look no more than `most` together.
    async fn read_back(&self, path: &str, before: Option<Offset>, limit: usize, most: usize) -> Result<HistoryAnswer> {
        check_path(path)?;
        let layout = self.layout().await?;
        let bin = layout.bin_of(path);
        let partition = layout.partition_of(bin);
        let end = self.log.end(Partition::Changes(partition)).await?;
        let read_to = before.map_or(end, |before| before.min(end));
        let (mut read_from, mut window) = (read_to, FIRST_WINDOW);
        let mut changes: Vec<HistoryChange> = Vec::new();
        while read_from > 0 && changes.len() < limit && read_to - read_from < LOOKED_AT {
            let low = read_from.saturating_sub(window);
            let wanted = most - changes.len();
            let (mut page, seen_from) = self.changes_between(path, partition, low..read_from, wanted).await?;
            changes.append(&mut page);
            (read_from, window) = (seen_from, (window * 2).min(MAX_WINDOW));
        }
        // Stable: what one Commit brings stays in order. Segments may be named in another order than they stand.
        changes.sort_by_key(|c| std::cmp::Reverse(c.seq));
        Ok(HistoryAnswer {
            path: path.to_owned(),
            bin: layout.name(bin),
            partition,
            changes,
            read_from,
            read_to,
            before: Some(read_from).filter(|from| *from > 0),
        })
    }

    /// What brought the entry of a view, `fragment`, read backwards from what its checkpoint has applied.
    pub(super) async fn origin(&self, path: &str, fragment: &str, view: &View) -> Result<Option<Origin>> {
        let (cut, partition) = (self.cut_of(view).await?, view.layout.partition_of(view.layout.bin_of(path)));
        let stands = EntryAnswer::from(Entry::parse(path, fragment)?);
        let checkpoint = self.published_checkpoint(view.n).await?.checkpoint;
        let mut before = checkpoint.ends.get(usize::from(partition)).copied();
        let (mut changes, mut missed) = (Vec::new(), false);
        loop {
            // All of a look: of two Commits at a time the later one may name the earlier segment.
            let page = self.read_back(path, before, 1, usize::MAX).await?;
            changes.extend(page.changes.into_iter().filter(|c| c.seq < cut));
            // The first of them: of those with one seq, which stand in order, the last that was applied.
            let last = changes.iter().rev().max_by_key(|c: &&HistoryChange| c.seq);
            match last {
                Some(last) if last.target.as_ref() == Some(&stands) => return Ok(Some(last.clone().into())),
                Some(_) if std::mem::replace(&mut missed, true) => return Ok(None),
                _ => {}
            }
            match page.before {
                Some(next) => before = Some(next),
                None => return Ok(None),
            }
        }
    }

    /// The same, if it can be said at once: where the path is folded here, bin state knows which seq wrote it.
    pub(super) async fn origin_at_hand(&self, path: &str, fragment: &str, view: &View) -> Result<Option<Origin>> {
        let Some(written) = self.writers.as_ref().and_then(|writers| writers(path)) else { return Ok(None) };
        let cut = self.cut_of(view).await?;
        // The last write that the fold knows of is the last before the cut, if it is one and the fold has passed that.
        if written.seq >= cut || written.position < cut {
            return Ok(None);
        }
        let Some(record) = self.log.fetch(Partition::Ledger, written.seq).await? else { return Ok(None) };
        // Of bins that were loaded from a checkpoint it knows only by when they were written.
        let Record::Commit(commit) = Record::decode(&record.payload)? else { return Ok(None) };
        let named = Named { seq: record.offset, time: record.time() };
        let partition = view.layout.partition_of(view.layout.bin_of(path));
        let (needle, mut hits) = (needle(path), Vec::new());
        for segment in commit.segments.iter().rev().filter(|s| s.partition == partition) {
            let Some(record) = self.log.fetch(Partition::Changes(partition), segment.offset).await? else { continue };
            if memmem::find(&record.payload, needle.as_bytes()).is_some() {
                hits.push(self.hit(path, partition, record).await);
            }
        }
        let newest = self.newest().await?;
        // A path that one batch alone changes there needs no judge: that the Commit has written it is known.
        let sure = hits.len() == 1 && hits[0].ids().count() == 1;
        let ids: Vec<String> = hits.iter().flat_map(Hit::ids).map(str::to_owned).collect();
        let mut judge = (!sure).then(|| self.judge(ids.iter().map(String::as_str)));
        for hit in hits {
            let last = self.applied(path, hit, &named, judge.as_mut(), newest).await?.into_iter().next();
            if let Some((change, line)) = last {
                return Ok((line.fragment().as_deref() == Some(fragment.as_bytes())).then(|| change.into()));
            }
        }
        Ok(None)
    }

    /// The changes of a path in a stretch of its partition, newest first, and where what was looked at begins: no
    /// further from the end than `wanted` changes lie.
    async fn changes_between(
        &self,
        path: &str,
        partition: PartitionId,
        stretch: std::ops::Range<Offset>,
        wanted: usize,
    ) -> Result<(Vec<HistoryChange>, Offset)> {
        let needle = needle(path);
        let finder = memmem::Finder::new(needle.as_bytes());
        let mut reader = self.log.reader(Partition::Changes(partition), stretch.start);
        let mut hits = BTreeMap::new();
        let (mut count, mut seen_from, mut next) = (0, stretch.start, stretch.start);
        while next < stretch.end {
            let records = reader.read(SEGMENT_BYTES).await?;
            let Some(last) = records.last() else { break };
            next = last.offset + 1;
            let found = records.into_iter().take_while(|r| r.offset < stretch.end);
            for record in found.filter(|r| finder.find(&r.payload).is_some()) {
                let (offset, hit) = (record.offset, self.hit(path, partition, record).await);
                count += hit.count();
                hits.insert(offset, hit);
                // Enough behind it: it is of the next page.
                while let Some(first) = hits.first_entry().filter(|first| count - first.get().count() >= wanted) {
                    count -= first.remove().count();
                    seen_from = *hits.first_key_value().map_or(&stretch.start, |(offset, _)| offset);
                }
            }
            tokio::task::yield_now().await;
        }
        let mut found = self.commits_of(partition, hits).await?;
        found.sort_by_key(|(_, named)| named.seq);
        let (newest, mut changes) = (self.newest().await?, Vec::new());
        let ids: Vec<String> = found.iter().flat_map(|(hit, _)| hit.ids()).map(str::to_owned).collect();
        let mut judge = self.judge(ids.iter().map(String::as_str));
        for (hit, named) in found {
            let applied = self.applied(path, hit, &named, Some(&mut judge), newest).await?;
            changes.push((named.seq, applied));
        }
        // The segments of one Commit come the last first.
        changes.sort_by_key(|(seq, _)| std::cmp::Reverse(*seq));
        let changes = changes.into_iter().flat_map(|(_, applied)| applied.into_iter().map(|(change, _)| change));
        Ok((changes.collect(), seen_from))
    }

    /// A segment, read.
    async fn hit(&self, path: &str, partition: PartitionId, record: log::Record) -> Hit {
        let log::Record { offset, payload, .. } = record;
        let path = path.to_owned();
        let read = self.pool.run_on(payload.len(), move || changes_at(&path, &payload)).await;
        Hit(read.map_err(|e| e.context(format!("segment {offset} of partition {partition}"))))
    }

    /// What a segment that a Commit names changes at a path, of the batches that are valid there, or of all without a
    /// judge; the last first. `newest` is the newest checkpoint published.
    async fn applied(
        &self,
        path: &str,
        hit: Hit,
        named: &Named,
        judge: Option<&mut Judge<'_>>,
        newest: u64,
    ) -> Result<Vec<(HistoryChange, Change)>> {
        let mut parts = hit.0?;
        if let Some(judge) = judge {
            let outcomes = judge.outcomes(named.seq).await?;
            parts.retain(|(part, _)| outcomes.get(part.index as usize) == Some(&Outcome::Valid));
        }
        let mut found = Vec::new();
        let checkpoint = if parts.is_empty() { None } else { self.published_by(named.seq, newest).await? };
        for (part, changes) in parts.into_iter().rev() {
            for change in changes.into_iter().rev() {
                let target = match change.fragment() {
                    Some(fragment) => Some(EntryAnswer::from(Entry::parse(path, &String::from_utf8_lossy(&fragment))?)),
                    None => None,
                };
                let op = if change.removes() { Op::Remove } else { Op::Add };
                let (batch, seq, time) = (part.id.clone(), named.seq, named.time);
                found.push((HistoryChange { op, target, batch, seq, time, checkpoint }, change));
            }
        }
        Ok(found)
    }

    /// The newest checkpoint published; 0 before the first.
    async fn newest(&self) -> Result<u64> {
        Ok(self.timestamp().await?.map_or(0, |t| t.snapshot.version))
    }

    /// The checkpoint that holds what was committed at a seq, if it is published.
    async fn published_by(&self, seq: Offset, newest: u64) -> Result<Option<u64>> {
        Ok(self.covering(seq).await?.map(|(n, _)| n).filter(|n| *n <= newest))
    }

    /// The Commits that name these segments of a partition. What none names was never applied.
    async fn commits_of(&self, partition: PartitionId, mut hits: BTreeMap<Offset, Hit>) -> Result<Vec<(Hit, Named)>> {
        let mut found = Vec::new();
        let end = self.log.end(Partition::Ledger).await?;
        while let Some(first) = hits.keys().next().copied() {
            // A segment that a later checkpoint has applied is named behind the Cut of the one before it; and as whoever
            // wrote it had read less of the ledger than there was then, not further on than the horizon.
            let (before, reached) = self.search(Goal::Applied(partition, first)).await?;
            let from = before.map_or(0, |placed| placed.checkpoint.seq + 1);
            let upto = match reached {
                Some(placed) => placed.checkpoint.seq.saturating_add(self.horizon().await?).min(end),
                None => end,
            };
            let mut reader = self.log.reader(Partition::Ledger, from);
            let mut next = from;
            while next < upto && hits.contains_key(&first) {
                tokio::task::yield_now().await;
                let records = reader.read(READ_BYTES).await?;
                let Some(last) = records.last() else { break };
                next = last.offset + 1;
                for r in records.iter().filter(|r| is_commit(&r.payload)) {
                    let Record::Commit(commit) = Record::decode(&r.payload)? else { continue };
                    let named: Vec<Offset> =
                        commit.segments.iter().filter(|s| s.partition == partition).map(|s| s.offset).collect();
                    for offset in named.into_iter().rev() {
                        if let Some(hit) = hits.remove(&offset) {
                            found.push((hit, Named { seq: r.offset, time: r.time() }));
                        }
                    }
                }
            }
            hits.remove(&first); // whoever wrote it died before its Commit
        }
        Ok(found)
    }
}

impl From<HistoryChange> for Origin {
    fn from(change: HistoryChange) -> Origin {
        let HistoryChange { batch, seq, time, checkpoint, .. } = change;
        Origin { batch, seq, time, checkpoint }
    }
}
