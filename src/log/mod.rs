//! The log: an ordered, durable sequence of records per partition. What the rest of tuflog believes in.
//!
//! # The contract
//!
//! A driver promises what Kafka and a file both do naturally, and nothing more:
//!
//! ```text
//!   append ──────► │ 0 │ 1 │ 2 │   │ 4 │ 5 │            offsets rise; there may be gaps (3)
//!                    ▲           ▲           ▲
//!                    reader      gap         end = 6    "end" is an exclusive bound, never a count
//! ```
//!
//! 1. **Append.** When [`Log::append`] answers `Ok(offset)`, the record is durable at that offset for ever and
//!    every reader will see it there. Two appends that are in flight together may land in either order.
//! 2. **An error may mean "might have happened".** `Unavailable` means that nothing was written and nothing
//!    will be; `Indeterminate` means that it was, was not, will be later, or was twice. Dropping the future
//!    takes nothing back.
//! 3. **Readers** see every record once, in rising offset order, from where they were placed. A reader never
//!    sees a record that could still be lost, and never skips one.
//! 4. **Fetch.** A record can be read again by its offset. `None` means that nothing is there: a gap, or not
//!    there *yet*; only an offset below an observed end that stays `None` is a gap.
//! 5. **End** is at least one past every record whose append was answered before the call, and one past every
//!    record that this handle has read.
//! 6. Bytes come back as they went in. What is at an offset never changes.
//! 7. A read, a fetch or an end may be `Unavailable` for a while; the reader stands where it stood. It may also see
//!    less than there is (a record may not be there *yet* for any time), but never anything else.
//!
//! Acting on a record is the reader's business: intake, compactor and operator commands take effect when their own
//! reader passes a record, never when an append is answered.
//!
//! `tests/suite/log_contract.rs` runs the same suite against every driver.

pub mod embedded;
pub mod kafka;
pub mod memory;

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::bins::PartitionId;
use crate::error::Result;

/// A record's place in its partition.
pub type Offset = u64;

/// One ordered sequence of the log. (In Kafka: a partition of one of the topics.)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Partition {
    /// Topic `ledger`, its only partition: the total order of everything that happens to the repository.
    Ledger,
    /// Topic `folds`, its only partition: what the folds report.
    Folds,
    /// Topic `changes`: the segments of one share of the hash space.
    Changes(PartitionId),
    /// Topic `inbox`, one of any number of partitions: batches as anybody wrote them.
    Inbox(PartitionId),
    /// Topic `inbox-rejects`, its only partition: what the inbox held and the intakes refused.
    Rejects,
}

/// A record as read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Where it stands.
    pub offset: Offset,
    /// When the log took it, in Unix milliseconds by the log's own clock.
    pub time_ms: u64,
    /// What was appended.
    pub payload: Bytes,
}

impl Record {
    /// When the log took it, in Unix seconds.
    pub fn time(&self) -> u64 {
        self.time_ms / 1_000
    }
}

/// A log driver. See the module for the contract.
pub trait Log: Send + Sync {
    /// Appends one record and answers with its offset once it is durable.
    fn append(&self, to: Partition, payload: Bytes) -> BoxFuture<'static, Result<Offset>>;

    /// A reader of `of`, placed before the first record at or after `from`.
    fn reader(&self, of: Partition, from: Offset) -> Box<dyn Reader>;

    /// The record at exactly `at`, if one is there.
    fn fetch(&self, of: Partition, at: Offset) -> BoxFuture<'_, Result<Option<Record>>>;

    /// One past the last record (0 when there never was one).
    fn end(&self, of: Partition) -> BoxFuture<'_, Result<Offset>>;

    /// How far the intakes are with the inbox, by rising partition; nothing where there is none.
    fn taken_in(&self) -> BoxFuture<'_, Result<Vec<TakenIn>>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

/// A partition of the inbox, as the log's own tools show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TakenIn {
    /// Its number.
    pub partition: PartitionId,
    /// Everything below it is sequenced or refused, or was removed by retention before.
    pub decided: Offset,
    /// One past the last record.
    pub end: Offset,
}

/// A place in one partition, moving forward.
pub trait Reader: Send + Sync {
    /// The next records, at most about `max_bytes` of payload but at least one; empty when there is none now.
    fn read(&mut self, max_bytes: usize) -> BoxFuture<'_, Result<Vec<Record>>>;

    /// Completes when [`Reader::read`] may have something (it may also find nothing after all).
    /// Cancel-safe: it moves nothing.
    fn ready(&mut self) -> BoxFuture<'_, Result<()>>;

    /// Places the reader before the first record at or after `at`.
    fn seek(&mut self, at: Offset);
}

/// The way in for producers that write to the log itself, where there is one, as the intakes share it: every partition
/// of [`Partition::Inbox`] belongs to one intake at a time, or to two for a while. That is for efficiency only, for the
/// ledger decides what has been sequenced.
///
/// Unlike the rest of the log the inbox need not keep everything: it may lose its beginning at any time.
pub trait Inbox: Send + Sync {
    /// The partitions that are this intake's now, or why it cannot have any.
    fn owned(&self) -> watch::Receiver<Result<BTreeSet<PartitionId>>>;

    /// The first offset that is still there, and one past the last record.
    fn span(&self, partition: PartitionId) -> BoxFuture<'_, Result<Range<Offset>>>;

    /// What was last told of a partition, by whomever; `None` if nothing was.
    fn told(&self, partition: PartitionId) -> BoxFuture<'_, Result<Option<Offset>>>;

    /// Notes, where the log's own tools show it, that everything below `next` is decided and answered. Never waits, so
    /// it may end with the process; what an owner tells last counts.
    fn tell(&self, partition: PartitionId, next: Offset);
}

/// Which worker folds which partitions, where there are several. It is for efficiency only: a fold that runs where it
/// should not writes the same bytes.
pub trait Membership: Send + Sync {
    /// The partitions that are this worker's now, or why it cannot have any.
    fn owned(&self) -> watch::Receiver<Result<BTreeSet<PartitionId>>>;

    /// Makes visible to the log's own tools that checkpoint `n` has published a partition up to `end` (exclusive).
    /// Never waits; what is told later counts.
    fn tell(&self, partition: PartitionId, end: Offset, n: u64);
}
