//! The folds of a worker: those of the partitions that its group gives it, or of all.
//!
//! Which worker folds what is a matter of efficiency only: two folds of one partition write the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::engine::Progress;
use super::room::{Folding, Room, drive};
use crate::bins::PartitionId;
use crate::error::{Error, Result};
use crate::fold;
use crate::http::Health;
use crate::log::Membership;

pub(super) struct Folds {
    pub parts: fold::Parts,
    pub progress: Arc<Progress>,
    pub health: Arc<Health>,
    /// `None`: all partitions are folded here.
    pub membership: Option<Arc<dyn Membership>>,
    pub partitions: PartitionId,
}

impl Folds {
    /// Folds until it is told to stop or one of them meets a fatal error.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        let mut owned = self.membership.as_ref().map(|m| m.owned());
        let mut tasks = JoinSet::new();
        let mut running: BTreeMap<PartitionId, CancellationToken> = BTreeMap::new();
        loop {
            let want: BTreeSet<PartitionId> = match &mut owned {
                Some(owned) => owned.borrow_and_update().clone()?,
                None => (0..self.partitions).collect(),
            };
            for (partition, end) in &running {
                if !want.contains(partition) && !end.is_cancelled() {
                    tracing::info!(partition, "folds it no more: another worker does");
                    end.cancel();
                }
            }
            for partition in want {
                if running.contains_key(&partition) {
                    continue; // or it is about to end, and starts again when it has
                }
                if self.membership.is_some() {
                    tracing::info!(partition, "folds it");
                }
                let end = stop.child_token();
                let room = Room::Fold(Folding {
                    partition,
                    parts: self.parts.clone(),
                    fold: None,
                    progress: self.progress.clone(),
                    membership: self.membership.clone(),
                    told: 0,
                });
                let (told_to_end, health) = (end.clone(), self.health.clone());
                tasks.spawn(async move { (partition, drive(room, told_to_end, health).await) });
                running.insert(partition, end);
            }
            let changed = async {
                let waited = match &mut owned {
                    Some(owned) => owned.changed().await.is_ok(),
                    None => false,
                };
                if !waited {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = changed => {}
                Some(ended) = tasks.join_next() => {
                    let partition = result(ended)?;
                    running.remove(&partition);
                    self.progress.fold_ended(partition);
                }
                () = stop.cancelled() => {
                    while let Some(ended) = tasks.join_next().await {
                        result(ended)?;
                    }
                    return Ok(());
                }
            }
        }
    }
}

/// The partition whose fold has ended, or what it met.
fn result(ended: std::result::Result<(PartitionId, Result<()>), JoinError>) -> Result<PartitionId> {
    let (partition, ended) = ended.map_err(|_| Error::corrupt("a fold panicked: see the log above"))?;
    ended.map_err(|e| e.context(format!("fold {partition}")))?;
    Ok(partition)
}
