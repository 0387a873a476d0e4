//! The end of an audit: what the ledger does not account for, and whether it has lost its own end.

use super::damage::Damage;
use super::evidence::place;
use super::finding::{Finding, Value};
use super::objects::{Checked, Expect, Role, check_bytes};
use super::replay::{Replay, Step};
use crate::store::{self, POINTER};

impl Replay<'_> {
    /// What remains when the ledger is read, or the last Checkpoint of the range is done.
    pub(super) async fn finish(&mut self) -> Step {
        self.state.layout()?;
        match self.last {
            Some(_) => self.leave_the_rest()?,
            None => {
                self.unfinished().await?;
                self.lost_end()?;
            }
        }
        let cut = self.state.cut;
        let unasked: Vec<Finding> = self.folds.unexpected(cut).map(|f| *f).collect();
        self.find_all(unasked)?;
        for root in self.state.new_roots.clone() {
            let version = root.root.version;
            let name = Role::Root.name(version, self.bins()?.layout);
            let stored = self.store.get(&name).await?;
            let expect = Expect { name, version, by: format!("root {version} of the ledger") };
            self.bins()?.listed.account(version, Role::Root);
            match check_bytes(&expect, stored.as_ref(), root.document.as_bytes()) {
                Checked::Right(verified) => self.count(&verified),
                Checked::Wrong(finding) => self.find(finding)?,
                Checked::Missing(_) => {} // it is published with the next cut
            }
        }
        self.leftovers()?;
        let listed = &self.bins()?.listed;
        let left: Vec<String> = listed.unexpected().chain(listed.strangers.iter().cloned()).collect();
        for name in left {
            let found = self.store.get(&name).await?.map(|b| Value::of(&b));
            let what = "nothing in the ledger accounts for it";
            self.find(Finding::new(Damage::ObjectAdded, name, what).values(None, found))?;
        }
        if self.last.is_some() {
            return Ok(());
        }
        let (finding, note) = self.pointer.finish(self.state.stamp.as_ref());
        self.report.notes.extend(note);
        finding.map_or(Ok(()), |finding| self.find(finding))
    }

    /// What is behind the range is not looked at.
    fn leave_the_rest(&mut self) -> Step {
        let cut = self.state.cut;
        let later: Vec<_> = self.history.recoveries.iter().map(|(_, r)| r.state.sha256).collect();
        let listed = &mut self.bins()?.listed;
        listed.account_cuts(cut, u64::MAX);
        listed.account_roots(u64::MAX);
        let of_later = |name: &String| {
            later
                .iter()
                .any(|sha256| *name == store::recovery_state_name(sha256) || *name == store::recovery_ids_name(sha256))
        };
        listed.strangers.retain(|name| !of_later(name));
        Ok(())
    }

    /// Looks for what was made of records that the ledger does not have any more. They stood behind its end.
    fn lost_end(&mut self) -> Step {
        let (cut, stamp) = (self.state.cut, self.state.stamp.as_ref());
        let root = stamp.map(|s| &s.root).or(self.state.root.as_ref()).map(|r| &r.root);
        let (version, ahead) = (stamp.map_or(0, |s| s.version), self.pointer.ahead(stamp, root));
        let reported = self.folds.last_cut().filter(|n| *n > cut);
        let mut shows = Vec::new();
        shows.extend(ahead.map(|is| format!("{POINTER} is version {is}, the ledger makes {version}")));
        shows.extend(reported.map(|n| format!("topic folds reports on cut {n}, the ledger comes to {cut}")));
        if shows.is_empty() {
            return Ok(());
        }
        let listed = &mut self.bins()?.listed;
        let objects = listed.count_cuts(cut, u64::MAX);
        if objects > 0 {
            shows.push(format!("{objects} objects are of later cuts"));
        }
        listed.account_cuts(cut, u64::MAX);
        listed.account_roots(u64::MAX);
        self.folds.forget_from(cut + 1);
        self.pointer.explain_beyond(version);
        let what = format!("the ledger has lost its end, or the store is another's: {}", shows.join("; "));
        self.find(Finding::new(Damage::RecordDropped, place(self.state.next), what))
    }
}
