//! Records out of turn: one that cannot follow what stands before it. What it should follow may be gone, may stand
//! later, or it may be the record itself that is altered.

use super::damage::Damage;
use super::evidence::place;
use super::finding::Finding;
use super::replay::Replay;
use crate::error::Result;
use crate::ledger::Record;
use crate::ledger::record::{Checkpoint, Renew};
use crate::log::{Offset, Partition};
use crate::tuf::root::Root;

/// How much is read at once, in bytes.
const READ_BYTES: usize = 1 << 20;

impl Replay<'_> {
    /// The seq of the first record behind `seq` that is wanted.
    async fn later(&self, seq: Offset, wanted: impl Fn(&Record) -> bool) -> Result<Option<Offset>> {
        let mut reader = self.log.reader(Partition::Ledger, seq + 1);
        loop {
            let records = reader.read(READ_BYTES).await?;
            let found = records.iter().find(|r| Record::decode(&r.payload).is_ok_and(|record| wanted(&record)));
            if found.is_some() || records.is_empty() {
                return Ok(found.map(|r| r.offset));
            }
        }
    }

    /// A Cut whose number is beyond the next.
    pub(super) async fn early_cut(&self, seq: Offset, n: u64) -> Result<Box<Finding>> {
        let (cut, done) = (self.state.cut, self.state.done);
        let goes_on = format!("the ledger goes on with Cut {n} at seq {seq}");
        let (lacks, later) = match (cut > done, self.state.root.is_some()) {
            (true, _) => {
                let later = self.history.checkpoints.get(&cut).map(|(at, _)| *at).filter(|at| *at > seq);
                (format!("Checkpoint {cut}"), later)
            }
            (false, false) => ("root".into(), self.later(seq, |r| is_root(r, 1)).await?),
            (false, true) => {
                if self.checkpoint_of(cut + 1).await?.is_some_and(|(_, c)| c.seq == seq) {
                    let what = format!("it says it is Cut {n}; Checkpoint {} says that Cut {0} stood here", cut + 1);
                    return Ok(Finding::new(Damage::RecordAltered, place(seq), what));
                }
                let later = self.later(seq, |r| matches!(r, Record::Cut(c) if c.n == cut + 1)).await?;
                if later.is_none() {
                    let what = format!(
                        "after Cut {cut} comes Cut {}, and it says it is Cut {n}: records are gone, or it is altered",
                        cut + 1
                    );
                    return Ok(Finding::new(Damage::VersionGap, place(seq), what));
                }
                (format!("Cut {}", cut + 1), later)
            }
        };
        Ok(out_of_turn(seq, lacks, goes_on, later))
    }

    /// A Checkpoint whose cut is not open.
    pub(super) async fn early_checkpoint(&self, seq: Offset, c: &Checkpoint) -> Result<Box<Finding>> {
        let n = c.n;
        if let Some(open) = self.state.open.as_ref().filter(|open| open.seq == c.seq) {
            let what = format!("it says it is Checkpoint {n}, of a Cut at seq {}: that is Cut {}", c.seq, open.n);
            return Ok(Finding::new(Damage::RecordAltered, place(seq), what));
        }
        if let Some(Record::Cut(cut)) = self.record_at(c.seq).await?
            && c.seq < seq
        {
            let what = format!("it says it is Cut {}; Checkpoint {n} says that Cut {n} stood here", cut.n);
            return Ok(Finding::new(Damage::RecordAltered, place(c.seq), what));
        }
        let later = self.later(seq, |r| matches!(r, Record::Cut(c) if c.n == n)).await?;
        Ok(out_of_turn(seq, format!("Cut {n}"), format!("the ledger goes on with Checkpoint {n} at seq {seq}"), later))
    }

    /// A Renew of a timestamp that is not made yet.
    pub(super) async fn early_renew(&self, seq: Offset, r: &Renew) -> Result<Box<Finding>> {
        let version = self.state.stamp.as_ref().map_or(0, |s| s.version);
        let goes_on = format!("the ledger goes on with a Renew of timestamp {} at seq {seq}", r.after);
        let makes_it = |record: &Record| match record {
            Record::Checkpoint(c) => self.state.open.as_ref().is_some_and(|open| open.n == c.n),
            Record::Renew(r) => r.after == version,
            _ => false,
        };
        let later = self.later(seq, makes_it).await?;
        if later.is_none() && r.after > version + 1 {
            let what = format!("{goes_on}, after timestamp {version}: records are gone, or it is altered");
            return Ok(Finding::new(Damage::VersionGap, place(seq), what));
        }
        Ok(out_of_turn(seq, format!("timestamp {}", version + 1), goes_on, later))
    }

    /// A first record that is no Format.
    pub(super) async fn headless(&self, seq: Offset) -> Result<Box<Finding>> {
        let later = self.later(seq, |r| matches!(r, Record::Format(_))).await?;
        Ok(out_of_turn(seq, "Format".into(), format!("the ledger begins with another record at seq {seq}"), later))
    }

    /// Settings or a root of a revision or version `found` after `current`.
    pub(super) async fn jump(&self, seq: Offset, what: &str, current: u64, found: u64) -> Result<Box<Finding>> {
        let next = |record: &Record| match record {
            Record::Settings(s) => what == "settings" && s.revision == current + 1,
            _ => what == "root" && is_root(record, current + 1),
        };
        let goes_on = format!("the ledger goes on with {what} {found} at seq {seq}");
        Ok(match self.later(seq, next).await? {
            None => {
                let text = format!("{goes_on}, after {what} {current}: records are gone, or it is altered");
                Finding::new(Damage::VersionGap, place(seq), text)
            }
            later => out_of_turn(seq, format!("{what} {}", current + 1), goes_on, later),
        })
    }
}

/// Something that should stand before a record: `later` is where it stands, if it stands anywhere.
fn out_of_turn(seq: Offset, lacks: String, goes_on: String, later: Option<Offset>) -> Box<Finding> {
    match later {
        Some(at) => Finding::new(
            Damage::RecordReordered,
            place(seq),
            format!("{goes_on}, and {lacks}, which comes before it, stands at seq {at}"),
        ),
        None => Finding::new(Damage::RecordDropped, lacks, goes_on),
    }
}

/// True of the record that brings a version of root.
fn is_root(record: &Record, version: u64) -> bool {
    let Record::Root(r) = record else { return false };
    Root::parse(r.document.as_bytes()).is_ok_and(|(root, _)| root.version == version)
}
