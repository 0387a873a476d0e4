//! The store: immutable objects and one pointer, as clients fetch them.
//!
//! Invariant 3 rests here: an object is created once and never changes, and [`Store::sync`] makes a set of
//! objects durable together, so that nothing ever refers to an object that a power loss could take.
//!
//! # The contract
//!
//! 1. [`Store::create`] writes the whole object under a name that was free, or reports what is there. Nobody ever
//!    sees a part of an object, not even after a power loss. A created object may vanish in a crash of the process
//!    or of the machine until it was synced.
//! 2. [`Store::sync`] answers once every named object is durable, whoever wrote it. A named object that is not
//!    there is an error.
//! 3. The pointer (`metadata/timestamp.json`) moves by compare-and-swap on the bytes last read, durably: when
//!    [`Store::swap_pointer`] answers `true`, the new bytes survive a power loss; `false` means that somebody else
//!    was there first and nothing changed.
//! 4. What was created, whoever created it, is found by [`Store::get`] and [`Store::list`] at once. The pointer is
//!    no object: it is read by [`Store::get`], but neither created nor listed.
//! 5. `Unavailable` means nothing happened; `Indeterminate` that it may have.
//!
//! Which store a node has, its configuration says: a bucket if `store.url` names one, else the local directory.
//!
//! `tests/suite/store_contract.rs` runs the same suite against every driver.

pub mod local;
pub mod s3;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::bins::Sha256Digest;
use crate::config;
use crate::error::{Error, Result};
use crate::tuf::envelope::Envelope;

/// The name of the pointer.
pub const POINTER: &str = "metadata/timestamp.json";

/// What [`Store::create`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Created {
    /// The name was free; the object is there now.
    New,
    /// The same bytes were there already.
    Same,
    /// Other bytes were there already: these.
    Other(Bytes),
}

/// An object store. See the module for the contract.
///
/// Names are `/`-separated paths of `[A-Za-z0-9._-]` parts that do not begin with a dot, such as
/// `metadata/7.bins-0a.json`. Any other name is `Invalid`.
pub trait Store: Send + Sync {
    /// Creates an object if its name is free.
    fn create<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<Created>>;

    /// Makes all the named objects durable.
    fn sync<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<()>>;

    /// An object's bytes, or `None` when there is no such object. Also reads the pointer.
    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>>;

    /// The length of an object in bytes, or `None` when there is no such object.
    fn length<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(async move { Ok(self.get(name).await?.map(|bytes| bytes.len() as u64)) })
    }

    /// Replaces the pointer's bytes if they are still `old` (`None`: if there is no pointer yet).
    fn swap_pointer<'a>(&'a self, old: Option<&'a Bytes>, new: Bytes) -> BoxFuture<'a, Result<bool>>;

    /// The names of all objects whose name begins with `prefix`, sorted.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>>;
}

/// The directory that `settings` name by a file: URL, as processes of one machine may share.
pub fn directory(settings: &config::Store) -> Option<&Path> {
    settings.url.as_deref()?.strip_prefix("file://").map(Path::new)
}

/// Opens the store that `settings` name; without a URL that in `dir`.
pub async fn open(settings: &config::Store, dir: &Path) -> Result<Arc<dyn Store>> {
    if let Some(dir) = directory(settings) {
        return Ok(Arc::new(local::LocalStore::open(dir)?));
    }
    Ok(match s3::Settings::of(settings)? {
        Some(settings) => Arc::new(s3::S3Store::open(&settings).await?),
        None => Arc::new(local::LocalStore::open(dir)?),
    })
}

/// The same to read only: of a stopped node. Nothing is changed, and whatever would write answers `Invalid`.
pub async fn open_read_only(settings: &config::Store, dir: &Path) -> Result<Arc<dyn Store>> {
    if let Some(dir) = directory(settings) {
        return Ok(Arc::new(local::LocalStore::open_read_only(dir)?));
    }
    Ok(match s3::Settings::of(settings)? {
        Some(settings) => Arc::new(s3::S3Store::open_read_only(&settings).await?),
        None => Arc::new(local::LocalStore::open_read_only(dir)?),
    })
}

/// Whether this may be a part of a name.
fn is_part(part: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !part.is_empty() && !part.starts_with('.') && part.bytes().all(legal)
}

/// Refuses what is no name.
fn check_name(name: &str) -> Result<()> {
    if name.split('/').all(is_part) {
        return Ok(());
    }
    let rule = "must be `/`-separated parts of [A-Za-z0-9._-] that do not begin with a dot";
    Err(Error::invalid("name", format!("{name:?} {rule}")))
}

/// Refuses what cannot be created.
fn check_creatable(name: &str) -> Result<()> {
    check_name(name)?;
    if name == POINTER {
        return Err(Error::invalid("name", format!("{POINTER} is the pointer: it is swapped, not created")));
    }
    Ok(())
}

/// The name of a versioned metadata file, such as `metadata/7.bins-0a.json`.
pub fn metadata_name(version: u64, role: &str) -> String {
    format!("metadata/{version}.{role}.json")
}

/// The name of the ledger state written at cut `n`.
pub fn ledger_state_name(n: u64) -> String {
    format!("ledger/{n}.state.json")
}

/// The name of the batch ids that the ledger state of cut `n` adds to the one before.
pub fn ledger_ids_name(n: u64) -> String {
    format!("ledger/{n}.ids.jsonl")
}

/// What the names of the two objects of a Recovery begin with.
pub const RECOVERY_PREFIX: &str = "ledger/recovery-";

/// The name of the ledger state that a Recovery names, which is one of its content: no other object can have it.
pub fn recovery_state_name(sha256: &Sha256Digest) -> String {
    format!("{RECOVERY_PREFIX}{}.state.json", hex::encode(sha256))
}

/// The name of its batch ids, after that state.
pub fn recovery_ids_name(sha256: &Sha256Digest) -> String {
    format!("{RECOVERY_PREFIX}{}.ids.jsonl", hex::encode(sha256))
}

/// Creates an object that must be a function of its name: whatever is there already must be the same bytes.
pub async fn create_same(store: &dyn Store, name: &str, bytes: Bytes) -> Result<()> {
    match store.create(name, bytes).await? {
        Created::New | Created::Same => Ok(()),
        Created::Other(_) => Err(Error::corrupt(format!("object {name} is already stored with other content"))),
    }
}

/// Creates a signed object. The first one stored wins: one that is there with the same `signed` part (another
/// signature by a signer that is not deterministic) is adopted. Answers the bytes that are stored.
pub async fn create_signed(store: &dyn Store, name: &str, bytes: Bytes) -> Result<Bytes> {
    let Created::Other(there) = store.create(name, bytes.clone()).await? else { return Ok(bytes) };
    let same = match (Envelope::open(&there), Envelope::open(&bytes)) {
        (Ok(a), Ok(b)) => a.signed == b.signed,
        _ => false,
    };
    if same { Ok(there) } else { Err(Error::corrupt(format!("object {name} is already stored with other content"))) }
}
