//! Stock clients against a live server: python-tuf and tuf-js look up and download every kind of target, and follow
//! the repository with the cache they keep.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tuflog::bins::sha256;

use crate::help;
use crate::server::{self, Server};

/// A client that `tests/clients/setup.sh` has installed.
pub struct Client {
    name: &'static str,
    pub program: PathBuf,
    driver: PathBuf,
}

/// Both clients. The set-up does nothing when they are there; that it fails is a failure.
pub fn clients() -> [Client; 2] {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = source.join("tests/clients");
    let status = Command::new(tests.join("setup.sh")).status().expect("bash");
    assert!(status.success(), "the clients could not be installed: see above");
    let dir = std::env::var_os("TUFLOG_CLIENTS_DIR").map_or(source.join(".cache/clients"), PathBuf::from);
    [
        Client { name: "python-tuf", program: dir.join("venv/bin/python"), driver: tests.join("python_tuf.py") },
        Client { name: "tuf-js", program: dir.join("bin/node"), driver: tests.join("tuf_js.js") },
    ]
}

impl Client {
    /// Runs jobs with the cache that it keeps in `dir`; every one must be answered, and ok.
    fn run(&self, url: &str, root: &Path, dir: &Path, jobs: &[Value]) {
        let answers = self.answers(url, root, dir, jobs);
        let bad: Vec<&Value> = answers.iter().filter(|a| a["ok"] != true).collect();
        assert!(bad.is_empty(), "{}: {bad:#?}", self.name);
        assert_eq!(answers.len(), jobs.len(), "{}", self.name);
    }

    /// Runs jobs, and gives every answer, good or bad; the client's exit code is that of its answers.
    pub fn answers(&self, url: &str, root: &Path, dir: &Path, jobs: &[Value]) -> Vec<Value> {
        let cache = dir.join(self.name);
        let mut child = Command::new(&self.program)
            .arg(&self.driver)
            .args([format!("{url}/metadata/"), format!("{url}/targets/")])
            .args([root, &cache])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the client starts");
        let lines: String = jobs.iter().map(|j| format!("{j}\n")).collect();
        let mut stdin = child.stdin.take().expect("piped");
        let feeder = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
        let out = child.wait_with_output().expect("its end");
        feeder.join().expect("no panic").expect("it reads its jobs");
        let said = String::from_utf8_lossy(&out.stdout);
        let answers: Vec<Value> = said.lines().map(|l| serde_json::from_str(l).expect("a JSON line")).collect();
        let all_ok = answers.iter().all(|a| a["ok"] == true);
        assert_eq!(out.status.code(), Some(i32::from(!all_ok)), "{}: {said}", self.name);
        answers
    }
}

/// A python-tuf client that keeps its cache and refreshes again and again, from a plain file server over the store.
pub struct Follower {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Follower {
    pub fn start(root: &Path, published: &Path, scratch: &Path) -> Follower {
        let [python, _] = clients();
        let (stop, root, published) = (Arc::new(AtomicBool::new(false)), root.to_owned(), published.to_owned());
        let (until, cache) = (stop.clone(), scratch.join("follower"));
        let thread = std::thread::spawn(move || {
            let files = Files::with(&python.program, &published);
            let url = files.url();
            let mut child = Command::new(&python.program)
                .arg(&python.driver)
                .args([format!("{url}/metadata/"), format!("{url}/targets/")])
                .args([&root, &cache])
                .arg("--fresh-each")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("the client starts");
            let (mut jobs, answers) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
            let (mut answers, mut count) = (BufReader::new(answers), 0);
            while !until.load(Ordering::SeqCst) {
                writeln!(jobs, "{}", json!({"path": format!("absent/{count}"), "want": null})).expect("it reads");
                let mut line = String::new();
                answers.read_line(&mut line).expect("its answer");
                let answer: Value = serde_json::from_str(&line).expect("a JSON line");
                assert_eq!(answer["ok"], true, "refresh {count}: {answer}");
                count += 1;
            }
            drop(jobs);
            child.wait().expect("its end");
            count
        });
        Follower { stop, thread }
    }

    /// Ends it; answers how often it refreshed. That it met an error fails the test.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the client followed without an error")
    }
}

/// A plain file server over a directory, as long as this lives.
pub struct Files {
    child: Child,
    url: String,
}

impl Files {
    pub fn serve(dir: &Path) -> Files {
        let [python, _] = clients();
        Files::with(&python.program, dir)
    }

    fn with(python: &Path, dir: &Path) -> Files {
        let mut child = Command::new(python)
            .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"])
            .arg(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a file server");
        let mut said = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut said).expect("its port");
        let port = said.split_whitespace().skip_while(|w| *w != "port").nth(1).expect("its port").to_owned();
        Files { child, url: format!("http://127.0.0.1:{port}") }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may be gone
        let _ = self.child.wait();
    }
}

/// Both clients find at each path what is wanted there: length and sha256, or nothing.
pub fn resolves(url: &str, root: &Path, dir: &Path, jobs: &[(String, Value)]) {
    let jobs: Vec<Value> = jobs.iter().map(|(path, want)| json!({"path": path, "want": want})).collect();
    for client in &clients() {
        client.run(url, root, dir, &jobs);
    }
}

/// Target files in a directory, and what the repository says about each.
struct Targets {
    dir: PathBuf,
    want: BTreeMap<String, Option<Value>>,
}

impl Targets {
    fn put(&mut self, path: &str, content: &[u8], custom: Option<Value>) -> Value {
        let file = self.dir.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
        let digest = hex::encode(sha256(content));
        self.want.insert(path.into(), Some(json!({"length": content.len(), "sha256": digest})));
        let mut change = json!({"op": "add", "path": path, "length": content.len(), "hashes": {"sha256": digest}});
        if let Some(custom) = custom {
            change["custom"] = custom;
        }
        change
    }

    fn remove(&mut self, path: &str) -> Value {
        self.want.insert(path.into(), None);
        json!({"op": "remove", "path": path})
    }

    fn jobs(&self) -> Vec<Value> {
        self.want.iter().map(|(path, want)| json!({"path": path, "want": want, "download": true})).collect()
    }
}

fn publish(server: &Server, changes: Vec<Value>) {
    let file = help::scratch();
    let path = file.path().join("changes.jsonl");
    std::fs::write(&path, changes.iter().map(|c| format!("{c}\n")).collect::<String>()).unwrap();
    let path = path.to_str().unwrap();
    server::run(&["import", "--server", &server.url(), "--format", "jsonl", "--wait", "published", path]);
}

#[test]
fn stock_clients_download_every_kind_of_target_and_follow_the_repository() {
    let clients = clients();
    let scratch = help::scratch();
    let data = scratch.path().join("data");
    let mut targets = Targets { dir: scratch.path().join("targets"), want: BTreeMap::new() };
    std::fs::create_dir(&targets.dir).unwrap();
    server::init(&data, &["--bins", "64", "--partitions", "4", "--root-keys", "3", "--root-threshold", "2"]);
    let served = targets.dir.to_str().unwrap().to_owned();
    let server = Server::start(&data, &["--targets", &served]);
    let root = data.join("root.json");

    let custom = json!({
        "text": "é 😀 \u{FFFD} \" \\ / <&> \u{2028}", "list": [null, true, false, [], {}, -9007199254740991i64],
        "A": 1, "a": 2, "a.b": {"a:b": 9007199254740991u64, "_": {}}, "10": "ten", "9": "nine", "__proto__": "plain",
    });
    let long = format!("{}/{}", "d".repeat(200), "e".repeat(200));
    let mut changes = vec![
        targets.put("empty", b"", None),
        targets.put("hello.txt", b"hello\n", None),
        targets.put("with/custom", b"1", Some(custom)),
        targets.put("chars/A-Z_a.z+0~9@=,-", b"2", Some(json!({"a": 0}))),
        targets.put("10", b"a path that is a number", None),
        targets.put("f.txt", b"3", None),
        targets.put("f.txt-b", b"4", None),
        targets.put(&long, b"5", None),
        targets.put("large", &vec![7; 3 << 20], None),
        targets.put("gone/soon", b"6", None),
    ];
    changes.extend((0..300).map(|i| targets.put(&format!("many/{i}"), format!("{i}").as_bytes(), None)));
    targets.want.insert("never/there".into(), None);
    publish(&server, changes);
    for client in &clients {
        client.run(&server.url(), &root, scratch.path(), &targets.jobs());
    }

    for round in 0..3 {
        let mut changes = vec![
            targets.put("hello.txt", format!("hello {round}\n").as_bytes(), None),
            targets.put(&format!("new/{round}"), b"new", None),
            targets.remove(if round == 0 { "gone/soon" } else { "absent/anyway" }),
        ];
        changes.extend((0..20).map(|i| targets.remove(&format!("many/{}", round * 20 + i))));
        publish(&server, changes);
        for client in &clients {
            client.run(&server.url(), &root, scratch.path(), &targets.jobs());
        }
    }
    server.stop();
    server::run(&["audit", "--data", data.to_str().unwrap()]);
}
