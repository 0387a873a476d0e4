//! Where an audit begins and ends: with the ledger, at a checkpoint as it was signed, or where one was cut off.

use std::fmt;

use bytes::Bytes;
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::damage::Damage;
use super::evidence::place;
use super::finding::{Finding, Value};
use super::objects::{Checked, Expect, Role, check_bytes};
use super::replay::{Replay, Step, Stop};
use super::resume::{Point, Verified};
use crate::bins::{Bin, sha256};
use crate::error::{Error, Kind, Result};
use crate::fold::state::LoadedBin;
use crate::ledger::follower::Mark;
use crate::ledger::record::{Checkpoint, ObjectRef};
use crate::ledger::saved;
use crate::ledger::state::OpenCut;
use crate::log::Offset;
use crate::recover;
use crate::store;
use crate::tuf::root::{RoleKeys, Root};
use crate::tuf::{Envelope, parse};

/// What is said of the history before the place at which an audit goes on.
const NOT_AGAIN: &str = "was not looked at again";

/// Which part of the history to audit, by the numbers of checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Begin with this one as it was signed; with the first record if `None`.
    pub from: Option<u64>,
    /// End with this one; with the ledger if `None`.
    pub to: Option<u64>,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from, self.to) {
            (Some(from), Some(to)) => write!(f, "with --from {from} --to {to}"),
            (Some(from), None) => write!(f, "with --from {from}"),
            (None, Some(to)) => write!(f, "with --to {to}"),
            (None, None) => write!(f, "without --from and --to"),
        }
    }
}

impl Replay<'_> {
    /// Places the replay where it begins.
    pub(super) async fn begin(&mut self, point: Option<Point>) -> Step {
        let Range { from, to } = self.options.range;
        let begins = from.map(|n| self.history.named("--from", n).map(|(seq, _)| (n, seq))).transpose()?;
        if let Some(n) = to {
            self.last = Some(self.history.named("--to", n)?.0);
            self.report
                .covered
                .not_covered
                .push(format!("after checkpoint {n}: no record, no object of a later cut, and not {}", store::POINTER));
        }
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            return Err(Error::invalid(
                "--to",
                format!("must be more than --from: there is nothing from {from} to {to}"),
            )
            .into());
        }
        if let Some(n) = from {
            self.report.covered.not_covered.push(format!(
                "before checkpoint {n}: how it came about, and objects that it does not name; it is taken as it was signed"
            ));
        }
        match (point, begins) {
            (Some(point), _) => self.resume(point).await?,
            (None, Some((n, seq))) => {
                self.enter(n, seq).await?;
                self.report.covered.from = Some(n);
                self.report.covered.to = Some(n);
                self.roots(None).await?;
                let open = self.state.open.as_ref().map_or(0, |open| open.folds_from);
                self.folds.begin(n, open);
                // Whoever appended its Cut had moved the pointer to the last checkpoint's version, and whoever appended
                // a Renew after that one, to the version before.
                let version = self.state.stamp.as_ref().map_or(0, |s| s.version).saturating_sub(1);
                self.pointer.follow(version, || format!("Cut {n} was made after version {version}"));
                self.pointer_reached()?;
            }
            (None, None) => {}
        }
        if self.report.covered.resumed_at.is_empty() {
            self.report.covered.first_seq = self.state.next;
        }
        self.pace.begin(self.state.next, &self.report);
        Ok(())
    }

    /// Goes on where an audit was cut off.
    async fn resume(&mut self, point: Point) -> Step {
        let n = point.checkpoint;
        let seq = self.history.named("--resume", n)?.0;
        let entered = self.enter(n, seq).await;
        // What it is found to stand on now comes behind what was found before; what was loaded again counts once.
        let found = std::mem::take(&mut self.report.findings);
        let reports = point.report.reports;
        self.pace.resume(&point.report);
        self.report = point.report;
        self.report.covered.resumed_at.push(n);
        self.report.notes.retain(|note| !note.ends_with(NOT_AGAIN));
        self.report.notes.push(format!("what was verified up to checkpoint {n} {NOT_AGAIN}"));
        self.report.findings.extend(found);
        entered?;
        if self.bins()?.listed.digest(n) != point.listed {
            return Err(Error::invalid(
                "--resume",
                format!(
                    "the store does not hold the same objects up to checkpoint {n} as when the file was written: if it was \
                     repaired or is another one, remove the file and audit from the beginning"
                ),
            )
            .into());
        }
        self.folds.resume(n, point.folds, reports).await?;
        let (version, cut) = (point.checkpoint_version, self.state.cut_seq);
        self.checkpoint_version = version;
        self.pointer.follow(version, || format!("Cut {n}, ledger seq {cut}, was made after version {version}"));
        let before = self.state.stamp.as_ref().map_or(0, |s| s.version).saturating_sub(1);
        self.pointer.follow(before, || format!("ledger seq {cut} was made after version {before}"));
        // Compared before, but it may have been put elsewhere meanwhile.
        match self.state.stamp.as_ref().and_then(|stamp| self.pointer.reached(stamp)) {
            Some(Checked::Wrong(finding)) => self.find(finding),
            _ if self.report.findings.len() >= self.options.max_findings.max(1) => Err(Stop::Enough),
            _ => Ok(()),
        }
    }

    /// Takes checkpoint `n`, whose record stands at `seq`, as it was signed: the replay goes on right after its Cut.
    async fn enter(&mut self, n: u64, seq: Offset) -> Step {
        let Some((_, c)) = self.checkpoint_of(n).await? else {
            return Err(Error::unavailable(format!("record {seq} of the ledger is not there now")).into());
        };
        self.state = match recover::state_at(&*self.log, &*self.store, c.seq + 1).await {
            Err(e) if e.kind == Kind::Corrupt => {
                let what = format!("the ledger state at its Cut cannot be had: {}", e.message);
                return Err(self.lost(Finding::new(Damage::RecordAltered, format!("checkpoint {n}"), what)));
            }
            state => state?,
        };
        let is_its = |open: &OpenCut| (open.n, open.seq, &open.ends) == (n, c.seq, &c.ends);
        if !self.state.open.as_ref().is_some_and(is_its) {
            let what = format!(
                "Checkpoint {n} says that its Cut stands at seq {}, or where the partitions end, otherwise than the ledger",
                c.seq
            );
            return Err(self.lost(Finding::new(Damage::RecordAltered, place(seq), what)));
        }
        self.open_bins()?;
        self.history.recoveries.retain(|(at, r)| {
            let is_ahead = *at > c.seq;
            if !is_ahead {
                let own = [store::recovery_state_name(&r.state.sha256), store::recovery_ids_name(&r.state.sha256)];
                self.bins.iter_mut().for_each(|bins| bins.listed.strangers.retain(|name| !own.contains(name)));
            }
            is_ahead
        });
        let root = self.state.root.as_ref().map_or(0, |r| r.root.version);
        let listed = &mut self.bins()?.listed;
        listed.account_cuts(0, n);
        listed.account_roots(root);
        self.previous_cut = c.seq;
        self.stored_state(n, &c).await?;
        self.load(c.seq + 1, n, &c.snapshot).await
    }

    /// The ledger state that a Checkpoint names, as it is stored, against that of the ledger.
    async fn stored_state(&mut self, n: u64, c: &Checkpoint) -> Step {
        if c.state.is_none() {
            return Ok(());
        }
        let saved::Objects { state, ids, .. } = saved::save(&self.state)?;
        let objects = [(Role::State, state, "ledger state"), (Role::Ids, ids, "batch ids remembered")];
        for (role, bytes, what) in objects {
            let name = role.name(n, self.bins()?.layout);
            let expect = Expect { name: name.clone(), version: n, by: format!("the {what} at cut {n}") };
            match check_bytes(&expect, self.store.get(&name).await?.as_ref(), &bytes) {
                Checked::Right(verified) => self.count(&verified),
                Checked::Wrong(finding) => self.find(finding)?,
                Checked::Missing(value) => {
                    let what = format!("it should be {}", expect.by);
                    self.find(Finding::new(Damage::ObjectMissing, name, what).values(Some(value), None))?;
                }
            }
        }
        Ok(())
    }

    /// Verifies a checkpoint as it is signed, and takes its bins; `next` is the seq from which on it is replayed.
    pub(super) async fn load(&mut self, next: Offset, n: u64, snapshot: &ObjectRef) -> Step {
        let Some(signed_by) = self.state.cut_root.clone() else { return Ok(()) };
        let root = &signed_by.root;
        let by = format!("checkpoint {n} names it");
        let name = store::metadata_name(n, "snapshot");
        let found = as_signed(self.store.get(&name).await?, &name, &by, Some(snapshot), root, &root.snapshot);
        let bytes = found.map_err(|finding| self.lost(finding))?;
        let wrong = |name: &str, e: Error| Finding::new(Damage::ObjectAltered, name, format!("{by}: {}", e.message));
        let snapshot = match parse::parse_snapshot(Envelope::open(&bytes)?.signed) {
            Ok(snapshot) if snapshot.version == n => snapshot,
            Ok(other) => {
                let e = Error::corrupt(format!("it says it is version {}", other.version));
                return Err(self.lost(wrong(&name, e)));
            }
            Err(e) => return Err(self.lost(wrong(&name, e))),
        };
        let (targets, mut bytes_read) = (snapshot.targets, bytes.len() as u64);
        let name = store::metadata_name(targets.version, "targets");
        let named = ObjectRef { length: targets.length, sha256: targets.sha256 };
        let found = as_signed(self.store.get(&name).await?, &name, &by, Some(&named), root, &root.targets);
        bytes_read += found.map_err(|finding| self.lost(finding))?.len() as u64;
        self.targets = Some(targets);
        let (store, pool, parallel) = (self.store.clone(), self.options.pool.clone(), self.options.parallel.max(1));
        let bins = self.bins()?;
        let (layout, state) = (bins.layout, bins.state.clone());
        for partition in 0..layout.partitions() {
            state.reset(partition)?;
        }
        let versions = |bin: Bin| snapshot.bins.get(&layout.name(bin)).copied();
        let work = stream::iter(0..layout.bins()).map(|bin| {
            let (store, pool, state, signed_by, by) = (&store, &pool, state.clone(), signed_by.clone(), by.clone());
            let version = versions(bin);
            async move {
                let Some(version) = version else {
                    let name = store::metadata_name(n, "snapshot");
                    let what = format!("{by}, and it does not list {}", layout.name(bin));
                    return Ok::<_, Error>(Err(Finding::new(Damage::ObjectAltered, name, what)));
                };
                let name = store::metadata_name(version, &layout.name(bin));
                let stored = store.get(&name).await?;
                let take = move || -> Result<std::result::Result<_, Box<Finding>>> {
                    let root = &signed_by.root;
                    let bytes = match as_signed(stored, &name, &by, None, root, &root.targets) {
                        Ok(bytes) => bytes,
                        Err(finding) => return Ok(Err(finding)),
                    };
                    let misplaced =
                        |e: String| Ok(Err(Finding::new(Damage::ObjectAltered, &name, format!("{by}: {e}"))));
                    let parsed = match parse::parse_bin(Envelope::open(&bytes)?.signed) {
                        Ok(parsed) => parsed,
                        Err(e) => return misplaced(e.message),
                    };
                    if parsed.version != version || parsed.targets.iter().any(|(path, _)| layout.bin_of(path) != bin) {
                        return misplaced("it does not belong under its name".into());
                    }
                    let count = parsed.targets.len() as u64;
                    state.load_bin(&LoadedBin { bin, seq: next - 1, targets: parsed.targets })?;
                    Ok(Ok((bin, version, count, bytes.len() as u64)))
                };
                pool.run(take).await
            }
        });
        let loaded: Vec<_> = work.buffered(parallel).collect().await;
        let mark = Mark { next, last: None };
        for partition in 0..layout.partitions() {
            state.advance(partition, &mark, false)?;
        }
        for found in loaded {
            let (bin, version, count, length) = found?.map_err(|finding| self.lost(finding))?;
            let bins = self.bins()?;
            (bins.versions[bin as usize], bins.counts[bin as usize]) = (version, count);
            bytes_read += length;
        }
        let bins = self.bins()?;
        bins.dirty.iter_mut().for_each(|dirty| dirty.clear());
        bins.unsound.clear();
        let objects = 2 + u64::from(layout.bins());
        self.report.objects += objects;
        self.report.signatures += objects;
        self.report.bytes += bytes_read;
        Ok(())
    }

    /// Keeps the place to go on from, at a Checkpoint of a cut that is right.
    pub(super) fn keep_point(&mut self, is_sound: bool, seq: Offset, c: &Checkpoint, payload: &[u8]) -> Step {
        let Some(mut at_cut) = self.at_cut.take() else { return Ok(()) };
        let nothing_since = at_cut.findings.len() == self.report.findings.len();
        let listed = self.bins()?.listed.digest(c.n);
        let Some(resume) = self.resume.as_mut().filter(|_| is_sound && nothing_since) else { return Ok(()) };
        (at_cut.reports, at_cut.covered.to) = (self.folds.right, Some(c.n));
        self.pace.note(&mut at_cut);
        let point = resume.point(Verified {
            checkpoint: c.n,
            seq,
            digest: sha256(payload),
            folds: self.folds.point(c.n),
            checkpoint_version: self.version_at_cut,
            listed,
            report: at_cut,
        });
        if resume.is_due() {
            resume.save(&point)?;
            self.point = None;
        } else {
            self.point = Some(point);
        }
        Ok(())
    }
}

/// An object that must be there and signed, and if `named` is given, must be the one it describes.
fn as_signed(
    stored: Option<Bytes>,
    name: &str,
    by: &str,
    named: Option<&ObjectRef>,
    root: &Root,
    role: &RoleKeys,
) -> std::result::Result<Bytes, Box<Finding>> {
    let Some(bytes) = stored else { return Err(Finding::new(Damage::ObjectMissing, name, by)) };
    let wrong = |damage, what: String| Finding::new(damage, name, format!("{by}, and {what}"));
    let envelope = Envelope::open(&bytes).map_err(|e| wrong(Damage::ObjectAltered, e.message))?;
    envelope.verify(&root.keys, role).map_err(|e| wrong(Damage::BadSignature, e.message))?;
    match named {
        Some(named) if (bytes.len() as u64, sha256(&bytes)) != (named.length, named.sha256) => {
            let expected = Value::stated(None, named.length, &named.sha256);
            let finding = wrong(Damage::ObjectAltered, "it has another digest".into());
            Err(finding.values(Some(expected), Some(Value::of(&bytes))))
        }
        _ => Ok(bytes),
    }
}
