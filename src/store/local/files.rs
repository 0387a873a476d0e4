//! Single steps on files and directories, with the errors of the file system.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::store::is_part;

/// Moves a file to a name that is free, or answers `AlreadyExists`. By a link where the file system does not know that
/// kind of rename, such as NFS.
pub fn move_to_free(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        moved => Ok(moved?),
    }
}

pub fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

pub fn read(path: &Path) -> io::Result<Option<Bytes>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes.into())),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e),
    }
}

pub fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

pub fn make_parents(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Removes all that is in `dir`.
pub fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

/// Adds the names of the objects below `base`/`folder` that begin with `prefix`.
pub fn walk(base: &Path, folder: &str, prefix: &str, names: &mut BTreeSet<String>) -> io::Result<()> {
    let entries = match fs::read_dir(base.join(folder)) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Some(part) = entry.file_name().to_str().filter(|part| is_part(part)).map(str::to_owned) else { continue };
        let name = format!("{folder}{part}");
        if entry.file_type()?.is_dir() {
            let folder = format!("{name}/");
            if folder.starts_with(prefix) || prefix.starts_with(&folder) {
                walk(base, &folder, prefix, names)?;
            }
        } else if name.starts_with(prefix) {
            names.insert(name);
        }
    }
    Ok(())
}
