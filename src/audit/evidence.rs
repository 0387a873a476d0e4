//! What the parts of the log say of each other: where a record is not what it was, which of the kinds of damage it is.
//!
//! Every Checkpoint says at which seq its Cut stood, up to where each partition was read, and which snapshot it made.
//! A Cut that stands elsewhere now has lost records before it or gained some, and later ones show whether these only
//! stand in another place. Two readings may remain; the likelier is chosen, and the text says so.
//!
//! Reads the log again, but only where something is wrong.

use std::collections::HashMap;

use super::damage::Damage;
use super::finding::Finding;
use super::objects::around_expiry;
use super::replay::{Replay, Step};
use crate::bins::{Bin, PartitionId, sha256};
use crate::clock::{format_utc, parse_utc};
use crate::error::Result;
use crate::ledger::record::{Checkpoint, Commit};
use crate::ledger::state::OpenCut;
use crate::ledger::{FoldReport, Record};
use crate::log::{self, Offset, Partition};
use crate::store;
use crate::tuf::Envelope;

/// How much is read at once, in bytes.
const READ_BYTES: usize = 1 << 20;

/// The place of a ledger record, for a finding.
pub(super) fn place(seq: Offset) -> String {
    format!("ledger seq {seq}")
}

/// A record that is gone from before a seq.
fn before(seq: Offset) -> String {
    format!("a record before ledger seq {seq}")
}

impl Replay<'_> {
    /// The records of the ledger in `[from, to)`.
    async fn stretch(&self, from: Offset, to: Offset) -> Result<Vec<log::Record>> {
        let (mut reader, mut all) = (self.log.reader(Partition::Ledger, from), Vec::new());
        loop {
            let records = reader.read(READ_BYTES).await?;
            let over = records.last().is_none_or(|r| r.offset >= to);
            all.extend(records.into_iter().filter(|r| r.offset < to));
            if over {
                return Ok(all);
            }
        }
    }

    /// The record at a seq, if there is one that can be read.
    pub(super) async fn record_at(&self, seq: Offset) -> Result<Option<Record>> {
        let found = self.log.fetch(Partition::Ledger, seq).await?;
        Ok(found.and_then(|r| Record::decode(&r.payload).ok()))
    }

    /// Checkpoint `n`, wherever it stands, with its seq.
    pub(super) async fn checkpoint_of(&self, n: u64) -> Result<Option<(Offset, Checkpoint)>> {
        let Some((seq, _)) = self.history.checkpoints.get(&n).copied() else { return Ok(None) };
        let decoded = match self.ahead.binary_search_by_key(&seq, |r| r.offset) {
            Ok(at) => Record::decode(&self.ahead[at].payload).ok(),
            Err(_) => self.record_at(seq).await?,
        };
        Ok(match decoded {
            Some(Record::Checkpoint(c)) => Some((seq, c)),
            _ => None,
        })
    }

    /// Compares a Cut with what its Checkpoint says of it: what does not agree has to do with the records up to here,
    /// not with the objects.
    pub(super) async fn foreseen(&mut self, open: &OpenCut) -> Step<Option<Checkpoint>> {
        let Some((at, c)) = self.checkpoint_of(open.n).await?.filter(|(at, _)| *at > open.seq) else { return Ok(None) };
        if (c.seq, &c.ends) != (open.seq, &open.ends) {
            let finding = self.displaced(open, at, &c).await?;
            return Err(self.lost(finding));
        }
        if let Some(finding) = self.by_objects(open, &c).await? {
            self.find(finding)?;
        }
        Ok(Some(c))
    }

    /// A Cut that is not where its Checkpoint, at seq `at`, says that it was, or not of the same segments.
    async fn displaced(&self, open: &OpenCut, at: Offset, c: &Checkpoint) -> Result<Box<Finding>> {
        let (n, from) = (open.n, self.previous_cut);
        let says = format!("Checkpoint {n} says that its Cut stood at seq {}, it stands at {}", c.seq, open.seq);
        let altered = |seq, what: String| Finding::new(Damage::RecordAltered, place(seq), what);
        if c.ends.len() != open.ends.len() {
            let (seq, or) = if n == 1 { (0, "the Format") } else { (at, "it") };
            let what = format!(
                "Checkpoint {n} names the ends of {} partitions, of {}: {or} is altered",
                c.ends.len(),
                open.ends.len()
            );
            return Ok(altered(seq, what));
        }
        let next_stands = match self.checkpoint_of(n + 1).await? {
            Some((_, next)) => {
                Some(matches!(self.record_at(next.seq).await?, Some(Record::Cut(cut)) if cut.n == n + 1))
            }
            None => None,
        };
        if c.seq > open.seq {
            let behind = self.stretch(open.seq + 1, c.seq + 1).await?;
            let records: Vec<(Offset, Record)> =
                behind.iter().filter_map(|r| Some((r.offset, Record::decode(&r.payload).ok()?))).collect();
            let mut ends = open.ends.clone();
            records.iter().for_each(|(_, record)| extend(&mut ends, record));
            let of_its_own = |(_, r): &&(Offset, Record)| !matches!(r, Record::Checkpoint(c) if c.n == n);
            let moved = records.iter().find(of_its_own).filter(|_| {
                (ends == c.ends && ends != open.ends) || (open.ends == c.ends && next_stands == Some(true))
            });
            if let Some((seq, _)) = moved {
                let what = format!("{says}: record {seq} was appended before it");
                return Ok(Finding::new(Damage::RecordReordered, place(open.seq), what));
            }
            if next_stands == Some(true) && open.ends == c.ends {
                return Ok(altered(at, format!("{says}, as the Cut after it does: this Checkpoint is altered")));
            }
            let what = format!("{says}: {} fewer after seq {from} than there were", c.seq - open.seq);
            return Ok(Finding::new(Damage::RecordDropped, before(open.seq), what));
        }
        if c.seq < open.seq {
            if let Some((seq, first)) = self.repeat(from, open.seq).await? {
                let what = format!("the same bytes stand at seq {first}; {says}");
                return Ok(Finding::new(Damage::RecordDuplicated, place(seq), what));
            }
            if next_stands == Some(true) && c.seq + 1 == open.seq {
                let what = format!("{says}: record {} was appended behind it", c.seq);
                return Ok(Finding::new(Damage::RecordReordered, place(open.seq), what));
            }
            if next_stands == Some(true) {
                return Ok(altered(at, format!("{says}, as the Cut after it does: this Checkpoint is altered")));
            }
            let what = format!("{says}: a record was put in after seq {from}, or records stand in another order");
            return Ok(Finding::new(Damage::RecordAdded, place(open.seq), what));
        }
        let ends =
            format!("Checkpoint {n} says that the partitions end at {:?}, the ledger says {:?}", c.ends, open.ends);
        if self.gap.is_some() {
            let what = format!("{ends}: a Commit after seq {from} is gone");
            return Ok(Finding::new(Damage::RecordDropped, before(open.seq), what));
        }
        let other = open.ends.iter().zip(&c.ends).position(|(is, says)| is != says).unwrap_or(0);
        if self.reported(n, other as PartitionId).await?.iter().any(|report| report.offset == open.ends[other]) {
            return Ok(altered(
                at,
                format!("{ends}, as the report of partition {other} does: this Checkpoint is altered"),
            ));
        }
        let is_commit = |r: &&log::Record| matches!(Record::decode(&r.payload), Ok(Record::Commit(_)));
        let between = self.stretch(from, open.seq).await?;
        let commits: Vec<Offset> = between.iter().filter(is_commit).map(|r| r.offset).collect();
        match commits[..] {
            [] => Ok(altered(at, ends)),
            [commit] => Ok(altered(commit, format!("{ends}: this Commit is altered, or that Checkpoint"))),
            [.., last] => Ok(altered(
                last,
                format!("{ends}: this Commit or another after seq {from} is altered, or that Checkpoint"),
            )),
        }
    }

    /// What topic folds says about a cut and a partition.
    async fn reported(&self, n: u64, partition: PartitionId) -> Result<Vec<FoldReport>> {
        let (mut reader, mut all) = (self.log.reader(Partition::Folds, 0), Vec::new());
        loop {
            let records = reader.read(READ_BYTES).await?;
            if records.is_empty() {
                return Ok(all);
            }
            let reports = records.iter().filter_map(|r| FoldReport::decode(&r.payload).ok());
            all.extend(reports.filter(|report| (report.n, report.partition) == (n, partition)));
        }
    }

    /// Says of an altered bin whether it is the ledger that was altered: where the bin is signed as it must be, and is
    /// the one that its fold reported.
    pub(super) async fn or_the_ledger(&self, open: &OpenCut, bin: Bin, finding: Box<Finding>) -> Result<Box<Finding>> {
        let Some(bytes) = self.store.get(&finding.place).await? else { return Ok(finding) };
        let root = &open.root.root;
        let is_signed = Envelope::open(&bytes).is_ok_and(|e| e.verify(&root.keys, &root.targets).is_ok());
        let Some(layout) = self.state.layout.filter(|_| is_signed) else { return Ok(finding) };
        let reports = self.reported(open.n, layout.partition_of(bin)).await?;
        let digest = sha256(&bytes);
        if !reports.iter().flat_map(|r| &r.bins).any(|b| b.bin == bin && b.sha256 == digest) {
            return Ok(finding);
        }
        let between = self.stretch(self.previous_cut + 1, open.seq).await?;
        let commits = between.iter().filter(|r| matches!(Record::decode(&r.payload), Ok(Record::Commit(_)))).count();
        let (damage, how) = match (finding.damage, commits) {
            (Damage::WrongExpiry, _) => (Damage::RecordAltered, "the settings before it are altered"),
            (_, 2..) => (Damage::RecordReordered, "its Commits stand in another order, or are altered"),
            _ => (Damage::RecordAltered, "its Commits are altered"),
        };
        let what = format!(
            "{} is signed as it must be and the one that its fold reported, but not what the ledger comes to here: {how}",
            finding.place
        );
        Ok(Box::new(Finding { damage, place: place(open.seq), message: what, ..*finding }))
    }

    /// The first record in `(from, to)` whose bytes stand in the ledger before, with the seq of these.
    async fn repeat(&self, from: Offset, to: Offset) -> Result<Option<(Offset, Offset)>> {
        let between = self.stretch(from, to).await?;
        let mut last: HashMap<_, Offset> = HashMap::new();
        let mut repeat = None;
        for r in between.iter().filter(|r| r.offset > from || from == 0) {
            match last.get(&sha256(&r.payload)) {
                Some(first) => return Ok(Some((r.offset, *first))),
                None => drop(last.insert(sha256(&r.payload), r.offset)),
            }
        }
        for r in self.stretch(0, from + 1).await? {
            if let Some(again) = last.get(&sha256(&r.payload)).filter(|again| **again > r.offset) {
                repeat = repeat.or(Some((*again, r.offset)));
            }
        }
        Ok(repeat)
    }

    /// Compares what the ledger says with what the Checkpoint names, where store and Checkpoint agree.
    async fn by_objects(&self, open: &OpenCut, c: &Checkpoint) -> Result<Option<Box<Finding>>> {
        let stores_state = open.n.is_multiple_of(open.settings.state_every);
        if c.state.is_some() != stores_state {
            let stored = self.store.get(&store::ledger_state_name(open.n)).await?;
            if stored.map(|b| sha256(&b)) == c.state.as_ref().map(|s| s.sha256) {
                let what = format!(
                    "by the settings in force here, one cut in {} stores the ledger state; cut {} did otherwise",
                    open.settings.state_every, open.n
                );
                let gone =
                    || Finding::new(Damage::RecordDropped, before(open.seq), format!("{what}: Settings are gone"));
                let altered = || {
                    Finding::new(
                        Damage::RecordAltered,
                        place(open.seq),
                        format!("{what}: Settings before it are altered"),
                    )
                };
                return Ok(Some(if self.first_gap.is_some() { gone() } else { altered() }));
            }
        }
        let name = store::metadata_name(open.n, "snapshot");
        let Some(bytes) = self.store.get(&name).await?.filter(|b| sha256(b) == c.snapshot.sha256) else {
            return Ok(None);
        };
        let Ok(envelope) = Envelope::open(&bytes) else { return Ok(None) };
        let root = &open.root.root;
        let stranger = |(id, _): &(_, _)| !root.keys.contains_key(id);
        if self.first_gap.is_some() && !envelope.signatures.is_empty() && envelope.signatures.iter().all(stranger) {
            let what = format!(
                "Checkpoint {} names a snapshot signed by keys that no root so far names: a Root is gone",
                open.n
            );
            return Ok(Some(Finding::new(Damage::RecordDropped, before(open.seq), what)));
        }
        let makes = open.time + open.settings.snapshot_expiry_s;
        let expires = around_expiry(envelope.signed).and_then(|(_, at, _)| parse_utc(std::str::from_utf8(at).ok()?));
        Ok(expires.filter(|expires| *expires != makes).map(|expires| {
            let what = format!(
                "by it {name} expires at {}, but the one that Checkpoint {} names expires at {}: its time is altered, \
                 or that of a Renew before it, or the settings",
                format_utc(makes),
                open.n,
                format_utc(expires)
            );
            Finding::new(Damage::RecordAltered, place(open.seq), what)
        }))
    }

    /// A ledger state that store and Checkpoint agree on, and the ledger does not come to.
    pub(super) fn other_state(&self, open: &OpenCut, ids: Option<(&[u8], &[u8])>) -> Box<Finding> {
        let from = self.previous_cut;
        let what = format!(
            "the ledger state here is not the one that was stored, and that Checkpoint {} names: records after seq {from}",
            open.n
        );
        let ids_of = |lines: &[u8]| {
            let id = |line: &[u8]| serde_json::from_slice::<serde_json::Value>(line).ok()?.get("id").cloned();
            let mut all: Vec<String> = lines.split(|b| *b == b'\n').filter_map(id).map(|v| v.to_string()).collect();
            all.sort_unstable();
            all
        };
        let at = open.seq;
        match ids {
            _ if self.first_gap.is_some() => {
                Finding::new(Damage::RecordDropped, before(at), format!("{what} are gone"))
            }
            Some((own, stored)) if own != stored && ids_of(own) == ids_of(stored) => Finding::new(
                Damage::RecordReordered,
                place(at),
                format!("{what} stand in another order: the ids have other seqs"),
            ),
            _ => {
                Finding::new(Damage::RecordAltered, place(at), format!("{what} are altered, or stand in another order"))
            }
        }
    }
}

/// Moves the ends of the partitions on by a Commit.
fn extend(ends: &mut [Offset], record: &Record) {
    let Record::Commit(Commit { segments, .. }) = record else { return };
    for s in segments {
        if let Some(end) = ends.get_mut(usize::from(s.partition)) {
            *end = (*end).max(s.offset + 1);
        }
    }
}
