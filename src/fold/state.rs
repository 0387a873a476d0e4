//! Bin state on RocksDB, stored ready to publish. A cache of the log: it may fall back, never out of step with itself.
//!
//! Owns invariant 5's first half: targets, dirty marks and position move in one RocksDB write, in one column family,
//! so that they also fall back together when the machine loses power.
//!
//! ```text
//!   m partition               → position: the seq of the next ledger record; seq and SHA-256 of one before
//!   t bin path                → seq that wrote it (8 bytes) + canonical JSON fragment of the target
//!   d bin                     → (mark) changed since the last cut
//!   p bin                     → SHA-256 of the content published last; absent for an empty bin
//!   a partition seq index i   → path whose removal found nothing since the last cut
//!   r partition               → the report of the last cut, until its Checkpoint is read
//! ```
//!
//! Bins are big-endian, and bytes below a bin sort as canonical JSON sorts its keys (a path has no character that is
//! escaped), so a bin's content is one range scan that concatenates members.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use rocksdb::{DB, DBCompressionType, Options, ReadOptions, WriteBatch, WriteOptions};

use super::keys::{absent_range, bin_key, key, meta_key, meta_value, report_key, write_member, write_target_key};
use crate::bins::{Bin, Layout, PartitionId, Sha256Digest, sha256};
use crate::change::Change;
use crate::error::{Error, Result};
use crate::ledger::follower::Mark;
use crate::ledger::report::{Absent, FoldReport};
use crate::log::Offset;

/// The working state of all the partitions that a worker folds.
pub struct State {
    /// `None` only while it is reopened.
    db: RwLock<Option<DB>>,
    /// A write failed: the handle goes on failing even when the disk has room again.
    broken: AtomicBool,
    options: Options,
    dir: PathBuf,
    layout: Layout,
    durability: Durability,
}

/// The changes of one batch for one partition.
#[derive(Clone, Debug)]
pub struct BatchChanges {
    /// The seq at which they apply.
    pub seq: Offset,
    /// The batch's index in its Commit.
    pub index: u32,
    /// In order.
    pub changes: Vec<Change>,
}

/// What a cut leaves behind.
#[derive(Debug, Default)]
pub struct Passed {
    /// The place after the Cut.
    pub mark: Mark,
    /// The dirty marks to clear.
    pub clean: BTreeSet<Bin>,
    /// The content digests of the bins as they are published now.
    pub published: Vec<(Bin, Sha256Digest)>,
    /// The report to append.
    pub report: Option<FoldReport>,
    /// Whether the absent removals have been reported.
    pub absent_reported: bool,
}

/// How writes reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Through RocksDB's write-ahead log, not synced: survives the process.
    Process,
    /// Only when a memtable is flushed: falls back at a crash. (The log is the durable copy.)
    Flushes,
}

fn db(e: rocksdb::Error) -> Error {
    match e.kind() {
        rocksdb::ErrorKind::Corruption => Error::corrupt(format!("bin state: {e}: remove DIR/state, it is rebuilt")),
        _ => Error::unavailable(format!("bin state: {e}")),
    }
}

fn open_db(options: &Options, dir: &Path) -> Result<DB> {
    DB::open(options, dir).map_err(|e| match e.as_ref().contains("No such file or directory") {
        true => {
            Error::corrupt(format!("bin state: a file of it is missing: remove {}, it is rebuilt: {e}", dir.display()))
        }
        false => db(e),
    })
}

/// The options of every bin state database.
pub fn options() -> Options {
    let mut o = Options::default();
    o.create_if_missing(true);
    o.set_compression_type(DBCompressionType::Lz4);
    o.set_write_buffer_size(32 << 20);
    o.set_max_write_buffer_number(3);
    o.set_max_background_jobs(2);
    o.set_keep_log_file_num(2);
    o.set_max_open_files(256);
    let mut table = rocksdb::BlockBasedOptions::default();
    table.set_block_cache(&rocksdb::Cache::new_lru_cache(32 << 20));
    table.set_bloom_filter(10.0, false);
    table.set_block_size(16 << 10);
    o.set_block_based_table_factory(&table);
    o
}

impl State {
    /// Opens the state in `dir`, empty if it is new.
    pub fn open(dir: &Path, layout: Layout) -> Result<State> {
        State::open_with(options(), dir, layout, Durability::Process)
    }

    /// Opens a state with options of one's own, such as an in-memory environment.
    pub fn open_with(options: Options, dir: &Path, layout: Layout, durability: Durability) -> Result<State> {
        let opened = RwLock::new(Some(open_db(&options, dir)?));
        let (broken, dir) = (AtomicBool::new(false), dir.to_owned());
        Ok(State { db: opened, broken, options, dir, layout, durability })
    }

    /// Opens the database again if a write to it has failed. Whoever saw that failure must start again from what is
    /// stored.
    pub fn reopen_if_broken(&self) -> Result<()> {
        let mut slot = self.db.write().unwrap_or_else(PoisonError::into_inner);
        if self.broken.load(Ordering::SeqCst) || slot.is_none() {
            drop(slot.take()); // before it is opened again: RocksDB locks its directory
            *slot = Some(open_db(&self.options, &self.dir)?);
            self.broken.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    fn with<T>(&self, work: impl FnOnce(&DB) -> Result<T>) -> Result<T> {
        let slot = self.db.read().unwrap_or_else(PoisonError::into_inner);
        work(slot.as_ref().ok_or_else(|| Error::unavailable("bin state: could not be opened again"))?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.with(|d| d.get(key).map_err(db))
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(Error::unavailable("bin state: an earlier write failed"));
        }
        let mut options = WriteOptions::default();
        options.disable_wal(self.durability == Durability::Flushes);
        self.with(|d| {
            d.write_opt(batch, &options).map_err(|e| {
                self.broken.store(true, Ordering::SeqCst);
                db(e)
            })
        })
    }

    /// Calls `each` with every key and value from `from` up to `to`.
    fn scan(&self, from: Vec<u8>, to: Vec<u8>, mut each: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        self.with(|d| {
            let mut read = ReadOptions::default();
            read.set_iterate_upper_bound(to);
            let mut iter = d.raw_iterator_opt(read);
            iter.seek(&from);
            while let (Some(key), Some(value)) = (iter.key(), iter.value()) {
                each(key, value)?;
                iter.next();
            }
            iter.status().map_err(db)
        })
    }

    /// Writes what is only in memory to the disk.
    pub fn flush(&self) -> Result<()> {
        self.with(|d| d.flush().map_err(db))
    }

    /// The repository's layout.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The seq of the next ledger record of a partition; `None` when nothing is known of it.
    pub fn position(&self, partition: PartitionId) -> Result<Option<Offset>> {
        Ok(self.mark(partition)?.map(|mark| mark.next))
    }

    /// The same with the ledger record before it.
    pub fn mark(&self, partition: PartitionId) -> Result<Option<Mark>> {
        let Some(bytes) = self.get(&meta_key(partition))? else { return Ok(None) };
        let number = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(Offset::from_be_bytes);
        let next = number(0).ok_or_else(|| Error::corrupt("bin state: a position is not 8 bytes"))?;
        let digest = bytes.get(16..).and_then(|d| d.try_into().ok());
        Ok(Some(Mark { next, last: number(8).zip(digest) }))
    }

    /// The bins of a partition that changed since the last cut.
    pub fn dirty(&self, partition: PartitionId) -> Result<BTreeSet<Bin>> {
        let bins = self.layout.bins_of(partition);
        let mut out = BTreeSet::new();
        self.scan(bin_key(b'd', bins.start), bin_key(b'd', bins.end), |key, _| {
            let bin = key.get(1..5).and_then(|b| b.try_into().ok()).map(Bin::from_be_bytes);
            out.insert(bin.ok_or_else(|| Error::corrupt("bin state: a dirty mark is not 5 bytes"))?);
            Ok(())
        })?;
        Ok(out)
    }

    /// The report of the last cut, if its Checkpoint was not read yet.
    pub fn report(&self, partition: PartitionId) -> Result<Option<FoldReport>> {
        let Some(bytes) = self.get(&report_key(partition))? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::corrupt(format!("bin state: stored report: {e}")))
    }

    /// The removals of a partition that found nothing since the last cut.
    pub fn absent(&self, partition: PartitionId) -> Result<Vec<Absent>> {
        let mut out: Vec<Absent> = Vec::new();
        let (from, to) = absent_range(partition);
        self.scan(from, to, |key, path| {
            let bad = || Error::corrupt("bin state: an absent removal does not parse");
            let seq = key.get(3..11).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes).ok_or_else(bad)?;
            let index = key.get(11..15).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes).ok_or_else(bad)?;
            let path = String::from_utf8(path.to_vec()).map_err(|_| bad())?;
            match out.last_mut() {
                Some(a) if (a.seq, a.index) == (seq, index) => a.paths.push(path),
                _ => out.push(Absent { seq, index, paths: vec![path] }),
            }
            Ok(())
        })?;
        Ok(out)
    }

    /// The digest of a bin's content as published last.
    pub fn published(&self, bin: Bin) -> Result<Sha256Digest> {
        match self.get(&bin_key(b'p', bin))? {
            None => Ok(sha256(b"")),
            Some(bytes) => bytes.try_into().map_err(|_| Error::corrupt("bin state: a digest is not 32 bytes")),
        }
    }

    /// Applies batches in order and moves the position past them, in one write. `dirty` gains the bins they touch.
    pub fn apply(
        &self,
        partition: PartitionId,
        batches: &[BatchChanges],
        mark: &Mark,
        dirty: &mut BTreeSet<Bin>,
    ) -> Result<()> {
        let mut write = WriteBatch::default();
        let removes = batches.iter().flat_map(|b| &b.changes).any(Change::removes);
        // What this write itself leaves at a path; needed only to tell what a removal finds.
        let mut overlay: HashMap<&str, bool> = HashMap::new();
        let (mut target, mut value) = (Vec::new(), Vec::new());
        let mut marked = Vec::new();
        for BatchChanges { seq, index, changes } in batches {
            let mut absent = 0u32;
            for change in changes {
                let bin = self.layout.bin_at(change.place());
                target.clear();
                write_target_key(bin, change.path(), &mut target);
                if change.removes() {
                    let there = match overlay.get(change.path()) {
                        Some(there) => *there,
                        None => self.with(|d| Ok(d.get_pinned(&target).map_err(db)?.is_some()))?,
                    };
                    if !there {
                        let place = [
                            &partition.to_be_bytes()[..],
                            &seq.to_be_bytes(),
                            &index.to_be_bytes(),
                            &absent.to_be_bytes(),
                        ];
                        write.put(key(b'a', &place), change.path());
                        absent += 1;
                    }
                    write.delete(&target);
                } else {
                    value.clear();
                    value.extend_from_slice(&seq.to_be_bytes());
                    change.write_fragment(&mut value);
                    write.put(&target, &value);
                }
                if removes {
                    overlay.insert(change.path(), !change.removes());
                }
                if !dirty.contains(&bin) {
                    dirty.insert(bin);
                    marked.push(bin);
                }
            }
        }
        marked.iter().for_each(|bin| write.put(bin_key(b'd', *bin), b""));
        write.put(meta_key(partition), meta_value(mark));
        self.write(write).inspect_err(|_| dirty.retain(|bin| !marked.contains(bin)))
    }

    /// Moves the position past a Cut, with all that the cut leaves behind, in one write.
    pub fn pass(&self, partition: PartitionId, passed: &Passed) -> Result<()> {
        let mut write = WriteBatch::default();
        passed.clean.iter().for_each(|bin| write.delete(bin_key(b'd', *bin)));
        passed.published.iter().for_each(|(bin, digest)| write.put(bin_key(b'p', *bin), digest));
        if let Some(report) = &passed.report {
            let bytes = serde_json::to_vec(report).map_err(|e| Error::corrupt(format!("a report: {e}")))?;
            write.put(report_key(partition), bytes);
        }
        if passed.absent_reported {
            // One by one, for there are mostly none: a deleted range at every cut would slow down every read after it.
            let (from, to) = absent_range(partition);
            self.scan(from, to, |absent, _| {
                write.delete(absent);
                Ok(())
            })?;
        }
        write.put(meta_key(partition), meta_value(&passed.mark));
        self.write(write)
    }

    /// Moves the position over records that have nothing for the partition; forgets the report if `reported`.
    pub fn advance(&self, partition: PartitionId, mark: &Mark, reported: bool) -> Result<()> {
        let mut write = WriteBatch::default();
        if reported {
            write.delete(report_key(partition));
        }
        write.put(meta_key(partition), meta_value(mark));
        self.write(write)
    }

    /// Appends a bin's content: `"path":fragment` members joined by commas, in canonical order. Answers their number.
    pub fn content(&self, bin: Bin, out: &mut Vec<u8>) -> Result<u64> {
        let mut count = 0;
        self.scan(bin_key(b't', bin), bin_key(b't', bin + 1), |key, value| {
            let (Some(path), Some(fragment)) = (key.get(5..), value.get(8..)) else {
                return Err(Error::corrupt("bin state: a target does not parse"));
            };
            write_member(path, fragment, out);
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    /// The seq that wrote a path last; `None` where there is no target.
    pub fn written(&self, path: &str) -> Result<Option<Offset>> {
        let mut target = Vec::new();
        write_target_key(self.layout.bin_of(path), path, &mut target);
        let Some(value) = self.get(&target)? else { return Ok(None) };
        let seq = value.first_chunk().copied().map(Offset::from_be_bytes);
        seq.map(Some).ok_or_else(|| Error::corrupt("bin state: a target does not parse"))
    }

    /// Forgets everything about a partition.
    pub fn reset(&self, partition: PartitionId) -> Result<()> {
        let range = self.layout.bins_of(partition);
        let mut write = WriteBatch::default();
        for tag in [b't', b'd', b'p'] {
            write.delete_range(bin_key(tag, range.start), bin_key(tag, range.end));
        }
        let (from, to) = absent_range(partition);
        write.delete_range(from, to);
        write.delete(report_key(partition));
        write.delete(meta_key(partition)); // without a position the partition counts as unknown
        self.write(write)
    }

    /// Takes a bin's content as its published state, in a partition that was reset.
    pub fn load_bin(&self, loaded: &LoadedBin) -> Result<()> {
        let (mut write, mut content) = (WriteBatch::default(), Vec::new());
        let (mut target, mut value) = (Vec::new(), Vec::new());
        for (path, fragment) in &loaded.targets {
            target.clear();
            write_target_key(loaded.bin, path, &mut target);
            value.clear();
            value.extend_from_slice(&loaded.seq.to_be_bytes());
            value.extend_from_slice(fragment.as_bytes());
            write.put(&target, &value);
            write_member(path.as_bytes(), fragment.as_bytes(), &mut content);
        }
        write.put(bin_key(b'p', loaded.bin), sha256(&content));
        self.write(write)
    }
}

/// A published bin, as a worker with an empty disk loads it.
pub struct LoadedBin<'a> {
    /// Its index.
    pub bin: Bin,
    /// The seq of the cut it was loaded at.
    pub seq: Offset,
    /// Path and canonical fragment.
    pub targets: Vec<(Cow<'a, str>, &'a str)>,
}
