//! The ledger, decoded: a stretch of it with what each record did, and one record in full with its segments.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Query;
use super::receipts::is_commit;
use super::walk::Entry;
use crate::bins::{PartitionId, sha256};
use crate::error::{Error, Result};
use crate::ledger::segment::Segment;
use crate::ledger::{Event, Outcome, Record};
use crate::log::{Offset, Partition};

/// How many records are looked at for an answer, at most.
const LOOKED_AT: u64 = 65_536;
/// An answer ends behind so many bytes of records.
const ANSWERED_BYTES: usize = 4 << 20;
/// Of the changes that a Commit's segments hold so many are shown.
const SHOWN_CHANGES: usize = 10_000;

/// The kinds of records, as the ledger has them.
pub const KINDS: [&str; 8] = ["format", "settings", "root", "commit", "cut", "checkpoint", "renew", "recovery"];

/// Which records are asked for.
#[derive(Clone, Debug, Default)]
pub struct Stretch {
    /// The first seq; if absent, the newest records are answered.
    pub from: Option<Offset>,
    /// Nothing behind this seq.
    pub to: Option<Offset>,
    /// Only these kinds, if any are named; each one of [`KINDS`].
    pub kinds: Vec<String>,
    /// How many at most.
    pub limit: usize,
}

impl Stretch {
    /// False if it is plain at a glance that a record is not of the kinds.
    fn may_have(&self, payload: &[u8]) -> bool {
        self.kinds.is_empty() || !is_commit(payload) || self.kinds.iter().any(|kind| kind == "commit")
    }

    /// Whether a record is of the kinds.
    fn has(&self, record: &Record) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == kind_of(record))
    }
}

/// A stretch of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct RecordsAnswer {
    /// In the order of the ledger.
    pub records: Vec<RecordAnswer>,
    /// The seq from which on it was looked.
    #[schema(value_type = u64)]
    pub from: Offset,
    /// The seq to go on from.
    #[schema(value_type = u64)]
    pub next: Offset,
    /// One past the newest record.
    #[schema(value_type = u64)]
    pub end: Offset,
}

/// A record of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct RecordAnswer {
    /// Its position.
    #[schema(value_type = u64)]
    pub seq: Offset,
    /// When the log took it, in Unix milliseconds by its own clock.
    pub time_ms: u64,
    /// Its kind, such as `commit`.
    pub kind: String,
    /// False if it changed nothing, for it does not follow from its predecessor. A Commit may still bring nothing.
    pub valid: bool,
    /// What became of each batch of a Commit, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Verdict>,
    /// Its length in bytes.
    pub length: u64,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// What it says, as `schemas/ledger.json` describes it.
    #[schema(value_type = Object)]
    pub record: Value,
    /// The segments that a Commit names, in its order; only where one record is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<SegmentAnswer>,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct Verdict {
    /// Its id.
    pub batch: String,
    /// Whether it applies.
    pub verdict: VerdictKind,
    /// The seq of the batch that it repeats, or whose id it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub first: Option<Offset>,
    /// How many changes it has.
    pub changes: u64,
}

/// Whether a batch applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum VerdictKind {
    /// It does.
    Valid,
    /// It has been applied before.
    Duplicate,
    /// Its id stands for other content.
    Conflict,
    /// Its record of the inbox has been taken in before.
    Repeated,
    /// It came too late, or is malformed: it applies nowhere.
    Void,
}

impl VerdictKind {
    /// As the API has it.
    pub fn name(self) -> &'static str {
        match self {
            VerdictKind::Valid => "valid",
            VerdictKind::Duplicate => "duplicate",
            VerdictKind::Conflict => "conflict",
            VerdictKind::Repeated => "repeated",
            VerdictKind::Void => "void",
        }
    }
}

impl From<Outcome> for VerdictKind {
    fn from(outcome: Outcome) -> VerdictKind {
        match outcome {
            Outcome::Valid => VerdictKind::Valid,
            Outcome::Duplicate { .. } => VerdictKind::Duplicate,
            Outcome::Conflict { .. } => VerdictKind::Conflict,
            Outcome::Repeated => VerdictKind::Repeated,
            Outcome::Void => VerdictKind::Void,
        }
    }
}

/// The seq of the batch that decided, if one did.
pub(super) fn first_of(outcome: Outcome) -> Option<Offset> {
    match outcome {
        Outcome::Duplicate { first } | Outcome::Conflict { first } => Some(first),
        _ => None,
    }
}

/// A segment that a Commit names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct SegmentAnswer {
    /// Its partition.
    #[schema(value_type = u16)]
    pub partition: PartitionId,
    /// Its offset there.
    #[schema(value_type = u64)]
    pub offset: Offset,
    /// The digest that the Commit says.
    pub sha256: String,
    /// `ok`, or what is wrong with what stands there.
    pub state: String,
    /// How many changes it has.
    #[serde(default)]
    pub count: u64,
    /// They, as they stand there; of a Commit the first 10,000.
    pub changes: Vec<SegmentChange>,
}

/// A change in a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct SegmentChange {
    /// The batch it belongs to.
    pub batch: String,
    /// It, as a batch has it.
    #[schema(value_type = Object)]
    pub change: Value,
}

/// The kind of a record, as the ledger has it.
pub fn kind_of(record: &Record) -> &'static str {
    match record {
        Record::Format(_) => "format",
        Record::Settings(_) => "settings",
        Record::Root(_) => "root",
        Record::Commit(_) => "commit",
        Record::Cut(_) => "cut",
        Record::Checkpoint(_) => "checkpoint",
        Record::Renew(_) => "renew",
        Record::Recovery(_) => "recovery",
    }
}

impl RecordAnswer {
    fn of(entry: Entry) -> Result<RecordAnswer> {
        let verdicts = match (&entry.record, &entry.event) {
            (Record::Commit(commit), Event::Commit(outcomes)) => {
                let of = |(batch, outcome): (&crate::ledger::record::BatchRef, &Outcome)| Verdict {
                    batch: batch.id.clone(),
                    verdict: (*outcome).into(),
                    first: first_of(*outcome),
                    changes: batch.parts.iter().map(|(_, count)| u64::from(*count)).sum(),
                };
                commit.batches.iter().zip(outcomes).map(of).collect()
            }
            _ => vec![],
        };
        let record = serde_json::from_slice(&entry.payload)
            .map_err(|e| Error::corrupt(format!("ledger seq {}: {e}", entry.seq)))?;
        Ok(RecordAnswer {
            seq: entry.seq,
            time_ms: entry.time_ms,
            kind: kind_of(&entry.record).to_owned(),
            valid: entry.event != Event::Void,
            verdicts,
            length: entry.payload.len() as u64,
            sha256: hex::encode(sha256(&entry.payload)),
            record,
            segments: vec![],
        })
    }
}

impl Query {
    /// A stretch of the ledger: as far as it is reasonable to look at once.
    ///
    /// # Errors
    /// `Invalid` for a kind that there is not.
    pub async fn records(&self, stretch: &Stretch) -> Result<RecordsAnswer> {
        if let Some(kind) = stretch.kinds.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
            return Err(Error::invalid("kind", format!("must be of {}, not {kind:?}", KINDS.join(", "))));
        }
        let end = self.log.end(Partition::Ledger).await?;
        let stop = stretch.to.map_or(end, |to| to.saturating_add(1)).min(end);
        let from = match stretch.from {
            Some(from) => from.min(end),
            None => self.newest_from(stop, stretch).await?,
        };
        let (mut next, mut bytes, mut wanted, mut ids) = (from, 0, 0, Vec::new());
        let mut raw = self.raw(from, stop.min(from.saturating_add(LOOKED_AT)));
        let most = if stretch.from.is_some() { ANSWERED_BYTES } else { usize::MAX };
        while wanted < stretch.limit && bytes < most {
            let Some(r) = raw.next().await? else {
                next = stop.min(from.saturating_add(LOOKED_AT)).max(from);
                break;
            };
            next = r.offset + 1;
            if !stretch.may_have(&r.payload) {
                continue;
            }
            let record = Record::decode(&r.payload).map_err(|e| e.context(format!("ledger seq {}", r.offset)))?;
            if stretch.has(&record) {
                (wanted, bytes) = (wanted + 1, bytes + r.payload.len());
                if let Record::Commit(commit) = record {
                    ids.extend(commit.batches.into_iter().map(|batch| batch.id));
                }
            }
        }
        let mut records = Vec::with_capacity(wanted);
        if wanted > 0 {
            let mut walk = self.walk_for(from, Some(ids.iter().map(String::as_str).collect())).await?;
            while records.len() < wanted {
                let Some(entry) = walk.next().await?.filter(|entry| entry.seq < next) else { break };
                if stretch.has(&entry.record) {
                    records.push(RecordAnswer::of(entry)?);
                }
            }
        }
        Ok(RecordsAnswer { records, from, next, end })
    }

    /// Where the newest `limit` records of the kinds begin that stand before `stop`, or as many as an answer takes; if
    /// there are fewer, how far it was looked back.
    async fn newest_from(&self, stop: Offset, stretch: &Stretch) -> Result<Offset> {
        let all = stretch.kinds.is_empty();
        let least = stop.saturating_sub(if all { LOOKED_AT.min(stretch.limit as u64) } else { LOOKED_AT });
        let (mut high, mut window, mut count, mut bytes) = (stop, (stretch.limit as u64).max(64), 0, 0);
        while high > least {
            let low = high.saturating_sub(window).max(least);
            let (mut raw, mut found) = (self.raw(low, high), Vec::new());
            while let Some(r) = raw.next().await? {
                if all || (stretch.may_have(&r.payload) && stretch.has(&Record::decode(&r.payload)?)) {
                    found.push((r.offset, r.payload.len()));
                }
            }
            for (offset, length) in found.into_iter().rev() {
                (count, bytes) = (count + 1, bytes + length);
                if count == stretch.limit || bytes >= ANSWERED_BYTES {
                    return Ok(offset);
                }
            }
            (high, window) = (low, window.saturating_mul(8));
        }
        Ok(least)
    }

    /// One record of the ledger with the segments that it names; `None` if nothing stands there.
    pub async fn record(&self, seq: Offset) -> Result<Option<RecordAnswer>> {
        let end = self.log.end(Partition::Ledger).await?;
        if seq >= end {
            return Ok(None);
        }
        let mut walk = self.walk_between(seq, seq + 1).await?;
        let Some(entry) = walk.next().await?.filter(|entry| entry.seq == seq) else { return Ok(None) };
        let named = match &entry.record {
            Record::Commit(commit) => commit.segments.clone(),
            _ => vec![],
        };
        let (mut answer, mut room) = (RecordAnswer::of(entry)?, SHOWN_CHANGES);
        for segment in named {
            let found = self.log.fetch(Partition::Changes(segment.partition), segment.offset).await?;
            let (state, count, changes) = match found.map(|r| r.payload) {
                None => ("is not there".to_owned(), 0, vec![]),
                Some(payload) => {
                    let right = sha256(&payload) == segment.digest;
                    let shown = move || Segment::decode(&payload).map(|segment| changes_of(segment, room));
                    match self.pool.run(shown).await {
                        Ok((count, changes)) if right => ("ok".to_owned(), count, changes),
                        Ok((count, changes)) => ("has another digest than the Commit says".to_owned(), count, changes),
                        Err(e) => (e.message, 0, vec![]),
                    }
                }
            };
            room -= changes.len();
            let (partition, offset, sha256) = (segment.partition, segment.offset, hex::encode(segment.digest));
            answer.segments.push(SegmentAnswer { partition, offset, sha256, state, count, changes });
        }
        Ok(Some(answer))
    }
}

/// How many changes a segment has, and the first of them.
fn changes_of(segment: Segment, room: usize) -> (u64, Vec<SegmentChange>) {
    let count = segment.parts.iter().map(|(_, changes)| changes.len() as u64).sum();
    let of_part = |(part, changes): (crate::ledger::segment::Part, Vec<crate::change::Change>)| {
        changes.into_iter().map(move |change| {
            let mut line = Vec::new();
            change.write_line(&mut line);
            // It was parsed from this line, so it is JSON.
            SegmentChange { batch: part.id.clone(), change: serde_json::from_slice(&line).unwrap_or(Value::Null) }
        })
    };
    (count, segment.parts.into_iter().flat_map(of_part).take(room).collect())
}
