//! The fold reports: every record of topic `folds` compared with the one that the ledger asks for.
//!
//! A report may stand there any number of times, and late. Kept are 16 bytes of the digest of each that was expected,
//! and of each that was read before its cut was; the rest is fetched again only to explain a difference.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::damage::Damage;
use super::finding::Finding;
use crate::bins::{PartitionId, sha256};
use crate::error::{Kind, Result};
use crate::ledger::FoldReport;
use crate::log::{Log, Offset, Partition, Reader};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 1 << 20;

/// Cut, partition, part.
type Key = (u64, PartitionId, u32);
type Digest = [u8; 16];

/// See the module.
pub struct Folds {
    reader: Box<dyn Reader>,
    expected: HashMap<Key, Digest>,
    /// Read, and of a cut that is not known yet.
    early: BTreeMap<Key, Vec<(Offset, Digest)>>,
    /// Expected and not read yet.
    open: BTreeSet<Key>,
    /// Everything below it has been read.
    next: Offset,
    /// Where the topic ended before the ledger's end was asked for: what nothing asks for behind it may be of a cut that
    /// was made since.
    end: Offset,
    /// Cuts and partitions whose reports cannot be rebuilt, because an object they describe is missing or altered.
    ignored: BTreeSet<(u64, PartitionId)>,
    /// Of cuts up to this number nothing is asked any more.
    settled: u64,
    /// How many records were found to be right.
    pub right: u64,
}

/// How far the reports of an audit that was cut off were read.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoldsPoint {
    /// Everything below it had been read.
    next: Offset,
    /// Of cuts up to this number nothing is asked any more.
    settled: u64,
    /// Cuts and partitions whose reports could not be rebuilt.
    ignored: Vec<(u64, PartitionId)>,
    /// Where reports stand that nothing asked for.
    unasked: BTreeSet<Offset>,
}

/// What is wrong, in the order in which it stands there.
type Findings = Vec<Finding>;

fn digest(bytes: &[u8]) -> Digest {
    let digest = sha256(bytes);
    std::array::from_fn(|i| digest[i])
}

fn place(offset: Offset) -> String {
    format!("folds offset {offset}")
}

impl Folds {
    /// Reads from the first report on. The topic ended at `end` before the ledger's end was asked for.
    pub fn new(log: &dyn Log, end: Offset) -> Folds {
        Folds {
            reader: log.reader(Partition::Folds, 0),
            expected: HashMap::new(),
            early: BTreeMap::new(),
            open: BTreeSet::new(),
            next: 0,
            end,
            ignored: BTreeSet::new(),
            settled: 0,
            right: 0,
        }
    }

    /// Goes on after cut `n` was audited, when it had come as far as `point` and `right` records were found right: reads
    /// again what it had read, to know the reports of the cuts up to `n`.
    pub async fn resume(&mut self, n: u64, point: FoldsPoint, right: u64) -> Result<()> {
        let next = point.next;
        while self.next < next {
            let records = self.reader.read(READ_BYTES).await?;
            if records.is_empty() {
                break;
            }
            for r in records.iter().take_while(|r| r.offset < next) {
                self.next = r.offset + 1;
                // What does not decode was found.
                let Ok(report) = FoldReport::decode(&r.payload) else { continue };
                let (key, found) = ((report.n, report.partition, report.part), digest(&r.payload));
                match report.n <= n && !point.unasked.contains(&r.offset) {
                    true => drop(self.expected.entry(key).or_insert(found)),
                    false => self.early.entry(key).or_default().push((r.offset, found)),
                }
            }
            if records.last().is_some_and(|r| r.offset >= next) {
                break;
            }
        }
        self.next = next;
        self.reader.seek(next);
        (self.right, self.settled) = (right, point.settled);
        self.ignored.extend(point.ignored);
        Ok(())
    }

    /// How far it has come when cut `n` was audited.
    pub fn point(&self, n: u64) -> FoldsPoint {
        let of_cuts = self.early.iter().filter(|((of, ..), _)| *of <= n);
        let unasked = of_cuts.flat_map(|(_, found)| found.iter().map(|(offset, _)| *offset)).collect();
        let ignored = self.ignored.iter().copied().collect();
        FoldsPoint { next: self.next, settled: self.settled, ignored, unasked }
    }

    /// Begins behind cut `n`, of which nothing is asked.
    pub fn begin(&mut self, n: u64, from: Offset) {
        self.reader.seek(from);
        (self.next, self.settled) = (from, n);
    }

    /// The last cut that a record which nothing asked for is about.
    pub fn last_cut(&self) -> Option<u64> {
        self.early.last_key_value().map(|((n, ..), _)| *n)
    }

    /// Forgets what was read of the cuts from `n` on.
    pub fn forget_from(&mut self, n: u64) {
        self.early.retain(|(of, ..), _| *of < n);
    }

    /// Expects a report. Answers what is wrong with those of it that were read already.
    pub async fn expect(&mut self, log: &dyn Log, report: &FoldReport) -> Result<Findings> {
        let mut findings = Vec::new();
        for (part, bytes) in report.encode().iter().enumerate() {
            let key = (report.n, report.partition, part as u32);
            self.expected.insert(key, digest(bytes));
            self.open.insert(key);
            for (offset, found) in self.early.remove(&key).unwrap_or_default() {
                self.open.remove(&key);
                match found == digest(bytes) {
                    true => self.right += 1,
                    false => {
                        let stored = log.fetch(Partition::Folds, offset).await?.map(|r| r.payload).unwrap_or_default();
                        findings.push(*differs(offset, key, bytes, &stored));
                    }
                }
            }
        }
        Ok(findings)
    }

    /// Expects nothing certain of the report of a partition about a cut.
    pub fn ignore(&mut self, n: u64, partition: PartitionId) {
        self.ignored.insert((n, partition));
    }

    /// Reads until everything expected was found, or to the end if `all`. `current` are the reports expected last.
    pub async fn read(&mut self, all: bool, current: &[FoldReport]) -> Result<Findings> {
        let mut findings = Vec::new();
        while all || !self.open.is_empty() {
            let records = self.reader.read(READ_BYTES).await?;
            if records.is_empty() {
                break;
            }
            for r in records {
                if all && r.offset >= self.end {
                    return Ok(findings);
                }
                self.next = r.offset + 1;
                let report = match FoldReport::decode(&r.payload) {
                    Ok(report) => report,
                    Err(_) if r.offset >= self.end => continue,
                    Err(e) if e.kind == Kind::Unsupported => return Err(e.context(place(r.offset))),
                    Err(e) => {
                        findings.push(*Finding::new(Damage::RecordAltered, place(r.offset), e.message));
                        continue;
                    }
                };
                let (key, found) = ((report.n, report.partition, report.part), digest(&r.payload));
                match self.expected.get(&key) {
                    None if r.offset >= self.end => {}
                    None => self.early.entry(key).or_default().push((r.offset, found)),
                    Some(expected) if *expected == found => {
                        self.open.remove(&key);
                        self.right += 1;
                    }
                    Some(_) => {
                        self.open.remove(&key);
                        let same = current.iter().find(|c| (c.n, c.partition) == (report.n, report.partition));
                        let expected = same.and_then(|same| same.encode().into_iter().nth(report.part as usize));
                        findings.push(*match expected {
                            Some(expected) => differs(r.offset, key, &expected, &r.payload),
                            None => Finding::new(Damage::RecordAltered, place(r.offset), differs_from(key)),
                        });
                    }
                }
            }
        }
        Ok(findings)
    }

    /// What was expected of a cut and is not there.
    pub fn missing(&mut self, n: u64) -> Findings {
        let of_cut: Vec<Key> = self.open.range((n, 0, 0)..(n + 1, 0, 0)).copied().collect();
        let missing = of_cut.into_iter().map(|key| {
            self.open.remove(&key);
            let (n, partition, part) = key;
            let what = format!("topic folds has no part {part} of it, though cut {n} has its Checkpoint");
            *Finding::new(Damage::RecordDropped, format!("report of partition {partition} about cut {n}"), what)
        });
        missing.collect()
    }

    /// Asks nothing more about cuts up to `n`: records were lost.
    pub fn settle(&mut self, n: u64) {
        self.settled = n;
        self.open.retain(|(of, ..)| *of > n);
    }

    /// True if some report of a cut and partition was found.
    pub fn has_some(&self, n: u64, partition: PartitionId) -> bool {
        let key = (n, partition, 0);
        let early = self.early.range(key..=(n, partition, u32::MAX)).next().is_some();
        early || self.expected.contains_key(&key) && !self.open.contains(&key)
    }

    /// Reports about cuts up to `last` that nothing in the ledger asks for; beyond it too if everything was read.
    pub fn unexpected(&self, last: u64) -> impl Iterator<Item = Box<Finding>> + '_ {
        let asked = move |n: u64, p: PartitionId| n > self.settled && n <= last && !self.ignored.contains(&(n, p));
        let unasked = self.early.iter().filter(move |((n, partition, _), _)| asked(*n, *partition));
        unasked.flat_map(|((n, partition, part), found)| {
            found.iter().map(move |(offset, _)| {
                let what = format!("nothing asks for part {part} of a report of partition {partition} about cut {n}");
                Finding::new(Damage::RecordAdded, place(*offset), what)
            })
        })
    }
}

fn differs_from((n, partition, _): Key) -> String {
    format!("the report of partition {partition} about cut {n} is not what that cut comes to")
}

/// Says how a report differs from what it should be.
fn differs(offset: Offset, key: Key, expected: &[u8], found: &[u8]) -> Box<Finding> {
    Finding::differs(Damage::RecordAltered, place(offset), differs_from(key), expected, found)
}
