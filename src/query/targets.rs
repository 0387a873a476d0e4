//! From a path to its entry, published now or then, and to the batch that brought it.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::at::At;
use super::view::View;
use super::{Query, RouteAnswer, TargetAnswer};
use crate::bins::sha256;
use crate::change::check_path;
use crate::error::{Error, Result};

/// What stands in a bin for a path.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Entry {
    pub length: u64,
    pub hashes: Map<String, Value>,
    pub custom: Option<Map<String, Value>>,
}

impl Entry {
    /// Reads the fragment of a bin.
    pub fn parse(path: &str, fragment: &str) -> Result<Entry> {
        serde_json::from_str(fragment).map_err(|e| Error::corrupt(format!("target {path:?}: {e}")))
    }
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

    /// The target at a path, published now or at a point in history; `None` when there is none.
    ///
    /// # Errors
    /// `Invalid` for what can be no path, and if there was no checkpoint then.
    pub async fn target(&self, path: &str, at: Option<At>) -> Result<Option<TargetAnswer>> {
        Ok(self.find_target(path, at).await?.map(|found| found.target))
    }

    /// The same with what brought it: where that cannot be said at once, only if it is asked for in `full`, which reads
    /// the partition backwards.
    pub async fn target_and_origin(&self, path: &str, at: Option<At>, full: bool) -> Result<Option<TargetAnswer>> {
        let Some(Found { mut target, fragment, view }) = self.find_target(path, at).await? else { return Ok(None) };
        target.origin = self.origin_at_hand(path, &fragment, &view).await?;
        if full && target.origin.is_none() {
            target.origin = self.origin(path, &fragment, &view).await?;
        }
        Ok(Some(target))
    }

    async fn find_target(&self, path: &str, at: Option<At>) -> Result<Option<Found>> {
        check_path(path)?;
        let Some(view) = self.view(at).await? else { return Ok(None) };
        let bin = view.layout.bin_of(path);
        let stored = self.stored_bin(&view, bin).await?;
        let (version, size) = (stored.version, stored.bytes.len());
        let (opener, wanted) = (view.clone(), path.to_owned());
        let find = move || {
            opener.open(&stored, |bin| {
                let at = bin.targets.binary_search_by(|(path, _)| path.as_ref().cmp(&wanted));
                let fragment = at.ok().map(|at| bin.targets[at].1);
                fragment.map(|f| Ok((Entry::parse(&wanted, f)?, f.to_owned()))).transpose()
            })
        };
        let Some((entry, fragment)) = self.pool.run_on(size, find).await? else { return Ok(None) };
        let Entry { length, hashes, custom } = entry;
        let (path, bin, checkpoint) = (path.to_owned(), view.layout.name(bin), view.n);
        let target = TargetAnswer { path, length, hashes, custom, bin, version, checkpoint, origin: None };
        Ok(Some(Found { target, fragment, view }))
    }
}

/// A target, as it stands in its bin, and what was looked at.
struct Found {
    target: TargetAnswer,
    fragment: String,
    view: View,
}
