//! What a cut makes, rebuilt from the replayed bins and compared with the store.
//!
//! Everything is rebuilt at the Cut, for that is where its state is. Whether what is missing should be there is known
//! only at its Checkpoint: an unfinished cut has as much of it as was stored.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};

use super::damage::Damage;
use super::finding::{Finding, Value};
use super::objects::{Checked, Expect, Role, check_bytes, check_signed};
use super::replay::{Replay, Step};
use crate::bins::{Bin, Layout, PartitionId, Sha256Digest, sha256};
use crate::error::{Error, Result};
use crate::fold::state::{self, Passed};
use crate::ledger::follower::Mark;
use crate::ledger::record::{Checkpoint, ObjectRef, StateRef};
use crate::ledger::report::{FoldReport, RenderedBin};
use crate::ledger::state::OpenCut;
use crate::ledger::{saved, slots};
use crate::tuf::role::{self, Meta};
use crate::tuf::{Envelope, parse};

/// After how many bins to tell how far it is.
const TELL_EVERY: usize = 64;

/// What a cut came to.
pub(super) struct Built {
    n: u64,
    /// What is not there, with the partition whose fold stores it.
    missing: Vec<(Option<PartitionId>, Box<Finding>)>,
    /// What the folds must report.
    reports: Vec<FoldReport>,
    /// The stored snapshot, if it is right.
    snapshot: Option<ObjectRef>,
    /// The ledger state that its Checkpoint must name.
    state: Option<StateRef>,
}

/// A bin as the cut would publish it.
struct Rebuilt {
    signed: Vec<u8>,
    content: Sha256Digest,
    targets: u64,
}

/// Renders a bin. `None` if its content is the published one and it is not rendered anyhow.
fn rebuild(state: &state::State, bin: Bin, n: u64, expires: u64, always: bool) -> Result<Option<Rebuilt>> {
    let mut content = Vec::new();
    let targets = state.content(bin, &mut content)?;
    let digest = sha256(&content);
    if !always && digest == state.published(bin)? {
        return Ok(None);
    }
    let mut signed = Vec::new();
    role::signed_bin(n, expires, &content, &mut signed);
    Ok(Some(Rebuilt { signed, content: digest, targets }))
}

/// The entries of a snapshot.
fn entries(layout: Layout, versions: &[u64]) -> Vec<u8> {
    let entry =
        |(bin, version): (usize, &u64)| format!(r#""{}.json":{{"version":{version}}}"#, layout.name(bin as Bin));
    versions.iter().enumerate().map(entry).collect::<Vec<_>>().join(",").into_bytes()
}

impl Replay<'_> {
    /// Rebuilds and compares what the open cut makes.
    pub(super) async fn cut(&mut self) -> Step {
        let Some(open) = self.state.open.clone() else { return Ok(()) };
        self.report.cuts += 1;
        if self.blind.is_some() {
            return self.pass_blindly(&open).await;
        }
        self.pace.rebuild(true);
        let done = self.rebuild_cut(&open).await;
        self.pace.rebuild(false);
        self.tell();
        done
    }

    async fn rebuild_cut(&mut self, open: &OpenCut) -> Step {
        let checkpoint = self.foreseen(open).await?;
        let mut built = Built { n: open.n, missing: vec![], reports: vec![], snapshot: None, state: None };
        let stores_state = open.n.is_multiple_of(open.settings.state_every);
        // Before what is published: a ledger that has been altered would make all of it look wrong.
        if stores_state {
            self.rebuild_state(open, checkpoint.as_ref(), &mut built).await?;
        }
        self.rebuild_bins(open, &mut built).await?;
        for root in &open.new_roots {
            let (version, bytes) = (root.root.version, root.document.as_bytes());
            let by = format!("root {version} of the ledger");
            self.compare(&mut built, version, Role::Root, bytes, by).await?;
        }
        self.rebuild_targets(open, &mut built).await?;
        self.unexpected(open.n, stores_state).await?;
        self.rebuild_snapshot(open, &mut built).await?;
        self.built = Some(built);
        Ok(())
    }

    async fn rebuild_state(&mut self, open: &OpenCut, checkpoint: Option<&Checkpoint>, built: &mut Built) -> Step {
        let saved::Objects { state, ids, digests } = saved::save(&self.state)?;
        let named = checkpoint.and_then(|c| c.state.clone()).filter(|named| *named != digests);
        if let Some(named) = named {
            let layout = self.bins()?.layout;
            let (state, stored_ids) = (
                self.store.get(&Role::State.name(open.n, layout)).await?,
                self.store.get(&Role::Ids.name(open.n, layout)).await?,
            );
            let agree = state.is_some_and(|b| sha256(&b) == named.sha256)
                && stored_ids.as_ref().is_some_and(|b| sha256(b) == named.ids);
            if agree {
                let finding = self.other_state(open, stored_ids.as_ref().map(|stored| (&ids[..], &stored[..])));
                self.is_state_sound = false;
                built.state = Some(named);
                return self.find(finding);
            }
        }
        let by = |what: &str| format!("the {what} at cut {}", open.n);
        let before = (self.report.findings.len(), built.missing.len());
        self.compare(built, open.n, Role::State, &state, by("ledger state")).await?;
        self.compare(built, open.n, Role::Ids, &ids, by("batch ids remembered")).await?;
        match before == (self.report.findings.len(), built.missing.len()) {
            true => self.first_gap = self.gap,
            false => self.is_state_sound = false,
        }
        built.state = Some(digests);
        Ok(())
    }

    /// Looks for objects of a cut that it does not make: before its snapshot, which would differ because of them.
    async fn unexpected(&mut self, n: u64, stores_state: bool) -> Step {
        let listed = &mut self.bins()?.listed;
        listed.account(n, Role::Snapshot);
        if stores_state {
            listed.account(n, Role::State);
            listed.account(n, Role::Ids);
        }
        let unexpected: Vec<_> = listed.unexpected_of(n).collect();
        for (role, name) in unexpected {
            self.bins()?.listed.account(n, role);
            let why = match role {
                Role::Bin(bin) => {
                    format!("bin {bin} gets no new version at cut {n}: it neither changed nor was due")
                }
                Role::Targets => format!("targets.json gets no new version at cut {n}"),
                _ => format!("cut {n} makes none"),
            };
            let found = self.store.get(&name).await?.map(|b| Value::of(&b));
            self.find(Finding::new(Damage::ObjectAdded, name, why).values(None, found))?;
        }
        Ok(())
    }

    async fn rebuild_bins(&mut self, open: &OpenCut, built: &mut Built) -> Step {
        let (store, pool, parallel) = (self.store.clone(), self.options.pool.clone(), self.options.parallel.max(1));
        let bins = self.bins()?;
        let (layout, state, n) = (bins.layout, bins.state.clone(), open.n);
        let period = open.settings.bin_period_s();
        let always: BTreeSet<Bin> = match open.all {
            true => (0..layout.bins()).collect(),
            false => slots::due(0..layout.bins(), layout.bins(), period, open.previous_time, open.time).collect(),
        };
        let candidates: BTreeSet<Bin> = always.iter().chain(bins.dirty.iter().flatten()).copied().collect();
        let expires = open.time + open.settings.bins_expiry_s;
        let work = stream::iter(candidates).map(|bin| {
            let (state, store, pool, root) = (state.clone(), store.clone(), pool.clone(), open.root.clone());
            let always = always.contains(&bin);
            async move {
                let rebuilt = pool.run(move || rebuild(&state, bin, n, expires, always)).await?;
                let Some(Rebuilt { signed, content, targets }) = rebuilt else { return Ok::<_, Error>(None) };
                let expect = expect(layout, n, Role::Bin(bin));
                let stored = store.get(&expect.name).await?;
                let check =
                    move || (check_signed(&expect, stored.as_ref(), &signed, &root.root, &root.root.targets), expect);
                let (checked, expect) = pool.run(check).await;
                Ok(Some((bin, content, targets, checked, expect)))
            }
        });
        let mut work = std::pin::pin!(work.buffered(parallel));
        let mut published: Vec<Vec<(Bin, Sha256Digest)>> = vec![Vec::new(); layout.partitions().into()];
        let mut rendered: Vec<Vec<RenderedBin>> = vec![Vec::new(); layout.partitions().into()];
        let mut unsure = BTreeSet::new();
        let mut done = 0;
        while let Some(checked) = work.next().await {
            let Some((bin, content, targets, checked, expect)) = checked? else { continue };
            let partition = layout.partition_of(bin);
            let bins = self.bins()?;
            (bins.versions[bin as usize], bins.counts[bin as usize]) = (n, targets);
            bins.listed.account(n, Role::Bin(bin));
            published[usize::from(partition)].push((bin, content));
            self.report.bins += 1;
            match &checked {
                Checked::Right(_) => drop(self.bins()?.unsound.remove(&bin)),
                _ => drop(self.bins()?.unsound.insert(bin)),
            }
            match checked {
                Checked::Right(verified) => {
                    self.count(&verified);
                    let Meta { length, sha256, .. } = verified.meta;
                    rendered[usize::from(partition)].push(RenderedBin { bin, length, sha256 });
                }
                Checked::Missing(value) => {
                    unsure.insert(partition);
                    built.missing.push((Some(partition), missing(&expect, value)));
                }
                Checked::Wrong(finding) => {
                    unsure.insert(partition);
                    let finding = self.or_the_ledger(open, bin, finding).await?;
                    self.find(finding)?;
                }
            }
            done += 1;
            if done % TELL_EVERY == 0 {
                self.go_on().await?;
                self.tell();
            }
        }
        for partition in 0..layout.partitions() {
            let p = usize::from(partition);
            if open.wait.contains(&partition) {
                let (absent, bins) = (state.absent(partition)?, std::mem::take(&mut rendered[p]));
                let report = FoldReport { n, partition, part: 0, parts: 1, offset: open.ends[p], bins, absent };
                if unsure.contains(&partition) {
                    self.folds.ignore(n, partition);
                } else {
                    let log = self.log.clone();
                    let findings = self.folds.expect(&*log, &report).await?;
                    built.reports.push(report);
                    self.find_all(findings)?;
                }
            }
            let passed = Passed {
                mark: Mark { next: open.seq + 1, last: None },
                clean: std::mem::take(&mut self.bins()?.dirty[p]),
                published: std::mem::take(&mut published[p]),
                report: None,
                absent_reported: true,
            };
            state.pass(partition, &passed)?;
        }
        Ok(())
    }

    async fn rebuild_targets(&mut self, open: &OpenCut, built: &mut Built) -> Step {
        if !open.targets {
            return Ok(());
        }
        let (root, expires) = (&open.root.root, open.time + open.settings.targets_expiry_s);
        let expect = expect(self.bins()?.layout, open.n, Role::Targets);
        let mut signed = Vec::new();
        role::signed_targets(open.n, expires, root, self.bins()?.layout.bit_length(), &mut signed);
        let stored = self.store.get(&expect.name).await?;
        self.targets = None;
        match check_signed(&expect, stored.as_ref(), &signed, root, &root.targets) {
            Checked::Right(verified) => {
                self.count(&verified);
                self.targets = Some(verified.meta);
            }
            Checked::Missing(value) => built.missing.push((None, missing(&expect, value))),
            Checked::Wrong(finding) => self.find(finding)?,
        }
        self.bins()?.listed.account(open.n, Role::Targets);
        Ok(())
    }

    async fn rebuild_snapshot(&mut self, open: &OpenCut, built: &mut Built) -> Step {
        let bins = self.bins()?;
        let (n, entries) = (open.n, entries(bins.layout, &bins.versions));
        let expect = expect(bins.layout, n, Role::Snapshot);
        let stored = self.store.get(&expect.name).await?;
        // Without the right targets.json, what the snapshot says about it has to be taken from itself.
        let claimed = || parse::parse_snapshot(Envelope::open(stored.as_ref()?).ok()?.signed).ok().map(|s| s.targets);
        let targets = self.targets.or_else(claimed).unwrap_or(Meta { version: n, length: 0, sha256: [0; 32] });
        let expires = open.time + open.settings.snapshot_expiry_s;
        let root = open.root.clone();
        let check = move || {
            let mut signed = Vec::new();
            role::signed_snapshot(n, expires, &targets, &entries, &mut signed);
            (check_signed(&expect, stored.as_ref(), &signed, &root.root, &root.root.snapshot), expect)
        };
        match self.options.pool.run(check).await {
            (Checked::Right(verified), _) => {
                self.count(&verified);
                let Meta { length, sha256, .. } = verified.meta;
                built.snapshot = Some(ObjectRef { length, sha256 });
            }
            (Checked::Missing(value), expect) => built.missing.push((None, missing(&expect, value))),
            (Checked::Wrong(finding), _) => self.find(finding)?,
        }
        Ok(())
    }

    /// Compares a stored object with all of its bytes.
    async fn compare(&mut self, built: &mut Built, version: u64, role: Role, bytes: &[u8], by: String) -> Step {
        let expect = Expect { by, ..expect(self.bins()?.layout, version, role) };
        self.bins()?.listed.account(version, role); // a root is of no cut
        match check_bytes(&expect, self.store.get(&expect.name).await?.as_ref(), bytes) {
            Checked::Right(verified) => self.count(&verified),
            Checked::Missing(value) => built.missing.push((None, missing(&expect, value))),
            Checked::Wrong(finding) => self.find(finding)?,
        }
        Ok(())
    }

    /// The open cut has its Checkpoint: what it says is right, and everything is there. Answers whether a replay can
    /// begin here.
    pub(super) async fn completed(&mut self, place: String, c: &Checkpoint) -> Step<bool> {
        let Some(built) = self.built.take() else { return Ok(false) };
        let is_sound = built.missing.is_empty()
            && built.snapshot.as_ref() == Some(&c.snapshot)
            && self.targets.is_some()
            && self.is_state_sound
            && self.bins()?.unsound.is_empty();
        self.find_all(built.missing.into_iter().map(|(_, finding)| *finding).collect())?;
        if let Some(snapshot) = built.snapshot.filter(|s| *s != c.snapshot) {
            let value = |s: &ObjectRef| Some(Value::stated(Some(c.n), s.length, &s.sha256));
            let what = format!(
                "Checkpoint {} names another snapshot than the stored one, which is what cut {} renders",
                c.n, c.n
            );
            self.find(Finding::new(Damage::RecordAltered, &place, what).values(value(&snapshot), value(&c.snapshot)))?;
        }
        if built.state != c.state {
            let text = |s: &Option<StateRef>| match s {
                Some(s) => format!("state {} and ids {}", hex::encode(s.sha256), hex::encode(s.ids)),
                None => "none".into(),
            };
            let what = format!(
                "Checkpoint {} names as ledger state {}, by the ledger it is {}",
                c.n,
                text(&c.state),
                text(&built.state)
            );
            self.find(Finding::new(Damage::RecordAltered, &place, what))?;
        }
        let findings = self.folds.read(false, &built.reports).await?;
        self.find_all(findings)?;
        let missing = self.folds.missing(c.n);
        // What was lost of them before a Recovery is not known.
        if self.history.recoveries.is_empty() {
            self.find_all(missing)?;
        }
        Ok(is_sound)
    }

    /// The ledger has been read: what it leaves undone is legal, and noted.
    pub(super) async fn unfinished(&mut self) -> Step {
        let built = self.built.take();
        let reports = built.as_ref().map_or(&[][..], |b| &b.reports);
        let findings = self.folds.read(true, reports).await?;
        self.find_all(findings)?;
        if let Some(Built { n, missing, .. }) = built {
            for (partition, finding) in missing {
                // A fold reports only what is durable.
                if partition.is_some_and(|p| self.folds.has_some(n, p)) {
                    self.find(finding)?;
                }
            }
            self.report.notes.push(format!("cut {n} has no Checkpoint yet: serve will finish it"));
        }
        if !self.state.touched.is_empty() {
            self.report.notes.push("there are batches after the last cut: serve will publish them".into());
        }
        Ok(())
    }
}

fn expect(layout: Layout, n: u64, role: Role) -> Expect {
    Expect { name: role.name(n, layout), version: n, by: format!("what cut {n} renders") }
}

fn missing(expect: &Expect, value: Value) -> Box<Finding> {
    Finding::new(Damage::ObjectMissing, &expect.name, format!("it should be {}", expect.by)).values(Some(value), None)
}
