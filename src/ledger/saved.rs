//! The ledger state as objects of the store, so that nobody needs the ledger from genesis.
//!
//! Written right after a Cut, so a pure function of the ledger up to it. The remembered ids are kept apart, in chunks
//! that each hold what was remembered since the chunk before: writing a state costs what happened since the last one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::Only;
use super::inbox::{Inbox, InboxPlace};
use super::record::{ObjectRef, Settings, StateRef, decode, encode};
use super::recovery::SavedRecovery;
use super::state::{IdsChunk, OpenCut, SignedRoot, Stamp, State};
use crate::bins::{Layout, PartitionId, sha256};
use crate::error::{Error, Result};
use crate::log::Offset;
use crate::tuf::root::Root;

/// A state object.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum StateRecord {
    /// The state right after a Cut.
    LedgerState(Box<Saved>),
    /// The state right after a Recovery, but for what that record says itself.
    RecoveredState(Box<SavedRecovery>),
}

/// The state right after a Cut. Roots are named by version.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    bins: u32,
    partitions: u32,
    settings_revision: u64,
    settings: Settings,
    floor: Offset,
    /// Whole documents, by rising version.
    roots: Vec<String>,
    root: u64,
    time: u64,
    done: u64,
    targets_time: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stamp: Option<SavedStamp>,
    cut: SavedCut,
    chunks: Vec<IdsChunk>,
    /// For each partition of the inbox one past the last record that is sequenced: `[partition, offset]`, by rising
    /// partition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inbox: Vec<InboxPlace>,
    /// The seq of the last Recovery; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recovered: Option<Offset>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SavedStamp {
    version: u64,
    n: u64,
    snapshot: ObjectRef,
    time: u64,
    expires: u64,
    root: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SavedCut {
    n: u64,
    seq: Offset,
    previous_time: u64,
    all: bool,
    targets: bool,
    wait: BTreeSet<PartitionId>,
    folds_from: Offset,
    ends: Vec<Offset>,
    root: u64,
    new_roots: Vec<u64>,
}

/// The objects of a state, and how its Checkpoint names them.
pub struct Objects {
    /// The state object.
    pub state: Bytes,
    /// The ids remembered since the chunk before.
    pub ids: Bytes,
    /// Their digests.
    pub digests: StateRef,
}

/// Renders the state, which must stand right after the Cut that it has open.
pub fn save(state: &State) -> Result<Objects> {
    let wrong = || Error::corrupt("a ledger state can be stored only right after a Cut");
    let (Some(open), Some(layout), Some(root)) = (&state.open, state.layout, &state.root) else { return Err(wrong()) };
    if state.next != open.seq + 1 {
        return Err(wrong());
    }
    let ids: Bytes = state.ids.lines_from(state.chunks.last().map_or(0, |c| c.upto + 1)).into();
    let own = IdsChunk { n: open.n, upto: open.seq, sha256: sha256(&ids) };
    let named = [Some(root), Some(&open.root), state.stamp.as_ref().map(|s| &s.root)];
    let named = named.into_iter().flatten().chain(&open.new_roots);
    let saved = Saved {
        bins: layout.bins(),
        partitions: layout.partitions().into(),
        settings_revision: state.settings_revision,
        settings: state.settings.clone(),
        floor: state.floor,
        roots: named.map(|r| (r.root.version, r.document.clone())).collect::<BTreeMap<_, _>>().into_values().collect(),
        root: root.root.version,
        time: state.time,
        done: state.done,
        targets_time: state.targets_time,
        stamp: state.stamp.as_ref().map(|s| SavedStamp {
            version: s.version,
            n: s.n,
            snapshot: s.snapshot.clone(),
            time: s.time,
            expires: s.expires,
            root: s.root.root.version,
        }),
        cut: SavedCut {
            n: open.n,
            seq: open.seq,
            previous_time: open.previous_time,
            all: open.all,
            targets: open.targets,
            wait: open.wait.clone(),
            folds_from: open.folds_from,
            ends: open.ends.clone(),
            root: open.root.root.version,
            new_roots: open.new_roots.iter().map(|r| r.root.version).collect(),
        },
        chunks: state.chunks.iter().cloned().chain([own.clone()]).collect(),
        inbox: state.inbox.iter().collect(),
        recovered: Some(state.recovered).filter(|seq| *seq > 0),
    };
    let bytes = encode(&StateRecord::LedgerState(Box::new(saved)));
    let digests = StateRef { sha256: sha256(&bytes), ids: own.sha256 };
    Ok(Objects { state: bytes, ids, digests })
}

impl Saved {
    /// Reads a state object.
    pub fn decode(bytes: &[u8]) -> Result<Saved> {
        match decode(bytes, &["ledger-state", "recovered-state"])? {
            StateRecord::LedgerState(saved) => Ok(*saved),
            StateRecord::RecoveredState(_) => Err(Error::corrupt("ledger state: it is that of a Recovery")),
        }
    }

    /// The cut it was written at, and its seq.
    pub fn cut(&self) -> (u64, Offset) {
        (self.cut.n, self.cut.seq)
    }

    /// Whether there was a Recovery before it.
    pub fn recovered(&self) -> bool {
        self.recovered.is_some()
    }

    /// The ids objects it needs, oldest first.
    pub fn chunks(&self) -> &[IdsChunk] {
        &self.chunks
    }

    /// The state, given the ids objects that [`Saved::chunks`] names; with `only` these ids of them.
    pub fn restore(self, chunks: &[Bytes], only: Option<&Only>) -> Result<State> {
        let layout =
            Layout::new(self.bins, self.partitions).map_err(|e| Error::corrupt(format!("ledger state: {e}")))?;
        let mut roots = BTreeMap::new();
        for document in self.roots {
            let (root, _) =
                Root::parse(document.as_bytes()).map_err(|e| Error::corrupt(format!("ledger state: {e}")))?;
            roots.insert(root.version, Arc::new(SignedRoot { root, document }));
        }
        let root_of = |version: u64| match roots.get(&version) {
            Some(root) => Ok(root.clone()),
            None => Err(Error::corrupt(format!("ledger state: names root {version} but does not hold it"))),
        };
        let mut state = State {
            next: self.cut.seq + 1,
            layout: Some(layout),
            settings_revision: self.settings_revision,
            settings: self.settings,
            floor: self.floor,
            recovered: self.recovered.unwrap_or(0),
            root: Some(root_of(self.root)?),
            cut_root: Some(root_of(self.cut.root)?),
            time: self.time,
            cut: self.cut.n,
            cut_time: self.time,
            cut_seq: self.cut.seq,
            done: self.done,
            targets_time: self.targets_time,
            ends: self.cut.ends.clone(),
            chunks: self.chunks,
            inbox: Inbox::from_iter(self.inbox),
            ..State::default()
        };
        if let Some(s) = self.stamp {
            let root = root_of(s.root)?;
            state.stamp = Some(Stamp {
                version: s.version,
                n: s.n,
                snapshot: s.snapshot,
                time: s.time,
                expires: s.expires,
                root,
            });
        }
        only.into_iter().for_each(|only| state.ids.limit_to(only));
        for (chunk, bytes) in state.chunks.iter().zip(chunks) {
            if sha256(bytes) != chunk.sha256 {
                return Err(Error::corrupt(format!(
                    "stored batch ids of cut {}: not the bytes that were stored",
                    chunk.n
                )));
            }
            state.ids.read_lines(bytes)?;
        }
        state.chunks.pop(); // its own: named by the Checkpoint that is still to come
        state.ids.stand_at(state.next, state.floor);
        state.open = Some(OpenCut {
            n: self.cut.n,
            seq: self.cut.seq,
            time: self.time,
            previous_time: self.cut.previous_time,
            all: self.cut.all,
            targets: self.cut.targets,
            wait: self.cut.wait,
            folds_from: self.cut.folds_from,
            ends: self.cut.ends,
            root: root_of(self.cut.root)?,
            new_roots: self.cut.new_roots.iter().map(|v| root_of(*v)).collect::<Result<_>>()?,
            settings: state.settings.clone(),
        });
        Ok(state)
    }
}
