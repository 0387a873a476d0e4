//! Every kind of damage to the log, and what the audit says of it.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use tuflog::audit;
use tuflog::bins::sha256;
use tuflog::error::{Kind, Result};
use tuflog::ledger::record::{Commit, Record};
use tuflog::ledger::report::{Absent, FoldReport};
use tuflog::log::memory::{Faults, MemoryLog};
use tuflog::log::{self, Log, Offset, Partition, Reader};

use super::repository::{DAY, Repository, add, audit_of, clean, options, remove};
use crate::help::block_on;

/// What one record of a log became.
type Edit = ((Partition, Offset), Option<Bytes>);

/// A log in which some records are others, or gone.
struct Damaged {
    log: Arc<dyn Log>,
    edits: Arc<Vec<Edit>>,
}

struct DamagedReader {
    reader: Box<dyn Reader>,
    of: Partition,
    edits: Arc<Vec<Edit>>,
}

fn edit(edits: &[Edit], of: Partition, mut record: log::Record) -> Option<log::Record> {
    if let Some((_, new)) = edits.iter().find(|(at, _)| *at == (of, record.offset)) {
        record.payload = new.clone()?;
    }
    Some(record)
}

impl Log for Damaged {
    fn append(&self, _: Partition, _: Bytes) -> BoxFuture<'static, Result<Offset>> {
        panic!("an audit appends nothing")
    }

    fn reader(&self, of: Partition, from: Offset) -> Box<dyn Reader> {
        Box::new(DamagedReader { reader: self.log.reader(of, from), of, edits: self.edits.clone() })
    }

    fn fetch(&self, of: Partition, at: Offset) -> BoxFuture<'_, Result<Option<log::Record>>> {
        Box::pin(async move { Ok(self.log.fetch(of, at).await?.and_then(|r| edit(&self.edits, of, r))) })
    }

    fn end(&self, of: Partition) -> BoxFuture<'_, Result<Offset>> {
        self.log.end(of)
    }
}

impl Reader for DamagedReader {
    fn read(&mut self, max_bytes: usize) -> BoxFuture<'_, Result<Vec<log::Record>>> {
        Box::pin(async move {
            loop {
                let records = self.reader.read(max_bytes).await?;
                let end = records.is_empty();
                let left: Vec<_> = records.into_iter().filter_map(|r| edit(&self.edits, self.of, r)).collect();
                if end || !left.is_empty() {
                    return Ok(left);
                }
            }
        })
    }

    fn ready(&mut self) -> BoxFuture<'_, Result<()>> {
        self.reader.ready()
    }

    fn seek(&mut self, at: Offset) {
        self.reader.seek(at);
    }
}

/// A repository with all kinds of records, and their places.
fn mixed() -> Repository {
    let mut r = Repository::on(Arc::new(MemoryLog::new(1, Faults::NONE)));
    r.publish("a", vec![add("x", "a"), add("y", "a"), add("z", "a")]);
    r.publish("b", vec![add("x", "b")]);
    r.publish("c", vec![remove("y"), remove("none")]);
    r.wait(DAY * 3 / 4);
    r.rotate();
    r.publish("d", vec![add("x", "d")]);
    clean(r.audit());
    r
}

fn records(r: &Repository, of: Partition) -> Vec<log::Record> {
    block_on(r.log.reader(of, 0).read(usize::MAX)).unwrap()
}

/// The offsets of the ledger's records of one kind, such as `"commit"`.
fn places(r: &Repository, kind: &str) -> Vec<Offset> {
    let mark = format!("\"kind\":\"{kind}\"");
    let of_kind = |r: &&log::Record| String::from_utf8_lossy(&r.payload).contains(&mark);
    records(r, Partition::Ledger).iter().filter(of_kind).map(|r| r.offset).collect()
}

fn text(r: &Repository, of: Partition, at: Offset) -> String {
    String::from_utf8(block_on(r.log.fetch(of, at)).unwrap().unwrap().payload.to_vec()).unwrap()
}

/// The first finding when some records are others.
fn damaged(r: &Repository, edits: Vec<Edit>) -> String {
    let report = audit_of(Arc::new(Damaged { log: r.log.clone(), edits: Arc::new(edits) }), r);
    assert!(!report.complete && report.findings.len() == 1, "{report}");
    report.findings[0].to_string()
}

fn dropped(r: &Repository, at: Offset) -> String {
    damaged(r, vec![((Partition::Ledger, at), None)])
}

fn replaced(r: &Repository, at: Offset, from: &str, to: &str) -> String {
    let text = text(r, Partition::Ledger, at);
    assert!(text.contains(from), "no {from} in {text}");
    damaged(r, vec![((Partition::Ledger, at), Some(text.replacen(from, to, 1).into()))])
}

#[track_caller]
fn assert_says(finding: &str, parts: &[&str]) {
    for part in parts {
        assert!(finding.contains(part), "no {part:?} in:\n{finding}");
    }
}

#[test]
fn a_dropped_record_is_missed_where_it_first_shows() {
    let r = mixed();
    let (commits, cuts, checkpoints) = (places(&r, "commit"), places(&r, "cut"), places(&r, "checkpoint"));
    assert_says(
        &dropped(&r, commits[1]),
        &[
            "a record before ledger seq",
            "is missing: Checkpoint 3 says that the partitions end at",
            "a Commit after seq",
        ],
    );
    assert_says(&dropped(&r, cuts[1]), &["Cut 2 is missing: the ledger goes on with Checkpoint 2 at seq"]);
    assert_says(&dropped(&r, checkpoints[1]), &["Checkpoint 2 is missing: the ledger goes on with Cut 3 at seq"]);
    let last = *checkpoints.last().unwrap();
    assert_says(
        &dropped(&r, last),
        &["is missing: the ledger has lost its end", "timestamp.json is version", "the ledger makes"],
    );
    assert_says(
        &dropped(&r, places(&r, "renew")[0]),
        &["a record before ledger seq", "is missing: the ledger state here is not the one that was stored"],
    );
    assert_says(
        &dropped(&r, places(&r, "root")[1]),
        &["is missing: Checkpoint 6 names a snapshot signed by keys that no root so far names: a Root is gone"],
    );
    // Without them the defaults are in force.
    assert_says(
        &dropped(&r, places(&r, "settings")[0]),
        &["is missing: by the settings in force here, one cut in 64 stores the ledger state"],
    );
    assert_says(&dropped(&r, 0), &["Format is missing: the ledger begins with another record at seq 1"]);
}

#[test]
fn an_altered_record_is_found_by_itself_or_by_what_it_made() {
    let r = mixed();
    let (commits, cuts, checkpoints) = (places(&r, "commit"), places(&r, "cut"), places(&r, "checkpoint"));
    let at = |seq: Offset| format!("ledger seq {seq} is altered: ");
    let garbage = damaged(&r, vec![((Partition::Ledger, cuts[1]), Some("x".into()))]);
    assert_says(&garbage, &[&at(cuts[1]), "not a record"]);
    assert_says(
        &replaced(&r, cuts[1], "\"kind\"", " \"kind\""),
        &[&at(cuts[1]), "it is not canonical JSON", "differs"],
    );
    assert_says(
        &replaced(&r, cuts[1], "\"time\":17", "\"time\":18"),
        &[&at(cuts[1]), "metadata/2.snapshot.json expires at 2029-", "its time is altered"],
    );
    assert_says(
        &replaced(&r, cuts[1], "\"n\":2", "\"n\":3"),
        &[&at(cuts[1]), "it says it is Cut 3; Checkpoint 2 says that Cut 2 stood here"],
    );
    let finding = replaced(&r, checkpoints[1], "\"length\":", "\"length\":1");
    assert_says(
        &finding,
        &[&at(checkpoints[1]), "Checkpoint 2 names another snapshot than the stored one", "expected   version 2"],
    );
    let finding = replaced(&r, checkpoints[1], "\"ids\":\"", "\"ids\":\"0000");
    assert_says(&finding, &[&at(checkpoints[1])]);
    let finding = replaced(&r, checkpoints[1], "\"ends\":[", "\"ends\":[9,");
    assert_says(&finding, &[&at(checkpoints[1]), "names the ends of 5 partitions, of 4"]);
    assert_says(
        &replaced(&r, places(&r, "renew")[0], "\"after\":", "\"after\":9"),
        &["leaves a gap: the ledger goes on with a Renew of timestamp 9"],
    );
    let root = places(&r, "root")[1];
    let finding = replaced(&r, root, "\\\"sig\\\":\\\"", "\\\"sig\\\":\\\"0000").replace("0000", "");
    assert_says(&finding, &[&at(root), "a root that does not follow the one before it"]);
    let finding = replaced(&r, root, "2035-", "2036-");
    assert_says(&finding, &[&at(root), "a root that does not follow the one before it", "signatures valid"]);

    let count = replaced(&r, commits[1], ",1]]", ",2]]");
    assert_says(&count, &[&at(commits[1]), "batch \"b\" has 2 changes in the Commit, 1 in the segments"]);
    let Ok(Record::Commit(commit)) = Record::decode(text(&r, Partition::Ledger, commits[1]).as_bytes()) else {
        panic!()
    };
    let digest = hex::encode(commit.batches[0].digest);
    let finding = replaced(&r, commits[1], &digest, &"ab".repeat(32));
    assert_says(&finding, &[&at(commits[1]), &format!("has digest {}, and {digest} by its changes", "ab".repeat(32))]);
    assert_says(
        &replaced(&r, commits[1], "\"id\":\"b\"", "\"id\":\"é\""),
        &[&at(commits[1]), "no intake lets through"],
    );

    let edits = vec![((Partition::Ledger, cuts[1]), Some("{\"kind\":\"later\",\"v\":1}".into()))];
    let log = Arc::new(Damaged { log: r.log.clone(), edits: Arc::new(edits) });
    let newer = block_on(audit::run(log, r.store(), options(), |_| {})).unwrap_err();
    assert_eq!(newer.kind, Kind::Unsupported);
    assert_says(&newer.message, &[&format!("ledger seq {}", cuts[1]), "upgrade tuflog"]);
}

/// The first segment of a Commit of one batch.
fn segment_of(r: &Repository, at: Offset) -> (Commit, Partition, Offset) {
    let Ok(Record::Commit(commit)) = Record::decode(text(r, Partition::Ledger, at).as_bytes()) else { panic!() };
    let named = &commit.segments[0];
    let place = (Partition::Changes(named.partition), named.offset);
    (commit, place.0, place.1)
}

#[test]
fn an_altered_or_missing_segment_is_named_with_its_commit() {
    let r = mixed();
    let seq = places(&r, "commit")[1];
    let (commit, partition, offset) = segment_of(&r, seq);
    let place = format!("segment {offset} of partition {}", commit.segments[0].partition);
    let before = text(&r, partition, offset);
    let missing = damaged(&r, vec![((partition, offset), None)]);
    assert_says(
        &missing,
        &[&format!(
            "{place} is missing: Commit {seq} names it, with sha256 {}",
            hex::encode(sha256(before.as_bytes()))
        )],
    );
    let altered = before.replace("\"length\":1", "\"length\":2");
    let finding = damaged(&r, vec![((partition, offset), Some(altered.clone().into()))]);
    assert_says(
        &finding,
        &[&format!("{place} is altered: Commit {seq} names it, with sha256 "), "another digest", "expected ", "found "],
    );

    // Somebody who may write the ledger covers it up.
    let covered = |segment: &str| {
        let mut commit = commit.clone();
        commit.segments[0].digest = sha256(segment.as_bytes());
        let record = Record::Commit(commit).encode();
        damaged(
            &r,
            vec![((partition, offset), Some(segment.to_owned().into())), ((Partition::Ledger, seq), Some(record))],
        )
    };
    assert_says(&covered(&altered), &[&format!("ledger seq {seq} is altered"), "digest", "by its changes"]);
    assert_says(&covered(&before.replace("\"path\":\"x\"", "\"path\":\"../x\"")), &[&place, "does not decode", "path"]);
    assert_says(&covered(&before.replace("\"length\":1", "\"length\": 1")), &[&place, "not in canonical form"]);
    let elsewhere = ["p", "q", "r", "s", "t", "u"]
        .into_iter()
        .find(|p| r.layout.partition_of(r.layout.bin_of(p)) != commit.segments[0].partition);
    let elsewhere = elsewhere.unwrap();
    let stray = before.replace("\"path\":\"x\"", &format!("\"path\":\"{elsewhere}\""));
    assert_says(&covered(&stray), &[&place, &format!("holds path {elsewhere:?}, which is of another partition")]);
    let header = before.replace("\"id\":\"b\"", "\"id\":\"q\"");
    assert_says(
        &covered(&header),
        &[&format!("ledger seq {seq} is altered: Commit whose {place} holds batch \"q\" at index 0, it does not")],
    );
}

#[test]
fn an_altered_missing_or_unasked_report_is_named() {
    let r = mixed();
    let reports = records(&r, Partition::Folds);
    let decoded: Vec<FoldReport> = reports.iter().map(|r| FoldReport::decode(&r.payload).unwrap()).collect();
    let at = decoded.iter().position(|d| !d.absent.is_empty()).unwrap();
    let (offset, report) = (reports[at].offset, decoded[at].clone());
    assert_eq!(report.absent, [Absent { seq: report.absent[0].seq, index: 0, paths: vec!["none".into()] }]);
    let other = |change: &dyn Fn(&mut FoldReport)| {
        let mut report = report.clone();
        change(&mut report);
        damaged(&r, vec![((Partition::Folds, offset), Some(report.encode().remove(0)))])
    };
    let place = format!("folds offset {offset} is altered: the report of partition {} about cut 4", report.partition);
    assert_says(&other(&|r| r.absent.clear()), &[&place, "\"absent\":[{", "\"absent\":[]"]);
    assert_says(&other(&|r| r.offset += 1), &[&place, "\"offset\":"]);
    let with_bins = decoded.iter().position(|d| d.n == 2 && !d.bins.is_empty()).unwrap();
    let mut lies = decoded[with_bins].clone();
    lies.bins[0].sha256 = [7; 32];
    let finding = damaged(&r, vec![((Partition::Folds, reports[with_bins].offset), Some(lies.encode().remove(0)))]);
    assert_says(&finding, &["is altered: the report of partition", "about cut 2", "0707"]);
    let missing = damaged(&r, vec![((Partition::Folds, offset), None)]);
    assert_says(&missing, &[&format!("report of partition {} about cut 4 is missing", report.partition)]);
    let garbage = damaged(&r, vec![((Partition::Folds, offset), Some("x".into()))]);
    assert_says(&garbage, &[&format!("folds offset {offset} is altered: not a record")]);

    let idle = (0..4).find(|p| !decoded.iter().any(|d| (d.n, d.partition) == (3, *p))).unwrap();
    let unasked = FoldReport { n: 3, partition: idle, bins: vec![], absent: vec![], ..report.clone() };
    let end = block_on(r.log.append(Partition::Folds, unasked.encode().remove(0))).unwrap();
    let finding = audit_of(r.log.clone(), &r).findings[0].to_string();
    assert_says(
        &finding,
        &[&format!(
            "folds offset {end} is unexpected: nothing asks for part 0 of a report of partition {idle} about cut 3"
        )],
    );
}

#[test]
fn a_late_report_that_says_otherwise_is_found() {
    let r = mixed();
    let reports = records(&r, Partition::Folds);
    let mut late = FoldReport::decode(&reports[1].payload).unwrap();
    let again = block_on(r.log.append(Partition::Folds, reports[1].payload.clone())).unwrap();
    clean(r.audit());
    late.offset += 7;
    let end = block_on(r.log.append(Partition::Folds, late.encode().remove(0))).unwrap();
    assert_eq!(end, again + 1);
    let finding = audit_of(r.log.clone(), &r).findings[0].to_string();
    assert_says(
        &finding,
        &[&format!("folds offset {end} is altered: the report of partition {}", late.partition), "about cut 1"],
    );
}
