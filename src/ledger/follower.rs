//! A reader of the ledger together with the state it has read. Owns invariant 6 for the ledger: a position beyond the
//! end of the log stops the process.

use std::collections::VecDeque;

use super::record::Record;
use super::state::{Event, State};
use crate::error::{Error, Result};
use crate::log::{self, Log, Offset, Partition};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 1 << 20;

/// A record that has been taken into the state.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its position.
    pub seq: Offset,
    /// When the log took it, in Unix seconds by the log's clock.
    pub time: u64,
    /// What it says.
    pub record: Record,
    /// What it did.
    pub event: Event,
}

/// See the module.
pub struct Follower {
    /// The state after the last entry.
    pub state: State,
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
        Ok(Follower { state, reader, buffer: VecDeque::new() })
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
        let Some(log::Record { offset: seq, time, payload }) = self.buffer.pop_front() else { return Ok(None) };
        let at = |e: Error| e.context(format!("ledger seq {seq}"));
        let record = Record::decode(&payload).map_err(at)?;
        let event = self.state.apply(seq, &record).map_err(at)?;
        Ok(Some(Entry { seq, time, record, event }))
    }

    /// Completes when [`Follower::next`] may have something. Cancel-safe.
    pub async fn ready(&mut self) -> Result<()> {
        if self.buffer.is_empty() { self.reader.ready().await } else { Ok(()) }
    }
}
