//! A Recovery: what the state after it comes to, and its old bytes.

use tuflog::error::Kind;
use tuflog::ledger::record::{ObjectRef, Record, Recovery, RootRecord};
use tuflog::ledger::recovery::{self, Known};
use tuflog::ledger::saved::{self, Objects, Saved};
use tuflog::ledger::state::{Event, Outcome, State};

use crate::help;
use crate::ledger::{checkpoint, commit, cut, ledger, one, root};

/// A ledger with a published batch `a`, and a newer root since.
fn known() -> State {
    let mut state = ledger(10);
    state.apply(3, &commit("a", "x", 2, &[(1, 1)], &[(1, 4)])).unwrap();
    state.apply(4, &cut(1, 1_795_597_218)).unwrap();
    let done = checkpoint(&state);
    state.apply(5, &done).unwrap();
    state.apply(6, &Record::Root(RootRecord { document: root(2, 5) })).unwrap();
    state
}

/// A Recovery from checkpoint 1, and the objects that it names.
pub fn sample() -> (Recovery, Objects) {
    let state = known();
    let roots: Vec<_> = [state.cut_root.clone(), state.root.clone()].into_iter().flatten().collect();
    let objects = recovery::save(&Known {
        layout: state.layout.unwrap(),
        settings: (state.settings_revision, state.settings.clone()),
        floor: state.floor,
        ids: &state.ids,
        inbox: &[(0, 7)].into_iter().collect(),
        roots: &roots,
    });
    let recovery = Recovery {
        n: 1,
        snapshot: ObjectRef { length: 10, sha256: [7; 32] },
        version: 1,
        time: 1_795_597_218,
        expires: 1_795_683_618,
        kept: 5,
        cut: 2,
        state: objects.digests.clone(),
        ends: vec![0, 3],
        lost: vec![(7, 9)],
        lost_changes: vec![(1, 3, 5)],
    };
    (recovery, objects)
}

fn restored(seq: u64) -> State {
    let (recovery, objects) = sample();
    recovery::restore(seq, &recovery, &objects.state, &objects.ids).unwrap()
}

#[test]
fn old_bytes_of_a_recovery_are_read_and_written_again_as_they_were() {
    let (recovery, objects) = sample();
    let record = Record::Recovery(recovery.into()).encode();
    for (name, now) in [("recovery.json", &record), ("recovered-state.json", &objects.state)] {
        let old = help::fixture(&format!("v1/{name}"), now);
        assert_eq!(String::from_utf8_lossy(now), String::from_utf8_lossy(&old), "{name}");
    }
    assert_eq!(Record::decode(&record).unwrap().encode(), record);
    assert_eq!(Saved::decode(&objects.state).unwrap_err().kind, Kind::Corrupt, "it is of no Cut");
}

#[test]
fn after_a_recovery_the_published_counts_and_nothing_on_its_way() {
    let (part, segs) = ([(0u16, 1u32)], [(0u16, 0u64)]);
    let mut s = restored(9);
    assert_eq!(one(&mut s, 10, &commit("late", "x", 8, &part, &segs)), Outcome::Void, "its basis is from before");
    assert_eq!(one(&mut s, 11, &commit("a", "x", 9, &[(1, 1)], &[(1, 4)])), Outcome::Duplicate { first: 3 });
    assert_eq!(one(&mut s, 12, &commit("late", "x", 9, &part, &segs)), Outcome::Valid);
    assert_eq!((s.inbox.next(0), s.ends[1]), (7, 3));
    // No number of a cut is used again, and everything is rendered.
    assert_eq!(s.apply(13, &cut(2, 1_795_700_000)).unwrap(), Event::Void);
    assert_eq!(s.apply(14, &cut(3, 1_795_700_000)).unwrap(), Event::Cut);
    let open = s.open.as_ref().unwrap();
    assert!(open.all && open.targets && open.root.root.version == 2 && open.new_roots.len() == 1);
    let done = checkpoint(&s);
    s.apply(15, &done).unwrap();
    assert_eq!(s.stamp.as_ref().map(|t| (t.version, t.n)), Some((2, 3)));
    // A stored state remembers that there was one.
    s.apply(16, &cut(4, 1_795_700_001)).unwrap();
    let objects = saved::save(&s).unwrap();
    let again = Saved::decode(&objects.state).unwrap().restore(std::slice::from_ref(&objects.ids), None).unwrap();
    assert_eq!((again.recovered, &again), (9, &s));
}

#[test]
fn who_reads_on_into_a_recovery_must_start_again() {
    let (recovery, objects) = sample();
    let mut state = known();
    let error = state.apply(9, &Record::Recovery(recovery.clone().into())).unwrap_err();
    assert!(error.is_fatal() && error.message.contains("start this process again"), "{error}");
    let other = [&objects.ids[..], b"x"].concat().into();
    assert_eq!(recovery::restore(9, &recovery, &objects.state, &other).unwrap_err().kind, Kind::Corrupt);
}
