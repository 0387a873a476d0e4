//! The snapshot's entries, kept rendered: a cut replaces the digits of the bins it changed.

use std::collections::{BTreeMap, BTreeSet};

use crate::bins::{Bin, Layout};
use crate::error::{Error, Result};

/// Every bin's version, as the snapshot lists it.
#[derive(Clone)]
pub struct Entries {
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
        let (mut rendered, mut digits) = (Vec::new(), Vec::with_capacity(versions.len()));
        for (bin, version) in versions.into_iter().enumerate() {
            let comma = if bin > 0 { "," } else { "" };
            rendered
                .extend_from_slice(format!("{comma}\"{}.json\":{{\"version\":", layout.name(bin as Bin)).as_bytes());
            let start = rendered.len();
            rendered.extend_from_slice(version.to_string().as_bytes());
            digits.push(start..rendered.len());
            rendered.push(b'}');
        }
        Entries { rendered, digits }
    }

    /// Gives each of `bins` the version `n`.
    pub fn update(&mut self, bins: impl Iterator<Item = Bin>, n: u64) -> Result<()> {
        let digits = n.to_string();
        let mut other_length = BTreeSet::new();
        for bin in bins {
            let at = bin as usize;
            let Some(place) = self.digits.get(at) else {
                return Err(Error::corrupt(format!("a report names bin {bin}, which the repository does not have")));
            };
            match place.len() == digits.len() {
                true => self.rendered[place.clone()].copy_from_slice(digits.as_bytes()),
                false => drop(other_length.insert(at)),
            }
        }
        if !other_length.is_empty() {
            self.splice(&other_length, digits.as_bytes());
        }
        Ok(())
    }

    /// Gives bins a version of another length than they have.
    fn splice(&mut self, bins: &BTreeSet<usize>, version: &[u8]) {
        let mut out = Vec::with_capacity(self.rendered.len() + bins.len() * version.len());
        let mut copied = 0; // of the old entries
        for (at, place) in self.digits.iter_mut().enumerate() {
            if bins.contains(&at) {
                out.extend_from_slice(&self.rendered[copied..place.start]);
                copied = place.end;
                *place = out.len()..out.len() + version.len();
                out.extend_from_slice(version);
            } else {
                let start = out.len() + place.start - copied;
                *place = start..start + place.len();
            }
        }
        out.extend_from_slice(&self.rendered[copied..]);
        self.rendered = out;
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
        let mut versions = vec![1; 16];
        for (n, bins) in [(2, vec![0, 15]), (9, vec![3]), (10, vec![3, 4]), (11, vec![4, 5, 15]), (100, vec![5, 0])] {
            bins.iter().for_each(|bin| versions[*bin as usize] = n);
            entries.update(bins.into_iter(), n).unwrap();
            let fresh = Entries::of(layout, versions.clone());
            assert_eq!((&entries.rendered, &entries.digits), (&fresh.rendered, &fresh.digits));
        }
        let text = String::from_utf8(entries.rendered.clone()).unwrap();
        assert!(text.starts_with("\"bins-0.json\":{\"version\":100},\"bins-1.json\":{\"version\":1},"), "{text}");
        assert!(entries.update([16].into_iter(), 101).is_err());
    }
}
