//! What became of some batches, wherever their Commits stand: the ledger state says so. To have it there, the stored one
//! before that place is moved on, over some dozens of cuts at most; of the ids it remembers only those of these batches.

use super::Query;
use super::walk::Walk;
use crate::error::{Error, Result};
use crate::ledger::ids::Only;
use crate::ledger::record::Settings;
use crate::ledger::{Event, Outcome};
use crate::log::Offset;
use crate::recover;

/// How many ledger records a state is moved on rather than taken from the store anew.
const NEAR: u64 = 10_000;

/// Tells verdicts of batches with certain ids, at best of Commits in their order.
pub(super) struct Judge<'a> {
    query: &'a Query,
    ids: Only,
    walk: Option<Walk>,
}

impl Query {
    /// One who has read nothing yet.
    pub(super) fn judge<'a>(&self, ids: impl Iterator<Item = &'a str>) -> Judge<'_> {
        Judge { query: self, ids: ids.collect(), walk: None }
    }

    /// For how many ledger positions a Commit may lag behind what its intake had read.
    pub(super) async fn horizon(&self) -> Result<u64> {
        Ok(self.settings().await?.horizon)
    }

    /// The settings of the ledger, as they were when they were asked for first.
    pub(super) async fn settings(&self) -> Result<&Settings> {
        if let Some(settings) = self.settings.get() {
            return Ok(settings);
        }
        let state = recover::start_for(&*self.log, &*self.store, Some(&Only::default())).await?;
        Ok(self.settings.get_or_init(|| state.settings))
    }
}

impl Judge<'_> {
    /// What became of each batch of the Commit at `seq`. Of the others it says nothing.
    pub async fn outcomes(&mut self, seq: Offset) -> Result<Vec<Outcome>> {
        let mut walk = match self.walk.take().filter(|walk| (walk.next..walk.next + NEAR).contains(&seq)) {
            Some(walk) => walk,
            None => self.query.walk_for(seq, Some(self.ids.clone())).await?,
        };
        loop {
            match walk.next().await? {
                Some(entry) if entry.seq < seq => {}
                Some(entry) if entry.seq == seq => {
                    self.walk = Some(walk);
                    return match entry.event {
                        Event::Commit(outcomes) => Ok(outcomes),
                        _ => Err(Error::corrupt(format!("no Commit stands at seq {seq}"))),
                    };
                }
                _ => return Err(Error::corrupt(format!("nothing stands at seq {seq} any more"))),
            }
        }
    }
}
