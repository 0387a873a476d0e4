//! The ledger looked over before it is replayed: which checkpoints there are and where, and the Recoveries.
//!
//! What does not decode is left out here: the replay names it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;

use memchr::memmem::Finder;

use super::replay::EMPTY_READS;
use crate::bins::{Sha256Digest, sha256};
use crate::error::{Error, Result};
use crate::ledger::Record;
use crate::ledger::record::Recovery;
use crate::log::{Log, Offset, Partition};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 1 << 20;

/// See the module. About 60 bytes a checkpoint.
#[derive(Default)]
pub(super) struct History {
    /// The Recoveries that are still to come, with their seqs.
    pub recoveries: VecDeque<(Offset, Box<Recovery>)>,
    /// By number, the first Checkpoint that no Recovery makes void: its seq, and the digest of its record.
    pub checkpoints: BTreeMap<u64, (Offset, Sha256Digest)>,
    /// The digest of the record that brings the first root: no two repositories have the same.
    pub root: Option<Sha256Digest>,
}

impl History {
    /// Reads the ledger up to `end`.
    pub async fn read(log: &dyn Log, end: Offset) -> Result<History> {
        // As they stand in canonical JSON. They cannot stand inside a string: there their quotes would be escaped.
        let marks = ["checkpoint", "recovery"].map(|kind| Finder::new(&format!("\"kind\":\"{kind}\"")).into_owned());
        let (mut history, mut reader) = (History::default(), log.reader(Partition::Ledger, 0));
        let (mut next, mut empty) = (0, 0);
        while next < end && empty < EMPTY_READS {
            let records = reader.read(READ_BYTES).await?;
            empty = if records.is_empty() { empty + 1 } else { 0 };
            for r in records {
                next = r.offset + 1;
                let wanted = history.root.is_none() || marks.iter().any(|mark| mark.find(&r.payload).is_some());
                match wanted.then(|| Record::decode(&r.payload)) {
                    Some(Ok(Record::Root(_))) if history.root.is_none() => history.root = Some(sha256(&r.payload)),
                    Some(Ok(Record::Checkpoint(c))) => {
                        history.checkpoints.entry(c.n).or_insert_with(|| (r.offset, sha256(&r.payload)));
                    }
                    Some(Ok(Record::Recovery(recovery))) => history.recoveries.push_back((r.offset, recovery)),
                    _ => {}
                }
            }
        }
        for (at, recovery) in &history.recoveries {
            history.checkpoints.retain(|_, (seq, _)| !(recovery.kept..*at).contains(seq));
        }
        Ok(history)
    }

    /// The seq and digest of the Checkpoint that an option of the command line names.
    ///
    /// # Errors
    /// `Invalid`, with the numbers that there are.
    pub fn named(&self, option: &str, n: u64) -> Result<(Offset, Sha256Digest)> {
        self.checkpoints.get(&n).copied().ok_or_else(|| {
            Error::invalid(option, format!("there is no checkpoint {n} in the ledger; {}", self.numbers()))
        })
    }

    /// `there are 1 to 7, 9 to 12`
    fn numbers(&self) -> String {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for n in self.checkpoints.keys() {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == *n => *last = *n,
                _ => runs.push((*n, *n)),
            }
        }
        let mut out = String::from(if runs.is_empty() { "there is none" } else { "there are" });
        for (i, (first, last)) in runs.iter().enumerate() {
            out.push_str(if i == 0 { " " } else { ", " });
            // Writing to a String does not fail.
            let _ = if first == last { write!(out, "{first}") } else { write!(out, "{first} to {last}") };
        }
        out
    }
}
