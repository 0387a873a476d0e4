//! What the whole of one simulated world shares: the seeded dice, the counters, the trace, and the first violation.
//!
//! Every choice of a world comes from one generator, in the order in which its only thread asks, so a seed is a run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// How often each thing happened.
pub type Stats = BTreeMap<String, u64>;

struct Inner {
    rng: u64,
    step: u64,
    /// Percent of the store's operations that misbehave.
    faults: u64,
    stats: Stats,
    trace: Option<Vec<String>>,
    broken: Option<String>,
}

/// See the module. A clone is another handle.
#[derive(Clone)]
pub struct Dice(Arc<Mutex<Inner>>);

impl Dice {
    pub fn new(seed: u64, traced: bool) -> Dice {
        let rng = seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ 0x5DEE_CE66;
        let trace = traced.then(Vec::new);
        Dice(Arc::new(Mutex::new(Inner { rng, step: 0, faults: 0, stats: Stats::new(), trace, broken: None })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("one thread")
    }

    /// SplitMix64.
    pub fn next(&self) -> u64 {
        let mut inner = self.inner();
        inner.rng = inner.rng.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = inner.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is at least 1.
    pub fn below(&self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// An index into something of length `n`.
    pub fn index(&self, n: usize) -> usize {
        self.below(n as u64) as usize
    }

    /// One of these.
    pub fn of<T: Clone>(&self, choices: &[T]) -> T {
        choices[self.index(choices.len())].clone()
    }

    pub fn pct(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn faults(&self) -> u64 {
        self.inner().faults
    }

    pub fn set_faults(&self, percent: u64) {
        self.inner().faults = percent;
    }

    pub fn step(&self) -> u64 {
        self.inner().step
    }

    pub fn set_step(&self, step: u64) {
        self.inner().step = step;
    }

    /// Counts something that happened.
    pub fn hit(&self, what: &str) {
        self.add(what, 1);
    }

    pub fn add(&self, what: &str, n: u64) {
        let mut inner = self.inner();
        match inner.stats.get_mut(what) {
            Some(count) => *count += n,
            None => drop(inner.stats.insert(what.to_owned(), n)),
        }
    }

    pub fn stats(&self) -> Stats {
        self.inner().stats.clone()
    }

    /// Writes a line of the trace, if there is one.
    pub fn trace(&self, line: impl FnOnce() -> String) {
        if self.inner().trace.is_none() {
            return;
        }
        let line = line();
        let mut inner = self.inner();
        let step = inner.step;
        inner.trace.get_or_insert_default().push(format!("{step:5} {line}"));
    }

    pub fn take_trace(&self) -> Vec<String> {
        self.inner().trace.take().unwrap_or_default()
    }

    /// Records a violation; the first one counts.
    pub fn fail(&self, why: String) {
        self.trace(|| format!("VIOLATION {why}"));
        self.inner().broken.get_or_insert(why);
    }

    pub fn broken(&self) -> Option<String> {
        self.inner().broken.clone()
    }
}
