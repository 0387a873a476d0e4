//! Finding segments: a sequential reader of one partition of `changes` with a bounded map of what it has read and no
//! Commit has named yet. What is not in the map (late, evicted, or before the start) is fetched by its offset.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::bins::{PartitionId, sha256};
use crate::error::{Error, Result};
use crate::ledger::record::SegmentRef;
use crate::log::{Log, Offset, Partition, Reader};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 1 << 20;
/// How much the map may hold, in bytes of payload.
const PENDING_BYTES: usize = 8 << 20;

/// See the module.
pub struct Changes {
    partition: PartitionId,
    reader: Box<dyn Reader>,
    /// Everything below it has been read.
    next: Offset,
    pending: BTreeMap<Offset, Bytes>,
    bytes: usize,
}

impl Changes {
    /// Reads from `from` on.
    pub fn new(log: &dyn Log, partition: PartitionId, from: Offset) -> Changes {
        let reader = log.reader(Partition::Changes(partition), from);
        Changes { partition, reader, next: from, pending: BTreeMap::new(), bytes: 0 }
    }

    /// The segment that a Commit names, or `None` while it is not there yet. One with another digest is `Corrupt`.
    pub async fn take(&mut self, log: &dyn Log, named: &SegmentRef) -> Result<Option<Bytes>> {
        let found = self.at(log, named.offset).await?;
        self.verified(found, named)
    }

    /// The same for one who reads what has been committed for long: one that the log has gone beyond and does not give is
    /// `Corrupt`.
    pub async fn find(&mut self, log: &dyn Log, named: &SegmentRef) -> Result<Option<Bytes>> {
        if let Some(found) = self.take(log, named).await? {
            return Ok(Some(found));
        }
        let topic = Partition::Changes(self.partition);
        if log.end(topic).await? <= named.offset {
            return Ok(None);
        }
        // The reader may only not have come to it.
        match log.fetch(topic, named.offset).await? {
            Some(record) => self.verified(Some(record.payload), named),
            None => {
                let what = format!("segment {} of partition {} is missing", named.offset, self.partition);
                Err(Error::corrupt(what))
            }
        }
    }

    fn verified(&self, found: Option<Bytes>, named: &SegmentRef) -> Result<Option<Bytes>> {
        match &found {
            Some(payload) if sha256(payload) != named.digest => Err(Error::corrupt(format!(
                "segment {} of partition {}: its digest is {}, its Commit says {}",
                named.offset,
                self.partition,
                hex::encode(sha256(payload)),
                hex::encode(named.digest)
            ))),
            _ => Ok(found),
        }
    }

    /// The record at an offset, or `None` if there is none, or none has been read yet.
    pub async fn at(&mut self, log: &dyn Log, offset: Offset) -> Result<Option<Bytes>> {
        while self.next <= offset {
            let records = self.reader.read(READ_BYTES).await?;
            if records.is_empty() {
                break;
            }
            for r in records {
                self.next = r.offset + 1;
                self.bytes += r.payload.len();
                self.pending.insert(r.offset, r.payload);
            }
            self.evict(offset);
        }
        match self.pending.remove(&offset) {
            Some(payload) => {
                self.bytes -= payload.len();
                Ok(Some(payload))
            }
            None if self.next <= offset => Ok(None), // the reader will come to it
            None => Ok(log.fetch(Partition::Changes(self.partition), offset).await?.map(|r| r.payload)),
        }
    }

    /// Completes when a segment may have come. Cancel-safe.
    pub async fn ready(&mut self) -> Result<()> {
        self.reader.ready().await
    }

    /// Drops the oldest, but for the one that is wanted, until the map is within its bound.
    fn evict(&mut self, wanted: Offset) {
        while self.bytes > PENDING_BYTES {
            let Some(oldest) = self.pending.keys().copied().find(|o| *o != wanted) else { return };
            if let Some(payload) = self.pending.remove(&oldest) {
                self.bytes -= payload.len();
            }
        }
    }
}
