//! The inbox as the ledger sees it: how far each of its partitions is sequenced, and what is written of what is refused.
//!
//! Owns the rule that an inbox record is sequenced once, for ever and not only within the horizon: its batch carries
//! its place, and a batch whose place lies below [`Inbox::next`] has had its verdict ([`Outcome::Repeated`]). So the
//! batches of one inbox partition must reach the ledger in the order of the inbox; that is the intakes' duty.
//!
//! [`Outcome::Repeated`]: super::Outcome::Repeated

use std::collections::BTreeMap;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::VERSION;
use crate::bins::PartitionId;
use crate::change::INBOX_PREFIX;
use crate::error::Error;
use crate::log::Offset;

/// A partition of the inbox, and an offset in it.
pub type InboxPlace = (PartitionId, Offset);

/// How much of a refused record is written down, in bytes.
pub const REJECT_HEAD_BYTES: usize = 1_024;
/// How much of a message and of a field's name is, in characters: they may quote what is refused.
const REJECT_WORDS: usize = 1_000;

/// The id of a batch whose producer chose none.
pub fn id_at((partition, offset): InboxPlace) -> String {
    format!("{INBOX_PREFIX}{partition}:{offset}")
}

/// How far each partition of the inbox is sequenced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inbox(BTreeMap<PartitionId, Offset>);

impl Inbox {
    /// One past the last record of a partition that is sequenced; 0 before the first.
    pub fn next(&self, partition: PartitionId) -> Offset {
        self.0.get(&partition).copied().unwrap_or(0)
    }

    /// Whether the record at a place has had its turn.
    pub fn has_passed(&self, (partition, offset): InboxPlace) -> bool {
        offset < self.next(partition)
    }

    /// The record at a place has its turn now.
    pub(super) fn pass(&mut self, (partition, offset): InboxPlace) {
        self.0.insert(partition, offset.saturating_add(1));
    }

    /// Each partition with its next offset, by rising partition.
    pub fn iter(&self) -> impl Iterator<Item = InboxPlace> {
        self.0.iter().map(|(partition, next)| (*partition, *next))
    }
}

impl FromIterator<InboxPlace> for Inbox {
    fn from_iter<T: IntoIterator<Item = InboxPlace>>(places: T) -> Inbox {
        Inbox(places.into_iter().collect())
    }
}

/// A record of topic `inbox-rejects`, as JSON (not canonical: it may quote any text).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum RejectRecord {
    /// It is one.
    InboxReject(Reject),
}

/// An inbox record that was not taken. It can be said more than once; the place tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reject {
    /// The partition of the inbox.
    pub partition: PartitionId,
    /// The offset there.
    pub offset: Offset,
    /// The batch's id, if one could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why.
    pub error: RejectError,
    /// The first part of the record, as text.
    pub record: String,
}

/// Why a record was not taken: as the HTTP API says it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RejectError {
    /// What to do about it: `Invalid` (fix it), `Conflict` (the id stands for other content), `Indeterminate` (look
    /// the id up in the whole history before sending it again).
    pub kind: String,
    /// What happened, in words.
    pub message: String,
    /// The part of the record at fault, such as `changes[3].hashes.sha256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl Reject {
    /// Of a record, given its first part.
    pub fn new((partition, offset): InboxPlace, id: Option<String>, error: &Error, head: &[u8]) -> Reject {
        let short = |text: &String| text.chars().take(REJECT_WORDS).collect();
        let (message, field) = (short(&error.message), error.field.as_ref().map(short));
        let error = RejectError { kind: error.kind.name().into(), message, field };
        let head = &head[..head.len().min(REJECT_HEAD_BYTES)];
        Reject { partition, offset, id, error, record: String::from_utf8_lossy(head).into_owned() }
    }

    /// As it is written.
    pub fn encode(self) -> Bytes {
        #[derive(Serialize)]
        struct Versioned<T> {
            #[serde(flatten)]
            record: T,
            v: u64,
        }
        let versioned = Versioned { record: RejectRecord::InboxReject(self), v: VERSION };
        serde_json::to_vec(&versioned).unwrap_or_default().into() // strings and numbers: it never fails
    }
}
