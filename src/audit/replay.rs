//! The replay: every record of the ledger, in order, by the law that the ledger state is, with what each one must
//! have left behind.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use bytes::Bytes;

use super::commits::Bins;
use super::cut::Built;
use super::damage::Damage;
use super::evidence::place;
use super::finding::Finding;
use super::folds::Folds;
use super::history::History;
use super::objects::{Checked, Verified};
use super::pace::Pace;
use super::pointer::Pointer;
use super::report::Report;
use super::resume::{Point, Resume};
use super::segments::Gathered;
use super::{Options, Progress};
use crate::bins::sha256;
use crate::error::{Error, Kind, Result};
use crate::ledger::record::Checkpoint;
use crate::ledger::{Event, Record, State};
use crate::log::{self, Log, Offset, Partition};
use crate::store::Store;
use crate::tuf::role::Meta;

/// How much of the ledger is read at once, in bytes.
const READ_BYTES: usize = 1 << 20;
/// How many reads in a row may find nothing below the end, where a log may lag or have a gap.
pub(super) const EMPTY_READS: u32 = 16;

/// Why the audit ends early.
pub(super) enum Stop {
    /// There are as many findings as were asked for, or the last one leaves nothing to go on from.
    Enough,
    /// It was asked to stop.
    CutOff,
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
    /// No stored ledger state was found wrong.
    pub is_state_sound: bool,
    /// What the open cut came to.
    pub built: Option<Built>,
    pub history: History,
    /// Records of the ledger that are read and still to be replayed.
    pub ahead: VecDeque<log::Record>,
    /// The seq of the last Cut.
    pub previous_cut: Offset,
    /// Where the ledger has no record, since that Cut and since a stored ledger state was right: the log may have left
    /// it free, or lost it.
    pub gap: Option<Offset>,
    pub first_gap: Option<Offset>,
    /// The timestamp version of the last Checkpoint.
    pub checkpoint_version: u64,
    /// The seq from which on nothing can be rebuilt before the next Recovery.
    pub blind: Option<Offset>,
    pub names: Vec<String>,
    pub run: Vec<Gathered>,
    pub run_bytes: usize,
    pub end: Offset,
    /// The seq of the Checkpoint that it ends with, if it does not end with the ledger.
    pub last: Option<Offset>,
    pub pace: Pace,
    /// What was counted and found when the open cut was rebuilt, and the timestamp's version at the Checkpoint before it.
    pub at_cut: Option<Report>,
    pub version_at_cut: u64,
    /// Where to go on from if this run is cut off, if that is not saved yet.
    pub point: Option<Point>,
    pub resume: Option<Resume>,
    progress: Box<dyn FnMut(&Progress) + Send + 'a>,
}

/// See [`super::run`].
pub(super) async fn run(
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    options: Options,
    progress: Box<dyn FnMut(&Progress) + Send + '_>,
) -> Result<Report> {
    // Pointer and objects first: the ledger that is read after them explains at least these.
    let pointer = Pointer::read(&*store).await?;
    let names = store.list("").await?;
    let folds = Folds::new(&*log, log.end(Partition::Folds).await?);
    let end = log.end(Partition::Ledger).await?;
    let history = History::read(&*log, end).await?;
    let (resume, point) = match &options.resume {
        Some(path) => {
            let (resume, point) = Resume::open(path, options.range, &history, options.save_every_ms)?;
            (Some(resume), point)
        }
        None => (None, None),
    };
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
        is_state_sound: true,
        built: None,
        history,
        ahead: VecDeque::new(),
        previous_cut: 0,
        gap: None,
        first_gap: None,
        checkpoint_version: 0,
        blind: None,
        names,
        run: Vec::new(),
        run_bytes: 0,
        end,
        last: None,
        pace: Pace::start(),
        at_cut: None,
        version_at_cut: 0,
        point: None,
        resume,
        progress,
    };
    let ended = match replay.begin(point).await {
        Ok(()) => match replay.ledger().await {
            Ok(()) => replay.finish().await,
            stopped => stopped,
        },
        stopped => stopped,
    };
    let mut report = std::mem::take(&mut replay.report);
    match ended {
        Ok(()) => report.complete = true,
        Err(Stop::Enough | Stop::CutOff) => {}
        Err(Stop::Failed(e)) => return Err(e),
    }
    report.targets = replay.bins.as_ref().map_or(0, |bins| bins.counts.iter().sum());
    report.reports = replay.folds.right;
    report.covered.end_seq = replay.state.next;
    replay.pace.note(&mut report);
    if let (Some(resume), point) = (&mut replay.resume, replay.point.take()) {
        resume.end(report.complete, point)?;
    }
    Ok(report)
}

impl Replay<'_> {
    async fn ledger(&mut self) -> Step {
        let mut reader = self.log.reader(Partition::Ledger, self.state.next);
        let mut empty = 0;
        while self.state.next < self.end && empty < EMPTY_READS && !self.is_over() {
            self.ahead = reader.read(READ_BYTES).await?.into();
            empty = if self.ahead.is_empty() { empty + 1 } else { 0 };
            while let Some(r) = self.ahead.pop_front().filter(|_| !self.is_over()) {
                self.record(r).await?;
            }
            self.tell();
        }
        self.flush().await
    }

    /// True once the last Checkpoint of its range is done.
    fn is_over(&self) -> bool {
        self.last.is_some_and(|last| self.state.next > last)
    }

    /// Lets others have their turn, such as who waits for a signal, and ends the audit if it was asked to.
    pub(super) async fn go_on(&self) -> Step {
        let mut has_waited = false;
        poll_fn(|context| {
            if std::mem::replace(&mut has_waited, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        if self.options.stop.load(Ordering::Relaxed) { Err(Stop::CutOff) } else { Ok(()) }
    }

    /// Tells how far it is.
    pub(super) fn tell(&mut self) {
        let Report { cuts, changes, bins, objects, bytes, .. } = self.report;
        let (changes, bins) = (changes - self.pace.first_changes, bins - self.pace.first_bins);
        let (seq, end) = (self.state.next, self.last.map_or(self.end, |last| last + 1));
        let (elapsed_ms, to_go_ms) = self.pace.estimate(seq, end, objects);
        (self.progress)(&Progress { seq, end, cuts, changes, bins, objects, bytes, elapsed_ms, to_go_ms });
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
        self.go_on().await?;
        let seq = r.offset;
        if seq > self.state.next {
            self.gap = self.gap.or(Some(self.state.next));
            self.first_gap = self.first_gap.or(self.gap);
        }
        let unsupported = |e: &Error| e.kind == Kind::Unsupported;
        let altered = |e: Error| Finding::new(Damage::RecordAltered, place(seq), e.message);
        let record = match Record::decode(&r.payload) {
            Ok(record) => record,
            Err(e) if unsupported(&e) => return Err(e.context(place(seq)).into()),
            Err(e) => return Err(self.lost(altered(e))),
        };
        let canonical = record.encode();
        if canonical != r.payload {
            let what = "it is not canonical JSON";
            self.find(Finding::differs(Damage::RecordAltered, place(seq), what, &canonical, &r.payload))?;
        }
        if self.passes_over(seq, &record).await? {
            return Ok(());
        }
        if self.state.layout.is_none() && !matches!(record, Record::Format(_)) {
            let finding = self.headless(seq).await?;
            return Err(self.lost(finding));
        }
        let root = self.state.root.clone();
        let event = match self.state.apply(seq, &record) {
            Ok(event) => event,
            Err(e) if unsupported(&e) => return Err(e.context(place(seq)).into()),
            Err(e) => return Err(self.lost(altered(e))),
        };
        self.report.records += 1;
        match (record, event) {
            (Record::Format(_), Event::Changed) => self.open_bins()?,
            (Record::Format(f), _) => {
                let same =
                    self.state.layout.is_some_and(|l| (l.bins(), l.partitions().into()) == (f.bins, f.partitions));
                if !same {
                    let what = "a second Format record, of another layout";
                    self.find(Finding::new(Damage::RecordAdded, place(seq), what))?;
                }
            }
            (Record::Settings(s), Event::Void) if s.revision > self.state.settings_revision => {
                let current = self.state.settings_revision;
                let finding = match s.revision - current {
                    1 => {
                        let what = format!("settings revision {} cannot follow revision {current}", s.revision);
                        Finding::new(Damage::RecordAltered, place(seq), what)
                    }
                    _ => self.jump(seq, "settings", current, s.revision).await?,
                };
                self.find(finding)?;
            }
            (Record::Root(r), event) => self.root(seq, root.as_deref(), &r.document, event == Event::Void).await?,
            (Record::Commit(commit), Event::Commit(outcomes)) => self.commit(seq, commit, outcomes).await?,
            (Record::Cut(c), Event::Cut) => {
                let version = self.checkpoint_version;
                self.pointer
                    .follow(version, || format!("Cut {}, ledger seq {seq}, was made after version {version}", c.n));
                self.flush().await?;
                self.cut().await?;
                (self.previous_cut, self.gap) = (seq, None);
                (self.at_cut, self.version_at_cut) = (self.resume.is_some().then(|| self.report.clone()), version);
            }
            (Record::Cut(c), _) if c.n > self.state.cut => {
                let finding = self.early_cut(seq, c.n).await?;
                return Err(self.lost(finding));
            }
            (Record::Checkpoint(c), Event::Checkpoint(_)) => self.checkpoint(seq, &c, &r.payload).await?,
            // Of a cut that a Recovery has left behind there may be none.
            (Record::Checkpoint(c), _) if c.n <= self.state.done => {
                let first = self.history.checkpoints.get(&c.n);
                if first.is_some_and(|(_, digest)| *digest != sha256(&r.payload)) {
                    let what = format!("it repeats Checkpoint {} with other content", c.n);
                    self.find(Finding::new(Damage::RecordAltered, place(seq), what))?;
                }
            }
            (Record::Checkpoint(c), _) => {
                let finding = self.early_checkpoint(seq, &c).await?;
                return Err(self.lost(finding));
            }
            (Record::Renew(r), Event::Renew) => {
                self.report.renews += 1;
                self.pointer.follow(r.after, || format!("Renew, ledger seq {seq}, was made after version {}", r.after));
                self.pointer_reached()?;
            }
            (Record::Renew(r), _) if r.after > self.state.stamp.as_ref().map_or(0, |s| s.version) => {
                let finding = self.early_renew(seq, &r).await?;
                return Err(self.lost(finding));
            }
            _ => {}
        }
        Ok(())
    }

    /// A Checkpoint that completes the open cut.
    async fn checkpoint(&mut self, seq: Offset, c: &Checkpoint, payload: &Bytes) -> Step {
        self.report.checkpoints += 1;
        self.checkpoint_version = self.state.stamp.as_ref().map_or(0, |s| s.version);
        self.report.covered.to = Some(c.n);
        let is_sound = self.completed(place(seq), c).await?;
        self.pointer_reached()?;
        self.keep_point(is_sound, seq, c, payload)
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
}
