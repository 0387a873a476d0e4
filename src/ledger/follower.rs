//! A reader of the ledger together with the state it has read. Owns invariant 6 for the ledger: a position beyond the
//! end of the log stops the process.

use std::collections::VecDeque;

use super::record::Record;
use super::state::{Event, State};
use crate::bins::{Sha256Digest, sha256};
use crate::error::{Error, Result};
use crate::log::{self, Log, Offset, Partition};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 1 << 20;

/// A record that has been taken into the state.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its position.
    pub seq: Offset,
    /// When the log took it, in Unix milliseconds by the log's clock.
    pub time_ms: u64,
    /// What it says.
    pub record: Record,
    /// What it did.
    pub event: Event,
}

/// A place in the ledger, with what tells this ledger from another: the last record read before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The seq of the next record.
    pub next: Offset,
    /// The seq of the last record before it that other histories do not have (a Cut or a Renew is a number and a time)
    /// and the SHA-256 of its bytes, where it is known.
    pub last: Option<(Offset, Sha256Digest)>,
}

/// See the module.
pub struct Follower {
    /// The state after the last entry.
    pub state: State,
    last: Option<(Offset, Sha256Digest)>,
    reader: Box<dyn log::Reader>,
    buffer: VecDeque<log::Record>,
}

impl Follower {
    /// Goes on reading where `state` stands.
    pub async fn new(log: &dyn Log, state: State) -> Result<Follower> {
        let end = log.end(Partition::Ledger).await?;
        if state.next > end {
            let what = format!("position {} is beyond the end {end} of the ledger: records were lost", state.next);
            return Err(Error::corrupt(what));
        }
        let reader = log.reader(Partition::Ledger, state.next);
        Ok(Follower { state, last: None, reader, buffer: VecDeque::new() })
    }

    /// Goes on where `state` stands, somewhere after the record `last`: the ledger must hold that very record.
    pub async fn after(log: &dyn Log, state: State, last: (Offset, Sha256Digest)) -> Result<Follower> {
        let follower = Follower::new(log, state).await?;
        let (seq, digest) = last;
        match log.fetch(Partition::Ledger, seq).await? {
            Some(r) if sha256(&r.payload) == digest => Ok(Follower { last: Some(last), ..follower }),
            Some(_) => Err(Error::corrupt(format!("record {seq} of the ledger is not the one that was read before"))),
            None => Err(Error::unavailable(format!("record {seq} of the ledger is not there now"))),
        }
    }

    /// Where it stands.
    pub fn mark(&self) -> Mark {
        Mark { next: self.state.next, last: self.last }
    }

    /// The next record as it stands, not yet taken into the state; `None` when there is none now.
    pub async fn peek(&mut self) -> Result<Option<&log::Record>> {
        if self.buffer.is_empty() {
            self.buffer = self.reader.read(READ_BYTES).await?.into();
        }
        Ok(self.buffer.front())
    }

    /// Takes the next record into the state; `None` when there is none now.
    pub async fn next(&mut self) -> Result<Option<Entry>> {
        if self.peek().await?.is_none() {
            return Ok(None);
        }
        let Some(log::Record { offset: seq, time_ms, payload }) = self.buffer.pop_front() else { return Ok(None) };
        let at = |e: Error| e.context(format!("ledger seq {seq}"));
        let record = Record::decode(&payload).map_err(at)?;
        let event = self.state.apply(seq, &record).map_err(at)?;
        if !matches!(record, Record::Cut(_) | Record::Renew(_)) {
            self.last = Some((seq, sha256(&payload)));
        }
        Ok(Some(Entry { seq, time_ms, record, event }))
    }

    /// Completes when [`Follower::next`] may have something. Cancel-safe.
    pub async fn ready(&mut self) -> Result<()> {
        if self.buffer.is_empty() { self.reader.ready().await } else { Ok(()) }
    }
}
