//! How much came in and was published, second by second: kept for a while, for whoever looks at the node.
//!
//! What was committed and published is counted by what this node reads of the ledger, whoever wrote it. How long it took
//! until it was visible is known of what was POSTed here.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::compact::Followed;

/// For how many seconds is kept what happened in each.
const KEPT: usize = 900;
/// Over how many seconds it is averaged what happened lately.
const LATELY: usize = 10;
/// Of how many POSTs a second it is kept how long they took.
const POSTS: usize = 16_384;

/// What happened in each second.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RatesAnswer {
    /// In their order; seconds without a node are not there.
    pub seconds: Vec<SecondAnswer>,
}

/// What happened in a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SecondAnswer {
    /// When it ended, in Unix seconds.
    pub time: u64,
    /// Batches committed.
    pub batches: u64,
    /// Their changes.
    pub changes: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// POSTs to this node that became visible.
    pub visible: u64,
    /// How long half of those took at most, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible_p50_ms: Option<f64>,
    /// How long 99 of 100 took at most, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible_p99_ms: Option<f64>,
}

/// What happened lately, on average.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rates {
    /// Over so many seconds.
    pub seconds: u64,
    /// Batches committed a second.
    pub batches_per_s: f64,
    /// Their changes.
    pub changes_per_s: f64,
    /// Checkpoints a second.
    pub checkpoints_per_s: f64,
    /// The worst of the seconds' medians from POST to visible, in milliseconds; absent if nothing became visible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible_p50_ms: Option<f64>,
    /// The worst of their 99th percentiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible_p99_ms: Option<f64>,
}

/// See the module.
#[derive(Default)]
pub struct Recorder(Mutex<Recorded>);

#[derive(Default)]
struct Recorded {
    seconds: VecDeque<SecondAnswer>,
    last: Followed,
    /// Of the second under way: how many POSTs became visible, and how long those took, in milliseconds.
    visible: u64,
    took_ms: Vec<f64>,
}

impl Recorder {
    fn lock(&self) -> std::sync::MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A POST has become visible.
    pub fn visible(&self, seconds: f64) {
        let mut recorded = self.lock();
        recorded.visible += 1;
        if recorded.took_ms.len() < POSTS {
            recorded.took_ms.push(seconds * 1e3);
        }
    }

    /// A second has ended, at this Unix time.
    pub fn tick(&self, time: u64, now: Followed) {
        let mut recorded = self.lock();
        let (last, visible) = (std::mem::replace(&mut recorded.last, now), std::mem::take(&mut recorded.visible));
        let mut took = std::mem::take(&mut recorded.took_ms);
        took.sort_unstable_by(f64::total_cmp);
        let share =
            |of: usize| took.get((took.len() * of).div_ceil(100).saturating_sub(1)).map(|ms| (ms * 1e3).round() / 1e3);
        // Two seconds that the clock calls the same are two.
        let time = if recorded.seconds.back().is_some_and(|last| last.time == time) { time + 1 } else { time };
        let second = SecondAnswer {
            time,
            batches: now.batches - last.batches,
            changes: now.changes - last.changes,
            checkpoints: now.checkpoints - last.checkpoints,
            visible,
            visible_p50_ms: share(50),
            visible_p99_ms: share(99),
        };
        if recorded.seconds.len() == KEPT {
            recorded.seconds.pop_front();
        }
        recorded.seconds.push_back(second);
    }

    /// The seconds after a Unix time.
    pub fn since(&self, after: u64) -> RatesAnswer {
        RatesAnswer { seconds: self.lock().seconds.iter().filter(|s| s.time > after).cloned().collect() }
    }

    /// What happened lately.
    pub fn lately(&self) -> Rates {
        let recorded = self.lock();
        let last: Vec<&SecondAnswer> = recorded.seconds.iter().rev().take(LATELY).collect();
        let mean = |of: fn(&SecondAnswer) -> u64| {
            let sum: u64 = last.iter().map(|s| of(s)).sum();
            sum as f64 / last.len().max(1) as f64
        };
        let worst = |of: fn(&SecondAnswer) -> Option<f64>| last.iter().filter_map(|s| of(s)).max_by(f64::total_cmp);
        Rates {
            seconds: last.len() as u64,
            batches_per_s: mean(|s| s.batches),
            changes_per_s: mean(|s| s.changes),
            checkpoints_per_s: mean(|s| s.checkpoints),
            visible_p50_ms: worst(|s| s.visible_p50_ms),
            visible_p99_ms: worst(|s| s.visible_p99_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_what_was_read_since_the_one_before() {
        let recorder = Recorder::default();
        let followed = |batches, changes| Followed { batches, changes, ..Followed::default() };
        (1..=100).for_each(|ms| recorder.visible(f64::from(ms) / 1e3));
        recorder.tick(7, followed(2, 10));
        recorder.tick(8, followed(2, 10));
        recorder.tick(9, followed(3, 30));
        let seconds = recorder.since(0).seconds;
        assert_eq!(
            seconds.iter().map(|s| (s.time, s.batches, s.changes)).collect::<Vec<_>>(),
            [(7, 2, 10), (8, 0, 0), (9, 1, 20)]
        );
        assert_eq!(
            (seconds[0].visible, seconds[0].visible_p50_ms, seconds[0].visible_p99_ms),
            (100, Some(50.0), Some(99.0))
        );
        assert_eq!((seconds[1].visible, seconds[1].visible_p50_ms), (0, None));
        assert_eq!(recorder.since(8).seconds.len(), 1);
        recorder.tick(9, followed(3, 30));
        assert_eq!(recorder.since(9).seconds[0].time, 10);
        let lately = recorder.lately();
        assert_eq!((lately.seconds, lately.changes_per_s, lately.visible_p99_ms), (4, 7.5, Some(99.0)));
        (0..2 * KEPT as u64).for_each(|time| recorder.tick(time, followed(3, 30)));
        assert_eq!(recorder.since(0).seconds.len(), KEPT);
    }
}
