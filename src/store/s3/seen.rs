//! The names of objects that are there for sure: created or read by this handle, so that a sync need not ask.
//!
//! Bounded: of two generations the older one is forgotten when the younger is full, and a name that was forgotten
//! costs a request. A cut syncs what it has just created, so it finds its names here.

use std::collections::HashSet;

/// How many names a generation holds, some 50 bytes each.
const GENERATION: usize = 65_536;

/// A bounded set of names.
#[derive(Default)]
pub(super) struct Seen {
    young: HashSet<Box<str>>,
    old: HashSet<Box<str>>,
}

impl Seen {
    pub fn contains(&self, name: &str) -> bool {
        self.young.contains(name) || self.old.contains(name)
    }

    pub fn insert(&mut self, name: &str) {
        if self.contains(name) {
            return;
        }
        if self.young.len() == GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_names_are_known_and_memory_is_bounded() {
        let mut seen = Seen::default();
        for n in 0..3 * GENERATION {
            seen.insert(&n.to_string());
        }
        assert!((2 * GENERATION..3 * GENERATION).all(|n| seen.contains(&n.to_string())));
        assert!(!seen.contains("0") && seen.young.len() + seen.old.len() <= 2 * GENERATION);
    }
}
