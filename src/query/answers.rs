//! What questions are answered with: the JSON of the HTTP API, and of the commands' `--json`.
//!
//! Digests are lower hex, times Unix seconds, `seq`s positions in the ledger.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::targets::Entry;
use crate::bins::PartitionId;
use crate::log::Offset;

/// How far a batch has come: accepted → committed → folded → published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BatchState {
    /// Its Commit is in the ledger: it will be published, whatever stops meanwhile.
    Committed,
    /// Every partition it touches has applied it.
    Folded,
    /// timestamp.json leads to it.
    Published,
}

impl BatchState {
    /// As the API has it.
    pub fn name(self) -> &'static str {
        match self {
            BatchState::Committed => "committed",
            BatchState::Folded => "folded",
            BatchState::Published => "published",
        }
    }
}

/// What a producer gets back: the receipt of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct BatchAnswer {
    /// The batch's id.
    pub batch: String,
    /// The seq of the Commit in which it is valid: of the first one, however often it was sent.
    #[schema(value_type = u64)]
    pub seq: Offset,
    /// A ledger position to send as `basis` with the next batch, or with a retry of this one.
    #[schema(value_type = u64)]
    pub basis: Offset,
    /// How far it has come.
    pub state: BatchState,
    /// The checkpoint that published it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<u64>,
    /// The paths it removes that were not there, sorted; known when it is published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_found: Vec<String>,
}

/// A target as clients find it now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct TargetAnswer {
    /// The path.
    pub path: String,
    /// The target's length in bytes.
    pub length: u64,
    /// Digests by algorithm.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    pub hashes: Map<String, Value>,
    /// What its producer added for applications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub custom: Option<Map<String, Value>>,
    /// The role that lists it.
    pub bin: String,
    /// The version of that bin: the number of the cut that rendered it last.
    pub version: u64,
    /// The checkpoint that was looked at: the newest published, unless another was asked for.
    pub checkpoint: u64,
    /// What brought it; absent where that cannot be said at once: ask with `origin=full`, or for its history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// What brought a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct Origin {
    /// The batch.
    pub batch: String,
    /// The seq of its Commit.
    #[schema(value_type = u64)]
    pub seq: Offset,
    /// When the log took that, in Unix seconds.
    pub time: u64,
    /// The checkpoint that published it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<u64>,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct EntryAnswer {
    /// The target's length in bytes.
    pub length: u64,
    /// Digests by algorithm.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    #[schemars(with = "std::collections::BTreeMap<String, String>")]
    pub hashes: Map<String, Value>,
    /// What its producer added for applications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub custom: Option<Map<String, Value>>,
}

impl From<Entry> for EntryAnswer {
    fn from(Entry { length, hashes, custom }: Entry) -> EntryAnswer {
        EntryAnswer { length, hashes, custom }
    }
}

/// Where a path lives, whether there is a target or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct RouteAnswer {
    /// The path.
    pub path: String,
    /// SHA-256 of the path.
    pub sha256: String,
    /// The role that lists it, if anything does.
    pub bin: String,
    /// The bin's index.
    pub bin_index: u32,
    /// The partition the bin lives in.
    #[schema(value_type = u16)]
    pub partition: PartitionId,
}

/// How far what is published is behind the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct LagAnswer {
    /// The newest published checkpoint; 0 before the first.
    pub checkpoint: u64,
    /// The sum over the partitions.
    pub lag: u64,
    /// By partition.
    pub partitions: Vec<PartitionLag>,
    /// How far the intakes are with the inbox, by its partitions; empty where there is none.
    #[serde(default)]
    pub inbox: Vec<InboxLag>,
}

/// See [`LagAnswer::inbox`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct InboxLag {
    /// The partition of the inbox.
    #[schema(value_type = u16)]
    pub partition: PartitionId,
    /// Everything below it is sequenced or refused.
    #[schema(value_type = u64)]
    pub decided: Offset,
    /// One past the newest record.
    #[schema(value_type = u64)]
    pub end: Offset,
    /// The difference.
    pub lag: u64,
}

/// See [`LagAnswer::partitions`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct PartitionLag {
    /// The partition.
    #[schema(value_type = u16)]
    pub partition: PartitionId,
    /// One past the highest offset that the checkpoint has applied.
    #[schema(value_type = u64)]
    pub published: Offset,
    /// One past the newest segment.
    #[schema(value_type = u64)]
    pub end: Offset,
    /// The difference.
    pub lag: u64,
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct CheckpointAnswer {
    /// The number of its cut: the version of its snapshot, and of every bin it rendered.
    pub n: u64,
    /// The seq of its Cut: it holds exactly the batches committed below.
    #[schema(value_type = u64)]
    pub seq: Offset,
    /// When it was cut, in Unix seconds.
    pub time: u64,
    /// Its snapshot.
    pub snapshot: ObjectAnswer,
    /// For each partition one past the highest offset of `changes` applied.
    #[schema(value_type = Vec<u64>)]
    pub ends: Vec<Offset>,
    /// The ledger state stored with it, at the cuts that store one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger_state: Option<String>,
    /// The timestamp that leads to it; only for the newest one published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<TimestampAnswer>,
    /// What it came of; only where one checkpoint is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<CheckpointDetail>,
}

/// What a checkpoint came of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct CheckpointDetail {
    /// The checkpoint before it; absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<u64>,
    /// The seq of its own record.
    #[schema(value_type = u64)]
    pub checkpoint_seq: Offset,
    /// How many batches it publishes.
    pub batches: u64,
    /// How many changes those have.
    pub changes: u64,
    /// Whether every bin was rendered: at the first cut, and when keys or settings changed.
    pub all_bins: bool,
    /// Whether targets.json got a new version.
    pub targets_json: bool,
    /// The bins that got a new version, by name.
    pub bins: Vec<String>,
    /// The partition whose report came last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u16>)]
    pub waited_for: Option<PartitionId>,
    /// By partition.
    pub partitions: Vec<PartitionCut>,
    /// How long each stage took, by the times at which the log took its records.
    pub stages: Stages,
}

/// See [`CheckpointDetail::partitions`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct PartitionCut {
    /// The partition.
    #[schema(value_type = u16)]
    pub partition: PartitionId,
    /// One past the highest offset that the checkpoint before has applied.
    #[schema(value_type = u64)]
    pub from: Offset,
    /// The same of this one.
    #[schema(value_type = u64)]
    pub end: Offset,
    /// How many changes it publishes.
    pub changes: u64,
    /// How many bins were rendered.
    pub bins: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long after the Cut its report came, in milliseconds; absent if none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_ms: Option<u64>,
}

/// See [`CheckpointDetail::stages`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct Stages {
    /// From its first Commit to its Cut: waiting for the cut before it, or for the least time between two.
    pub gathered_ms: u64,
    /// From the Cut to the last report: bins folded, rendered, signed and stored.
    pub folded_ms: u64,
    /// From there to the Checkpoint: the snapshot rendered, signed and stored.
    pub sealed_ms: u64,
}

/// A stored object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct ObjectAnswer {
    /// Its name, such as `metadata/7.snapshot.json`.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// A timestamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct TimestampAnswer {
    /// Its version: the number of Checkpoint and Renew records so far.
    pub version: u64,
    /// When clients stop believing it, in Unix seconds.
    pub expires: u64,
}

/// When a published role expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct ExpiryAnswer {
    /// `root`, `timestamp`, `snapshot`, `targets`, or `bins`: of those the one that expires first.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// When clients stop believing it, in Unix seconds.
    pub expires: u64,
    /// For how long such a one is made, in seconds; it is renewed at half of it. Absent for the root, which people sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life_s: Option<u64>,
}

/// A page of checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct CheckpointsAnswer {
    /// Newest first.
    pub checkpoints: Vec<CheckpointAnswer>,
    /// What to ask for as `before` to get the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
}
