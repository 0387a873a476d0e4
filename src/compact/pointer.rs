//! The pointer: timestamp.json follows from the ledger, so anybody may move it, and it only moves up.

use super::{Compactor, Published};
use crate::error::Result;
use crate::recover;
use crate::store;
use crate::tuf::envelope::Envelope;
use crate::tuf::parse;
use crate::tuf::role::{self, Meta};

impl Compactor {
    /// True for the compactor that made the cut, and for another once it has waited out its patience.
    fn may_move(&mut self, n: u64) -> bool {
        let ticks = self.parts.clock.ticks_ms();
        let since = *self.pointer_since.get_or_insert(ticks);
        self.parts.acts && (self.own_cut == n || ticks >= since + self.parts.patience_ms)
    }

    /// Moves timestamp.json to where the ledger says. Anybody may: its content follows from the ledger.
    pub(super) async fn move_pointer(&mut self) -> Result<bool> {
        let Some(stamp) = self.follower.state.stamp.clone().filter(|s| s.version > self.pointer) else {
            return Ok(false);
        };
        let old = self.parts.store.get(store::POINTER).await?;
        let version = match &old {
            None => 0,
            Some(bytes) => parse::parse_timestamp(Envelope::open(bytes)?.signed)?.version,
        };
        if version < stamp.version {
            if !self.may_move(stamp.n) {
                return Ok(false);
            }
            if self.last.as_ref().is_none_or(|(n, ..)| *n != stamp.n) {
                // Not built here: it was stored before its Checkpoint was appended, unless the store lost it since.
                recover::snapshot(&*self.parts.store, stamp.n, &stamp.snapshot, &stamp.root.root).await?;
            }
            let signers = self.parts.keys.signers(&stamp.root.root.timestamp.key_ids)?;
            let meta = Meta { version: stamp.n, length: stamp.snapshot.length, sha256: stamp.snapshot.sha256 };
            let new = role::timestamp(&signers, stamp.version, stamp.expires, &meta);
            if !self.parts.store.swap_pointer(old.as_ref(), new.into()).await? {
                return Ok(true); // somebody else moved it: read it again
            }
        }
        (self.pointer, self.pointer_since) = (version.max(stamp.version), None);
        if version <= stamp.version {
            let seq = self.cut_seqs.get(&stamp.n).copied().unwrap_or(0);
            self.cut_seqs.retain(|n, _| *n >= stamp.n);
            self.parts.published.send_replace(Published { version: stamp.version, n: stamp.n, seq });
        }
        Ok(true)
    }
}
