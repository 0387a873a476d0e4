//! One partition of the inbox, on its way into the ledger.
//!
//! ```text
//!   reader ─► queue ─► chunk: what one Commit takes, sent until it is decided ─► told
//!        └──► refusals: appended before anything behind them is sent
//! ```

use std::collections::VecDeque;

use bytes::Bytes;

use super::record::{Item, Next, conflict};
use crate::error::Error;
use crate::intake::group;
use crate::ledger::State;
use crate::ledger::inbox::Reject;
use crate::log::{Offset, Reader};

/// See the module.
pub struct Line {
    /// Tells it from another line of the same partition, which this intake had before.
    pub number: u64,
    pub reader: Box<dyn Reader>,
    /// One past the last record read.
    pub behind: Offset,
    /// Read, and behind the chunk.
    pub queue: VecDeque<Item>,
    /// In flight, or not decided yet.
    pub chunk: Vec<Item>,
    /// To be written to `inbox-rejects` before anything else is sent.
    pub refusals: VecDeque<Bytes>,
    pub in_flight: bool,
    /// The seq of the last Commit that was answered.
    pub sent: Option<Offset>,
    /// What the group knows.
    pub told: Option<Offset>,
}

impl Line {
    pub fn new(number: u64, reader: Box<dyn Reader>, behind: Offset, told: Option<Offset>) -> Line {
        let (queue, chunk, refusals) = Default::default();
        Line { number, reader, behind, queue, chunk, refusals, in_flight: false, sent: None, told }
    }

    /// True when it has nothing but what it may read.
    pub fn is_idle(&self) -> bool {
        !self.in_flight && self.queue.is_empty() && self.chunk.is_empty() && self.refusals.is_empty()
    }

    /// Everything below it is decided, once there is no chunk and no refusal left.
    pub fn done(&self) -> Offset {
        self.queue.front().map_or(self.behind, |item| item.place.1)
    }

    pub fn refuse(&mut self, refusal: Reject) {
        self.refusals.push_back(refusal.encode());
    }

    /// The ledger has decided, by whoever's Commit, that the id of the record at an offset stands for other content.
    pub fn conflicts(&mut self, offset: Offset, first: Offset) {
        let found = self.chunk.iter().chain(&self.queue).find(|item| item.place.1 == offset);
        if let Some(refusal) = found.map(|item| item.refuse(&conflict(&item.batch.id, first))) {
            self.refuse(refusal);
        }
    }

    /// Drops what is decided.
    pub fn settle(&mut self, state: &State) {
        let refusals = &mut self.refusals;
        self.chunk.retain_mut(|item| match item.next(state) {
            Next::Send => true,
            Next::Done(refusal) => {
                refusals.extend(refusal.map(Reject::encode));
                false
            }
        });
    }

    /// Fills the empty chunk from the queue: what one Commit takes.
    pub fn fill(&mut self, state: &State) {
        self.sent = None;
        self.chunk = group::take(&mut self.queue);
        self.chunk.iter_mut().for_each(|item| item.look_up(state));
    }

    /// No Commit takes this chunk. A single batch that is too large is refused; else the first half is tried.
    pub fn too_much(&mut self, error: &Error) {
        self.sent = None;
        match self.chunk.len() {
            0 => {}
            1 => self.chunk.drain(..).for_each(|item| self.refusals.push_back(item.refuse(error).encode())),
            n => self.chunk.drain(n / 2..).rev().for_each(|item| self.queue.push_front(item)),
        }
    }
}
