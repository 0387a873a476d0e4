//! Roots of the ledger: the chain, and what is wrong with one that breaks it.

use super::damage::Damage;
use super::evidence::place;
use super::finding::Finding;
use super::replay::{Replay, Step};
use crate::error::Result;
use crate::ledger::state::SignedRoot;
use crate::log::Offset;
use crate::store;
use crate::tuf::Envelope;
use crate::tuf::root::Root;

impl Replay<'_> {
    /// A root: its chain was checked when the ledger state took it, or did not.
    pub(super) async fn root(&mut self, seq: Offset, before: Option<&SignedRoot>, document: &str, void: bool) -> Step {
        let before = before.map(|b| &b.root);
        match verify(before, document.as_bytes()) {
            Ok(_) if void => {
                let what = "a root that should take effect and does not";
                self.find(Finding::new(Damage::RecordAltered, place(seq), what))
            }
            Ok(root) => {
                self.report.roots += 1;
                let keys = |id| root.keys.get(id).or_else(|| before.and_then(|b| b.keys.get(id)));
                let envelope = Envelope::open(document.as_bytes())?;
                let good =
                    envelope.signatures.iter().filter(|(id, s)| keys(id).is_some_and(|k| k.verify(envelope.signed, s)));
                self.report.signatures += good.count() as u64;
                Ok(())
            }
            // One of a version that was there already: a rival ceremony, or a repeat.
            Err(_) if void && Root::parse(document.as_bytes()).is_ok_and(|(r, _)| self.has_root(r.version)) => Ok(()),
            Err(e) => {
                let what = format!("a root that does not follow the one before it: {e}");
                let (current, parsed) = (before.map_or(0, |b| b.version), Root::parse(document.as_bytes()));
                let version = parsed.as_ref().map_or(0, |(root, _)| root.version);
                let finding = if version > current + 1 {
                    self.jump(seq, "root", current, version).await?
                } else {
                    // Where the stored one is right, the record has been altered since.
                    let stored = self.store.get(&store::metadata_name(current + 1, "root")).await?;
                    let stored = stored.is_some_and(|bytes| verify(before, &bytes).is_ok());
                    let signed = version == current + 1 && !stored;
                    let damage = if signed { Damage::BadSignature } else { Damage::RecordAltered };
                    Finding::new(damage, place(seq), what)
                };
                self.find(finding)
            }
        }
    }

    fn has_root(&self, version: u64) -> bool {
        self.state.root.as_ref().is_some_and(|r| version <= r.root.version)
    }
}

/// Verifies the root that follows one, or the first.
fn verify(before: Option<&Root>, document: &[u8]) -> Result<Root> {
    match before {
        None => Root::verify_first(document),
        Some(before) => Root::verify_next(before, document),
    }
}
