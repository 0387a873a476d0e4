//! What was published at one checkpoint, by the way a client goes: root → timestamp → snapshot → bin, each verified with
//! the keys of a published root. An object that is not as it was signed is `Corrupt`, by its name.
//!
//! The newest checkpoint is found by timestamp.json. An earlier one is found in the ledger, which names its snapshot by
//! digest; what it lists may be signed by any root of the published chain. What was verified is remembered by its name
//! and digest: the same bytes are not verified twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::Query;
use super::at::At;
use super::receipts::lock;
use crate::bins::{Bin, Layout, Sha256Digest, sha256};
use crate::error::{Error, Result};
use crate::log::Offset;
use crate::recover;
use crate::store;
use crate::tuf::envelope::Envelope;
use crate::tuf::parse::{self, Snapshot, Timestamp};
use crate::tuf::role::Meta;
use crate::tuf::root::{RoleKeys, Root};

/// How many verified objects are remembered.
const VERIFIED: usize = 4_096;
/// How many snapshots are kept parsed.
const SNAPSHOTS: usize = 4;

/// The objects whose signatures were verified, by name, with the digest of what was read.
#[derive(Clone, Default)]
pub(super) struct Verified(Arc<Mutex<BTreeMap<String, Sha256Digest>>>);

impl Verified {
    /// The file, opened, once enough keys of the role have signed it under one of the roots.
    fn open<'a>(
        &self,
        name: &str,
        bytes: &'a [u8],
        roots: &[Arc<Root>],
        role: impl Fn(&Root) -> &RoleKeys,
    ) -> Result<Envelope<'a>> {
        let (envelope, digest) = (Envelope::open(bytes)?, sha256(bytes));
        if lock(&self.0).get(name) == Some(&digest) {
            return Ok(envelope);
        }
        let mut refused = Err(Error::corrupt("no root is published"));
        for root in roots {
            refused = envelope.verify(&root.keys, role(root));
            if refused.is_ok() {
                break;
            }
        }
        refused?;
        let mut known = lock(&self.0);
        if known.len() >= VERIFIED {
            known.pop_first();
        }
        known.insert(name.to_owned(), digest);
        Ok(envelope)
    }
}

/// The snapshots read last, by their checkpoint.
pub(super) type Snapshots = Mutex<BTreeMap<u64, Arc<Snapshot>>>;

/// See the module.
#[derive(Clone)]
pub struct View {
    /// The checkpoint.
    pub n: u64,
    /// The seq of its Cut, where it was looked up.
    pub(super) cut: Option<Offset>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) layout: Layout,
    /// The roots that may have signed it, newest first.
    roots: Arc<[Arc<Root>]>,
    verified: Verified,
}

/// A bin as it lies in the store.
#[derive(Clone)]
pub(super) struct StoredBin {
    pub bin: Bin,
    pub version: u64,
    pub name: String,
    pub bytes: Bytes,
}

impl View {
    /// The version of a bin: the number of the cut that rendered it.
    pub fn version(&self, bin: Bin) -> Result<u64> {
        let role = self.layout.name(bin);
        let listed = self.snapshot.bins.get(&role).copied();
        listed.ok_or_else(|| Error::corrupt(format!("snapshot {} does not list {role}", self.n)))
    }

    /// Verifies and parses a bin, and hands it to `work`. Takes time by its size.
    pub(super) fn open<T>(&self, stored: &StoredBin, work: impl FnOnce(parse::Bin<'_>) -> Result<T>) -> Result<T> {
        let named = |e: Error| e.context(format!("object {}", stored.name));
        let roots = &self.roots;
        let envelope = self.verified.open(&stored.name, &stored.bytes, roots, |root| &root.targets).map_err(named)?;
        let parsed = parse::parse_bin(envelope.signed).map_err(named)?;
        // A snapshot lists bins by version alone: that it is this bin shows in what it holds.
        let misplaced = parsed.targets.first().is_some_and(|(path, _)| self.layout.bin_of(path) != stored.bin);
        if parsed.version != stored.version || misplaced {
            return Err(named(Error::corrupt("does not belong under this name")));
        }
        work(parsed)
    }
}

impl Query {
    /// What was published at a point in history, or is now; `None` before the first checkpoint.
    ///
    /// # Errors
    /// `Invalid` if there was no checkpoint at `at`.
    pub async fn view(&self, at: Option<At>) -> Result<Option<View>> {
        let (n, cut, named, roots) = match at {
            None => {
                let Some((root, timestamp)) = self.trusted().await? else { return Ok(None) };
                let Meta { version, length, sha256 } = timestamp.snapshot;
                (version, None, (length, sha256), vec![root])
            }
            Some(at) => {
                let checkpoint = self.checkpoint_at(at).await?.checkpoint;
                let named = (checkpoint.snapshot.length, checkpoint.snapshot.sha256);
                let roots = self.roots().await?.into_iter().rev().collect();
                (checkpoint.n, Some(checkpoint.seq), named, roots)
            }
        };
        let (layout, roots) = (self.layout().await?, Arc::from(roots));
        let snapshot = self.snapshot(n, named, &roots).await?;
        Ok(Some(View { n, cut, snapshot, layout, roots, verified: self.verified.clone() }))
    }

    /// The seq of a view's Cut: it holds exactly the batches committed below.
    pub(super) async fn cut_of(&self, view: &View) -> Result<Offset> {
        match view.cut {
            Some(seq) => Ok(seq),
            None => Ok(self.published_checkpoint(view.n).await?.checkpoint.seq),
        }
    }

    /// A bin as a view has it, not yet verified.
    pub(super) async fn stored_bin(&self, view: &View, bin: Bin) -> Result<StoredBin> {
        let version = view.version(bin)?;
        let name = store::metadata_name(version, &view.layout.name(bin));
        let bytes = recover::object(&*self.store, &name, None).await?;
        Ok(StoredBin { bin, version, name, bytes })
    }

    /// timestamp.json, and the published root whose keys signed it; `None` before the first checkpoint. A new root is
    /// published before the timestamp under it, so it may be the one before the newest.
    pub(super) async fn trusted(&self) -> Result<Option<(Arc<Root>, Timestamp)>> {
        let Some(bytes) = self.store.get(store::POINTER).await? else { return Ok(None) };
        let roots = self.roots().await?;
        let named = |e: Error| e.context(format!("object {}", store::POINTER));
        let envelope = Envelope::open(&bytes).map_err(named)?;
        let mut refused = Error::corrupt("no root is published");
        for root in roots.iter().rev().take(2) {
            match envelope.verify(&root.keys, &root.timestamp) {
                Ok(()) => return Ok(Some((root.clone(), parse::parse_timestamp(envelope.signed).map_err(named)?))),
                Err(e) => refused = e,
            }
        }
        Err(named(refused))
    }

    /// The snapshot of a checkpoint, of which length and digest are known.
    async fn snapshot(&self, n: u64, named: (u64, Sha256Digest), roots: &Arc<[Arc<Root>]>) -> Result<Arc<Snapshot>> {
        if let Some(snapshot) = lock(&self.snapshots).get(&n) {
            return Ok(snapshot.clone());
        }
        let name = store::metadata_name(n, "snapshot");
        let bytes = recover::object(&*self.store, &name, None).await?;
        let (roots, verified, of) = (roots.clone(), self.verified.clone(), name.clone());
        let parsed = move || -> Result<Snapshot> {
            if (bytes.len() as u64, sha256(&bytes)) != named {
                return Err(Error::corrupt("is not the one that its checkpoint names"));
            }
            parse::parse_snapshot(verified.open(&of, &bytes, &roots, |root| &root.snapshot)?.signed)
        };
        let snapshot = self.pool.run(parsed).await.map_err(|e| e.context(format!("object {name}")))?;
        let snapshot = Arc::new(snapshot);
        let mut kept = lock(&self.snapshots);
        kept.insert(n, snapshot.clone());
        if kept.len() > SNAPSHOTS {
            kept.pop_first();
        }
        Ok(snapshot)
    }
}
