//! The ledger, decoded: a stretch of it with what each record did, and one record in full with its segments.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Query;
use super::walk::Entry;
use crate::bins::{PartitionId, sha256};
use crate::error::{Error, Result};
use crate::ledger::segment::Segment;
use crate::ledger::{Event, Outcome, Record};
use crate::log::{Offset, Partition};

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

/// A stretch of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct RecordsAnswer {
    /// In the order of the ledger.
    pub records: Vec<RecordAnswer>,
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
    /// Its changes, as they stand there.
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
    /// A stretch of the ledger.
    ///
    /// # Errors
    /// `Invalid` for a kind that there is not.
    pub async fn records(&self, stretch: &Stretch) -> Result<RecordsAnswer> {
        if let Some(kind) = stretch.kinds.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
            return Err(Error::invalid("kind", format!("must be of {}, not {kind:?}", KINDS.join(", "))));
        }
        let end = self.log.end(Partition::Ledger).await?;
        let stop = stretch.to.map_or(end, |to| to.saturating_add(1)).min(end);
        let (mut from, mut back) = match stretch.from {
            Some(from) => (from.min(end), None),
            // The newest ones: further back for as long as there are too few of the kinds.
            None => (stop.saturating_sub(stretch.limit as u64), Some(stretch.limit as u64)),
        };
        loop {
            let (records, next) = self.stretch_from(from, stop, stretch, back.is_some()).await?;
            match back {
                Some(length) if records.len() < stretch.limit && from > 0 => {
                    let length = length.saturating_mul(8);
                    (from, back) = (stop.saturating_sub(length), Some(length));
                }
                _ => return Ok(RecordsAnswer { records, next, end }),
            }
        }
    }

    /// The first or the last `limit` records of the kinds from a place on.
    async fn stretch_from(
        &self,
        from: Offset,
        stop: Offset,
        stretch: &Stretch,
        last: bool,
    ) -> Result<(Vec<RecordAnswer>, Offset)> {
        let mut walk = self.walk(from).await?;
        let (mut records, mut next) = (std::collections::VecDeque::new(), from);
        while next < stop && (last || records.len() < stretch.limit) {
            let Some(entry) = walk.next().await?.filter(|entry| entry.seq < stop) else {
                next = stop;
                break;
            };
            next = entry.seq + 1;
            if stretch.kinds.is_empty() || stretch.kinds.iter().any(|kind| kind == kind_of(&entry.record)) {
                records.push_back(RecordAnswer::of(entry)?);
            }
            if records.len() > stretch.limit {
                records.pop_front();
            }
        }
        Ok((records.into(), next))
    }

    /// One record of the ledger with the segments that it names; `None` if nothing stands there.
    pub async fn record(&self, seq: Offset) -> Result<Option<RecordAnswer>> {
        let end = self.log.end(Partition::Ledger).await?;
        if seq >= end {
            return Ok(None);
        }
        let Some(entry) = self.walk(seq).await?.next().await?.filter(|entry| entry.seq == seq) else {
            return Ok(None);
        };
        let named = match &entry.record {
            Record::Commit(commit) => commit.segments.clone(),
            _ => vec![],
        };
        let mut answer = RecordAnswer::of(entry)?;
        for segment in named {
            let found = self.log.fetch(Partition::Changes(segment.partition), segment.offset).await?;
            let (state, changes) = match found.map(|r| r.payload) {
                None => ("is not there".to_owned(), vec![]),
                Some(payload) => {
                    let right = sha256(&payload) == segment.digest;
                    let decoded = self.pool.run_on(payload.len(), move || Segment::decode(&payload)).await;
                    match decoded {
                        Ok(decoded) if right => ("ok".to_owned(), changes_of(decoded)),
                        Ok(decoded) => ("has another digest than the Commit says".to_owned(), changes_of(decoded)),
                        Err(e) => (e.message, vec![]),
                    }
                }
            };
            let (partition, offset, sha256) = (segment.partition, segment.offset, hex::encode(segment.digest));
            answer.segments.push(SegmentAnswer { partition, offset, sha256, state, changes });
        }
        Ok(Some(answer))
    }
}

fn changes_of(segment: Segment) -> Vec<SegmentChange> {
    let of_part = |(part, changes): (crate::ledger::segment::Part, Vec<crate::change::Change>)| {
        changes.into_iter().map(move |change| {
            let mut line = Vec::new();
            change.write_line(&mut line);
            // It was parsed from this line, so it is JSON.
            SegmentChange { batch: part.id.clone(), change: serde_json::from_slice(&line).unwrap_or(Value::Null) }
        })
    };
    segment.parts.into_iter().flat_map(of_part).collect()
}
