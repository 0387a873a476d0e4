//! From a path to its published entry, by the way a client goes: timestamp → snapshot → bin → entry.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::receipts::lock;
use super::{INLINE_BYTES, Query, RouteAnswer, TargetAnswer};
use crate::bins::sha256;
use crate::change::check_path;
use crate::error::{Error, Result};
use crate::recover;
use crate::store;
use crate::tuf::envelope::Envelope;
use crate::tuf::parse::{self, Snapshot, Timestamp};

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
        let Some(timestamp) = self.timestamp().await? else { return Ok(None) };
        let snapshot = self.snapshot(&timestamp).await?;
        let n = snapshot.version;
        let Some(version) = snapshot.bins.get(&bin).copied() else {
            return Err(Error::corrupt(format!("snapshot {n} does not list {bin}")));
        };
        let name = store::metadata_name(version, &bin);
        let bytes = recover::object(&*self.store, &name, None).await?;
        let (size, wanted, of) = (bytes.len(), path.to_owned(), name.clone());
        let find = move || -> Result<Option<Entry>> {
            let bin = parse::parse_bin(Envelope::open(&bytes)?.signed)?;
            let Ok(at) = bin.targets.binary_search_by(|(path, _)| path.as_ref().cmp(&wanted)) else { return Ok(None) };
            let entry = serde_json::from_str(bin.targets[at].1);
            entry.map(Some).map_err(|e| Error::corrupt(format!("object {of}, target {wanted:?}: {e}")))
        };
        let entry = if size < INLINE_BYTES { find() } else { self.pool.run(find).await };
        let Some(Entry { length, hashes, custom }) = entry.map_err(|e| e.context(name))? else { return Ok(None) };
        Ok(Some(TargetAnswer { path: path.to_owned(), length, hashes, custom, bin, version, checkpoint: n }))
    }

    /// The snapshot that a timestamp leads to. Of the newest one a copy is kept.
    pub async fn snapshot(&self, timestamp: &Timestamp) -> Result<Arc<Snapshot>> {
        let n = timestamp.snapshot.version;
        if let Some((of, snapshot)) = &*lock(&self.snapshot)
            && *of == n
        {
            return Ok(snapshot.clone());
        }
        let name = store::metadata_name(n, "snapshot");
        let bytes = recover::object(&*self.store, &name, None).await?;
        let parsed = move || parse::parse_snapshot(Envelope::open(&bytes)?.signed);
        let snapshot = Arc::new(self.pool.run(parsed).await.map_err(|e| e.context(name))?);
        let mut kept = lock(&self.snapshot);
        if kept.as_ref().is_none_or(|(of, _)| *of < n) {
            *kept = Some((n, snapshot.clone()));
        }
        Ok(snapshot)
    }
}
