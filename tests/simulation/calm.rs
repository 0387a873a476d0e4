//! The end of a world: the faults stop, and everything that was promised must come true in bounded steps. Then time
//! passes, and nothing published may expire; then workers start from every source, and must agree byte for byte.

use std::sync::atomic::Ordering;

use futures::FutureExt;
use tuflog::error::Kind;
use tuflog::fold::state::Durability;
use tuflog::log::memory::{Faults, MemoryLog};
use tuflog::log::{Log, Partition};
use tuflog::recover::Source;

use crate::inbox::Owned;
use crate::process::{Ground, Polled, Worker};
use crate::producer::Answer;
use crate::world::{At, World};

/// In how many rounds a calm world must have kept its promises.
const PATIENCE: u64 = 1_500;

impl World {
    /// Runs until `done`, in rounds in which every slot gets a few turns.
    fn rounds(&mut self, what: &str, slots: &[At], mut done: impl FnMut(&mut World) -> bool) -> Result<(), String> {
        let from = self.dice.step();
        for t in from..from + PATIENCE {
            self.dice.set_step(t);
            if t % 8 == 0 {
                self.pass_time(1);
            }
            for at in slots {
                self.turn(*at);
                self.turn(*at);
            }
            self.producers_tick();
            if let Some(e) = self.dice.broken() {
                return Err(format!("{what}: {e}"));
            }
            if done(self) {
                return Ok(());
            }
        }
        let r = &self.checker.replay;
        let open = self.producers.iter().filter(|p| p.answer.is_none()).count();
        let (cuts, stamps, pointer) = (r.cuts.len(), r.stamps.len(), self.checker.pointer);
        Err(format!(
            "{what}: not live: {open} producers unanswered, pending {}, cut {cuts} done {}, timestamp {pointer} of {stamps}",
            r.pending(),
            r.done
        ))
    }

    /// Everything that was committed is published.
    fn settled(&self) -> bool {
        let r = &self.checker.replay;
        let answered = self.producers.iter().all(|p| p.answer.is_some());
        answered
            && !r.pending()
            && r.done > 0
            && r.done == r.cuts.len() as u64
            && self.checker.pointer == r.stamps.len() as u64
    }

    pub fn calm(&mut self) -> Result<(), String> {
        self.dice.trace(|| "calm".into());
        self.ground.log.set_faults(Faults::NONE);
        self.dice.set_faults(0);
        self.ground.log.deliver_late();
        self.ground.disk.deliver_late(true);
        self.compactors.iter().for_each(|(_, clock)| clock.skew.store(0, Ordering::SeqCst));
        for at in self.slots() {
            self.slot(at).asleep = 0;
            if self.dice.pct(30) {
                self.crash(at);
            }
        }
        self.observe();
        let survivors = self.dice.pct(50);
        let slots = self.slots();
        let left = |at: &At| matches!(at, At::Intake(0) | At::Inbox(0) | At::Compactor(0) | At::Fold(0, _));
        let slots: Vec<At> = slots.into_iter().filter(|at| !survivors || left(at)).collect();
        if survivors {
            self.dice.hit("calm with one of each");
            for at in self.slots().into_iter().filter(|at| !left(at)) {
                self.crash(at);
            }
        }
        // One has all of the inbox, and some others too.
        let all: Owned = (0..self.checker.mail.partitions).collect();
        for (i, (_, owned)) in self.inboxes.iter().enumerate() {
            let _ = owned.send_replace(Ok(if i == 0 || self.dice.pct(20) { all.clone() } else { Owned::new() }));
        }
        self.rounds("calm", &slots, |w| w.settled() && w.checker.mail.is_empty(&w.checker.replay))?;
        self.rounds("what the inbox brought", &slots, |w| w.settled())?;
        self.promises()?;
        self.quiet(&slots)?;
        self.checker.mail.check(&self.checker.replay)?;
        match self.checker.mail.lag() {
            0 => {}
            lag => return Err(format!("all of the inbox is decided, and its group is {lag} records behind")),
        }
        if let Some(full) = self.intakes.iter().filter_map(|s| s.handle.as_ref()).find(|h| h.queued_bytes() > 0) {
            return Err(format!("{} bytes of the queue are taken, and nothing is in it", full.queued_bytes()));
        }
        self.states_agree(&slots)?;
        self.time_passes(&slots)?;
        self.slow_fold(&slots)?;
        self.drains()?;
        self.three_sources()?;
        self.lost_end()
    }

    /// Until nobody has anything to do.
    fn quiet(&mut self, slots: &[At]) -> Result<(), String> {
        for _ in 0..PATIENCE {
            let mut busy = false;
            for at in slots {
                busy |= self.turn(*at) != Polled::Idle;
            }
            if let Some(e) = self.dice.broken() {
                return Err(e);
            }
            if !busy {
                return Ok(());
            }
        }
        Err("the processes do not come to rest".into())
    }

    fn promises(&mut self) -> Result<(), String> {
        let r = &self.checker.replay;
        for p in &self.producers {
            let is = r.ids.get(&p.id);
            let mine = is.filter(|(_, digest)| *digest == p.digest);
            match p.answer {
                Some(Answer::Accepted(seq)) if mine.is_some_and(|(at, _)| *at == seq) => {}
                Some(Answer::Conflict) if is.is_some() && mine.is_none() => {}
                Some(Answer::GaveUp) => {}
                answer => return Err(format!("batch {} was answered {answer:?}, the ledger says {is:?}", p.id)),
            }
        }
        let last = r.cuts.last().ok_or("no cut")?;
        let mut published = std::collections::BTreeMap::new();
        last.bins.iter().for_each(|bin| published.extend(bin.content.clone()));
        if published != r.map {
            return Err("the last cut is not the whole repository".into());
        }
        self.dice.hit("worlds that came to rest");
        Ok(())
    }

    /// The bin state of every worker that is left is the replay's.
    fn states_agree(&mut self, slots: &[At]) -> Result<(), String> {
        for at in slots {
            let At::Fold(w, p) = *at else { continue };
            let Some(state) = self.workers[w].state.clone() else { continue };
            let r = &self.checker.replay;
            for bin in self.ground.layout.bins_of(p as u16) {
                let mut is = Vec::new();
                state.content(bin, &mut is).map_err(|e| e.to_string())?;
                let here = r.map.iter().filter(|(path, _)| r.bin_of(path) == u64::from(bin));
                let want: Vec<String> = here.map(|(path, target)| format!("\"{path}\":{target}")).collect();
                if is != want.join(",").as_bytes() {
                    let is = String::from_utf8_lossy(&is).into_owned();
                    return Err(format!("worker {w}, bin {bin}: state {is}, replay {}", want.join(",")));
                }
            }
            let dirty = state.dirty(p as u16).map_err(|e| e.to_string())?;
            if !dirty.is_empty() || !state.absent(p as u16).map_err(|e| e.to_string())?.is_empty() {
                return Err(format!("worker {w}, partition {p}: marks of a cut that is published: {dirty:?}"));
            }
        }
        Ok(())
    }

    /// Several periods of every role: what is published never expires, though nobody writes anything.
    fn time_passes(&mut self, slots: &[At]) -> Result<(), String> {
        let end = self.now() + 1_500;
        while self.now() < end {
            self.pass_time(15);
            self.rounds("renewal", slots, |w| w.settled() && w.rested(slots))?;
            let now = self.now();
            if let Some((name, expires)) = self.checker.published.iter().find(|(_, expires)| *expires <= now) {
                return Err(format!("{name} is published and expired at {expires}, it is {now}"));
            }
        }
        self.dice.hit("worlds whose roles were all renewed");
        Ok(())
    }

    /// No fold does anything while time passes: the timestamp is renewed all the same, whatever the settings become.
    fn slow_fold(&mut self, slots: &[At]) -> Result<(), String> {
        let others: Vec<At> = slots.iter().copied().filter(|at| !matches!(at, At::Fold(..))).collect();
        self.new_producer();
        self.rounds("a batch", &others, |w| w.producers.iter().all(|p| p.answer.is_some()))?;
        self.quiet(&others)?;
        let end = self.now() + 700;
        while self.now() < end {
            if self.dice.pct(10) {
                self.operator.raise_timestamp_expiry(&self.checker.replay);
            }
            self.pass_time(15);
            self.quiet(&others)?;
            let (now, published) = (self.now(), &self.checker.published);
            if let Some((_, expires)) = published.iter().find(|(name, e)| name == "timestamp" && *e <= now) {
                return Err(format!("the timestamp expired at {expires} while folds were slow, it is {now}"));
            }
        }
        self.rounds("folds go on", slots, |w| w.settled())?;
        self.quiet(slots)
    }

    /// An intake that drains decides what it has, and takes nothing more.
    fn drains(&mut self) -> Result<(), String> {
        let Some(handle) = self.intakes[0].handle.clone() else { return Ok(()) };
        let mut drain = Box::pin(async move { handle.drain().await });
        for _ in 0..PATIENCE {
            if (&mut drain).now_or_never().is_some() {
                self.dice.hit("intakes drained");
                self.crash(At::Intake(0));
                return Ok(());
            }
            self.turn(At::Intake(0));
        }
        Err("an intake does not drain".into())
    }

    /// A worker whose position lies beyond the end of the log stops; it repairs nothing.
    fn lost_end(&mut self) -> Result<(), String> {
        let worker = &self.workers[0];
        let Some(state) = worker.state.clone() else { return Ok(()) };
        let position = state.position(0).ok().flatten().ok_or("a fold without a position")?;
        let shorter = MemoryLog::new(0, Faults::NONE);
        for r in self.ground.log.records(Partition::Ledger).into_iter().filter(|r| r.offset + 2 < position) {
            let _ = shorter.append(Partition::Ledger, r.payload).now_or_never();
        }
        let ground = Ground { log: shorter, ..self.ground.clone() };
        let mut fold = ground.fold(&worker.slots[0].gate, self.operator.keys(), state, 0, Source::Local);
        for _ in 0..PATIENCE {
            match (&mut fold).now_or_never() {
                None => {}
                Some(Err(e)) if e.kind == Kind::Corrupt => {
                    self.dice.hit("logs that lost their end");
                    return Ok(());
                }
                Some(other) => {
                    return Err(format!("position {position} beyond the end: {:?}", other.map(|_| "goes on")));
                }
            }
        }
        Err("a fold beyond the end of the log does not stop".into())
    }

    /// A round in which nobody had anything to do.
    fn rested(&mut self, slots: &[At]) -> bool {
        slots.iter().all(|at| self.turn(*at) == Polled::Idle)
    }

    /// Three new workers, one from each source, fold one more cut before anybody completes it: the reports, and so
    /// the bytes of their bins, are the same.
    fn three_sources(&mut self) -> Result<(), String> {
        let mut old: Vec<At> = self.slots().into_iter().filter(|at| !matches!(at, At::Fold(..))).collect();
        old.retain(|at| matches!(at, At::Intake(0) | At::Compactor(0)));
        (0..self.inboxes.len()).for_each(|i| self.crash(At::Inbox(i)));
        (1..self.intakes.len()).for_each(|i| self.crash(At::Intake(i)));
        (1..self.compactors.len()).for_each(|i| self.crash(At::Compactor(i)));
        let local = self.workers.drain(..).next();
        self.workers.extend(local);
        let dice = self.dice.clone();
        self.workers[0].crash(&dice, false);
        for number in 1..3 {
            self.workers.push(Worker::new(&self.ground, number, Durability::Process));
        }
        let folds: Vec<At> = self.slots().into_iter().filter(|at| matches!(at, At::Fold(..))).collect();
        for at in &folds {
            let At::Fold(w, _) = at else { continue };
            self.start_from(*at, [Source::Local, Source::Checkpoint, Source::Genesis][*w], false);
        }
        self.quiet(&folds)?;
        self.states_agree(&folds)?;
        let cut = self.checker.replay.cuts.len();
        (0..4).for_each(|_| self.new_producer());
        self.rounds("a last cut", &old, |w| {
            w.checker.replay.cuts.len() > cut && w.producers.iter().all(|p| p.answer.is_some())
        })?;
        let cut = self.checker.replay.cuts.last().cloned().ok_or("no cut")?;
        self.quiet(&folds)?;
        for partition in cut.reports.keys() {
            let times = self.checker.times_reported(cut.n, *partition);
            if times != 3 {
                return Err(format!("cut {}, partition {partition}: reported {times} times by three workers", cut.n));
            }
        }
        let all: Vec<At> = old.into_iter().chain(folds.iter().copied()).collect();
        self.rounds("the end", &all, |w| w.settled())?;
        self.quiet(&all)?;
        self.states_agree(&folds)?;
        self.dice.hit("worlds whose three sources agree");
        Ok(())
    }
}
