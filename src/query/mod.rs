//! Questions about what is published: from the log and the store alone, so the same for a running node and for the
//! data of a stopped one.
//!
//! Everything is answered from *published* state. The pointer is read anew for every question, and all that follows
//! is immutable: so an answer is of exactly one checkpoint, and what is kept in memory is only ever a copy of
//! something that cannot change.
//!
//! ```text
//!   answers.rs   the shape of the answers        receipts.rs    seq → covering checkpoint, removals that found nothing
//!   targets.rs   path → bin → entry, verified    history.rs     an id in the whole ledger; the list of checkpoints
//!   roots.rs     the chain of published roots    lag.rs         published against the log
//! ```
//!
//! Errors are `Unavailable` when log or store cannot be read now, `Corrupt` when what is read cannot be true.

mod answers;
mod history;
mod lag;
mod receipts;
mod roots;
mod targets;

use std::sync::{Arc, Mutex, OnceLock};

pub use answers::*;

use crate::bins::Layout;
use crate::compact::Published;
use crate::error::{Error, Result};
use crate::ledger::record::Checkpoint;
use crate::ledger::{Record, State};
use crate::log::{Log, Offset, Partition};
use crate::pool::Pool;
use crate::recover;
use crate::store::{self, Store};
use crate::tuf::envelope::Envelope;
use crate::tuf::parse::{self, Snapshot, Timestamp};
use crate::tuf::root::Root;

/// How much of a topic is read at once, in bytes.
const READ_BYTES: usize = 256 << 10;

/// See the module.
pub struct Query {
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    pool: Pool,
    layout: OnceLock<Layout>,
    /// The snapshot of the newest checkpoint asked for, by its number.
    snapshot: Mutex<Option<(u64, Arc<Snapshot>)>>,
    receipts: receipts::Cache,
    /// The published roots seen so far, from version 1 on.
    roots: Mutex<Vec<Arc<Root>>>,
    /// The objects whose signatures were verified.
    verified: targets::Verified,
}

impl Query {
    /// Asks this log and this store; large objects are parsed on `pool`.
    pub fn new(log: Arc<dyn Log>, store: Arc<dyn Store>, pool: Pool) -> Query {
        let (layout, snapshot) = (OnceLock::new(), Mutex::new(None));
        let (receipts, roots, verified) = Default::default();
        Query { log, store, pool, layout, snapshot, receipts, roots, verified }
    }

    /// The layout that the ledger's first record gives; `Invalid` when the ledger is empty.
    pub async fn layout(&self) -> Result<Layout> {
        if let Some(layout) = self.layout.get() {
            return Ok(*layout);
        }
        let first = self.log.reader(Partition::Ledger, 0).read(1).await?.into_iter().next();
        let mut state = State::default();
        match first.map(|r| Ok::<_, Error>((r.offset, Record::decode(&r.payload)?))).transpose()? {
            Some((seq, format @ Record::Format(_))) => drop(state.apply(seq, &format)?),
            Some(_) => state = recover::start(&*self.log, &*self.store).await?, // the ledger has lost its beginning
            None => {}
        }
        let layout = state.layout()?;
        Ok(*self.layout.get_or_init(|| layout))
    }

    /// timestamp.json as it stands now; `None` before the first checkpoint.
    pub async fn timestamp(&self) -> Result<Option<Timestamp>> {
        let Some(bytes) = self.store.get(store::POINTER).await? else { return Ok(None) };
        Ok(Some(parse::parse_timestamp(Envelope::open(&bytes)?.signed)?))
    }

    /// Where the pointer stands, as the compactor of a running node says; all 0 before the first checkpoint.
    pub async fn published(&self) -> Result<Published> {
        let Some(t) = self.timestamp().await? else { return Ok(Published::default()) };
        let n = t.snapshot.version;
        Ok(Published { version: t.version, n, seq: self.published_checkpoint(n).await?.seq })
    }

    /// The Checkpoint that timestamp.json leads to.
    async fn published_checkpoint(&self, n: u64) -> Result<Checkpoint> {
        let missing = || format!("timestamp.json leads to snapshot {n}, the ledger has no Checkpoint {n}");
        self.find_checkpoint(n).await?.ok_or_else(|| Error::corrupt(missing()))
    }

    /// The end of the ledger now: one past its newest record.
    pub async fn ledger_end(&self) -> Result<Offset> {
        self.log.end(Partition::Ledger).await
    }
}
