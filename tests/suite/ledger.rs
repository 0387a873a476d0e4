//! The ledger's verdicts as a table, and old bytes: what version 1 wrote is read by every later version.

use std::sync::Arc;

use tuflog::bins::{Layout, sha256};
use tuflog::change::{Batch, Change};
use tuflog::error::Kind;
use tuflog::ledger::ids::Ids;
use tuflog::ledger::record::*;
use tuflog::ledger::report::{Absent, FoldReport, RenderedBin};
use tuflog::ledger::saved::{self, Saved};
use tuflog::ledger::segment::{self, Segment};
use tuflog::ledger::state::{Event, Outcome, State};
use tuflog::tuf::{RoleKeys, Root, Signer};

use crate::help;

pub fn root(version: u64, online: u8) -> String {
    let (root, online) = (Arc::new(Signer::from_seed(&[1; 32])), Arc::new(Signer::from_seed(&[online; 32])));
    let role = |key: &Signer| RoleKeys::new(vec![*key.public().key_id()], 1);
    let doc = Root {
        version,
        expires: 2_000_000_000,
        keys: [&root, &online].map(|k| (*k.public().key_id(), k.public().clone())).into(),
        root: role(&root),
        targets: role(&online),
        snapshot: role(&online),
        timestamp: role(&online),
    };
    String::from_utf8(doc.render(&[root]).unwrap()).unwrap()
}

fn settings(horizon: u64) -> Settings {
    Settings { horizon, state_every: 2, ..Settings::default() }
}

/// A ledger of 4 bins in 2 partitions and the given horizon: its next seq is 3.
pub fn ledger(horizon: u64) -> State {
    let mut state = State::default();
    let records = [
        Record::Format(Format { epoch: 1, bins: 4, partitions: 2 }),
        Record::Settings(SettingsRecord { revision: 1, settings: settings(horizon) }),
        Record::Root(RootRecord { document: root(1, 2) }),
    ];
    for (seq, record) in records.iter().enumerate() {
        assert_eq!(state.apply(seq as u64, record).unwrap(), Event::Changed);
    }
    state
}

pub fn commit(id: &str, content: &str, basis: u64, parts: &[(u16, u32)], segments: &[(u16, u64)]) -> Record {
    let digest = sha256(content.as_bytes());
    Record::Commit(Commit {
        batches: vec![BatchRef { id: id.into(), digest, basis, parts: parts.to_vec(), inbox: None }],
        segments: segments
            .iter()
            .map(|(partition, offset)| SegmentRef { partition: *partition, offset: *offset, digest })
            .collect(),
    })
}

pub fn one(state: &mut State, seq: u64, record: &Record) -> Outcome {
    match state.apply(seq, record).unwrap() {
        Event::Commit(outcomes) => outcomes[0],
        other => panic!("{other:?}"),
    }
}

pub fn cut(n: u64, time: u64) -> Record {
    Record::Cut(Cut { n, time, folds_from: 0 })
}

pub fn checkpoint(state: &State) -> Record {
    let open = state.open.as_ref().unwrap();
    let snapshot = ObjectRef { length: 10, sha256: [7; 32] };
    Record::Checkpoint(Checkpoint { n: open.n, seq: open.seq, snapshot, state: None, ends: open.ends.clone() })
}

#[test]
fn the_verdict_of_a_batch_follows_from_the_ledger_alone() {
    let (part, segs) = ([(0u16, 1u32)], [(0u16, 0u64)]);
    let mut s = ledger(10);
    assert_eq!(one(&mut s, 3, &commit("a", "x", 2, &part, &segs)), Outcome::Valid);
    assert_eq!(one(&mut s, 4, &commit("a", "x", 3, &part, &segs)), Outcome::Duplicate { first: 3 });
    assert_eq!(one(&mut s, 5, &commit("a", "y", 3, &part, &segs)), Outcome::Conflict { first: 3 });
    for (why, record) in [
        ("a basis above the Commit's own seq", commit("b", "x", 7, &part, &segs)),
        ("no partition", commit("b", "x", 5, &[], &segs)),
        ("a partition without a segment", commit("b", "x", 5, &[(1, 1)], &segs)),
        ("a partition that does not exist", commit("b", "x", 5, &[(2, 1)], &[(2, 0)])),
        ("a partition without changes", commit("b", "x", 5, &[(0, 0)], &segs)),
        ("partitions out of order", commit("b", "x", 5, &[(1, 1), (0, 1)], &[(0, 0), (1, 0)])),
    ] {
        let mut s = s.clone();
        assert_eq!(one(&mut s, 6, &record), Outcome::Void, "{why}");
    }
    // At the floor an id is still remembered and a basis still good; below it neither is.
    assert_eq!(one(&mut s.clone(), 13, &commit("a", "x", 3, &part, &segs)), Outcome::Duplicate { first: 3 });
    assert_eq!(one(&mut s.clone(), 14, &commit("a", "x", 3, &part, &segs)), Outcome::Void);
    assert_eq!(one(&mut s.clone(), 14, &commit("a", "x", 4, &part, &segs)), Outcome::Valid);
    // Offsets may have gaps; a seq never goes back.
    assert_eq!(s.apply(3, &cut(1, 0)).unwrap_err().kind, Kind::Corrupt);
}

#[test]
fn the_floor_never_falls_when_the_horizon_is_raised() {
    let mut s = ledger(10);
    s.apply(30, &cut(1, 5)).unwrap();
    assert_eq!(s.floor, 20);
    let raise = Record::Settings(SettingsRecord { revision: 2, settings: settings(100) });
    assert_eq!(s.apply(31, &raise).unwrap(), Event::Changed);
    s.apply(32, &cut(9, 5)).unwrap();
    assert_eq!(s.floor, 21, "what was forgotten stays forgotten");
    let lower = Record::Settings(SettingsRecord { revision: 3, settings: settings(5) });
    assert_eq!(s.apply(33, &lower).unwrap(), Event::Void, "the horizon may only be raised");
    assert_eq!(s.apply(34, &raise).unwrap(), Event::Void, "a revision counts once");
}

#[test]
fn records_that_do_not_follow_their_predecessor_are_void() {
    let mut s = ledger(10);
    assert_eq!(s.apply(3, &cut(2, 100)).unwrap(), Event::Void, "cut 1 comes first");
    assert_eq!(s.apply(4, &Record::Renew(Renew { after: 0, time: 9 })).unwrap(), Event::Void, "nothing to renew");
    assert_eq!(s.apply(5, &cut(1, 100)).unwrap(), Event::Cut);
    assert_eq!(s.apply(6, &cut(1, 200)).unwrap(), Event::Void, "a rival");
    assert_eq!(s.apply(7, &cut(2, 200)).unwrap(), Event::Void, "cut 1 has no Checkpoint");
    let (open, done) = (s.open.clone().unwrap(), checkpoint(&s));
    assert_eq!((open.seq, open.time, open.all, open.wait.len()), (5, 100, true, 2));
    assert_eq!(s.apply(8, &done).unwrap(), Event::Checkpoint(1));
    assert_eq!(s.apply(9, &done).unwrap(), Event::Void, "said again");
    assert_eq!(s.apply(10, &cut(2, 50)).unwrap(), Event::Cut);
    assert_eq!(s.open.as_ref().unwrap().time, 100, "time never goes back");
    assert!(s.open.as_ref().unwrap().wait.is_empty(), "nothing was touched");
    assert_eq!(s.apply(11, &Record::Renew(Renew { after: 1, time: 300 })).unwrap(), Event::Renew);
    assert_eq!(s.apply(12, &Record::Renew(Renew { after: 1, time: 300 })).unwrap(), Event::Void, "a rival");
    let stamp = s.stamp.as_ref().unwrap();
    assert_eq!((stamp.version, stamp.n, stamp.time, stamp.expires), (2, 1, 300, 300 + 86_400));
    assert_eq!(
        s.apply(13, &Record::Root(RootRecord { document: root(3, 2) })).unwrap(),
        Event::Void,
        "root 2 comes next"
    );
    assert_eq!(s.apply(14, &Record::Root(RootRecord { document: root(2, 3) })).unwrap(), Event::Changed);
    let next = checkpoint(&s);
    assert_eq!(s.apply(15, &next).unwrap(), Event::Checkpoint(2));
    assert_eq!(s.stamp.as_ref().unwrap().root.root.version, 1, "new keys take effect at a Cut");
    assert_eq!(s.apply(16, &cut(3, 400)).unwrap(), Event::Cut);
    let open = s.open.as_ref().unwrap();
    assert_eq!((open.root.root.version, open.all, open.new_roots.len()), (2, true, 1), "all bins under the new key");
}

#[test]
fn a_checkpoint_that_contradicts_the_ledger_stops_the_reader() {
    let mut s = ledger(10);
    s.apply(3, &commit("a", "x", 2, &[(1, 1)], &[(1, 41)])).unwrap();
    s.apply(4, &cut(1, 1)).unwrap();
    assert_eq!(s.open.as_ref().unwrap().ends, [0, 42]);
    let Record::Checkpoint(mut c) = checkpoint(&s) else { unreachable!() };
    c.ends = vec![0, 41];
    assert_eq!(s.apply(5, &Record::Checkpoint(c)).unwrap_err().kind, Kind::Corrupt);
}

#[test]
fn a_newer_format_or_kind_stops_the_reader_as_unsupported() {
    let newer = Record::Format(Format { epoch: 2, bins: 4, partitions: 2 });
    assert_eq!(State::default().apply(0, &newer).unwrap_err().kind, Kind::Unsupported);
    for (bytes, kind) in [
        (&b"{\"kind\":\"release\",\"seq\":1,\"v\":1}"[..], Kind::Unsupported),
        (b"{\"kind\":\"cut\",\"n\":1,\"time\":1,\"folds_from\":0,\"v\":2}", Kind::Unsupported),
        (b"{\"kind\":\"cut\",\"n\":1,\"time\":1,\"v\":1}", Kind::Corrupt),
        (b"{\"kind\":\"cut\",\"n\":1,\"time\":1,\"folds_from\":0,\"more\":0,\"v\":1}", Kind::Corrupt),
        (b"{\"v\":1}", Kind::Corrupt),
        (b"nonsense", Kind::Corrupt),
        (b"[]", Kind::Corrupt),
    ] {
        assert_eq!(Record::decode(bytes).unwrap_err().kind, kind, "{}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(State::default().apply(0, &cut(1, 1)).unwrap_err().kind, Kind::Corrupt, "before the Format record");
}

fn sample_batches() -> Vec<Batch> {
    let sha = |c: &str| [("sha256".to_string(), hex::encode(sha256(c.as_bytes())))].into();
    let custom = serde_json::json!({"b": [1, true, null], "a": {"note": "é"}});
    let first = vec![
        Change::add("pool/a_1.deb".into(), 10, &sha("a"), Some(&custom)).unwrap(),
        Change::add("pool/b_1.deb".into(), 0, &sha("b"), None).unwrap(),
        Change::remove("pool/c_1.deb".into()).unwrap(),
    ];
    let second = vec![Change::remove("pool/a_1.deb".into()).unwrap()];
    [("first", first), ("second", second)].map(|(id, c)| Batch::new(id.into(), None, c).unwrap()).into()
}

/// Everything that version 1 writes, by fixture name.
fn sample_bytes() -> Vec<(String, Vec<u8>)> {
    let layout = Layout::new(4, 2).unwrap();
    let batches = sample_batches();
    let cutting = segment::cut(&batches, layout, tuflog::ledger::MAX_SEGMENT_BYTES);
    let mut state = ledger(10);
    let segments = cutting.segments.iter().enumerate();
    let refs = segments.map(|(i, (p, s))| SegmentRef { partition: *p, offset: i as u64, digest: sha256(s) }).collect();
    let batch_refs = batches.iter().zip(&cutting.parts);
    let commit = Record::Commit(Commit {
        batches: batch_refs
            .map(|(b, parts)| BatchRef {
                id: b.id.clone(),
                digest: b.digest,
                basis: 2,
                parts: parts.clone(),
                inbox: None,
            })
            .collect(),
        segments: refs,
    });
    let mut records = vec![
        ("format", Record::Format(Format { epoch: 1, bins: 4, partitions: 2 })),
        ("settings", Record::Settings(SettingsRecord { revision: 1, settings: Settings::default() })),
        ("root", Record::Root(RootRecord { document: root(1, 2) })),
        ("commit", commit.clone()),
        ("cut", cut(1, 1_795_597_218)),
    ];
    state.apply(3, &commit).unwrap();
    state.apply(4, &records[4].1).unwrap();
    let Record::Checkpoint(mut c) = checkpoint(&state) else { unreachable!() };
    let objects = saved::save(&state).unwrap();
    c.state = Some(objects.digests.clone());
    records.push(("checkpoint", Record::Checkpoint(c)));
    records.push(("renew", Record::Renew(Renew { after: 1, time: 1_795_640_000 })));
    let report = FoldReport {
        n: 1,
        partition: 1,
        part: 0,
        parts: 1,
        offset: 2,
        bins: vec![RenderedBin { bin: 2, length: 300, sha256: [9; 32] }],
        absent: vec![Absent { seq: 3, index: 0, paths: vec!["pool/c_1.deb".into()] }],
    };
    let mut out: Vec<(String, Vec<u8>)> =
        records.iter().map(|(n, r)| (format!("{n}.json"), r.encode().to_vec())).collect();
    out.extend(cutting.segments.iter().map(|(p, s)| (format!("segment-{p}.jsonl"), s.to_vec())));
    out.push(("fold-report.json".into(), report.encode()[0].to_vec()));
    out.push(("ledger-state.json".into(), objects.state.to_vec()));
    out.push(("ledger-ids.txt".into(), objects.ids.to_vec()));
    out
}

#[test]
fn old_bytes_are_read_and_written_again_as_they_were() {
    for (name, now) in sample_bytes() {
        let old = help::fixture(&format!("v1/{name}"), &now);
        assert_eq!(String::from_utf8_lossy(&now), String::from_utf8_lossy(&old), "{name}");
        match name.as_str() {
            "ledger-ids.txt" => {
                let mut ids = Ids::default();
                ids.read_lines(&old).unwrap();
                assert_eq!(ids.lines_from(0), old);
            }
            "ledger-state.json" => drop(Saved::decode(&old).unwrap()),
            "fold-report.json" => assert_eq!(FoldReport::decode(&old).unwrap().encode()[0], old),
            n if n.starts_with("segment") => drop(Segment::decode(&old.into()).unwrap()),
            _ => assert_eq!(Record::decode(&old).unwrap().encode(), old),
        }
    }
}

#[test]
fn a_stored_state_goes_on_as_the_state_it_was_made_from() {
    let mut state = ledger(10);
    state.apply(3, &commit("a", "x", 2, &[(1, 1)], &[(1, 4)])).unwrap();
    state.apply(4, &cut(1, 100)).unwrap();
    let first = saved::save(&state).unwrap();
    let Record::Checkpoint(mut c) = checkpoint(&state) else { unreachable!() };
    c.state = Some(first.digests.clone());
    let mut chunks = vec![first.ids.clone()];
    let restored = Saved::decode(&first.state).unwrap().restore(&chunks, None).unwrap();
    assert_eq!(restored, state);
    for s in [5, 6] {
        state
            .apply(s, &if s == 5 { Record::Checkpoint(c.clone()) } else { commit("b", "y", 5, &[(0, 2)], &[(0, 0)]) })
            .unwrap();
    }
    state.apply(7, &Record::Root(RootRecord { document: root(2, 5) })).unwrap();
    state.apply(8, &cut(2, 200)).unwrap();
    let second = saved::save(&state).unwrap();
    assert!(second.ids.starts_with(hex::encode(&sha256(b"b")[..16]).as_bytes()), "only what is new since the first");
    chunks.push(second.ids.clone());
    let mut restored = Saved::decode(&second.state).unwrap().restore(&chunks, None).unwrap();
    assert_eq!(restored, state);
    assert_eq!(one(&mut restored, 9, &commit("a", "x", 8, &[(1, 1)], &[(1, 4)])), Outcome::Duplicate { first: 3 });
    chunks[0] = second.ids.clone();
    assert_eq!(Saved::decode(&second.state).unwrap().restore(&chunks, None).unwrap_err().kind, Kind::Corrupt);
    // Only right after a Cut is the state a function of the cut.
    state.apply(9, &cut(7, 1)).unwrap();
    assert!(saved::save(&state).is_err());
}

#[test]
fn a_long_report_is_split_and_joined() {
    let absent = (0..20)
        .map(|i| Absent { seq: 3, index: i, paths: (0..1_000).map(|k| format!("{k:0>60}")).collect() })
        .collect();
    let bins = (0..4_000).map(|bin| RenderedBin { bin, length: 1, sha256: [bin as u8; 32] }).collect();
    let report = FoldReport { n: 5, partition: 0, part: 0, parts: 1, offset: 9, bins, absent };
    let records = report.encode();
    assert!(records.len() > 3 && records.iter().all(|r| r.len() <= tuflog::ledger::MAX_SEGMENT_BYTES));
    let mut parts: std::collections::BTreeMap<u32, FoldReport> =
        records.iter().map(|r| FoldReport::decode(r).unwrap()).map(|r| (r.part, r)).collect();
    assert_eq!(FoldReport::join(&parts), Some(report));
    parts.remove(&1);
    assert_eq!(FoldReport::join(&parts), None);
}

#[test]
fn a_group_is_cut_into_segments_that_hold_every_change_once_and_in_order() {
    let layout = Layout::new(16, 4).unwrap();
    let sha: std::collections::BTreeMap<_, _> = [("sha256".to_string(), "ab".repeat(32))].into();
    let batch = |id: &str, n: u64| {
        Batch::new(id.into(), None, (0..n).map(|i| Change::add(format!("{id}/{i}"), i, &sha, None).unwrap()).collect())
            .unwrap()
    };
    let batches = [batch("big", 20_000), batch("small", 3), batch("mid", 500)];
    let cutting = segment::cut(&batches, layout, tuflog::ledger::MAX_SEGMENT_BYTES);
    assert!(cutting.segments.iter().all(|(_, s)| s.len() <= tuflog::ledger::MAX_SEGMENT_BYTES));
    assert!(cutting.segments.len() > 4, "several segments a partition");
    assert!(cutting.segments.is_sorted_by_key(|(p, _)| *p));
    let mut found: Vec<Vec<Change>> = vec![vec![]; 3];
    for (partition, bytes) in &cutting.segments {
        let segment = Segment::decode(bytes).unwrap();
        assert_eq!(segment.partition, *partition);
        for (part, changes) in segment.parts {
            assert_eq!(part.id, batches[part.index as usize].id);
            assert!(changes.iter().all(|c| layout.partition_of(layout.bin_of(c.path())) == *partition));
            found[part.index as usize].extend(changes);
        }
    }
    for (batch, (found, parts)) in batches.iter().zip(found.iter().zip(&cutting.parts)) {
        for (p, count) in parts {
            let of = |c: &&Change| layout.partition_of(layout.bin_of(c.path())) == *p;
            let want: Vec<&Change> = batch.changes.iter().filter(of).collect();
            assert_eq!(found.iter().filter(of).collect::<Vec<_>>(), want);
            assert_eq!(want.len(), *count as usize);
        }
        assert_eq!(found.len(), batch.changes.len());
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_readers_of_records_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
        let _ = (Record::decode(&bytes), FoldReport::decode(&bytes), Saved::decode(&bytes));
        let _ = Segment::decode(&bytes.clone().into());
        let _ = Ids::default().read_lines(&bytes);
    }

    #[test]
    fn no_damage_to_a_record_makes_its_reader_panic(which in 0usize..13, at in 0usize..4_000, with: u8, cut: bool) {
        let samples = sample_bytes();
        let mut bytes = samples[which % samples.len()].1.clone();
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] = with }
        let _ = (Record::decode(&bytes), FoldReport::decode(&bytes), Segment::decode(&bytes.clone().into()));
        if let Ok(saved) = Saved::decode(&bytes) {
            let _ = saved.restore(&[bytes.clone().into()], None);
        }
    }
}
