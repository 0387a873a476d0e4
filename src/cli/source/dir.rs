//! Directories: every regular file in them, with the length and SHA-256 of the bytes read here.
//!
//! The path is the file's place relative to the directory, with `/`. Entries come sorted by name, a
//! directory's content at its place. The directory named may itself be a link; **links and special files
//! inside are not followed and not published: each is warned about and counted** in `Progress::skipped`,
//! since following one could publish what lies outside. A name that is not UTF-8 is an error.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sha2::{Digest, Sha256};

use super::{Item, Progress, error_at};
use crate::error::{Error, Result};

/// A walk in progress.
pub(super) struct Walk {
    root: PathBuf,
    /// The directories from the root to where we are: each with its path relative to the root (empty or
    /// ending in `/`) and the names in it that are still to come, last first.
    open: Vec<(String, Vec<OsString>)>,
    progress: Arc<Progress>,
    buffer: Vec<u8>,
    /// The file that came last.
    last: PathBuf,
}

impl Walk {
    /// A walk through the directory `root`.
    pub fn open(root: &str, progress: Arc<Progress>) -> Result<Walk> {
        let root = PathBuf::from(root);
        let names = names(&root)?;
        Ok(Walk { root, open: vec![(String::new(), names)], progress, buffer: vec![0; 64 << 10], last: PathBuf::new() })
    }

    /// Where the last change stands: its file, with the directory.
    pub fn place(&self) -> String {
        self.last.display().to_string()
    }

    /// The next file.
    pub fn next(&mut self) -> Result<Option<Item>> {
        while let Some((prefix, names)) = self.open.last_mut() {
            let Some(name) = names.pop() else {
                self.open.pop();
                continue;
            };
            let file = self.root.join(&*prefix).join(&name);
            let Some(name) = name.to_str() else {
                return Err(error_at(file.display().to_string(), "the name is not UTF-8"));
            };
            let path = format!("{prefix}{name}");
            let kind = fs::symlink_metadata(&file).map_err(|e| at(&file, e))?.file_type();
            if kind.is_dir() {
                let names = self::names(&file)?;
                self.open.push((format!("{path}/"), names));
            } else if kind.is_file() {
                self.last.clone_from(&file);
                return self.hash(&file, path).map(Some);
            } else {
                let what = if kind.is_symlink() { "a symbolic link" } else { "not a regular file" };
                tracing::warn!(file = %file.display(), "left out: {what}");
                self.progress.skipped.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(None)
    }

    fn hash(&mut self, file: &Path, path: String) -> Result<Item> {
        let mut reader = File::open(file).map_err(|e| at(file, e))?;
        let (mut digest, mut length) = (Sha256::new(), 0u64);
        loop {
            let n = match reader.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(at(file, e)),
            };
            digest.update(&self.buffer[..n]);
            length += n as u64;
            self.progress.read.fetch_add(n as u64, Ordering::Relaxed);
        }
        let hashes = [("sha256".to_owned(), hex::encode(digest.finalize()))].into();
        Ok(Item::Add { path, length, hashes, custom: None })
    }
}

/// The names in a directory, last first.
fn names(dir: &Path) -> Result<Vec<OsString>> {
    let entries = fs::read_dir(dir).map_err(|e| at(dir, e))?;
    let mut names =
        entries.map(|e| e.map(|e| e.file_name())).collect::<std::io::Result<Vec<_>>>().map_err(|e| at(dir, e))?;
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

fn at(file: &Path, e: std::io::Error) -> Error {
    error_at(file.display().to_string(), e.to_string())
}
