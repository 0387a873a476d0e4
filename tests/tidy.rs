//! The rules of the source tree, held by a test: who may import whom, where what may be named, how long a file is.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, in the order in which `lib.rs` lists them: a room imports only itself and what stands above it.
const ROOMS: [&str; 24] = [
    "error", "clock", "pool", "config", "tuf", "bins", "change", "log", "ledger", "store", "intake", "fold", "recover",
    "compact", "query", "audit", "data_dir", "http", "client", "bench", "node", "doctor", "cli", "main",
];

/// The longest file, in lines.
const MAX_LINES: usize = 420;

/// What only some files may name.
const CONFINED: [(&str, &[&str]); 9] = [
    ("rdkafka", &["log/kafka"]),
    ("rocksdb", &["log/embedded", "fold/state"]),
    ("object_store", &["store/s3"]),
    ("ed25519_dalek", &["tuf/key"]),
    ("SystemTime", &["clock.rs"]),
    ("Instant::now", &["clock.rs", "store/s3/retry", "http", "node", "cli", "audit"]),
    ("tokio::spawn", &["node", "http"]),
    ("thread::spawn", &["node", "log/embedded"]),
    ("fastrand", &["log/memory", "node", "http", "client", "bench", "cli"]),
];

struct Source {
    /// Below src, such as `fold/state.rs`.
    name: String,
    text: String,
}

impl Source {
    fn room(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn is_test(&self) -> bool {
        self.name.ends_with("tests.rs") || self.name.contains("/tests/")
    }

    /// The lines of code, numbered: no comments, nothing from a module's tests on.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(i, l)| (i + 1, l));
        let code = lines.take_while(|(_, l)| !l.starts_with("#[cfg(test)]"));
        code.filter(|(_, l)| !l.trim_start().starts_with("//"))
    }
}

fn sources() -> Vec<Source> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(&path, out),
                false => out.push(path),
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&src, &mut paths);
    paths.sort();
    let name = |p: &Path| p.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
    let rust = paths.iter().filter(|p| p.extension().is_some_and(|e| e == "rs"));
    rust.map(|p| Source { name: name(p), text: fs::read_to_string(p).unwrap() }).collect()
}

fn complain(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_room_imports_only_what_stands_above_it() {
    let rank = |room: &str| ROOMS.iter().position(|r| *r == room);
    let mut found = Vec::new();
    for s in sources().iter().filter(|s| s.room() != "lib") {
        let Some(own) = rank(s.room()) else {
            found.push(format!("src/{}: room {:?} is not in the list", s.name, s.room()));
            continue;
        };
        for (line, text) in s.code() {
            for used in text.split("crate::").skip(1).map(|rest| rest.trim_start_matches('{')) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if rank(&used).is_some_and(|r| r > own) {
                    found.push(format!("src/{}:{line}: {} imports {used}, which stands below it", s.name, s.room()));
                }
            }
        }
    }
    complain(found);
}

#[test]
fn what_is_confined_is_named_only_where_it_belongs() {
    let mut found = Vec::new();
    for s in sources().iter().filter(|s| !s.is_test()) {
        for (line, text) in s.code() {
            for (word, places) in CONFINED {
                if text.contains(word) && !places.iter().any(|p| s.name.starts_with(p)) {
                    found.push(format!("src/{}:{line}: {word} may be named only in {}", s.name, places.join(", ")));
                }
            }
        }
    }
    complain(found);
}

#[test]
fn every_file_is_short_and_says_what_it_is() {
    let mut found = Vec::new();
    for s in sources().iter().filter(|s| !s.is_test()) {
        let lines = s.text.lines().count();
        if lines > MAX_LINES {
            found.push(format!("src/{}: {lines} lines, at most {MAX_LINES}", s.name));
        }
        if !s.text.starts_with("//! ") {
            found.push(format!("src/{}: does not begin with module docs", s.name));
        }
    }
    complain(found);
}

#[test]
fn no_stub_is_left() {
    let mut found = Vec::new();
    for s in sources() {
        for (line, text) in s.code() {
            for stub in ["todo!(", "unimplemented!(", "dbg!("] {
                if text.contains(stub) {
                    found.push(format!("src/{}:{line}: {stub}", s.name));
                }
            }
        }
    }
    complain(found);
}
