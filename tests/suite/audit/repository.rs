//! A small repository, made by stepping the real intake, folds and compactor.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use futures::FutureExt;
use tempfile::TempDir;
use tuflog::audit::{self, Options, Report};
use tuflog::bins::{Layout, sha256};
use tuflog::change::{Batch, Change};
use tuflog::clock::ManualClock;
use tuflog::compact::{self, Compactor};
use tuflog::fold::{self, Fold, state};
use tuflog::intake::{DEFAULT_GROUPS, DEFAULT_QUEUE_BYTES, Handle, Intake, Receipt};
use tuflog::ledger::record::{Format, Record, RootRecord, Settings, SettingsRecord};
use tuflog::log::{Log, Partition};
use tuflog::pool::Pool;
use tuflog::recover::{self, Source};
use tuflog::store::local::LocalStore;
use tuflog::tuf::key::{KeyRing, Signer};
use tuflog::tuf::root::{RoleKeys, Root};

use crate::help::{PATIENCE, block_on, scratch};

/// When every story begins: 2026-01-01T00:00:00Z.
pub const START: u64 = 1_767_225_600;
pub const DAY: u64 = 86_400;

pub struct Repository {
    pub dir: TempDir,
    pub log: Arc<dyn Log>,
    pub clock: Arc<ManualClock>,
    pub layout: Layout,
    settings: Settings,
    intake: Intake,
    handle: Handle,
    folds: Vec<Fold>,
    compactor: Compactor,
    root: Root,
}

pub fn signer(seed: u8) -> Arc<Signer> {
    Arc::new(Signer::from_seed(&[seed; 32]))
}

/// Root keys are 1 and 2, both of which must sign; the online key of root `v` is 10 + `v`.
fn root(version: u64) -> Root {
    let (offline, online) = ([signer(1), signer(2)], signer(10 + version as u8));
    let role =
        |keys: &[Arc<Signer>]| RoleKeys::new(keys.iter().map(|s| *s.public().key_id()).collect(), keys.len() as u32);
    let online_role = role(std::slice::from_ref(&online));
    Root {
        version,
        expires: START + 3_650 * DAY,
        keys: offline.iter().chain([&online]).map(|s| (*s.public().key_id(), s.public().clone())).collect(),
        root: role(&offline),
        targets: online_role.clone(),
        snapshot: online_role.clone(),
        timestamp: online_role,
    }
}

pub fn settings() -> Settings {
    Settings { state_every: 2, ..Settings::default() }
}

pub fn add(path: &str, content: &str) -> Change {
    let digest = hex::encode(sha256(content.as_bytes()));
    Change::add(path.into(), content.len() as u64, &[("sha256".into(), digest)].into(), None).unwrap()
}

pub fn remove(path: &str) -> Change {
    Change::remove(path.into()).unwrap()
}

impl Repository {
    /// An empty repository of 8 bins in 4 partitions, with its first cut.
    pub fn new(log: Arc<dyn Log>, dir: TempDir) -> Repository {
        Repository::with(log, dir, Layout::new(8, 4).unwrap())
    }

    pub fn with(log: Arc<dyn Log>, dir: TempDir, layout: Layout) -> Repository {
        block_on(async {
            let clock = Arc::new(ManualClock::new(START));
            let (first, settings) = (root(1), settings());
            let document = String::from_utf8(first.render(&[signer(1), signer(2)]).unwrap()).unwrap();
            for record in [
                Record::Format(Format { epoch: 1, bins: layout.bins(), partitions: 4 }),
                Record::Settings(SettingsRecord { revision: 1, settings: settings.clone() }),
                Record::Root(RootRecord { document }),
            ] {
                log.append(Partition::Ledger, record.encode()).await.unwrap();
            }
            let store = Arc::new(LocalStore::open(&dir.path().join("store")).unwrap());
            let mut keys = KeyRing::default();
            (11..20).for_each(|seed| keys.insert(signer(seed)));
            let keys = Arc::new(keys);
            let start = recover::start(&*log, &*store).await.unwrap();
            let (intake, handle) =
                Intake::new(log.clone(), Pool::Inline, start.clone(), DEFAULT_GROUPS, DEFAULT_QUEUE_BYTES)
                    .await
                    .unwrap();
            let state = Arc::new(state::State::open(&dir.path().join("state"), layout).unwrap());
            let (log2, store2, keys2) = (log.clone(), store.clone(), keys.clone());
            let parts = fold::Parts {
                log: log2,
                store: store2,
                state,
                keys: keys2,
                pool: Pool::Inline,
                uploads: 3,
                ids: Default::default(),
                recovered: 0,
            };
            let mut folds = Vec::new();
            for partition in 0..4 {
                folds.push(recover::fold(parts.clone(), partition, Source::Local).await.unwrap());
            }
            let parts = compact::Parts {
                log: log.clone(),
                store,
                keys,
                clock: clock.clone(),
                pool: Pool::Inline,
                min_cut_interval_ms: Arc::default(),
                patience_ms: 0,
                acts: true,
                published: Arc::new(tokio::sync::watch::channel(Default::default()).0),
            };
            let compactor = Compactor::new(parts, start).await.unwrap();
            let root = first;
            let mut repository =
                Repository { dir, log, clock, layout, settings, intake, handle, folds, compactor, root };
            repository.settle();
            repository
        })
    }

    /// In a folder of its own, on this log.
    pub fn on(log: Arc<dyn Log>) -> Repository {
        Repository::new(log, in_memory())
    }

    /// Steps everything until there is nothing to do.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut worked = block_on(self.intake.step()).unwrap();
            for fold in &mut self.folds {
                worked |= block_on(fold.step()).unwrap();
            }
            worked |= block_on(self.compactor.step()).unwrap();
            if !worked && self.compactor.is_settled() {
                return;
            }
        }
        panic!("not settled after 10,000 steps");
    }

    /// Commits a batch, without publishing it.
    pub fn commit(&mut self, id: &str, changes: Vec<Change>) -> Receipt {
        let batch = Batch::new(id.into(), None, changes).unwrap();
        let handle = self.handle.clone();
        let mut answer = pin!(handle.submit(batch));
        let start = std::time::Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(receipt) = answer.as_mut().now_or_never() {
                return receipt.unwrap();
            }
            block_on(self.intake.step()).unwrap();
            std::thread::yield_now(); // to the embedded log's writer
        }
        panic!("no receipt for {id}");
    }

    /// Commits a batch and publishes it.
    pub fn publish(&mut self, id: &str, changes: Vec<Change>) {
        self.commit(id, changes);
        self.settle();
    }

    /// Moves the clock and does what is due.
    pub fn wait(&mut self, seconds: u64) {
        use tuflog::clock::Clock;
        self.clock.set(self.clock.now() + seconds);
        self.settle();
    }

    /// The folds step, the compactor does not.
    pub fn step_folds(&mut self) {
        while self.folds.iter_mut().fold(false, |worked, fold| worked | block_on(fold.step()).unwrap()) {}
    }

    pub fn step_compactor(&mut self) -> bool {
        block_on(self.compactor.step()).unwrap()
    }

    /// A record that no component appends by itself.
    pub fn append(&mut self, record: Record) {
        block_on(self.log.append(Partition::Ledger, record.encode())).unwrap();
    }

    /// A new root with a new online key.
    pub fn rotate(&mut self) {
        self.root = root(self.root.version + 1);
        let document = String::from_utf8(self.root.render(&[signer(1), signer(2)]).unwrap()).unwrap();
        self.append(Record::Root(RootRecord { document }));
        self.settle();
    }

    pub fn change_settings(&mut self, revision: u64, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        self.append(Record::Settings(SettingsRecord { revision, settings: self.settings.clone() }));
        self.settle();
    }

    pub fn store(&self) -> Arc<LocalStore> {
        Arc::new(LocalStore::open(&self.store_dir()).unwrap())
    }

    pub fn store_dir(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub fn path(&self, object: &str) -> PathBuf {
        self.store_dir().join(object)
    }

    /// Names of the stored objects, sorted.
    pub fn objects(&self) -> Vec<String> {
        use tuflog::store::Store;
        block_on(self.store().list("")).unwrap()
    }

    /// The highest version of the bin that a path is in.
    pub fn bin_version(&self, path: &str) -> u64 {
        let suffix = format!(".{}.json", self.layout.name(self.layout.bin_of(path)));
        let versions = self
            .objects()
            .into_iter()
            .filter_map(|name| name.strip_prefix("metadata/")?.strip_suffix(&suffix)?.parse().ok());
        versions.max().unwrap()
    }

    pub fn audit(&self) -> Report {
        audit_of(self.log.clone(), self)
    }
}

/// A folder in memory where the system has one: nothing here is about what a disk keeps.
pub fn in_memory() -> TempDir {
    match Path::new("/dev/shm").is_dir() {
        true => tempfile::Builder::new().prefix("suite-audit-").tempdir_in("/dev/shm").expect("scratch folder"),
        false => scratch(),
    }
}

/// Where audits put what they replay.
pub fn replay_dir() -> PathBuf {
    let in_memory = Path::new("/dev/shm");
    if in_memory.is_dir() { in_memory.into() } else { env!("CARGO_TARGET_TMPDIR").into() }
}

/// How these tests audit.
pub fn options() -> Options {
    Options { scratch: Some(replay_dir()), ..Options::default() }
}

/// Audits the repository's store with some other log, without a runtime, up to the first finding.
pub fn audit_of(log: Arc<dyn Log>, repository: &Repository) -> Report {
    block_on(audit::run(log, repository.store(), options(), |_| {})).unwrap()
}

/// Asserts that it is clean, and says why not.
pub fn clean(report: Report) -> Report {
    assert!(report.is_clean() && report.findings.is_empty(), "{report}");
    report
}

/// A file, changed while the value lives.
pub struct Changed(PathBuf, Option<Vec<u8>>);

impl Changed {
    /// Writes `bytes`, or with `None` removes the file.
    pub fn file(path: &Path, bytes: Option<&[u8]>) -> Changed {
        let before = std::fs::read(path).ok();
        match bytes {
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        Changed(path.into(), before)
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        match &self.1 {
            Some(before) => std::fs::write(&self.0, before).unwrap(),
            None => std::fs::remove_file(&self.0).unwrap(),
        }
    }
}
