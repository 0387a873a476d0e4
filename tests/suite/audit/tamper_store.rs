//! The tamper suite for what is stored: every kind of object, and the files of the log itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tuflog::clock::ManualClock;
use tuflog::log::embedded::EmbeddedLog;

use super::repository::{Changed, START, replay_dir};
use super::tamper::{DataDir, Found, check, data_dir};
use crate::server;

fn audit(data: &DataDir) -> std::process::Command {
    server::command(&["audit", "--data", data.path()])
}

/// The bytes with a digit behind some text made another.
fn flipped(bytes: &[u8], behind: &str) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let from = memchr::memmem::find(&bytes, behind.as_bytes()).unwrap_or_else(|| panic!("no {behind}")) + behind.len();
    let digit = (from..bytes.len()).find(|i| bytes[*i].is_ascii_digit()).unwrap();
    bytes[digit] ^= 1;
    bytes
}

#[test]
fn every_kind_of_object() {
    let data = data_dir();
    let store = data.dir.path().join("store");
    let bin = format!("metadata/{}", data.bin_of_cut(2));
    let role = bin.split_once('.').unwrap().1;
    let read = |name: &str| fs::read(store.join(name)).unwrap();
    // An object, another of its role, and a name that no cut gives to one.
    let objects = [
        ("metadata/1.root.json".to_owned(), "metadata/2.root.json".to_owned(), "metadata/7.root.json".to_owned()),
        ("metadata/1.targets.json".into(), "metadata/8.targets.json".into(), "metadata/3.targets.json".into()),
        ("metadata/3.snapshot.json".into(), "metadata/2.snapshot.json".into(), "metadata/99.snapshot.json".into()),
        (bin.clone(), format!("metadata/1.{role}"), format!("metadata/99.{role}")),
        ("ledger/4.state.json".into(), "ledger/2.state.json".into(), "ledger/3.state.json".into()),
        ("ledger/4.ids.jsonl".into(), "ledger/2.ids.jsonl".into(), "ledger/3.ids.jsonl".into()),
    ];
    let mut bad = Vec::new();
    let mut with = |what: &str, name: &str, bytes: Option<Vec<u8>>, damage: &'static str| {
        let changed = Changed::file(&store.join(name), bytes.as_deref());
        let place: &'static str = name.to_owned().leak();
        bad.extend(check((what, name), Found(damage, place), &mut audit(&data)).err());
        drop(changed);
    };
    for (name, other, stray) in &objects {
        let file = read(name);
        with("truncated", name, Some(file[..file.len() / 2].to_vec()), "object_altered");
        with("emptied", name, Some(vec![]), "object_altered");
        with("removed", name, None, "object_missing");
        with("replaced by another version", name, Some(read(other)), "object_altered");
        with("added", stray, Some(file.clone()), "object_added");
        if name.starts_with("metadata/") {
            with("flipped in what is signed", name, Some(flipped(&file, "\"spec_version\":\"")), "object_altered");
            with("flipped in expires", name, Some(flipped(&file, "\"expires\":\"")), "wrong_expiry");
            with("flipped in a signature", name, Some(flipped(&file, "\"sig\":\"")), "bad_signature");
        } else {
            with("flipped", name, Some(flipped(&file, "")), "object_altered");
        }
    }
    let name = "metadata/timestamp.json";
    let file = read(name);
    with("flipped in what is signed", name, Some(flipped(&file, "\"length\":")), "object_altered");
    with("flipped in expires", name, Some(flipped(&file, "\"expires\":\"")), "wrong_expiry");
    with("flipped in a signature", name, Some(flipped(&file, "\"sig\":\"")), "bad_signature");
    with("flipped in the version", name, Some(flipped(&file, "\"version\":1")), "object_altered");
    with("truncated", name, Some(file[..file.len() / 2].to_vec()), "object_altered");
    with("removed", name, None, "object_missing");
    with("a stranger", "metadata/note.txt", Some(b"x".to_vec()), "object_added");
    assert!(bad.is_empty(), "{} of them:\n{}", bad.len(), bad.join("\n"));
}

/// Files of the log's directory that hold no record and are not read, or not needed.
fn holds_nothing(name: &str) -> bool {
    name.starts_with("LOG") || name.starts_with("OPTIONS") || ["LOCK", "IDENTITY"].contains(&name)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).filter(|f| f.is_file()).collect();
    all.sort();
    all
}

#[test]
fn bytes_of_the_logs_own_files() {
    let data = data_dir();
    let dir = data.dir.path().join("log");
    let mut bad = Vec::new();
    // In the write-ahead log as a killed node leaves them, then in tables.
    for opened_again in [false, true] {
        if opened_again {
            drop(EmbeddedLog::open(&dir, Arc::new(ManualClock::new(START))).unwrap());
        }
        for path in files(&dir) {
            let (name, bytes) = (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap());
            for at in (0..7).map(|i| bytes.len() * i / 7).filter(|at| *at < bytes.len()) {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1;
                let changed = Changed::file(&path, Some(&flipped));
                let out = audit(&data).arg("--scratch").arg(replay_dir()).output().unwrap();
                drop(changed);
                let code = out.status.code();
                let good = if holds_nothing(&name) { code == Some(0) } else { matches!(code, Some(1 | 4)) };
                if !good {
                    bad.push(format!("{name}, byte {at} of {}: exit {code:?}: {}", bytes.len(), server::said(&out)));
                }
            }
        }
    }
    assert!(bad.is_empty(), "{} of them:\n{}", bad.len(), bad.join("\n"));
    assert_eq!(audit(&data).arg("--scratch").arg(replay_dir()).output().unwrap().status.code(), Some(0), "mended");
}
