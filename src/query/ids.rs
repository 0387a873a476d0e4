//! An id in the whole ledger, beyond the horizon.

use super::receipts::is_commit;
use super::{Query, READ_BYTES};
use crate::error::Result;
use crate::ledger::ids::Seen;
use crate::ledger::record::Commit;
use crate::ledger::{Record, State};
use crate::log::{Offset, Partition};
use crate::recover;

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
}

/// Keeps where an id is known to be valid, if that is news.
fn remember(valid: &mut Vec<Seen>, seen: Option<Seen>) {
    valid.extend(seen.filter(|seen| valid.last().is_none_or(|last| last.seq != seen.seq)));
}
