//! The blocking half of the local store: its directories, and the order of the system calls.
//!
//! Between processes, three things are settled by the file system: who creates an object (the rename fails if the name
//! is there), who moves the pointer (`flock` on `.lock`), and who may forget what a crash left (`flock` on `.open`,
//! held shared by everybody who has the store open).

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock, statvfs, syncfs};
use rustix::io::{Errno, retry_on_intr};

use super::files::{empty, lock_file, make_parents, move_to_free, open, read, walk};
use crate::error::{Error, Result};
use crate::store::{Created, POINTER, check_creatable, check_name};

/// From so many objects on, the file system is synced once instead of each file. On a quiet disk that is cheaper from
/// two files on; but it also writes what others left dirty, and beside 16 MB of that it is cheaper from 50 files on.
const SYNCFS_FROM: usize = 16;
/// How often an operation starts again because another process moved the same name meanwhile.
const RETRIES: usize = 100;
const TEMPORARY: &str = ".tmp";
const UNSYNCED: &str = ".new";
const POINTER_LOCK: &str = ".lock";
const OPEN_LOCK: &str = ".open";

pub(super) struct Disk {
    root: PathBuf,
    temporaries: AtomicU64,
    /// Set by the first sync that failed.
    failed: OnceLock<Error>,
    /// The folders that are known to be durable themselves: what their parents say of them has been synced.
    settled: Mutex<BTreeSet<PathBuf>>,
    /// Shared lock: nobody may clean up. `None` in a store that was opened to read: that has only what is in place.
    open: Option<File>,
}

impl Disk {
    pub fn open(root: &Path) -> Result<Disk> {
        let usable = |e: io::Error| Error::invalid("data", format!("cannot open the store in {}: {e}", root.display()));
        for dir in [root.to_owned(), root.join(TEMPORARY), root.join(UNSYNCED)] {
            fs::create_dir_all(dir).map_err(usable)?;
        }
        let open = lock_file(&root.join(OPEN_LOCK)).map_err(usable)?;
        if flock(&open, FlockOperation::NonBlockingLockExclusive).is_ok() {
            for dir in [TEMPORARY, UNSYNCED] {
                empty(&root.join(dir)).map_err(usable)?;
            }
        }
        retry_on_intr(|| flock(&open, FlockOperation::LockShared)).map_err(|e| usable(e.into()))?;
        let disk = Disk::at(root, Some(open));
        // The folder itself; and a pointer that a killed process had moved but not synced.
        let mut dirs: Vec<&Path> = vec![root];
        dirs.extend(root.parent().filter(|parent| !parent.as_os_str().is_empty()));
        let place = disk.place(POINTER);
        dirs.extend(place.parent().filter(|dir| dir.exists()));
        dirs.into_iter().try_for_each(|dir| disk.sync_dir(&disk.open_dir(dir)?))?;
        Ok(disk)
    }

    pub fn open_read_only(root: &Path) -> Result<Disk> {
        if !root.is_dir() {
            return Err(Error::invalid("data", format!("cannot read the store in {}: there is none", root.display())));
        }
        Ok(Disk::at(root, None))
    }

    fn at(root: &Path, open: Option<File>) -> Disk {
        let (temporaries, failed, settled) = (AtomicU64::new(0), OnceLock::new(), Mutex::default());
        Disk { root: root.to_owned(), temporaries, failed, settled, open }
    }

    fn check_writable(&self) -> Result<()> {
        match self.open {
            Some(_) => Ok(()),
            None => Err(Error::invalid("store", "was opened to read only")),
        }
    }

    pub fn create(&self, name: &str, bytes: Bytes) -> Result<Created> {
        self.check_writable()?;
        self.check(name)?;
        check_creatable(name)?;
        let (place, new) = (self.place(name), self.unsynced(name));
        let same = |there: Bytes| if there == bytes { Created::Same } else { Created::Other(there) };
        let failed = |e: io::Error| problem(&e, &format!("cannot create object {name}"));
        if let Some(there) = read(&place).map_err(failed)? {
            return Ok(same(there));
        }
        let (mut file, temporary) = self.temporary().map_err(failed)?;
        file.write_all(&bytes).map_err(failed)?;
        drop(file);
        for _ in 0..RETRIES {
            match move_to_free(&temporary.0, &new) {
                Ok(()) => {
                    temporary.moved();
                    // Unless somebody created it and synced it just before: then that one is in place, and counts.
                    let Some(there) = read(&place).map_err(failed)? else { return Ok(Created::New) };
                    let _ = fs::remove_file(&new); // it only takes room
                    return Ok(same(there));
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                    if let Some(there) = self.get(name)? {
                        return Ok(same(there));
                    }
                }
                Err(e) if e.kind() == ErrorKind::NotFound => make_parents(&new).map_err(failed)?,
                Err(e) => return Err(failed(e)),
            }
        }
        Err(Error::unavailable(format!("object {name} is not at rest")))
    }

    pub fn sync(&self, names: &[String]) -> Result<()> {
        self.check_writable()?;
        names.iter().try_for_each(|name| self.check(name))?;
        self.sync_bytes(names)?;
        for name in names {
            self.put_in_place(name, &self.place(name))?;
        }
        let folders = self.folders(names.iter().map(String::as_str))?;
        self.sync_folders(&folders)
    }

    /// Makes the bytes of all the objects durable, wherever they are.
    fn sync_bytes(&self, names: &[String]) -> Result<()> {
        let mut files = Vec::new();
        for name in names {
            let file = self.find(name)?.ok_or_else(|| missing(name))?.file;
            if names.len() < SYNCFS_FROM {
                files.push((name, file));
            }
        }
        if names.len() >= SYNCFS_FROM {
            let root = File::open(&self.root).map_err(|e| problem(&e, "cannot open the store's folder"))?;
            return syncfs(root).map_err(|e| self.fail(&e.into(), "cannot sync the store's file system"));
        }
        files.iter().try_for_each(|(name, file)| {
            file.sync_all().map_err(|e| self.fail(&e, &format!("cannot sync object {name}")))
        })
    }

    /// Moves an object whose bytes are durable to its place, if it is not there yet.
    fn put_in_place(&self, name: &str, place: &Path) -> Result<()> {
        let failed = |e: io::Error| problem(&e, &format!("cannot put object {name} in place"));
        let new = self.unsynced(name);
        for _ in 0..RETRIES {
            match move_to_free(&new, place) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                    let _ = fs::remove_file(&new); // or it is forgotten at the next open
                    return Ok(());
                }
                Err(_) if place.exists() => return Ok(()), // the usual case of an object that was synced before
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    if !new.exists() && !place.exists() {
                        return Err(missing(name));
                    }
                    make_parents(place).map_err(failed)?;
                    continue;
                }
                Err(e) => return Err(failed(e)),
            }
        }
        Err(Error::unavailable(format!("object {name} is not at rest")))
    }

    pub fn get(&self, name: &str) -> Result<Option<Bytes>> {
        self.find(name)?.map(Object::read).transpose()
    }

    /// An object, or the pointer, as it is now.
    pub fn find(&self, name: &str) -> Result<Option<Object>> {
        self.check(name)?;
        let find = || -> io::Result<Option<Object>> {
            let Some(file) = self.open_object(name)? else { return Ok(None) };
            let found = file.metadata()?;
            Ok(found.is_file().then(|| Object { name: name.to_owned(), bytes: found.len(), file }))
        };
        find().map_err(|e| problem(&e, &format!("cannot open object {name}")))
    }

    /// In place first; there once more, since it may move while it is looked for.
    fn open_object(&self, name: &str) -> io::Result<Option<File>> {
        let places = [self.place(name), self.unsynced(name), self.place(name)];
        for path in places.into_iter().take(if self.open.is_some() { 3 } else { 1 }) {
            if let Some(file) = open(&path)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    pub fn swap_pointer(&self, old: Option<&Bytes>, new: &Bytes) -> Result<bool> {
        self.check_writable()?;
        if let Some(e) = self.failed.get() {
            return Err(e.clone());
        }
        let failed = |e: io::Error| problem(&e, "cannot move the pointer");
        let lock = lock_file(&self.root.join(POINTER_LOCK)).map_err(failed)?;
        retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive)).map_err(|e| failed(e.into()))?; // until it is dropped
        let place = self.place(POINTER);
        if read(&place).map_err(failed)?.as_ref() != old {
            return Ok(false);
        }
        let (mut file, temporary) = self.temporary().map_err(failed)?;
        file.write_all(new).map_err(failed)?;
        file.sync_all().map_err(|e| self.fail(&e, "cannot sync the pointer"))?;
        make_parents(&place).map_err(failed)?;
        let folders = self.folders([POINTER])?; // before the rename: behind it, nothing may fail but the sync
        fs::rename(&temporary.0, &place).map_err(failed)?;
        temporary.moved();
        self.sync_folders(&folders)?;
        Ok(true)
    }

    pub fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let mut names = BTreeSet::new();
        let bases = [self.root.join(UNSYNCED), self.root.clone()]; // objects move from the first to the second
        for base in bases.into_iter().skip(if self.open.is_some() { 0 } else { 1 }) {
            walk(&base, "", prefix, &mut names).map_err(|e| problem(&e, "cannot list the store"))?;
        }
        names.remove(POINTER);
        Ok(names.into_iter().collect())
    }

    fn place(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn unsynced(&self, name: &str) -> PathBuf {
        self.root.join(UNSYNCED).join(name)
    }

    fn check(&self, name: &str) -> Result<()> {
        if let Some(e) = self.failed.get() {
            return Err(e.clone());
        }
        check_name(name)
    }

    fn temporary(&self) -> io::Result<(File, Temporary)> {
        loop {
            let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
            let path = self.root.join(TEMPORARY).join(format!("{}-{number}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((file, Temporary(path))),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {} // the same process id in another container
                Err(e) => return Err(e),
            }
        }
    }

    /// What makes the places of objects durable: their folders, and every folder on the way to them that may not be
    /// itself (another process may have made one and not synced it).
    fn folders<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<(PathBuf, File)>> {
        let settled = lock(&self.settled);
        let mut folders = BTreeSet::new();
        for name in names {
            let place = self.place(name);
            let mut child = place.as_path();
            while let Some(folder) =
                child.parent().filter(|dir| dir.starts_with(&self.root) && !settled.contains(child))
            {
                folders.insert(folder.to_owned());
                child = folder;
            }
        }
        folders.into_iter().map(|dir| self.open_dir(&dir).map(|open| (dir, open))).collect()
    }

    /// Syncs folders; of those that another of them holds it need not be asked again.
    fn sync_folders(&self, folders: &[(PathBuf, File)]) -> Result<()> {
        folders.iter().try_for_each(|(_, folder)| self.sync_dir(folder))?;
        let all: BTreeSet<&Path> = folders.iter().map(|(path, _)| path.as_path()).collect();
        let held = all.iter().filter(|path| path.parent().is_some_and(|parent| all.contains(parent)));
        lock(&self.settled).extend(held.map(|path| path.to_path_buf()));
        Ok(())
    }

    fn open_dir(&self, dir: &Path) -> Result<File> {
        File::open(dir).map_err(|e| problem(&e, &format!("cannot open the folder {}", dir.display())))
    }

    fn sync_dir(&self, dir: &File) -> Result<()> {
        dir.sync_all().map_err(|e| self.fail(&e, "cannot sync a folder of the store"))
    }

    /// A sync failed: whatever a later one says cannot be believed.
    fn fail(&self, e: &io::Error, doing: &str) -> Error {
        let error = Error::corrupt(format!("{doing}: {e}"));
        self.failed.get_or_init(|| error).clone()
    }
}

/// An object that was found.
pub(super) struct Object {
    name: String,
    pub bytes: u64,
    file: File,
}

impl Object {
    pub fn read(mut self) -> Result<Bytes> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.bytes).unwrap_or_default());
        match self.file.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes.into()),
            Err(e) => Err(problem(&e, &format!("cannot read object {}", self.name))),
        }
    }
}

/// Removes the file when it is done with, unless it was moved.
struct Temporary(PathBuf);

impl Temporary {
    fn moved(mut self) {
        self.0.clear();
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.0); // or it is removed at the next open
        }
    }
}

/// The bytes free to this user on the file system of `dir`.
pub fn free_bytes(dir: &Path) -> Result<u64> {
    let disk =
        statvfs(dir).map_err(|e| problem(&e.into(), &format!("cannot look at the disk of {}", dir.display())))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn missing(name: &str) -> Error {
    Error::corrupt(format!("object {name} was to be made durable but is not there"))
}

/// What an error of the file system means. A sync that failed is not told apart here: see [`Disk::fail`].
fn problem(e: &io::Error, doing: &str) -> Error {
    match Errno::from_io_error(e) {
        Some(Errno::IO | Errno::ROFS | Errno::UCLEAN) => Error::corrupt(format!("{doing}: {e}")),
        Some(Errno::NOSPC | Errno::DQUOT) => Error::unavailable(format!("{doing}: the disk is full ({e})")),
        _ => Error::unavailable(format!("{doing}: {e}")),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
