//! Questions that read back in the ledger: an id beyond the horizon, the checkpoints.

use std::collections::BTreeMap;

use super::receipts::is_commit;
use super::{CheckpointAnswer, CheckpointsAnswer, ObjectAnswer, Query, READ_BYTES, TimestampAnswer};
use crate::error::{Error, Result};
use crate::ledger::ids::Seen;
use crate::ledger::record::{Checkpoint, Commit, Recovery};
use crate::ledger::{Record, State};
use crate::log::{Offset, Partition};
use crate::recover;
use crate::store;

/// How many ledger positions are looked at first when reading backwards; then twice as many, and so on.
const FIRST_WINDOW: u64 = 256;

impl Query {
    /// Looks an id up in the ledger below `upto`, from genesis on and beyond any horizon.
    ///
    /// The same id can be valid more than once, when it was sent again after the horizon had passed the first. The
    /// newest valid one is answered: it is the one that the ledger state remembers while it is within the horizon, so
    /// an answer does not change when it falls out of it.
    ///
    /// The verdicts are [`State`]'s own. Of the records it is given only those that an id's verdict depends on, which
    /// is why this needs little memory: Format, Settings (the horizon), Recoveries, and the Commits that name the id or
    /// bring inbox records, which are sequenced in order, without their other batches. Leaving a record out moves the
    /// floor later, never elsewhere: it follows from the seq of the record that is looked at.
    pub async fn find(&self, id: &str, upto: Offset) -> Result<Option<Seen>> {
        let needle = format!("\"id\":\"{id}\"");
        // Every seq at which it was found new: more than one where the horizon had passed between them.
        let (mut state, mut valid) = (State::default(), Vec::<Seen>::new());
        let mut reader = self.log.reader(Partition::Ledger, 0);
        loop {
            let records = reader.read(READ_BYTES).await?;
            let end = records.last().map(|r| r.offset + 1);
            for r in records.iter().take_while(|r| r.offset < upto) {
                let tells = |text: &str| text.contains(&needle) || text.contains("\"inbox\":");
                let names = || std::str::from_utf8(&r.payload).is_ok_and(tells);
                if is_commit(&r.payload) && !names() {
                    continue;
                }
                let record = match Record::decode(&r.payload)? {
                    Record::Commit(c) => {
                        let batches = c.batches.into_iter().filter(|b| b.id == id || b.inbox.is_some()).collect();
                        Record::Commit(Commit { batches, ..c })
                    }
                    record @ (Record::Format(_) | Record::Settings(_)) => record,
                    // What it keeps of the batches before it is all that counts of them from here on.
                    Record::Recovery(recovery) => {
                        state = recover::recovered_state(&*self.store, r.offset, &recovery).await?;
                        valid.retain(|seen| seen.seq < recovery.kept);
                        remember(&mut valid, state.ids.get(id));
                        continue;
                    }
                    _ => continue,
                };
                state.apply(r.offset, &record)?;
                remember(&mut valid, state.ids.get(id));
            }
            if end.is_none_or(|end| end >= upto) {
                return Ok(valid.pop());
            }
            tokio::task::yield_now().await;
        }
    }

    /// The published checkpoints below `before`, newest first, at most `limit`.
    pub async fn checkpoints(&self, before: Option<u64>, limit: usize) -> Result<CheckpointsAnswer> {
        let Some(timestamp) = self.timestamp().await? else {
            return Ok(CheckpointsAnswer { checkpoints: vec![], before: None });
        };
        let newest = timestamp.snapshot.version;
        let high = before.unwrap_or(u64::MAX).min(newest + 1);
        let mut checkpoints = Vec::new();
        for c in self.read_back(high, limit).await? {
            let stamp = TimestampAnswer { version: timestamp.version, expires: timestamp.expires };
            checkpoints.push(self.describe(&c, (c.n == newest).then_some(stamp)).await?);
        }
        let before = checkpoints.last().map(|c| c.n).filter(|n| *n > 1);
        Ok(CheckpointsAnswer { checkpoints, before })
    }

    /// A published checkpoint; `None` when there is none of this number.
    pub async fn checkpoint(&self, n: u64) -> Result<Option<CheckpointAnswer>> {
        let Some(timestamp) = self.timestamp().await?.filter(|t| (1..=t.snapshot.version).contains(&n)) else {
            return Ok(None);
        };
        let stamp = TimestampAnswer { version: timestamp.version, expires: timestamp.expires };
        match self.find_checkpoint(n).await? {
            Some(c) => Ok(Some(self.describe(&c, (n == timestamp.snapshot.version).then_some(stamp)).await?)),
            None => Err(Error::corrupt(format!("the ledger has no Checkpoint {n}"))),
        }
    }

    /// When the Cut at a seq was made, in Unix seconds.
    pub async fn cut_time(&self, seq: Offset) -> Result<u64> {
        let record = self.log.fetch(Partition::Ledger, seq).await?;
        match record.map(|r| Record::decode(&r.payload)).transpose()? {
            Some(Record::Cut(cut)) => Ok(cut.time),
            Some(Record::Recovery(r)) => Ok(r.time), // that of its timestamp: its Cut may be lost
            _ => Err(Error::corrupt(format!("a Checkpoint names seq {seq}, where no Cut is"))),
        }
    }

    /// How many ledger positions the newest Commit is ahead of the published Cut at `seq`; 0 when nothing that is
    /// committed waits. Of a long tail all is counted, without reading it.
    pub async fn behind(&self, seq: Offset) -> Result<u64> {
        let end = self.log.end(Partition::Ledger).await?;
        let tail = self.log.reader(Partition::Ledger, seq).read(READ_BYTES).await?;
        let last = match tail.last() {
            Some(r) if r.offset + 1 < end => end - 1,
            _ => tail.iter().rev().find(|r| is_commit(&r.payload)).map_or(seq, |r| r.offset),
        };
        Ok(last.saturating_sub(seq))
    }

    async fn describe(&self, c: &Checkpoint, timestamp: Option<TimestampAnswer>) -> Result<CheckpointAnswer> {
        let time = self.cut_time(c.seq).await?;
        let snapshot = ObjectAnswer {
            name: store::metadata_name(c.n, "snapshot"),
            length: c.snapshot.length,
            sha256: hex::encode(c.snapshot.sha256),
        };
        let ledger_state = c.state.as_ref().map(|_| store::ledger_state_name(c.n));
        Ok(CheckpointAnswer { n: c.n, seq: c.seq, time, snapshot, ends: c.ends.clone(), ledger_state, timestamp })
    }

    /// Checkpoint `n`, from the ledger.
    pub(super) async fn find_checkpoint(&self, n: u64) -> Result<Option<Checkpoint>> {
        Ok(self.read_back(n.saturating_add(1), 1).await?.into_iter().next())
    }

    /// The newest `limit` Checkpoints below number `high`, newest first; `high` − 1 must be published. Numbers have no
    /// gaps, so it is known which are wanted: a late repeat of another one, which may stand anywhere behind the first,
    /// ends nothing too early. Only a Recovery leaves numbers out; the checkpoint that it goes on from is one of it.
    async fn read_back(&self, high: u64, limit: usize) -> Result<Vec<Checkpoint>> {
        let wanted = high.saturating_sub(limit as u64)..high;
        let mut found: BTreeMap<u64, Checkpoint> = BTreeMap::new();
        let mut left_out: Vec<std::ops::RangeInclusive<u64>> = Vec::new();
        let (mut end, mut window) = (self.log.end(Partition::Ledger).await?, FIRST_WINDOW);
        let have = |n, found: &BTreeMap<u64, Checkpoint>, out: &[std::ops::RangeInclusive<u64>]| {
            n == 0 || found.contains_key(&n) || out.iter().any(|range| range.contains(&n))
        };
        while end > 0 && !wanted.clone().all(|n| have(n, &found, &left_out)) {
            let start = end.saturating_sub(window);
            let mut reader = self.log.reader(Partition::Ledger, start);
            'window: loop {
                let records = reader.read(READ_BYTES).await?;
                if records.is_empty() {
                    break;
                }
                for r in &records {
                    if r.offset >= end {
                        break 'window;
                    }
                    if is_commit(&r.payload) {
                        continue;
                    }
                    match Record::decode(&r.payload)? {
                        Record::Checkpoint(c) if wanted.contains(&c.n) => drop(found.insert(c.n, c)), // repeats are equal
                        Record::Recovery(recovery) => {
                            left_out.push(recovery.n + 1..=recovery.cut);
                            if wanted.contains(&recovery.n) {
                                found.insert(recovery.n, resumed(r.offset, *recovery));
                            }
                        }
                        _ => {}
                    }
                }
            }
            (end, window) = (start, window * 2);
        }
        Ok(found.into_values().rev().collect())
    }
}

/// Keeps where an id is known to be valid, if that is news.
fn remember(valid: &mut Vec<Seen>, seen: Option<Seen>) {
    valid.extend(seen.filter(|seen| valid.last().is_none_or(|last| last.seq != seen.seq)));
}

/// The Checkpoint that a Recovery goes on from: its own may be lost. Everything valid before the Recovery is in it.
fn resumed(seq: Offset, Recovery { n, snapshot, ends, .. }: Recovery) -> Checkpoint {
    Checkpoint { n, seq, snapshot, state: None, ends }
}
