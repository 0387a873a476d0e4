//! The data directory: where its parts lie, and the lock that one process at a time holds on it.
//!
//! Owns the rule that nobody reads or writes a data directory without its lock, shared with nobody: `serve`, `init`
//! and every command with `--data` open it through [`DataDir`]. The lock is `flock` on DIR/lock, so it ends with the
//! process, however that ends. What is left in `http.addr` by a process that was killed is removed by the next one
//! that takes the lock, so the address that stands there is that of the node that holds it.
//!
//! Where the log is on Kafka and several processes share a repository, each has a directory of its own: without `log`,
//! and perhaps without `keys` and `store`.
//!
//! ```text
//!   DIR/tuflog.toml   settings of serve           DIR/lock        held while a process uses the directory
//!   DIR/root.json     the first root, to ship     DIR/http.addr   HOST:PORT of the node that runs
//!   DIR/keys/         root-1…, online (0700)      DIR/log/        the truth
//!   DIR/store/        what is published           DIR/state/      bin state, can be rebuilt
//!   DIR/member        this process's name among others (on Kafka)
//!   DIR/init          only while init has not finished: what it was told
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// A data directory, locked for this process until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Locks the directory of a repository that `tuflog init` has made.
    ///
    /// # Errors
    /// `Invalid` if there is no repository or its init did not finish, `Unavailable` if another process uses it
    /// (named by its address, if it is a node), `Corrupt` if the log is gone and other parts are there.
    pub fn open(path: &Path) -> Result<DataDir> {
        let shown = path.display();
        if !path.join("log").is_dir() && !path.join("init").exists() {
            if ["keys", "store", "root.json"].iter().any(|part| path.join(part).exists()) {
                let what = format!("{} is missing: put it back from a backup", path.join("log").display());
                return Err(Error { field: Some("--data".into()), ..Error::corrupt(what) });
            }
            let why = format!("{shown} holds no repository; make one: tuflog init --data {shown}");
            return Err(Error::invalid("--data", why));
        }
        DataDir::lock(path)?.finished()
    }

    /// The same for a process whose log is on Kafka: the directory is made if need be.
    pub fn open_worker(path: &Path) -> Result<DataDir> {
        DataDir::create(path)?.finished()
    }

    fn finished(self) -> Result<DataDir> {
        if self.init_marker().exists() {
            let shown = self.path.display();
            let why = format!(
                "the init of {shown} did not finish; run it again: tuflog init --data {shown}, with the options it had"
            );
            return Err(Error::invalid("--data", why));
        }
        Ok(self)
    }

    /// Makes the directory unless it is there, and locks it, whatever is in it: for `tuflog init` alone.
    pub fn create(path: &Path) -> Result<DataDir> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o755).create(path).map_err(|e| failed(path, &e))?;
        DataDir::lock(path)
    }

    fn lock(path: &Path) -> Result<DataDir> {
        let name = path.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o644);
        let (lock, writable) = match options.open(&name) {
            Ok(lock) => (lock, true),
            // A backup mounted read-only, or another's repository, can be read: its lock is there.
            Err(e) if cannot_write(&e) => (File::open(&name).map_err(|_| failed(&name, &e))?, false),
            Err(e) => return Err(failed(&name, &e)),
        };
        let dir = DataDir { path: path.to_owned(), _lock: lock };
        match flock(&dir._lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if writable => dir.withdraw_addr()?, // its node was killed
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(in_use(path)),
            Err(e) => return Err(failed(&name, &e.into())),
        }
        Ok(dir)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The embedded log.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The folds' working state.
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// The local store; what clients fetch is in its `metadata/`.
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// The private keys.
    pub fn keys(&self) -> PathBuf {
        self.path.join("keys")
    }

    /// The settings of `serve`, if the file is there.
    pub fn config(&self) -> PathBuf {
        self.path.join("tuflog.toml")
    }

    /// This process's name among those that share a repository: what DIR/member holds, made at the first call.
    pub fn member(&self) -> Result<String> {
        let place = self.path.join("member");
        match fs::read_to_string(&place) {
            Ok(name) if !name.trim().is_empty() => return Ok(name.trim().to_owned()),
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(&place, &e)),
            _ => {}
        }
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|e| Error::unavailable(format!("no randomness: {e}")))?;
        let name = format!("tuflog-{}", hex::encode(bytes));
        self.write("member", format!("{name}\n").as_bytes())?;
        Ok(name)
    }

    /// A copy of the first root, for clients to start from.
    pub fn root(&self) -> PathBuf {
        self.path.join("root.json")
    }

    /// `HOST:PORT` of the node that runs; absent while none does.
    pub fn http_addr(&self) -> PathBuf {
        http_addr(&self.path)
    }

    /// There from the first step of `init` to its last; holds what it was told.
    pub fn init_marker(&self) -> PathBuf {
        self.path.join("init")
    }

    /// Writes `http.addr`: the whole of it, or nothing. Call it when the address answers.
    pub fn publish_addr(&self, addr: SocketAddr) -> Result<()> {
        self.write("http.addr", format!("{addr}\n").as_bytes())
    }

    /// Removes `http.addr`: nobody answers there any more.
    pub fn withdraw_addr(&self) -> Result<()> {
        match fs::remove_file(self.http_addr()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(&self.http_addr(), &e)),
            _ => Ok(()),
        }
    }

    /// Replaces the file `name` of the directory, durably and at once: nobody ever sees a part of it.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (temporary, place) = (self.path.join(format!(".{name}.new")), self.path.join(name));
        let written = File::create(&temporary)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temporary, &place))
            .and_then(|()| sync_dir(&self.path));
        written.map_err(|e| failed(&place, &e))
    }
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn http_addr(path: &Path) -> PathBuf {
    path.join("http.addr")
}

/// The address that the node running on `path` has written, if one is.
pub fn running_addr(path: &Path) -> Option<String> {
    let text = fs::read_to_string(http_addr(path)).ok()?;
    Some(text.trim().to_owned()).filter(|addr| !addr.is_empty())
}

/// True while a process holds the directory. Takes nothing from it.
pub fn is_in_use(path: &Path) -> bool {
    let Ok(lock) = File::open(path.join("lock")) else { return false };
    matches!(flock(&lock, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK))
}

/// This process's name among others, if it has one yet.
pub fn member(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path.join("member")).ok()?;
    Some(text.trim().to_owned()).filter(|name| !name.is_empty())
}

fn in_use(path: &Path) -> Error {
    let shown = path.display();
    Error::unavailable(match running_addr(path) {
        Some(addr) => {
            format!(
                "{shown} is in use by a tuflog serving at http://{addr}: ask that (--server http://{addr}), or stop it first"
            )
        }
        None => format!("{shown} is in use by another tuflog process; try again when it has ended"),
    })
}

fn cannot_write(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn failed(path: &Path, e: &io::Error) -> Error {
    let place = path.display().to_string();
    match cannot_write(e) || e.kind() == io::ErrorKind::NotADirectory {
        true => Error::invalid(place, e.to_string()),
        false => Error::unavailable(format!("{place}: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn made() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("log")).unwrap();
        dir
    }

    #[test]
    fn the_second_to_come_is_refused_with_the_address_of_the_first() {
        let dir = made();
        let first = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(error.kind == Kind::Unavailable && error.message.contains("another tuflog process"), "{error}");

        first.publish_addr("127.0.0.1:4711".parse().unwrap()).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(is_in_use(dir.path()));
        assert_eq!(
            error.message,
            format!(
                "{} is in use by a tuflog serving at http://127.0.0.1:4711: ask that (--server http://127.0.0.1:4711), or stop it first",
                dir.path().display()
            )
        );
        drop(first);
        assert!(!is_in_use(dir.path()) && !is_in_use(&dir.path().join("absent")));
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn the_address_of_a_killed_node_does_not_outlive_it() {
        let dir = made();
        fs::write(dir.path().join("http.addr"), "127.0.0.1:1\n").unwrap();
        let opened = DataDir::open(dir.path()).unwrap();
        assert!(!opened.http_addr().exists());
        assert_eq!(running_addr(dir.path()), None);
    }

    #[test]
    fn what_is_no_repository_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_owned(), dir.path().join("absent")] {
            let error = DataDir::open(&path).unwrap_err();
            assert!(error.kind == Kind::Invalid && error.message.contains("tuflog init --data"), "{error}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(dir.path().join("root.json"), "").unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(error.kind == Kind::Corrupt && error.message.contains("log is missing"), "{error}");
        fs::write(dir.path().join("init"), "").unwrap();
        assert!(DataDir::open(dir.path()).unwrap_err().message.contains("did not finish"));
    }
}
