//! A repository as it was published at a point in history, written as files that TUF clients accept for as long as they
//! are not expired.
//!
//! Everything but timestamp.json is still in the store. That one is a function of the ledger, and signed again: the same
//! key gives the same bytes as were published then.

use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Query;
use super::at::At;
use super::timeline::Placed;
use crate::bins::Bin;
use crate::error::{Error, Result};
use crate::ledger::Record;
use crate::ledger::ids::Only;
use crate::ledger::record::ObjectRef;
use crate::ledger::state::Stamp;
use crate::recover;
use crate::store;
use crate::tuf::envelope::Envelope;
use crate::tuf::key::KeyRing;
use crate::tuf::parse::{self, Timestamp};
use crate::tuf::role::{self, Meta};

/// How many bins are copied at a time.
const COPIED: usize = 8;

/// What was exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExportAnswer {
    /// The checkpoint.
    pub checkpoint: u64,
    /// The version of timestamp.json.
    pub timestamp: u64,
    /// When clients stop believing that, in Unix seconds.
    pub expires: u64,
    /// How many files were written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Query {
    /// Writes `DIR/root.json` (the first root, for clients to begin with) and `DIR/metadata/`. `dir` must be empty or not
    /// there.
    ///
    /// # Errors
    /// `Invalid` if there was no checkpoint then, if `dir` is not empty, or if `keys` lack the key that signed the
    /// timestamp; `Unavailable` if a file cannot be written.
    pub async fn export(&self, at: At, keys: &KeyRing, dir: &Path) -> Result<ExportAnswer> {
        let placed = self.checkpoint_at(at).await?;
        let n = placed.checkpoint.n;
        let Some(view) = self.view(Some(At::Checkpoint(n))).await? else {
            return Err(Error::invalid("at", "nothing is published yet"));
        };
        let stamp = self.stamp_at(at, &placed).await?;
        let pointer = match self.store.get(store::POINTER).await? {
            Some(bytes) => Some((parse::parse_timestamp(Envelope::open(&bytes)?.signed)?, bytes)),
            None => None,
        };
        // Where that of now will do, no key is needed.
        let is_of_then = |now: &Timestamp| matches!(at, At::Checkpoint(_)) || now.version <= stamp.version;
        let leads_here = |now: &Timestamp| now.snapshot.version == n && is_of_then(now);
        let (stamped, expires, timestamp) = match pointer.filter(|(now, _)| leads_here(now)) {
            Some((now, bytes)) => (now.version, now.expires, bytes),
            None => {
                let signers = keys.signers(&stamp.root.root.timestamp.key_ids).map_err(|e| {
                    let what =
                        format!("timestamp {} is signed again, and its key is not there: {}", stamp.version, e.message);
                    Error::invalid("--keys", what)
                })?;
                let ObjectRef { length, sha256 } = stamp.snapshot;
                let snapshot = Meta { version: n, length, sha256 };
                (
                    stamp.version,
                    stamp.expires,
                    role::timestamp(&signers, stamp.version, stamp.expires, &snapshot).into(),
                )
            }
        };
        let target = Target::new(dir)?;
        for version in 1..=stamp.root.root.version {
            let name = store::metadata_name(version, "root");
            let bytes = recover::object(&*self.store, &name, None).await?;
            if version == 1 {
                target.write("root.json", &bytes)?;
            }
            target.write(&name, &bytes)?;
        }
        let Meta { version, length, sha256 } = view.snapshot.targets;
        for (name, expect) in [
            (store::metadata_name(version, "targets"), ObjectRef { length, sha256 }),
            (store::metadata_name(n, "snapshot"), stamp.snapshot.clone()),
        ] {
            target.write(&name, &recover::object(&*self.store, &name, Some(&expect)).await?)?;
        }
        let copy = |bin: Bin| {
            let (view, target) = (view.clone(), target.clone());
            async move {
                let stored = self.stored_bin(&view, bin).await?;
                let verify =
                    move || view.open(&stored, |_| Ok(())).and_then(|()| target.write(&stored.name, &stored.bytes));
                self.pool.run(verify).await
            }
        };
        stream::iter(0..view.layout.bins()).map(copy).buffer_unordered(COPIED).try_collect::<()>().await?;
        // Last: whoever finds it finds all that it leads to.
        target.write(store::POINTER, &timestamp)?;
        let (files, bytes) = target.written();
        Ok(ExportAnswer { checkpoint: n, timestamp: stamped, expires, files, bytes })
    }

    /// The timestamp that led to a checkpoint at a point in history: the last one, for a timestamp is renewed when half of
    /// its time is over.
    async fn stamp_at(&self, at: At, placed: &Placed) -> Result<Stamp> {
        let n = placed.checkpoint.n;
        let mut walk = self.walk_for(placed.at + 1, Some(Only::default())).await?;
        let leads = |stamp: Option<Stamp>| stamp.filter(|stamp| stamp.n == n);
        let missing = || Error::corrupt(format!("the ledger has no timestamp of checkpoint {n}"));
        let mut stamp = leads(walk.state.stamp.clone()).ok_or_else(missing)?;
        while let Some(entry) = walk.next().await? {
            let is_later = match at {
                At::Checkpoint(_) => false,
                At::Seq(seq) => entry.seq > seq,
                At::Time(time) => matches!(&entry.record, Record::Renew(renew) if renew.time > time),
            };
            match leads(walk.state.stamp.clone()) {
                Some(renewed) if !is_later => stamp = renewed,
                _ => break,
            }
        }
        Ok(stamp)
    }
}

/// The directory that is written to, and what was written.
#[derive(Clone)]
struct Target {
    dir: std::path::PathBuf,
    written: std::sync::Arc<std::sync::Mutex<(u64, u64)>>,
}

impl Target {
    fn new(dir: &Path) -> Result<Target> {
        match fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
            Ok(true) => return Err(Error::invalid("DIR", format!("{} is not empty", dir.display()))),
            Ok(false) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::invalid("DIR", format!("{}: {e}", dir.display()))),
        }
        let made = fs::create_dir_all(dir.join("metadata"));
        made.map_err(|e| Error::invalid("DIR", format!("{} cannot be made: {e}", dir.display())))?;
        Ok(Target { dir: dir.to_owned(), written: Default::default() })
    }

    fn write(&self, name: &str, bytes: &Bytes) -> Result<()> {
        let path = self.dir.join(name);
        fs::write(&path, bytes)
            .map_err(|e| Error::unavailable(format!("{} cannot be written: {e}", path.display())))?;
        let mut written = super::receipts::lock(&self.written);
        *written = (written.0 + 1, written.1 + bytes.len() as u64);
        Ok(())
    }

    fn written(&self) -> (u64, u64) {
        *super::receipts::lock(&self.written)
    }
}
