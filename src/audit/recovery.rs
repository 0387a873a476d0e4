//! Over a Recovery: what stands before it is verified as far as it is there, the checkpoint that it names as it is
//! signed, and everything after it is rebuilt from that checkpoint's bins.

use bytes::Bytes;

use super::damage::Damage;
use super::evidence::place;
use super::finding::{Finding, RecoveryReport};
use super::objects::{Checked, Expect, Role, check_bytes};
use super::replay::{Replay, Step};
use crate::bins::sha256;
use crate::error::Kind;
use crate::ledger::Record;
use crate::ledger::record::{Recovery, SegmentRef};
use crate::ledger::state::OpenCut;
use crate::log::Offset;
use crate::recover;
use crate::store;
use crate::tuf::root::Root;

impl Replay<'_> {
    /// True if a segment is one that the next Recovery says is lost, and it is.
    pub(super) fn is_lost(&self, named: &SegmentRef, found: Option<&Bytes>) -> bool {
        let Some((_, next)) = self.history.recoveries.front() else { return false };
        let within =
            |(p, from, to): &(_, Offset, Offset)| *p == named.partition && (*from..*to).contains(&named.offset);
        next.lost_changes.iter().any(within) && found.is_none_or(|bytes| sha256(bytes) != named.digest)
    }

    /// A cut that cannot be rebuilt: only what the ledger brings itself is compared.
    pub(super) async fn pass_blindly(&mut self, open: &OpenCut) -> Step {
        self.bins()?.listed.account_cuts(open.n - 1, open.n);
        for root in &open.new_roots {
            self.stored_root(root.root.version, &root.document).await?;
        }
        Ok(())
    }

    async fn stored_root(&mut self, version: u64, document: &str) -> Step {
        let name = Role::Root.name(version, self.bins()?.layout);
        self.bins()?.listed.account(version, Role::Root);
        let stored = self.store.get(&name).await?;
        let expect = Expect { name, version, by: format!("root {version} of the ledger") };
        match check_bytes(&expect, stored.as_ref(), document.as_bytes()) {
            Checked::Right(verified) => self.count(&verified),
            Checked::Wrong(finding) => self.find(finding)?,
            Checked::Missing(_) => {} // of a cut that has perhaps no Checkpoint
        }
        Ok(())
    }

    /// Takes a Recovery, and passes over what it makes void. Answers whether the record is one of these.
    pub(super) async fn passes_over(&mut self, seq: Offset, record: &Record) -> Step<bool> {
        let Some((at, next)) = self.history.recoveries.front() else { return Ok(false) };
        let headless = self.state.layout.is_none() && !matches!(record, Record::Format(_));
        if seq < next.kept && !headless {
            return Ok(false);
        }
        if seq == *at {
            let from = self.blind.unwrap_or(self.state.next).min(next.kept);
            if let Some((_, recovery)) = self.history.recoveries.pop_front() {
                self.recovered(seq, &recovery, from).await?;
            }
        }
        self.report.records += 1;
        Ok(true)
    }

    /// Goes on from the checkpoint of a Recovery. `from` is the first seq whose effect was not rebuilt.
    async fn recovered(&mut self, seq: Offset, r: &Recovery, from: Offset) -> Step {
        if self.blind.take().is_none() {
            self.flush().await?;
        }
        (self.run, self.run_bytes, self.built) = (Vec::new(), 0, None);
        let (cut, root) = (self.state.cut, self.state.root.clone());
        self.state = match recover::recovered_state(&*self.store, seq, r).await {
            Err(e) if e.kind == Kind::Corrupt => {
                return Err(self.lost(Finding::new(Damage::RecordAltered, place(seq), e.message)));
            }
            state => state?,
        };
        if self.bins.is_none() {
            self.open_bins()?;
        }
        self.report.recoveries.push(RecoveryReport { checkpoint: r.n, from, to: seq });
        self.folds.settle(r.cut);
        let own = [store::recovery_state_name(&r.state.sha256), store::recovery_ids_name(&r.state.sha256)];
        let listed = &mut self.bins()?.listed;
        listed.account_cuts(cut, r.cut);
        listed.strangers.retain(|name| !own.contains(name));
        self.report.objects += 2;
        self.roots(root.map(|r| r.root.clone())).await?;
        self.load(seq + 1, r.n, &r.snapshot).await?;
        (self.previous_cut, self.gap, self.at_cut) = (seq, None, None);
        self.checkpoint_version = r.version;
        self.pointer_reached()
    }

    /// The chain of roots from the last one known up to that of the checkpoint.
    pub(super) async fn roots(&mut self, mut last: Option<Root>) -> Step {
        let Some(of_checkpoint) = self.state.cut_root.clone() else { return Ok(()) };
        while last.as_ref().is_none_or(|l| l.version < of_checkpoint.root.version) {
            let version = last.as_ref().map_or(0, |l| l.version) + 1;
            let name = store::metadata_name(version, "root");
            let Some(bytes) = self.store.get(&name).await? else {
                let what = format!("root {} comes after it", of_checkpoint.root.version);
                return Err(self.lost(Finding::new(Damage::ObjectMissing, name, what)));
            };
            let root = match &last {
                None => Root::verify_first(&bytes),
                Some(last) => Root::verify_next(last, &bytes),
            };
            let root = match root {
                Ok(root) => root,
                Err(e) => return Err(self.lost(Finding::new(Damage::ObjectAltered, name, e.message))),
            };
            self.report.roots += 1;
            self.bins()?.listed.account(version, Role::Root);
            last = Some(root);
        }
        self.stored_root(of_checkpoint.root.version, &of_checkpoint.document).await
    }

    /// What a recovery that was cut off leaves behind is nobody's: it is noted.
    pub(super) fn leftovers(&mut self) -> Step {
        let strangers = &mut self.bins()?.listed.strangers;
        let before = strangers.len();
        strangers.retain(|name| !name.starts_with(store::RECOVERY_PREFIX));
        if strangers.len() < before {
            let left = before - strangers.len();
            self.report.notes.push(format!("{left} objects of a recovery that was cut off: nothing needs them"));
        }
        Ok(())
    }
}
