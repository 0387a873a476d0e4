//! The snapshot's entries, kept rendered: a cut replaces the digits of the bins it changed and copies nothing else.

use std::collections::BTreeMap;

use crate::bins::{Bin, Layout};
use crate::error::{Error, Result};

/// Every bin's version, as the snapshot lists it.
#[derive(Clone)]
pub struct Entries {
    layout: Layout,
    versions: Vec<u64>,
    /// `"bins-00.json":{"version":1},…` by rising bin.
    rendered: Vec<u8>,
    /// Where each bin's digits stand in `rendered`.
    digits: Vec<std::ops::Range<usize>>,
}

impl Entries {
    /// The entries of cut 1, which renders every bin.
    pub fn first(layout: Layout) -> Entries {
        Entries::of(layout, vec![1; layout.bins() as usize])
    }

    /// The entries of a stored snapshot.
    pub fn of_snapshot(layout: Layout, bins: &BTreeMap<String, u64>) -> Result<Entries> {
        let names = (0..layout.bins()).map(|b| layout.name(b));
        let versions: Option<Vec<u64>> = names.map(|name| bins.get(&name).copied()).collect();
        match versions.filter(|v| v.len() == bins.len()) {
            Some(versions) => Ok(Entries::of(layout, versions)),
            None => Err(Error::corrupt("a snapshot that lists other bins than the repository has")),
        }
    }

    fn of(layout: Layout, versions: Vec<u64>) -> Entries {
        let mut entries = Entries { layout, versions, rendered: Vec::new(), digits: Vec::new() };
        entries.render();
        entries
    }

    fn render(&mut self) {
        self.rendered.clear();
        self.digits.clear();
        for (bin, version) in self.versions.iter().enumerate() {
            let comma = if bin > 0 { "," } else { "" };
            self.rendered.extend_from_slice(
                format!("{comma}\"{}.json\":{{\"version\":", self.layout.name(bin as Bin)).as_bytes(),
            );
            let start = self.rendered.len();
            self.rendered.extend_from_slice(version.to_string().as_bytes());
            self.digits.push(start..self.rendered.len());
            self.rendered.push(b'}');
        }
    }

    /// Gives each of `bins` the version `n`.
    pub fn update(&mut self, bins: impl Iterator<Item = Bin>, n: u64) -> Result<()> {
        let digits = n.to_string();
        let mut moved = false;
        for bin in bins {
            let at = bin as usize;
            let Some(version) = self.versions.get_mut(at) else {
                return Err(Error::corrupt(format!("a report names bin {bin}, which the repository does not have")));
            };
            *version = n;
            match self.digits[at].len() == digits.len() {
                true => self.rendered[self.digits[at].clone()].copy_from_slice(digits.as_bytes()),
                false => moved = true,
            }
        }
        if moved {
            self.render();
        }
        Ok(())
    }

    /// The rendered entries.
    pub fn rendered(&self) -> &[u8] {
        &self.rendered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_in_place_is_a_rendering_from_nothing() {
        let layout = Layout::new(16, 2).unwrap();
        let mut entries = Entries::first(layout);
        for (n, bins) in [(2, vec![0, 15]), (9, vec![3]), (10, vec![3, 4]), (11, vec![4, 5]), (100, vec![0])] {
            entries.update(bins.into_iter(), n).unwrap();
            assert_eq!(entries.rendered, Entries::of(layout, entries.versions.clone()).rendered);
        }
        let text = String::from_utf8(entries.rendered.clone()).unwrap();
        assert!(text.starts_with("\"bins-0.json\":{\"version\":100},\"bins-1.json\":{\"version\":1},"), "{text}");
        assert!(entries.update([16].into_iter(), 101).is_err());
    }
}
