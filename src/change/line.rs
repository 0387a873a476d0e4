//! The line of a change: its parts, and how the usual one is read without a JSON parser.

use std::collections::BTreeMap;
use std::io::Write;

use super::{HASHES, MAX_INTEGER, check_path, is_digest};

/// Between an added target and its path.
pub const ADD: &[u8] = b",\"op\":\"add\",\"path\":\"";
/// Before a removed path.
pub const REMOVE: &[u8] = b"{\"op\":\"remove\",\"path\":\"";
/// After a path.
pub const END: &[u8] = b"\"}";

/// What a line without `custom` takes, or a little more.
pub fn size(path: &str, hashes: &BTreeMap<String, String>) -> usize {
    let hashes: usize = hashes.iter().map(|(name, digest)| name.len() + digest.len() + 6).sum();
    64 + hashes + path.len()
}

/// Appends `"hashes":{…},"length":N`; names and digests have been checked and need no escaping.
pub fn write_target(line: &mut Vec<u8>, hashes: &BTreeMap<String, String>, length: u64) {
    line.extend_from_slice(b"\"hashes\":{");
    for (i, (name, digest)) in hashes.iter().enumerate() {
        line.extend_from_slice(if i > 0 { b",\"" } else { b"\"" });
        line.extend_from_slice(name.as_bytes());
        line.extend_from_slice(b"\":\"");
        line.extend_from_slice(digest.as_bytes());
        line.push(b'"');
    }
    let _ = write!(line, "}},\"length\":{length}"); // a Vec takes everything
}

/// The path of a line, and whether it removes; `None` for a line that is not valid, has `custom`, or is
/// spelled otherwise: then a JSON parser has the word.
pub fn read(line: &[u8]) -> Option<(&str, bool)> {
    let rest = line.strip_suffix(END)?;
    let (path, removes) = match rest.strip_prefix(REMOVE) {
        Some(path) => (path, true),
        None => (after_target(rest)?.strip_prefix(ADD)?, false),
    };
    let path = std::str::from_utf8(path).ok()?;
    check_path(path).ok()?;
    Some((path, removes))
}

/// What stands behind `{"hashes":{…},"length":N`.
fn after_target(line: &[u8]) -> Option<&[u8]> {
    let mut rest = line.strip_prefix(b"{\"hashes\":{")?;
    let (mut sha256, mut closed) = (false, false);
    for (name, len) in HASHES {
        let named = rest.strip_prefix(b"\"").and_then(|r| r.strip_prefix(name.as_bytes())?.strip_prefix(b"\":\""));
        let Some((digest, after)) = named.and_then(|r| r.split_at_checked(len)) else { continue };
        sha256 |= name == "sha256";
        let (next, after) = after.strip_prefix(b"\"")?.split_first()?;
        closed = *next == b'}';
        if !is_digest(digest) || !(closed || *next == b',') {
            return None;
        }
        rest = after;
        if closed {
            break;
        }
    }
    let rest = rest.strip_prefix(b",\"length\":").filter(|_| sha256 && closed)?;
    let (digits, rest) = rest.split_at(rest.iter().position(|b| !b.is_ascii_digit())?);
    let plain = digits == b"0" || digits.first().is_some_and(|b| *b != b'0');
    let length: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (plain && length <= MAX_INTEGER).then_some(rest)
}
