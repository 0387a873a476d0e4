//! How much departs while a cut is being published.
//!
//! Intake and folds share the machine, or at least the log. Left alone under a flood, committing outruns folding: every
//! cut has more to fold than the one before, and takes longer for it. So while a cut is open, only so many changes may
//! follow it as the next one would publish in [`TARGET_MS`], as far as the last cuts tell; or, where publishing takes
//! long whatever there is to fold (a slow store, many bins), so many that folding takes as long again. What is held
//! stays in the queue, which is bounded. A repository that does not publish at all, for instance because its store is
//! away, goes on taking batches after a while.
//!
//! It owns no invariant: when a batch departs changes no verdict.

use std::sync::Arc;

use crate::clock::Clock;
use crate::ledger::follower::Entry;
use crate::ledger::{Event, Outcome, Record};

/// How long a cut may take from its Cut to its Checkpoint, in milliseconds, unless they are made less often.
const TARGET_MS: u64 = 3_000;
/// After so many times that, a cut is not slow but stuck, and no reason to hold anything back.
const STUCK: u64 = 5;
/// So many changes may follow every cut: the rate of a small one says little.
const LEAST: u64 = 20_000;
/// What may follow is at most so many times what was in the largest of the last cuts.
const GROWTH: f64 = 4.0;
/// How much less every cut weighs than the next.
const FORGETTING: f64 = 0.7;

/// See the module.
#[derive(Default)]
pub struct Pace {
    /// `None` where nothing is held back.
    clock: Option<Arc<dyn Clock>>,
    target_ms: u64,
    /// Changes committed since the last Cut.
    since: u64,
    /// The open cut: its changes, and since when it has been open, in clock ticks.
    open: Option<(u64, u64)>,
    cuts: Cuts,
    /// How many changes may follow a Cut before its Checkpoint.
    limit: Option<u64>,
}

/// What the last cuts tell: a line through their changes and times, by weighted least squares.
#[derive(Default)]
struct Cuts {
    weight: f64,
    changes: f64,
    ms: f64,
    changes_squared: f64,
    changes_ms: f64,
    /// The changes of the largest one.
    largest: f64,
}

impl Cuts {
    fn add(&mut self, changes: f64, ms: f64) {
        for (sum, new) in [
            (&mut self.weight, 1.0),
            (&mut self.changes, changes),
            (&mut self.ms, ms),
            (&mut self.changes_squared, changes * changes),
            (&mut self.changes_ms, changes * ms),
        ] {
            *sum = *sum * FORGETTING + new;
        }
        self.largest = changes.max(self.largest * FORGETTING);
    }

    /// The time of a cut without changes, and the time that every change adds, in milliseconds.
    fn line(&self) -> (f64, f64) {
        let (changes, ms) = (self.changes / self.weight, self.ms / self.weight);
        let variance = self.changes_squared / self.weight - changes * changes;
        if variance < (changes / 20.0).powi(2) {
            return (0.0, ms / changes.max(1.0)); // all alike: that nothing is fixed will show, if it is not so
        }
        let slope = (self.changes_ms / self.weight - changes * ms) / variance;
        (ms - slope * changes, slope)
    }

    /// How many changes a cut may have that is to take so long.
    fn limit(&self, target_ms: f64) -> u64 {
        let (fixed, each) = self.line();
        let most = self.largest * GROWTH;
        let fits = if each > 0.0 { (target_ms - fixed).max(fixed) / each } else { most };
        (fits.min(most) as u64).max(LEAST)
    }
}

impl Pace {
    /// Holds back by this clock, where cuts are made no more often than every so many milliseconds.
    pub fn by(clock: Arc<dyn Clock>, min_cut_interval_ms: u64) -> Pace {
        Pace { clock: Some(clock), target_ms: TARGET_MS.max(min_cut_interval_ms), ..Pace::default() }
    }

    fn ticks_ms(&self) -> u64 {
        self.clock.as_ref().map_or(0, |clock| clock.ticks_ms())
    }

    /// Takes note of a ledger record.
    pub fn read(&mut self, entry: &Entry) {
        match (&entry.record, &entry.event) {
            (Record::Commit(commit), Event::Commit(outcomes)) => {
                let valid = commit.batches.iter().zip(outcomes).filter(|(_, outcome)| **outcome == Outcome::Valid);
                self.committed(valid.flat_map(|(batch, _)| &batch.parts).map(|(_, count)| u64::from(*count)).sum());
            }
            (_, Event::Cut) => self.cut(),
            (_, Event::Checkpoint(_)) => self.checkpoint(),
            _ => {}
        }
    }

    /// So many changes were committed, by whomever.
    fn committed(&mut self, changes: u64) {
        self.since = self.since.saturating_add(changes);
    }

    fn cut(&mut self) {
        self.open = Some((std::mem::take(&mut self.since), self.ticks_ms()));
    }

    /// The open cut has its Checkpoint.
    fn checkpoint(&mut self) {
        if let Some((changes, opened)) = self.open.take() {
            self.published(changes, self.ticks_ms().saturating_sub(opened));
        }
    }

    /// A cut of so many changes took so long.
    fn published(&mut self, changes: u64, ms: u64) {
        if ms == 0 {
            return; // both were read at once: that is no time
        }
        self.cuts.add(changes as f64, ms as f64);
        self.limit = Some(self.cuts.limit(self.target_ms as f64));
    }

    /// Whether more may depart now, when so many changes are on their way.
    pub fn admits(&self, flying: u64) -> bool {
        match (&self.clock, self.limit, &self.open) {
            (Some(_), Some(limit), Some((_, opened))) => {
                self.since + flying < limit || self.ticks_ms() > opened + STUCK * self.target_ms
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn pace() -> (Arc<ManualClock>, Pace) {
        let clock = Arc::new(ManualClock::new(0));
        (clock.clone(), Pace::by(clock, 0))
    }

    /// Publishes cuts that hold what may follow, at a fixed time and one for every thousand changes, in milliseconds;
    /// answers the changes of the last.
    fn settled(first: u64, fixed: u64, thousand: f64) -> u64 {
        let (_, mut pace) = pace();
        let mut changes = first;
        for _ in 0..40 {
            pace.published(changes, fixed + (changes as f64 / 1_000.0 * thousand) as u64);
            changes = pace.limit.unwrap();
        }
        changes
    }

    #[test]
    fn cuts_come_to_take_the_time_they_may() {
        for first in [1, 5_000, 300_000, 3_000_000] {
            for (fixed, thousand, expected) in [(5, 10.0, 299_500), (1_000, 5.0, 400_000), (1_400, 2.0, 800_000)] {
                let changes = settled(first, fixed, thousand);
                assert!(changes.abs_diff(expected) < expected / 10, "{fixed} ms and {thousand}: {changes}");
            }
        }
    }

    #[test]
    fn what_takes_long_whatever_there_is_to_fold_does_not_hold_back_more_and_more() {
        for first in [30_000, 500_000] {
            // 7 s alone, and as long again for folding.
            let changes = settled(first, 7_000, 10.0);
            assert!((500_000..900_000).contains(&changes), "{changes}");
            assert!(settled(first, 5_000, 0.0) >= first, "what costs nothing is not held back");
        }
        assert!(settled(1, 100, 1_000.0) == LEAST, "it never comes to a stand");
    }

    #[test]
    fn what_follows_an_open_cut_is_limited() {
        let (clock, mut pace) = pace();
        pace.committed(1_000_000);
        pace.cut();
        pace.committed(1_000_000);
        assert!(pace.admits(0), "no cut has told a rate yet");
        pace.published(600_000, 6_000);
        assert!(!pace.admits(0));
        clock.set(6);
        pace.checkpoint();
        assert!(pace.admits(9_000_000), "no cut is open");
        pace.cut();
        let limit = pace.limit.unwrap();
        pace.committed(limit - 1);
        assert!(pace.admits(0) && !pace.admits(1), "what is on its way counts, too");
        pace.committed(1);
        assert!(!pace.admits(0));
        clock.set(6 + STUCK * TARGET_MS / 1_000 + 1);
        assert!(pace.admits(0), "a cut that is stuck holds nothing back");
    }
}
