//! The inbox in the ledger: a record is sequenced once, for ever, whatever is appended how often and how late.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use tuflog::bins::sha256;
use tuflog::error::Error;
use tuflog::ledger::Record;
use tuflog::ledger::inbox::{InboxPlace, Reject, id_at};
use tuflog::ledger::record::*;
use tuflog::ledger::saved::{self, Saved};
use tuflog::ledger::state::{Event, Outcome, State};

use crate::help;
use crate::ledger::{cut, ledger};

fn batch(id: &str, basis: u64, inbox: Option<InboxPlace>) -> BatchRef {
    BatchRef { id: id.into(), digest: sha256(id.as_bytes()), basis, parts: vec![(0, 1)], inbox }
}

/// A record of the inbox without an id.
fn letter(place: InboxPlace, basis: u64) -> BatchRef {
    batch(&id_at(place), basis, Some(place))
}

fn commit(state: &mut State, seq: u64, batches: Vec<BatchRef>) -> Vec<Outcome> {
    let segments = vec![SegmentRef { partition: 0, offset: seq, digest: [0; 32] }];
    match state.apply(seq, &Record::Commit(Commit { batches, segments })).unwrap() {
        Event::Commit(outcomes) => outcomes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_place_that_has_passed_never_applies_again_not_even_beyond_the_horizon() {
    let mut s = ledger(10);
    assert_eq!(commit(&mut s, 3, vec![letter((0, 5), 2)]), [Outcome::Valid]);
    assert_eq!(commit(&mut s, 4, vec![letter((0, 5), 3), letter((0, 4), 3)]), [Outcome::Repeated; 2]);
    assert_eq!(commit(&mut s, 5, vec![letter((1, 0), 4)]), [Outcome::Valid], "another partition");
    assert!(s.ids.get("inbox:0:5").is_some());
    assert_eq!(commit(&mut s, 500, vec![letter((0, 5), 500)]), [Outcome::Repeated]);
    assert!(s.ids.get("inbox:0:5").is_none(), "long forgotten");
    assert_eq!(s.inbox.iter().collect::<Vec<_>>(), [(0, 6), (1, 1)]);
    // The place passes with every verdict but void.
    assert_eq!(commit(&mut s, 501, vec![batch("a", 500, None)]), [Outcome::Valid]);
    assert_eq!(commit(&mut s, 502, vec![batch("a", 501, Some((0, 6)))]), [Outcome::Duplicate { first: 501 }]);
    let other = BatchRef { digest: [9; 32], ..batch("a", 501, Some((0, 7))) };
    assert_eq!(commit(&mut s, 503, vec![other]), [Outcome::Conflict { first: 501 }]);
    assert_eq!(s.inbox.next(0), 8);
}

#[test]
fn nothing_passes_a_void_record_of_its_partition_in_the_same_commit() {
    let mut s = ledger(10);
    let late = |offset| letter((0, offset), 2);
    let batches = vec![letter((0, 0), 99), late(1), letter((1, 0), 99), late(2), batch("a", 99, None)];
    assert_eq!(commit(&mut s, 100, batches)[..2], [Outcome::Valid, Outcome::Void]);
    let now = vec![late(1), letter((0, 2), 100), letter((1, 1), 100)];
    assert_eq!(commit(&mut s, 101, now), [Outcome::Void, Outcome::Void, Outcome::Valid]);
    let unformed = BatchRef { parts: vec![(1, 1)], ..letter((0, 1), 101) };
    assert_eq!(commit(&mut s, 102, vec![unformed, letter((0, 2), 101)]), [Outcome::Void; 2]);
    assert_eq!(commit(&mut s, 103, vec![letter((0, 1), 102), letter((0, 2), 102)]), [Outcome::Valid; 2]);
}

#[test]
fn the_stored_state_keeps_the_places_and_states_without_an_inbox_are_as_they_were() {
    let mut s = ledger(10);
    commit(&mut s, 3, vec![letter((2, 7), 2), letter((0, 1), 2)]);
    s.apply(4, &cut(1, 100)).unwrap();
    let objects = saved::save(&s).unwrap();
    let mut restored = Saved::decode(&objects.state).unwrap().restore(&[objects.ids], None).unwrap();
    assert_eq!(restored, s);
    assert_eq!(commit(&mut restored, 5, vec![letter((2, 7), 4), letter((2, 8), 4)])[0], Outcome::Repeated);
    let fixture = help::fixture("v1/ledger-state-inbox.json", &objects.state);
    assert_eq!(String::from_utf8_lossy(&objects.state), String::from_utf8_lossy(&fixture));
    assert_eq!(serde_json::from_slice::<Value>(&fixture).unwrap()["inbox"], json!([[0, 2], [2, 8]]));
    let record = Record::Commit(Commit { batches: vec![letter((2, 7), 2)], segments: vec![] });
    let fixture = help::fixture("v1/commit-inbox.json", &record.encode());
    assert_eq!(Record::decode(&fixture).unwrap().encode(), fixture);
    assert_eq!(Record::decode(&fixture).unwrap(), record);
}

#[test]
fn a_refusal_says_where_what_and_why_whatever_it_quotes() {
    let error = Error::invalid("changes[0].path", "must not hold \u{7} \"x\"\n".repeat(10_000));
    let text = Reject::new((3, 9), None, &error, &[0xff; 5_000]).encode();
    assert!(text.len() < 60_000);
    let value: Value = serde_json::from_slice(&text).unwrap();
    let short = json!([value["kind"], value["v"], value["partition"], value["offset"], value["error"]["field"]]);
    assert_eq!(short, json!(["inbox-reject", 1, 3, 9, "changes[0].path"]));
    assert_eq!((&value["error"]["kind"], value["id"].as_str()), (&json!("Invalid"), None));
}

/// What an intake does next: it reads on in the ledger, or sends the records from the first one it has not seen pass,
/// from a chunk of its own length; what it sends may land later, or twice.
#[derive(Debug, Clone)]
struct Move {
    intake: usize,
    reads: u64,
    length: u64,
    lands: u64,
    twice: bool,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = (0..3usize, 0..6u64, 1..5u64, 0..12u64, any::<bool>());
    let one = one.prop_map(|(intake, reads, length, lands, twice)| Move { intake, reads, length, lands, twice });
    proptest::collection::vec(one, 1..120)
}

proptest! {
    #[test]
    fn however_many_intakes_send_the_same_records_however_late_each_applies_once(all in moves(), horizon in 3u64..30) {
        let mut ledger_state = ledger(horizon);
        let mut readers = vec![ledger_state.clone(); 3];
        let mut records: BTreeMap<u64, Record> = BTreeMap::new();
        let mut flying: Vec<(u64, Vec<BatchRef>)> = Vec::new();
        let mut times: BTreeMap<u64, u32> = BTreeMap::new();
        let (mut seq, mut order) = (3, Vec::new());
        let land = |seq: &mut u64, batches: Vec<BatchRef>| {
            let segments = vec![SegmentRef { partition: 0, offset: *seq, digest: [0; 32] }];
            *seq += 1;
            (*seq - 1, Record::Commit(Commit { batches, segments }))
        };
        for (now, m) in (0u64..).zip(all) {
            for _ in 0..m.reads {
                let reader = &mut readers[m.intake];
                if let Some(record) = records.get(&reader.next) {
                    let at = reader.next;
                    reader.apply(at, record).unwrap();
                }
            }
            let reader = &readers[m.intake];
            let next = reader.inbox.next(0);
            let chunk: Vec<_> = (next..next + m.length).map(|offset| letter((0, offset), reader.basis())).collect();
            flying.push((now + m.lands, chunk.clone()));
            if m.twice {
                flying.push((now + 2 * m.lands, chunk));
            }
            let (landing, rest): (Vec<_>, Vec<_>) = flying.into_iter().partition(|(at, _)| *at <= now);
            flying = rest;
            for (_, batches) in landing {
                let (at, record) = land(&mut seq, batches.clone());
                let Event::Commit(outcomes) = ledger_state.apply(at, &record).unwrap() else { panic!() };
                for (batch, outcome) in batches.iter().zip(outcomes) {
                    let (_, offset) = batch.inbox.unwrap();
                    if outcome == Outcome::Valid {
                        *times.entry(offset).or_default() += 1;
                        order.push(offset);
                    }
                }
                records.insert(at, record);
            }
        }
        prop_assert!(times.values().all(|n| *n == 1), "{times:?}");
        prop_assert!(order.iter().copied().eq(0..order.len() as u64), "in the order of the inbox, without a gap: {order:?}");
    }
}
