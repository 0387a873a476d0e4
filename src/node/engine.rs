//! The engine: the rooms of one repository as tasks.
//!
//! The rooms are steps; here they become tasks. A step that fails with a kind that time may heal is taken again after
//! a pause; a fatal kind ends the engine, for going on could make it worse.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bins::PartitionId;
use crate::clock::Clock;
use crate::compact::{self, Compactor, Published};
use crate::error::{Error, Kind, Result};
use crate::fold::state::State as BinState;
use crate::fold::{self, Fold};
use crate::http::{Cause, Health};
use crate::intake::{self, Intake};
use crate::ledger::State;
use crate::log::{Log, Offset, Partition};
use crate::pool::Pool;
use crate::recover::{self, Source};
use crate::store::Store;
use crate::tuf::key::KeyRing;

/// The first pause after a failed step; it doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between two tries of a step.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// How long after a failure, beside the pause, a room must have gone on before the failure counts as over.
const CALM: Duration = Duration::from_secs(1);
/// How long an actor waits for news before it looks anyway.
const IDLE: Duration = Duration::from_secs(1);

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
}

/// Where the rooms stand, sampled as they go.
#[derive(Debug, Default)]
pub struct Progress {
    /// The seq of the next ledger record, per partition's fold.
    folds: Vec<AtomicU64>,
    /// The same for the compactor.
    compactor: AtomicU64,
}

impl Progress {
    /// The seq of the next ledger record, per partition's fold.
    pub fn folds(&self) -> Vec<Offset> {
        self.folds.iter().map(|p| p.load(Ordering::Relaxed)).collect()
    }
}

/// The running rooms of one repository.
pub struct Engine {
    /// Takes batches.
    pub intake: intake::Handle,
    /// Where the pointer stands.
    pub published: watch::Receiver<Published>,
    /// Where the rooms stand.
    pub progress: Arc<Progress>,
    log: Arc<dyn Log>,
    state: Arc<BinState>,
    settled: watch::Receiver<(Offset, bool)>,
    hurry: Arc<AtomicU64>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    fatal: mpsc::Receiver<Error>,
}

impl Engine {
    /// Recovers every room and starts it. `start` is the ledger state of [`recover::start`].
    pub async fn start(parts: Parts, start: State) -> Result<Engine> {
        let layout = start.layout()?;
        let (published, published_rx) = watch::channel(Published::default());
        let (settled, settled_rx) = watch::channel((0, false));
        let (fatal, fatal_rx) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let progress = Arc::new(Progress {
            folds: (0..layout.partitions()).map(|_| AtomicU64::new(0)).collect(),
            compactor: AtomicU64::new(0),
        });
        let hurry = Arc::new(AtomicU64::new(parts.min_cut_interval_ms));
        let fold_parts = fold::Parts {
            log: parts.log.clone(),
            store: parts.store.clone(),
            state: parts.state.clone(),
            keys: parts.keys.clone(),
            pool: parts.pool.clone(),
            uploads: parts.uploads,
        };
        let compact_parts = compact::Parts {
            log: parts.log.clone(),
            store: parts.store.clone(),
            keys: parts.keys.clone(),
            clock: parts.clock.clone(),
            pool: parts.pool.clone(),
            min_cut_interval_ms: hurry.clone(),
            patience_ms: 0, // the only compactor of its log
            published: Arc::new(published),
        };
        let (intake, handle) =
            Intake::new(parts.log.clone(), parts.pool.clone(), start.clone(), parts.groups, parts.queue_bytes).await?;
        let compactor = Compactor::new(compact_parts, start).await?;
        let mut folds = Vec::new();
        for partition in 0..layout.partitions() {
            folds.push(recover::fold(fold_parts.clone(), partition, Source::Local).await?);
        }
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
        spawn("intake".into(), Box::pin(drive(0, Room::Intake(intake), stop.clone(), parts.health.clone())));
        let room = Room::Compactor { compactor, settled, progress: progress.clone() };
        spawn("compactor".into(), Box::pin(drive(1, room, stop.clone(), parts.health.clone())));
        for fold in folds {
            let partition = fold.partition();
            let room =
                Room::Fold { fold: Some(fold), partition, parts: fold_parts.clone(), progress: progress.clone() };
            spawn(
                format!("fold {partition}"),
                Box::pin(drive(2 + usize::from(partition), room, stop.clone(), parts.health.clone())),
            );
        }
        Ok(Engine {
            intake: handle,
            published: published_rx,
            progress,
            log: parts.log,
            state: parts.state,
            settled: settled_rx,
            hurry,
            stop,
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
        let Engine { intake, hurry, log, settled, fatal, .. } = self;
        let drained = async {
            intake.drain().await;
            hurry.store(0, Ordering::SeqCst);
            let end = log.end(Partition::Ledger).await?;
            let settled = settled.wait_for(|(next, settled)| *settled && *next >= end).await;
            settled.map(drop).map_err(|_| Error::unavailable("the compactor has stopped"))
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

/// A room as its task sees it.
enum Room {
    Intake(Intake),
    Fold { fold: Option<Fold>, partition: PartitionId, parts: fold::Parts, progress: Arc<Progress> },
    Compactor { compactor: Compactor, settled: watch::Sender<(Offset, bool)>, progress: Arc<Progress> },
}

impl Room {
    async fn step(&mut self) -> Result<bool> {
        match self {
            Room::Intake(intake) => intake.step().await,
            Room::Fold { fold, partition, parts, progress } => {
                let mut running = match fold.take() {
                    Some(fold) => fold,
                    None => {
                        parts.state.reopen_if_broken()?;
                        recover::fold(parts.clone(), *partition, Source::Local).await?
                    }
                };
                // A fold whose step failed starts again from its stored state: that is the one way it is sure of.
                let worked = running.step().await?;
                progress.folds[usize::from(*partition)].store(running.position(), Ordering::Relaxed);
                *fold = Some(running);
                Ok(worked)
            }
            Room::Compactor { compactor, settled, progress } => {
                let worked = compactor.step().await?;
                let next = compactor.state().next;
                progress.compactor.store(next, Ordering::Relaxed);
                let is = (next, compactor.is_settled());
                settled.send_if_modified(|was| std::mem::replace(was, is) != is);
                Ok(worked)
            }
        }
    }

    async fn ready(&mut self) -> Result<()> {
        match self {
            Room::Intake(intake) => intake.ready().await,
            Room::Fold { fold: Some(fold), .. } => fold.ready().await,
            Room::Fold { .. } => Ok(()),
            Room::Compactor { compactor, .. } => compactor.ready().await,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Room::Intake(_) => "intake",
            Room::Fold { .. } => "fold",
            Room::Compactor { .. } => "compactor",
        }
    }

    fn idle(&self) -> Duration {
        match self {
            Room::Compactor { compactor, .. } => Duration::from_millis(compactor.due_in_ms()),
            _ => IDLE,
        }
    }
}

/// Steps a room until it is told to stop or meets a fatal error.
async fn drive(number: usize, mut room: Room, stop: CancellationToken, health: Arc<Health>) -> Result<()> {
    let name = room.name();
    let mut pause = MIN_PAUSE;
    // The last failure, while it is too recent to be over: a room that starts again succeeds before it fails again.
    let mut failed: Option<Instant> = None;
    while !stop.is_cancelled() {
        let stepped = room.step().await;
        if failed.is_some_and(|at| at.elapsed() > CALM + pause) {
            health.clear(Cause::Room(number));
            (failed, pause) = (None, MIN_PAUSE);
        }
        let waited: Result<()> = match stepped {
            Ok(true) => {
                tokio::task::yield_now().await;
                continue;
            }
            Ok(false) => {
                let idle = room.idle();
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    ready = room.ready() => ready,
                    () = tokio::time::sleep(idle) => Ok(()),
                }
            }
            Err(e) => Err(e),
        };
        if let Err(e) = waited {
            if e.is_fatal() {
                return Err(e);
            }
            // One append without an answer is nothing to speak of.
            if e.kind != Kind::Indeterminate || failed.is_some() {
                tracing::warn!(room = name, kind = %e.kind, error = %e, "tries again");
                health.set(Cause::Room(number), format!("{name}: {e}"));
            }
            failed = Some(Instant::now());
            let jitter = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(jitter) => {}
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
    Ok(())
}
