//! The database under the embedded log: keys, options, recovery, and which of its errors can pass.
//!
//! ```text
//!   key    partition (3 bytes) │ offset (8 bytes, big-endian)      a partition is a range, in offset order
//!   value  append time and payload, compressed if it is large: see [`super::value`]
//! ```
//!
//! Values from 1 KiB on go to blob files: they are written to the write-ahead log and once more, and never again
//! by compaction (nothing is ever deleted, so there is nothing to collect).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, LogLevel, Options, ReadOptions};
use rocksdb::{WriteBatch, WriteOptions};

use super::super::{Offset, Partition, Record};
use super::value;
use crate::error::{Error, Result};

/// Two or three of these are the log's memory.
const MEMTABLE_BYTES: usize = 16 << 20;
/// Table blocks hold keys and small values only.
const BLOCK_CACHE_BYTES: usize = 8 << 20;
/// Values of at least this size are written outside the tables.
const MIN_BLOB_BYTES: u64 = 1 << 10;
/// Room that opening takes beside a copy of the write-ahead log: manifest, info log, the next write-ahead log.
const OPEN_SLACK_BYTES: u64 = 4 << 20;
/// Where the lower bound of what was answered is kept.
const MARK_FILE: &str = "ACKNOWLEDGED";
/// Sorts behind every record.
const FORMAT_KEY: &[u8] = b"\xffformat";
const FORMAT: &[u8] = b"3";
/// Those before have other values, which are read as they are.
const OLD_FORMATS: [&[u8]; 2] = [b"1", b"2"];

/// What is to be written.
pub(super) struct Entry<'a> {
    pub to: Partition,
    pub offset: Offset,
    pub time_ms: u64,
    pub payload: &'a Bytes,
}

/// Why a write failed.
pub(super) enum Failure {
    /// For want of room or handles: it may have happened, and reopening will tell.
    Passing(String),
    /// For good: what the medium holds is not known.
    Fatal(Error),
}

/// An open database.
pub(super) struct Medium {
    db: DB,
    mark: Option<File>,
}

impl Medium {
    pub fn open(dir: &Path) -> Result<Medium> {
        let doing = || format!("cannot open the log in {}", dir.display());
        let usable = |e: io::Error| Error::invalid("data", format!("{}: {e}", doing()));
        fs::create_dir_all(dir).map_err(usable)?;
        let fresh = Medium::is_fresh(dir).map_err(|e| e.context(doing()))?;
        let mark = File::options().create(true).truncate(false).read(true).write(true).open(dir.join(MARK_FILE));
        let mark = mark.map_err(usable)?;
        Medium::check_room(dir).map_err(|e| e.context(doing()))?;
        let mut options = options();
        options.create_if_missing(fresh);
        let db = DB::open(&options, dir).map_err(|e| open_error(&e).context(doing()))?;
        let medium = Medium { db, mark: Some(mark) };
        medium.check_format().and_then(|()| medium.check_mark()).map_err(|e| e.context(doing()))?;
        medium.set_format().map_err(|e| e.context(doing()))?;
        Ok(medium)
    }

    /// Whether a database may be made here. One that has lost its CURRENT file must not be: RocksDB would begin anew
    /// and purge all that it does not know.
    fn is_fresh(dir: &Path) -> Result<bool> {
        if dir.join("CURRENT").exists() {
            return Ok(false);
        }
        let looked = fs::read_dir(dir).and_then(|entries| {
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let holds_data = [".sst", ".blob", ".log"].iter().any(|end| name.ends_with(end)) || name == MARK_FILE;
                if holds_data && entry.metadata()?.len() > 0 {
                    return Ok(Some(name));
                }
            }
            Ok(None)
        });
        match looked {
            Ok(None) => Ok(true),
            Ok(Some(name)) => Err(Error::corrupt(format!(
                "{name} is there, the file CURRENT is missing: put it back from a backup, or all of the log"
            ))),
            Err(e) => Err(Error::unavailable(format!("it cannot be looked at: {e}"))),
        }
    }

    pub fn open_read_only(dir: &Path) -> Result<Medium> {
        let doing = || format!("cannot read the log in {}", dir.display());
        if !dir.join("CURRENT").exists() {
            return Err(Error::invalid("data", format!("{}: there is none", doing())));
        }
        let db = DB::open_for_read_only(&options(), dir, false).map_err(|e| open_error(&e).context(doing()))?;
        let medium = Medium { db, mark: File::open(dir.join(MARK_FILE)).ok() };
        medium.check_format().and_then(|()| medium.check_mark()).map_err(|e| e.context(doing()))?;
        Ok(medium)
    }

    /// Refuses when the disk may not have the room that opening takes. A recovery that runs out of it leaves a part
    /// of a blob file, which only one that succeeds removes: trying again and again would eat what room comes back.
    pub fn check_room(dir: &Path) -> Result<()> {
        let look = || -> io::Result<(u64, u64)> {
            let mut wal = 0;
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                if entry.path().extension().is_some_and(|ext| ext == "log") {
                    wal += entry.metadata()?.len();
                }
            }
            let disk = rustix::fs::statvfs(dir)?;
            Ok((disk.f_bavail.saturating_mul(disk.f_frsize), wal + OPEN_SLACK_BYTES))
        };
        let (free, need) = look().map_err(|e| Error::unavailable(format!("cannot look at the log's disk: {e}")))?;
        if free < need {
            let full = format!("the log's disk is full: {free} bytes are free, {need} are needed to open it");
            return Err(Error::unavailable(full));
        }
        Ok(())
    }

    fn format(&self) -> Result<Option<Vec<u8>>> {
        self.db.get(FORMAT_KEY).map_err(|e| Error::corrupt(e.into_string()))
    }

    fn check_format(&self) -> Result<()> {
        match self.format()? {
            Some(format) if format == FORMAT || OLD_FORMATS.contains(&&format[..]) => Ok(()),
            Some(format) => {
                let (is, known) = (String::from_utf8_lossy(&format), String::from_utf8_lossy(FORMAT));
                Err(Error::unsupported(format!("it is of format {is}, this program knows those up to {known}")))
            }
            None if !self.ends()?.is_empty() => Err(Error::corrupt("it has records but no format")),
            None => Ok(()),
        }
    }

    /// From now on it is of this format. Only once it is known to be whole: what is written here would count for what
    /// is missing.
    fn set_format(&self) -> Result<()> {
        if self.format()?.as_deref() == Some(FORMAT) {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        batch.put(FORMAT_KEY, FORMAT);
        self.db.write_opt(batch, &synced()).map_err(|e| open_error(&e))
    }

    fn check_mark(&self) -> Result<()> {
        let mut bytes = [0; 8];
        let Some(mark) = &self.mark else { return Ok(()) };
        match mark.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()), // never written
            Err(e) => return Err(Error::corrupt(format!("{MARK_FILE}: {e}"))),
        }
        let (answered, found) = (u64::from_be_bytes(bytes), self.db.latest_sequence_number());
        if found < answered {
            let lost = format!("{answered} writes were acknowledged, only {found} are there: records were lost");
            return Err(Error::corrupt(lost));
        }
        Ok(())
    }

    /// One past the last record of every partition that has one.
    pub fn ends(&self) -> Result<BTreeMap<Partition, Offset>> {
        let mut ends = BTreeMap::new();
        let mut it = self.db.raw_iterator();
        it.seek_to_first();
        while let Some(found) = it.key().filter(|found| *found != FORMAT_KEY) {
            let (of, _) = parse_key(found)?;
            it.seek_for_prev(key(of, Offset::MAX));
            let (same, last) = parse_key(it.key().unwrap_or_default())?;
            if same != of {
                return Err(Error::corrupt("the log's keys are out of order"));
            }
            ends.insert(of, last + 1);
            it.seek(key(of, Offset::MAX));
        }
        it.status().map_err(|e| read_error(&e))?;
        Ok(ends)
    }

    /// Writes and syncs all of `entries`, or none.
    pub fn write(&self, entries: &[Entry<'_>]) -> std::result::Result<(), Failure> {
        let mut batch = WriteBatch::default();
        let mut value = Vec::new();
        for entry in entries {
            value::write(entry.time_ms, entry.payload, &mut value);
            batch.put(key(entry.to, entry.offset), &value);
        }
        self.db.write_opt(batch, &synced()).map_err(|e| {
            if can_pass(&e) {
                Failure::Passing(e.into_string())
            } else {
                Failure::Fatal(Error::corrupt(format!("the log cannot be written: {e}")))
            }
        })?;
        if let Some(mark) = &self.mark {
            // Not synced: it has to outlive the process only. A missing update leaves a lower bound.
            let _ = mark.write_all_at(&self.db.latest_sequence_number().to_be_bytes(), 0);
        }
        Ok(())
    }

    /// The records in `range`, at most about `max_bytes` of payload but at least one.
    pub fn scan(&self, of: Partition, range: Range<Offset>, max_bytes: usize) -> Result<Vec<Record>> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(key(of, range.end));
        options.fill_cache(false);
        let mut it = self.db.raw_iterator_opt(options);
        let (mut records, mut bytes) = (Vec::new(), 0);
        it.seek(key(of, range.start));
        while let Some((key, value)) = it.item() {
            let record = record(parse_key(key)?.1, value)?;
            bytes += record.payload.len();
            if bytes > max_bytes && !records.is_empty() {
                return Ok(records);
            }
            records.push(record);
            it.next();
        }
        it.status().map_err(|e| read_error(&e))?;
        Ok(records)
    }

    /// The record at `at`.
    pub fn get(&self, of: Partition, at: Offset) -> Result<Option<Record>> {
        let value = self.db.get_pinned(key(of, at)).map_err(|e| read_error(&e))?;
        value.map(|value| record(at, &value)).transpose()
    }
}

fn options() -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
    let mut o = Options::default();
    o.set_block_based_table_factory(&table);
    o.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    o.set_write_buffer_size(MEMTABLE_BYTES);
    o.set_max_write_buffer_number(3);
    o.set_compression_type(DBCompressionType::Lz4);
    o.set_enable_blob_files(true);
    o.set_min_blob_size(MIN_BLOB_BYTES);
    o.set_bytes_per_sync(1 << 20);
    o.set_max_open_files(512);
    o.set_keep_log_file_num(2);
    o.set_max_log_file_size(1 << 20);
    o.set_log_level(LogLevel::Warn);
    o.set_stats_dump_period_sec(0);
    o
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

fn key(of: Partition, at: Offset) -> [u8; 11] {
    let (kind, id) = match of {
        Partition::Ledger => (0, 0),
        Partition::Folds => (1, 0),
        Partition::Changes(id) => (2, id),
        Partition::Inbox(id) => (3, id),
        Partition::Rejects => (4, 0),
    };
    let mut key = [kind; 11];
    key[1..3].copy_from_slice(&id.to_be_bytes());
    key[3..].copy_from_slice(&at.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Result<(Partition, Offset)> {
    let foreign = || Error::corrupt(format!("the log has a foreign key {}", hex::encode(key)));
    let (head, at) = key.split_first_chunk::<3>().ok_or_else(foreign)?;
    let at = Offset::from_be_bytes(at.try_into().map_err(|_| foreign())?);
    match head {
        [0, 0, 0] => Ok((Partition::Ledger, at)),
        [1, 0, 0] => Ok((Partition::Folds, at)),
        [2, high, low] => Ok((Partition::Changes(u16::from_be_bytes([*high, *low])), at)),
        [3, high, low] => Ok((Partition::Inbox(u16::from_be_bytes([*high, *low])), at)),
        [4, 0, 0] => Ok((Partition::Rejects, at)),
        _ => Err(foreign()),
    }
}

fn record(offset: Offset, value: &[u8]) -> Result<Record> {
    let (time_ms, payload) = value::read(value).map_err(|e| e.context(format!("offset {offset}")))?;
    Ok(Record { offset, time_ms, payload })
}

/// Whether an error is about room or handles, which come back. RocksDB tells it in words only.
fn can_pass(e: &rocksdb::Error) -> bool {
    let words = ["No space left on device", "Disk quota exceeded", "Too many open files", "Cannot allocate memory"];
    words.iter().any(|word| e.as_ref().contains(word))
}

fn read_error(e: &rocksdb::Error) -> Error {
    let message = format!("the log cannot be read: {e}");
    if can_pass(e) { Error::unavailable(message) } else { Error::corrupt(message) }
}

fn open_error(e: &rocksdb::Error) -> Error {
    let locked = e.as_ref().contains("lock hold by current process") || e.as_ref().contains("While lock file");
    if locked || can_pass(e) { Error::unavailable(e.to_string()) } else { Error::corrupt(e.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_partition_then_offset_and_come_back() {
        let places = [
            (Partition::Ledger, 0),
            (Partition::Ledger, 256),
            (Partition::Folds, 1),
            (Partition::Changes(0), 7),
            (Partition::Changes(1), 0),
            (Partition::Changes(256), u64::MAX),
            (Partition::Inbox(1), 2),
            (Partition::Rejects, 0),
        ];
        assert!(places.iter().map(|(of, at)| key(*of, *at)).is_sorted());
        assert!(places.iter().all(|(of, at)| parse_key(&key(*of, *at)).unwrap() == (*of, *at)));
        assert!(key(Partition::Changes(u16::MAX), u64::MAX).as_slice() < FORMAT_KEY);
        for foreign in [&b""[..], b"\x00", b"\x00\x00\x01\0\0\0\0\0\0\0\0", b"\x05\x00\x00\0\0\0\0\0\0\0\0", FORMAT_KEY]
        {
            assert!(parse_key(foreign).is_err());
        }
    }

    #[test]
    fn a_log_of_the_format_before_is_read_and_goes_on_in_this_one() {
        let dir = tempfile::tempdir().unwrap();
        let of = Partition::Ledger;
        // As it was written: blobs from 4 KiB on, compressed by RocksDB.
        let mut old_options = options();
        old_options.set_min_blob_size(4 << 10);
        old_options.set_blob_compression_type(DBCompressionType::Lz4);
        let put = |format: &[u8]| {
            let db = DB::open(&old_options, dir.path()).unwrap();
            db.put(FORMAT_KEY, format).unwrap();
            db.put(key(of, 0), [&7u64.to_be_bytes()[..], &[b'x'; 9_000]].concat()).unwrap();
            db.flush().unwrap();
            db.latest_sequence_number()
        };
        drop(Medium::open(dir.path()).unwrap());
        let last = put(OLD_FORMATS[0]);
        let mark = dir.path().join(MARK_FILE);
        fs::write(&mark, (last + 1).to_be_bytes()).unwrap();
        let e = Medium::open(dir.path()).err().expect("a record is missing");
        assert_eq!(e.kind, crate::error::Kind::Corrupt, "{e}");
        fs::write(&mark, last.to_be_bytes()).unwrap();
        let old = Record { offset: 0, time_ms: 7_000, payload: vec![b'x'; 9_000].into() };
        let read = |medium: &Medium| medium.scan(of, 0..9, usize::MAX).unwrap();
        assert_eq!(read(&Medium::open_read_only(dir.path()).unwrap()), std::slice::from_ref(&old));
        let medium = Medium::open(dir.path()).unwrap();
        let new = Record { offset: 1, time_ms: 8, payload: vec![b'y'; 3_000].into() };
        assert!(medium.write(&[Entry { to: of, offset: 1, time_ms: 8, payload: &new.payload }]).is_ok());
        assert_eq!(read(&medium), [old, new]);
        assert_eq!(medium.db.get(FORMAT_KEY).unwrap().unwrap(), FORMAT);
        drop(medium);
        put(b"4");
        for opened in [Medium::open(dir.path()), Medium::open_read_only(dir.path())] {
            let e = opened.err().expect("it is of another program");
            assert!(e.kind == crate::error::Kind::Unsupported && e.message.contains("format 4"), "{e}");
        }
    }
}
