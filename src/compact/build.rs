//! The snapshot of a cut: what it holds, and the order in which it is stored.

use bytes::Bytes;

use super::Compactor;
use super::entries::Entries;
use crate::error::{Error, Result};
use crate::ledger::record::{Checkpoint, ObjectRef, StateRef};
use crate::ledger::state::OpenCut;
use crate::ledger::{FoldReport, Record, saved};
use crate::recover;
use crate::store;
use crate::tuf::role::{self, Meta};

impl Compactor {
    /// Builds the open cut's snapshot once every partition has reported, and appends its Checkpoint.
    pub(super) async fn build(&mut self, open: &OpenCut) -> Result<bool> {
        let mut reports = Vec::with_capacity(open.wait.len());
        for partition in &open.wait {
            let Some(report) = self.reports.get(&(open.n, *partition)).and_then(FoldReport::join) else {
                return Ok(false);
            };
            reports.push(report);
        }
        if !self.my_turn(self.parts.clock.ticks_ms()) {
            return Ok(false);
        }
        for r in &reports {
            let end = open.ends[usize::from(r.partition)];
            if r.offset != end {
                let what = format!("partition {} reports offset {}, the ledger says {end}", r.partition, r.offset);
                return Err(Error::corrupt(what));
            }
        }
        let mut names = Vec::new();
        let (mut entries, last_targets) = self.entries_before(open).await?;
        entries.update(reports.iter().flat_map(|r| r.bins.iter().map(|b| b.bin)), open.n)?;
        for root in &open.new_roots {
            let name = store::metadata_name(root.root.version, "root");
            store::create_same(&*self.parts.store, &name, Bytes::from(root.document.clone())).await?;
            names.push(name);
        }
        let targets = match (open.targets, last_targets) {
            (false, Some(meta)) => meta,
            _ => {
                let (keys, expires) = (&open.root.root.targets.key_ids, open.time + open.settings.targets_expiry_s);
                let signers = self.parts.keys.signers(keys)?;
                let bits = self.follower.state.layout()?.bit_length();
                let file = role::targets(&signers, open.n, expires, &open.root.root, bits);
                let meta = self.put(&mut names, open.n, "targets", file.into()).await?;
                // The snapshot holds its digest. Were only the snapshot to survive a power loss, the next targets.json
                // might have another signature (of a signer that is not deterministic), and the snapshot be wrong.
                self.parts.store.sync(&names).await?;
                meta
            }
        };
        let signers = self.parts.keys.signers(&open.root.root.snapshot.key_ids)?;
        let (n, expires) = (open.n, open.time + open.settings.snapshot_expiry_s);
        let (file, entries) = self
            .parts
            .pool
            .run_on(entries.rendered().len(), move || {
                (role::snapshot(&signers, n, expires, &targets, entries.rendered()), entries)
            })
            .await;
        let snapshot = self.put(&mut names, open.n, "snapshot", file.into()).await?;
        let mut state = None;
        if let Some(saved::Objects { state: bytes, ids, digests: StateRef { sha256, ids: ids_sha256 } }) =
            &self.state_objects
        {
            for (name, bytes) in [(store::ledger_state_name(n), bytes), (store::ledger_ids_name(n), ids)] {
                store::create_same(&*self.parts.store, &name, bytes.clone()).await?;
                names.push(name);
            }
            state = Some(StateRef { sha256: *sha256, ids: *ids_sha256 });
        }
        self.parts.store.sync(&names).await?;
        self.built = Some((n, entries, targets));
        let snapshot = ObjectRef { length: snapshot.length, sha256: snapshot.sha256 };
        let checkpoint = Checkpoint { n, seq: open.seq, snapshot, state, ends: open.ends.clone() };
        self.append(Record::Checkpoint(checkpoint)).await
    }

    async fn put(&self, names: &mut Vec<String>, version: u64, role: &str, file: Bytes) -> Result<Meta> {
        let name = store::metadata_name(version, role);
        let stored = store::create_signed(&*self.parts.store, &name, file).await?;
        names.push(name);
        Ok(Meta::of(version, &stored))
    }

    /// The entries of the checkpoint before the open cut, and its targets.json.
    async fn entries_before(&mut self, open: &OpenCut) -> Result<(Entries, Option<Meta>)> {
        let layout = self.follower.state.layout()?;
        let Some(stamp) = &self.follower.state.stamp else { return Ok((Entries::first(layout), None)) };
        if let Some((n, entries, targets)) = &self.last
            && *n == open.n - 1
        {
            return Ok((entries.clone(), Some(*targets)));
        }
        let snapshot = recover::snapshot(&*self.parts.store, stamp.n, &stamp.snapshot, &stamp.root.root).await?;
        Ok((Entries::of_snapshot(layout, &snapshot.bins)?, Some(snapshot.targets)))
    }
}
