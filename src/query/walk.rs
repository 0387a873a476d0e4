//! The ledger from any place on, in order, with what each record did. Goes over Recoveries: what one has left behind is
//! void, and the state after it is the one that it names.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::Query;
use super::receipts::is_commit;
use super::timeline::Void;
use crate::error::Result;
use crate::ledger::ids::Only;
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
    /// If the verdicts of no other ids are asked for.
    only: Option<Only>,
}

impl Query {
    /// Walks the ledger from a place on. What came before it comes from a stored ledger state.
    pub(super) async fn walk(&self, from: Offset) -> Result<Walk> {
        self.walk_for(from, None).await
    }

    /// The same for one who asks what became of these ids alone: less is to be read. What it tells of others is void.
    pub(super) async fn walk_for(&self, from: Offset, only: Option<Only>) -> Result<Walk> {
        let voids = self.voids().await?.to_vec();
        let known = voids.iter().find(|void| void.contains(&from)).map_or(from, |void| void.start);
        let mut state = recover::state_for(&*self.log, &*self.store, known, only.as_ref()).await?;
        if only.is_none() {
            state.ids.share(&self.ids);
        }
        let (log, store, reader) = (self.log.clone(), self.store.clone(), self.log.reader(Partition::Ledger, from));
        Ok(Walk { log, store, reader, state, next: from, voids, buffer: VecDeque::new(), only })
    }

    /// The same for one who stops before `to`: asks about the ids that stand there.
    pub(super) async fn walk_between(&self, from: Offset, to: Offset) -> Result<Walk> {
        let (mut raw, mut ids) = (self.raw(from, to), Vec::new());
        while let Some(r) = raw.next().await? {
            if is_commit(&r.payload)
                && let Record::Commit(commit) = Record::decode(&r.payload)?
            {
                ids.extend(commit.batches.into_iter().map(|batch| batch.id));
            }
        }
        self.walk_for(from, Some(ids.iter().map(String::as_str).collect())).await
    }

    /// The records from `from` up to `to`, not including it, as they stand.
    pub(super) fn raw(&self, from: Offset, to: Offset) -> Raw {
        Raw { reader: self.log.reader(Partition::Ledger, from), to, buffer: VecDeque::new() }
    }
}

/// A stretch of the ledger, read without a state.
pub(super) struct Raw {
    reader: Box<dyn Reader>,
    to: Offset,
    buffer: VecDeque<log::Record>,
}

impl Raw {
    /// The next record; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<log::Record>> {
        tokio::task::coop::consume_budget().await; // a long stretch holds up nobody
        if self.buffer.is_empty() {
            self.buffer = self.reader.read(READ_BYTES).await?.into();
        }
        Ok(self.buffer.pop_front().filter(|r| r.offset < self.to))
    }
}

impl Walk {
    /// The next record; `None` when there is none now.
    pub async fn next(&mut self) -> Result<Option<Entry>> {
        tokio::task::coop::consume_budget().await; // a long walk holds up nobody
        if self.buffer.is_empty() {
            self.buffer = self.reader.read(READ_BYTES).await?.into();
        }
        let Some(log::Record { offset: seq, time_ms, payload }) = self.buffer.pop_front() else { return Ok(None) };
        let at = |e: crate::Error| e.context(format!("ledger seq {seq}"));
        let record = Record::decode(&payload).map_err(at)?;
        let event = match &record {
            Record::Recovery(recovery) => {
                self.state = recover::recovered_state(&*self.store, seq, recovery).await.map_err(at)?;
                self.only.iter().for_each(|only| self.state.ids.limit_to(only));
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
