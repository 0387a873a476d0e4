//! How much departs while a cut is being published.
//!
//! Intake and folds share the machine, or at least the log. Left alone under a flood, committing outruns folding: every
//! cut has more to fold than the one before, and takes longer for it. So while a cut is open, only so many changes may
//! follow it as would be published in [`TARGET_MS`] at the rate of the cut before. What is held stays in the queue,
//! which is bounded. A repository that does not publish at all, for instance because its store is away, goes on taking
//! batches after a while.
//!
//! It owns no invariant: when a batch departs changes no verdict.

use std::sync::Arc;

use crate::clock::Clock;
use crate::ledger::follower::Entry;
use crate::ledger::{Event, Outcome, Record};

/// How long a cut may take from its Cut to its Checkpoint, in milliseconds.
const TARGET_MS: u64 = 3_000;
/// After so long a cut is not slow but stuck, and no reason to hold anything back.
const STUCK_MS: u64 = 15_000;
/// So many changes may follow every cut: the rate of a small one says little.
const LEAST: u64 = 20_000;

/// See the module.
#[derive(Default)]
pub struct Pace {
    /// `None` where nothing is held back.
    clock: Option<Arc<dyn Clock>>,
    /// Changes committed since the last Cut.
    since: u64,
    /// The open cut: its changes, and since when it has been open, in clock ticks.
    open: Option<(u64, u64)>,
    /// How many changes may follow a Cut before its Checkpoint.
    limit: Option<u64>,
}

impl Pace {
    /// Holds back by this clock.
    pub fn by(clock: Arc<dyn Clock>) -> Pace {
        Pace { clock: Some(clock), ..Pace::default() }
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
        self.limit = Some((changes.saturating_mul(TARGET_MS) / ms.max(1)).max(LEAST));
    }

    /// Whether more may depart now.
    pub fn admits(&self) -> bool {
        match (self.limit, &self.open) {
            (Some(limit), Some((_, opened))) => self.since < limit || self.ticks_ms() > opened + STUCK_MS,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn what_may_follow_a_cut_is_what_the_one_before_would_have_published_in_time() {
        let mut pace = Pace::default();
        pace.committed(1_000_000);
        pace.cut();
        pace.committed(1_000_000);
        assert!(pace.admits(), "no cut has told a rate yet");
        pace.published(600_000, 6_000);
        assert!(!pace.admits());
        pace.checkpoint();
        assert!(pace.admits(), "no cut is open");
        pace.published(600_000, 6_000);
        pace.cut();
        pace.committed(299_999);
        assert!(pace.admits(), "{:?}", pace.limit);
        pace.committed(1);
        assert!(!pace.admits(), "{:?}", pace.limit);
        for (changes, ms) in [(0, 0), (10, 60_000), (1, 5)] {
            pace.published(changes, ms);
            assert_eq!(pace.limit, Some(LEAST), "it never comes to a stand");
        }
    }

    #[test]
    fn a_cut_that_is_stuck_holds_nothing_back() {
        let clock = Arc::new(ManualClock::new(0));
        let mut pace = Pace::by(clock.clone());
        pace.published(0, 1);
        pace.cut();
        pace.committed(LEAST);
        assert!(!pace.admits());
        clock.set(STUCK_MS / 1_000 + 1);
        assert!(pace.admits());
    }
}
