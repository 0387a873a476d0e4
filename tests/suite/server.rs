//! The real binary as the tests start it: init, serve on a free port, stop, kill; and what it has published.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::help::PATIENCE;

/// The binary under test.
pub const TUFLOG: &str = env!("CARGO_BIN_EXE_tuflog");

/// The binary with arguments, and nothing of the outer environment that could change what it does.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(TUFLOG);
    let changes = |name: &str| name.starts_with("TUFLOG_") || name.starts_with("AWS_");
    let own = std::env::vars_os().map(|(k, _)| k).filter(|k| changes(&k.to_string_lossy()));
    for name in own {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs the binary to its end; a failure fails the test with what it said.
pub fn run(args: &[&str]) -> String {
    let out = command(args).output().expect("the binary runs");
    assert!(out.status.success(), "tuflog {}: {}\n{}", args.join(" "), out.status, said(&out));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// What it wrote to both.
pub fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

/// A repository in `data`.
pub fn init(data: &Path, options: &[&str]) {
    run(&[&["init", "--data", data.to_str().expect("a path in UTF-8")], options].concat());
}

/// A `tuflog serve` on a free port.
pub struct Server {
    child: Mutex<Child>,
    url: String,
    started: Instant,
    started_in: Duration,
    data: PathBuf,
    log: PathBuf,
}

impl Server {
    /// Starts it on `data` and waits until it is ready.
    pub fn start(data: &Path, options: &[&str]) -> Server {
        Server::start_with(data, options, &[])
    }

    /// The same with variables of the environment.
    pub fn start_with(data: &Path, options: &[&str], variables: &[(&str, &str)]) -> Server {
        let mut server = Server::spawn(data, options, variables);
        server.started_in = server.wait_ready();
        server.url = server.found_url().expect("it is ready");
        server
    }

    /// Starts it and waits for nothing. On a free port, unless the options say where it listens.
    pub fn spawn(data: &Path, options: &[&str], variables: &[(&str, &str)]) -> Server {
        let data_text = data.to_str().expect("a path in UTF-8");
        let log = data.with_extension("serve.log");
        let file = std::fs::File::options().create(true).append(true).open(&log).expect("a file for its log");
        let listen: &[&str] = if options.contains(&"--listen") { &[] } else { &["--listen", "127.0.0.1:0"] };
        let args = [&["serve", "--data", data_text], listen, options].concat();
        let _ = std::fs::remove_file(data.join("http.addr")); // of one that was killed
        let mut serve = command(&args);
        serve.envs(variables.iter().copied()).stdout(file.try_clone().expect("a file")).stderr(file);
        let child = Mutex::new(serve.spawn().expect("the binary runs"));
        Server {
            child,
            url: String::new(),
            started: Instant::now(),
            started_in: Duration::ZERO,
            data: data.into(),
            log,
        }
    }

    /// Waits until it is ready; answers how long that took from its start.
    pub fn wait_ready(&self) -> Duration {
        while self.started.elapsed() < PATIENCE {
            assert!(!self.has_ended(), "serve ended at once:\n{}", self.said());
            if self.found_url().is_some() && self.get("/readyz").is_some_and(|(status, _)| status == 200) {
                return self.started.elapsed();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("serve did not become ready:\n{}", self.said());
    }

    /// Where it says that it answers.
    pub fn found_url(&self) -> Option<String> {
        let addr = std::fs::read_to_string(self.data.join("http.addr")).ok()?;
        Some(format!("http://{}", addr.trim()))
    }

    /// Whether the process has come to an end.
    pub fn has_ended(&self) -> bool {
        self.child.lock().unwrap().try_wait().expect("its state").is_some()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child.lock().unwrap());
        rustix::process::kill_process(pid, signal).expect("it was alive");
    }

    /// A GET without anything clever: status and body.
    pub fn get(&self, path: &str) -> Option<(u16, Vec<u8>)> {
        use std::io::{Read, Write};
        let url = self.found_url()?;
        let addr = url.strip_prefix("http://")?;
        let mut stream = std::net::TcpStream::connect(addr).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n").ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        let status = std::str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok()?;
        Some((status, bytes[end + 4..].to_vec()))
    }

    /// `http://HOST:PORT`.
    pub fn url(&self) -> String {
        match self.url.is_empty() {
            true => self.found_url().expect("it answers"),
            false => self.url.clone(),
        }
    }

    /// From start to ready.
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// What it wrote, over all its lives.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills it with -9.
    pub fn kill(self) {
        let mut child = self.child.lock().unwrap();
        child.kill().expect("it was alive");
        child.wait().expect("its end");
    }

    /// Asks it to stop, and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        let start = Instant::now();
        loop {
            match self.child.lock().unwrap().try_wait().expect("its state") {
                Some(status) => return status,
                None if start.elapsed() > PATIENCE => panic!("it does not stop:\n{}", self.said()),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Stops it; it must end well.
    pub fn stop(mut self) {
        let status = self.terminate();
        assert_eq!(status.code(), Some(0), "{}", self.said());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// What the store of a stopped node publishes, read as JSON from timestamp over snapshot to bins: path → length.
pub fn published(store: &Path) -> BTreeMap<String, u64> {
    let read = |name: String| -> Value {
        let path = store.join("metadata").join(name);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_slice(&bytes).unwrap()
    };
    let timestamp = read("timestamp.json".into());
    let snapshot = read(format!("{}.snapshot.json", timestamp["signed"]["meta"]["snapshot.json"]["version"]));
    let mut all = BTreeMap::new();
    for (role, meta) in snapshot["signed"]["meta"].as_object().unwrap() {
        let file = read(format!("{}.{role}", meta["version"]));
        for (path, target) in file["signed"]["targets"].as_object().unwrap() {
            all.insert(path.clone(), target["length"].as_u64().unwrap());
        }
    }
    all
}
