//! The simulation: the real intake, folds and compactor, stepped by a seeded scheduler on a log and a store that
//! misbehave, under crashes, power losses, zombies and wrong clocks, and compared with a naive replay.
//!
//! ```text
//!   SEED=n  cargo test --test simulation      one seed, with its trace when it fails
//!   SEEDS=n cargo test --test simulation      so many seeds
//! ```
//!
//! Invariants 1 to 6 and 9 of the design are checked after every record, report and move of the pointer (`check.rs`),
//! by code that shares nothing with what it checks. One seed is one run: there is no thread, clock or map order in it.

mod calm;
mod check;
mod dice;
mod disk;
mod gate;
mod operator;
mod process;
mod producer;
mod replay;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use dice::Stats;
use world::{STEPS, World};

/// How many seeds the normal run has.
const SEEDS: u64 = 320;

/// One run: its statistics, and what went wrong.
fn run(seed: u64, traced: bool) -> (World, Result<(), String>) {
    let mut world = World::new(seed, traced);
    let result = world.run(STEPS).and_then(|()| world.calm());
    let r = &world.checker.replay;
    world.dice.add("cuts", r.cuts.len() as u64);
    world.dice.add("targets published at the end", r.map.len() as u64);
    world.dice.add("bins renewed", r.renewed_bins);
    world.dice.add("dirty bins without a change", r.unchanged_dirty);
    (world, result)
}

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_happens_the_published_repository_is_a_prefix_of_the_ledger() {
    if let Some(seed) = env("SEED") {
        let (world, result) = run(seed, true);
        if let Err(e) = result {
            world.dice.take_trace().iter().for_each(|line| println!("{line}"));
            panic!("seed {seed}: {e}");
        }
        return println!("seed {seed}: no violation\n{:#?}", world.dice.stats());
    }
    let seeds = env("SEEDS").unwrap_or(SEEDS);
    let (next, total, failed) = (AtomicU64::new(0), Mutex::new(Stats::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds {
                        return;
                    }
                    let (world, result) = run(seed, false);
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    world.dice.stats().into_iter().for_each(|(what, n)| *total.entry(what).or_insert(0) += n);
                    if let Err(e) = result {
                        println!("seed {seed}: {e}");
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
                        if env("KEEP_GOING").is_none() {
                            next.store(seeds, Ordering::SeqCst);
                        }
                    }
                }
            });
        }
    });
    let (total, mut failed) = (total.into_inner().expect("stats"), failed.into_inner().expect("failures"));
    total.iter().for_each(|(what, n)| println!("{n:9} {what}"));
    failed.sort_unstable();
    assert!(failed.is_empty(), "SEED={} cargo test --test simulation  (all: {failed:?})", failed[0]);
}
