//! The published roots, as a client takes them: each one signed by its predecessor's keys and its own.

use std::sync::Arc;

use super::receipts::lock;
use super::view::View;
use super::{ExpiryAnswer, Query};
use crate::error::{Error, Result};
use crate::recover;
use crate::store;
use crate::tuf::envelope::Envelope;
use crate::tuf::parse;
use crate::tuf::root::Root;

/// Of how many files it is remembered when they expire.
const EXPIRIES: usize = 64;

impl Query {
    /// When each published role expires, the soonest first; of the bins the one that was rendered first. With it why of
    /// some it cannot be said.
    pub async fn expiries(&self) -> (Vec<ExpiryAnswer>, Vec<Error>) {
        let (mut found, mut unknown) = (Vec::new(), Vec::new());
        if let Err(e) = self.gather_expiries(&mut found, &mut unknown).await {
            unknown.push(e);
        }
        found.sort_by_key(|role| role.expires);
        (found, unknown)
    }

    async fn gather_expiries(&self, found: &mut Vec<ExpiryAnswer>, unknown: &mut Vec<Error>) -> Result<()> {
        let mut add = |role: &str, version, expires: Result<u64>, life_s| match expires {
            Ok(expires) => found.push(ExpiryAnswer { role: role.into(), version, expires, life_s }),
            Err(e) => unknown.push(e),
        };
        if let Some(root) = self.roots().await?.last() {
            add("root", root.version, Ok(root.expires), None);
        }
        let Some((_, timestamp)) = self.trusted().await? else { return Ok(()) };
        let lives = self.settings().await?;
        add("timestamp", timestamp.version, Ok(timestamp.expires), Some(lives.timestamp_expiry_s));
        let Some(view) = self.view(None).await? else { return Ok(()) };
        add("snapshot", view.snapshot.version, Ok(view.snapshot.expires), Some(lives.snapshot_expiry_s));
        let version = view.snapshot.targets.version;
        add("targets", version, self.expires_of(&view, "targets", version).await, Some(lives.targets_expiry_s));
        if let Some((bin, version)) = view.snapshot.bins.iter().min_by_key(|(_, version)| **version) {
            add("bins", *version, self.expires_of(&view, bin, *version).await, Some(lives.bins_expiry_s));
        }
        Ok(())
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
