//! How fast it goes and how long it will take: what is left of the ledger and of the store, each at its own pace.
//!
//! Reading the ledger and rebuilding what a cut makes take turns, and the one says nothing of the other: a history of
//! many small cuts is nearly all rebuilding. So each has its own clock.

use super::report::Report;
use crate::clock::{Clock, SystemClock};
use crate::log::Offset;

/// See the module.
pub(super) struct Pace {
    started: u64,
    /// How long the runs before this one took.
    before_ms: u64,
    before_rebuilding_ms: u64,
    before_loading_ms: u64,
    loading_ms: u64,
    rebuilding_ms: u64,
    rebuilding_since: Option<u64>,
    first_seq: Offset,
    first_objects: u64,
    pub first_changes: u64,
    pub first_bins: u64,
    /// How many objects are to be compared in all.
    objects: u64,
}

impl Pace {
    pub fn start() -> Pace {
        Pace {
            started: SystemClock.ticks_ms(),
            before_ms: 0,
            before_rebuilding_ms: 0,
            before_loading_ms: 0,
            loading_ms: 0,
            rebuilding_ms: 0,
            rebuilding_since: None,
            first_seq: 0,
            first_objects: 0,
            first_changes: 0,
            first_bins: 0,
            objects: 0,
        }
    }

    /// Goes on after runs that took as long as their report says.
    pub fn resume(&mut self, before: &Report) {
        let ms = |seconds: f64| (seconds.max(0.0) * 1e3) as u64;
        (self.before_ms, self.before_rebuilding_ms) = (ms(before.seconds), ms(before.rebuilding_seconds));
        self.before_loading_ms = ms(before.loading_seconds);
    }

    /// From here on it is replayed; `counted` was counted before.
    pub fn begin(&mut self, seq: Offset, counted: &Report) {
        (self.first_seq, self.first_objects) = (seq, counted.objects);
        (self.first_changes, self.first_bins) = (counted.changes, counted.bins);
        // What was before is the checkpoint that it begins with, if it does not begin with the ledger.
        self.loading_ms = if seq > 0 { self.now().0 } else { 0 };
    }

    /// So many objects are to be compared, which is known with the layout.
    pub fn expect(&mut self, objects: u64) {
        self.objects = objects;
    }

    /// A cut is being rebuilt from now on, or no longer.
    pub fn rebuild(&mut self, on: bool) {
        let now = SystemClock.ticks_ms();
        self.rebuilding_ms += self.rebuilding_since.take().map_or(0, |since| now.saturating_sub(since));
        self.rebuilding_since = on.then_some(now);
    }

    /// Writes down how long all runs took so far.
    pub fn note(&self, report: &mut Report) {
        let (elapsed, rebuilding) = self.now();
        report.seconds = (self.before_ms + elapsed) as f64 / 1e3;
        report.rebuilding_seconds = (self.before_rebuilding_ms + rebuilding) as f64 / 1e3;
        report.loading_seconds = (self.before_loading_ms + self.loading_ms) as f64 / 1e3;
    }

    fn now(&self) -> (u64, u64) {
        let now = SystemClock.ticks_ms();
        let rebuilding = self.rebuilding_since.map_or(0, |since| now.saturating_sub(since));
        (now.saturating_sub(self.started), self.rebuilding_ms + rebuilding)
    }

    /// How long this run took, and how long it will take from here, in milliseconds; `None` while there is nothing to
    /// tell it by.
    pub fn estimate(&self, seq: Offset, end: Offset, compared: u64) -> (u64, Option<u64>) {
        let (elapsed, rebuilding) = self.now();
        let reading = (
            elapsed.saturating_sub(rebuilding + self.loading_ms),
            seq - self.first_seq.min(seq),
            end.saturating_sub(seq),
        );
        let done = compared.saturating_sub(self.first_objects);
        (elapsed, to_go(reading, (rebuilding, done, self.objects.saturating_sub(done))))
    }
}

/// The time to go in milliseconds: of two kinds of work, each with how long it took, how much is done and how much is
/// left.
fn to_go(reading: (u64, u64, u64), rebuilding: (u64, u64, u64)) -> Option<u64> {
    let one = |(took, done, left): (u64, u64, u64)| match (done, left) {
        (_, 0) => Some(0),
        (0, _) => None,
        (done, left) => Some((u128::from(took) * u128::from(left) / u128::from(done)) as u64),
    };
    Some(one(reading)?.saturating_add(one(rebuilding)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_what_was_done_of_its_kind() {
        assert_eq!(to_go((1_000, 10, 30), (500, 5, 5)), Some(3_500));
        assert_eq!(to_go((1_000, 10, 0), (500, 5, 0)), Some(0));
        assert_eq!(to_go((0, 0, 30), (500, 5, 5)), None);
        assert_eq!(to_go((1_000, 10, 30), (0, 0, 7)), None);
        assert_eq!(to_go((u64::MAX, 1, 2), (u64::MAX, 1, 2)).map(|ms| ms > 0), Some(true));
    }
}
