//! The bins of a view: which versions they have, how large and how old those are, and one of them in full.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::at::At;
use super::receipts::lock;
use super::targets::Entry;
use super::timeline::{Checkpoints, Goal, Placed};
use super::{EntryAnswer, Query};
use crate::bins::{Bin, PartitionId, sha256};
use crate::error::{Error, Result};
use crate::store;

/// How many objects are asked about at a time.
const ASKED: usize = 32;
/// How many ledger records are read rather than a checkpoint searched for.
const READ_ON: u64 = 16_384;
/// Of how many cuts the time is remembered.
const TIMES: usize = 65_536;

/// The bins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct BinsAnswer {
    /// The checkpoint that was looked at; 0 before the first.
    pub checkpoint: u64,
    /// Their lengths together, in bytes.
    pub length: u64,
    /// By rising index.
    pub bins: Vec<BinSummary>,
}

/// A bin at a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct BinSummary {
    /// Its role's name.
    pub bin: String,
    /// The partition it lives in.
    #[schema(value_type = u16)]
    pub partition: PartitionId,
    /// The number of the cut that rendered it last.
    pub version: u64,
    /// When that was made, in Unix seconds.
    pub time: u64,
    /// The file's length in bytes.
    pub length: u64,
}

/// A bin in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct BinAnswer {
    /// The checkpoint that was looked at.
    pub checkpoint: u64,
    /// What is said of every bin.
    #[serde(flatten)]
    pub summary: BinSummary,
    /// Its object, such as `metadata/7.bins-0a.json`.
    pub name: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// When clients stop believing it, in Unix seconds.
    pub expires: u64,
    /// How many targets it lists.
    pub count: u64,
    /// The targets, by path; at most as many as were asked for.
    pub targets: Vec<BinTarget>,
    /// What to ask for as `after` to get the next ones; absent when these are all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A target in a bin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, ToSchema)]
pub struct BinTarget {
    /// Its path.
    pub path: String,
    /// What stands there.
    #[serde(flatten)]
    pub target: EntryAnswer,
}

/// What does not change of what was asked about before.
#[derive(Default)]
pub(super) struct Known {
    /// By bin its newest version asked about, and that one's length.
    lengths: BTreeMap<Bin, (u64, u64)>,
    /// By cut its time.
    times: BTreeMap<u64, u64>,
}

impl Query {
    /// The bins, published now or at a point in history.
    pub async fn bins(&self, at: Option<At>) -> Result<BinsAnswer> {
        let Some(view) = self.view(at).await? else {
            return Ok(BinsAnswer { checkpoint: 0, length: 0, bins: vec![] });
        };
        let layout = view.layout;
        let versions: Vec<(Bin, u64)> =
            (0..layout.bins()).map(|bin| Ok((bin, view.version(bin)?))).collect::<Result<_>>()?;
        let mut cuts: Vec<u64> = versions.iter().map(|(_, version)| *version).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let times = self.times_of(&cuts).await?;
        let lengths: Vec<u64> = stream::iter(versions.iter().copied())
            .map(|(bin, version)| self.length_of(&view.layout, bin, version))
            .buffered(ASKED)
            .try_collect()
            .await?;
        let bins: Vec<BinSummary> = versions
            .into_iter()
            .zip(lengths)
            .map(|((bin, version), length)| BinSummary {
                bin: layout.name(bin),
                partition: layout.partition_of(bin),
                version,
                time: times.get(&version).copied().unwrap_or(0),
                length,
            })
            .collect();
        Ok(BinsAnswer { checkpoint: view.n, length: bins.iter().map(|bin| bin.length).sum(), bins })
    }

    /// A bin by its role's name, with at most `limit` of its targets, those behind the path `after`; `None` before the
    /// first checkpoint.
    ///
    /// # Errors
    /// `Invalid` if there is no such bin.
    pub async fn bin(
        &self,
        name: &str,
        at: Option<At>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<BinAnswer>> {
        let layout = self.layout().await?;
        let bin = layout.parse_name(name).ok_or_else(|| {
            let (first, last) = (layout.name(0), layout.name(layout.bins() - 1));
            Error::invalid("bin", format!("must be {first} to {last}, not {name:?}"))
        })?;
        let Some(view) = self.view(at).await? else { return Ok(None) };
        let stored = self.stored_bin(&view, bin).await?;
        let time = self.times_of(&[stored.version]).await?.get(&stored.version).copied().unwrap_or(0);
        let after = after.map(str::to_owned);
        let read = move || {
            view.open(&stored, |parsed| {
                let behind = |path: &str| after.as_deref().is_none_or(|after| path > after);
                let mut left = parsed.targets.iter().filter(|(path, _)| behind(path));
                let mut targets = Vec::new();
                for (path, fragment) in left.by_ref().take(limit) {
                    targets.push(BinTarget { path: path.to_string(), target: Entry::parse(path, fragment)?.into() });
                }
                let more = left.next().is_some();
                Ok(BinAnswer {
                    checkpoint: view.n,
                    summary: BinSummary {
                        bin: layout.name(bin),
                        partition: layout.partition_of(bin),
                        version: stored.version,
                        time,
                        length: stored.bytes.len() as u64,
                    },
                    name: stored.name.clone(),
                    sha256: hex::encode(sha256(&stored.bytes)),
                    expires: parsed.expires,
                    count: parsed.targets.len() as u64,
                    after: targets.last().filter(|_| more).map(|last| last.path.clone()),
                    targets,
                })
            })
        };
        self.pool.run(read).await.map(Some)
    }

    /// The length of a version of a bin, in bytes.
    async fn length_of(&self, layout: &crate::bins::Layout, bin: Bin, version: u64) -> Result<u64> {
        if let Some((known, length)) = lock(&self.known).lengths.get(&bin)
            && *known == version
        {
            return Ok(*length);
        }
        let name = store::metadata_name(version, &layout.name(bin));
        let Some(length) = self.store.length(&name).await? else {
            return Err(Error::corrupt(format!("object {name} is missing from the store")));
        };
        let mut known = lock(&self.known);
        let newest = known.lengths.entry(bin).or_insert((version, length));
        if newest.0 < version {
            *newest = (version, length);
        }
        Ok(length)
    }

    /// When cuts were made, in Unix seconds, by their rising numbers.
    pub(super) async fn times_of(&self, cuts: &[u64]) -> Result<BTreeMap<u64, u64>> {
        let mut found: BTreeMap<u64, u64> = {
            let known = lock(&self.known);
            cuts.iter().filter_map(|n| known.times.get(n).map(|time| (*n, *time))).collect()
        };
        let wanted: Vec<u64> = cuts.iter().filter(|n| !found.contains_key(n)).copied().collect();
        let end = self.ledger_end().await?;
        let mut next: Option<Placed> = None;
        // Those that come behind the one that was found last, while reading on is no more than searching for each.
        let mut behind: Option<Checkpoints<'_>> = None;
        for (i, n) in wanted.iter().copied().enumerate() {
            while let Some(checkpoints) = behind.as_mut().filter(|_| next.as_ref().is_none_or(|p| p.checkpoint.n < n)) {
                next = checkpoints.next().await?;
                if next.is_none() {
                    behind = None;
                }
            }
            if behind.is_none() {
                next = self.search(Goal::Number(n)).await?.1;
                let from = next.as_ref().map_or(end, |placed| placed.checkpoint.seq + 1);
                if end.saturating_sub(from) <= (wanted.len() - 1 - i) as u64 * READ_ON {
                    behind = Some(self.checkpoints_from(from).await?);
                }
            }
            // There is none of a number that a Recovery has left out.
            let Some(placed) = next.as_ref().filter(|placed| placed.checkpoint.n == n) else { continue };
            let time = self.cut_time(placed.checkpoint.seq).await?;
            found.insert(n, time);
            let mut known = lock(&self.known);
            if known.times.len() >= TIMES {
                known.times.pop_first();
            }
            known.times.insert(n, time);
        }
        Ok(found)
    }
}
