//! What became of one batch of a Commit, wherever that stands.
//!
//! The ledger state says so. To have it at any place, the stored one before that place is moved on over up to some dozens
//! of cuts. Mostly less will do: an intake gives a batch, as its basis, a place up to which it has looked the id up and
//! not found it, so only what stands between that and the Commit can make it anything but valid.

use memchr::memmem;

use super::receipts::is_commit;
use super::{Query, READ_BYTES};
use crate::error::{Error, Result};
use crate::ledger::record::{Commit, Settings};
use crate::ledger::{Event, Outcome, Record};
use crate::log::{Offset, Partition};
use crate::recover;

/// What the verdicts of this ledger hang on.
pub(super) struct Rules {
    settings: Settings,
    /// They were never others, and no records were lost.
    constant: bool,
}

impl Query {
    /// Whether a batch of the Commit at `seq` applies there.
    pub(super) async fn is_valid(&self, seq: Offset, commit: &Commit, index: usize) -> Result<bool> {
        let Some(batch) = commit.batches.get(index) else { return Ok(false) };
        let rules = self.rules().await?;
        let alone = commit.batches.iter().filter(|b| b.id == batch.id).count() == 1;
        if rules.constant
            && alone
            && (seq.saturating_sub(rules.settings.horizon)..=seq).contains(&batch.basis)
            && batch.parts.iter().all(|(p, count)| *count > 0 && commit.segments.iter().any(|s| s.partition == *p))
            && !self.is_named_between(batch.basis, seq, &batch.id).await?
        {
            return Ok(true);
        }
        let outcomes = self.outcomes(seq, commit).await?;
        Ok(outcomes.get(index) == Some(&Outcome::Valid))
    }

    /// What became of every batch of the Commit at `seq`.
    pub(super) async fn outcomes(&self, seq: Offset, commit: &Commit) -> Result<Vec<Outcome>> {
        let mut state = recover::state_at(&*self.log, &*self.store, seq).await?;
        match state.apply(seq, &Record::Commit(commit.clone()))? {
            Event::Commit(outcomes) => Ok(outcomes),
            _ => Err(Error::corrupt(format!("the Commit at seq {seq} has no outcome"))),
        }
    }

    /// Whether a Commit strictly between two places names a batch of this id.
    async fn is_named_between(&self, basis: Offset, seq: Offset, id: &str) -> Result<bool> {
        let needle = format!("\"id\":\"{id}\"");
        let finder = memmem::Finder::new(needle.as_bytes());
        let mut reader = self.log.reader(Partition::Ledger, basis + 1);
        let mut next = basis + 1;
        while next < seq {
            let records = reader.read(READ_BYTES).await?;
            let Some(last) = records.last() else { break };
            next = last.offset + 1;
            let mut between = records.iter().take_while(|r| r.offset < seq).filter(|r| is_commit(&r.payload));
            if between.any(|r| finder.find(&r.payload).is_some()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// For how many ledger positions a Commit may lag behind what its intake had read.
    pub(super) async fn horizon(&self) -> Result<u64> {
        Ok(self.settings().await?.horizon)
    }

    /// The settings of the ledger.
    pub(super) async fn settings(&self) -> Result<&Settings> {
        Ok(&self.rules().await?.settings)
    }

    async fn rules(&self) -> Result<&Rules> {
        if let Some(rules) = self.rules.get() {
            return Ok(rules);
        }
        let state = recover::start(&*self.log, &*self.store).await?;
        let constant = state.settings_revision <= 1 && state.recovered == 0;
        Ok(self.rules.get_or_init(|| Rules { settings: state.settings, constant }))
    }
}
