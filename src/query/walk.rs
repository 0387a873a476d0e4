//! The ledger from any place on, in order, with what each record did. Goes over Recoveries: what one has left behind is
//! void, and the state after it is the one that it names.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::Query;
use super::timeline::Void;
use crate::error::Result;
use crate::ledger::{Event, Outcome, Record, State};
use crate::log::{self, Log, Offset, Partition, Reader};
use crate::recover;
use crate::store::Store;

/// How much is read at once, in bytes.
const READ_BYTES: usize = 1 << 20;

/// A record of the ledger, and what it did.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its position.
    pub seq: Offset,
    /// When the log took it, in Unix milliseconds.
    pub time_ms: u64,
    /// As it stands there.
    pub payload: Bytes,
    /// What it says.
    pub record: Record,
    /// What it did.
    pub event: Event,
}

/// See the module.
pub(super) struct Walk {
    pub log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    reader: Box<dyn Reader>,
    /// The state after the last entry.
    pub state: State,
    /// Everything below it has been answered.
    pub next: Offset,
    voids: Vec<Void>,
    buffer: VecDeque<log::Record>,
}

impl Query {
    /// Walks the ledger from a place on. What came before it comes from a stored ledger state.
    pub(super) async fn walk(&self, from: Offset) -> Result<Walk> {
        let voids = self.voids().await?.to_vec();
        let known = voids.iter().find(|void| void.contains(&from)).map_or(from, |void| void.start);
        let mut state = recover::state_at(&*self.log, &*self.store, known).await?;
        state.ids.share(&self.ids);
        let (log, store, reader) = (self.log.clone(), self.store.clone(), self.log.reader(Partition::Ledger, from));
        Ok(Walk { log, store, reader, state, next: from, voids, buffer: VecDeque::new() })
    }
}

impl Walk {
    /// The next record; `None` when there is none now.
    pub async fn next(&mut self) -> Result<Option<Entry>> {
        if self.buffer.is_empty() {
            self.buffer = self.reader.read(READ_BYTES).await?.into();
        }
        let Some(log::Record { offset: seq, time_ms, payload }) = self.buffer.pop_front() else { return Ok(None) };
        let at = |e: crate::Error| e.context(format!("ledger seq {seq}"));
        let record = Record::decode(&payload).map_err(at)?;
        let event = match &record {
            Record::Recovery(recovery) => {
                self.state = recover::recovered_state(&*self.store, seq, recovery).await.map_err(at)?;
                Event::Changed
            }
            record if self.voids.iter().any(|void| void.contains(&seq)) => match record {
                Record::Commit(commit) => Event::Commit(vec![Outcome::Void; commit.batches.len()]),
                _ => Event::Void,
            },
            record => self.state.apply(seq, record).map_err(at)?,
        };
        self.next = seq + 1;
        Ok(Some(Entry { seq, time_ms, payload, record, event }))
    }

    /// Completes when [`Walk::next`] may have something. Cancel-safe.
    pub async fn ready(&mut self) -> Result<()> {
        if self.buffer.is_empty() { self.reader.ready().await } else { Ok(()) }
    }
}
