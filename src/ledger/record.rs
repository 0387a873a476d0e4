//! The records of topic `ledger`, as canonical JSON `{"kind":…,…,"v":1}`.
//!
//! A record kind or version that this program does not know is `Unsupported`: it must not go on, for every reader has
//! to reach the same state. A known kind that does not parse is `Corrupt`: no tuflog wrote it.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::VERSION;
use super::inbox::InboxPlace;
use crate::bins::{PartitionId, Sha256Digest};
use crate::error::{Error, Result};
use crate::log::Offset;
use crate::tuf::canonical;

/// One record of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    /// The first record: how the repository is laid out, and by which rules it is rendered.
    Format(Format),
    /// Settings that change a published byte or a verdict.
    Settings(SettingsRecord),
    /// A version of root, with the keys that sign from the next Cut on.
    Root(RootRecord),
    /// Names the segments of one or more batches: the commit point.
    Commit(Commit),
    /// Names the prefix of the ledger that checkpoint `n` is made of.
    Cut(Cut),
    /// The snapshot of cut `n` is stored: timestamp.json may point to it.
    Checkpoint(Checkpoint),
    /// Re-signs the timestamp over the last snapshot.
    Renew(Renew),
    /// Goes on from a checkpoint after records of the log were lost.
    Recovery(Box<Recovery>),
}

/// See [`Record::Format`]. The first one in the ledger counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Format {
    /// The rendering epoch.
    pub epoch: u64,
    /// Number of hash bins, a power of two.
    pub bins: u32,
    /// Number of partitions, a power of two, at most `bins`.
    pub partitions: u32,
}

/// See [`Record::Settings`]. Void unless `revision` is one more than the revision in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsRecord {
    /// Counts the settings of this repository from 1.
    pub revision: u64,
    /// The settings.
    pub settings: Settings,
}

/// What the ledger itself decides. Times in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// For how many ledger positions batch ids are remembered and a commit may lag behind its basis. Never lowered.
    pub horizon: u64,
    /// The ledger state is stored at every cut whose number this divides.
    pub state_every: u64,
    /// How long targets.json is valid; renewed at half of it, as all roles are.
    pub targets_expiry_s: u64,
    /// How long a bin is valid.
    pub bins_expiry_s: u64,
    /// How long a snapshot is valid.
    pub snapshot_expiry_s: u64,
    /// How long a timestamp is valid.
    pub timestamp_expiry_s: u64,
}

const DAY: u64 = 86_400;

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            horizon: 65_536,
            state_every: 64,
            targets_expiry_s: 365 * DAY,
            bins_expiry_s: 7 * DAY,
            snapshot_expiry_s: 7 * DAY,
            timestamp_expiry_s: DAY,
        }
    }
}

impl Settings {
    /// How long after it was rendered a bin is rendered again though nothing changed, in seconds.
    pub fn bin_period_s(&self) -> u64 {
        self.bins_expiry_s / 2
    }

    /// Refuses what could not work.
    pub fn check(&self) -> Result<()> {
        let at_least = |field: &str, is: u64, least: u64| match is >= least {
            true => Ok(()),
            false => Err(Error::invalid(field, format!("must be at least {least}, not {is}"))),
        };
        at_least("horizon", self.horizon, 1)?;
        at_least("state_every", self.state_every, 1)?;
        at_least("targets_expiry_s", self.targets_expiry_s, 2)?;
        at_least("bins_expiry_s", self.bins_expiry_s, 2)?;
        at_least("snapshot_expiry_s", self.snapshot_expiry_s, 2)?;
        at_least("timestamp_expiry_s", self.timestamp_expiry_s, 2)
    }
}

/// See [`Record::Root`]. Void unless it is the successor of the root in force, signed as the TUF specification says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RootRecord {
    /// The whole of `N.root.json`, as it is published.
    pub document: String,
}

/// See [`Record::Commit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// The batches, in the order in which they apply.
    pub batches: Vec<BatchRef>,
    /// The segments, in the order in which they apply, whatever their offsets.
    pub segments: Vec<SegmentRef>,
}

/// A batch as its Commit names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchRef {
    /// The id its producer chose.
    pub id: String,
    /// Its content digest: SHA-256 of its change lines by rising place.
    #[serde(with = "hex::serde")]
    #[schemars(with = "String")]
    pub digest: Sha256Digest,
    /// The seq at which the id was looked up and not found, or which its producer sent.
    pub basis: Offset,
    /// How many changes it has in each partition it touches: `[partition, count]`, by rising partition.
    pub parts: Vec<(PartitionId, u32)>,
    /// `[partition, offset]` of the inbox record that brought it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbox: Option<InboxPlace>,
}

/// A segment as a Commit names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SegmentRef {
    /// The partition of `changes` it stands in.
    pub partition: PartitionId,
    /// Its offset there.
    pub offset: Offset,
    /// SHA-256 of the raw record.
    #[serde(with = "hex::serde")]
    #[schemars(with = "String")]
    pub digest: Sha256Digest,
}

/// See [`Record::Cut`]. Void unless the last cut is `n` − 1 and has its Checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// The number of this cut: from 1, without gaps.
    pub n: u64,
    /// Unix seconds. The time in force is the latest of all valid Cuts and Renews.
    pub time: u64,
    /// The end of topic `folds` as read before this record was appended: its reports stand at or after it.
    pub folds_from: Offset,
}

/// See [`Record::Checkpoint`]. Void unless cut `n` is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The cut it completes.
    pub n: u64,
    /// The seq of that Cut.
    pub seq: Offset,
    /// The stored `N.snapshot.json`.
    pub snapshot: ObjectRef,
    /// The stored ledger state, at the cuts that write one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateRef>,
    /// For each partition one past the highest offset of `changes` applied up to the cut.
    pub ends: Vec<Offset>,
}

/// A stored object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ObjectRef {
    /// In bytes.
    pub length: u64,
    /// Of the stored bytes.
    #[serde(with = "hex::serde")]
    #[schemars(with = "String")]
    pub sha256: Sha256Digest,
}

/// The two stored objects of a ledger state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StateRef {
    /// SHA-256 of the state object.
    #[serde(with = "hex::serde")]
    #[schemars(with = "String")]
    pub sha256: Sha256Digest,
    /// SHA-256 of the ids object.
    #[serde(with = "hex::serde")]
    #[schemars(with = "String")]
    pub ids: Sha256Digest,
}

/// See [`Record::Renew`]. Void unless the timestamp's version is `after`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// The version of the timestamp that it replaces.
    pub after: u64,
    /// Unix seconds.
    pub time: u64,
}

/// See [`Record::Recovery`]. An operator's word that records are gone: the state after it does not follow from what
/// stands before it, but is the stored one that it names (see [`recovery`](super::recovery)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// The checkpoint that the repository goes on from.
    pub n: u64,
    /// Its `N.snapshot.json`.
    pub snapshot: ObjectRef,
    /// The version of the timestamp that points to it.
    pub version: u64,
    /// When that timestamp was made, in Unix seconds.
    pub time: u64,
    /// When it expires, in Unix seconds.
    pub expires: u64,
    /// What is left of the ledger below it is part of checkpoint `n`; everything from it up to this record is void.
    pub kept: Offset,
    /// The next cut is one more: no cut up to this number is made, or made again.
    pub cut: u64,
    /// The stored ledger state.
    pub state: StateRef,
    /// The end of each partition of `changes`.
    pub ends: Vec<Offset>,
    /// Seqs of the ledger that were lost, `[from, to)`, as far as there was evidence of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<(Offset, Offset)>,
    /// The offsets of `changes` that the ledger names and that were lost lie in `[partition, from, to)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost_changes: Vec<(PartitionId, Offset, Offset)>,
}

/// The kinds that [`Record::decode`] knows.
const KINDS: [&str; 8] = ["format", "settings", "root", "commit", "cut", "checkpoint", "renew", "recovery"];

impl Record {
    /// Canonical JSON.
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// The inverse of [`Record::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Record> {
        // Commits come by the thousand, and need not be turned over twice. What is none goes the way of all.
        match serde_json::from_slice::<CommitLine<'_>>(bytes) {
            Ok(CommitLine { batches, kind: "commit", segments, v: VERSION }) => {
                Ok(Record::Commit(Commit { batches, segments }))
            }
            _ => decode(bytes, &KINDS),
        }
    }
}

/// A Commit as it stands in the ledger.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitLine<'a> {
    batches: Vec<BatchRef>,
    kind: &'a str,
    segments: Vec<SegmentRef>,
    v: u64,
}

/// Canonical JSON of a record of any topic, with the version added.
pub(super) fn encode<T: Serialize>(record: &T) -> Bytes {
    let mut value = serde_json::to_value(record).unwrap_or(Value::Null);
    if let Value::Object(map) = &mut value {
        map.insert("v".into(), VERSION.into());
    }
    let mut out = Vec::with_capacity(256);
    // A record has integers, strings, arrays and objects only: nothing that canonical JSON refuses.
    let written = canonical::write(&value, &mut out);
    debug_assert!(written.is_ok() && value.is_object());
    out.into()
}

/// Parses a record of any topic: an object with `v` and one of the known kinds.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8], kinds: &[&str]) -> Result<T> {
    let corrupt = |why: String| Error::corrupt(format!("not a record: {why}"));
    let mut value: Value = serde_json::from_slice(bytes).map_err(|e| corrupt(e.to_string()))?;
    let map = value.as_object_mut().ok_or_else(|| corrupt("not a JSON object".into()))?;
    let version = map.remove("v").and_then(|v| v.as_u64()).ok_or_else(|| corrupt("has no version v".into()))?;
    let kind = map.get("kind").and_then(Value::as_str).ok_or_else(|| corrupt("has no kind".into()))?;
    if version != VERSION || !kinds.contains(&kind) {
        let what = format!("record kind {kind:?} version {version} is newer than this program: upgrade tuflog");
        return Err(Error::unsupported(what));
    }
    let kind = kind.to_owned();
    serde_json::from_value(value).map_err(|e| corrupt(format!("{kind}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_read_as_any_record_is() {
        let commit = Commit {
            batches: vec![BatchRef {
                id: "a".into(),
                digest: [7; 32],
                basis: 3,
                parts: vec![(0, 1), (2, 5)],
                inbox: Some((1, 9)),
            }],
            segments: vec![SegmentRef { partition: 2, offset: 4, digest: [9; 32] }],
        };
        let bytes = Record::Commit(commit.clone()).encode();
        assert_eq!(Record::decode(&bytes), Ok(Record::Commit(commit)));
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        for (from, to) in [
            ("", ""),
            ("\"v\":1", "\"v\":2"),
            ("\"v\":1", "\"v\":1.0"),
            ("\"v\":1", "\"v\":1,\"v\":1"),
            ("\"v\":1", "\"v\":1,\"w\":1"),
            (",\"v\":1", ""),
            ("\"commit\"", "\"comm\\u0069t\""),
            ("\"commit\"", "\"cut\""),
            ("\"commit\"", "7"),
            ("\"basis\":3", "\"basis\":-3"),
            ("\"basis\":3", "\"basis\":3,\"basis\":4"),
            ("\"basis\":3", "\"basis\":3,\"x\":4"),
            ("[[0,1],", "[[0,1,2],"),
            ("[[0,1],", "[[70000,1],"),
            ("0707", "07g7"),
            ("}", "} "),
            ("}", ""),
        ] {
            let other = text.replacen(from, to, 1);
            assert_eq!(Record::decode(other.as_bytes()), decode(other.as_bytes(), &KINDS), "{other}");
        }
    }
}
