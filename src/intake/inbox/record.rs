//! An inbox record: a batch, or a refusal. The same for every intake, but for the algorithms that each one admits.

use serde::Deserialize;
use serde_json::Value;

use crate::bins::PartitionId;
use crate::change::{Batch, BatchRequest, check_id};
use crate::error::{Error, Result};
use crate::ledger::State;
use crate::ledger::ids::Seen;
use crate::ledger::inbox::{InboxPlace, REJECT_HEAD_BYTES, Reject, id_at};
use crate::log::{Offset, Record};

/// A batch of the inbox on its way.
pub struct Item {
    pub place: InboxPlace,
    pub batch: Batch,
    /// The first part of the record, for the case that it is refused yet.
    head: Vec<u8>,
    /// The basis that it has now: what its producer sent, else from the lookup of its id.
    pub basis: Offset,
    /// What the lookup found.
    known: Option<Seen>,
}

impl AsRef<Batch> for Item {
    fn as_ref(&self) -> &Batch {
        &self.batch
    }
}

/// What is to be done with an item that is not sequenced.
pub enum Next {
    /// It goes on its way.
    Send,
    /// It is decided: there is nothing to do, or to refuse.
    Done(Option<Reject>),
}

impl Item {
    /// Reads a record.
    pub fn read(
        partition: PartitionId,
        record: &Record,
        extra_hashes: &[String],
    ) -> std::result::Result<Item, Box<Reject>> {
        let place = (partition, record.offset);
        let parsed = BatchRequest::parse(&record.payload).and_then(|r| r.validate(|| id_at(place), extra_hashes));
        match parsed {
            Ok(batch) => {
                let head = record.payload[..record.payload.len().min(REJECT_HEAD_BYTES)].to_vec();
                Ok(Item { place, head, basis: batch.basis.unwrap_or(0), batch, known: None })
            }
            Err(e) => Err(Box::new(Reject::new(place, id_in(&record.payload), &e, &record.payload))),
        }
    }

    /// Its refusal.
    pub fn refuse(&self, error: &Error) -> Reject {
        Reject::new(self.place, Some(self.batch.id.clone()), error, &self.head)
    }

    /// Looks the id up. That it is known now is no verdict yet, for the place has to pass in the ledger; but a basis of
    /// where it is known makes sure that it cannot be taken for new once it is forgotten.
    pub fn look_up(&mut self, state: &State) {
        self.known = state.ids.get(&self.batch.id);
        self.basis = self.batch.basis.unwrap_or_else(|| self.known.map_or(state.basis(), |seen| seen.seq));
    }

    /// What is to be done, given what is read of the ledger. The same as any other intake finds, or has found: below
    /// the state's position its batch has not been sequenced, and above it a basis below the floor is void.
    pub fn next(&mut self, state: &State) -> Next {
        if state.inbox.has_passed(self.place) {
            return Next::Done(None);
        }
        if self.basis >= state.least_basis() {
            return Next::Send;
        }
        match (self.batch.basis, self.known) {
            (Some(basis), _) => Next::Done(Some(self.refuse(&beyond_horizon(basis)))),
            (None, Some(seen)) => Next::Done(self.conflict(seen)),
            (None, None) => {
                self.look_up(state);
                Next::Send
            }
        }
    }

    /// The refusal of one whose place has passed, if the ledger still knows the reason.
    pub fn refused_before(&self, state: &State) -> Option<Reject> {
        state.ids.get(&self.batch.id).and_then(|seen| self.conflict(seen))
    }

    /// The refusal if its id stands for other content.
    fn conflict(&self, seen: Seen) -> Option<Reject> {
        (seen.digest != self.batch.digest).then(|| self.refuse(&conflict(&self.batch.id, seen.seq)))
    }
}

/// The id stands for other content.
pub fn conflict(id: &str, first: Offset) -> Error {
    Error::conflict(format!("batch id {id:?} stands for other content since seq {first}"))
}

fn beyond_horizon(basis: Offset) -> Error {
    Error::indeterminate(format!(
        "the ledger has grown beyond the horizon since basis {basis}: look the id up with ?history=full and, if it is \
         not found, send it again with the basis of that answer"
    ))
}

/// Of a basis that no answer can have returned.
pub fn check_basis(item: &Item, end: Offset) -> Result<()> {
    match item.batch.basis {
        Some(basis) if basis >= end => {
            Err(Error::invalid("basis", format!("{basis} is beyond the end {end} of the ledger")))
        }
        _ => Ok(()),
    }
}

/// The id of what is no batch, if it has one.
fn id_in(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        id: Value,
    }
    let Named { id } = serde_json::from_slice(payload).ok()?;
    id.as_str().filter(|id| check_id(id).is_ok()).map(str::to_owned)
}
