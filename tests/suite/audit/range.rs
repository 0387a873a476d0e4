//! The audit between two checkpoints.

use std::sync::Arc;

use tuflog::audit::{self, Damage, Options, Range, Report, Verdict};
use tuflog::error::{Error, Kind};
use tuflog::log::memory::{Faults, MemoryLog};

use super::repository::{Changed, Repository, clean, options};
use super::{story, timeless};
use crate::help::block_on;

fn repository() -> Repository {
    let mut r = Repository::on(Arc::new(MemoryLog::new(1, Faults::NONE)));
    story(&mut r);
    clean(r.audit());
    r
}

fn audit_range(r: &Repository, from: Option<u64>, to: Option<u64>) -> Result<Report, Error> {
    let options = Options { range: Range { from, to }, ..options() };
    block_on(audit::run(r.log.clone(), r.store(), options, |_| {}))
}

#[test]
fn every_range_of_a_good_history_is_whole_and_says_what_it_leaves_out() {
    let r = repository();
    let whole = clean(r.audit());
    assert_eq!((whole.covered.from, whole.covered.to, whole.covered.first_seq), (None, Some(whole.cuts), 0));
    assert!(whole.covered.not_covered.is_empty() && whole.covered.end_seq == whole.records);
    for from in 1..=whole.cuts {
        let report = clean(audit_range(&r, Some(from), None).unwrap());
        assert_eq!((report.covered.from, report.covered.to), (Some(from), Some(whole.cuts)), "{report}");
        assert_eq!((report.cuts, report.checkpoints), (whole.cuts - from, whole.cuts - from + 1), "{report}");
        assert_eq!(report.targets, whole.targets);
        assert!(report.covered.not_covered[0].starts_with(&format!("before checkpoint {from}")), "{report}");
        assert!(report.to_string().contains(&format!("from checkpoint {from} as it was signed")), "{report}");
        for to in from + 1..=whole.cuts {
            let report = clean(audit_range(&r, Some(from), Some(to)).unwrap());
            assert_eq!((report.covered.to, report.cuts), (Some(to), to - from), "{report}");
        }
    }
    for to in 1..=whole.cuts {
        let report = clean(audit_range(&r, None, Some(to)).unwrap());
        assert_eq!((report.covered.first_seq, report.covered.to, report.cuts), (0, Some(to), to), "{report}");
        assert!(report.covered.not_covered[0].starts_with(&format!("after checkpoint {to}")), "{report}");
    }
    assert_eq!(timeless(clean(r.audit())), timeless(whole));
}

#[test]
fn a_checkpoint_that_is_not_there_is_refused_with_the_numbers_that_are() {
    let r = repository();
    let last = clean(r.audit()).cuts;
    for (from, to, field) in [(Some(0), None, "--from"), (Some(99), None, "--from"), (None, Some(99), "--to")] {
        let e = audit_range(&r, from, to).unwrap_err();
        assert_eq!((e.kind, e.field.as_deref()), (Kind::Invalid, Some(field)), "{e}");
        assert!(e.message.ends_with(&format!("in the ledger; there are 1 to {last}")), "{e}");
    }
    let e = audit_range(&r, Some(3), Some(3)).unwrap_err();
    assert_eq!(e.field.as_deref(), Some("--to"), "{e}");
}

#[test]
fn damage_within_a_range_is_found_and_damage_outside_is_not_looked_at() {
    let r = repository();
    let last = clean(r.audit()).cuts;
    let damaged = |name: &str, bytes: Option<Vec<u8>>, from, to| {
        let changed = Changed::file(&r.path(name), bytes.as_deref());
        let report = audit_range(&r, from, to).unwrap();
        drop(changed);
        report
    };
    let file = |name: &str| std::fs::read(r.path(name)).unwrap();
    let first_snapshot = "metadata/2.snapshot.json";
    let spaced = [&file(first_snapshot)[..], b" "].concat();
    assert_eq!(damaged(first_snapshot, Some(spaced.clone()), Some(3), None).verdict, Verdict::Whole);
    let report = damaged(first_snapshot, Some(spaced), Some(2), None);
    assert_eq!(report.findings[0].damage, Damage::ObjectAltered, "{report}");
    assert!(report.findings[0].message.contains("checkpoint 2 names it"), "{report}");

    // A bin that the checkpoint names, whichever cut brought it, and one that only later cuts bring.
    let bin = format!("metadata/{last}.{}.json", r.layout.name(r.layout.bin_of("a")));
    let report = damaged(&bin, None, Some(last), None);
    assert_eq!((report.findings[0].damage, &report.findings[0].place), (Damage::ObjectMissing, &bin), "{report}");
    assert_eq!(damaged(&bin, None, None, Some(last - 1)).verdict, Verdict::Whole);
    assert_eq!(damaged(&bin, None, Some(2), Some(last)).findings[0].damage, Damage::ObjectMissing);

    // The stored ledger state that a range begins with.
    let state = String::from_utf8(file("ledger/4.state.json")).unwrap().replace("\"floor\":0", "\"floor\":1");
    let report = damaged("ledger/4.state.json", Some(state.into()), Some(4), None);
    assert_eq!(report.findings[0].place, "ledger/4.state.json", "{report}");

    // Signed by a stranger.
    let text = String::from_utf8(file(first_snapshot)).unwrap();
    let at = text.find("\"sig\":\"").unwrap() + 7;
    let digit = if &text[at..=at] == "0" { "1" } else { "0" };
    let forged = format!("{}{digit}{}", &text[..at], &text[at + 1..]);
    let report = damaged(first_snapshot, Some(forged.into()), Some(2), None);
    assert_eq!(report.findings[0].damage, Damage::BadSignature, "{report}");
}
