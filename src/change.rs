//! What producers write: targets, changes and batches, validated at the edge.
//!
//! Owns invariant 7: a [`Change`] or [`Batch`] exists only if every client can read what it will publish. The rules
//! are the intersection of what TUF clients accept; each refusal names the field and the rule. A valid change is kept
//! as the line of canonical JSON that stands for it in a segment, so nothing is serialised twice on the way, and what is
//! read from a segment is a part of that segment's bytes:
//!
//! ```text
//!   request {"op":"add","path":P,…}  ──►  line {"hashes":…,"length":…,"op":"add","path":P}  ──►  segment
//!                                              └──── fragment ─────┘}  ──►  bin member "P":fragment
//! ```

mod custom;
mod line;
mod raw;

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::bins::{self, Place, Sha256Digest};
use crate::error::{Error, Result};
pub use raw::{BatchRequest, ChangeRequest, Op};

/// The most changes a batch may have.
pub const MAX_BATCH_CHANGES: usize = 100_000;
const TOO_MANY_CHANGES: &str = "too many: the limit is 100000 changes; split the batch";
/// The largest batch, in bytes of canonical change lines.
pub const MAX_BATCH_BYTES: usize = 32 << 20;
/// The longest batch id, in bytes.
pub const MAX_ID_BYTES: usize = 128;
/// What the ids begin with that no producer chooses: those of inbox records without one.
pub const INBOX_PREFIX: &str = "inbox:";
/// The longest path, in bytes.
pub const MAX_PATH_BYTES: usize = 1_024;
/// The largest `custom`, in bytes of its canonical form.
pub const MAX_CUSTOM_BYTES: usize = 16 << 10;
/// How deep `custom` may nest; the object itself is depth 1.
pub const MAX_CUSTOM_DEPTH: usize = 8;
/// The largest integer that every client reads exactly: 2^53 − 1.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// The hash algorithms that may stand in `hashes`, with the length of their lower-hex digests. `sha256` is required;
/// the others are refused at intake unless its configuration admits them.
pub const HASHES: [(&str, usize); 3] = [("blake2b-256", 64), ("sha256", 64), ("sha512", 128)];

/// One validated change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its line, without the newline.
    line: Bytes,
    /// Where in the line its path stands.
    path: std::ops::Range<usize>,
    /// Its place in the hash space: hashed once, asked for on the whole way.
    place: Place,
    removes: bool,
}

impl Change {
    /// A change that adds (or replaces) a target.
    pub fn add(
        path: String,
        length: u64,
        hashes: &BTreeMap<String, String>,
        custom: Option<&serde_json::Value>,
    ) -> Result<Change> {
        check_path(&path)?;
        if length > MAX_INTEGER {
            return Err(Error::invalid("length", format!("must be at most 2^53 - 1, not {length}")));
        }
        check_hashes(hashes)?;
        let mut line = Vec::with_capacity(line::size(&path, hashes));
        line.push(b'{');
        if let Some(custom) = custom {
            line.extend_from_slice(b"\"custom\":");
            custom::write(custom, &mut line)?;
            line.push(b',');
        }
        line::write_target(&mut line, hashes, length);
        Ok(Change::of(line, line::ADD, &path))
    }

    /// A change that removes a path.
    pub fn remove(path: String) -> Result<Change> {
        check_path(&path)?;
        Ok(Change::of(Vec::with_capacity(path.len() + 32), line::REMOVE, &path))
    }

    /// Ends a line that has all but operation and path.
    fn of(mut line: Vec<u8>, op: &[u8], path: &str) -> Change {
        line.extend_from_slice(op);
        let start = line.len();
        line.extend_from_slice(path.as_bytes());
        line.extend_from_slice(line::END);
        let (place, removes) = (bins::place(path), op == line::REMOVE);
        Change { line: line.into(), path: start..start + path.len(), place, removes }
    }

    /// The path it is about.
    pub fn path(&self) -> &str {
        std::str::from_utf8(&self.line[self.path.clone()]).unwrap_or_default() // it is ASCII
    }

    /// Where the path stands in the hash space.
    pub fn place(&self) -> Place {
        self.place
    }

    /// True for a removal.
    pub fn removes(&self) -> bool {
        self.removes
    }

    /// The target to add as canonical JSON `{"custom"?:…,"hashes":…,"length":…}`, or `None` for a removal.
    pub fn fragment(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(self.path.start);
        self.write_fragment(&mut out);
        (!self.removes).then_some(out)
    }

    /// Appends [`Change::fragment`]; nothing for a removal.
    pub fn write_fragment(&self, out: &mut Vec<u8>) {
        if !self.removes {
            // `custom`, `hashes` and `length` sort before `op` and `path`.
            out.extend_from_slice(&self.line[..self.path.start - line::ADD.len()]);
            out.push(b'}');
        }
    }

    /// Appends the change as one line of canonical JSON, with its newline: how it stands in a segment.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.line);
        out.push(b'\n');
    }

    /// The length of what [`Change::write_line`] appends.
    pub fn line_len(&self) -> usize {
        self.line.len() + 1
    }

    /// Reads a line as [`Change::write_line`] wrote it (without its newline). Anything that no intake would have
    /// let through, or another spelling of the same change, is refused. What is read shares the bytes of `line`.
    pub fn from_line(line: &Bytes) -> Result<Change> {
        if let Some((path, removes)) = line::read(line) {
            let (place, end) = (bins::place(path), line.len() - line::END.len());
            return Ok(Change { line: line.clone(), path: end - path.len()..end, place, removes });
        }
        let change = ChangeRequest::parse(line)?.validate_known()?;
        if change.line != line {
            return Err(Error::invalid("change", "is not in canonical form"));
        }
        Ok(change)
    }
}

/// A validated batch: an ordered list of changes, all or nothing.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The id its producer chose.
    pub id: String,
    /// The ledger position its producer sent as basis, if it did.
    pub basis: Option<u64>,
    /// At least one change; they apply in this order.
    pub changes: Vec<Change>,
    /// Its [`content_digest`]: two batches are the same if id and digest are.
    pub digest: Sha256Digest,
    /// The length of all its change lines.
    pub bytes: usize,
}

impl Batch {
    /// Checks the id and the limits, and digests the content.
    pub fn new(id: String, basis: Option<u64>, changes: Vec<Change>) -> Result<Batch> {
        check_id(&id)?;
        if changes.is_empty() {
            return Err(Error::invalid("changes", "must hold at least one change"));
        }
        if changes.len() > MAX_BATCH_CHANGES {
            return Err(Error::too_large("changes", TOO_MANY_CHANGES));
        }
        let bytes = changes.iter().map(Change::line_len).sum();
        if bytes > MAX_BATCH_BYTES {
            let rule = format!("too large: {bytes} bytes, the limit is {MAX_BATCH_BYTES}; split the batch");
            return Err(Error::too_large("changes", rule));
        }
        let digest = content_digest(changes.iter());
        Ok(Batch { id, basis, changes, digest, bytes })
    }
}

/// What a batch says, as one digest: SHA-256 of its change lines by rising place, those at one place in the order of
/// the batch. That is all the order there is to what a batch does, it does not depend on the repository's layout, and
/// it can be recomputed from segments, which keep the order within a partition.
pub fn content_digest<'a>(changes: impl Iterator<Item = &'a Change>) -> Sha256Digest {
    let mut sorted: Vec<&Change> = changes.collect();
    sorted.sort_by_key(|c| c.place);
    let mut hasher = Sha256::new();
    for change in sorted {
        hasher.update(&change.line);
        hasher.update(b"\n");
    }
    hasher.finalize().into()
}

/// A batch id: 1 to 128 of `[A-Za-z0-9._:-]`.
pub fn check_id(id: &str) -> Result<()> {
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        return Err(Error::invalid("id", format!("must have 1 to {MAX_ID_BYTES} characters, has {}", id.len())));
    }
    match id.bytes().find(|b| !(b.is_ascii_alphanumeric() || b"._:-".contains(b))) {
        None => Ok(()),
        Some(_) => Err(Error::invalid("id", format!("may hold only A-Z a-z 0-9 . _ : -, found {id:?}"))),
    }
}

/// A target path that every client fetches as it is written: `/`-separated parts of `[A-Za-z0-9._+~@=,-]`, none of
/// them empty, `.` or `..`.
pub fn check_path(path: &str) -> Result<()> {
    let refuse = |rule: String| Err(Error::invalid("path", rule));
    if path.is_empty() || path.len() > MAX_PATH_BYTES {
        return refuse(format!("must have 1 to {MAX_PATH_BYTES} bytes, has {}", path.len()));
    }
    if let Some(c) = path.chars().find(|c| !(c.is_ascii_alphanumeric() || "._+~@=,-/".contains(*c))) {
        return refuse(format!("may hold only A-Z a-z 0-9 . _ + ~ @ = , - and /, found {c:?} in {path:?}"));
    }
    for part in path.split('/') {
        if part.is_empty() {
            return refuse(format!("must not begin or end with / or hold //, found {path:?}"));
        }
        if part == "." || part == ".." {
            return refuse(format!("must not hold . or .. as a part, found {path:?}"));
        }
    }
    Ok(())
}

fn check_hashes(hashes: &BTreeMap<String, String>) -> Result<()> {
    if !hashes.contains_key("sha256") {
        return Err(Error::invalid("hashes.sha256", "is required"));
    }
    for (name, digest) in hashes {
        let field = || format!("hashes.{name}");
        let Some((_, len)) = HASHES.iter().find(|(known, _)| known == name) else {
            let known = HASHES.map(|(n, _)| n).join(", ");
            return Err(Error::invalid("hashes", format!("{name:?} is not a known algorithm ({known})")));
        };
        if digest.len() != *len || !is_digest(digest.as_bytes()) {
            return Err(Error::invalid(
                field(),
                format!("must be {len} lower-case hexadecimal digits, found {digest:?}"),
            ));
        }
    }
    Ok(())
}

fn is_digest(digest: &[u8]) -> bool {
    digest.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
}

#[cfg(test)]
mod tests;
