//! Anchors: the records by which a ledger state can be had without what stands before them, found reading backwards.

use memchr::memmem;

use super::{READ_BYTES, object};
use crate::error::Result;
use crate::ledger::record::{Checkpoint, Recovery};
use crate::ledger::{Record, State, recovery};
use crate::log::{self, Log, Offset, Partition};
use crate::store::{self, Store};

/// How many ledger positions are looked at first when reading backwards; then four times as many, and so on.
const FIRST_WINDOW: u64 = 256;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The state right after the Cut of a Checkpoint.
    Checkpoint(Checkpoint),
    /// The state right after a Recovery, which stands at this seq.
    Recovery(Offset, Box<Recovery>),
}

impl Anchor {
    /// The checkpoint that it says is published.
    pub fn n(&self) -> u64 {
        match self {
            Anchor::Checkpoint(c) => c.n,
            Anchor::Recovery(_, r) => r.n,
        }
    }

    /// The highest cut number that it covers: of two anchors the one with more of it counts, wherever they stand; of
    /// Recoveries that cover as many, the later.
    fn rank(&self) -> (u64, Offset) {
        match self {
            Anchor::Checkpoint(c) => (c.n, 0),
            Anchor::Recovery(seq, r) => (r.cut, seq + 1),
        }
    }

    /// The state that it gives stands right after this seq.
    fn seq(&self) -> Offset {
        match self {
            Anchor::Checkpoint(c) => c.seq,
            Anchor::Recovery(seq, _) => *seq,
        }
    }
}

/// The last anchor below `before`, of the Checkpoints only those for which `wanted` holds. A Checkpoint that is found
/// first may be a late repeat of an older one, or of one that a Recovery has done away with: so everything after the
/// state that it gives is looked at, and the highest number counts.
pub async fn last_anchor(
    log: &dyn Log,
    before: Offset,
    wanted: impl Fn(&Checkpoint) -> bool,
) -> Result<Option<Anchor>> {
    let (mut high, mut window) = (before, FIRST_WINDOW);
    let mut best: Option<Anchor> = None;
    while high > 0 && best.as_ref().is_none_or(|b| b.seq() < high) {
        let low = high.saturating_sub(window);
        let mut reader = log.reader(Partition::Ledger, low);
        'window: loop {
            let records = reader.read(READ_BYTES).await?;
            if records.is_empty() {
                break;
            }
            for r in records {
                if r.offset >= high {
                    break 'window;
                }
                let found = match decode(&r)? {
                    Record::Checkpoint(c) if wanted(&c) => Anchor::Checkpoint(c),
                    Record::Recovery(recovery) => Anchor::Recovery(r.offset, recovery),
                    _ => continue,
                };
                if best.as_ref().is_none_or(|b| found.rank() > b.rank()) {
                    best = Some(found);
                }
            }
        }
        (high, window) = (low, window * 4);
    }
    Ok(best)
}

/// A record, or what is wrong at which seq.
fn decode(r: &log::Record) -> Result<Record> {
    Record::decode(&r.payload).map_err(|e| e.context(format!("ledger seq {}", r.offset)))
}

/// The last Recovery at or after `from`.
pub async fn recovery_since(log: &dyn Log, from: Offset) -> Result<Option<(Offset, Box<Recovery>)>> {
    Ok(recoveries_since(log, from).await?.pop())
}

/// All Recoveries at or after `from`, in their order.
pub async fn recoveries_since(log: &dyn Log, from: Offset) -> Result<Vec<(Offset, Box<Recovery>)>> {
    // As it stands in canonical JSON. It cannot stand inside a string: there its quotes would be escaped.
    const MARK: &[u8] = b"\"kind\":\"recovery\"";
    let (mut reader, mut all) = (log.reader(Partition::Ledger, from), Vec::new());
    loop {
        let records = reader.read(READ_BYTES).await?;
        if records.is_empty() {
            return Ok(all);
        }
        for r in records.iter().filter(|r| memmem::find(&r.payload, MARK).is_some()) {
            if let Record::Recovery(recovery) = decode(r)? {
                all.push((r.offset, recovery));
            }
        }
    }
}

/// The state right after a Recovery.
pub async fn recovered_state(store: &dyn Store, seq: Offset, r: &Recovery) -> Result<State> {
    let state = object(store, &store::recovery_state_name(&r.state.sha256), None).await?;
    let ids = object(store, &store::recovery_ids_name(&r.state.sha256), None).await?;
    recovery::restore(seq, r, &state, &ids)
}
