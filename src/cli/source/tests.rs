//! Tests of the readers: each format, broken inputs, arbitrary bytes, and this machine's own indexes.

use std::collections::{HashMap, HashSet};
use std::io::Write;

use proptest::prelude::*;

use super::input::Lines;
use super::*;

const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn add(path: &str, length: u64, hash: &str) -> Item {
    Item::Add { path: path.into(), length, hashes: [("sha256".into(), hash.into())].into(), custom: None }
}

fn read(format: Format, files: &[&[u8]]) -> Result<Vec<Item>> {
    let dir = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    for (i, bytes) in files.iter().enumerate() {
        let name = dir.path().join(format!("file-{i}"));
        std::fs::write(&name, bytes).unwrap();
        names.push(name.to_str().unwrap().to_owned());
    }
    open(format, &names)?.collect()
}

fn message(format: Format, text: &str) -> String {
    let error = read(format, &[text.as_bytes()]).unwrap_err().to_string();
    error.split_once("file-0:").unwrap_or_else(|| panic!("{error} names no line")).1.to_owned()
}

fn stanza(package: &str, path: &str, size: u64, hash: &str) -> String {
    format!("Package: {package}\nDescription: x\n a: b\nFilename: {path}\nSize: {size}\nMD5sum: 0\nSHA256: {hash}\n\n")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn every_compression_reads_alike_and_a_truncated_file_is_an_error() {
    let text: String = (0..3_000).map(|i| stanza("p", &format!("pool/{i}.deb"), i, HASH)).collect();
    let (first, second) = text.as_bytes().split_at(text.len() / 2);
    let plain = read(Format::Debian, &[text.as_bytes()]).unwrap();
    assert_eq!(plain.len(), 3_000);
    for compress in [gzip, xz, lz4] {
        let whole = compress(text.as_bytes());
        assert_eq!(read(Format::Debian, &[&whole]).unwrap(), plain);
        let parts = [compress(first), compress(b""), compress(second)].concat();
        assert_eq!(read(Format::Debian, &[&parts]).unwrap(), plain, "several streams in one file are one text");
        for cut in [whole.len() / 2, whole.len() - 5] {
            let error = read(Format::Debian, &[&whole[..cut]]).unwrap_err().to_string();
            assert!(error.contains("file-0:"), "{error}");
        }
    }
}

#[test]
fn a_stanza_that_lacks_a_field_is_an_error_that_names_its_package() {
    let good = stanza("bash", "pool/b/bash.deb", 7, HASH);
    for (field, part) in [("Filename", "pool"), ("Size", "7"), ("SHA256", "e3b0")] {
        let lines = good.lines().filter(|l| !l.starts_with(&format!("{field}:")));
        let text = format!("\n{}\n", lines.collect::<Vec<_>>().join("\n"));
        assert_eq!(message(Format::Debian, &text), format!("2: package bash: {field} is missing"), "{part}");
    }
    assert!(message(Format::Debian, &good.replace("Size: 7", "Size: -7")).contains("not a number of bytes"));
    assert!(message(Format::Debian, &good.replace("Size: 7", "Size: 99999999999999999999")).contains("too large"));
    assert!(message(Format::Debian, &good.replace(HASH, "e3b0")).contains("4 digits instead of 64"));
    assert!(message(Format::Debian, &format!("Size: 1\n{good}")).contains("package bash: Size occurs twice"));
    assert!(message(Format::Debian, "<html>\n").contains("is this a Packages index?"));
}

#[test]
fn a_debian_path_with_the_same_content_comes_once_and_with_other_content_again() {
    let zeros = "0".repeat(64);
    let (a, b) = (stanza("a", "./a.deb", 1, HASH), stanza("a", "a.deb", 2, &zeros));
    let items = read(Format::Debian, &[a.as_bytes(), a.as_bytes(), b.as_bytes(), a.as_bytes()]).unwrap();
    assert_eq!(items, [add("a.deb", 1, HASH), add("a.deb", 2, &zeros), add("a.deb", 1, HASH)]);
}

#[test]
fn jsonl_reads_what_the_api_takes_and_writes_it_back_the_same() {
    let text = format!(
        "{{\"op\":\"add\",\"path\":\"a\",\"length\":1,\"hashes\":{{\"sha256\":\"{HASH}\"}},\"custom\":{{\"k\":[1,null]}}}}\n\n{{\"op\":\"remove\",\"path\":\"b\"}}\r\n"
    );
    let items = read(Format::Jsonl, &[text.as_bytes()]).unwrap();
    let back: Vec<String> = items.iter().map(|i| serde_json::to_string(i).unwrap()).collect();
    assert_eq!(back.join("\n\n") + "\r\n", text);
}

#[test]
fn jsonl_errors_name_line_and_reason() {
    for (line, reason) in [
        ("{\"op\":\"add\",\"path\":\"a\",\"hashes\":{}}", "an add needs its length"),
        ("{\"op\":\"add\",\"path\":\"a\",\"length\":1}", "an add needs its hashes"),
        (
            "{\"op\":\"add\",\"path\":\"a\",\"length\":1,\"hashes\":{\"sha256\":1}}",
            "hashes: expected an object of strings",
        ),
        (
            "{\"op\":\"add\",\"path\":\"a\",\"length\":1,\"hashes\":{\"s\":\"\",\"s\":\"\"}}",
            "the key \"s\" occurs twice",
        ),
        ("{\"op\":\"add\",\"path\":\"a\",\"length\":-1,\"hashes\":{}}", "expected u64"),
        ("{\"op\":\"move\",\"path\":\"a\"}", "expected \"add\" or \"remove\""),
        ("{\"op\":\"remove\",\"path\":\"a\",\"length\":1}", "a remove has a path and nothing else"),
        ("{\"op\":\"remove\",\"path\":\"a\",\"x\":1}", "unknown field `x`"),
        ("{\"op\":\"remove\",\"path\":\"a\",\"path\":\"b\"}", "duplicate field `path`"),
        ("[", "not JSON, one change a line: EOF while parsing"),
        ("a;1;sha256;00", "not JSON, one change a line: expected value at column 1"),
    ] {
        let found = message(Format::Jsonl, &format!("\n{line}\n"));
        assert!(found.starts_with("2: ") && found.contains(reason), "{found} for {line}");
    }
    assert!(message(Format::Jsonl, &" ".repeat(MAX_LINE + 1)).contains("longer than"));
    let deep = format!("{{\"custom\":{}", "[".repeat(100_000));
    assert!(message(Format::Jsonl, &deep).contains("recursion limit"));
}

#[test]
fn csv_takes_a_header_or_none_and_quoted_fields() {
    let lines = format!("a;1;sha256;{HASH}\n\n\"b;\"\"\";2;blake2b-256;00ff\n");
    let items = read(Format::Csv, &[lines.as_bytes()]).unwrap();
    assert_eq!(items[0], add("a", 1, HASH));
    assert_eq!(items[1].path(), "b;\"");
    let with_header = format!("\u{feff}path;length;hash-name;hash\r\n{lines}");
    assert_eq!(read(Format::Csv, &[with_header.as_bytes()]).unwrap(), items);
    for (line, reason) in [
        ("a;1;sha256", "found 3 fields"),
        ("a,1,sha256,00", "the separator is `;`, not a comma"),
        ("\"a\",1,sha256,00", "the separator is `;`, not a comma"),
        ("a;1;sha256;00;", "found 5 fields"),
        ("a;one;sha256;00", "\"one\" of a is not a number"),
        (";1;sha256;00", "the path is empty"),
        ("a;1;;00", "the hash of a has no name"),
        ("a;1;sha512;0G", "not a digest in lower hex"),
        ("\"a;1;sha512;00", "found 1 fields"),
    ] {
        let found = message(Format::Csv, &format!("path;length;hash-name;hash\n{line}\n"));
        assert!(found.starts_with("2: ") && found.contains(reason), "{found} for {line}");
    }
}

#[test]
fn what_is_no_text_is_told_apart() {
    let message = |bytes: &[u8]| read(Format::Csv, &[bytes]).unwrap_err().to_string();
    assert!(message(b"\x28\xb5\x2f\xfd\x04\x00").contains("file-0:1: this is zstd: unpack it first (gzip, xz and lz4"));
    assert!(message(b"\x7fELF\x02\x00").contains("file-0:1: this is no text"));
    assert!(message(&gzip(b"a\0b")).contains("file-0:1: this is no text"));
}

#[test]
fn a_directory_is_walked_in_order_and_links_are_left_out_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    std::fs::create_dir_all(root.join("b/empty")).unwrap();
    for name in ["c", "b/z", "b/a", "a+1.crate"] {
        std::fs::write(root.join(name), name).unwrap();
    }
    std::fs::write(root.join("none"), "").unwrap();
    std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
    let source = open(Format::Dir, &[root.to_str().unwrap().into()]).unwrap();
    let progress = source.progress();
    let items: Vec<Item> = source.map(Result::unwrap).collect();
    let paths: Vec<&str> = items.iter().map(Item::path).collect();
    assert_eq!(paths, ["a+1.crate", "b/a", "b/z", "c", "none"]);
    assert_eq!(items[4], add("none", 0, HASH));
    assert_eq!((progress.skipped(), progress.read(), progress.total()), (1, 16, None));

    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"b/\xff");
    std::fs::write(root.join(name), "").unwrap();
    let error = open(Format::Dir, &[root.to_str().unwrap().into()]).unwrap().last().unwrap().unwrap_err().to_string();
    assert!(error.contains("/b/") && error.contains("not UTF-8"), "{error}");
}

#[test]
fn inputs_that_are_not_there_are_refused_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let name = |n: &str| dir.path().join(n).to_str().unwrap().to_owned();
    for n in ["2.csv", "1.csv", "[x].csv"] {
        std::fs::write(name(n), format!("{n};1;sha256;{HASH}\n")).unwrap();
    }
    let paths = |args: &[String]| -> Vec<String> {
        open(Format::Csv, args).unwrap().map(|i| i.unwrap().path().to_owned()).collect()
    };
    assert_eq!(paths(&[name("?.csv")]), ["1.csv", "2.csv"]);
    assert_eq!(paths(&[name("[x].csv")]), ["[x].csv"], "a name that exists is no pattern");
    let refused = |format, args: &[String]| open(format, args).err().unwrap().to_string();
    assert!(refused(Format::Csv, &[name("1.csv"), name("*.gz")]).contains("matches nothing"));
    assert!(refused(Format::Csv, &[name("3.csv")]).contains("no such file"));
    assert!(refused(Format::Csv, &[name("***")]).contains("not a pattern"));
    assert!(refused(Format::Csv, &[name("")]).contains("a directory"));
    assert!(refused(Format::Dir, &[name("1.csv")]).contains("not a directory"));
    assert!(refused(Format::Dir, &["-".into()]).contains("standard input"));
    assert!(refused(Format::Csv, &["-".into(), "-".into()]).contains("only once"));
    assert!(refused(Format::Csv, &[]).contains("nothing to import"));
    let source = open(Format::Csv, &[name("1.csv"), name("2.csv")]).unwrap();
    let progress = source.progress();
    assert_eq!((source.count(), progress.read()), (2, progress.total().unwrap()));
}

fn chunks_of(items: &[Item], max: usize, salt: Option<&str>) -> Vec<chunk::Chunk> {
    let items = items.iter().cloned().map(Ok);
    chunk::chunks(items, max, salt.map(str::to_owned)).map(Result::unwrap).collect()
}

#[test]
fn the_same_changes_give_the_same_ids_and_a_salt_gives_new_ones() {
    let items: Vec<Item> = (0..25).map(|i| add(&format!("p{i}"), 1, HASH)).collect();
    let chunks = chunks_of(&items, 10, None);
    assert_eq!(chunks.iter().map(|c| c.len).collect::<Vec<_>>(), [10, 10, 5]);
    assert_eq!(chunks, chunks_of(&items, 10, None));
    assert_eq!(chunks[0], chunks_of(&items[..10], 10, None)[0], "a prefix of the import has the ids of its batches");
    let legal = |id: &str| id.len() <= 128 && id.bytes().all(|c| c.is_ascii_alphanumeric() || b"._:-".contains(&c));
    let ids: HashSet<String> = [chunks.clone(), chunks_of(&items, 10, Some("1")), chunks_of(&items, 9, None)]
        .concat()
        .into_iter()
        .map(|c| c.id)
        .collect();
    assert_eq!(ids.len(), 9);
    assert!(ids.iter().all(|id| legal(id)));
    let body: serde_json::Value = serde_json::from_slice(&chunks[2].body(Some(7))).unwrap();
    assert_eq!(body["id"], chunks[2].id.as_str());
    assert_eq!((&body["basis"], &body["changes"][4]["path"]), (&7.into(), &"p24".into()));
}

#[test]
fn chunks_meet_where_they_change_the_same_path() {
    let remove = |path: &str| Item::Remove { path: path.into() };
    let items = [add("a", 1, HASH), add("b", 1, HASH), remove("c"), remove("b"), add("d", 1, HASH), remove("a")];
    let chunks = chunks_of(&items, 2, None);
    assert_eq!(
        (chunks[0].meets(&chunks[1]), chunks[1].meets(&chunks[2]), chunks[2].meets(&chunks[0])),
        (true, false, true)
    );
}

#[test]
fn a_chunk_ends_before_it_is_too_large_and_at_an_error() {
    let big = |i: usize| Item::Remove { path: format!("{i}{}", "x".repeat(MAX_LINE)) };
    let items: Vec<Item> = (0..20).map(big).collect();
    let chunks = chunks_of(&items, 1_000, None);
    assert_eq!(chunks.iter().map(|c| c.len).collect::<Vec<_>>(), [15, 5]);
    assert!(chunks.iter().all(|c| c.body(None).len() <= chunk::MAX_BYTES + 200));

    let broken = items[..3].iter().cloned().map(Ok).chain([Err(Error::invalid("f:4", "broken"))]);
    let results: Vec<bool> = chunk::chunks(broken, 2, None).map(|c| c.is_ok()).collect();
    assert_eq!(results, [true, false]);
}

type Next<'a> = &'a mut dyn FnMut(&mut Lines) -> Result<Option<Item>>;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_make_a_reader_panic(
        head in prop::sample::select(vec![
            &b""[..], b"\x1f\x8b\x08", b"\xfd7zXZ\x00", b"\x04\x22\x4d\x18", b"\x02\x21\x4c\x18", b"\xef\xbb\xbf", b"Package: p\nSize: ",
            b"{\"op\":\"add\",\"path\":\"", b"path;length;hash-name;hash\na;1;",
        ]),
        tail in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\n\r:;\"{}[], #.09af".to_vec())], 0..300),
    ) {
        let bytes = [head, &tail].concat();
        let mut seen = debian::Seen::default();
        let (jsonl, csv, debian) = (&mut jsonl::next as Next, &mut csv::next as Next, &mut |l: &mut Lines| seen.next(l));
        for next in [jsonl, csv, debian] {
            let mut lines = Lines::of(&bytes);
            while let Ok(Some(item)) = next(&mut lines) {
                prop_assert!(serde_json::to_vec(&item).is_ok());
            }
        }
    }

    #[test]
    fn damaged_compressed_text_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>(), which in 0..3usize) {
        let text: String = (0..50).map(|i| stanza("p", &format!("pool/{i}.deb"), i, HASH)).collect();
        let mut bytes = [gzip, xz, lz4][which](text.as_bytes());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let (mut seen, mut lines) = (debian::Seen::default(), Lines::of(&bytes));
        while let Ok(Some(_)) = seen.next(&mut lines) {}
    }

    #[test]
    fn what_csv_and_debian_write_is_read_back(path in "[A-Za-z0-9._+~@=,/-]{1,40}", length in any::<u64>(), hash in "[0-9a-f]{64}") {
        prop_assume!(!path.starts_with("./"));
        let expected = [add(&path, length, &hash)];
        let csv = format!("{path};{length};sha256;{hash}");
        prop_assert_eq!(csv::next(&mut Lines::of(csv.as_bytes())).unwrap(), Some(expected[0].clone()));
        let text = stanza("p", &path, length, &hash);
        prop_assert_eq!(debian::Seen::default().next(&mut Lines::of(text.as_bytes())).unwrap(), Some(expected[0].clone()));
    }
}

/// Every path of a real index is in the safe set, and the stanzas are counted independently.
#[test]
fn this_machines_own_indexes_are_read_to_the_last_stanza() {
    let pattern = "/var/lib/apt/lists/*_Packages*";
    assert!(glob::glob(pattern).unwrap().next().is_some(), "no Debian index on this machine: `make setup` fetches it");
    let source = open(Format::Debian, &[pattern.into()]).unwrap();
    let progress = source.progress();
    let mut last: HashMap<String, Item> = HashMap::new();
    for item in source {
        let item = item.unwrap();
        assert!(item.path().bytes().all(|c| c.is_ascii_alphanumeric() || b"._+~@=,-/".contains(&c)), "{}", item.path());
        last.insert(item.path().to_owned(), item);
    }
    assert_eq!(Some(progress.read()), progress.total());

    let mut expected = HashSet::new();
    for input in input::expand(Format::Debian, &[pattern.into()]).unwrap() {
        let mut lines = input.lines(Arc::default()).unwrap();
        while let Some(line) = lines.next().unwrap() {
            if let Some(path) = line.strip_prefix(b"Filename: ") {
                expected.insert(String::from_utf8(path.to_vec()).unwrap());
            }
        }
    }
    println!("{} paths", expected.len());
    assert_eq!(last.len(), expected.len());
}
