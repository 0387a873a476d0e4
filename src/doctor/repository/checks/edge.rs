//! A delegation as a client follows it: to which role it leads, and for which targets.

use std::rc::Rc;

use super::super::clients::{Client, Clients};
use super::super::keys::Signers;
use crate::bins::sha256;

/// A delegation.
pub struct Edge {
    /// The role that it leads to.
    pub role: String,
    /// For which targets.
    pub leads: Leads,
    /// Who signs the role.
    pub signers: Rc<Signers>,
}

/// For which targets a delegation is.
pub enum Leads {
    /// Those whose sha256 begins with these bits.
    Bin {
        /// How many.
        bits: u32,
        /// Their value.
        bin: u64,
    },
    /// Those whose sha256 begins with one of these, in hex.
    Hashes(Vec<String>),
    /// Those that one of these patterns fits.
    Paths(Vec<String>),
}

impl Leads {
    /// The clients that this does not lead to `path`.
    pub fn lost(&self, path: &str) -> Clients {
        match self {
            Leads::Bin { bits, bin } => {
                let digest = sha256(path.as_bytes());
                let head = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
                if u64::from(head) >> (32 - bits) == *bin { Clients::NONE } else { Clients::ALL }
            }
            Leads::Hashes(prefixes) => {
                let digest = hex::encode(sha256(path.as_bytes()));
                if prefixes.iter().any(|p| digest.starts_with(p.as_str())) { Clients::NONE } else { Clients::ALL }
            }
            Leads::Paths(patterns) => {
                let by_part = |dots| !patterns.iter().any(|p| fits_by_part(p, path, dots));
                let whole = !patterns.iter().any(|p| fits(p, path));
                Clients::that(|client| match client {
                    Client::PythonTuf | Client::GoTuf | Client::GoTuf242 => by_part(true),
                    Client::TufJs => by_part(false),
                    _ => whole,
                })
            }
        }
    }
}

/// Whether a pattern fits part by part; without `dots`, a wildcard at the front of a part fits no leading dot.
fn fits_by_part(pattern: &str, path: &str, dots: bool) -> bool {
    let (patterns, parts): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    let hidden = |pattern: &str, part: &str| !dots && part.starts_with('.') && !pattern.starts_with('.');
    patterns.len() == parts.len()
        && patterns.iter().zip(parts).all(|(pattern, part)| !hidden(pattern, part) && fits(pattern, part))
}

/// Whether a shell pattern fits the whole text: `*`, `?` and `[…]`, each for any character.
fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let one = match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            Some('?') => Some(p + 1),
            Some('[') => class(&pattern, p, text[t]),
            Some(c) if *c == text[t] => Some(p + 1),
            _ => None,
        };
        match (one, star) {
            (Some(next), _) => (p, t) = (next, t + 1),
            (None, Some((at, from))) => {
                star = Some((at, from + 1));
                (p, t) = (at + 1, from + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Where the pattern goes on after the class at `p`, if `c` is in it. A `[` that is never closed stands for itself.
fn class(pattern: &[char], p: usize, c: char) -> Option<usize> {
    let negated = pattern.get(p + 1) == Some(&'!');
    let first = p + 1 + usize::from(negated);
    let Some(end) = (first + 1..pattern.len()).find(|i| pattern[*i] == ']') else {
        return (c == '[').then_some(p + 1);
    };
    let (mut i, mut inside) = (first, false);
    while i < end {
        if i + 2 < end && pattern[i + 1] == '-' {
            inside |= (pattern[i]..=pattern[i + 2]).contains(&c);
            i += 3;
        } else {
            inside |= pattern[i] == c;
            i += 1;
        }
    }
    (inside != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_a_shell() {
        for (pattern, text, whole, by_part) in [
            ("*", "a", true, true),
            ("*", "a/b", true, false),
            ("a/*", "a/b", true, true),
            ("a/*", "a/b/c", true, false),
            ("a/*.tar", "a/b.tar", true, true),
            ("a?[b-d]x", "aqcx", true, true),
            ("[!a]", "a", false, false),
            ("[!a]", "b", true, true),
            ("a[", "a[", true, true),
            ("*a*b", "xaybzb", true, true),
            ("*a*b", "xayc", false, false),
            ("", "", true, true),
            ("a", "ab", false, false),
        ] {
            assert_eq!((fits(pattern, text), fits_by_part(pattern, text, true)), (whole, by_part), "{pattern} {text}");
        }
        assert!(fits_by_part("*", ".hidden", true) && !fits_by_part("*", ".hidden", false));
        assert!(fits_by_part(".*", ".hidden", false));
    }

    #[test]
    fn each_form_leads_where_clients_look() {
        let leads = |path: &str| {
            let digest = sha256(path.as_bytes());
            let bin = |bin| Leads::Bin { bits: 4, bin };
            let (own, other) = (u64::from(digest[0] >> 4), u64::from(digest[0] >> 4) ^ 1);
            assert_eq!((bin(own).lost(path), bin(other).lost(path)), (Clients::NONE, Clients::ALL));
            let hex = hex::encode(&digest[..1]);
            assert_eq!(Leads::Hashes(vec!["zz".into(), hex]).lost(path), Clients::NONE);
            assert_eq!(Leads::Hashes(vec!["zz".into()]).lost(path), Clients::ALL);
        };
        ["a", "b/c", "é"].into_iter().for_each(leads);
        let lost = Leads::Paths(vec!["*".into()]).lost("a/b");
        assert!(lost.has(Client::PythonTuf) && lost.has(Client::TufJs) && !lost.has(Client::Tough));
    }
}
