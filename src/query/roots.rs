//! The published roots, as a client takes them: each one signed by its predecessor's keys and its own.

use std::sync::Arc;

use super::receipts::lock;
use super::view::View;
use super::{ExpiryAnswer, Query};
use crate::error::Result;
use crate::recover;
use crate::store;
use crate::tuf::envelope::Envelope;
use crate::tuf::parse;
use crate::tuf::root::Root;

/// Of how many files it is remembered when they expire.
const EXPIRIES: usize = 64;

impl Query {
    /// When clients stop believing the newest published root, in Unix seconds; `None` before the first.
    pub async fn root_expires(&self) -> Result<Option<u64>> {
        Ok(self.roots().await?.last().map(|root| root.expires))
    }

    /// When each published role expires, the soonest first; of the bins the one that was rendered first.
    pub async fn expiries(&self) -> Result<Vec<ExpiryAnswer>> {
        let mut found = Vec::new();
        let mut add = |role: &str, version, expires, life_s| {
            found.push(ExpiryAnswer { role: role.into(), version, expires, life_s });
        };
        if let Some(root) = self.roots().await?.last() {
            add("root", root.version, root.expires, None);
        }
        if let (Some((_, timestamp)), Some(view)) = (self.trusted().await?, self.view(None).await?) {
            let lives = self.settings().await?;
            add("timestamp", timestamp.version, timestamp.expires, Some(lives.timestamp_expiry_s));
            add("snapshot", view.snapshot.version, view.snapshot.expires, Some(lives.snapshot_expiry_s));
            let version = view.snapshot.targets.version;
            add("targets", version, self.expires_of(&view, "targets", version).await?, Some(lives.targets_expiry_s));
            if let Some((bin, version)) = view.snapshot.bins.iter().min_by_key(|(_, version)| **version) {
                add("bins", *version, self.expires_of(&view, bin, *version).await?, Some(lives.bins_expiry_s));
            }
        }
        found.sort_by_key(|role| role.expires);
        Ok(found)
    }

    /// When a version of targets.json or of a bin expires, which does not change.
    async fn expires_of(&self, view: &View, role: &str, version: u64) -> Result<u64> {
        let name = store::metadata_name(version, role);
        if let Some(expires) = lock(&self.expires).get(&name) {
            return Ok(*expires);
        }
        let expires = match view.layout.parse_name(role) {
            Some(bin) => {
                let (view, stored) = (view.clone(), self.stored_bin(view, bin).await?);
                self.pool.run_on(stored.bytes.len(), move || view.open(&stored, |bin| Ok(bin.expires))).await?
            }
            None => {
                let bytes = recover::object(&*self.store, &name, None).await?;
                parse::parse_targets(Envelope::open(&bytes)?.signed).map_err(|e| e.context(&name))?.expires
            }
        };
        let mut known = lock(&self.expires);
        if known.len() >= EXPIRIES {
            known.clear();
        }
        known.insert(name, expires);
        Ok(expires)
    }

    /// Every published root, from version 1 on. `Corrupt` for one that does not follow.
    pub(super) async fn roots(&self) -> Result<Vec<Arc<Root>>> {
        let mut roots = lock(&self.roots).clone();
        let known = roots.len();
        loop {
            let name = store::metadata_name(roots.len() as u64 + 1, "root");
            let Some(bytes) = self.store.get(&name).await? else { break };
            let root = match roots.last() {
                None => Root::verify_first(&bytes),
                Some(before) => Root::verify_next(before, &bytes),
            };
            roots.push(Arc::new(root.map_err(|e| e.context(&name))?));
        }
        if roots.len() > known {
            let mut kept = lock(&self.roots);
            if kept.len() < roots.len() {
                kept.clone_from(&roots);
            }
        }
        Ok(roots)
    }
}
