//! The readers: TUF clients that look again and again while the load runs, and at batches as a whole.
//!
//! Owns the check of "all or nothing": of a batch that was sent, some targets are looked up in one snapshot, in several
//! bins. Each may say yes, it is there; no, it is not; or nothing (a target is gone, by this batch or a later one).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;

use super::Run;
use super::follow::{Believed, Follower, Trouble};
use super::load::{self, REMOVED, Step};
use super::produce::Sent;
use super::report::{Finding, Kind};
use crate::bins::Bin;

/// How many batches are looked at in a snapshot.
const BATCHES: usize = 2;
/// In how many bins each of them is looked up.
const BINS: usize = 4;

/// What a target says about a batch that changes it, in one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    There,
    NotThere,
    Nothing,
}

/// `rev` is the revision in the snapshot, if the target is there; `removed` says that a batch removes it that was sent
/// before the snapshot was read.
fn evidence(step: Step, rev: Option<u32>, removed: bool) -> Evidence {
    match rev {
        Some(_) if step.rev == REMOVED => Evidence::NotThere,
        Some(rev) if rev >= step.rev => Evidence::There,
        Some(_) => Evidence::NotThere,
        None if removed => Evidence::Nothing,
        None => Evidence::NotThere,
    }
}

impl Run<'_> {
    /// Looks until the load is over.
    pub async fn read(&self, reader: u32, follower: &mut Follower<'_>) {
        let mut rng = Rng::with_seed(self.load.seed ^ u64::from(reader).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let every = Duration::from_millis(self.options.read_every_ms);
        loop {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = self.over.cancelled() => return,
            }
            if let Err(trouble) = self.read_once(&mut rng, follower).await {
                self.trouble(trouble);
            }
        }
    }

    async fn read_once(&self, rng: &mut Rng, follower: &mut Follower<'_>) -> Believed<()> {
        // What must be visible is what was so before the look.
        let reached = self.tally.borrow().reached();
        let batches = self.choose(rng);
        let must: Vec<bool> = batches.iter().map(|b| b.seq.get() <= reached && b.seq.get().is_some()).collect();
        let new = follower.look().await?;
        let mut counts = self.readers.get();
        counts.looks += 1;
        counts.snapshots += u64::from(new);
        self.readers.set(counts);
        for (batch, must) in batches.iter().zip(must) {
            self.look_at(rng, follower, batch, must).await?;
        }
        Ok(())
    }

    /// Some of the batches sent last.
    fn choose(&self, rng: &mut Rng) -> Vec<Rc<Sent>> {
        let recent = self.known.recent.borrow();
        let mut chosen: Vec<Rc<Sent>> = Vec::new();
        for _ in 0..BATCHES.min(recent.len()) {
            chosen.push(recent[rng.usize(0..recent.len())].clone());
        }
        chosen
    }

    async fn look_at(&self, rng: &mut Rng, follower: &Follower<'_>, batch: &Sent, must: bool) -> Believed<()> {
        let Some(layout) = follower.layout() else { return Ok(()) };
        let path = |step: &Step| load::path(self.load.seed, batch.lane, step.number);
        let mut by_bin: BTreeMap<Bin, Vec<Step>> = BTreeMap::new();
        let start = rng.usize(0..batch.steps.len().max(1));
        for step in batch.steps[start..].iter().chain(&batch.steps[..start]) {
            let bin = layout.bin_of(&path(step));
            if by_bin.len() < BINS || by_bin.contains_key(&bin) {
                by_bin.entry(bin).or_default().push(*step);
            }
        }
        let (mut there, mut not_there) = (None, None);
        for (bin, steps) in by_bin {
            let (seen, _) = follower.bin(bin).await?;
            let mut seen_of = BTreeMap::new();
            let numbers: BTreeSet<u32> = steps.iter().map(|s| s.number).collect();
            for target in seen.into_iter().filter(|t| t.lane == batch.lane && numbers.contains(&t.number)) {
                let Some(rev) = target.rev else {
                    let path = load::path(self.load.seed, target.lane, target.number);
                    let message =
                        format!("{path} has content that was never sent, in snapshot {}", follower.checkpoint());
                    return Err(Trouble::Wrong(Finding::new(Kind::WrongTarget, message)));
                };
                seen_of.insert(target.number, rev);
            }
            let lane = self.known.lanes[batch.lane as usize].borrow();
            for step in steps {
                match evidence(step, seen_of.get(&step.number).copied(), lane.is_removed(step.number)) {
                    Evidence::There => there = there.or(Some(step)),
                    Evidence::NotThere => not_there = not_there.or(Some(step)),
                    Evidence::Nothing => {}
                }
            }
        }
        let (id, n) = (&batch.id, follower.checkpoint());
        match (there, not_there) {
            (Some(yes), Some(no)) => {
                let (yes, no) = (path(&yes), path(&no));
                let message = format!("snapshot {n} has batch {id} in part: its change of {yes}, not that of {no}");
                return Err(Trouble::Wrong(Finding::new(Kind::Split, message)));
            }
            (None, Some(no)) if must => {
                let seq = batch.seq.get().unwrap_or_default();
                let path = path(&no);
                let message = format!("batch {id} (seq {seq}) is published, snapshot {n} lacks its change of {path}");
                return Err(Trouble::Wrong(Finding::new(Kind::NotVisible, message)));
            }
            (None, None) => {}
            _ => {
                let mut counts = self.readers.get();
                counts.batches += 1;
                self.readers.set(counts);
            }
        }
        Ok(())
    }

    /// Counts a server that is away, and keeps what is wrong.
    pub fn trouble(&self, trouble: Trouble) {
        match trouble {
            Trouble::Wrong(finding) => self.found(finding),
            Trouble::Away(why) => {
                tracing::debug!(why, "a reader looks again later");
                let mut counts = self.readers.get();
                counts.unavailable += 1;
                self.readers.set(counts);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_tells_whether_a_batch_is_there() {
        let step = |rev| Step { number: 1, rev };
        let (add, replace, remove) = (step(1), step(3), step(REMOVED));
        for (step, rev, removed, expected) in [
            (add, None, false, Evidence::NotThere),
            (add, Some(1), false, Evidence::There),
            (add, Some(7), true, Evidence::There),
            (add, None, true, Evidence::Nothing), // not yet, or no more
            (replace, Some(2), false, Evidence::NotThere),
            (replace, Some(3), false, Evidence::There),
            (replace, None, false, Evidence::NotThere), // not even added
            (remove, Some(9), true, Evidence::NotThere),
            (remove, None, true, Evidence::Nothing),
        ] {
            assert_eq!(evidence(step, rev, removed), expected, "{step:?} {rev:?}");
        }
    }
}
