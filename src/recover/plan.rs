//! What a Recovery says, as far as it can be known: from what is left of the ledger, from the store, and from what the
//! store alone still has.

use std::sync::Arc;

use super::read::Read;
use super::{object, state_at};
use crate::bins::{Layout, PartitionId};
use crate::error::{Error, Kind, Result};
use crate::ledger::State;
use crate::ledger::ids::Ids;
use crate::ledger::inbox::Inbox;
use crate::ledger::record::{ObjectRef, Settings};
use crate::ledger::saved::Saved;
use crate::ledger::state::SignedRoot;
use crate::log::{Log, Offset, Partition};
use crate::store::{self, Store};
use crate::tuf::envelope::Envelope;
use crate::tuf::parse::{self, Timestamp};
use crate::tuf::root::Root;

/// What a Recovery is made of.
pub struct Plan {
    pub(super) layout: Layout,
    pub(super) settings: (u64, Settings),
    pub(super) floor: Offset,
    pub(super) ids: Ids,
    pub(super) inbox: Inbox,
    pub(super) roots: Vec<Arc<SignedRoot>>,
    pub(super) n: u64,
    pub(super) snapshot: ObjectRef,
    pub(super) version: u64,
    pub(super) time: u64,
    pub(super) expires: u64,
    pub(super) kept: Offset,
    pub(super) cut: u64,
    pub(super) lost: Vec<(Offset, Offset)>,
    pub(super) lost_changes: Vec<(PartitionId, Offset, Offset)>,
    /// No record that counts may stand below it.
    pub(super) free_from: Offset,
}

/// What is published.
pub struct Base {
    pub n: u64,
    pub snapshot: ObjectRef,
    pub version: u64,
    /// When it was made, if the ledger says so.
    pub time: Option<u64>,
    pub expires: u64,
    /// The root that signs it, if the ledger says so.
    pub root: Option<Arc<SignedRoot>>,
}

/// The checkpoint to go on from: the published one, or the one that is about to be.
pub async fn base(log: &dyn Log, store: &dyn Store, read: &Read, pointer: Option<&Timestamp>) -> Result<Base> {
    let stamp = read.state.stamp.as_ref();
    if let Some(s) = stamp {
        let other = "the store does not hold what the ledger says is published: it is older than the ledger, or of \
                     another one; put the right one back";
        super::snapshot(store, s.n, &s.snapshot, &s.root.root).await.map_err(|e| e.context(other))?;
    }
    match (pointer, stamp) {
        (Some(p), _) if p.version > stamp.map_or(0, |s| s.version) => {
            let snapshot = ObjectRef { length: p.snapshot.length, sha256: p.snapshot.sha256 };
            if stamp.is_some_and(|s| s.n > p.snapshot.version || s.n == p.snapshot.version && s.snapshot != snapshot) {
                return Err(Error::corrupt(
                    "the store is of another ledger, or this one has gone on after records were lost",
                ));
            }
            let (n, version, expires) = (p.snapshot.version, p.version, p.expires);
            Ok(Base { n, snapshot, version, time: None, expires, root: None })
        }
        (_, Some(s)) => {
            let (snapshot, root) = (s.snapshot.clone(), Some(s.root.clone()));
            Ok(Base { n: s.n, snapshot, version: s.version, time: Some(s.time), expires: s.expires, root })
        }
        _ if log.end(Partition::Ledger).await? == 0 => {
            Err(Error::invalid("data", "the ledger is empty and nothing is published: run `tuflog init` first"))
        }
        _ => Err(Error::invalid("data", "nothing is published yet: there is nothing to go back to")),
    }
}

/// The stored ledger state of the last cut up to `n` that can be read; what is damaged is passed over.
pub async fn stored(store: &dyn Store, n: u64) -> Result<Option<State>> {
    for n in stored_states(store).await?.into_iter().rev().filter(|of| *of <= n) {
        let restored = async {
            let saved = Saved::decode(&object(store, &store::ledger_state_name(n), None).await?)?;
            let mut chunks = Vec::new();
            for chunk in saved.chunks() {
                chunks.push(object(store, &store::ledger_ids_name(chunk.n), None).await?);
            }
            saved.restore(&chunks, None)
        };
        match restored.await {
            Err(e) if e.kind == Kind::Corrupt => {}
            restored => return restored.map(Some),
        }
    }
    Ok(None)
}

/// Number and seq of the last cut that stored a ledger state.
pub async fn last_stored(store: &dyn Store) -> Result<Option<(u64, Offset)>> {
    let Some(n) = stored_states(store).await?.pop() else { return Ok(None) };
    let bytes = object(store, &store::ledger_state_name(n), None).await?;
    Ok(Saved::decode(&bytes).ok().map(|saved| saved.cut()))
}

async fn stored_states(store: &dyn Store) -> Result<Vec<u64>> {
    let number = |name: &String| name.strip_prefix("ledger/")?.strip_suffix(".state.json")?.parse().ok();
    let mut all: Vec<u64> = store.list("ledger/").await?.iter().filter_map(number).collect();
    all.sort_unstable();
    Ok(all)
}

/// Puts together what is known.
pub async fn plan(
    log: &dyn Log,
    store: &dyn Store,
    read: &Read,
    base: Base,
    stored: Option<&State>,
    partitions: Option<PartitionId>,
) -> Result<Plan> {
    let Base { n, snapshot, version, expires, .. } = base;
    let kept = read.cuts.get(&n).map_or(read.end, |seq| seq + 1);
    let own = match read.state.layout {
        None => State::default(),
        Some(_) if kept <= read.state.recovered => read.state.clone(),
        Some(_) => state_at(log, store, kept).await?,
    };
    // The one that knows more of the ids.
    let best = stored.filter(|s| s.next > own.next && !read.cuts.contains_key(&n)).unwrap_or(&own);
    let settings = [Some(&read.state), Some(&own), stored].into_iter().flatten().max_by_key(|s| s.settings_revision);
    let settings = settings.map_or_else(Default::default, |s| (s.settings_revision.max(1), s.settings.clone()));
    let roots = roots(store, read, n, &snapshot, base.root).await?;
    let layout = match read.state.layout.or(stored.and_then(|s| s.layout)) {
        Some(layout) => layout,
        None => layout(store, n, &snapshot, &roots[0].root, partitions).await?,
    };
    let made = expires.saturating_sub(settings.1.timestamp_expiry_s).max(best.time).max(read.state.time);
    let time = base.time.unwrap_or(made.min(expires));
    let cut = last_cut(store).await?.max(read.state.cut).max(n + 1);
    let (floor, ids, inbox) = (best.floor, best.ids.clone(), best.inbox.clone());
    let (lost, lost_changes, free_from) = (vec![], vec![], 0);
    Ok(Plan {
        layout,
        settings,
        floor,
        ids,
        inbox,
        roots,
        n,
        snapshot,
        version,
        time,
        expires,
        kept,
        cut,
        lost,
        lost_changes,
        free_from,
    })
}

/// The root that signed the checkpoint, and all newer ones that the ledger or a client may know.
async fn roots(
    store: &dyn Store,
    read: &Read,
    n: u64,
    named: &ObjectRef,
    root: Option<Arc<SignedRoot>>,
) -> Result<Vec<Arc<SignedRoot>>> {
    let mut all = read.roots.clone();
    loop {
        let last = all.last_key_value().map(|(_, r)| r.clone());
        let name = store::metadata_name(last.as_ref().map_or(0, |r| r.root.version) + 1, "root");
        let Some(bytes) = store.get(&name).await? else { break };
        let root = match &last {
            None => Root::verify_first(&bytes),
            Some(last) => Root::verify_next(&last.root, &bytes),
        };
        let root = root.map_err(|e| e.context(&name))?;
        let document = String::from_utf8(bytes.to_vec()).map_err(|_| Error::corrupt(format!("{name} is no text")))?;
        all.insert(root.version, Arc::new(SignedRoot { root, document }));
    }
    let first = match root {
        Some(root) => root.root.version,
        None => {
            let pointer = object(store, store::POINTER, None).await?;
            let mut found = None;
            for root in all.values().rev() {
                let envelope = Envelope::open(&pointer)?;
                let signed = envelope.verify(&root.root.keys, &root.root.timestamp).is_ok()
                    && super::snapshot(store, n, named, &root.root).await.is_ok();
                if signed {
                    found = Some(root.root.version);
                    break;
                }
            }
            found.ok_or_else(|| {
                Error::corrupt("no root that is known has signed the published timestamp and its snapshot")
            })?
        }
    };
    Ok(all.range(first..).map(|(_, r)| r.clone()).collect())
}

/// The layout as targets.json and the caller say.
async fn layout(
    store: &dyn Store,
    n: u64,
    snapshot: &ObjectRef,
    root: &Root,
    partitions: Option<PartitionId>,
) -> Result<Layout> {
    let targets = super::snapshot(store, n, snapshot, root).await?.targets;
    let name = store::metadata_name(targets.version, "targets");
    let bytes = object(store, &name, Some(&ObjectRef { length: targets.length, sha256: targets.sha256 })).await?;
    let bits = parse::parse_targets(Envelope::open(&bytes)?.signed)?.bit_length;
    let unknown = "the ledger is empty and no stored ledger state says how many partitions there were: say it";
    let partitions = partitions.ok_or_else(|| Error::invalid("--partitions", unknown))?;
    Layout::new(1u32.checked_shl(bits.into()).unwrap_or(0), partitions.into())
}

/// The highest number that a cut can have had. A cut that has no snapshot yet is one more than the last that has.
async fn last_cut(store: &dyn Store) -> Result<u64> {
    let names = store.list("metadata/").await?;
    let number = |name: &String| {
        let (n, role) = name.strip_prefix("metadata/")?.split_once('.')?;
        let n: u64 = n.parse().ok().filter(|_| role != "root.json")?;
        Some(if role == "snapshot.json" { n + 1 } else { n })
    };
    Ok(names.iter().filter_map(number).max().unwrap_or(0))
}
