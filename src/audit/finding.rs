//! Findings: what is wrong, where, and with which values.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::damage::Damage;
use crate::bins::sha256;

/// How much of a text is shown before and after the place where it differs, in bytes.
const EXCERPT_BEFORE: usize = 24;
const EXCERPT_AFTER: usize = 56;

/// One side of a difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Value {
    /// The version it says it has, where it says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// In bytes; of the signed part where only that can be rebuilt.
    pub length: u64,
    /// In lower hex, of the same bytes.
    pub sha256: String,
    /// True if these are the figures of the signed part: the signatures around it cannot be rebuilt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signed_part: bool,
    /// What stands around the first difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
}

impl Value {
    /// The figures of some bytes.
    pub fn of(bytes: &[u8]) -> Value {
        Value {
            version: version_of(bytes),
            length: bytes.len() as u64,
            sha256: hex::encode(sha256(bytes)),
            signed_part: false,
            excerpt: None,
        }
    }

    /// The figures of a signed part.
    pub fn of_signed(bytes: &[u8]) -> Value {
        Value { signed_part: true, ..Value::of(bytes) }
    }

    /// The figures as somebody states them.
    pub fn stated(version: Option<u64>, length: u64, sha256: &[u8; 32]) -> Value {
        Value { version, length, sha256: hex::encode(sha256), signed_part: false, excerpt: None }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(version) = self.version {
            write!(f, "version {version}, ")?;
        }
        let of = if self.signed_part { "signed part of " } else { "" };
        write!(f, "{of}{} bytes, sha256 {}", self.length, self.sha256)?;
        match &self.excerpt {
            Some(excerpt) => write!(f, ", …{excerpt}…"),
            None => Ok(()),
        }
    }
}

/// An object or record that is not what the ledger says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// The name of what is wrong.
    pub damage: Damage,
    /// The object's name, or the record's place such as `ledger seq 12`.
    pub place: String,
    /// What it is, and why it should be otherwise.
    pub message: String,
    /// What it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Value>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Value>,
    /// The first byte that differs, counted from 0 in the bytes that both sides describe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differs_at: Option<u64>,
}

impl Finding {
    /// A finding without values.
    pub fn new(damage: Damage, place: impl Into<String>, message: impl Into<String>) -> Box<Finding> {
        let (place, message) = (place.into(), message.into());
        Box::new(Finding { damage, place, message, expected: None, found: None, differs_at: None })
    }

    /// Bytes that should be others: both values, with the first difference.
    pub fn differs(
        damage: Damage,
        place: impl Into<String>,
        message: impl Into<String>,
        expected: &[u8],
        found: &[u8],
    ) -> Box<Finding> {
        let common = expected.iter().zip(found).take_while(|(a, b)| a == b).count();
        let side = |bytes: &[u8]| Value { excerpt: Some(excerpt(bytes, common)), ..Value::of(bytes) };
        let mut finding = Finding::new(damage, place, message);
        (finding.expected, finding.found) = (Some(side(expected)), Some(side(found)));
        finding.differs_at = Some(common as u64);
        finding
    }

    /// With what was expected and what was found.
    pub fn values(mut self: Box<Self>, expected: Option<Value>, found: Option<Value>) -> Box<Finding> {
        (self.expected, self.found) = (expected, found);
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.place, self.damage.verb(), self.message)?;
        if let Some(at) = self.differs_at {
            write!(f, "\n  differs    from byte {at} on")?;
        }
        if let Some(expected) = &self.expected {
            write!(f, "\n  expected   {expected}")?;
        }
        match &self.found {
            Some(found) => write!(f, "\n  found      {found}"),
            None => Ok(()),
        }
    }
}

/// A Recovery: what stands between its two seqs cannot be verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoveryReport {
    /// The checkpoint that the repository went on from: its signatures are verified, not what it was made of.
    pub checkpoint: u64,
    /// History is missing from this seq on.
    pub from: u64,
    /// The seq of the Recovery: everything after it is verified.
    pub to: u64,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RecoveryReport { checkpoint, from, to } = self;
        write!(f, "history is missing between seqs {from} and {to}: checkpoint {checkpoint} is trusted as signed")
    }
}

/// The version in the tail of a signed part.
fn version_of(bytes: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"version\":";
    let end = bytes.iter().rposition(|b| b.is_ascii_digit())? + 1;
    let start = bytes[..end].iter().rposition(|b| !b.is_ascii_digit())? + 1;
    let is_version = bytes[..start].ends_with(KEY) && bytes[end..].iter().all(|b| *b == b'}');
    is_version.then(|| std::str::from_utf8(&bytes[start..end]).ok()?.parse().ok()).flatten()
}

/// What stands around byte `at`, fit for a terminal.
fn excerpt(bytes: &[u8], at: usize) -> String {
    let range = at.saturating_sub(EXCERPT_BEFORE)..bytes.len().min(at + EXCERPT_AFTER);
    let text = String::from_utf8_lossy(bytes.get(range).unwrap_or_default()).into_owned();
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_both_sides_around_its_first_place() {
        let (a, b) = (br#"{"expires":"2026","version":3}"#, br#"{"expires":"2027","version":12}"#);
        let f = Finding::differs(Damage::ObjectAltered, "metadata/3.x.json", "why", a, b);
        assert_eq!(f.differs_at, Some(15));
        assert_eq!((f.expected.as_ref().unwrap().version, f.found.as_ref().unwrap().version), (Some(3), Some(12)));
        let text = f.to_string();
        assert!(text.starts_with("metadata/3.x.json is altered: why\n  differs    from byte 15 on\n  expected   version 3, 30 bytes, sha256 "), "{text}");
        assert!(text.ends_with(r#", …{"expires":"2027","version":12}…"#), "{text}");
        assert_eq!(excerpt(b"a\x1b[31m\xff", 0), "a·[31m\u{fffd}");
        assert_eq!(excerpt(b"abc", 3), "abc");
        for other in [&b""[..], b"7", b"\"version\":x}", b"{\"version\":7}x"] {
            assert_eq!(version_of(other), None);
        }
    }
}
