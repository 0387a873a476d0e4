//! The batches of a log that has lost records: those that are there whole, and those that no Commit names.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use bytes::Bytes;

use super::{READ_BYTES, object, recovered_state, state_at};
use crate::bins::{Bin, Layout, PartitionId, Sha256Digest, sha256};
use crate::change::{Batch, Change, MAX_ID_BYTES};
use crate::error::Result;
use crate::ledger::record::Commit;
use crate::ledger::segment::Segment;
use crate::ledger::{Event, Outcome, Record, State};
use crate::log::{self, Log, Offset, Partition};
use crate::store::{self, Store};
use crate::tuf::envelope::Envelope;
use crate::tuf::parse::{self, Snapshot};
use crate::tuf::root::Root;

/// What the ids begin with under which what is left of a batch is posted again.
const SALVAGED: &str = "salvaged:";

/// The valid batches of the Commits from `kept` up to `end` that are `wanted` and there whole: seq and id.
pub async fn survivors(
    log: &dyn Log,
    store: &dyn Store,
    (kept, end): (Offset, Offset),
    wanted: impl Fn(&str) -> bool + Send + Sync,
) -> Result<Vec<(Offset, String)>> {
    let mut all = Vec::new();
    let mut walk = Walk::new(log, store, kept, end).await?;
    while let Some((seq, batches)) = walk.next(log, store, &wanted).await? {
        all.extend(batches.into_iter().map(|b| (seq, b.id)));
    }
    Ok(all)
}

/// Walks over the Commits of a stretch of the ledger that a Recovery makes void.
pub struct Walk {
    state: State,
    end: Offset,
    buffer: VecDeque<log::Record>,
    reader: Box<dyn log::Reader>,
}

impl Walk {
    pub async fn new(log: &dyn Log, store: &dyn Store, from: Offset, end: Offset) -> Result<Walk> {
        let state = if from < end { state_at(log, store, from).await? } else { State::default() };
        Ok(Walk { state, end, buffer: VecDeque::new(), reader: log.reader(Partition::Ledger, from) })
    }

    /// The next Commit that has whole batches whose ids are `wanted`, with these.
    pub async fn next(
        &mut self,
        log: &dyn Log,
        store: &dyn Store,
        wanted: impl Fn(&str) -> bool + Send + Sync,
    ) -> Result<Option<(Offset, Vec<Batch>)>> {
        while self.state.layout.is_some() && self.state.next < self.end {
            if self.buffer.is_empty() {
                self.buffer = self.reader.read(READ_BYTES).await?.into();
            }
            let Some(r) = self.buffer.pop_front().filter(|r| r.offset < self.end) else { break };
            let record = Record::decode(&r.payload)?;
            if let Record::Recovery(same) = &record {
                // The one before whose repeat this walk ends: an append without an answer may have happened twice.
                self.state = recovered_state(store, r.offset, same).await?;
                continue;
            }
            let event = self.state.apply(r.offset, &record)?;
            if let (Record::Commit(commit), Event::Commit(outcomes)) = (&record, &event) {
                let valid = |(i, _): &(usize, _)| outcomes.get(*i) == Some(&Outcome::Valid);
                let named = commit.batches.iter().enumerate().filter(valid).filter(|(_, b)| wanted(&b.id));
                let open: Vec<usize> = named.map(|(i, _)| i).collect();
                let batches = whole(log, commit, &open).await?;
                if !batches.is_empty() {
                    return Ok(Some((r.offset, batches)));
                }
            }
        }
        Ok(None)
    }
}

/// Those of some batches of a Commit that are there whole.
async fn whole(log: &dyn Log, commit: &Commit, of: &[usize]) -> Result<Vec<Batch>> {
    let mut changes: BTreeMap<usize, Vec<Change>> = BTreeMap::new();
    if of.is_empty() {
        return Ok(vec![]);
    }
    for named in &commit.segments {
        let Some(r) = log.fetch(Partition::Changes(named.partition), named.offset).await? else { continue };
        if sha256(&r.payload) != named.digest {
            continue;
        }
        for (part, lines) in Segment::decode(&r.payload)?.parts {
            changes.entry(part.index as usize).or_default().extend(lines);
        }
    }
    let mut all = Vec::new();
    for index in of {
        let (batch, lines) = (&commit.batches[*index], changes.remove(index).unwrap_or_default());
        if lines.is_empty() {
            continue;
        }
        let found = Batch::new(batch.id.clone(), None, lines)?;
        if found.digest == batch.digest {
            all.push(found);
        }
    }
    Ok(all)
}

/// A batch that no Commit names, as far as it is there: nothing says how many changes it had in all.
pub struct Orphan {
    pub id: String,
    /// Records between its own are gone, and with them what it had there.
    pub incomplete: bool,
    pub segments: Vec<(PartitionId, Offset)>,
    pub changes: Vec<Change>,
}

/// Gathers the segments that no Commit names.
#[derive(Default)]
pub struct Orphans {
    by_id: BTreeMap<String, Vec<(PartitionId, Offset, Vec<Change>)>>,
    seen: HashSet<Sha256Digest>,
    /// Where a partition has no record though there is one behind it.
    holes: Vec<(PartitionId, Offset)>,
}

impl Orphan {
    /// The id to post it again under. Its own stays free: posted under it by its producer, who has it whole, it must
    /// not be refused as another batch.
    pub fn salvage_id(&self) -> String {
        const LEFT: usize = MAX_ID_BYTES - SALVAGED.len();
        if self.id.len() <= LEFT {
            return format!("{SALVAGED}{}", self.id);
        }
        let digest = hex::encode(sha256(self.id.as_bytes()));
        let head: String = self.id.chars().take(LEFT - 17).collect();
        format!("{SALVAGED}{head}:{}", &digest[..16])
    }
}

impl Orphans {
    /// Notes that a partition has no record at an offset, nor perhaps behind it.
    pub fn hole(&mut self, partition: PartitionId, at: Offset) {
        self.holes.push((partition, at));
    }

    /// Takes a segment. What does not decode is nobody's; batches whose id is decided are not missing.
    pub fn add(
        &mut self,
        partition: PartitionId,
        offset: Offset,
        digest: Sha256Digest,
        payload: &Bytes,
        decided: &HashSet<String>,
    ) {
        let Ok(segment) = Segment::decode(payload) else { return };
        if !self.seen.insert(digest) {
            return;
        }
        for (part, lines) in segment.parts.into_iter().filter(|(part, _)| !decided.contains(&part.id)) {
            let parts = self.by_id.entry(part.id).or_default();
            // The same part of it in another group: it was sent again.
            if !parts.iter().any(|(p, _, there)| *p == partition && *there == lines) {
                parts.push((partition, offset, lines));
            }
        }
    }

    pub fn into_batches(self) -> Vec<Orphan> {
        let holes = self.holes;
        let has_hole = |parts: &[(PartitionId, Offset, Vec<Change>)]| {
            holes.iter().any(|(p, hole)| {
                let own = || parts.iter().filter(|(partition, ..)| partition == p).map(|(_, offset, _)| offset);
                own().any(|offset| offset < hole) && own().any(|offset| offset > hole)
            })
        };
        let orphan = |(id, parts): (String, Vec<(PartitionId, Offset, Vec<Change>)>)| {
            let incomplete = has_hole(&parts);
            let segments = parts.iter().map(|(p, offset, _)| (*p, *offset)).collect();
            Orphan { id, incomplete, segments, changes: parts.into_iter().flat_map(|(.., lines)| lines).collect() }
        };
        self.by_id.into_iter().map(orphan).collect()
    }
}

/// Of each batch, whether a checkpoint says of every path what the batch does. Every bin is read once.
pub async fn are_published(
    store: &dyn Store,
    snapshot: &Snapshot,
    layout: Layout,
    root: &Root,
    orphans: &[Orphan],
) -> Result<Vec<bool>> {
    let mut by_bin: BTreeMap<Bin, BTreeMap<(&str, usize), &Change>> = BTreeMap::new();
    for (i, orphan) in orphans.iter().enumerate() {
        for change in &orphan.changes {
            by_bin.entry(layout.bin_of(change.path())).or_default().insert((change.path(), i), change); // the last counts
        }
    }
    let mut published = vec![true; orphans.len()];
    for (bin, changes) in by_bin {
        let role = layout.name(bin);
        let Some(version) = snapshot.bins.get(&role) else {
            changes.keys().for_each(|(_, i)| published[*i] = false);
            continue;
        };
        let bytes = object(store, &store::metadata_name(*version, &role), None).await?;
        let envelope = Envelope::open(&bytes)?;
        envelope.verify(&root.keys, &root.targets)?;
        let targets: HashMap<_, _> = parse::parse_bin(envelope.signed)?.targets.into_iter().collect();
        for ((path, i), change) in changes {
            let there = targets.get(path).map(|fragment| fragment.as_bytes());
            published[i] &= there == change.fragment().as_deref();
        }
    }
    Ok(published)
}
