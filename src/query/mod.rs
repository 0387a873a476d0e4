//! Questions about what is published: from the log and the store alone, so the same for a running node and for the
//! data of a stopped one.
//!
//! Everything is answered from *published* state. The pointer is read anew for every question, and all that follows
//! is immutable: so an answer is of exactly one checkpoint, and what is kept in memory is only ever a copy of
//! something that cannot change.
//!
//! ```text
//!   answers.rs   the shape of the answers        timeline.rs    checkpoints by number, seq and time: searched for
//!   at.rs        what `--at` may say             view.rs        what was published at a checkpoint, verified
//!   targets.rs   path → bin → entry              bins.rs        the bins: versions, sizes, ages, and one in full
//!   search.rs    targets by pattern              diff.rs        what changed between two checkpoints
//!   history.rs   every change of a path          verdict.rs     what became of the batches of a Commit
//!   replay.rs    history as a stream of lines    records.rs     the ledger, decoded
//!   checkpoints.rs   a page of them, one in full  export.rs     a repository as it was published then
//!   receipts.rs  seq → covering checkpoint, removals that found nothing      ids.rs   an id in the whole ledger
//!   walk.rs      the ledger from any place on
//!   roots.rs     the chain of published roots    lag.rs         published against the log
//! ```
//!
//! Errors are `Unavailable` when log or store cannot be read now, `Corrupt` when what is read cannot be true.

mod answers;
mod at;
mod bins;
mod checkpoints;
mod diff;
mod export;
mod history;
mod ids;
mod lag;
mod receipts;
mod records;
mod replay;
mod roots;
mod search;
mod targets;
mod timeline;
mod verdict;
mod view;
mod walk;

use std::sync::{Arc, Mutex, OnceLock};

pub use answers::*;
pub use at::{At, FORMS};
pub use bins::{BinAnswer, BinSummary, BinTarget, BinsAnswer};
pub use diff::{Diff, DiffKind, DiffLine};
pub use export::ExportAnswer;
pub use history::{HistoryAnswer, HistoryChange};
pub use records::{KINDS, RecordAnswer, RecordsAnswer, SegmentAnswer, SegmentChange, Stretch, Verdict, VerdictKind};
pub use replay::{Line, Replay, ReplayLine, ReplayOptions};
pub use search::{FoundTarget, Pattern, SearchAnswer};

use crate::bins::Layout;
use crate::compact::Published;
use crate::error::{Error, Result};
use crate::ledger::ids::{Only, Table};
use crate::ledger::record::Settings;
use crate::ledger::{Record, State};
use crate::log::{Log, Offset, Partition};
use crate::pool::Pool;
use crate::recover;
use crate::store::{self, Store};
use crate::tuf::envelope::Envelope;
use crate::tuf::parse::{self, Timestamp};
use crate::tuf::root::Root;
use timeline::Placed;

/// How much of a topic is read at once, in bytes.
const READ_BYTES: usize = 256 << 10;

/// See the module.
pub struct Query {
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    pool: Pool,
    layout: OnceLock<Layout>,
    voids: OnceLock<Vec<timeline::Void>>,
    settings: OnceLock<Settings>,
    /// What those who walk the ledger remember together.
    ids: Table,
    snapshots: view::Snapshots,
    /// The newest checkpoint asked for.
    newest: Mutex<Option<Placed>>,
    known: Mutex<bins::Known>,
    /// When files expire, by their names.
    expires: Mutex<std::collections::BTreeMap<String, u64>>,
    receipts: receipts::Cache,
    /// The published roots seen so far, from version 1 on.
    roots: Mutex<Vec<Arc<Root>>>,
    /// The objects whose signatures were verified.
    verified: view::Verified,
    writers: Option<Writers>,
}

/// Which write of a path bin state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The seq that wrote it last.
    pub seq: Offset,
    /// The seq that its fold takes next.
    pub position: Offset,
}

/// Says what the folds of this process know of a path; `None` if it is folded elsewhere, or not there.
pub type Writers = Box<dyn Fn(&str) -> Option<Written> + Send + Sync>;

impl Query {
    /// Asks this log and this store; large objects are parsed on `pool`.
    pub fn new(log: Arc<dyn Log>, store: Arc<dyn Store>, pool: Pool) -> Query {
        let (layout, voids, settings) = Default::default();
        let (ids, snapshots, newest, known, expires) = Default::default();
        let (receipts, roots, verified) = Default::default();
        let writers = None;
        Query {
            log,
            store,
            pool,
            layout,
            voids,
            settings,
            ids,
            snapshots,
            newest,
            known,
            expires,
            receipts,
            roots,
            verified,
            writers,
        }
    }

    /// Asks the folds of this process first what brought a target.
    pub fn with_writers(self, writers: Writers) -> Query {
        Query { writers: Some(writers), ..self }
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
            Some(_) => state = recover::start_for(&*self.log, &*self.store, Some(&Only::default())).await?, // the ledger has lost its beginning
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
        Ok(Published { version: t.version, n, seq: self.published_checkpoint(n).await?.checkpoint.seq })
    }

    /// The seq of the Cut of the checkpoint that timestamp.json leads to.
    pub async fn cut_seq(&self, n: u64) -> Result<Offset> {
        Ok(self.published_checkpoint(n).await?.checkpoint.seq)
    }

    /// The Checkpoint that timestamp.json leads to.
    async fn published_checkpoint(&self, n: u64) -> Result<Placed> {
        if let Some(placed) = receipts::lock(&self.newest).as_ref().filter(|placed| placed.checkpoint.n == n) {
            return Ok(placed.clone());
        }
        let missing = || format!("timestamp.json leads to snapshot {n}, the ledger has no Checkpoint {n}");
        let placed = self.find_checkpoint(n).await?.ok_or_else(|| Error::corrupt(missing()))?;
        Ok(receipts::lock(&self.newest).insert(placed).clone())
    }

    /// The end of the ledger now: one past its newest record.
    pub async fn ledger_end(&self) -> Result<Offset> {
        self.log.end(Partition::Ledger).await
    }
}
