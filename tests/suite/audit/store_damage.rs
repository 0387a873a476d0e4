//! Every kind of damage to the store, and what the audit says of it.

use std::path::PathBuf;
use std::sync::Arc;

use tuflog::log::memory::{Faults, MemoryLog};
use tuflog::tuf::Envelope;
use tuflog::tuf::envelope::seal;

use super::repository::{Changed, DAY, Repository, add, clean, remove, signer};

/// Four cuts: empty, three paths, one replaced, one removed and one absent.
fn small() -> Repository {
    let mut r = Repository::on(Arc::new(MemoryLog::new(1, Faults::NONE)));
    r.publish("a", vec![add("x", "a"), add("y", "a"), add("z", "a")]);
    r.publish("b", vec![add("x", "b")]);
    r.publish("c", vec![remove("y"), remove("none")]);
    r
}

/// The first finding while a stored file is other bytes, or away; clean before and after.
fn with(r: &Repository, file: &str, bytes: Option<Vec<u8>>) -> String {
    let path = r.path(file);
    let changed = Changed::file(&path, bytes.as_deref());
    let report = r.audit();
    drop(changed);
    clean(r.audit());
    assert!(!report.complete && report.findings.len() == 1, "{file}: {report}");
    report.findings[0].to_string()
}

fn read(r: &Repository, file: &str) -> Vec<u8> {
    std::fs::read(r.path(file)).unwrap()
}

fn signed(file: &[u8]) -> String {
    String::from_utf8(Envelope::open(file).unwrap().signed.to_vec()).unwrap()
}

/// The signed part changed, and signed again by the holder of a key.
fn resigned(file: &[u8], seed: u8, change: impl Fn(&str) -> String) -> Vec<u8> {
    let (before, signer) = (signed(file), signer(seed));
    let after = change(&before);
    seal(&[signer], |out| out.extend_from_slice(after.as_bytes()))
}

/// The bin of a path at its newest version.
fn bin(r: &Repository, path: &str) -> String {
    format!("metadata/{}.{}.json", r.bin_version(path), r.layout.name(r.layout.bin_of(path)))
}

#[track_caller]
fn assert_says(finding: &str, parts: &[&str]) {
    for part in parts {
        assert!(finding.contains(part), "no {part:?} in:\n{finding}");
    }
}

#[test]
fn an_altered_bin_is_named_with_both_values() {
    let r = small();
    let name = bin(&r, "x");
    let file = read(&r, &name);
    let content = with(&r, &name, Some(resigned(&file, 11, |s| s.replace("\"length\":1", "\"length\":12"))));
    let lengths = [0, 1].map(|more| format!("version 3, signed part of {} bytes", signed(&file).len() + more));
    assert_says(
        &content,
        &[
            &format!("{name} is altered: its signed part is not what cut 3 renders\n"),
            &format!("expected   {}", lengths[0]),
            &format!("found      {}", lengths[1]),
            "\"length\":1}",
            "\"length\":12}",
        ],
    );
    let expires = with(&r, &name, Some(resigned(&file, 11, |s| s.replace("\"2026-", "\"2036-"))));
    assert_says(
        &expires,
        &["signed part is not what cut 3 renders", "\"expires\":\"2026-01-08T", "\"expires\":\"2036-01-08T"],
    );
    let flipped = String::from_utf8(file.clone()).unwrap();
    let at = flipped.find("\"sig\":\"").unwrap() + 7;
    let digit = if &flipped[at..=at] == "0" { "1" } else { "0" };
    let signature = with(&r, &name, Some(format!("{}{digit}{}", &flipped[..at], &flipped[at + 1..]).into()));
    assert_says(
        &signature,
        &[&name, "the signature of key", "does not fit its signed part, which is what cut 3 renders"],
    );
    let stranger = with(&r, &name, Some(resigned(&file, 19, str::to_owned)));
    assert_says(&stranger, &[&name, "has signed it, which root 1 does not name for it"]);
    let nobody = with(&r, &name, Some(seal(&[], |out| out.extend_from_slice(signed(&file).as_bytes()))));
    assert_says(&nobody, &["0 keys have signed it, 1 must"]);
    let spaced = with(&r, &name, Some([&file[..], b"\n"].concat()));
    assert_says(
        &spaced,
        &["the file around them is not laid out as tuflog does", &format!("found      {} bytes", file.len() + 1)],
    );
    let torn = with(&r, &name, Some(file[..file.len() / 2].to_vec()));
    assert_says(&torn, &[&name, "is altered: not a TUF metadata file"]);
}

#[test]
fn a_missing_bin_is_named() {
    let r = small();
    let name = bin(&r, "z");
    let finding = with(&r, &name, None);
    assert_says(&finding, &[&format!("{name} is missing: it should be what cut 2 renders"), "expected   version 2, "]);
}

#[test]
fn a_version_from_another_cut_is_not_taken_for_the_right_one() {
    let r = small();
    let role = r.layout.name(r.layout.bin_of("x"));
    let (second, third) = (format!("metadata/2.{role}.json"), format!("metadata/3.{role}.json"));
    let finding = with(&r, &third, Some(read(&r, &second)));
    assert_says(&finding, &[&third, "is not what cut 3 renders", "expected   version 3", "found      version 2"]);
    let finding = with(&r, "metadata/4.snapshot.json", Some(read(&r, "metadata/3.snapshot.json")));
    assert_says(&finding, &["metadata/4.snapshot.json is altered", "expected   version 4", "found      version 3"]);
}

#[test]
fn an_unexpected_object_is_named_with_the_reason() {
    let r = small();
    let (x, z) = (r.layout.name(r.layout.bin_of("x")), r.layout.name(r.layout.bin_of("z")));
    assert_ne!(x, z);
    let second = read(&r, &bin(&r, "z"));
    let renewed = resigned(&second, 11, |s| s.replace("\"version\":2", "\"version\":3"));
    let name = format!("metadata/3.{z}.json");
    let index = r.layout.bin_of("z");
    assert_says(
        &with(&r, &name, Some(renewed)),
        &[
            &format!("{name} is unexpected: bin {index} gets no new version at cut 3: it neither changed nor was due"),
            "found ",
        ],
    );
    let beyond = format!("metadata/9.{z}.json");
    for name in [&beyond[..], "metadata/7.root.json", "ledger/9.state.json", "metadata/1.bins-00.json", "note.txt"] {
        let finding = with(&r, name, Some(b"x".to_vec()));
        assert_says(&finding, &[&format!("{name} is unexpected: nothing in the ledger accounts for it")]);
    }
    let finding = with(&r, "metadata/3.targets.json", Some(b"x".to_vec()));
    assert_says(&finding, &["metadata/3.targets.json is unexpected: targets.json gets no new version at cut 3"]);
    let finding = with(&r, "ledger/3.state.json", Some(b"x".to_vec()));
    assert_says(&finding, &["ledger/3.state.json is unexpected: cut 3 makes none"]);
}

#[test]
fn an_altered_or_missing_snapshot_and_targets_are_named() {
    let r = small();
    let name = "metadata/3.snapshot.json";
    let file = read(&r, name);
    let older = resigned(&file, 11, |s| s.replacen("{\"version\":3}", "{\"version\":2}", 1));
    let finding = with(&r, name, Some(older));
    assert_says(&finding, &[name, "its signed part is not what cut 3 renders", "{\"version\":3}", "{\"version\":2}"]);
    assert_says(&with(&r, name, None), &["metadata/3.snapshot.json is missing"]);
    let targets = "metadata/1.targets.json";
    let file = read(&r, targets);
    let finding = with(&r, targets, Some(resigned(&file, 11, |s| s.replace("\"bit_length\":3", "\"bit_length\":4"))));
    assert_says(&finding, &[targets, "\"bit_length\":3", "\"bit_length\":4"]);
    assert_says(&with(&r, targets, None), &["metadata/1.targets.json is missing: it should be what cut 1 renders"]);
}

#[test]
fn an_altered_root_or_ledger_state_is_named() {
    let r = small();
    let root = read(&r, "metadata/1.root.json");
    let finding = with(&r, "metadata/1.root.json", Some([&root[..], b" "].concat()));
    assert_says(&finding, &["metadata/1.root.json is altered: it is not root 1 of the ledger"]);
    assert_says(&with(&r, "metadata/1.root.json", None), &["metadata/1.root.json is missing"]);
    let state = String::from_utf8(read(&r, "ledger/4.state.json")).unwrap();
    let other = state.replace("\"floor\":0", "\"floor\":1");
    let finding = with(&r, "ledger/4.state.json", Some(other.into()));
    assert_says(
        &finding,
        &["ledger/4.state.json is altered: it is not the ledger state at cut 4", "\"floor\":0", "\"floor\":1"],
    );
    assert_says(&with(&r, "ledger/2.ids.jsonl", Some(vec![])), &["it is not the batch ids remembered at cut 2"]);
    assert_says(&with(&r, "ledger/2.ids.jsonl", None), &["ledger/2.ids.jsonl is missing"]);
}

#[test]
fn a_wrong_timestamp_is_named_and_one_that_was_put_back_is_no_crash() {
    let mut r = small();
    r.wait(DAY * 3 / 4); // a Renew
    let name = "metadata/timestamp.json";
    let file = read(&r, name);
    let last = signed(&file).rsplit_once("\"version\":").unwrap().1.trim_end_matches('}').parse::<u64>().unwrap();
    assert!(last >= 5);
    let version = |v: u64| {
        resigned(&file, 11, move |s| s.replace(&format!("\"version\":{last}}}"), &format!("\"version\":{v}}}")))
    };
    let expires = with(&r, name, Some(resigned(&file, 11, |s| s.replace("\"expires\":\"2026", "\"expires\":\"2027"))));
    assert_says(
        &expires,
        &[&format!("{name} has another expiry: its signed part is not version {last} of it by the ledger")],
    );
    let ahead = with(&r, name, Some(version(last + 2)));
    assert_says(
        &ahead,
        &[
            "is missing: the ledger has lost its end",
            &format!("{name} is version {}, the ledger makes {last}", last + 2),
        ],
    );
    let forged = with(&r, name, Some(version(2)));
    assert_says(&forged, &["its signed part is not version 2 of it by the ledger, over checkpoint 2"]);
    let signature = with(&r, name, Some(resigned(&file, 12, str::to_owned)));
    assert_says(&signature, &["has signed it, which root 1 does not name for it"]);
    assert_says(&with(&r, name, Some(b"{}".to_vec())), &["timestamp.json is altered: not a TUF metadata file"]);
    assert_says(&with(&r, name, None), &["timestamp.json is missing: there is none, but ", " was made after version"]);

    let old = file;
    r.publish("d", vec![add("x", "d")]);
    r.publish("e", vec![add("x", "e")]);
    let put_back = with(&r, name, Some(old));
    assert_says(
        &put_back,
        &[&format!("{name} was put back: to version {last}: Cut "), &format!("was made after version {}", last + 1)],
    );
}

#[test]
fn findings_are_collected_up_to_a_limit_in_the_order_of_the_ledger() {
    let r = small();
    let damage = |name: &str| -> (PathBuf, Vec<u8>) { (r.path(name), [&read(&r, name)[..], b" "].concat()) };
    let names = [bin(&r, "z"), bin(&r, "x"), "metadata/4.snapshot.json".into(), "metadata/timestamp.json".into()];
    let changed: Vec<Changed> =
        names.iter().map(|n| damage(n)).map(|(path, bytes)| Changed::file(&path, Some(&bytes))).collect();
    for limit in [1, 3, 10] {
        let options = tuflog::audit::Options { max_findings: limit, ..Default::default() };
        let report = crate::help::block_on(tuflog::audit::run(r.log.clone(), r.store(), options, |_| {})).unwrap();
        let places: Vec<&str> = report.findings.iter().map(|f| &f.place[..]).collect();
        assert_eq!(places, names[..limit.min(4)], "{report}");
        assert_eq!(report.complete, limit > 4);
        assert!(!report.is_clean());
    }
    drop(changed);
    clean(r.audit());
}
