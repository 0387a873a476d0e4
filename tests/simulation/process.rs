//! Processes: the real intake, folds and compactor, each step a future that the scheduler polls, leaves standing, or
//! drops together with its actor, which is what a crash is.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::future::LocalBoxFuture;
use rocksdb::{Env, Options};
use tokio::sync::watch;
use tuflog::bins::{Layout, PartitionId};
use tuflog::clock::Clock;
use tuflog::compact::{self, Compactor, Published};
use tuflog::error::{Error, Kind, Result};
use tuflog::fold::state::{Durability, State as BinState};
use tuflog::fold::{self, Fold};
use tuflog::intake::inbox::{self, Inbox};
use tuflog::intake::{Handle, Intake};
use tuflog::ledger::{State, ids};
use tuflog::log::Log;
use tuflog::log::memory::MemoryLog;
use tuflog::pool::Pool;
use tuflog::recover::{self, Source};
use tuflog::store::Store;
use tuflog::tuf::KeyRing;

use crate::dice::Dice;
use crate::disk::{Disk, GatedStore};
use crate::gate::{Gate, GatedLog};
use crate::inbox::{Desk, Owned, Told};

/// A process's clock: the world's time, off by its own skew. Ticks never go back.
pub struct Skewed {
    pub world: Arc<AtomicU64>,
    pub skew: AtomicI64,
}

impl Clock for Skewed {
    fn now(&self) -> u64 {
        self.world.load(Ordering::SeqCst).saturating_add_signed(self.skew.load(Ordering::SeqCst))
    }

    fn ticks_ms(&self) -> u64 {
        self.world.load(Ordering::SeqCst) * 1_000
    }
}

pub enum Actor {
    Intake(Box<Intake>, Handle),
    Fold(Box<Fold>),
    Compactor(Box<Compactor>),
    Inbox(Box<Inbox>),
}

enum Run {
    Down,
    Starting(LocalBoxFuture<'static, Result<Actor>>),
    Idle(Actor),
    Stepping(LocalBoxFuture<'static, (Actor, Result<bool>)>),
}

/// One actor of a process, with the step it is in.
pub struct Slot {
    pub name: String,
    pub gate: Arc<Gate>,
    run: Run,
    /// The handle of a running intake.
    pub handle: Option<Handle>,
    /// Not polled before this step of the world.
    pub asleep: u64,
    /// The position of a running fold after its last step.
    pub position: Option<u64>,
}

/// What a poll came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Polled {
    Down,
    /// It stands at a gate.
    Stands,
    /// A step ended, and had something to do.
    Worked,
    /// A step ended with nothing to do.
    Idle,
    /// A step failed; it may be tried again.
    Failed,
}

impl Slot {
    pub fn new(name: String, dice: &Dice) -> Slot {
        Slot { name, gate: Gate::new(dice.clone()), run: Run::Down, handle: None, asleep: 0, position: None }
    }

    pub fn is_down(&self) -> bool {
        matches!(self.run, Run::Down)
    }

    pub fn start(&mut self, starting: LocalBoxFuture<'static, Result<Actor>>) {
        (self.run, self.handle, self.asleep) = (Run::Starting(starting), None, 0);
    }

    /// Everything in memory is gone, whatever the step stands at.
    pub fn crash(&mut self, dice: &Dice) {
        for point in self.gate.standing() {
            dice.hit(&format!("crash {point}"));
        }
        dice.trace(|| format!("{} crashes at {:?}", self.name, self.gate.standing()));
        (self.run, self.handle, self.position) = (Run::Down, None, None);
    }

    pub fn poll(&mut self, dice: &Dice) -> Polled {
        let mut context = Context::from_waker(futures::task::noop_waker_ref());
        match std::mem::replace(&mut self.run, Run::Down) {
            Run::Down => Polled::Down,
            Run::Starting(mut starting) => match starting.as_mut().poll(&mut context) {
                Poll::Pending => {
                    self.run = Run::Starting(starting);
                    Polled::Stands
                }
                Poll::Ready(Ok(actor)) => {
                    dice.trace(|| format!("{} has started", self.name));
                    if let Actor::Intake(_, handle) = &actor {
                        self.handle = Some(handle.clone());
                    }
                    self.run = Run::Idle(actor);
                    Polled::Worked
                }
                Poll::Ready(Err(e)) => self.failed(dice, &e), // and is down: it will be started again
            },
            Run::Idle(mut actor) => {
                let step = async move {
                    let done = match &mut actor {
                        Actor::Intake(intake, _) => intake.step().await,
                        Actor::Fold(fold) => fold.step().await,
                        Actor::Compactor(compactor) => compactor.step().await,
                        Actor::Inbox(inbox) => inbox.step().await,
                    };
                    (actor, done)
                };
                self.run = Run::Stepping(Box::pin(step));
                self.poll(dice)
            }
            Run::Stepping(mut step) => match step.as_mut().poll(&mut context) {
                Poll::Pending => {
                    self.run = Run::Stepping(step);
                    Polled::Stands
                }
                Poll::Ready((actor, done)) => {
                    if let Actor::Fold(fold) = &actor {
                        self.position = Some(fold.position());
                    }
                    self.run = Run::Idle(actor);
                    match done {
                        Ok(true) => Polled::Worked,
                        Ok(false) => Polled::Idle,
                        Err(e) => self.failed(dice, &e),
                    }
                }
            },
        }
    }

    fn failed(&self, dice: &Dice, e: &Error) -> Polled {
        dice.trace(|| format!("{}: {:?} {e}", self.name, e.kind));
        match e.kind {
            Kind::Unavailable if e.message.contains("clock is") => dice.hit("steps refused: clock far behind"),
            Kind::Unavailable if e.message.contains("private key") => dice.hit("steps refused: key destroyed"),
            Kind::Unavailable | Kind::Indeterminate => dice.hit("steps failed"),
            _ => dice.fail(format!("{} stopped as {}: {e}", self.name, e.kind)),
        }
        Polled::Failed
    }
}

/// What every process is given.
#[derive(Clone)]
pub struct Ground {
    pub dice: Dice,
    pub log: MemoryLog,
    pub disk: Disk,
    pub layout: Layout,
    pub segment_bytes: usize,
    pub time: Arc<AtomicU64>,
    /// What all readers of the ledger remember together, as if they were of one process.
    pub ids: ids::Table,
}

/// The ledger state that an actor begins with: of the last checkpoint, or none.
async fn begin(log: &dyn Log, store: &dyn Store, genesis: bool, ids: &ids::Table) -> Result<State> {
    let mut state = if genesis { State::default() } else { recover::start(log, store).await? };
    state.ids.share(ids);
    Ok(state)
}

impl Ground {
    fn log(&self, gate: &Arc<Gate>) -> Arc<dyn Log> {
        Arc::new(GatedLog { log: self.log.clone(), gate: gate.clone() })
    }

    fn store(&self, gate: &Arc<Gate>) -> Arc<dyn Store> {
        Arc::new(GatedStore { disk: self.disk.clone(), gate: gate.clone(), dice: self.dice.clone() })
    }

    /// An intake, from the last checkpoint or from genesis.
    pub fn intake(&self, gate: &Arc<Gate>, genesis: bool, groups: usize) -> LocalBoxFuture<'static, Result<Actor>> {
        let (log, store, segment_bytes) = (self.log(gate), self.store(gate), self.segment_bytes);
        let queue_bytes = self.dice.of(&[3_000, 1 << 20]);
        let ids = self.ids.clone();
        Box::pin(async move {
            let state = begin(&*log, &*store, genesis, &ids).await?;
            let (intake, handle) = Intake::new(log, Pool::Inline, state, groups, queue_bytes).await?;
            Ok(Actor::Intake(Box::new(intake.with_segment_bytes(segment_bytes)), handle))
        })
    }

    /// An intake's way to the inbox, from the last checkpoint or from genesis.
    pub fn inbox(
        &self,
        gate: &Arc<Gate>,
        told: Told,
        owned: watch::Receiver<Result<Owned>>,
        genesis: bool,
    ) -> LocalBoxFuture<'static, Result<Actor>> {
        let (log, store, segment_bytes) = (self.log(gate), self.store(gate), self.segment_bytes);
        let lines = self.dice.of(&[1, 2, 4]);
        let ids = self.ids.clone();
        let source = Arc::new(Desk { log: self.log.clone(), gate: gate.clone(), told, owned });
        Box::pin(async move {
            let state = begin(&*log, &*store, genesis, &ids).await?;
            let parts =
                inbox::Parts { log, source, pool: Pool::Inline, extra_hashes: Arc::default(), lines, generation: 0 };
            Ok(Actor::Inbox(Box::new(Inbox::new(parts, state).await?.with_segment_bytes(segment_bytes))))
        })
    }

    /// A compactor, from the last checkpoint or from genesis.
    pub fn compactor(
        &self,
        gate: &Arc<Gate>,
        clock: Arc<Skewed>,
        keys: Arc<KeyRing>,
        published: Arc<watch::Sender<Published>>,
        genesis: bool,
    ) -> LocalBoxFuture<'static, Result<Actor>> {
        let parts = compact::Parts {
            log: self.log(gate),
            store: self.store(gate),
            keys,
            clock,
            pool: Pool::Inline,
            min_cut_interval_ms: Arc::new(AtomicU64::new(self.dice.of(&[0, 0, 5_000]))),
            patience_ms: self.dice.of(&[0, 2_000, 20_000]),
            acts: true,
            published,
        };
        let ids = self.ids.clone();
        Box::pin(async move {
            let (log, store) = (parts.log.clone(), parts.store.clone());
            let state = begin(&*log, &*store, genesis, &ids).await?;
            Ok(Actor::Compactor(Box::new(Compactor::new(parts, state).await?)))
        })
    }

    /// The fold of a partition in a worker.
    pub fn fold(
        &self,
        gate: &Arc<Gate>,
        keys: Arc<KeyRing>,
        state: Arc<BinState>,
        partition: PartitionId,
        source: Source,
    ) -> LocalBoxFuture<'static, Result<Actor>> {
        let (log, store) = (self.log(gate), self.store(gate));
        let uploads = self.dice.of(&[1, 3]);
        let parts =
            fold::Parts { log, store, state, keys, pool: Pool::Inline, uploads, ids: self.ids.clone(), recovered: 0 };
        Box::pin(async move { Ok(Actor::Fold(Box::new(recover::fold(parts, partition, source).await?))) })
    }
}

/// A worker: one bin state, and a fold for every partition.
pub struct Worker {
    env: Env,
    durability: Durability,
    pub state: Option<Arc<BinState>>,
    pub slots: Vec<Slot>,
    layout: Layout,
}

impl Worker {
    pub fn new(ground: &Ground, number: usize, durability: Durability) -> Worker {
        let name = |p| format!("worker {number} fold {p}");
        let slots = (0..ground.layout.partitions()).map(|p| Slot::new(name(p), &ground.dice)).collect();
        let env = Env::mem_env().expect("an environment in memory");
        Worker { env, durability, state: None, slots, layout: ground.layout }
    }

    /// The disk that a crash left, opened.
    pub fn open(&mut self) -> Arc<BinState> {
        let env = self.env.clone();
        let (layout, durability) = (self.layout, self.durability);
        let open = || {
            // Closing a database flushes what had no write-ahead log, which no crash does.
            let mut options = Options::default();
            options = options
                .get_options_from_string("avoid_flush_during_shutdown=true;max_background_jobs=1;keep_log_file_num=1")
                .expect("options");
            options.create_if_missing(true);
            options.set_write_buffer_size(1 << 20);
            options.set_env(&env);
            BinState::open_with(options, Path::new("/state"), layout, durability).expect("bin state opens")
        };
        self.state.get_or_insert_with(|| Arc::new(open())).clone()
    }

    /// The whole process dies. `disk_too`: and its disk is replaced by an empty one.
    pub fn crash(&mut self, dice: &Dice, disk_too: bool) {
        self.slots.iter_mut().for_each(|slot| slot.crash(dice));
        self.state = None;
        if disk_too {
            self.env = Env::mem_env().expect("an environment in memory");
        }
    }
}
