//! The state after records were lost: what a Recovery and the stored object that it names come to.
//!
//! Owns the rule that nothing from before a Recovery counts after it but what the object says: every reader, wherever
//! it comes from, goes on from the same state. That state is as if checkpoint `n` had just been completed, but for
//!
//! - the floor of bases: the Recovery's own seq, so that what was on its way before is void for ever;
//! - the number of the next cut, which no cut before can have had, so that no object gets a name for the second time;
//! - everything is rendered anew at that cut: which settings and slots applied to what is published may not be known.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::Ids;
use super::inbox::{Inbox, InboxPlace};
use super::record::{Recovery, Settings, StateRef, decode, encode};
use super::saved::{Objects, StateRecord};
use super::state::{SignedRoot, Stamp, State};
use crate::bins::{Layout, sha256};
use crate::error::{Error, Result};
use crate::log::Offset;
use crate::tuf::root::Root;

/// The state right after a Recovery, but for what that record says itself. Roots are named by version.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SavedRecovery {
    bins: u32,
    partitions: u32,
    settings_revision: u64,
    settings: Settings,
    floor: Offset,
    /// Whole documents: that of the checkpoint, and the newer ones.
    roots: Vec<String>,
    /// For each partition of the inbox one past the last record that is known to be sequenced: `[partition, offset]`,
    /// by rising partition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inbox: Vec<InboxPlace>,
}

/// What is known when records were lost.
pub struct Known<'a> {
    /// The repository's layout.
    pub layout: Layout,
    /// The settings in force, and their number.
    pub settings: (u64, Settings),
    /// As far as it is known: what was forgotten stays forgotten.
    pub floor: Offset,
    /// The batch ids remembered.
    pub ids: &'a Ids,
    /// How far the inbox is sequenced.
    pub inbox: &'a Inbox,
    /// The root of the checkpoint, and the newer ones.
    pub roots: &'a [Arc<SignedRoot>],
}

/// Renders what a Recovery names.
pub fn save(known: &Known<'_>) -> Objects {
    let (settings_revision, settings) = known.settings.clone();
    let saved = SavedRecovery {
        bins: known.layout.bins(),
        partitions: known.layout.partitions().into(),
        settings_revision,
        settings,
        floor: known.floor,
        roots: known.roots.iter().map(|r| r.document.clone()).collect(),
        inbox: known.inbox.iter().collect(),
    };
    let state = encode(&StateRecord::RecoveredState(Box::new(saved)));
    let ids: Bytes = known.ids.lines_from(0).into();
    let digests = StateRef { sha256: sha256(&state), ids: sha256(&ids) };
    Objects { state, ids, digests }
}

/// The state right after the Recovery at `seq`, given the two objects that it names.
pub fn restore(seq: Offset, recovery: &Recovery, state: &Bytes, ids: &Bytes) -> Result<State> {
    let corrupt = |why: String| Error::corrupt(format!("the ledger state of the Recovery at seq {seq}: {why}"));
    if (sha256(state), sha256(ids)) != (recovery.state.sha256, recovery.state.ids) {
        return Err(corrupt("not the bytes that it names".into()));
    }
    let saved = match decode(state, &["ledger-state", "recovered-state"])? {
        StateRecord::RecoveredState(saved) => *saved,
        StateRecord::LedgerState(_) => return Err(corrupt("it is that of a Cut".into())),
    };
    let layout = Layout::new(saved.bins, saved.partitions).map_err(|e| corrupt(e.to_string()))?;
    let mut roots = Vec::with_capacity(saved.roots.len());
    for document in saved.roots {
        let (root, _) = Root::parse(document.as_bytes()).map_err(|e| corrupt(e.to_string()))?;
        roots.push(Arc::new(SignedRoot { root, document }));
    }
    let (Some(cut_root), Some(root)) = (roots.first().cloned(), roots.last().cloned()) else {
        return Err(corrupt("it holds no root".into()));
    };
    if recovery.ends.len() != usize::from(layout.partitions()) {
        return Err(corrupt("the Recovery names the ends of another number of partitions".into()));
    }
    let mut remembered = Ids::default();
    remembered.read_lines(ids)?;
    let floor = saved.floor.max(seq.saturating_sub(saved.settings.horizon));
    remembered.stand_at(seq + 1, floor);
    Ok(State {
        next: seq + 1,
        layout: Some(layout),
        settings_revision: saved.settings_revision,
        settings: saved.settings,
        floor,
        recovered: seq,
        ids: remembered,
        inbox: Inbox::from_iter(saved.inbox),
        root: Some(root),
        new_roots: roots.split_off(1),
        cut_root: Some(cut_root.clone()),
        render_all: true,
        time: recovery.time,
        cut: recovery.cut,
        cut_time: recovery.time,
        cut_seq: seq,
        done: recovery.cut,
        targets_time: recovery.time,
        stamp: Some(Stamp {
            version: recovery.version,
            n: recovery.n,
            snapshot: recovery.snapshot.clone(),
            time: recovery.time,
            expires: recovery.expires,
            root: cut_root,
        }),
        touched: BTreeSet::new(),
        ends: recovery.ends.clone(),
        open: None,
        chunks: Vec::new(),
    })
}
