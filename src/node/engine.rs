//! The engine: the rooms of one repository as tasks.
//!
//! The rooms are steps; here they become tasks. A step that fails with a kind that time may heal is taken again after
//! a pause; a fatal kind ends the engine, for going on could make it worse.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bins::PartitionId;
use crate::clock::Clock;
use crate::compact::{self, Compactor, Followed, Published};
use crate::config::{Role, Roles};
use crate::error::{Error, Result};
use crate::fold;
use crate::fold::state::State as BinState;
use crate::http::Health;
use crate::intake::inbox::{self, Inbox};
use crate::intake::{self, Intake};
use crate::ledger::{State, ids};
use crate::log::{self, Log, Membership, Offset, Partition};
use crate::pool::Pool;
use crate::store::Store;
use crate::tuf::key::KeyRing;

use super::folds::Folds;
use super::room::{Room, drive};

/// What an engine is made of.
pub struct Parts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Bin state.
    pub state: Arc<BinState>,
    /// The online keys.
    pub keys: Arc<KeyRing>,
    /// The time of Cuts and Renews.
    pub clock: Arc<dyn Clock>,
    /// Where heavy work runs.
    pub pool: Pool,
    /// How many bins a fold stores at a time.
    pub uploads: usize,
    /// How many groups an intake has in flight.
    pub groups: usize,
    /// How many bytes of changes may be queued.
    pub queue_bytes: usize,
    /// The least time between two cuts.
    pub min_cut_interval_ms: u64,
    /// Told when a room cannot go on for now.
    pub health: Arc<Health>,
    /// What this process does.
    pub roles: Roles,
    /// Who folds what; `None` where this is the only process.
    pub membership: Option<Arc<dyn Membership>>,
    /// The inbox, if this process takes it in.
    pub inbox: Option<Arc<dyn log::Inbox>>,
    /// How often the inbox was made anew.
    pub inbox_generation: PartitionId,
    /// The hash algorithms admitted in the inbox beside sha256.
    pub extra_hashes: Arc<[String]>,
    /// How long a compactor waits before it acts in another's place, in milliseconds.
    pub patience_ms: u64,
}

/// Where the folds of this process stand, sampled as they go.
#[derive(Debug, Default)]
pub struct Progress {
    folds: Mutex<BTreeMap<PartitionId, Offset>>,
}

impl Progress {
    /// The seq of the next ledger record, for each partition that is folded here.
    pub fn folds(&self) -> BTreeMap<PartitionId, Offset> {
        self.folds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same of one partition.
    pub fn fold_position(&self, partition: PartitionId) -> Option<Offset> {
        self.folds.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).copied()
    }

    pub(super) fn fold_at(&self, partition: PartitionId, next: Offset) {
        self.folds.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, next);
    }

    pub(super) fn fold_ended(&self, partition: PartitionId) {
        self.folds.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition);
    }
}

/// The running rooms of one repository.
pub struct Engine {
    /// Takes batches.
    pub intake: intake::Handle,
    /// Where the pointer stands.
    pub published: watch::Receiver<Published>,
    /// What the compactor has read of the ledger.
    pub followed: watch::Receiver<Followed>,
    /// Where the rooms stand.
    pub progress: Arc<Progress>,
    log: Arc<dyn Log>,
    state: Arc<BinState>,
    hurry: Arc<AtomicU64>,
    stop: CancellationToken,
    inbox_stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    fatal: mpsc::Receiver<Error>,
}

impl Engine {
    /// Recovers every room and starts it. `start` is the ledger state of [`recover::start`].
    pub async fn start(parts: Parts, mut start: State) -> Result<Engine> {
        let layout = start.layout()?;
        let (published, published_rx) = watch::channel(Published::default());
        let (followed, followed_rx) = watch::channel(Followed::default());
        let (fatal, fatal_rx) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let progress = Arc::new(Progress::default());
        let hurry = Arc::new(AtomicU64::new(parts.min_cut_interval_ms));
        let ids = ids::Table::default();
        start.ids.share(&ids);
        // Its ids are not copied for everybody.
        let known = std::mem::take(&mut start.ids);
        let state = || State { ids: known.another(), ..start.clone() };
        let fold_parts = fold::Parts {
            log: parts.log.clone(),
            store: parts.store.clone(),
            state: parts.state.clone(),
            keys: parts.keys.clone(),
            pool: parts.pool.clone(),
            uploads: parts.uploads,
            ids: ids.clone(),
            recovered: start.recovered,
        };
        let compact_parts = compact::Parts {
            log: parts.log.clone(),
            store: parts.store.clone(),
            keys: parts.keys.clone(),
            clock: parts.clock.clone(),
            pool: parts.pool.clone(),
            min_cut_interval_ms: hurry.clone(),
            patience_ms: parts.patience_ms,
            acts: parts.roles.has(Role::Compact),
            published: Arc::new(published),
        };
        let (intake, handle) =
            Intake::new(parts.log.clone(), parts.pool.clone(), state(), parts.groups, parts.queue_bytes).await?;
        let intake = intake.paced(parts.clock.clone(), parts.min_cut_interval_ms);
        let inbox = match parts.inbox.clone() {
            Some(source) => {
                let (log, pool) = (parts.log.clone(), parts.pool.clone());
                let inbox = inbox::Parts {
                    log,
                    source,
                    pool,
                    extra_hashes: parts.extra_hashes,
                    lines: parts.groups,
                    generation: parts.inbox_generation,
                };
                Some(Inbox::new(inbox, state()).await?.paced(parts.clock.clone(), parts.min_cut_interval_ms))
            }
            None => None,
        };
        let compactor = Compactor::new(compact_parts, state()).await?;
        let mut tasks = Vec::new();
        let mut spawn = |name: String, task: futures::future::BoxFuture<'static, Result<()>>| {
            let (fatal, stop) = (fatal.clone(), stop.clone());
            tasks.push(tokio::spawn(async move {
                if let Err(e) = task.await {
                    tracing::error!(room = name, kind = %e.kind, error = %e, "stops the node");
                    let _ = fatal.try_send(e.context(name));
                    stop.cancel();
                }
            }));
        };
        for room in [Room::Intake(intake), Room::Compactor { compactor, followed }] {
            spawn(room.name().0, Box::pin(drive(room, stop.clone(), parts.health.clone())));
        }
        let inbox_stop = stop.child_token();
        if let (Some(inbox), Some(source)) = (inbox, parts.inbox) {
            let room = Room::Inbox(inbox);
            spawn(room.name().0, Box::pin(drive(room, inbox_stop.clone(), parts.health.clone())));
            spawn("inbox group".into(), Box::pin(membership(source, stop.clone())));
        }
        if parts.roles.has(Role::Fold) {
            let folds = Folds {
                parts: fold_parts,
                progress: progress.clone(),
                health: parts.health.clone(),
                membership: parts.membership,
                partitions: layout.partitions(),
            };
            spawn("folds".into(), Box::pin(folds.run(stop.clone())));
        }
        Ok(Engine {
            intake: handle,
            published: published_rx,
            progress,
            log: parts.log,
            state: parts.state,
            followed: followed_rx,
            hurry,
            stop,
            inbox_stop,
            tasks,
            fatal: fatal_rx,
        })
    }

    /// Completes with the error that ended a room.
    pub async fn failed(&mut self) -> Error {
        match self.fatal.recv().await {
            Some(e) => e,
            None => std::future::pending().await,
        }
    }

    /// Takes no more batches, and completes when everything committed is published, or with the error that makes that
    /// impossible.
    pub async fn drain(&mut self) -> Result<()> {
        let Engine { intake, published, hurry, log, followed, fatal, inbox_stop, .. } = self;
        inbox_stop.cancel(); // what stays in the inbox is taken in by others, or at the next start
        let drained = async {
            intake.drain().await;
            hurry.store(0, Ordering::SeqCst);
            let end = log.end(Partition::Ledger).await?;
            // Where others go on publishing, what comes after this is theirs.
            let done = tokio::select! {
                followed = followed.wait_for(|f| f.settled && f.next >= end) => followed.is_ok(),
                published = published.wait_for(|p| p.seq >= end) => published.is_ok(),
            };
            if done { Ok(()) } else { Err(Error::unavailable("the compactor has stopped")) }
        };
        tokio::select! {
            drained = drained => drained,
            Some(e) = fatal.recv() => Err(e),
        }
    }

    /// Ends every task and leaves the bin state on disk.
    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        for task in self.tasks {
            if let Err(e) = task.await
                && e.is_panic()
            {
                return Err(Error::corrupt("a room panicked: see the log above"));
            }
        }
        self.state.flush()
    }
}

/// Completes with what puts this process out of the inbox's group for good.
async fn membership(source: Arc<dyn log::Inbox>, stop: CancellationToken) -> Result<()> {
    let mut owned = source.owned();
    tokio::select! {
        Ok(out) = owned.wait_for(Result::is_err) => out.clone().map(drop),
        () = stop.cancelled() => Ok(()),
    }
}
