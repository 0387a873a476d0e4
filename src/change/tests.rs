use proptest::prelude::*;

use super::*;

const SHA: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn batch(changes: &str) -> Result<Batch> {
    BatchRequest::parse(format!("{{\"id\":\"x\",\"changes\":{changes}}}").as_bytes())?.validate(String::new, &[])
}

fn add(rest: &str) -> String {
    format!("[{{\"op\":\"add\",\"path\":\"a/b\",\"length\":1,\"hashes\":{{\"sha256\":\"{SHA}\"}}{rest}}}]")
}

#[test]
fn every_refusal_names_the_field_and_the_rule() {
    let path = |p: &str| format!("[{{\"op\":\"remove\",\"path\":{}}}]", serde_json::Value::from(p));
    let deep = "{\"a\":".repeat(9) + "1" + &"}".repeat(9);
    let cases = [
        (path(""), "changes[0].path", "1 to 1024 bytes"),
        (path(&"x".repeat(1025)), "changes[0].path", "1 to 1024 bytes"),
        (path("/a"), "changes[0].path", "begin or end"),
        (path("a/"), "changes[0].path", "begin or end"),
        (path("a//b"), "changes[0].path", "//"),
        (path("a/../b"), "changes[0].path", ".."),
        (path("."), "changes[0].path", ". or .."),
        (path("a b"), "changes[0].path", "may hold only"),
        (path("a%20b"), "changes[0].path", "'%'"),
        (path("é"), "changes[0].path", "'é'"),
        ("[]".into(), "changes", "at least one"),
        ("[{\"op\":\"move\",\"path\":\"a\"}]".into(), "changes[0].op", "move"),
        ("[{\"op\":\"remove\",\"path\":\"a\",\"length\":1}]".into(), "changes[0].length", "removal"),
        ("[{\"op\":\"remove\",\"path\":\"a\",\"size\":1}]".into(), "changes[0].size", "unknown field"),
        ("[{\"op\":\"remove\",\"path\":\"a\",\"path\":\"b\"}]".into(), "changes[0]", "duplicate field"),
        ("[{\"op\":\"remove\"}]".into(), "changes[0]", "missing field `path`"),
        ("[{\"op\":\"add\",\"path\":\"a\",\"hashes\":{}}]".into(), "changes[0].length", "required"),
        ("[{\"op\":\"add\",\"path\":\"a\",\"length\":1}]".into(), "changes[0].hashes", "required"),
        ("[{\"op\":\"add\",\"path\":\"a\",\"length\":-1}]".into(), "changes[0].length", "integer"),
        ("[{\"op\":\"add\",\"path\":\"a\",\"length\":1.5}]".into(), "changes[0].length", "1.5"),
        (
            "[{\"op\":\"add\",\"path\":\"a\",\"length\":9007199254740992,\"hashes\":{}}]".into(),
            "changes[0].length",
            "2^53",
        ),
        ("[{\"op\":\"add\",\"path\":\"a\",\"length\":1,\"hashes\":{}}]".into(), "changes[0].hashes.sha256", "required"),
        (add("").replace("012", "01G"), "changes[0].hashes.sha256", "64 lower-case"),
        (add("").replace("abc", "ABC"), "changes[0].hashes.sha256", "64 lower-case"),
        (add("").replace("\"sha256\"", "\"sha256\":\"0\",\"sha256\""), "changes[0].hashes", "twice"),
        (add("").replace("{\"sha256\"", "{\"md5\":\"0\",\"sha256\""), "changes[0].hashes", "md5"),
        (add("").replace("{\"sha256\"", "{\"sha512\":\"0\",\"sha256\""), "changes[0].hashes.sha512", "does not admit"),
        (add(",\"custom\":{}"), "changes[0].custom", "empty"),
        (add(",\"custom\":null"), "changes[0].custom", "object"),
        (add(",\"custom\":\"x\""), "changes[0].custom", "object"),
        (add(",\"custom\":{\"a\":1.0}"), "changes[0].custom", "integers"),
        (add(",\"custom\":{\"a\":[1,9007199254740992]}"), "changes[0].custom.a[1]", "2^53"),
        (add(",\"custom\":{\"a\":{\"b c\":1}}"), "changes[0].custom.a", "keys may hold"),
        (add(",\"custom\":{\"a\":1,\"a\":2}"), "changes[0].custom", "twice"),
        (add(",\"custom\":{\"a\":{\"b\":1,\"b\":2}}"), "changes[0].custom", "twice"),
        (add(",\"custom\":{\"a\":\"\\u0007\"}"), "changes[0].custom.a", "control"),
        (add(",\"custom\":{\"a\":\"e\\u0301\"}"), "changes[0].custom.a", "normal form C"),
        (add(&format!(",\"custom\":{{\"a\":[{}0]}}", "0,".repeat(9_000))), "changes[0].custom", "too large"),
        (add(&format!(",\"custom\":{deep}")), "changes[0].custom.a.a.a.a.a.a.a.a", "deeper than 8"),
        (add(&format!(",\"custom\":{{\"a\":\"{}\"}}", "x".repeat(17_000))), "changes[0].custom", "too large"),
    ];
    for (changes, field, rule) in cases {
        let e = batch(&changes).expect_err(&changes);
        assert_eq!(e.kind, crate::error::Kind::Invalid, "{changes}");
        assert!(e.field.as_deref().is_some_and(|f| f.starts_with(field)), "{changes}: field is {:?}", e.field);
        assert!(e.message.contains(rule), "{changes}: {e}");
    }
    for (id, ok) in [("", false), ("a b", false), ("a/b", false), (&"x".repeat(129) as &str, false), ("A.z_0:-", true)]
    {
        assert_eq!(check_id(id).is_ok(), ok, "{id}");
    }
}

#[test]
fn a_valid_add_becomes_canonical_bytes() {
    let b = batch(&add(",\"custom\":{\"b\":[true,null,-9007199254740991],\"a\":\"é😀\\\"\\\\\"}")).unwrap();
    let fragment = format!(
        "{{\"custom\":{{\"a\":\"é😀\\\"\\\\\",\"b\":[true,null,-9007199254740991]}},\"hashes\":{{\"sha256\":\"{SHA}\"}},\"length\":1}}"
    );
    assert_eq!(String::from_utf8(b.changes[0].fragment().unwrap()).unwrap(), fragment);
    let mut line = Vec::new();
    b.changes[0].write_line(&mut line);
    assert_eq!(line.len(), b.changes[0].line_len());
    let mut canonical =
        crate::tuf::canonical::to_vec(&serde_json::from_slice::<serde_json::Value>(&line).unwrap()).unwrap();
    canonical.push(b'\n');
    assert_eq!(line, canonical);
}

#[test]
fn too_many_changes_are_refused_by_number() {
    let one = "{\"op\":\"remove\",\"path\":\"a\"},".repeat(MAX_BATCH_CHANGES);
    assert!(batch(&format!("[{}]", one.trim_end_matches(','))).is_ok());
    let e = batch(&format!("[{one}{{\"op\":\"remove\",\"path\":\"a\"}}]")).unwrap_err();
    assert_eq!((e.field.as_deref(), e.too_large), (Some("changes"), true), "{e}");
}

#[test]
fn admitted_algorithms_pass() {
    let sha512 = "ab".repeat(64);
    let body =
        format!("{{\"changes\":{}}}", add("").replace("\"sha256\"", &format!("\"sha512\":\"{sha512}\",\"sha256\"")));
    assert!(BatchRequest::parse(body.as_bytes()).unwrap().validate(|| "x".into(), &["sha512".into()]).is_ok());
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Change::from_line(&Bytes::copy_from_slice(&bytes));
        let _ = BatchRequest::parse(&bytes).and_then(|b| b.validate(|| "x".into(), &[]));
    }

    #[test]
    fn a_line_reads_back_as_the_change_that_wrote_it(
        path in "[A-Za-z0-9._+~@=,-]{3,40}", length in 0..=MAX_INTEGER, digest in "[0-9a-f]{64}",
        custom in proptest::option::of("[a-z0-9 é\"\\\\/]{0,20}"), remove: bool,
    ) {
        let custom = custom.map(|s| serde_json::json!({"note": s, "n": [length, {"x": null}]}));
        let change = if remove { Change::remove(path) } else {
            Change::add(path, length, &[("sha256".into(), digest)].into(), custom.as_ref())
        }.unwrap();
        let mut line = Vec::new();
        change.write_line(&mut line);
        prop_assert_eq!(line.len(), change.line_len());
        let line = Bytes::from(line).slice(..change.line_len() - 1);
        prop_assert_eq!(Change::from_line(&line).unwrap(), change);
        // Another spelling of the same change is refused.
        let spaced = String::from_utf8(line.to_vec()).unwrap().replacen(':', ": ", 1);
        prop_assert!(Change::from_line(&spaced.into()).is_err());
    }
}

/// What a JSON parser and the rules make of a line.
fn parsed(line: &[u8]) -> Option<Change> {
    let change = ChangeRequest::parse(line).ok()?.validate_known().ok()?;
    (change.line == line).then_some(change)
}

proptest! {
    #[test]
    fn a_line_is_read_without_a_parser_only_if_one_would_read_the_same(
        path in "[A-Za-z0-9._/+]{1,12}", length in prop_oneof![0..=20u64, Just(MAX_INTEGER), Just(MAX_INTEGER + 1)],
        names in proptest::sample::subsequence(HASHES.to_vec(), 0..=3), remove: bool,
        damage in proptest::option::weighted(0.7, (any::<prop::sample::Index>(), "[ -~]{0,2}", 0..3usize)),
    ) {
        let digest = |len| "0f".repeat(len / 2);
        let hashes: Vec<_> = names.iter().map(|(n, len)| format!("\"{n}\":\"{}\"", digest(*len))).collect();
        let mut line = match remove {
            true => format!("{{\"op\":\"remove\",\"path\":\"{path}\"}}"),
            false => format!(
                "{{\"hashes\":{{{}}},\"length\":{length},\"op\":\"add\",\"path\":\"{path}\"}}", hashes.join(",")
            ),
        };
        if let Some((at, text, cut)) = damage {
            let at = at.index(line.len());
            line.replace_range(at..(at + cut).min(line.len()), &text);
        }
        let by_parser = parsed(line.as_bytes());
        prop_assert_eq!(line::read(line.as_bytes()).is_some(), by_parser.is_some(), "{}", line);
        prop_assert_eq!(Change::from_line(&line.into()).ok(), by_parser);
    }
}

#[test]
fn the_content_digest_follows_places_and_the_order_at_one_path_only() {
    let remove = |p: &str| Change::remove(p.into()).unwrap();
    let add = |p: &str| Change::add(p.into(), 1, &[("sha256".into(), SHA.into())].into(), None).unwrap();
    let digest = |changes: &[Change]| Batch::new("x".into(), None, changes.to_vec()).unwrap().digest;
    let (a, b) = (add("a"), remove("b"));
    assert_eq!(digest(&[a.clone(), b.clone()]), digest(&[b.clone(), a.clone()]), "they say the same");
    assert_ne!(digest(&[a.clone(), remove("a")]), digest(&[remove("a"), a.clone()]), "these do not");
    assert_ne!(digest(&[a.clone(), b]), digest(&[a]));
}
