//! The audit: replays the ledger from genesis into fresh state, rebuilds everything that was published from it, and
//! compares bytes. The only reader that needs the ledger from its first record, and the only one that trusts nothing.
//!
//! It holds no private key: what is signed is rendered without signing, and signatures are verified with the public
//! keys of the roots that the ledger itself brings. It owns no invariant and writes nothing but a temporary directory;
//! it shares the project's rules (the ledger's state, bin state, rendering) and none of its control flow, so a fold or
//! compactor that goes astray is found, not followed.
//!
//! ```text
//!   ledger ─► every record: decodes, canonical, lawful        replay.rs
//!     Commit ─► segments: there, digest, content ─► bin state     commits.rs, segments.rs
//!     Cut n  ─► rebuild dirty ∪ due ∪ all bins, targets, snapshot, ledger state ─► compare, verify    cut.rs, objects.rs
//!     Checkpoint n ─► what it says, every fold report of n        folds.rs
//!     Checkpoint, Renew ─► timestamp.json, once its version is reached    pointer.rs
//!   Recovery ─► the checkpoint that it names, as signed; on from its bins    recovery.rs, range.rs
//!   end ─► everything in the store is accounted for, and the ledger has not lost its end    finish.rs
//!
//!   before: which checkpoints there are    history.rs      begin at one of them, as signed    range.rs
//!   what is wrong: its name    damage.rs, with both values    finding.rs
//!     which damage it is: Checkpoint against Cut    evidence.rs, order    turn.rs, segments    astray.rs, roots    roots.rs
//!   what it comes to    report.rs      how far it is    pace.rs      where to go on    resume.rs
//! ```
//!
//! # What is verified
//!
//! - Each ledger record is canonical JSON of a known kind. What no node appends is a finding, even where the rules make
//!   it void: a Cut before the Checkpoint it follows, a Checkpoint without its Cut, a root or settings that cannot take
//!   effect. Void repeats, late rivals and void batches are legal.
//! - Each root is signed by its own threshold and its predecessor's, and stored with the same bytes.
//! - The segments of every batch that is not void are there, with the digest, place and number of changes that the
//!   Commit says, and their content passes validation; that of a valid batch has the batch's digest.
//! - Every bin, targets.json and snapshot that a cut makes is stored, laid out as tuflog does it, its signed part equal
//!   to what is rebuilt, with enough signatures, all of them good; no other version exists. State and ids objects,
//!   Checkpoints and fold reports (bins, lengths, digests, offsets, removals that found nothing) are equal to what is
//!   rebuilt.
//! - timestamp.json is the one that the ledger says, or an earlier one that a node which was killed may leave: a note.
//! - Of a data directory, that root.json, which clients are shipped with, is the ledger's first root.
//! - Nothing else is in the store. Objects of a last cut without Checkpoint may be missing, but not differ.
//! - A Cut stands where its Checkpoint says, of the segments and at the time that it says: so a record that was taken
//!   out, put in, repeated or moved before a Cut that has a Checkpoint shows, though it would be legal by itself.
//!
//! # What is not
//!
//! - What a Recovery leaves behind: from the first record or segment that was lost on, only what is there is read, and
//!   of the checkpoint that it names only the signatures, digests and places. The report says between which seqs.
//! - The content of a batch that was a duplicate or in conflict: only its segments' own digests.
//! - That the end of the ledger is there, beyond what the store shows: records lost behind the last Checkpoint that the
//!   pointer or an object speaks of leave no trace.
//! - Records behind the last Cut, of which nothing was made yet: a repeat there is what an append without an answer
//!   leaves, and two of them may stand in any order.
//! - The order of neighbours that nothing depends on, such as the first Settings and the first Root; that of Commits
//!   shows in the ids of the next stored ledger state, or in the bins.
//! - What a record says for its own verdict alone, or as a hint: the basis of a batch, where a Cut found the end of
//!   `folds`, a time below the one in force. Repeats and the order of fold reports.
//! - What a range leaves out ([`Range`]), and what was verified before an audit was cut off and went on: the report
//!   says both.
//! - Times of Cuts and Renews, which are what a node's clock said; timestamp.json before the present one, and roots,
//!   bins and snapshots that expired since: expiry is rebuilt, not judged.
//! - Segments that no Commit names, and those of void batches alone.
//!
//! A log or store that cannot be read is an error, and `Unsupported` what a newer tuflog wrote; everything else that is
//! wrong is a finding. Memory follows the number of objects and cuts (some 100 bytes each), never that of targets.
//! Meant for a node at rest; on a running one, what is published meanwhile is not looked at.

mod astray;
mod commits;
mod cut;
mod damage;
mod evidence;
mod finding;
mod finish;
mod folds;
mod history;
mod objects;
mod pace;
mod pointer;
mod range;
mod recovery;
mod replay;
mod report;
mod resume;
mod roots;
mod segments;
mod turn;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::error::{Error, Result};
use crate::ledger::Record;
use crate::log::embedded::EmbeddedLog;
use crate::log::{Log, Offset, Partition};
use crate::pool::Pool;
use crate::store::Store;
use crate::store::local::LocalStore;

pub use damage::Damage;
pub use finding::{Finding, RecoveryReport, Value};
pub use range::Range;
pub use report::{Covered, Report, Verdict};

/// How much of the ledger is read at once to find its first root, in bytes.
const FIRST_BYTES: usize = 64 << 10;

/// How an audit is done.
#[derive(Clone)]
pub struct Options {
    /// Where decoding, rebuilding and verifying run.
    pub pool: Pool,
    /// How many bins are rebuilt and compared at a time; each takes about three times its size.
    pub parallel: usize,
    /// After how many findings to stop; at least 1.
    pub max_findings: usize,
    /// Where to put the temporary directory; the system's place if `None`. It grows to about the size of all targets.
    pub scratch: Option<PathBuf>,
    /// The root that clients are shipped with: it must be the ledger's first.
    pub shipped_root: Option<PathBuf>,
    /// Which part of the history.
    pub range: Range,
    /// The progress file: where to go on, if it is there, and where to keep how far it is.
    pub resume: Option<PathBuf>,
    /// How often that is written at most, in milliseconds.
    pub save_every_ms: u64,
    /// Becomes true when the audit is to end soon, with what it has by then.
    pub stop: Arc<AtomicBool>,
}

/// How often the progress file is written at most, in milliseconds.
const SAVE_EVERY_MS: u64 = 2_000;

impl Default for Options {
    /// Everything in the calling task, up to the first finding.
    fn default() -> Options {
        Options {
            pool: Pool::Inline,
            parallel: 1,
            max_findings: 1,
            scratch: None,
            shipped_root: None,
            range: Range::default(),
            resume: None,
            save_every_ms: SAVE_EVERY_MS,
            stop: Arc::default(),
        }
    }
}

impl Options {
    /// With so many threads, under a tokio runtime.
    pub fn threads(threads: usize) -> Options {
        Options { pool: Pool::threads(threads), parallel: 2 * threads.max(1), ..Options::default() }
    }
}

/// How far an audit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Ledger records up to here are done.
    pub seq: Offset,
    /// Where the ledger ended when the audit began, or where its range ends.
    pub end: Offset,
    /// Changes applied.
    pub changes: u64,
    /// Cuts rebuilt.
    pub cuts: u64,
    /// Bins rebuilt.
    pub bins: u64,
    /// Objects compared.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long it has taken, in milliseconds, since it was started or went on.
    pub elapsed_ms: u64,
    /// How long it will take from here, in milliseconds; `None` while there is nothing to tell it by.
    pub to_go_ms: Option<u64>,
}

/// Audits a log and a store. See the module for what that covers.
///
/// # Errors
/// What log and store answer when they cannot be read; `Unsupported` for what a newer tuflog wrote; `Invalid` if the
/// ledger is empty; `Unavailable` if there is no room for the temporary directory. A finding is no error.
pub async fn run(
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    options: Options,
    progress: impl FnMut(&Progress) + Send,
) -> Result<Report> {
    let (shipped, max_findings) = (options.shipped_root.clone(), options.max_findings.max(1));
    let mut report = replay::run(log.clone(), store, options, Box::new(progress)).await?;
    if let Some(path) = shipped.filter(|_| report.findings.len() < max_findings) {
        shipped_root(&*log, &path, &mut report).await?;
    }
    report.judge();
    Ok(report)
}

/// Audits the data directory of a stopped node that has its store there, and whose lock the caller holds. Nothing in it
/// is changed.
///
/// # Errors
/// As [`run`], and `Invalid` if there is no log or store.
pub async fn run_data_dir(dir: &Path, options: Options, progress: impl FnMut(&Progress) + Send) -> Result<Report> {
    if !dir.is_dir() {
        return Err(Error::invalid("data", format!("{} is no directory", dir.display())));
    }
    let log = EmbeddedLog::open_read_only(&dir.join("log"))?;
    let store = LocalStore::open_read_only(&dir.join("store"))?;
    let options = Options { shipped_root: Some(dir.join("root.json")), ..options };
    run(log, Arc::new(store), options, progress).await
}

/// Compares the root that clients are shipped with to the ledger's first.
async fn shipped_root(log: &dyn Log, path: &Path, report: &mut Report) -> Result<()> {
    let mut reader = log.reader(Partition::Ledger, 0);
    let first = 'ledger: loop {
        let records = reader.read(FIRST_BYTES).await?;
        for r in &records {
            match Record::decode(&r.payload) {
                Ok(Record::Root(root)) => break 'ledger root.document,
                Ok(_) => {}
                Err(_) => return Ok(()), // the replay has said so
            }
        }
        if records.is_empty() {
            return Ok(());
        }
    };
    match std::fs::read(path) {
        Ok(found) if found == first.as_bytes() => {}
        Ok(found) => {
            let what =
                "clients that are shipped with it do not trust this repository: it is not the ledger's first root";
            report.findings.push(*Finding::differs(
                Damage::ObjectAltered,
                path.display().to_string(),
                what,
                first.as_bytes(),
                &found,
            ));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            report.notes.push(format!("{} is missing: it is a copy of metadata/1.root.json", path.display()));
        }
        Err(e) => return Err(Error::unavailable(format!("{}: {e}", path.display()))),
    }
    Ok(())
}
