//! Tests over several modules: pinned bytes, the way there and back, and bytes from outside.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::parse::{parse_bin, parse_snapshot, parse_targets, parse_timestamp};
use super::*;
use crate::error::Kind;

/// 2030-01-01T00:00:00Z.
const EXPIRES: u64 = 1_893_456_000;

fn signers(seeds: &[u8]) -> Vec<Arc<Signer>> {
    seeds.iter().map(|seed| Arc::new(Signer::from_seed(&[*seed; 32]))).collect()
}

fn role_of(signers: &[Arc<Signer>], threshold: u32) -> RoleKeys {
    RoleKeys::new(signers.iter().map(|s| *s.public().key_id()).collect(), threshold)
}

/// A root whose root role is `root_seeds` with `threshold`, with key 10 for the online roles.
fn root(version: u64, root_seeds: &[u8], threshold: u32) -> Root {
    let (offline, online) = (signers(root_seeds), signers(&[10]));
    let keys = offline.iter().chain(&online).map(|s| (*s.public().key_id(), s.public().clone())).collect();
    let online = role_of(&online, 1);
    Root {
        version,
        expires: EXPIRES,
        keys,
        root: role_of(&offline, threshold),
        targets: online.clone(),
        snapshot: online.clone(),
        timestamp: online,
    }
}

/// One small repository of two bins: file name and bytes, as clients fetch them.
fn repository() -> Vec<(&'static str, Vec<u8>)> {
    let online = signers(&[10]);
    let (first, second) = (root(1, &[1, 2], 2), root(2, &[2, 3], 1));
    let targets = role::targets(&online, 1, EXPIRES, &second, 1);
    let bin_0 = role::bin(&online, 3, EXPIRES, CONTENT.as_bytes());
    let bin_1 = role::bin(&online, 1, EXPIRES, b"");
    let bins = br#""bins-0.json":{"version":3},"bins-1.json":{"version":1}"#;
    let snapshot = role::snapshot(&online, 3, EXPIRES, &Meta::of(1, &targets), bins);
    let timestamp = role::timestamp(&online, 4, EXPIRES, &Meta::of(3, &snapshot));
    vec![
        ("1.root.json", first.render(&signers(&[1, 2])).unwrap()),
        ("2.root.json", second.render(&signers(&[1, 2, 3])).unwrap()),
        ("1.targets.json", targets),
        ("3.bins-0.json", bin_0),
        ("1.bins-1.json", bin_1),
        ("3.snapshot.json", snapshot),
        ("timestamp.json", timestamp),
    ]
}

/// Two targets of bin 0, with what can stand in one.
const CONTENT: &str = concat!(
    r#""a/empty":{"hashes":{"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"length":0},"#,
    r#""pool/\"q\".deb":{"custom":{"arch":"amd64 \\ é","n":9007199254740991},"hashes":{"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"length":0}"#
);

/// Written once with `TUFLOG_WRITE_FIXTURES=1`; python-tuf 7.0.1 accepted every file and signature of them.
#[test]
fn published_bytes_never_change() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tuf");
    let files = repository();
    if std::env::var_os("TUFLOG_WRITE_FIXTURES").is_some() {
        std::fs::create_dir_all(&dir).unwrap();
        for (name, bytes) in &files {
            std::fs::write(dir.join(name), bytes).unwrap();
        }
    }
    for (name, bytes) in files {
        assert!(canonical::is_canonical(&bytes), "{name}");
        assert!(std::fs::read(dir.join(name)).unwrap() == bytes, "{name} is rendered differently than it was once");
    }
}

#[test]
fn a_repository_reads_back_as_it_was_rendered() {
    let files: BTreeMap<_, _> = repository().into_iter().collect();
    let first = Root::verify_first(&files["1.root.json"]).unwrap();
    let trusted = Root::verify_next(&first, &files["2.root.json"]).unwrap();
    assert_eq!((&first, &trusted), (&root(1, &[1, 2], 2), &root(2, &[2, 3], 1)));

    let open = |name, keys: &BTreeMap<KeyId, PublicKey>, role: &RoleKeys| {
        let envelope = Envelope::open(&files[name]).unwrap();
        envelope.verify(keys, role).unwrap();
        envelope.signed
    };
    let timestamp = parse_timestamp(open("timestamp.json", &trusted.keys, &trusted.timestamp)).unwrap();
    assert_eq!((timestamp.version, timestamp.expires), (4, EXPIRES));
    assert_eq!(timestamp.snapshot, Meta::of(3, &files["3.snapshot.json"]));
    let snapshot = parse_snapshot(open("3.snapshot.json", &trusted.keys, &trusted.snapshot)).unwrap();
    assert_eq!((snapshot.version, snapshot.expires), (3, EXPIRES));
    assert_eq!(snapshot.targets, Meta::of(1, &files["1.targets.json"]));
    assert_eq!(snapshot.bins, BTreeMap::from([("bins-0".to_owned(), 3), ("bins-1".to_owned(), 1)]));
    let targets = parse_targets(open("1.targets.json", &trusted.keys, &trusted.targets)).unwrap();
    assert_eq!((targets.version, targets.expires, targets.bit_length), (1, EXPIRES, 1));
    assert_eq!(targets.bins, trusted.targets);
    let bin = parse_bin(open("3.bins-0.json", &targets.keys, &targets.bins)).unwrap();
    assert_eq!((bin.version, bin.expires), (3, EXPIRES));
    let (paths, fragments): (Vec<_>, Vec<_>) = bin.targets.into_iter().unzip();
    assert_eq!(paths, ["a/empty", "pool/\"q\".deb"]);
    assert!(fragments.iter().all(|f| CONTENT.contains(f) && canonical::is_canonical(f.as_bytes())));
    assert!(parse_bin(open("1.bins-1.json", &targets.keys, &targets.bins)).unwrap().targets.is_empty());
}

#[test]
fn a_role_is_not_taken_for_another() {
    let files: BTreeMap<_, _> = repository().into_iter().collect();
    for (name, bytes) in &files {
        let signed = Envelope::open(bytes).unwrap().signed;
        let readable = [
            parse_bin(signed).is_ok() == name.contains("bins"),
            parse_snapshot(signed).is_ok() == name.contains("snapshot"),
            parse_timestamp(signed).is_ok() == name.contains("timestamp"),
            parse_targets(signed).is_ok() == name.contains("targets"),
            Root::parse(bytes).is_ok() == name.contains("root"),
        ];
        assert_eq!(readable, [true; 5], "{name}");
    }
}

#[test]
fn a_role_of_another_shape_is_corrupt() {
    let files: BTreeMap<_, _> = repository().into_iter().collect();
    let parse = |name: &str, signed: &[u8]| match name {
        "3.bins-0.json" => parse_bin(signed).err(),
        "3.snapshot.json" => parse_snapshot(signed).err(),
        "timestamp.json" => parse_timestamp(signed).err(),
        _ => parse_targets(signed).err(),
    };
    for (name, from, to) in [
        ("3.bins-0.json", r#""spec_version":"1.0.0""#, r#""spec_version":"1.0.1""#),
        ("3.bins-0.json", "2030-01-01T00:00:00Z", "2030-01-01T00:00:00+00:00"),
        ("3.bins-0.json", r#""version":3"#, r#""version":0"#),
        ("3.bins-0.json", r#""version":3"#, r#""version":-3"#),
        ("3.bins-0.json", r#""version":3"#, r#""version":3,"x":1"#),
        ("3.bins-0.json", r#""a/empty""#, r#""z/empty""#),
        ("3.bins-0.json", r#""a/empty":{"#, r#""a/empty":{},"a/empty":{"#),
        ("3.bins-0.json", r#""a/empty":{"#, r#""a":1,"a/empty":{"#),
        ("3.snapshot.json", "bins-1", "bins-0"),
        ("3.snapshot.json", "bins-1", "bins-G"),
        ("3.snapshot.json", "bins-1", "bins-"),
        ("3.snapshot.json", r#""bins-1.json":{"version":1}"#, r#""bins-1.json":{"version":0}"#),
        ("3.snapshot.json", r#""bins-1.json":{"version":1}"#, r#""bins-1.json":{"length":1,"version":1}"#),
        ("3.snapshot.json", "targets.json", "targetz.json"),
        ("3.snapshot.json", r#"{"sha256":""#, r#"{"sha256":"0"#),
        ("timestamp.json", "sha256", "sha512"),
        ("timestamp.json", r#""meta":{"#, r#""meta":{"a.json":{"version":1},"#),
        ("timestamp.json", r#""length":"#, r#""lengthy":"#),
        ("1.targets.json", r#""name_prefix":"bins""#, r#""name_prefix":"bin""#),
        ("1.targets.json", r#""bit_length":1"#, r#""bit_length":0"#),
        ("1.targets.json", r#""bit_length":1"#, r#""bit_length":33"#),
        ("1.targets.json", r#""threshold":1"#, r#""threshold":2"#),
        ("1.targets.json", r#""targets":{}"#, r#""targets":{"a":{}}"#),
        ("1.targets.json", r#""keys":{""#, r#""keys":{"0"#),
    ] {
        let signed = std::str::from_utf8(Envelope::open(&files[name]).unwrap().signed).unwrap();
        let changed = signed.replacen(from, to, 1);
        assert_ne!(changed, signed, "{name}: {from}");
        assert!(parse(name, signed.as_bytes()).is_none());
        let error = parse(name, changed.as_bytes()).unwrap_or_else(|| panic!("{name} with {to} was accepted"));
        assert_eq!(error.kind, Kind::Corrupt, "{name} with {to}: {error}");
    }
}

/// Changes the signed part of a root and signs it again.
fn root_with(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let all = signers(&[1, 2]);
    let bytes = root(2, &[1, 2], 2).render(&all).unwrap();
    let mut signed: Value = serde_json::from_slice(Envelope::open(&bytes).unwrap().signed).unwrap();
    change(&mut signed);
    envelope::seal(&all, |out| canonical::write(&signed, out).unwrap())
}

#[test]
fn unknown_fields_of_a_root_are_passed_over() {
    let bytes = root_with(|signed| {
        signed["x"] = json!({"y": [1]});
        signed["roles"]["mirrors"] = json!({"keyids": [], "threshold": 1});
    });
    assert_eq!(Root::verify_first(&bytes).unwrap(), root(2, &[1, 2], 2));
}

#[test]
fn an_incomplete_root_is_invalid_and_its_place_is_told() {
    let online = signers(&[10])[0].public().key_id().to_string();
    let stranger = signers(&[99])[0].public().key_id().to_string();
    type Change = Box<dyn Fn(&mut Value)>;
    let cases: Vec<(&str, Change)> = vec![
        ("signed._type", Box::new(|s| s["_type"] = json!("targets"))),
        ("signed.spec_version", Box::new(|s| s["spec_version"] = json!("1.0.31"))),
        ("signed.consistent_snapshot", Box::new(|s| s["consistent_snapshot"] = json!(false))),
        ("signed.expires", Box::new(|s| s["expires"] = json!("2030-01-01T00:00:00.5Z"))),
        ("signed.version", Box::new(|s| s["version"] = json!(0))),
        ("signed", Box::new(|s| s["version"] = json!("2"))),
        ("signed.roles.root.threshold", Box::new(|s| s["roles"]["root"]["threshold"] = json!(0))),
        ("signed.roles.root.threshold", Box::new(|s| s["roles"]["root"]["threshold"] = json!(3))),
        ("signed.roles.timestamp.keyids", {
            let twice = json!([online, online]);
            Box::new(move |s| s["roles"]["timestamp"]["keyids"] = twice.clone())
        }),
        ("signed.roles.snapshot.keyids", {
            let absent = json!([stranger]);
            Box::new(move |s| s["roles"]["snapshot"]["keyids"] = absent.clone())
        }),
        ("signed", Box::new(|s| s["roles"]["targets"] = Value::Null)),
    ];
    for (place, change) in cases {
        let error = Root::verify_first(&root_with(change)).unwrap_err();
        assert_eq!((error.kind, error.field.as_deref()), (Kind::Invalid, Some(place)), "{error}");
    }
    let swapped = root_with(|s| {
        let key = s["keys"].as_object_mut().unwrap().remove(&online).unwrap();
        s["keys"][&stranger] = key;
    });
    let error = Root::verify_first(&swapped).unwrap_err();
    assert_eq!(error.field, Some(format!("signed.keys.{stranger}")), "{error}");
    assert_eq!(Root { version: 0, ..root(1, &[1], 1) }.render(&[]).unwrap_err().kind, Kind::Invalid);
    assert_eq!(Root { expires: u64::MAX, ..root(1, &[1], 1) }.render(&[]).unwrap_err().kind, Kind::Invalid);
}

#[test]
fn a_root_that_clients_would_render_otherwise_is_refused() {
    let all = signers(&[1, 2]);
    let bytes = root(1, &[1, 2], 2).render(&all).unwrap();
    let signed: Value = serde_json::from_slice(Envelope::open(&bytes).unwrap().signed).unwrap();
    let pretty = serde_json::to_vec_pretty(&signed).unwrap();
    let error = Root::verify_first(&envelope::seal(&all, |out| out.extend_from_slice(&pretty))).unwrap_err();
    assert_eq!((error.kind, error.field.as_deref()), (Kind::Invalid, Some("signed")));
}

#[test]
fn a_root_needs_the_threshold_of_its_predecessor_and_its_own() {
    let first = root(1, &[1, 2], 2);
    for (next, by, good) in [
        (root(2, &[2, 3], 2), &[1, 2, 3][..], true),
        (root(2, &[2, 3], 1), &[1, 2], true),     // 2 is in both
        (root(2, &[2, 3], 2), &[2, 3], false),    // one of two old keys
        (root(2, &[2, 3], 2), &[1, 2], false),    // one of two new keys
        (root(2, &[3], 1), &[1, 2], false),       // no new key
        (root(2, &[1, 2], 2), &[1, 8, 9], false), // strangers
        (root(2, &[1, 2], 2), &[], false),
        (root(1, &[1, 2], 2), &[1, 2], false), // again
        (root(3, &[1, 2], 2), &[1, 2], false), // a gap
    ] {
        let bytes = next.render(&signers(by)).unwrap();
        let verified = Root::verify_next(&first, &bytes);
        assert_eq!(verified.is_ok(), good, "{next:?} by {by:?}: {verified:?}");
        assert!(verified.is_ok_and(|root| root == next) || !good);
    }
    let unsigned = first.render(&signers(&[1])).unwrap();
    let error = Root::verify_first(&unsigned).unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.message.contains("1 of 1 signatures valid, 2 of 2 keys must sign"), "{error}");
    let last = Root { version: u64::MAX, ..first.clone() };
    assert!(Root::verify_next(&last, &first.render(&signers(&[1, 2])).unwrap()).is_err());
}

fn parse_all(bytes: &[u8]) {
    let _ = (parse_bin(bytes), parse_snapshot(bytes), parse_timestamp(bytes), parse_targets(bytes));
    let _ = (Root::parse(bytes), Root::verify_first(bytes), Root::verify_next(&root(1, &[1], 1), bytes));
    if let Ok(envelope) = Envelope::open(bytes) {
        let signed = envelope.signed;
        let _ = (parse_bin(signed), parse_snapshot(signed), parse_timestamp(signed), parse_targets(signed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        parse_all(&bytes);
    }

    #[test]
    fn no_damaged_file_makes_a_parser_panic(
        which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), cut in 0..40_usize, with in "[\\[\\]{}:,\"0-9a\\\\ -]{0,8}",
    ) {
        let files = repository();
        let mut bytes = which.get(&files).1.clone();
        let at = at.index(bytes.len());
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, with.bytes());
        parse_all(&bytes);
    }

    #[test]
    fn bins_come_back(version in 1..u64::MAX, expires in 0..=253_370_764_799_u64, targets in prop::collection::btree_map("\\PC{0,20}", 0..u64::MAX, 0..20)) {
        let mut content = Vec::new();
        for (path, length) in &targets {
            if !content.is_empty() {
                content.push(b',');
            }
            canonical::write_string(path, &mut content);
            content.extend_from_slice(format!(r#":{{"length":{length}}}"#).as_bytes());
        }
        let bytes = role::bin(&signers(&[1]), version, expires, &content);
        prop_assert!(canonical::is_canonical(&bytes));
        let bin = parse_bin(Envelope::open(&bytes).unwrap().signed).unwrap();
        prop_assert_eq!((bin.version, bin.expires), (version, expires));
        let back: Vec<_> = bin.targets.iter().map(|(path, fragment)| (path.to_string(), fragment.to_string())).collect();
        let expected: Vec<_> = targets.iter().map(|(path, length)| (path.clone(), format!(r#"{{"length":{length}}}"#))).collect();
        prop_assert_eq!(back, expected);
    }

    #[test]
    fn snapshots_and_timestamps_come_back(
        version in 1..u64::MAX, expires in 0..=253_370_764_799_u64, bins in prop::collection::btree_map("bins-[0-9a-f]{1,4}", 1..u64::MAX, 0..20),
        (of, length, sha256) in (1..u64::MAX, any::<u64>(), any::<[u8; 32]>()),
    ) {
        let meta = Meta { version: of, length, sha256 };
        // As files: "bins-0.json" comes before "bins-00.json", though only names of one length occur.
        let named: BTreeMap<_, _> = bins.iter().map(|(name, v)| (format!("{name}.json"), v)).collect();
        let entries = named.iter().map(|(name, v)| format!(r#""{name}":{{"version":{v}}}"#)).collect::<Vec<_>>().join(",");
        let bytes = role::snapshot(&signers(&[1]), version, expires, &meta, entries.as_bytes());
        prop_assert!(canonical::is_canonical(&bytes));
        let snapshot = parse_snapshot(Envelope::open(&bytes).unwrap().signed).unwrap();
        prop_assert_eq!(snapshot, Snapshot { version, expires, targets: meta, bins });
        let bytes = role::timestamp(&signers(&[1]), version, expires, &meta);
        prop_assert!(canonical::is_canonical(&bytes));
        let timestamp = parse_timestamp(Envelope::open(&bytes).unwrap().signed).unwrap();
        prop_assert_eq!(timestamp, Timestamp { version, expires, snapshot: meta });
    }

    #[test]
    fn roots_and_targets_come_back(
        version in 1..u64::MAX, expires in 0..=253_370_764_799_u64, seeds in prop::collection::btree_set(20..60_u8, 1..5), bits in 1..=32_u8,
        threshold in any::<prop::sample::Index>(),
    ) {
        let seeds: Vec<u8> = seeds.into_iter().collect();
        let threshold = threshold.index(seeds.len()) as u32 + 1;
        let mut root = Root { expires, ..root(version, &seeds, threshold) };
        root.targets = root.root.clone();
        let bytes = root.render(&signers(&seeds)).unwrap();
        prop_assert!(canonical::is_canonical(&bytes));
        prop_assert_eq!(&Root::verify_first(&bytes).unwrap(), &root);
        let bytes = role::targets(&signers(&seeds), version, expires, &root, bits);
        prop_assert!(canonical::is_canonical(&bytes));
        let targets = parse_targets(Envelope::open(&bytes).unwrap().signed).unwrap();
        prop_assert_eq!((targets.version, targets.expires, targets.bit_length), (version, expires, bits));
        prop_assert_eq!((&targets.bins, targets.keys.len()), (&root.targets, seeds.len()));
    }
}
