//! Cuts the stream of changes into batches whose ids follow from their content.
//!
//! A batch's id is `import-<digest>-<number>`: 24 hex digits of the SHA-256 over the salt and the batch's
//! changes, one canonical line each, and the batch's number in this import, from 1. The digest is of the
//! batch and not of the file, so that a stream need not be read twice. An import that is run again with
//! the same inputs, order and batch size therefore has the same ids, and the server answers each batch
//! that it has already with the first receipt: that is how an interrupted import resumes. A salt makes the ids new
//! (`--again`).

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use sha2::{Digest, Sha256};

use super::Item;
use crate::error::{Error, Result};

/// The most bytes of changes in one batch; half of what the API takes. A batch that would exceed it ends early.
pub const MAX_BYTES: usize = 16 << 20;

/// One batch, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its id: `[A-Za-z0-9._:-]{1,128}`.
    pub id: String,
    /// Its number in this import, from 1.
    pub number: u64,
    /// How many changes it has.
    pub len: usize,
    /// The changes as JSON, separated by commas.
    changes: Vec<u8>,
    /// A hash of each path.
    paths: HashSet<u64>,
}

impl Chunk {
    /// The body of `POST /v1/batches`, with a basis if the producer has one.
    pub fn body(&self, basis: Option<u64>) -> Vec<u8> {
        let basis = basis.map(|b| format!("\"basis\":{b},")).unwrap_or_default();
        let head = format!("{{\"id\":\"{}\",{basis}\"changes\":[", self.id);
        [head.as_bytes(), &self.changes, b"]}"].concat()
    }

    /// True if both (may) change a path: then their order matters.
    pub fn meets(&self, other: &Chunk) -> bool {
        !self.paths.is_disjoint(&other.paths)
    }
}

/// The batches of a stream of changes.
///
/// An error of the stream comes through at once and ends it: the changes before it that did not fill a
/// batch are not sent.
pub struct Chunks<I> {
    items: Option<I>,
    max_changes: usize,
    salt: Option<String>,
    number: u64,
    /// A change that did not fit into the batch before.
    held: Option<Line>,
}

/// A change as JSON, and the hash of its path.
type Line = (Vec<u8>, u64);

/// Cuts `items` into batches of at most `max_changes` changes (at least 1) and [`MAX_BYTES`].
pub fn chunks<I>(items: I, max_changes: usize, salt: Option<String>) -> Chunks<I>
where
    I: Iterator<Item = Result<Item>>,
{
    Chunks { items: Some(items), max_changes: max_changes.max(1), salt, number: 0, held: None }
}

impl<I: Iterator<Item = Result<Item>>> Chunks<I> {
    fn read(&mut self) -> Result<Option<Chunk>> {
        let mut digest = Sha256::new();
        let salt = self.salt.as_deref().unwrap_or_default();
        // The length keeps salt and changes apart.
        digest.update(format!("tuflog import {}:{salt}\n", salt.len()));
        let (mut changes, mut len, mut paths) = (Vec::new(), 0, HashSet::new());
        while len < self.max_changes {
            let Some((line, path)) = self.next_line()? else { break };
            if len > 0 && changes.len() + line.len() > MAX_BYTES {
                self.held = Some((line, path));
                break;
            }
            if len > 0 {
                changes.push(b',');
            }
            digest.update(&line);
            digest.update(b"\n");
            changes.extend_from_slice(&line);
            paths.insert(path);
            len += 1;
        }
        if len == 0 {
            return Ok(None);
        }
        self.number += 1;
        let hex = hex::encode(digest.finalize());
        let id = format!("import-{}-{}", &hex[..24], self.number);
        Ok(Some(Chunk { id, number: self.number, len, changes, paths }))
    }

    fn next_line(&mut self) -> Result<Option<Line>> {
        if let Some(line) = self.held.take() {
            return Ok(Some(line));
        }
        let Some(item) = self.items.as_mut().and_then(Iterator::next).transpose()? else { return Ok(None) };
        let mut hasher = DefaultHasher::new();
        item.path().hash(&mut hasher);
        let line = serde_json::to_vec(&item).map_err(|e| Error::invalid(item.path(), e.to_string()))?;
        Ok(Some((line, hasher.finish())))
    }
}

impl<I: Iterator<Item = Result<Item>>> Iterator for Chunks<I> {
    type Item = Result<Chunk>;

    fn next(&mut self) -> Option<Result<Chunk>> {
        self.items.as_ref()?;
        let next = self.read().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.items = None;
        }
        next
    }
}
