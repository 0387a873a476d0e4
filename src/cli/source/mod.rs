//! What `tuflog import` reads: Debian indexes, JSON Lines, CSV and directories, as a stream of changes.
//!
//! Invariants:
//! - **Streaming.** Memory does not grow with the input: one line (at most [`MAX_LINE`]), one decoder's
//!   window, the names of the directories being walked. The one exception is stated in [`debian`].
//! - **All or an error.** Nothing is skipped in silence; what a format cannot express as a change is an
//!   error that names the file and the line, and ends the stream. (Symbolic links: see [`dir`].)
//! - **No input panics**, whatever its bytes are.
//! - **Deterministic.** The same inputs give the same items in the same order, so that batch ids made
//!   from them ([`chunk`]) are the same on every run.
//!
//! Readers check the form only (is the length a number, is the hash hex). Whether a change is allowed is
//! the intake's decision.

pub mod chunk;
mod csv;
mod debian;
mod dir;
mod input;
mod jsonl;
#[cfg(test)]
mod tests;
mod unique;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use input::{Input, Lines};

/// The longest line of a text format, in bytes: far above what the API takes for one change.
pub const MAX_LINE: usize = 1 << 20;

/// One change, in the form of the API's `changes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", try_from = "jsonl::Line")]
pub enum Item {
    /// Adds the target, or replaces it.
    Add {
        /// The target's path.
        path: String,
        /// Its length in bytes.
        length: u64,
        /// Digests in lower hex, by algorithm (`sha256`).
        hashes: BTreeMap<String, String>,
        /// The target's `custom` object.
        #[serde(skip_serializing_if = "Option::is_none")]
        custom: Option<serde_json::Value>,
    },
    /// Removes the target.
    Remove {
        /// The target's path.
        path: String,
    },
}

impl Item {
    /// The path of the target that this changes.
    pub fn path(&self) -> &str {
        match self {
            Item::Add { path, .. } | Item::Remove { path } => path,
        }
    }

    /// An addition with one hash, after checking the form of its parts; the error says which part and why.
    fn add(path: &str, length: &str, algorithm: &str, hash: &str) -> std::result::Result<Item, String> {
        if path.is_empty() {
            return Err("the path is empty".into());
        }
        if length.is_empty() || !length.bytes().all(|c| c.is_ascii_digit()) {
            return Err(format!("the length {length:?} of {path} is not a number of bytes"));
        }
        let length = length.parse().map_err(|_| format!("the length {length} of {path} is too large"))?;
        if algorithm.is_empty() {
            return Err(format!("the hash of {path} has no name"));
        }
        let hex = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
        if !hash.bytes().all(hex) || hash.is_empty() || !hash.len().is_multiple_of(2) {
            return Err(format!("the {algorithm} {hash:?} of {path} is not a digest in lower hex"));
        }
        if algorithm == "sha256" && hash.len() != 64 {
            return Err(format!("the sha256 of {path} has {} digits instead of 64", hash.len()));
        }
        let hashes = BTreeMap::from([(algorithm.to_owned(), hash.to_owned())]);
        Ok(Item::Add { path: path.to_owned(), length, hashes, custom: None })
    }
}

/// What the inputs hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Debian `Packages` indexes: Filename, Size and SHA256 of every stanza
    Debian,
    /// JSON Lines: one change a line, as in the API's "changes"
    Jsonl,
    /// Lines of path;length;hash-name;hash, the header line is optional
    Csv,
    /// Directories: every file in them, hashed here; paths are relative to the directory
    Dir,
}

/// How far reading has come; shared with whoever draws the progress bar.
#[derive(Debug, Default)]
pub struct Progress {
    read: AtomicU64,
    skipped: AtomicU64,
    total: Option<u64>,
}

impl Progress {
    /// Bytes read so far, as they lie on the disk (compressed, where they are).
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes of all inputs; unknown for stdin and for directories.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// Symbolic links and special files that [`Format::Dir`] left out.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }
}

/// The changes of all inputs, in order. After an error it ends.
pub struct Source {
    format: Format,
    inputs: VecDeque<Input>,
    current: Option<Reader>,
    debian: debian::Seen,
    progress: Arc<Progress>,
}

/// One input being read.
enum Reader {
    Text(Lines),
    Dir(dir::Walk),
}

/// Opens the inputs: files, directories (with [`Format::Dir`]), glob patterns, or `-` for stdin.
///
/// A name that exists is itself, even if it looks like a pattern. Text may be gzip, xz or lz4 (frame
/// format), recognised by its first bytes. Fails as `Invalid` on an input that does not exist and on a
/// pattern that matches nothing, before anything is read.
pub fn open(format: Format, inputs: &[String]) -> Result<Source> {
    let inputs = input::expand(format, inputs)?;
    let total = inputs.iter().map(|i| i.len).try_fold(0u64, |sum, len| Some(sum.saturating_add(len?)));
    let progress = Arc::new(Progress { total, ..Progress::default() });
    Ok(Source { format, inputs: inputs.into(), current: None, debian: debian::Seen::default(), progress })
}

impl Source {
    /// How far reading has come.
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Where the last change stands, as `file:line` or as the file itself; empty before the first.
    pub fn place(&self) -> String {
        match &self.current {
            Some(Reader::Text(lines)) => lines.place(),
            Some(Reader::Dir(walk)) => walk.place(),
            None => String::new(),
        }
    }

    fn read(&mut self) -> Result<Option<Item>> {
        loop {
            if self.current.is_none() {
                let Some(input) = self.inputs.pop_front() else { return Ok(None) };
                self.current = Some(match self.format {
                    Format::Dir => Reader::Dir(dir::Walk::open(&input.name, self.progress.clone())?),
                    _ => Reader::Text(input.lines(self.progress.clone())?),
                });
            }
            let item = match self.current.as_mut() {
                Some(Reader::Dir(walk)) => walk.next()?,
                Some(Reader::Text(lines)) => match self.format {
                    Format::Jsonl => jsonl::next(lines)?,
                    Format::Csv => csv::next(lines)?,
                    Format::Debian | Format::Dir => self.debian.next(lines)?,
                },
                None => None,
            };
            if item.is_some() {
                return Ok(item);
            }
            self.current = None;
        }
    }
}

impl Iterator for Source {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Result<Item>> {
        let next = self.read().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.inputs.clear();
            self.current = None;
        }
        next
    }
}

/// A failure at a place in an input.
fn error_at(place: impl Into<String>, message: impl Into<String>) -> Error {
    Error::invalid(place, message)
}
