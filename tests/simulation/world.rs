//! One simulated world: a seed's processes, producers and accidents, and the order in which they get their turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tokio::sync::watch;
use tuflog::bins::Layout;
use tuflog::compact::Published;
use tuflog::fold::state::Durability;
use tuflog::log::memory::{Faults, MemoryLog};
use tuflog::recover::Source;

use crate::check::Checker;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::inbox::Owned;
use crate::operator::{self, Operator, START};
use crate::process::{Ground, Polled, Skewed, Slot, Worker};
use crate::producer::{Habit, Producer, changes};

/// How many turns a world gets before the faults stop.
pub const STEPS: u64 = 1_200;

/// Which slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    Intake(usize),
    Inbox(usize),
    Compactor(usize),
    Fold(usize, usize),
}

pub struct World {
    pub dice: Dice,
    pub ground: Ground,
    pub checker: Checker,
    pub operator: Operator,
    pub intakes: Vec<Slot>,
    /// With the partitions of the inbox that each one believes to be its own.
    pub inboxes: Vec<(Slot, watch::Sender<tuflog::Result<Owned>>)>,
    pub compactors: Vec<(Slot, Arc<Skewed>)>,
    /// What each compactor says about the pointer.
    says: Vec<Arc<watch::Sender<Published>>>,
    pub workers: Vec<Worker>,
    pub producers: Vec<Producer>,
    next_id: u64,
    paths: u64,
    values: u64,
    /// How often somebody writes to the inbox.
    letters: u64,
    crashes: u64,
    power: bool,
}

impl World {
    pub fn new(seed: u64, traced: bool) -> World {
        let dice = Dice::new(seed, traced);
        let partitions = dice.of(&[1u32, 2, 2, 4]);
        let bins = partitions.max(2) * dice.of(&[1u32, 1, 2, 4]);
        let layout = Layout::new(bins, partitions).expect("a layout");
        let log = MemoryLog::new(dice.next(), Faults::NONE);
        let disk = Disk::new(dice.clone(), dice.pct(40));
        let time = Arc::new(AtomicU64::new(START));
        log.set_time(START);
        let mut checker = Checker::new(log.clone(), disk.clone(), dice.clone());
        let mut operator = Operator::new(dice.clone(), log.clone(), dice.pct(50));
        operator.init(&mut checker.replay, bins, partitions, operator::settings(&dice));
        checker.observe().expect("the first records");
        let percent = dice.of(&[0u8, 5, 15, 30]);
        let (gap_percent, lag_percent) = (dice.of(&[0, 10]), dice.of(&[0, 5, 25]));
        log.set_faults(Faults { percent, gap_percent, lag_percent, outage_percent: percent / 6 });
        dice.set_faults(u64::from(percent));
        let segment_bytes = dice.of(&[1, 400, 1 << 19]);
        let ids = Default::default();
        let ground = Ground { dice: dice.clone(), log, disk, layout, segment_bytes, time, ids };
        let (intakes, workers, compactors) = (1 + dice.index(3), 1 + dice.index(3), 1 + dice.index(3));
        let clock = |_| Arc::new(Skewed { world: ground.time.clone(), skew: AtomicI64::new(0) });
        let (readers, partitions) = (1 + dice.index(3), checker.mail.partitions);
        let share = |i| Ok((0..partitions).filter(|p| usize::from(*p) % readers == i).collect());
        World {
            inboxes: (0..readers)
                .map(|i| (Slot::new(format!("inbox {i}"), &dice), watch::channel(share(i)).0))
                .collect(),
            letters: dice.of(&[0, 3, 3, 8]),
            intakes: (0..intakes).map(|i| Slot::new(format!("intake {i}"), &dice)).collect(),
            says: (0..compactors).map(|_| Arc::new(watch::channel(Published::default()).0)).collect(),
            compactors: (0..compactors).map(|i| (Slot::new(format!("compactor {i}"), &dice), clock(i))).collect(),
            workers: (0..workers)
                .map(|i| Worker::new(&ground, i, dice.of(&[Durability::Process, Durability::Flushes])))
                .collect(),
            producers: vec![],
            next_id: 0,
            paths: 2 * u64::from(bins),
            values: dice.of(&[2, 2, 1_000]),
            crashes: dice.of(&[0, 1, 3, 8]),
            power: dice.pct(30),
            dice,
            ground,
            checker,
            operator,
        }
    }

    pub fn slots(&self) -> Vec<At> {
        let folds =
            self.workers.iter().enumerate().flat_map(|(w, worker)| (0..worker.slots.len()).map(move |p| (w, p)));
        let mut all: Vec<At> = (0..self.intakes.len()).map(At::Intake).collect();
        all.extend((0..self.inboxes.len()).map(At::Inbox));
        all.extend((0..self.compactors.len()).map(At::Compactor));
        all.extend(folds.map(|(w, p)| At::Fold(w, p)));
        all
    }

    pub fn slot(&mut self, at: At) -> &mut Slot {
        match at {
            At::Intake(i) => &mut self.intakes[i],
            At::Inbox(i) => &mut self.inboxes[i].0,
            At::Compactor(i) => &mut self.compactors[i].0,
            At::Fold(w, p) => &mut self.workers[w].slots[p],
        }
    }

    pub fn now(&self) -> u64 {
        self.ground.time.load(Ordering::SeqCst)
    }

    pub fn pass_time(&self, seconds: u64) {
        self.ground.time.fetch_add(seconds, Ordering::SeqCst);
        self.ground.log.set_time(self.now());
    }

    /// Starts what is down, from somewhere.
    fn start(&mut self, at: At) {
        let source = self.dice.of(&[Source::Local, Source::Local, Source::Checkpoint, Source::Genesis]);
        let genesis = self.dice.pct(20);
        self.start_from(at, source, genesis);
    }

    pub fn start_from(&mut self, at: At, source: Source, genesis: bool) {
        let (ground, keys) = (self.ground.clone(), self.operator.keys());
        self.dice.trace(|| format!("{at:?} starts from {source:?}, genesis: {genesis}"));
        let starting = match at {
            At::Intake(i) => ground.intake(&self.intakes[i].gate, genesis, self.dice.of(&[1, 2, 4])),
            At::Inbox(i) => {
                let (slot, owned) = &self.inboxes[i];
                ground.inbox(&slot.gate, self.checker.mail.told.clone(), owned.subscribe(), genesis)
            }
            At::Compactor(i) => {
                let (slot, clock) = &self.compactors[i];
                let says = self.says[i].clone();
                ground.compactor(&slot.gate, clock.clone(), keys, says, genesis)
            }
            At::Fold(w, p) => {
                let worker = &mut self.workers[w];
                let state = worker.open();
                self.dice.hit(match (source, state.position(p as u16)) {
                    (Source::Local, Ok(Some(_))) => "folds started from local state",
                    (Source::Genesis, _) => "folds started from genesis",
                    _ => "folds started from a checkpoint",
                });
                ground.fold(&worker.slots[p].gate, keys, state, p as u16, source)
            }
        };
        self.slot(at).start(starting);
    }

    /// One turn of one slot, and a look at what came of it.
    pub fn turn(&mut self, at: At) -> Polled {
        if self.slot(at).asleep > self.dice.step() {
            return Polled::Stands;
        }
        if self.slot(at).is_down() {
            self.start(at);
        }
        if matches!(at, At::Intake(_)) {
            self.producers.iter_mut().for_each(|p| p.withdraw(&self.checker.replay));
        }
        let (dice, before) = (self.dice.clone(), self.slot(at).position);
        let polled = self.slot(at).poll(&dice);
        if let (Some(from), Some(to)) = (before, self.slot(at).position) {
            let r = &self.checker.replay;
            let passed = r.cuts.iter().rev().filter(|c| (from..to).contains(&c.seq) && c.n <= r.done);
            dice.add("cuts passed that had their Checkpoint", passed.count() as u64);
        }
        self.observe();
        if let At::Compactor(i) = at {
            let says = *self.says[i].borrow();
            let cut = self.checker.replay.cuts.get((says.n as usize).wrapping_sub(1));
            if says.version > self.checker.pointer || says.seq > cut.map_or(0, |c| c.seq) {
                dice.fail(format!("compactor {i} says that {says:?} is published, it is {}", self.checker.pointer));
            }
        }
        polled
    }

    pub fn observe(&mut self) {
        if let Err(e) = self.checker.observe() {
            self.dice.fail(e);
        }
        if self.operator.destroy_old_keys(self.checker.completed_root) && self.dice.pct(50) {
            // The processes that still held them in memory are restarted.
            (0..self.compactors.len()).for_each(|i| self.crash(At::Compactor(i)));
            (0..self.workers.len()).for_each(|w| self.crash_worker(w, false));
        }
    }

    pub fn producers_tick(&mut self) {
        let handles: Vec<_> = self.intakes.iter().map(|slot| slot.handle.clone()).collect();
        for producer in &mut self.producers {
            producer.tick(&self.dice, &self.checker.replay, &handles);
        }
    }

    pub fn new_producer(&mut self) {
        let content = changes(&self.dice, self.paths, self.values);
        let tried = |p: &&Producer| p.has_tried();
        if self.dice.pct(10)
            && let Some(first) = self.producers.iter().rev().take(8).find(tried)
        {
            self.dice.hit("twins");
            let twin = first.twin(content, &mut self.checker.replay);
            return self.producers.push(twin);
        }
        self.next_id += 1;
        let habit = self.dice.of(&[Habit::Careful, Habit::Returns, Habit::Without]);
        let id = format!("batch-{}", self.next_id);
        self.producers.push(Producer::new(id, content, habit, &mut self.checker.replay));
    }

    pub fn crash(&mut self, at: At) {
        let dice = self.dice.clone();
        match at {
            At::Intake(_) => dice.hit("crashes: intake"),
            At::Compactor(_) => dice.hit("crashes: compactor"),
            At::Inbox(_) => dice.hit("crashes: inbox"),
            At::Fold(..) => dice.hit("crashes: fold alone"),
        }
        self.slot(at).crash(&dice);
    }

    pub fn crash_worker(&mut self, w: usize, disk_too: bool) {
        self.dice.hit(if disk_too { "crashes: worker with its disk" } else { "crashes: worker" });
        let dice = self.dice.clone();
        self.workers[w].crash(&dice, disk_too);
    }

    fn power_loss(&mut self) {
        self.dice.trace(|| "the power goes".into());
        self.dice.hit("power losses");
        (0..self.intakes.len()).for_each(|i| self.crash(At::Intake(i)));
        (0..self.inboxes.len()).for_each(|i| self.crash(At::Inbox(i)));
        (0..self.compactors.len()).for_each(|i| self.crash(At::Compactor(i)));
        (0..self.workers.len()).for_each(|w| self.crash_worker(w, self.dice.pct(10)));
        self.ground.disk.power_loss();
    }

    /// Runs the part with faults.
    pub fn run(&mut self, steps: u64) -> Result<(), String> {
        for t in 0..steps {
            self.dice.set_step(t);
            self.pass_time(self.dice.below(3));
            self.ground.log.tick();
            self.ground.disk.deliver_late(false);
            self.accident(t);
            self.observe();
            if let Some(e) = self.dice.broken() {
                return Err(e);
            }
        }
        Ok(())
    }

    fn accident(&mut self, t: u64) {
        let all = self.slots();
        let at = self.dice.of(&all);
        match self.dice.below(100) {
            0..=7 if self.producers.iter().filter(|p| p.answer.is_none()).count() < 30 => self.new_producer(),
            8 => {
                self.dice.hit("pauses");
                let pause = if self.dice.pct(20) { self.dice.below(400) } else { self.dice.below(120) };
                self.slot(at).asleep = t + 5 + pause;
            }
            9 if self.dice.pct(20) => self.operator.rotate(&mut self.checker.replay),
            10 if self.dice.pct(25) => self.operator.change_settings(&self.checker.replay),
            11..=12 => self.operator.late_record(&self.checker.replay, self.now()),
            13 if self.dice.pct(20) => self.pass_time(100),
            14 if self.dice.pct(30) => {
                self.dice.hit("clocks set");
                let skew = if self.dice.pct(15) { -1_000 } else { self.dice.below(60) as i64 - 30 };
                let i = self.dice.index(self.compactors.len());
                self.compactors[i].1.skew.store(skew, Ordering::SeqCst);
            }
            15..=18 if self.dice.pct(self.crashes * 10) => match at {
                At::Fold(w, _) if self.dice.pct(70) => self.crash_worker(w, self.dice.pct(10)),
                at => self.crash(at),
            },
            19 if self.power && self.dice.pct(30) => self.power_loss(),
            20..=22 => {
                let w = self.dice.index(self.workers.len());
                if let Some(state) = &self.workers[w].state {
                    self.dice.hit("bin state flushed");
                    state.flush().expect("a flush");
                }
            }
            23..=33 => self.producers_tick(),
            34 if self.dice.pct(30) => {
                // Somebody gains a partition before another has lost it, or loses it for a while.
                let (i, p) =
                    (self.dice.index(self.inboxes.len()), self.dice.index(self.checker.mail.partitions.into()));
                self.dice.hit("inbox: partitions moved");
                self.inboxes[i].1.send_modify(|owned| {
                    if let Ok(owned) = owned
                        && !owned.remove(&(p as u16))
                    {
                        owned.insert(p as u16);
                    }
                });
            }
            35 | 36 if self.dice.below(8) < self.letters => {
                let content = changes(&self.dice, self.paths, self.values);
                let Checker { mail, replay, .. } = &mut self.checker;
                mail.write(&content, replay);
            }
            _ => {
                for _ in 0..1 + self.dice.below(8) {
                    self.turn(at);
                }
            }
        }
    }
}
