//! From a path to its published entry, by the way a client goes: root → timestamp → snapshot → bin → entry, each
//! verified with the keys of the published root. An object that is not as it was signed is `Corrupt`, by its name.
//!
//! What was verified is remembered by its name and digest: the same bytes are not verified twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::receipts::lock;
use super::{Query, RouteAnswer, TargetAnswer};
use crate::bins::{Sha256Digest, sha256};
use crate::change::check_path;
use crate::error::{Error, Result};
use crate::recover;
use crate::store;
use crate::tuf::envelope::Envelope;
use crate::tuf::parse::{self, Snapshot, Timestamp};
use crate::tuf::root::{RoleKeys, Root};

/// How many verified objects are remembered.
const VERIFIED: usize = 4_096;

/// The objects whose signatures were verified, by name, with the digest of what was read.
#[derive(Clone, Default)]
pub(super) struct Verified(Arc<Mutex<BTreeMap<String, Sha256Digest>>>);

impl Verified {
    /// The file, opened, once enough keys of the role have signed it.
    fn open<'a>(&self, name: &str, bytes: &'a [u8], root: &Root, role: &RoleKeys) -> Result<Envelope<'a>> {
        let (envelope, digest) = (Envelope::open(bytes)?, sha256(bytes));
        if lock(&self.0).get(name) == Some(&digest) {
            return Ok(envelope);
        }
        envelope.verify(&root.keys, role)?;
        let mut known = lock(&self.0);
        if known.len() >= VERIFIED {
            known.pop_first();
        }
        known.insert(name.to_owned(), digest);
        Ok(envelope)
    }
}

/// What stands in a bin for a path.
#[derive(Deserialize)]
struct Entry {
    length: u64,
    hashes: Map<String, Value>,
    custom: Option<Map<String, Value>>,
}

impl Query {
    /// Where a path lives. `Invalid` for what can be no path.
    pub async fn route(&self, path: &str) -> Result<RouteAnswer> {
        check_path(path)?;
        let layout = self.layout().await?;
        let bin = layout.bin_of(path);
        Ok(RouteAnswer {
            path: path.to_owned(),
            sha256: hex::encode(sha256(path.as_bytes())),
            bin: layout.name(bin),
            bin_index: bin,
            partition: layout.partition_of(bin),
        })
    }

    /// The target at a path in the newest published checkpoint; `None` when there is none. `Invalid` for what can be
    /// no path.
    pub async fn target(&self, path: &str) -> Result<Option<TargetAnswer>> {
        let RouteAnswer { bin, .. } = self.route(path).await?;
        let Some((root, timestamp)) = self.trusted().await? else { return Ok(None) };
        let snapshot = self.snapshot(&timestamp, &root).await?;
        let n = snapshot.version;
        let Some(version) = snapshot.bins.get(&bin).copied() else {
            return Err(Error::corrupt(format!("snapshot {n} does not list {bin}")));
        };
        let name = store::metadata_name(version, &bin);
        let bytes = recover::object(&*self.store, &name, None).await?;
        let layout = self.layout().await?;
        let (size, wanted, of, verified) = (bytes.len(), path.to_owned(), name.clone(), self.verified.clone());
        let find = move || -> Result<Option<Entry>> {
            let bin = parse::parse_bin(verified.open(&of, &bytes, &root, &root.targets)?.signed)?;
            // A snapshot lists bins by version alone: that it is this bin shows in what it holds.
            let misplaced = bin.targets.first().is_some_and(|(path, _)| layout.bin_of(path) != layout.bin_of(&wanted));
            if bin.version != version || misplaced {
                return Err(Error::corrupt("does not belong under this name"));
            }
            let Ok(at) = bin.targets.binary_search_by(|(path, _)| path.as_ref().cmp(&wanted)) else { return Ok(None) };
            let entry = serde_json::from_str(bin.targets[at].1);
            entry.map(Some).map_err(|e| Error::corrupt(format!("target {wanted:?}: {e}")))
        };
        let entry = self.pool.run_on(size, find).await;
        let entry = entry.map_err(|e| e.context(format!("object {name}")))?;
        let Some(Entry { length, hashes, custom }) = entry else { return Ok(None) };
        Ok(Some(TargetAnswer { path: path.to_owned(), length, hashes, custom, bin, version, checkpoint: n }))
    }

    /// timestamp.json, and the published root whose keys signed it; `None` before the first checkpoint. A new root is
    /// published before the timestamp under it, so it may be the one before the newest.
    async fn trusted(&self) -> Result<Option<(Arc<Root>, Timestamp)>> {
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

    /// The snapshot that a timestamp leads to. Of the newest one a copy is kept.
    async fn snapshot(&self, timestamp: &Timestamp, root: &Arc<Root>) -> Result<Arc<Snapshot>> {
        let n = timestamp.snapshot.version;
        if let Some((of, snapshot)) = &*lock(&self.snapshot)
            && *of == n
        {
            return Ok(snapshot.clone());
        }
        let name = store::metadata_name(n, "snapshot");
        let bytes = recover::object(&*self.store, &name, None).await?;
        let (root, named) = (root.clone(), (timestamp.snapshot.length, timestamp.snapshot.sha256));
        let parsed = move || -> Result<Snapshot> {
            if (bytes.len() as u64, sha256(&bytes)) != named {
                return Err(Error::corrupt("is not the one that timestamp.json names"));
            }
            let envelope = Envelope::open(&bytes)?;
            envelope.verify(&root.keys, &root.snapshot)?;
            parse::parse_snapshot(envelope.signed)
        };
        let snapshot = self.pool.run(parsed).await.map_err(|e| e.context(format!("object {name}")))?;
        let snapshot = Arc::new(snapshot);
        let mut kept = lock(&self.snapshot);
        if kept.as_ref().is_none_or(|(of, _)| *of < n) {
            *kept = Some((n, snapshot.clone()));
        }
        Ok(snapshot)
    }
}
