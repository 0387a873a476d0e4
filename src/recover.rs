//! Where to start: the ledger state and the bins of the last checkpoint, found from the ledger's end.
//!
//! Nothing here needs the ledger from genesis. The state at a position is the stored ledger state of a cut before it,
//! moved on by the ledger alone; the bins of a partition are those that the last checkpoint's snapshot names. The cost
//! follows the tail, not the history.
//!
//! After records were lost, a Recovery in the ledger is such a start too: nothing that was read before it counts.
//!
//! ```text
//!   anchor.rs   where a state can be had: Checkpoints and Recoveries, read backwards
//!   loss.rs     what is missing: of the ledger, of the segments
//!   read.rs     the ledger as far as it is there        plan.rs  what a Recovery can say
//!   batches.rs  what is there whole, and what no Commit names
//!   repair.rs   the Recovery, and what is committed again after it
//! ```

mod anchor;
pub mod batches;
pub mod loss;
mod plan;
mod read;
pub mod repair;

use bytes::Bytes;

use crate::bins::{PartitionId, sha256};
use crate::error::{Error, Kind, Result};
use crate::fold::state::LoadedBin;
use crate::fold::{Fold, Parts};
use crate::ledger::follower::Mark;
use crate::ledger::ids::Only;
use crate::ledger::record::{Checkpoint, ObjectRef, Record};
use crate::ledger::saved::Saved;
use crate::ledger::{Follower, State};
use crate::log::{Log, Offset, Partition};
use crate::store::{self, POINTER, Store};
use crate::tuf::envelope::Envelope;
use crate::tuf::parse::{self, Snapshot, Timestamp};
use crate::tuf::root::Root;

pub use anchor::{Anchor, last_anchor, recovered_state, recoveries_since, recovery_since};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 1 << 20;

/// Where a fold starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Its bin state, if it has one; else the last checkpoint, if there is one; else genesis.
    Local,
    /// The last checkpoint's bins, whatever is there locally.
    Checkpoint,
    /// The first record of the ledger.
    Genesis,
}

/// The ledger state at a position: after every record below it.
pub async fn state_at(log: &dyn Log, store: &dyn Store, position: Offset) -> Result<State> {
    state_for(log, store, position, None).await
}

/// The same for one who asks about these ids alone: of the others it does not tell the verdict.
pub async fn state_for(log: &dyn Log, store: &dyn Store, position: Offset, only: Option<&Only>) -> Result<State> {
    let mut state = match last_anchor(log, position, |c| c.state.is_some()).await? {
        Some(Anchor::Checkpoint(c)) => stored_state(store, &c, only).await?,
        Some(Anchor::Recovery(seq, r)) => recovered_state(store, seq, &r).await?,
        None => beginning(log, store, position, only).await?,
    };
    if state.next > position {
        state = State::default(); // a Checkpoint below the position is of a Cut below it, so never
    }
    only.into_iter().for_each(|only| state.ids.limit_to(only));
    advance(log, state, position).await
}

/// The state to begin with where no Checkpoint below a position names a stored one: before the first record; or if the
/// ledger has lost that, one of a Cut below the position whose Checkpoint stands behind it.
async fn beginning(log: &dyn Log, store: &dyn Store, position: Offset, only: Option<&Only>) -> Result<State> {
    let first = log.reader(Partition::Ledger, 0).read(1).await?.into_iter().next();
    match first.map(|r| Record::decode(&r.payload)).transpose()? {
        None | Some(Record::Format(_)) => return Ok(State::default()),
        Some(_) => {}
    }
    let end = log.end(Partition::Ledger).await?;
    match last_anchor(log, end, |c| c.state.is_some() && c.seq < position).await? {
        Some(Anchor::Checkpoint(c)) => stored_state(store, &c, only).await,
        _ => Err(lost(Error::corrupt("the ledger has lost its beginning, and no Checkpoint names a stored state"))),
    }
}

/// Moves a ledger state on to a position by the ledger alone.
pub async fn advance(log: &dyn Log, state: State, position: Offset) -> Result<State> {
    let mut follower = Follower::new(log, state).await?;
    while follower.state.next < position {
        match follower.peek().await? {
            Some(r) if r.offset < position => drop(follower.next().await?),
            Some(_) => break, // a gap up to the position
            None if position > log.end(Partition::Ledger).await? => {
                let what = format!("position {position} is beyond the end of the ledger: records were lost");
                return Err(lost(Error::corrupt(what)));
            }
            None => {}
        }
    }
    follower.state.next = follower.state.next.max(position);
    Ok(follower.state)
}

/// The state right after the Cut of a Checkpoint that names a stored one.
async fn stored_state(store: &dyn Store, c: &Checkpoint, only: Option<&Only>) -> Result<State> {
    let saved = saved(store, c).await?;
    let mut chunks = Vec::new();
    for chunk in saved.chunks() {
        chunks.push(object(store, &store::ledger_ids_name(chunk.n), None).await?);
    }
    saved.restore(&chunks, only)
}

/// Whether there was a Recovery before the Cut of a Checkpoint that names a stored state.
pub async fn recovered_before(store: &dyn Store, c: &Checkpoint) -> Result<bool> {
    Ok(saved(store, c).await?.recovered())
}

/// The stored state that a Checkpoint names, without its ids.
async fn saved(store: &dyn Store, c: &Checkpoint) -> Result<Saved> {
    let Some(named) = &c.state else { return Err(Error::corrupt(format!("Checkpoint {} names no ledger state", c.n))) };
    let bytes = object(store, &store::ledger_state_name(c.n), None).await?;
    if sha256(&bytes) != named.sha256 {
        return Err(Error::corrupt(format!(
            "the stored ledger state of cut {} is not the one its Checkpoint names",
            c.n
        )));
    }
    Saved::decode(&bytes)
}

/// An object that must be there, and if `expect` is given, must be the one it describes.
pub async fn object(store: &dyn Store, name: &str, expect: Option<&ObjectRef>) -> Result<Bytes> {
    let Some(bytes) = store.get(name).await? else {
        return Err(Error::corrupt(format!("object {name} is missing from the store")));
    };
    if let Some(e) = expect
        && (bytes.len() as u64, sha256(&bytes)) != (e.length, e.sha256)
    {
        let (is, want) = (hex::encode(sha256(&bytes)), hex::encode(e.sha256));
        return Err(Error::corrupt(format!("object {name} has sha256 {is}, the ledger says {want}")));
    }
    Ok(bytes)
}

/// The snapshot of a checkpoint, its digest and signatures verified.
pub async fn snapshot(store: &dyn Store, n: u64, named: &ObjectRef, root: &Root) -> Result<Snapshot> {
    let name = store::metadata_name(n, "snapshot");
    let bytes = object(store, &name, Some(named)).await?;
    let envelope = Envelope::open(&bytes)?;
    envelope.verify(&root.keys, &root.snapshot).map_err(|e| e.context(&name))?;
    let snapshot = parse::parse_snapshot(envelope.signed)?;
    if snapshot.version != n {
        return Err(Error::corrupt(format!("object {name} says it is version {}", snapshot.version)));
    }
    Ok(snapshot)
}

/// The ledger state that a new reader starts from: right after the Cut of the last checkpoint, or else after the
/// Format record.
pub async fn start(log: &dyn Log, store: &dyn Store) -> Result<State> {
    start_for(log, store, None).await
}

/// The same for one who asks about these ids alone.
pub async fn start_for(log: &dyn Log, store: &dyn Store, only: Option<&Only>) -> Result<State> {
    let end = log.end(Partition::Ledger).await?;
    match last_anchor(log, end, |_| true).await? {
        Some(Anchor::Checkpoint(c)) => state_for(log, store, c.seq + 1, only).await,
        Some(Anchor::Recovery(seq, r)) => recovered_state(store, seq, &r).await,
        None => Ok(genesis(log).await?.state),
    }
}

/// Refuses a store that cannot be that of this ledger, such as one of the two restored from an older backup. Goes on
/// from `start`; answers the state at the ledger's end.
pub async fn check_store(log: &dyn Log, store: &dyn Store, start: &State) -> Result<State> {
    let pointer = pointer(store).await?;
    let state = advance(log, start.clone(), log.end(Partition::Ledger).await?).await?;
    let (is, says) = (pointer.as_ref().map_or(0, |p| p.version), state.stamp.as_ref().map_or(0, |s| s.version));
    if is > says {
        return Err(Error::corrupt(format!(
            "{POINTER} is version {is}, the ledger ends at version {says}: records are missing, or the store is of \
             another log; if this is the right one and its records are gone, see `tuflog recover`"
        )));
    }
    for (partition, named) in (0..).zip(&state.ends) {
        let end = log.end(Partition::Changes(partition)).await?;
        if end < *named {
            let what = format!(
                "partition {partition} of changes ends at offset {end}, the ledger names segments up to {}: records were \
                 lost",
                named - 1
            );
            return Err(lost(Error::corrupt(what)));
        }
    }
    let Some(stamp) = &state.stamp else { return Ok(state) };
    snapshot(store, stamp.n, &stamp.snapshot, &stamp.root.root)
        .await
        .map_err(|e| e.context(format!("the ledger ends at checkpoint {}, the store does not hold it", stamp.n)))?;
    let named = |t: &Timestamp| (t.expires, t.snapshot.version, t.snapshot.length, t.snapshot.sha256);
    let stamped = (stamp.expires, stamp.n, stamp.snapshot.length, stamp.snapshot.sha256);
    match pointer.filter(|p| p.version == stamp.version && named(p) != stamped) {
        Some(_) => Err(Error::corrupt(format!("{POINTER} version {is} is not the one that the ledger says"))),
        None => Ok(state),
    }
}

/// What the pointer says; `None` before the first checkpoint.
pub async fn pointer(store: &dyn Store) -> Result<Option<Timestamp>> {
    let Some(bytes) = store.get(POINTER).await? else { return Ok(None) };
    let parsed = Envelope::open(&bytes).and_then(|e| parse::parse_timestamp(e.signed));
    let hint = "remove it and start again: it follows from the ledger";
    parsed.map(Some).map_err(|e| Error::corrupt(format!("{POINTER}: {}; {hint}", e.message)))
}

/// A reader of the whole ledger, past its Format record so that it knows the layout.
async fn genesis(log: &dyn Log) -> Result<Follower> {
    let mut follower = Follower::new(log, State::default()).await?;
    while follower.state.layout.is_none() {
        if follower.next().await?.is_none() && log.end(Partition::Ledger).await? == 0 {
            follower.state.layout()?; // says what to do
        }
    }
    Ok(follower)
}

/// Opens the fold of a partition, and with an empty disk fills its bin state first.
pub async fn fold(parts: Parts, partition: PartitionId, source: Source) -> Result<Fold> {
    let (log, store) = (&*parts.log, &*parts.store);
    if let Some(mark) = parts.state.mark(partition)?.filter(|_| source == Source::Local)
        && let Some(follower) = local(log, store, &mark, parts.recovered).await?
    {
        return Fold::new(parts, partition, follower);
    }
    let end = log.end(Partition::Ledger).await?;
    let anchor = match source {
        Source::Genesis => recovery_since(log, 0).await?.map(|(seq, r)| Anchor::Recovery(seq, r)),
        _ => last_anchor(log, end, |_| true).await?,
    };
    let Some(anchor) = anchor else {
        let follower = genesis(log).await?;
        parts.state.reset(partition)?;
        parts.state.advance(partition, &follower.mark(), false)?;
        return Fold::new(parts, partition, follower);
    };
    let (follower, n, snapshot) = match anchor {
        Anchor::Checkpoint(c) => (Follower::new(log, state_at(log, store, c.seq + 1).await?).await?, c.n, c.snapshot),
        Anchor::Recovery(seq, r) => {
            let state = recovered_state(store, seq, &r).await?;
            let last = (seq, sha256(&Record::Recovery(r.clone()).encode()));
            (Follower::after(log, state, last).await?, r.n, r.snapshot)
        }
    };
    load(&parts, partition, &follower, n, &snapshot).await?;
    Fold::new(parts, partition, follower)
}

/// Where bin state stands in the ledger; `None` if it is from before its last Recovery, at `recovered`, and counts no
/// more.
async fn local(log: &dyn Log, store: &dyn Store, mark: &Mark, recovered: Offset) -> Result<Option<Follower>> {
    if recovered > 0 && mark.next <= recovered {
        return Ok(None);
    }
    let state = match state_at(log, store, mark.next).await {
        // A position beyond the end, where records were lost.
        Err(e) if e.kind == Kind::Corrupt && recovered > 0 => return Ok(None),
        state => state?,
    };
    let follower = match mark.last {
        Some(last) if last.0 >= recovered => Follower::after(log, state, last).await,
        None if recovered == 0 => Follower::new(log, state).await,
        // It has read nothing since that other histories do not have, as if it had never been.
        _ => return Ok(None),
    };
    match follower {
        // What it has read after that seq was lost.
        Err(e) if e.kind == Kind::Corrupt && recovered > 0 => Ok(None),
        Err(e) => Err(e.context(
            "the bin state is of another ledger, or this one has lost records since (`tuflog recover` says what is \
             missing): if the ledger is the right one, remove DIR/state, it is rebuilt",
        )),
        Ok(follower) => Ok(Some(follower)),
    }
}

/// Says what to do about records that are gone.
fn lost(e: Error) -> Error {
    if e.kind != Kind::Corrupt {
        return e;
    }
    Error { message: format!("{}; `tuflog recover` says what is missing, and can go on without it", e.message), ..e }
}

/// Fills a partition's bin state from the published bins of a checkpoint.
async fn load(parts: &Parts, partition: PartitionId, follower: &Follower, n: u64, snapshot: &ObjectRef) -> Result<()> {
    let (state, last_seq) = (&follower.state, follower.state.next - 1);
    let layout = state.layout()?;
    let Some(root) = &state.cut_root else { return Err(Error::corrupt("a Checkpoint without a root")) };
    let snapshot = self::snapshot(&*parts.store, n, snapshot, &root.root).await?;
    let mut bins = Vec::new();
    for bin in layout.bins_of(partition) {
        let role = layout.name(bin);
        let Some(version) = snapshot.bins.get(&role) else {
            return Err(Error::corrupt(format!("snapshot {n} does not list {role}")));
        };
        bins.push((bin, *version, store::metadata_name(*version, &role)));
    }
    parts.state.reset(partition)?;
    for (bin, version, name) in bins {
        let bytes = object(&*parts.store, &name, None).await?;
        let (root, state, seq) = (root.clone(), parts.state.clone(), last_seq);
        let loaded = move || -> Result<()> {
            let envelope = Envelope::open(&bytes)?;
            envelope.verify(&root.root.keys, &root.root.targets)?;
            let parsed = parse::parse_bin(envelope.signed)?;
            let misplaced = parsed.targets.iter().any(|(path, _)| layout.bin_of(path) != bin);
            if parsed.version != version || misplaced {
                return Err(Error::corrupt("does not belong under this name"));
            }
            state.load_bin(&LoadedBin { bin, seq, targets: parsed.targets })
        };
        parts.pool.run(loaded).await.map_err(|e| e.context(&name))?;
    }
    parts.state.advance(partition, &follower.mark(), false)
}
