//! The progress file of an audit that may be cut off: the last checkpoint that was verified, and all that was counted
//! and found until its Cut.
//!
//! Owns the rule that going on finds what an audit in one go finds: a point is kept only where everything that the next
//! run loads was found right, namely the checkpoint's snapshot, its bins and the stored ledger states; and only for the
//! very log it was made of and a store that lists the same objects. What was verified before the point is not looked at
//! again, which the report says.
//!
//! The file is a line of JSON and a line with its SHA-256. It is replaced at once and durably, at most every few seconds and when the audit ends early. It is removed
//! when the audit has come to its end, whatever it found.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::Range;
use super::folds::FoldsPoint;
use super::history::History;
use super::report::Report;
use crate::bins::{Sha256Digest, sha256};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::log::Offset;

/// The version of the file.
const VERSION: u32 = 2;
/// The option of the command line that names the file.
const OPTION: &str = "--resume";

/// Where an audit can go on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Point {
    v: u32,
    /// The digest of the record that brings the first root: it tells one repository from another.
    #[serde(with = "hex::serde")]
    root: Sha256Digest,
    /// What was asked for.
    range: Range,
    /// The last checkpoint that was verified.
    pub checkpoint: u64,
    /// The seq of its record.
    seq: Offset,
    /// The digest of its record.
    #[serde(with = "hex::serde")]
    digest: Sha256Digest,
    /// How far topic `folds` was read.
    pub folds: FoldsPoint,
    /// The version of the timestamp of the checkpoint before it.
    pub checkpoint_version: u64,
    /// Which objects of the cuts up to it the store listed.
    #[serde(with = "hex::serde")]
    pub listed: Sha256Digest,
    /// What was counted and found up to its Cut.
    pub report: Report,
}

/// The file of an audit under way.
pub(super) struct Resume {
    path: PathBuf,
    root: Sha256Digest,
    range: Range,
    every_ms: u64,
    saved_at: Option<u64>,
}

/// What is known at a Checkpoint that all that was verified up to it is right.
pub(super) struct Verified {
    pub checkpoint: u64,
    pub seq: Offset,
    pub digest: Sha256Digest,
    pub folds: FoldsPoint,
    pub checkpoint_version: u64,
    pub listed: Sha256Digest,
    pub report: Report,
}

impl Resume {
    /// Reads the file, if there is one, and makes sure that it is of this log.
    ///
    /// # Errors
    /// `Invalid` if it is no such file, or of another repository or range, or its folder is not there; `Corrupt` if
    /// the log does not hold any more what was verified.
    pub fn open(path: &Path, range: Range, history: &History, every_ms: u64) -> Result<(Resume, Option<Point>)> {
        let root = history.root.unwrap_or_default();
        let resume = Resume { path: path.to_owned(), root, range, every_ms, saved_at: None };
        if !folder(path).is_dir() {
            return Err(Error::invalid(OPTION, format!("{} is no folder: make it first", folder(path).display())));
        }
        let shown = path.display();
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((resume, None)),
            Err(e) => return Err(Error::invalid(OPTION, format!("{shown}: {e}"))),
        };
        let (json, sum) = bytes.split_at(bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len()));
        let point: Point = serde_json::from_slice(json).map_err(|e| {
            let what = format!("{shown} is no progress file of this tuflog's audit ({e}): name another, or remove it");
            Error::invalid(OPTION, what)
        })?;
        if point.v != VERSION {
            let what = format!("{shown} is of version {}, this program's of {VERSION}: remove it", point.v);
            return Err(Error::invalid(OPTION, what));
        }
        if point.root != root {
            let what = format!("{shown} is of the audit of another repository: name another file");
            return Err(Error::invalid(OPTION, what));
        }
        if point.range != range {
            let what = format!("{shown} is of an audit {}: say the same, or name another file", point.range);
            return Err(Error::invalid(OPTION, what));
        }
        if sum.trim_ascii() != hex::encode(sha256(json)).as_bytes() {
            return Err(Error::invalid(
                OPTION,
                format!("{shown} was damaged: remove it, and audit from the beginning"),
            ));
        }
        let (n, seq) = (point.checkpoint, point.seq);
        if history.checkpoints.get(&n) != Some(&(seq, point.digest)) {
            return Err(Error::corrupt(format!(
                "the ledger does not hold Checkpoint {n} any more as it stood at seq {seq} when {shown} was written: \
                 it was altered or has lost records since; audit without {OPTION}"
            )));
        }
        Ok((resume, Some(point)))
    }

    /// A point of this audit.
    pub fn point(&self, verified: Verified) -> Point {
        let Verified { checkpoint, seq, digest, folds, checkpoint_version, listed, report } = verified;
        let (root, range) = (self.root, self.range);
        Point { v: VERSION, root, range, checkpoint, seq, digest, folds, checkpoint_version, listed, report }
    }

    /// True if it is time to save.
    pub fn is_due(&self) -> bool {
        self.saved_at.is_none_or(|at| SystemClock.ticks_ms().saturating_sub(at) >= self.every_ms)
    }

    /// Replaces the file.
    pub fn save(&mut self, point: &Point) -> Result<()> {
        let failed = |e: io::Error| Error::unavailable(format!("{}: {e}", self.path.display()));
        let json = serde_json::to_vec(point).map_err(|e| failed(e.into()))?;
        let bytes = [&json[..], b"\n", hex::encode(sha256(&json)).as_bytes(), b"\n"].concat();
        let folder = folder(&self.path);
        let mut file = NamedTempFile::new_in(folder).map_err(failed)?;
        file.write_all(&bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist(&self.path).map_err(|e| failed(e.error))?;
        File::open(folder).and_then(|dir| dir.sync_all()).map_err(failed)?;
        self.saved_at = Some(SystemClock.ticks_ms());
        Ok(())
    }

    /// The audit has come to its end, or to where it stops, with a point that is not saved yet.
    pub fn end(&mut self, complete: bool, unsaved: Option<Point>) -> Result<()> {
        match (complete, unsaved) {
            (false, Some(point)) => self.save(&point),
            (false, None) => Ok(()),
            (true, _) => match fs::remove_file(&self.path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    Err(Error::unavailable(format!("{}: {e}", self.path.display())))
                }
                _ => Ok(()),
            },
        }
    }
}

/// The folder that a file is in.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
