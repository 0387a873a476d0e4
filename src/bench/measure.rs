//! What is counted while a load runs: latencies, what is committed and what is visible, second by second.
//!
//! Owns the meaning of *visible*: a batch is visible from the first moment at which a producer has the answer that a
//! batch with the same or a later seq is published, for a checkpoint holds a prefix of the ledger. Producers that wait
//! for that, the probes among them, get their answers when the pointer moves.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::report::{Finding, Latency, Second};
use crate::clock::Stopwatch;

/// The longest time that is told apart from a longer one, in microseconds.
const LONGEST_US: u64 = 600_000_000;
/// How many findings are kept; the others are counted.
const MAX_FINDINGS: usize = 20;
/// How many points a curve has for each halving of the distance to its end.
const CURVE_TICKS: u32 = 5;

/// See the module.
pub struct Tally {
    clock: Stopwatch,
    /// When the load began and when its last answer came, in seconds of `clock`.
    began: f64,
    answered: f64,
    /// Changes acknowledged.
    pub changes: u64,
    /// Batches acknowledged.
    pub batches: u64,
    /// Tries beyond the first.
    pub retries: u64,
    committed: Histogram<u64>,
    visible: Histogram<u64>,
    /// By seq, the batches that are committed and not known to be visible.
    waiting: BTreeMap<u64, Vec<Waiting>>,
    /// Everything up to this seq is visible.
    reached: Option<u64>,
    /// When that rose last, and the longest time in which it did not while something waited.
    rose: f64,
    longest_gap: Option<f64>,
    newest_checkpoint: u64,
    seconds: Vec<Second>,
    now_committed: Histogram<u64>,
    now_visible: Histogram<u64>,
    /// See [`super::report::Report::findings`].
    pub findings: Vec<Finding>,
    /// How many there were.
    pub findings_total: u64,
}

/// A batch that waits to become visible.
struct Waiting {
    due: f64,
    changes: u64,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("constants within its limits")
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Tally {
        Tally {
            clock: Stopwatch::start(),
            began: 0.0,
            answered: 0.0,
            changes: 0,
            batches: 0,
            retries: 0,
            committed: histogram(),
            visible: histogram(),
            waiting: BTreeMap::new(),
            reached: None,
            rose: 0.0,
            longest_gap: None,
            newest_checkpoint: 0,
            seconds: Vec::new(),
            now_committed: histogram(),
            now_visible: histogram(),
            findings: Vec::new(),
            findings_total: 0,
        }
    }

    /// Seconds since this was made.
    pub fn now(&self) -> f64 {
        self.clock.seconds()
    }

    /// The load begins: what was counted until now does not count.
    pub fn begin(&mut self) {
        let (findings, total, reached) = (std::mem::take(&mut self.findings), self.findings_total, self.reached);
        *self = Tally { clock: self.clock, findings, findings_total: total, reached, ..Tally::new() };
        self.began = self.now();
        (self.answered, self.rose) = (self.began, self.began);
    }

    /// When it began.
    pub fn began(&self) -> f64 {
        self.began
    }

    /// From then to the last answer, in seconds.
    pub fn load_s(&self) -> f64 {
        self.answered - self.began
    }

    /// Everything up to this seq is visible.
    pub fn reached(&self) -> Option<u64> {
        self.reached
    }

    /// A batch was acknowledged that was due at `due`.
    pub fn committed(&mut self, due: f64, changes: u64, seq: u64, tries: u32) {
        let now = self.now();
        self.changes += changes;
        self.batches += 1;
        self.retries += u64::from(tries.saturating_sub(1));
        self.second().committed += changes;
        if self.reached.is_some_and(|reached| seq <= reached) {
            self.seen(now, Waiting { due, changes });
        } else {
            self.waiting.entry(seq).or_default().push(Waiting { due, changes });
        }
    }

    /// A producer of the load has its answer.
    pub fn answered(&mut self) {
        self.answered = self.now();
    }

    /// How long the acknowledgement took; only for those that did not wait for more.
    pub fn took(&mut self, due: f64) {
        let us = micros(self.now() - due);
        self.committed.saturating_record(us);
        self.now_committed.saturating_record(us);
    }

    /// The server has said that everything up to `seq` is published, in `checkpoint`.
    pub fn published(&mut self, seq: u64, checkpoint: Option<u64>) {
        let now = self.now();
        if checkpoint.is_some_and(|n| n > self.newest_checkpoint) {
            self.newest_checkpoint = checkpoint.unwrap_or(0);
            self.second().checkpoints += 1;
        }
        if self.reached.is_some_and(|reached| seq <= reached) {
            return;
        }
        self.reached = Some(seq);
        let earliest = self.waiting.values().flatten().map(|batch| batch.due).reduce(f64::min);
        if let Some(earliest) = earliest {
            let gap = now - earliest.max(self.rose); // while nothing waits, nothing can become visible
            self.longest_gap = Some(self.longest_gap.map_or(gap, |longest| longest.max(gap)));
        }
        self.rose = now;
        let later = self.waiting.split_off(&seq.saturating_add(1));
        let seen = std::mem::replace(&mut self.waiting, later);
        for batch in seen.into_values().flatten() {
            self.seen(now, batch);
        }
    }

    fn seen(&mut self, now: f64, batch: Waiting) {
        let us = micros(now - batch.due);
        self.visible.saturating_record(us);
        self.now_visible.saturating_record(us);
        self.second().published += batch.changes;
    }

    fn second(&mut self) -> &mut Second {
        if self.seconds.is_empty() {
            self.seconds.push(Second::default());
        }
        let last = self.seconds.len() - 1;
        &mut self.seconds[last]
    }

    /// A second has passed, in which the processes took so many CPU-seconds; another begins unless it was the last.
    pub fn tick(&mut self, server_cpu_s: Option<f64>, client_cpu_s: Option<f64>, last: bool) {
        let quantiles = |h: &mut Histogram<u64>| {
            let at = |q| (!h.is_empty()).then(|| millis(h.value_at_quantile(q)));
            let both = (at(0.5), at(0.99));
            h.reset();
            both
        };
        let (committed, visible) = (quantiles(&mut self.now_committed), quantiles(&mut self.now_visible));
        let second = self.second();
        (second.committed_p50_ms, second.committed_p99_ms) = committed;
        (second.visible_p50_ms, second.visible_p99_ms) = visible;
        (second.server_cpu_s, second.client_cpu_s) = (server_cpu_s, client_cpu_s);
        if !last {
            self.seconds.push(Second::default());
        }
    }

    /// Second by second until now.
    pub fn seconds(&self) -> &[Second] {
        &self.seconds
    }

    /// The longest time in which nothing new became visible though something waited.
    pub fn longest_gap_s(&self) -> Option<f64> {
        self.longest_gap
    }

    /// The latencies of answers, and of visibility.
    pub fn latencies(&self) -> (Option<Latency>, Option<Latency>) {
        (latency(&self.committed), latency(&self.visible))
    }

    /// Something is wrong.
    pub fn found(&mut self, finding: Finding) {
        self.findings_total += 1;
        if self.findings.len() < MAX_FINDINGS && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6).max(1.0) as u64
}

fn millis(us: u64) -> f64 {
    us as f64 / 1e3
}

fn latency(h: &Histogram<u64>) -> Option<Latency> {
    if h.is_empty() {
        return None;
    }
    let at = |q| millis(h.value_at_quantile(q));
    let curve = h.iter_quantiles(CURVE_TICKS).map(|p| (p.quantile_iterated_to(), millis(p.value_iterated_to())));
    Some(Latency {
        batches: h.len(),
        mean_ms: (h.mean() / 10.0).round() / 100.0,
        p50_ms: at(0.5),
        p90_ms: at(0.9),
        p99_ms: at(0.99),
        p999_ms: at(0.999),
        max_ms: millis(h.max()),
        curve: curve.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_visible_when_one_with_its_seq_or_a_later_one_is_published() {
        let mut tally = Tally::new();
        tally.begin();
        for (seq, changes) in [(4, 10), (6, 1), (6, 2), (9, 5)] {
            tally.committed(tally.now(), changes, seq, 1);
        }
        tally.published(6, Some(2));
        assert_eq!(tally.seconds()[0].published, 13);
        tally.committed(tally.now(), 7, 5, 2); // its answer comes late
        assert_eq!((tally.seconds()[0].published, tally.retries), (20, 1));
        tally.published(3, Some(1)); // so does this one
        tally.published(9, Some(3));
        let (committed, visible) = tally.latencies();
        assert_eq!((committed, visible.unwrap().batches), (None, 5));
        assert_eq!((tally.changes, tally.seconds()[0].published, tally.seconds()[0].checkpoints), (25, 25, 2));
    }

    #[test]
    fn a_gap_is_a_time_in_which_something_waits() {
        let mut tally = Tally::new();
        tally.begin();
        let idle = std::time::Duration::from_millis(300);
        std::thread::sleep(idle);
        let due = tally.now();
        tally.committed(due, 1, 1, 1);
        tally.published(1, Some(1));
        assert!(tally.longest_gap_s().unwrap() <= tally.now() - due, "the idle time before does not count");
        tally.published(2, Some(2)); // of a batch that nobody here waits for
        tally.committed(tally.now(), 1, 4, 1); // it waits longest, though it is not the next
        std::thread::sleep(idle);
        tally.committed(tally.now(), 1, 3, 1);
        tally.published(3, Some(3));
        assert!(tally.longest_gap_s().unwrap() >= idle.as_secs_f64());
    }
}
