//! What the checks put down: which fault, whom it concerns and how, and where.
//!
//! Faults of one kind that concern the same clients are one entry with a count and the first places, so that a thousand
//! bins with one mistake are one mistake; memory does not grow with the number of places.

use super::clients::Clients;
use super::report::Spot;

/// How many places of a fault are told.
const EXAMPLES: usize = 3;
/// How long what stands in a place is told.
const SHOWN: usize = 160;

/// A kind of fault: what every one of them has in common.
#[derive(Debug)]
pub struct Fault {
    /// Its name, which is stable: programs read it.
    pub name: &'static str,
    /// What is wrong.
    pub what: &'static str,
    /// Why it matters: what the clients do.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
    /// Whether it is a choice, such as a form of delegation, and not a mistake.
    pub choice: bool,
}

/// Whom a fault concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effect {
    /// They refuse the repository.
    pub refuse: Clients,
    /// They do not find some of its targets.
    pub miss: Clients,
    /// It works, but slowly, or not for long, or not always.
    pub struggle: Clients,
}

impl Effect {
    /// These refuse the repository.
    pub fn refuse(clients: Clients) -> Effect {
        Effect { refuse: clients, ..Effect::default() }
    }

    /// These miss targets.
    pub fn miss(clients: Clients) -> Effect {
        Effect { miss: clients, ..Effect::default() }
    }

    /// These struggle.
    pub fn struggle(clients: Clients) -> Effect {
        Effect { struggle: clients, ..Effect::default() }
    }

    /// Those that cannot use the repository, or not all of it.
    pub fn hurt(self) -> Clients {
        self.refuse | self.miss
    }

    /// All that it concerns.
    pub fn all(self) -> Clients {
        self.hurt() | self.struggle
    }
}

/// One fault wherever it was found.
#[derive(Debug)]
pub struct Entry {
    /// Which.
    pub fault: &'static Fault,
    /// Whom it concerns.
    pub effect: Effect,
    /// How often.
    pub count: u64,
    /// The first places.
    pub spots: Vec<Spot>,
}

/// All faults so far, in the order in which they were met.
#[derive(Debug, Default)]
pub struct Found(Vec<Entry>);

impl Found {
    /// Puts a fault down.
    pub fn add(&mut self, fault: &'static Fault, effect: Effect, file: &str, field: &str, is: &str) {
        let same = |e: &Entry| e.fault.name == fault.name && e.effect == effect;
        let index = self.0.iter().position(same).unwrap_or_else(|| {
            self.0.push(Entry { fault, effect, count: 0, spots: Vec::new() });
            self.0.len() - 1
        });
        let entry = &mut self.0[index];
        entry.count += 1;
        if entry.spots.len() < EXAMPLES {
            entry.spots.push(Spot { file: shown(file), field: shown(field), is: shown(is) });
        }
    }

    /// Everything.
    pub fn into_entries(self) -> Vec<Entry> {
        self.0
    }
}

/// Text from outside, short and without anything that a terminal would obey.
fn shown(text: &str) -> String {
    let plain = |c: char| matches!(c, '"' | '\'' | '\\') || !(c.is_control() || c.escape_debug().len() > 1);
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        match (i < SHOWN, plain(c)) {
            (false, _) => return out + "…",
            (true, true) => out.push(c),
            (true, false) => out.extend(c.escape_debug()),
        }
    }
    out
}
