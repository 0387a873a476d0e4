//! What can be wrong: one name for each kind of damage, the same for people and programs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A kind of damage. Its name, in snake case, is stable: programs may rely on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// An object that the ledger makes is not in the store.
    ObjectMissing,
    /// An object is not what the ledger makes: its signed part differs, it cannot be read, or it is laid out otherwise.
    ObjectAltered,
    /// The store holds an object that nothing in the ledger makes.
    ObjectAdded,
    /// What is signed is right, the signatures are not: one does not verify, is of another key, or too few are there.
    BadSignature,
    /// An object is what the ledger makes but for the time at which it expires.
    WrongExpiry,
    /// timestamp.json is an earlier one than the ledger shows that clients have seen.
    RolledBack,
    /// A record of the log is not what it was: it cannot be read, contradicts itself, or contradicts what it made.
    RecordAltered,
    /// A record of the log is gone.
    RecordDropped,
    /// The log has a record that was not there when what follows it was made.
    RecordAdded,
    /// Records of the log stand in another order than when they were written.
    RecordReordered,
    /// A record of the log stands there again, though it did not when what follows it was made.
    RecordDuplicated,
    /// Of a batch that takes effect, some partitions have their changes and some have not.
    SplitBatch,
    /// The numbers of cuts, roots, settings or timestamps jump.
    VersionGap,
}

impl Damage {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Damage::ObjectMissing => "object_missing",
            Damage::ObjectAltered => "object_altered",
            Damage::ObjectAdded => "object_added",
            Damage::BadSignature => "bad_signature",
            Damage::WrongExpiry => "wrong_expiry",
            Damage::RolledBack => "rolled_back",
            Damage::RecordAltered => "record_altered",
            Damage::RecordDropped => "record_dropped",
            Damage::RecordAdded => "record_added",
            Damage::RecordReordered => "record_reordered",
            Damage::RecordDuplicated => "record_duplicated",
            Damage::SplitBatch => "split_batch",
            Damage::VersionGap => "version_gap",
        }
    }

    /// What is said of the place.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Damage::ObjectMissing | Damage::RecordDropped => "is missing",
            Damage::ObjectAltered | Damage::RecordAltered => "is altered",
            Damage::ObjectAdded | Damage::RecordAdded => "is unexpected",
            Damage::BadSignature => "is not signed as it must be",
            Damage::WrongExpiry => "has another expiry",
            Damage::RolledBack => "was put back",
            Damage::RecordReordered => "is out of order",
            Damage::RecordDuplicated => "is a repeat",
            Damage::SplitBatch => "is split",
            Damage::VersionGap => "leaves a gap",
        }
    }
}
