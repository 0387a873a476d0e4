//! Who waits for which batch. Answers come from the ledger as read; what an append said only ever ends a hope.

use std::collections::HashMap;

use tokio::sync::oneshot;

use super::Receipt;
use crate::bins::Sha256Digest;
use crate::error::{Error, Result};
use crate::log::Offset;

struct Waiter {
    digest: Sha256Digest,
    basis: Offset,
    reply: oneshot::Sender<Result<Receipt>>,
}

/// The batches that are accepted and not decided, by id.
#[derive(Default)]
pub struct Waiting {
    by_id: HashMap<String, Vec<Waiter>>,
    /// At most the lowest basis of any waiter.
    lowest: Option<Offset>,
}

impl Waiting {
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn add(&mut self, id: &str, digest: Sha256Digest, basis: Offset, reply: oneshot::Sender<Result<Receipt>>) {
        self.lowest = Some(self.lowest.map_or(basis, |l| l.min(basis)));
        self.by_id.entry(id.to_owned()).or_default().push(Waiter { digest, basis, reply });
    }

    /// True while somebody waits for this very content.
    pub fn is_open(&self, id: &str, digest: Sha256Digest) -> bool {
        self.by_id.get(id).is_some_and(|w| w.iter().any(|w| w.digest == digest))
    }

    /// Answers all who wait for an id, given each one's digest and basis.
    pub fn decide(&mut self, id: &str, answer: impl Fn(Sha256Digest, Offset) -> Result<Receipt>) {
        for w in self.by_id.remove(id).into_iter().flatten() {
            let _ = w.reply.send(answer(w.digest, w.basis));
        }
    }

    /// Tells those who wait for this very content that its appends failed; after `Indeterminate` they learn the basis
    /// to try again with.
    pub fn fail(&mut self, id: &str, digest: Sha256Digest, error: &Error) {
        let Some(waiters) = self.by_id.get_mut(id) else { return };
        for w in waiters.extract_if(.., |w| w.digest == digest) {
            let _ = w.reply.send(Err(Error { basis: Some(w.basis), ..error.clone() }));
        }
        if waiters.is_empty() {
            self.by_id.remove(id);
        }
    }

    /// Answers those whose basis fell below the floor: no Commit of theirs can be valid any more.
    pub fn expire(&mut self, floor: Offset, error: impl Fn() -> Error) {
        if self.lowest.is_none_or(|lowest| lowest >= floor) {
            return;
        }
        for waiters in self.by_id.values_mut() {
            for w in waiters.extract_if(.., |w| w.basis < floor) {
                let _ = w.reply.send(Err(error()));
            }
        }
        self.by_id.retain(|_, waiters| !waiters.is_empty());
        self.lowest = self.by_id.values().flatten().map(|w| w.basis).min();
    }
}
