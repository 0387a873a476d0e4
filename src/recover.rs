//! Where to start: the ledger state and the bins of the last checkpoint, found from the ledger's end.
//!
//! Nothing here needs the ledger from genesis. The state at a position is the stored ledger state of a cut before it,
//! moved on by the ledger alone; the bins of a partition are those that the last checkpoint's snapshot names. The cost
//! follows the tail, not the history.

use bytes::Bytes;

use crate::bins::{PartitionId, sha256};
use crate::error::{Error, Result};
use crate::fold::state::LoadedBin;
use crate::fold::{Fold, Parts};
use crate::ledger::record::{Checkpoint, ObjectRef, Record};
use crate::ledger::saved::Saved;
use crate::ledger::{Follower, State};
use crate::log::{Log, Offset, Partition};
use crate::store::{self, POINTER, Store};
use crate::tuf::envelope::Envelope;
use crate::tuf::parse::{self, Snapshot, Timestamp};
use crate::tuf::root::Root;

/// How many ledger positions are looked at first when reading backwards; then four times as many, and so on.
const FIRST_WINDOW: u64 = 256;
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

/// The last Checkpoint below `before` for which `wanted` holds, reading backwards. The first one found may be a late
/// repeat of an older one: of all that were read, the highest counts.
pub async fn last_checkpoint(
    log: &dyn Log,
    before: Offset,
    wanted: impl Fn(&Checkpoint) -> bool,
) -> Result<Option<Checkpoint>> {
    let (mut high, mut window) = (before, FIRST_WINDOW);
    while high > 0 {
        let low = high.saturating_sub(window);
        let mut reader = log.reader(Partition::Ledger, low);
        let mut best: Option<Checkpoint> = None;
        'window: loop {
            let records = reader.read(READ_BYTES).await?;
            if records.is_empty() {
                break;
            }
            for r in records {
                if r.offset >= high {
                    break 'window;
                }
                if let Record::Checkpoint(c) = Record::decode(&r.payload)?
                    && wanted(&c)
                    && best.as_ref().is_none_or(|b| c.n > b.n)
                {
                    best = Some(c);
                }
            }
        }
        if best.is_some() {
            return Ok(best);
        }
        (high, window) = (low, window * 4);
    }
    Ok(None)
}

/// The ledger state at a position: after every record below it.
pub async fn state_at(log: &dyn Log, store: &dyn Store, position: Offset) -> Result<State> {
    let mut state = match last_checkpoint(log, position, |c| c.state.is_some()).await? {
        Some(c) => stored_state(store, &c).await?,
        None => State::default(),
    };
    if state.next > position {
        state = State::default(); // a Checkpoint below the position is of a Cut below it, so never
    }
    advance(log, state, position).await
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
                return Err(Error::corrupt(what));
            }
            None => {}
        }
    }
    follower.state.next = follower.state.next.max(position);
    Ok(follower.state)
}

/// The state right after the Cut of a Checkpoint that names a stored one.
async fn stored_state(store: &dyn Store, c: &Checkpoint) -> Result<State> {
    let Some(named) = &c.state else { return Err(Error::corrupt(format!("Checkpoint {} names no ledger state", c.n))) };
    let bytes = object(store, &store::ledger_state_name(c.n), None).await?;
    if sha256(&bytes) != named.sha256 {
        return Err(Error::corrupt(format!(
            "the stored ledger state of cut {} is not the one its Checkpoint names",
            c.n
        )));
    }
    let saved = Saved::decode(&bytes)?;
    let mut chunks = Vec::new();
    for chunk in saved.chunks() {
        chunks.push(object(store, &store::ledger_ids_name(chunk.n), None).await?);
    }
    saved.restore(&chunks)
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
    let end = log.end(Partition::Ledger).await?;
    match last_checkpoint(log, end, |_| true).await? {
        Some(c) => state_at(log, store, c.seq + 1).await,
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
             another log"
        )));
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
    if let Some(mark) = parts.state.mark(partition)?.filter(|_| source == Source::Local) {
        let state = state_at(log, store, mark.next).await?;
        let follower = match mark.last {
            Some(last) => Follower::after(log, state, last).await.map_err(|e| {
                e.context(
                    "the bin state is of another ledger, or this one has lost records since: if the ledger is the \
                     right one, remove DIR/state, it is rebuilt",
                )
            })?,
            None => Follower::new(log, state).await?,
        };
        return Fold::new(parts, partition, follower);
    }
    let end = log.end(Partition::Ledger).await?;
    let checkpoint = match source {
        Source::Genesis => None,
        _ => last_checkpoint(log, end, |_| true).await?,
    };
    let Some(c) = checkpoint else {
        let follower = genesis(log).await?;
        parts.state.reset(partition)?;
        parts.state.advance(partition, &follower.mark(), false)?;
        return Fold::new(parts, partition, follower);
    };
    let state = state_at(log, store, c.seq + 1).await?;
    let follower = Follower::new(log, state).await?;
    load(&parts, partition, &follower, &c).await?;
    Fold::new(parts, partition, follower)
}

/// Fills a partition's bin state from the published bins of a checkpoint.
async fn load(parts: &Parts, partition: PartitionId, follower: &Follower, c: &Checkpoint) -> Result<()> {
    let state = &follower.state;
    let layout = state.layout()?;
    let Some(root) = &state.cut_root else { return Err(Error::corrupt("a Checkpoint without a root")) };
    let snapshot = snapshot(&*parts.store, c.n, &c.snapshot, &root.root).await?;
    let mut bins = Vec::new();
    for bin in layout.bins_of(partition) {
        let role = layout.name(bin);
        let Some(version) = snapshot.bins.get(&role) else {
            return Err(Error::corrupt(format!("snapshot {} does not list {role}", c.n)));
        };
        bins.push((bin, *version, store::metadata_name(*version, &role)));
    }
    parts.state.reset(partition)?;
    for (bin, version, name) in bins {
        let bytes = object(&*parts.store, &name, None).await?;
        let (root, state, seq) = (root.clone(), parts.state.clone(), c.seq);
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
