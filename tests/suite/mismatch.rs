//! Log, store, state and keys that cannot belong together, as a wrong restore or a missing volume leaves them: the node
//! refuses to start, says what is wrong and what to do, changes nothing, and goes on once that is mended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::help::scratch;
use crate::server::{self, Server};

/// A repository, and a copy of it from before its last batch.
struct Pair {
    dir: TempDir,
}

impl Pair {
    fn new() -> Pair {
        let pair = Pair { dir: scratch() };
        server::init(&pair.data(), &["--bins", "4", "--partitions", "2"]);
        for name in ["one", "two"] {
            let node = Server::start(&pair.data(), &[]);
            let hash = "ab".repeat(32);
            let url = node.url();
            server::run(&["add", name, "--length", "1", "--sha256", &hash, "--wait", "published", "--server", &url]);
            node.stop();
            if name == "one" {
                copy(&pair.data(), &pair.older());
            }
        }
        pair
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn older(&self) -> PathBuf {
        self.dir.path().join("older")
    }

    /// Puts `part` of `from` in place; the one that was there is answered.
    fn swap(&self, from: &Path, part: &str) -> PathBuf {
        let aside = self.dir.path().join("aside").join(part);
        fs::create_dir_all(aside.parent().unwrap()).unwrap();
        fs::rename(self.data().join(part), &aside).unwrap();
        if from.join(part).exists() {
            copy(&from.join(part), &self.data().join(part));
        }
        aside
    }

    /// Serve must end at once with `code` and say all of `words`, and leave log and store as they are.
    fn refused(&self, code: i32, words: &[&str]) {
        let parts = || ["log", "store"].map(|part| files(&self.data().join(part)));
        let [log, store] = parts();
        let data = self.data();
        let args = ["serve", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        let out = Command::new("timeout").arg("60").arg(server::TUFLOG).args(args).output().expect("timeout");
        let said = server::said(&out);
        assert_eq!(out.status.code(), Some(code), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?} in: {said}");
        let [log_after, store_after] = parts();
        assert_eq!(store, store_after, "{said}");
        // RocksDB may write its write-ahead log to a new file as it opens.
        assert!(log.iter().all(|file| log_after.contains(file)), "{log:?} {log_after:?} {said}");
    }

    /// All is well: it serves, both targets are published, the audit is clean.
    fn is_well(&self) {
        Server::start(&self.data(), &[]).stop();
        let published = server::published(&self.data().join("store"));
        assert_eq!(published.keys().collect::<Vec<_>>(), ["one", "two"]);
        server::run(&["audit", "--data", self.data().to_str().unwrap()]);
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().expect("cp");
    assert!(copied.success());
}

/// The data files below a folder with their sizes; not what RocksDB writes about itself at every open.
fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let entry = entry.unwrap();
        let (path, size) = (entry.path(), entry.metadata().unwrap().len());
        match path.is_dir() {
            true => all.extend(files(&path)),
            false if ["sst", "blob", "json", "jsonl"].iter().any(|e| path.extension().is_some_and(|x| x == *e)) => {
                all.push((path, size));
            }
            false => {}
        }
    }
    all.sort();
    all
}

#[test]
fn a_log_that_lost_a_file_is_not_begun_anew() {
    let pair = Pair::new();
    let (current, aside) = (pair.data().join("log/CURRENT"), pair.dir.path().join("CURRENT"));
    fs::rename(&current, &aside).unwrap();
    pair.refused(4, &["CURRENT is missing", "backup"]);
    fs::rename(&aside, &current).unwrap();
    pair.is_well();
}

#[test]
fn a_log_older_than_its_store_is_refused() {
    let pair = Pair::new();
    let newer = pair.swap(&pair.older(), "log");
    pair.refused(4, &["timestamp.json is version", "records are missing"]);
    fs::remove_dir_all(pair.data().join("log")).unwrap();
    fs::create_dir(pair.data().join("log")).unwrap();
    pair.refused(4, &["the log is empty and the store is not"]);
    fs::remove_dir_all(pair.data().join("log")).unwrap();
    fs::rename(newer, pair.data().join("log")).unwrap();
    pair.is_well();
}

#[test]
fn a_store_older_than_its_log_is_refused() {
    let pair = Pair::new();
    let newer = pair.swap(&pair.older(), "store");
    pair.refused(4, &["the ledger ends at checkpoint", "the store does not hold it"]);
    fs::remove_dir_all(pair.data().join("store")).unwrap();
    fs::rename(newer, pair.data().join("store")).unwrap();
    pair.is_well();
}

#[test]
fn a_pointer_that_cannot_be_read_may_be_removed() {
    let pair = Pair::new();
    let pointer = pair.data().join("store/metadata/timestamp.json");
    let right = fs::read(&pointer).unwrap();
    fs::write(&pointer, "{").unwrap();
    pair.refused(4, &["timestamp.json", "remove it and start again"]);
    fs::remove_file(&pointer).unwrap();
    pair.is_well();
    assert_eq!(fs::read(&pointer).unwrap(), right, "it follows from the ledger");
}

#[test]
fn a_damaged_bin_state_may_be_removed() {
    let pair = Pair::new();
    let state = pair.data().join("state");
    let manifest = fs::read_dir(&state).unwrap().map(|e| e.unwrap().path());
    let manifest = manifest.into_iter().find(|p| p.file_name().unwrap().to_string_lossy().starts_with("MANIFEST"));
    fs::remove_file(manifest.unwrap()).unwrap();
    pair.refused(4, &["bin state", "remove", state.to_str().unwrap()]);
    fs::remove_dir_all(&state).unwrap();
    pair.is_well();
}

#[test]
fn a_bin_state_of_another_history_is_refused() {
    let pair = Pair::new();
    // From the same beginning another history, as long: no position tells them apart.
    let branch = pair.dir.path().join("branch");
    copy(&pair.older(), &branch);
    let node = Server::start(&branch, &[]);
    let (url, hash) = (node.url(), "cd".repeat(32));
    for name in ["two", "three"] {
        server::run(&["add", name, "--length", "2", "--sha256", &hash, "--wait", "published", "--server", &url]);
    }
    node.stop();
    for part in ["log", "store"] {
        pair.swap(&branch, part);
    }
    pair.refused(4, &["bin state is of another ledger", "remove DIR/state"]);
    fs::remove_dir_all(pair.data().join("state")).unwrap();
    Server::start(&pair.data(), &[]).stop();
    let published = server::published(&pair.data().join("store"));
    assert_eq!(published, [("one".to_owned(), 1), ("three".to_owned(), 2), ("two".to_owned(), 2)].into());
    server::run(&["audit", "--data", pair.data().to_str().unwrap()]);
}

#[test]
fn keys_of_another_repository_are_refused_at_the_start() {
    let pair = Pair::new();
    let other = pair.dir.path().join("other");
    server::init(&other, &["--bins", "4", "--partitions", "2"]);
    let own = pair.swap(&other, "keys");
    pair.refused(2, &["keys", "is missing: put its PEM file"]);
    fs::remove_dir_all(pair.data().join("keys")).unwrap();
    fs::rename(own, pair.data().join("keys")).unwrap();
    pair.is_well();
}
