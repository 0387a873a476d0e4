//! The replay: every record of the ledger, in order, by the law that the ledger state is, with what each one must
//! have left behind.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::commits::Bins;
use super::cut::Built;
use super::folds::Folds;
use super::objects::{Checked, Expect, Role, Verified, check_bytes};
use super::pointer::Pointer;
use super::report::{Finding, Report};
use super::segments::Gathered;
use super::{Options, Progress};
use crate::bins::{Sha256Digest, sha256};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Kind, Result};
use crate::ledger::record::{Checkpoint, Recovery};
use crate::ledger::state::SignedRoot;
use crate::ledger::{Event, Record, State};
use crate::log::{self, Log, Offset, Partition};
use crate::recover;
use crate::store::Store;
use crate::tuf::Envelope;
use crate::tuf::role::Meta;
use crate::tuf::root::Root;

/// How much of the ledger is read at once, in bytes.
const READ_BYTES: usize = 1 << 20;
/// How many reads in a row may find nothing below the end, where a log may lag or have a gap.
const EMPTY_READS: u32 = 16;

/// Why the audit ends early.
pub(super) enum Stop {
    /// There are as many findings as were asked for, or the last one leaves nothing to go on from.
    Enough,
    /// It cannot be done.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Stop {
        Stop::Failed(e)
    }
}

pub(super) type Step<T = ()> = std::result::Result<T, Stop>;

/// An audit under way.
pub(super) struct Replay<'a> {
    pub log: Arc<dyn Log>,
    pub store: Arc<dyn Store>,
    pub options: Options,
    pub report: Report,
    /// The ledger state.
    pub state: State,
    pub bins: Option<Bins>,
    pub folds: Folds,
    pub pointer: Pointer,
    /// The last targets.json; `None` before the first, and if it is missing or altered.
    pub targets: Option<Meta>,
    /// What the open cut came to.
    pub built: Option<Built>,
    /// The digest of each valid Checkpoint record.
    checkpoints: BTreeMap<u64, Sha256Digest>,
    /// The timestamp version of the last Checkpoint.
    pub checkpoint_version: u64,
    /// The Recoveries that are still to come, with their seqs.
    pub recoveries: VecDeque<(Offset, Box<Recovery>)>,
    /// The seq from which on nothing can be rebuilt before the next Recovery.
    pub blind: Option<Offset>,
    pub names: Vec<String>,
    pub run: Vec<Gathered>,
    pub run_bytes: usize,
    end: Offset,
    progress: Box<dyn FnMut(&Progress) + Send + 'a>,
}

/// See [`super::run`].
pub(super) async fn run(
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    options: Options,
    progress: Box<dyn FnMut(&Progress) + Send + '_>,
) -> Result<Report> {
    let start = SystemClock.ticks_ms();
    // Pointer and objects first: the ledger that is read after them explains at least these.
    let pointer = Pointer::read(&*store).await?;
    let names = store.list("").await?;
    let (folds, end) = (Folds::new(&*log), log.end(Partition::Ledger).await?);
    let recoveries = recover::recoveries_since(&*log, 0).await?.into();
    let mut replay = Replay {
        log,
        store,
        options,
        report: Report::default(),
        state: State::default(),
        bins: None,
        folds,
        pointer,
        targets: None,
        built: None,
        checkpoints: BTreeMap::new(),
        checkpoint_version: 0,
        recoveries,
        blind: None,
        names,
        run: Vec::new(),
        run_bytes: 0,
        end,
        progress,
    };
    let done = match replay.ledger().await {
        Ok(()) => replay.finish().await,
        stopped => stopped,
    };
    let mut report = replay.report;
    match done {
        Ok(()) => report.complete = true,
        Err(Stop::Enough) => {}
        Err(Stop::Failed(e)) => return Err(e),
    }
    report.targets = replay.bins.map_or(0, |bins| bins.counts.iter().sum());
    report.reports = replay.folds.right;
    report.seconds = SystemClock.ticks_ms().saturating_sub(start) as f64 / 1e3;
    Ok(report)
}

impl Replay<'_> {
    async fn ledger(&mut self) -> Step {
        let mut reader = self.log.reader(Partition::Ledger, 0);
        let mut empty = 0;
        while self.state.next < self.end && empty < EMPTY_READS {
            let records = reader.read(READ_BYTES).await?;
            empty = if records.is_empty() { empty + 1 } else { 0 };
            for r in records {
                self.record(r).await?;
            }
            self.tell();
        }
        self.flush().await
    }

    /// Tells how far it is.
    pub(super) fn tell(&mut self) {
        let Report { cuts, objects, bytes, .. } = self.report;
        (self.progress)(&Progress { seq: self.state.next, end: self.end, cuts, objects, bytes });
    }

    /// Takes note of a finding.
    pub(super) fn find(&mut self, finding: Box<Finding>) -> Step {
        self.report.findings.push(*finding);
        if self.report.findings.len() < self.options.max_findings.max(1) { Ok(()) } else { Err(Stop::Enough) }
    }

    pub(super) fn find_all(&mut self, findings: Vec<Finding>) -> Step {
        findings.into_iter().try_for_each(|f| self.find(Box::new(f)))
    }

    /// Takes note of a finding after which there is nothing to go on from.
    pub(super) fn lost(&mut self, finding: Box<Finding>) -> Stop {
        self.report.findings.push(*finding);
        Stop::Enough
    }

    /// Counts an object that is right.
    pub(super) fn count(&mut self, verified: &Verified) {
        self.report.objects += 1;
        self.report.bytes += verified.meta.length;
        self.report.signatures += verified.signatures;
    }

    async fn record(&mut self, r: log::Record) -> Step {
        let (seq, place) = (r.offset, || format!("ledger seq {}", r.offset));
        let unsupported = |e: &Error| e.kind == Kind::Unsupported;
        let record = match Record::decode(&r.payload) {
            Ok(record) => record,
            Err(e) if unsupported(&e) => return Err(e.context(place()).into()),
            Err(e) => return Err(self.lost(Finding::altered(place(), e.message))),
        };
        let canonical = record.encode();
        if canonical != r.payload {
            self.find(Finding::differs(place(), "it is not canonical JSON", &canonical, &r.payload))?;
        }
        if self.passes_over(seq, &record).await? {
            return Ok(());
        }
        let root = self.state.root.clone();
        let event = match self.state.apply(seq, &record) {
            Ok(event) => event,
            Err(e) if unsupported(&e) => return Err(e.context(place()).into()),
            Err(e) => return Err(self.lost(Finding::altered(place(), e.message))),
        };
        self.report.records += 1;
        match (record, event) {
            (Record::Format(_), Event::Changed) => self.open_bins()?,
            (Record::Format(f), _) => {
                let same =
                    self.state.layout.is_some_and(|l| (l.bins(), l.partitions().into()) == (f.bins, f.partitions));
                if !same {
                    self.find(Finding::unexpected(place(), "a second Format record, of another layout"))?;
                }
            }
            (Record::Settings(s), Event::Void) if s.revision > self.state.settings_revision => {
                let current = self.state.settings_revision;
                let what = format!("settings revision {} cannot follow revision {current}", s.revision);
                self.find(Finding::altered(place(), what))?;
            }
            (Record::Root(r), event) => self.root(place(), root.as_deref(), &r.document, event == Event::Void)?,
            (Record::Commit(commit), Event::Commit(outcomes)) => self.commit(seq, commit, outcomes).await?,
            (Record::Cut(c), Event::Cut) => {
                let version = self.checkpoint_version;
                self.pointer
                    .follow(version, || format!("Cut {}, ledger seq {seq}, was made after version {version}", c.n));
                self.flush().await?;
                self.cut().await?;
            }
            (Record::Cut(c), _) if c.n > self.state.cut => {
                let State { cut, done, .. } = self.state;
                let lacks = match (cut > done, self.state.root.is_some()) {
                    (true, _) => format!("Checkpoint {cut}"),
                    (false, true) => format!("Cut {}", cut + 1),
                    (false, false) => "root".into(),
                };
                return Err(
                    self.lost(Finding::missing(lacks, format!("the ledger goes on with Cut {} at seq {seq}", c.n)))
                );
            }
            (Record::Checkpoint(c), Event::Checkpoint(_)) => self.checkpoint(place(), &c, &r.payload).await?,
            (Record::Checkpoint(c), _) => match self.checkpoints.get(&c.n) {
                Some(first) if *first == sha256(&r.payload) => {}
                Some(_) => {
                    let what = format!("it repeats Checkpoint {} with other content", c.n);
                    self.find(Finding::altered(place(), what))?;
                }
                None if c.n <= self.state.done => {} // of a cut that a Recovery has left behind
                None => {
                    let what = format!("the ledger goes on with Checkpoint {} at seq {seq}", c.n);
                    return Err(self.lost(Finding::missing(format!("Cut {}", c.n), what)));
                }
            },
            (Record::Renew(r), Event::Renew) => {
                self.report.renews += 1;
                self.pointer.follow(r.after, || format!("Renew, ledger seq {seq}, was made after version {}", r.after));
                self.pointer_reached()?;
            }
            (Record::Renew(r), _) => {
                let version = self.state.stamp.as_ref().map_or(0, |s| s.version);
                if r.after > version {
                    let what = format!("the ledger goes on with a Renew of timestamp {} at seq {seq}", r.after);
                    return Err(self.lost(Finding::missing(format!("timestamp {}", version + 1), what)));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A root: its chain was checked when the ledger state took it, or did not.
    fn root(&mut self, place: String, before: Option<&SignedRoot>, document: &str, void: bool) -> Step {
        let checked = match before {
            None => Root::verify_first(document.as_bytes()),
            Some(before) => Root::verify_next(&before.root, document.as_bytes()),
        };
        match checked {
            Ok(_) if void => self.find(Finding::altered(place, "a root that should take effect and does not")),
            Ok(root) => {
                self.report.roots += 1;
                let keys = |id| root.keys.get(id).or_else(|| before.and_then(|b| b.root.keys.get(id)));
                let envelope = Envelope::open(document.as_bytes())?;
                let good =
                    envelope.signatures.iter().filter(|(id, s)| keys(id).is_some_and(|k| k.verify(envelope.signed, s)));
                self.report.signatures += good.count() as u64;
                Ok(())
            }
            // One of a version that was there already: a rival ceremony, or a repeat.
            Err(_) if void && Root::parse(document.as_bytes()).is_ok_and(|(r, _)| self.has_root(r.version)) => Ok(()),
            Err(e) => self.find(Finding::altered(place, format!("a root that does not follow the one before it: {e}"))),
        }
    }

    fn has_root(&self, version: u64) -> bool {
        self.state.root.as_ref().is_some_and(|r| version <= r.root.version)
    }

    /// A Checkpoint that completes the open cut.
    async fn checkpoint(&mut self, place: String, c: &Checkpoint, payload: &Bytes) -> Step {
        self.report.checkpoints += 1;
        self.checkpoints.insert(c.n, sha256(payload));
        self.checkpoint_version = self.state.stamp.as_ref().map_or(0, |s| s.version);
        self.completed(place, c).await?;
        self.pointer_reached()
    }

    pub(super) fn pointer_reached(&mut self) -> Step {
        match self.state.stamp.as_ref().and_then(|stamp| self.pointer.reached(stamp)) {
            Some(Checked::Right(verified)) => {
                self.count(&verified);
                Ok(())
            }
            Some(Checked::Wrong(finding)) => self.find(finding),
            Some(Checked::Missing(_)) | None => Ok(()),
        }
    }

    /// What remains when the ledger is read.
    async fn finish(&mut self) -> Step {
        self.state.layout()?;
        self.unfinished().await?;
        let unasked: Vec<Finding> = self.folds.unexpected().map(|f| *f).collect();
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
            let found = self.store.get(&name).await?.map(|b| super::Value::of(&b));
            self.find(Finding::unexpected(name, "nothing in the ledger accounts for it").values(None, found))?;
        }
        let (finding, note) = self.pointer.finish(self.state.stamp.as_ref());
        self.report.notes.extend(note);
        finding.map_or(Ok(()), |finding| self.find(finding))
    }
}
