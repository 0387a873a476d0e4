//! The published roots, as a client takes them: each one signed by its predecessor's keys and its own.

use std::sync::Arc;

use super::Query;
use super::receipts::lock;
use crate::error::Result;
use crate::store;
use crate::tuf::root::Root;

impl Query {
    /// When clients stop believing the newest published root, in Unix seconds; `None` before the first.
    pub async fn root_expires(&self) -> Result<Option<u64>> {
        Ok(self.roots().await?.last().map(|root| root.expires))
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
