//! Groups: batches that share segments and one Commit.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;
use tokio::sync::OwnedSemaphorePermit;

use crate::bins::{Layout, PartitionId, Sha256Digest, sha256};
use crate::change::Batch;
use crate::error::{Error, Kind, Result};
use crate::ledger::inbox::InboxPlace;
use crate::ledger::record::{BatchRef, Commit, SegmentRef};
use crate::ledger::segment::{self, Cutting};
use crate::ledger::{MAX_COMMIT_BATCHES, MAX_COMMIT_BYTES, Record};
use crate::log::{Log, Offset, Partition};
use crate::pool::Pool;

/// How many bytes of change lines are gathered into a group, unless one batch alone has more.
const GROUP_BYTES: usize = 4 << 20;
/// A bound on what a batch and one of its partitions, or a segment, take in a Commit.
const COMMIT_BATCH_BYTES: usize = 192;
const COMMIT_PART_BYTES: usize = 18;
const COMMIT_SEGMENT_BYTES: usize = 144;
/// How often an append that got no answer is tried in all.
const TRIES: u32 = 4;

/// A batch on its way, with the basis that it keeps.
pub struct Queued {
    pub batch: Batch,
    pub basis: Offset,
    /// Where in the inbox it stands, if that brought it.
    pub inbox: Option<InboxPlace>,
    /// Its room in the queue; the inbox is a queue of its own.
    pub room: Option<OwnedSemaphorePermit>,
}

impl AsRef<Batch> for Queued {
    fn as_ref(&self) -> &Batch {
        &self.batch
    }
}

/// A group in flight.
pub struct Group {
    /// Its number.
    pub id: u64,
    /// Its batches, by id and digest.
    pub batches: Vec<(String, Sha256Digest)>,
    /// How many changes they have.
    pub changes: u64,
}

/// Takes the next group off the queue: at least one batch, within the limits of a Commit.
pub fn take<T: AsRef<Batch>>(queue: &mut VecDeque<T>) -> Vec<T> {
    let mut group = Vec::new();
    let (mut bytes, mut commit_bytes) = (0, 64);
    while let Some(next) = queue.front().map(T::as_ref) {
        let parts = next.changes.len().min(usize::from(PartitionId::MAX) + 1).min(1 << 10);
        let segments = (next.bytes / (256 << 10) + 1).min(parts);
        bytes += next.bytes;
        commit_bytes +=
            next.id.len() + COMMIT_BATCH_BYTES + parts * COMMIT_PART_BYTES + segments * COMMIT_SEGMENT_BYTES;
        let full = bytes > GROUP_BYTES || commit_bytes > MAX_COMMIT_BYTES / 2 || group.len() == MAX_COMMIT_BATCHES;
        if full && !group.is_empty() {
            break;
        }
        group.extend(queue.pop_front());
    }
    group
}

/// Appends a group's segments side by side, then its Commit. An error is `Unavailable` when no Commit was written,
/// `Indeterminate` when one may have been.
pub async fn fly(
    log: Arc<dyn Log>,
    pool: Pool,
    layout: Layout,
    segment_bytes: usize,
    group: Vec<Queued>,
) -> Result<Offset> {
    let bytes = group.iter().map(|q| q.batch.bytes).sum();
    let cutting = move || {
        let split = |q: Queued| (q.batch, (q.basis, q.inbox, q.room));
        let (batches, rest): (Vec<Batch>, Vec<_>) = group.into_iter().map(split).unzip();
        let Cutting { segments, parts } = segment::cut(&batches, layout, segment_bytes);
        let digests: Vec<Sha256Digest> = segments.iter().map(|(_, s)| sha256(s)).collect();
        let refs = batches.into_iter().zip(&rest).zip(parts).map(|((batch, (basis, inbox, _)), parts)| BatchRef {
            id: batch.id,
            digest: batch.digest,
            basis: *basis,
            parts,
            inbox: *inbox,
        });
        (segments, digests, refs.collect::<Vec<_>>(), rest)
    };
    let (segments, digests, batches, _room) = pool.run_on(bytes, cutting).await;
    let append = |(partition, bytes): (PartitionId, Bytes)| append(&*log, Partition::Changes(partition), bytes);
    let places: Vec<PartitionId> = segments.iter().map(|(p, _)| *p).collect();
    let offsets = try_join_all(segments.into_iter().map(append)).await.map_err(|e| match e.kind {
        Kind::Indeterminate => Error::unavailable(e.message), // segments that no Commit names are nothing
        _ => e,
    })?;
    let named = places.into_iter().zip(offsets).zip(digests);
    let segments = named.map(|((partition, offset), digest)| SegmentRef { partition, offset, digest }).collect();
    let commit = Record::Commit(Commit { batches, segments }).encode();
    append_commit(&*log, commit).await
}

/// An append that is tried again when it got no answer: a second copy is harmless, for a Commit names the segments
/// it means, and a Commit that is there twice is a duplicate.
pub async fn append(log: &dyn Log, to: Partition, bytes: Bytes) -> Result<Offset> {
    let mut tries = 1;
    loop {
        match log.append(to, bytes.clone()).await {
            Err(e) if e.kind == Kind::Indeterminate && tries < TRIES => tries += 1,
            done => return done,
        }
    }
}

/// Whether a group failed because its Commit would be too large: nobody can commit these batches together.
pub fn is_too_much(error: &Error) -> bool {
    error.kind == Kind::Invalid && error.field.as_deref() == Some("changes")
}

async fn append_commit(log: &dyn Log, bytes: Bytes) -> Result<Offset> {
    if bytes.len() > MAX_COMMIT_BYTES {
        let what = format!("a Commit of {} bytes, the limit is {MAX_COMMIT_BYTES}: send smaller batches", bytes.len());
        return Err(Error::invalid("changes", what));
    }
    append(log, Partition::Ledger, bytes).await
}
