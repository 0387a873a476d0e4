//! Where the delegations of a file lead: to which of its roles, for which targets.
//!
//! What fits a path is looked up by its beginning, so the number of delegations hardly counts, and every look-up costs
//! fuel: a file with a million patterns and a million targets ends with `Fuel` empty instead of never.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::clients::{Client, Clients};
use crate::bins::sha256;

/// How much may be compared in one run, in characters or look-ups: some seconds.
const FUEL: u64 = 1 << 30;

/// What is left for comparing.
pub struct Fuel(u64);

impl Fuel {
    /// Burns some; false if there is none left, and what is compared means nothing any more.
    pub fn burn(&mut self, amount: usize) -> bool {
        self.0 = self.0.saturating_sub(amount as u64);
        self.0 > 0
    }

    /// Whether there was too little.
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

impl Default for Fuel {
    fn default() -> Fuel {
        Fuel(FUEL)
    }
}

/// For which targets a delegation is.
#[derive(Clone, Debug)]
pub enum Leads {
    /// Those whose sha256 begins with the bits of this bin.
    Bin(u64),
    /// Those whose sha256 begins with one of these, in hex.
    Hashes(Vec<String>),
    /// Those that one of these patterns fits.
    Paths(Vec<String>),
}

/// The delegations of one file, which have numbers from 0 on.
#[derive(Debug, Default)]
pub struct Index {
    /// How many bits a bin has, and which delegation is for it.
    bits: u32,
    bins: HashMap<u64, u32>,
    /// By prefix of the digest.
    hashes: Heads<()>,
    /// By what stands before the first wildcard; with the whole pattern.
    paths: Heads<String>,
    len: usize,
}

/// Entries by a head, and how long heads are.
#[derive(Debug)]
struct Heads<T> {
    by: HashMap<String, Vec<(u32, T)>>,
    lengths: BTreeSet<usize>,
}

impl<T> Default for Heads<T> {
    fn default() -> Self {
        Heads { by: HashMap::new(), lengths: BTreeSet::new() }
    }
}

impl<T> Heads<T> {
    fn insert(&mut self, head: &str, of: u32, entry: T) {
        self.lengths.insert(head.len());
        self.by.entry(head.to_owned()).or_default().push((of, entry));
    }

    /// Entries whose head is the beginning of `text`.
    fn fitting<'h>(&'h self, text: &'h str) -> impl Iterator<Item = &'h (u32, T)> {
        let heads = self.lengths.iter().filter_map(|len| self.by.get(text.get(..*len)?));
        heads.flatten()
    }
}

impl Index {
    /// Of these delegations; of bins `bits` is how many bits they have.
    pub fn of(leads: impl IntoIterator<Item = Leads>, bits: u32) -> Index {
        let mut index = Index { bits, ..Index::default() };
        for (i, leads) in leads.into_iter().enumerate() {
            let i = i as u32;
            index.len += 1;
            match leads {
                Leads::Bin(bin) => {
                    index.bins.insert(bin, i);
                }
                Leads::Hashes(prefixes) => {
                    prefixes.iter().filter(|p| p.len() <= 64).for_each(|p| index.hashes.insert(p, i, ()));
                }
                Leads::Paths(patterns) => {
                    for pattern in patterns {
                        let head = pattern.split(['*', '?', '[']).next().unwrap_or_default().to_owned();
                        index.paths.insert(&head, i, pattern);
                    }
                }
            }
        }
        index
    }

    /// The delegations that lead to `path`, in their order, each with the clients that it leads there.
    pub fn leading(&self, path: &str, fuel: &mut Fuel) -> BTreeMap<u32, Clients> {
        let mut found = BTreeMap::new();
        if !fuel.burn(path.len() + self.hashes.lengths.len() + self.paths.lengths.len()) {
            return found;
        }
        if !self.bins.is_empty() || !self.hashes.by.is_empty() {
            let digest = sha256(path.as_bytes());
            let head = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
            let bin = u64::from(head).checked_shr(32 - self.bits);
            found.extend(bin.and_then(|bin| self.bins.get(&bin)).map(|of| (*of, Clients::ALL)));
            found.extend(self.hashes.fitting(&hex::encode(digest)).map(|(of, ())| (*of, Clients::ALL)));
        }
        for (of, pattern) in self.paths.fitting(path) {
            let led = found.entry(*of).or_insert(Clients::NONE);
            if *led != Clients::ALL {
                *led = *led | led_by(pattern, path, fuel);
            }
        }
        found.retain(|_, led| !led.is_empty());
        found
    }

    /// Whether no two of them can lead to one path, as far as that can be told without looking at paths.
    pub fn is_exclusive(&self) -> bool {
        let apart = |head: &str, of: u32| self.hashes.fitting(head).all(|(other, ())| *other == of);
        self.len <= 1
            || self.paths.by.is_empty()
                && self.hashes.by.iter().all(|(head, of)| of.iter().all(|(of, ())| apart(head, *of)))
    }
}

/// The clients that a pattern leads to a path.
fn led_by(pattern: &str, path: &str, fuel: &mut Fuel) -> Clients {
    let (dots, no_dots) = (fits_by_part(pattern, path, true, fuel), fits_by_part(pattern, path, false, fuel));
    let whole = dots || fits(pattern, path, fuel);
    Clients::that(|client| match client {
        Client::PythonTuf | Client::GoTuf | Client::GoTuf242 => dots,
        Client::TufJs => no_dots,
        _ => whole,
    })
}

/// Whether a pattern fits part by part; without `dots`, a wildcard at the front of a part fits no leading dot.
fn fits_by_part(pattern: &str, path: &str, dots: bool, fuel: &mut Fuel) -> bool {
    let (mut patterns, mut parts) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) => {
                let hidden = !dots && part.starts_with('.') && !pattern.starts_with('.');
                if hidden || !fits(pattern, part, fuel) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

/// Whether a shell pattern fits the whole text: `*`, `?` and `[…]`, each for any character.
fn fits(pattern: &str, text: &str, fuel: &mut Fuel) -> bool {
    let (mut p, mut t) = (pattern, text);
    // The last `*`: the pattern after it, and the text that is not yet taken by it.
    let mut star: Option<(&str, &str)> = None;
    while let Some(c) = t.chars().next() {
        if !fuel.burn(1) {
            return false;
        }
        let rest = &t[c.len_utf8()..];
        let one = match p.chars().next() {
            Some('*') => {
                p = &p[1..];
                star = Some((p, t));
                continue;
            }
            Some('?') => Some(&p[1..]),
            Some('[') => class(p, c, fuel),
            Some(own) if own == c => Some(&p[c.len_utf8()..]),
            _ => None,
        };
        match (one, star) {
            (Some(next), _) => (p, t) = (next, rest),
            (None, Some((after, from))) => {
                let taken = from.chars().next().map_or(0, char::len_utf8);
                star = Some((after, &from[taken..]));
                (p, t) = (after, &from[taken..]);
            }
            (None, None) => return false,
        }
    }
    p.bytes().all(|b| b == b'*')
}

/// The pattern behind the class at its front, if `c` is in it. A `[` that is never closed stands for itself.
fn class<'p>(pattern: &'p str, c: char, fuel: &mut Fuel) -> Option<&'p str> {
    let inner = &pattern[1..];
    let (negated, inner) = inner.strip_prefix('!').map_or((false, inner), |inner| (true, inner));
    // A `]` right at the front is one of the characters.
    let first = inner.chars().next().map_or(0, char::len_utf8);
    let end = inner.get(first..).and_then(|rest| rest.find(']')).map(|end| first + end);
    fuel.burn(end.unwrap_or(inner.len()));
    let Some(end) = end.filter(|_| first > 0) else {
        return (c == '[').then_some(&pattern[1..]);
    };
    let (mut members, mut inside) = (inner[..end].chars(), false);
    while let Some(from) = members.next() {
        let mut ahead = members.clone();
        match (ahead.next(), ahead.next()) {
            (Some('-'), Some(to)) => {
                inside |= (from..=to).contains(&c);
                members = ahead;
            }
            _ => inside |= from == c,
        }
    }
    (inside != negated).then_some(&inner[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_a_shell() {
        let mut fuel = Fuel::default();
        for (pattern, text, whole, by_part) in [
            ("*", "a", true, true),
            ("*", "a/b", true, false),
            ("a/*", "a/b", true, true),
            ("a/*", "a/b/c", true, false),
            ("a/*.tar", "a/b.tar", true, true),
            ("a?[b-d]x", "aqcx", true, true),
            ("[!a]", "a", false, false),
            ("[!a]", "b", true, true),
            ("[]a]x", "]x", true, true),
            ("[a-]", "-", true, true),
            ("a[", "a[", true, true),
            ("[é-ü]*", "ö/ü", true, false),
            ("*a*b", "xaybzb", true, true),
            ("*a*b", "xayc", false, false),
            ("", "", true, true),
            ("a", "ab", false, false),
        ] {
            let fit = (fits(pattern, text, &mut fuel), fits_by_part(pattern, text, true, &mut fuel));
            assert_eq!(fit, (whole, by_part), "{pattern} {text}");
        }
        assert!(fits_by_part("*", ".hidden", true, &mut fuel) && !fits_by_part("*", ".hidden", false, &mut fuel));
        assert!(fits_by_part(".*", ".hidden", false, &mut fuel));
    }

    #[test]
    fn each_form_leads_where_clients_look() {
        let mut fuel = Fuel::default();
        for path in ["a", "b/c", "é"] {
            let digest = sha256(path.as_bytes());
            let own = u64::from(digest[0] >> 4);
            let bins = Index::of([Leads::Bin(own ^ 1), Leads::Bin(own)], 4);
            assert_eq!(bins.leading(path, &mut fuel), BTreeMap::from([(1, Clients::ALL)]));
            let hex = hex::encode(&digest[..1]);
            let hashes = [Leads::Hashes(vec!["zz".into()]), Leads::Hashes(vec!["zz".into(), hex])];
            assert_eq!(Index::of(hashes, 0).leading(path, &mut fuel), BTreeMap::from([(1, Clients::ALL)]));
        }
        let paths = [["a/b", "x"], ["*", "y"], ["a/?", "b/?"], ["b", "a/b/c"]];
        let index = Index::of(paths.map(|patterns| Leads::Paths(patterns.map(str::to_owned).into())), 0);
        let led = index.leading("a/b", &mut fuel);
        assert_eq!(
            (led.keys().copied().collect::<Vec<_>>(), led[&0], led[&2]),
            (vec![0, 1, 2], Clients::ALL, Clients::ALL)
        );
        assert!(!led[&1].has(Client::PythonTuf) && !led[&1].has(Client::TufJs) && led[&1].has(Client::Tough));
    }

    #[test]
    fn delegations_that_cannot_meet_are_known_as_such() {
        let hashes = |prefixes: &[&[&str]]| {
            let leads = prefixes.iter().map(|p| Leads::Hashes(p.iter().map(|p| (*p).to_owned()).collect()));
            Index::of(leads, 0).is_exclusive()
        };
        assert!(hashes(&[&["0", "1"], &["2"]]) && !hashes(&[&["0", "1"], &["1"]]) && !hashes(&[&["0"], &["1a", "0a"]]));
        let paths = |n: usize| Index::of(vec![Leads::Paths(vec!["a".into()]); n], 0).is_exclusive();
        assert!(paths(1) && !paths(2));
        assert!(Index::of((0..16).map(Leads::Bin), 4).is_exclusive());
    }

    #[test]
    fn what_would_never_end_ends() {
        let mut fuel = Fuel(100_000);
        let stars = "*a".repeat(10_000);
        let index = Index::of([Leads::Paths(vec![stars.clone() + "b"; 1_000])], 0);
        let text = "a".repeat(50_000);
        let found = index.leading(&text, &mut fuel);
        assert!(found.is_empty() && fuel.is_empty());
    }
}
