//! The store in a local directory.
//!
//! It owns the step from *created* to *durable*. An object is written to a temporary file, then renamed to its
//! name, which fails if the name is taken: so it is created once, and nobody ever sees a part of it. But it is
//! renamed to below `.new/` first, and enters its place only in [`Store::sync`], after its bytes are on the disk:
//!
//! ```text
//!   .tmp/17-3 ──rename──► .new/metadata/7.bins-0a.json ──fsync, rename, fsync──► metadata/7.bins-0a.json
//!   being written         created: readable                                     durable
//! ```
//!
//! For a name can reach the disk before the bytes do: on ext4 or XFS, an object put straight into its place
//! could be there after a power loss, empty, under a name that must never change its content. This way everything
//! in place is whole, and what is below `.new/` when nobody has the store open is forgotten, as the contract allows.
//!
//! # What is assumed of the medium
//!
//! A POSIX file system with hard links (or Linux' `RENAME_NOREPLACE`) and `flock`; what was synced stays. When a sync
//! fails nobody knows what is on the disk: the store is failed from then on, answers `Corrupt`, and the process is meant to end. A full disk
//! is found when a file is written, and answers `Unavailable`. Several processes may have one store open.
//!
//! File operations block. Under tokio they run on its blocking threads, which costs some 80 µs each, except the read
//! of a small object, which takes 12 µs where it is polled (measured; from the page cache). Without a runtime
//! (commands, the simulator) all of them run where they are polled.

mod disk;
mod files;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use self::disk::Disk;
pub use self::disk::free_bytes;
use super::{Created, Store};
use crate::error::{Error, Result};

/// Objects up to this size are read where the future is polled.
const READ_INLINE_BYTES: u64 = 256 << 10;

/// A store in a directory.
pub struct LocalStore {
    disk: Arc<Disk>,
}

impl LocalStore {
    /// Opens or creates the store in `dir`.
    pub fn open(dir: &Path) -> Result<LocalStore> {
        Ok(LocalStore { disk: Arc::new(Disk::open(dir)?) })
    }

    /// Opens the store of a stopped node to read what is durable in it. Nothing is changed, no lock is taken, and
    /// whatever would write answers `Invalid`.
    pub fn open_read_only(dir: &Path) -> Result<LocalStore> {
        Ok(LocalStore { disk: Arc::new(Disk::open_read_only(dir)?) })
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Disk) -> Result<T> + Send + 'static) -> Result<T> {
        let disk = self.disk.clone();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => match runtime.spawn_blocking(move || work(&disk)).await {
                Ok(answer) => answer,
                Err(e) => Err(Error::indeterminate(format!("a file operation was cut off: {e}"))),
            },
            Err(_) => work(&disk),
        }
    }
}

impl Store for LocalStore {
    fn create<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<Created>> {
        let name = name.to_owned();
        Box::pin(self.blocking(move |disk| disk.create(&name, bytes)))
    }

    fn sync<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<()>> {
        let names = names.to_vec();
        Box::pin(self.blocking(move |disk| disk.sync(&names)))
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        Box::pin(async move {
            match self.disk.find(name)? {
                None => Ok(None),
                Some(object) if object.bytes <= READ_INLINE_BYTES => object.read().map(Some),
                Some(object) => self.blocking(move |_| object.read().map(Some)).await,
            }
        })
    }

    fn length<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(async move { Ok(self.disk.find(name)?.map(|object| object.bytes)) })
    }

    fn swap_pointer<'a>(&'a self, old: Option<&'a Bytes>, new: Bytes) -> BoxFuture<'a, Result<bool>> {
        let old = old.cloned();
        Box::pin(self.blocking(move |disk| disk.swap_pointer(old.as_ref(), &new)))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        let prefix = prefix.to_owned();
        Box::pin(self.blocking(move |disk| disk.list(&prefix)))
    }
}
