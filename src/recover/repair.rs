//! Going on without what is lost: the Recovery, and what is committed again after it.
//!
//! Owns the order that makes it safe to be cut off anywhere: fillers up to beyond every seq that was ever used, the
//! stored state, then the Recovery, which alone takes effect. What survived is committed after it by the way that all
//! batches go, under the ids that it had, so that doing it again changes nothing. Its place in the inbox is left out: what
//! stands before it there may be lost and have its turn again, and at its own turn its id is known.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::batches::{self, Walk};
use super::plan::Plan;
use super::{advance, recovered_state, recovery_since};
use crate::change::Batch;
use crate::error::{Error, Result};
use crate::intake;
use crate::ledger::record::{Cut, Format, Recovery};
use crate::ledger::recovery::{self, Known};
use crate::ledger::saved::Objects;
use crate::ledger::{EPOCH, Event, Follower, Outcome, Record, State};
use crate::log::{Log, Offset, Partition};
use crate::pool::Pool;
use crate::store::{self, Store};

/// How many fillers are on their way at a time.
const FILLERS: usize = 64;

/// Appends the Recovery that a plan comes to; answers its seq.
pub async fn recover(log: &dyn Log, store: &dyn Store, plan: &Plan) -> Result<(Offset, Box<Recovery>)> {
    fill(log, plan).await?;
    let known = Known {
        layout: plan.layout,
        settings: plan.settings.clone(),
        floor: plan.floor,
        ids: &plan.ids,
        inbox: &plan.inbox,
        roots: &plan.roots,
    };
    let Objects { state, ids, digests } = recovery::save(&known);
    let names = [store::recovery_state_name(&digests.sha256), store::recovery_ids_name(&digests.sha256)];
    for (name, bytes) in names.iter().zip([state, ids]) {
        store::create_same(store, name, bytes).await?;
    }
    store.sync(&names).await?;
    let mut ends = Vec::with_capacity(plan.layout.partitions().into());
    for p in 0..plan.layout.partitions() {
        ends.push(log.end(Partition::Changes(p)).await?);
    }
    let record = Box::new(Recovery {
        n: plan.n,
        snapshot: plan.snapshot.clone(),
        version: plan.version,
        time: plan.time,
        expires: plan.expires,
        kept: plan.kept,
        cut: plan.cut,
        state: digests,
        ends,
        lost: plan.lost.clone(),
        lost_changes: plan.lost_changes.clone(),
    });
    let seq = log.append(Partition::Ledger, Record::Recovery(record.clone()).encode()).await?;
    // It is what counts once it is read back.
    match recovery_since(log, seq).await? {
        Some((at, found)) if at == seq && found == record => Ok((seq, record)),
        _ => Err(Error::indeterminate("the Recovery was appended and is not read back: run the same command again")),
    }
}

/// Makes every seq below the plan's bound a used one.
async fn fill(log: &dyn Log, plan: &Plan) -> Result<()> {
    let filler: Bytes = Record::Cut(Cut { n: 0, time: 0, folds_from: 0 }).encode(); // cuts count from 1: void for all
    let mut end = log.end(Partition::Ledger).await?;
    if end == 0 {
        let (bins, partitions) = (plan.layout.bins(), plan.layout.partitions().into());
        end = log.append(Partition::Ledger, Record::Format(Format { epoch: EPOCH, bins, partitions }).encode()).await?
            + 1;
    }
    while end < plan.free_from {
        let append = |_| log.append(Partition::Ledger, filler.clone());
        stream::iter(end..plan.free_from).map(append).buffered(FILLERS).try_for_each(|_| async { Ok(()) }).await?;
        end = log.end(Partition::Ledger).await?;
    }
    Ok(())
}

/// A recovery after which something is still to be committed again.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// The seq of the Recovery.
    pub seq: Offset,
    /// What it says.
    pub recovery: Box<Recovery>,
    /// What is left: the seqs of the void Commits, and ids.
    pub left: Vec<(Offset, String)>,
}

/// What a recovery that was cut off has left to do, given the state at the ledger's end. Beyond the horizon its ids are
/// forgotten, and nothing can be done any more.
pub async fn unfinished(log: &dyn Log, store: &dyn Store, end: &State) -> Result<Option<Unfinished>> {
    let seq = end.recovered;
    if seq == 0 || end.floor > seq {
        return Ok(None);
    }
    let Some(r) = log.fetch(Partition::Ledger, seq).await? else { return Ok(None) };
    let Record::Recovery(recovery) = Record::decode(&r.payload)? else { return Ok(None) };
    let open = |id: &str| end.ids.get(id).is_none();
    let left = batches::survivors(log, store, (recovery.kept, seq), open).await?;
    Ok(Some(Unfinished { seq, recovery, left }).filter(|u| !u.left.is_empty()))
}

/// Finishes a recovery that was cut off, if there is one; answers what was committed again. Several may do it at once:
/// an id takes effect once.
pub async fn finish(log: Arc<dyn Log>, store: &dyn Store, pool: Pool, end: &State) -> Result<Vec<(String, Offset)>> {
    match unfinished(&*log, store, end).await? {
        Some(u) => commit_again(log, store, pool, (u.seq, &u.recovery)).await,
        None => Ok(vec![]),
    }
}

/// Commits again, in order, what survived and was not decided since; answers the ids with their new seqs.
pub async fn commit_again(
    log: Arc<dyn Log>,
    store: &dyn Store,
    pool: Pool,
    (seq, recovery): (Offset, &Recovery),
) -> Result<Vec<(String, Offset)>> {
    let end = log.end(Partition::Ledger).await?;
    let state = advance(&*log, recovered_state(store, seq, recovery).await?, end).await?;
    let mut follower = Follower::new(&*log, state).await?;
    let mut done = Vec::new();
    let mut walk = Walk::new(&*log, store, recovery.kept, seq).await?;
    loop {
        let open = |id: &str| follower.state.ids.get(id).is_none();
        let Some((_, batches)) = walk.next(&*log, store, open).await? else { break };
        while follower.next().await?.is_some() {}
        let (basis, layout) = (follower.state.basis(), follower.state.layout()?);
        let open: Vec<Batch> = batches.into_iter().filter(|b| follower.state.ids.get(&b.id).is_none()).collect();
        if open.is_empty() {
            continue;
        }
        let ids: Vec<String> = open.iter().map(|b| b.id.clone()).collect();
        let at = intake::commit(log.clone(), pool.clone(), layout, open, basis).await?;
        // It has taken effect when it was read back.
        while follower.state.next <= at {
            follower.ready().await?;
            let Some(entry) = follower.next().await? else { continue };
            if let (true, Event::Commit(outcomes)) = (entry.seq == at, &entry.event)
                && outcomes.contains(&Outcome::Void)
            {
                return Err(Error::indeterminate("a batch could not be committed again: run the same command again"));
            }
        }
        done.extend(ids.into_iter().map(|id| (id, at)));
    }
    Ok(done)
}
