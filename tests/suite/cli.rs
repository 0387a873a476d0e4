//! The real binary, as people and scripts see it: exit codes, messages, files, and a server on a free port.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::help::{PATIENCE, scratch};
use crate::server::{Server, command, run as good};

pub fn run(args: &[&str]) -> Output {
    command(args).output().expect("the binary runs")
}

pub fn stdout(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

pub fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Runs to this exit code, and gives stderr.
#[track_caller]
pub fn bad(code: i32, args: &[&str]) -> String {
    let out = run(args);
    assert_eq!(out.status.code(), Some(code), "{args:?}\n{}{}", stdout(&out), stderr(&out));
    let text = stderr(&out);
    assert!(!text.contains("panicked"), "{text}");
    text
}

pub fn json(args: &[&str]) -> Value {
    serde_json::from_str(&good(args)).expect("one JSON document")
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A repository of 16 bins in a fresh directory.
pub fn repository() -> (TempDir, String) {
    let dir = scratch();
    let data = text(&dir.path().join("repo")).to_owned();
    good(&["init", "--data", &data, "--bins", "16", "--partitions", "2"]);
    (dir, data)
}

#[test]
fn init_makes_keys_for_their_owner_alone_and_says_what_is_next() {
    let dir = scratch();
    let data = dir.path().join("a/repo");
    let said = good(&["init", "--data", text(&data), "--root-keys", "3", "--root-threshold", "2"]);
    assert!(
        said.contains("tuflog serve --data") && said.contains("2 of 3 keys") && said.contains("root.json"),
        "{said}"
    );
    let mode = |name: &str| fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("keys"), 0o700);
    for key in ["root-1", "root-2", "root-3", "online"] {
        assert_eq!(mode(&format!("keys/{key}.pem")), 0o600, "{key}");
    }
    for name in ["log", "state", "store", "tuflog.toml", "root.json", "lock"] {
        assert!(data.join(name).exists(), "{name}");
    }
    assert!(!data.join("init").exists());
    let root: Value = serde_json::from_slice(&fs::read(data.join("root.json")).unwrap()).unwrap();
    assert_eq!((&root["signed"]["version"], &root["signed"]["roles"]["root"]["threshold"]), (&1.into(), &2.into()));
    assert_eq!(root["signatures"].as_array().unwrap().len(), 3);
}

#[test]
fn init_never_touches_what_is_there() {
    let (dir, data) = repository();
    let key = || fs::read(Path::new(&data).join("keys/root-1.pem")).unwrap();
    let before = key();
    assert!(bad(1, &["init", "--data", &data]).contains("is a repository already"));
    assert!(good(&["init", "--data", &data, "--if-absent"]).contains("is a repository already"));
    assert_eq!(key(), before);

    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("thesis.tex"), "x").unwrap();
    assert!(bad(2, &["init", "--data", text(&other)]).contains("thesis.tex"));
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
}

#[test]
fn an_init_that_was_cut_off_is_completed_by_the_next() {
    let dir = scratch();
    let data = dir.path().join("repo");
    // As a kill between the first key and the second leaves it, the second half written.
    fs::create_dir_all(data.join("keys")).unwrap();
    fs::write(data.join("init"), "--bins 256 --partitions 4 --root-keys 2 --root-threshold 1\n").unwrap();
    fs::write(data.join("keys/online.pem"), "-----BEGIN").unwrap();
    fs::set_permissions(data.join("keys/online.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(bad(2, &["serve", "--data", text(&data)]).contains("did not finish"));
    assert!(bad(2, &["init", "--data", text(&data), "--bins", "16"]).contains("--bins 256"));
    good(&["init", "--data", text(&data)]);
    assert!(bad(1, &["init", "--data", text(&data)]).contains("already"));
    // As a kill just before its last step leaves it: nothing is made twice.
    let root = fs::read(data.join("root.json")).unwrap();
    fs::write(data.join("init"), "--bins 256 --partitions 4 --root-keys 2 --root-threshold 1\n").unwrap();
    fs::remove_file(data.join("root.json")).unwrap();
    good(&["init", "--data", text(&data)]);
    assert_eq!(fs::read(data.join("root.json")).unwrap(), root);
}

#[test]
fn impossible_options_are_usage() {
    let dir = scratch();
    let data = text(&dir.path().join("repo")).to_owned();
    assert!(bad(2, &["init", "--data", &data, "--bins", "3"]).contains("--bins: must be a power of two"));
    assert!(bad(2, &["init", "--data", &data, "--bins", "4", "--partitions", "8"]).contains("--partitions"));
    assert!(bad(2, &["init", "--data", &data, "--root-threshold", "3"]).contains("3 of 2 keys"));
    assert!(!Path::new(&data).exists());
    bad(2, &["frobnicate"]);
    bad(2, &[]);
    for args in [&["add", "a"][..], &["add", "a", "--length", "1"], &["add", "a", "--sha256", "00"]] {
        assert!(bad(2, args).contains("either --file FILE, or --length N with --sha256 HEX"));
    }
    let said = bad(2, &["add", "a", "--file", "f", "--length", "1"]);
    assert!(said.contains("PATH --file FILE\n") && said.contains("PATH --length N --sha256 HEX\n"), "{said}");
    bad(2, &["checkpoints", "7", "--limit", "3"]);
    bad(2, &["checkpoints", "7", "--before", "3"]);
    assert!(bad(2, &["add", "../a", "--file", "/dev/null"]).contains("PATH"));
    assert!(bad(2, &["remove", "a", "--batch-id", "a b"]).contains("--batch-id"));
    assert!(bad(2, &["status", "--data", &data]).contains("tuflog init --data"));
    assert!(bad(2, &["serve", "--data", &data]).contains("tuflog init --data"));
}

#[test]
fn a_setting_that_does_not_exist_is_refused_with_the_nearest() {
    let (_dir, data) = repository();
    let config = Path::new(&data).join("tuflog.toml");
    fs::write(&config, "lisen = \"127.0.0.1:0\"\n").unwrap();
    let said = bad(2, &["serve", "--data", &data]);
    assert!(said.contains("tuflog.toml") && said.contains("did you mean `listen`?"), "{said}");
    assert!(said.contains(&format!("{}: lisen: is not a setting", text(&config))), "{said}");
    fs::write(&config, "listen = = 1\n").unwrap();
    let said = bad(2, &["serve", "--data", &data]);
    assert!(said.contains(&format!("{}: TOML parse error at line 1", text(&config))), "{said}");
    let said = bad(2, &["serve", "--data", &data, "--config", "/absent.toml"]);
    assert!(said.contains("/absent.toml"), "{said}");
}

#[test]
fn help_of_every_command_is_a_manual() {
    let all = good(&["--help"]);
    for word in ["Publish:", "Ask:", "Exit codes:", "TUFLOG_SERVER", "Examples:"] {
        assert!(all.contains(word), "{word}");
    }
    for command in [
        "init",
        "serve",
        "add",
        "remove",
        "import",
        "status",
        "batch",
        "target",
        "route",
        "checkpoints",
        "audit",
        "recover",
    ] {
        assert!(all.contains(&format!("\n  {command} ")), "{command}");
        assert!(good(&[command, "--help"]).contains(&format!("Examples:\n  tuflog {command}")), "{command}");
        assert_eq!(good(&["help", command]), good(&[command, "--help"]), "{command}");
    }
    assert!(good(&["--version"]).starts_with("tuflog "));
}

#[test]
fn who_reads_only_the_head_makes_no_panic() {
    let mut child = command(&["serve", "--help"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), stderr(&out).as_str()), (Some(0), ""));
}

#[test]
fn without_a_server_it_says_how_to_start_one() {
    for args in [&["status", "--retry-for", "0"][..], &["remove", "a", "--retry-for", "0"]] {
        let said = bad(3, &[args, &["--server", "http://127.0.0.1:1"]].concat());
        assert!(
            said.contains("no tuflog answers at http://127.0.0.1:1") && said.contains("tuflog serve --data"),
            "{said}"
        );
    }
    assert!(bad(2, &["status", "--server", "localhost"]).contains("--server"));
}

#[test]
fn a_change_goes_in_and_is_found_by_every_question() {
    let (dir, data) = repository();
    let mut server = Server::start(Path::new(&data), &[]);
    let url = server.url();
    let at =
        |args: &[&str]| -> Vec<String> { args.iter().copied().chain(["--server", &url]).map(str::to_owned).collect() };
    let ask = |args: &[&str]| json(&at(&[args, &["--json"]].concat()).iter().map(String::as_str).collect::<Vec<_>>());
    let say = |args: &[&str]| good(&at(args).iter().map(String::as_str).collect::<Vec<_>>());
    let fail = |code, args: &[&str]| bad(code, &at(args).iter().map(String::as_str).collect::<Vec<_>>());

    let file = dir.path().join("hello.txt");
    fs::write(&file, "hello\n").unwrap();
    let custom = r#"{"channel":"beta"}"#;
    let receipt = ask(&[
        "add",
        "a/hello.txt",
        "--file",
        text(&file),
        "--custom",
        custom,
        "--batch-id",
        "b1",
        "--wait",
        "published",
    ]);
    assert_eq!((&receipt["batch"], &receipt["state"]), (&"b1".into(), &"published".into()));
    let target = ask(&["target", "a/hello.txt"]);
    assert_eq!((&target["length"], &target["custom"]["channel"]), (&6.into(), &"beta".into()));
    assert_eq!(target["hashes"]["sha256"], "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
    assert!(say(&["target", "a/hello.txt"]).contains("5891b5b5"));
    assert_eq!(ask(&["batch", "b1"])["seq"], receipt["seq"]);
    assert_eq!(ask(&["route", "a/hello.txt"])["bin"], target["bin"]);
    let status = ask(&["status"]);
    assert_eq!((&status["ready"], &status["layout"]["bins"]), (&true.into(), &16.into()));
    assert!(say(&["status"]).contains("ready"));
    assert!(say(&["route", "a/hello.txt"]).contains("path's sha256"));
    assert!(say(&["checkpoints", "--before", "1"]).contains("no checkpoint below 1"));
    let n = receipt["checkpoint"].as_u64().unwrap();
    assert_eq!(ask(&["checkpoints"])["checkpoints"][0]["n"], n);
    assert!(say(&["checkpoints"]).contains("CHECKPOINT"));
    assert!(say(&["checkpoints", &n.to_string()]).contains("snapshot.json"));

    // The same id again is the same batch; with other content it is a conflict.
    let again = ask(&["add", "a/hello.txt", "--file", text(&file), "--custom", custom, "--batch-id", "b1"]);
    assert_eq!(again["seq"], receipt["seq"]);
    assert!(fail(1, &["remove", "a/hello.txt", "--batch-id", "b1"]).starts_with("error: "));

    let said = say(&["remove", "a/hello.txt", "b/absent", "a/hello.txt", "--wait", "published"]);
    assert!(said.contains("nothing to remove at b/absent") && !said.contains("at a/hello.txt"), "{said}");
    assert!(fail(1, &["target", "a/hello.txt"]).contains("nothing is published at a/hello.txt"));
    assert!(fail(1, &["batch", "unknown"]).contains("there is no batch unknown"));
    assert!(fail(1, &["batch", "unknown", "--full"]).contains("there is no batch unknown"));
    assert!(fail(1, &["checkpoints", "999"]).contains("no checkpoint 999"));

    // Nobody else may use the directory meanwhile.
    for args in [&["status"][..], &["serve"], &["init"], &["audit"]] {
        let code = if args == ["init"] { 1 } else { 3 };
        let said = bad(code, &[args, &["--data", &data]].concat());
        assert!(code == 1 || said.contains(&format!("ask that (--server {url}), or stop it first")), "{said}");
    }
    assert!(server.terminate().success());
    let said = server.said();
    assert!(
        said.contains("\"message\":\"serves\",\"version\":\"")
            && said.lines().last().is_some_and(|l| l.contains("\"stopped\"")),
        "{said}"
    );

    // The stopped node's data gives the same answers.
    assert_eq!(json(&["batch", "b1", "--data", &data, "--json"])["seq"], receipt["seq"]);
    assert!(bad(1, &["target", "a/hello.txt", "--data", &data]).contains("nothing is published"));
    assert_eq!(json(&["route", "a/hello.txt", "--data", &data, "--json"])["bin"], target["bin"]);
    assert_eq!(json(&["status", "--data", &data, "--json"])["layout"]["bins"], 16);
    assert!(json(&["checkpoints", "--data", &data, "--json"])["checkpoints"][0]["n"].as_u64().unwrap() > n);
}

#[test]
fn an_import_again_finds_its_batches_there() {
    let (dir, data) = repository();
    let mut server = Server::start(Path::new(&data), &[]);
    let url = server.url();
    let file = dir.path().join("changes.csv");
    let line = |i: usize, length: usize| format!("pool/p{i}.deb;{length};sha256;{i:064x}\n");
    fs::write(&file, (0..250).map(|i| line(i, i)).collect::<String>()).unwrap();
    let import = |more: &[&str]| -> Value {
        let args = ["import", "--format", "csv", "--batch-size", "100", "--json", "--server", &url, text(&file)];
        json(&[&args, more].concat())
    };
    let counts = |v: &Value| ["changes", "batches", "new", "known"].map(|k| v[k].as_u64().unwrap());
    let first = import(&["--wait", "published"]);
    assert_eq!((counts(&first), &first["state"]), ([250, 3, 3, 0], &"published".into()));
    assert_eq!(counts(&import(&[])), [250, 3, 0, 3]);
    assert_eq!(counts(&import(&["--again=x"])), [250, 3, 3, 0]);
    assert_eq!(counts(&import(&["--again=x"])), [250, 3, 0, 3]);

    // More at the end: what was whole before is known, the rest is new.
    let mut more = fs::OpenOptions::new().append(true).open(&file).unwrap();
    more.write_all((250..300).map(|i| line(i, i)).collect::<String>().as_bytes()).unwrap();
    assert_eq!(counts(&import(&["--wait", "published"])), [300, 3, 1, 2]);
    assert_eq!(json(&["target", "pool/p299.deb", "--json", "--server", &url])["length"], 299);

    // A line that cannot be: named, and what was before it is in.
    more.write_all(b"pool/bad path;1;sha256;00\n").unwrap();
    let said = bad(1, &["import", "--format", "csv", "--batch-size", "100", "--server", &url, text(&file)]);
    assert!(said.contains("changes.csv:301") && said.contains("3 there already"), "{said}");
    assert!(said.contains("correct that first; then run the same command again"), "{said}");

    // A batch of thousands, from standard input, with removals: the order in the input is the order that counts.
    let changes: String = (0..300)
        .map(|i| format!("{{\"op\":\"remove\",\"path\":\"pool/p{i}.deb\"}}\n"))
        .chain([format!(
            "{{\"op\":\"add\",\"path\":\"pool/p7.deb\",\"length\":1,\"hashes\":{{\"sha256\":\"{:064x}\"}}}}\n",
            1
        )])
        .collect();
    let args = ["import", "--format", "jsonl", "--batch-size", "10", "--wait", "published", "--server", &url, "-"];
    let mut child = command(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(changes.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success() && stdout(&out).contains("301 changes in 31 batches"), "{}", stdout(&out));
    assert_eq!(json(&["target", "pool/p7.deb", "--json", "--server", &url])["length"], 1);
    bad(1, &["target", "pool/p8.deb", "--server", &url]);
    assert!(server.terminate().success());
}

#[test]
fn an_interrupted_import_says_how_to_go_on_and_keeps_what_is_in() {
    let (_dir, data) = repository();
    let server = Server::start(Path::new(&data), &[]);
    let url = server.url();
    let args = ["import", "--format", "jsonl", "--batch-size", "10", "--server", &url, "-"];
    let mut child = command(&args).stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let hashes = format!("{{\"sha256\":\"{:064x}\"}}", 1);
    let add = |i| format!("{{\"op\":\"add\",\"path\":\"p{i}\",\"length\":1,\"hashes\":{hashes}}}\n");
    let lines: String = (0..15).map(add).collect();
    let mut input = child.stdin.take().unwrap(); // stays open: the import waits for more
    input.write_all(lines.as_bytes()).unwrap();
    let started = Instant::now();
    while !run(&["target", "p0", "--server", &url]).status.success() {
        assert!(started.elapsed() < PATIENCE, "the first batch does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let out = child.wait_with_output().unwrap();
    let said = stderr(&out);
    assert_eq!(out.status.code(), Some(3), "{said}");
    assert!(said.contains("1 batch: 1 new") && said.contains("run the same command again"), "{said}");
}

#[test]
fn colour_is_for_terminals_and_no_color_is_heard() {
    let dir = scratch();
    let data = dir.path().join("data");
    crate::server::init(&data, &["--bins", "2", "--partitions", "1"]);
    let text = |name: &str| {
        let mut command = command(&["log", "--data", data.to_str().unwrap()]);
        if !name.is_empty() {
            command.env(name, "1");
        }
        let out = command.output().expect("the binary runs");
        assert!(out.status.success(), "{}", crate::server::said(&out));
        String::from_utf8(out.stdout).expect("text")
    };
    let plain = text("");
    assert!(plain.contains("settings") && !plain.contains('\x1b'), "{plain}");
    assert_eq!(text("NO_COLOR"), plain);
    assert!(text("CLICOLOR_FORCE").contains('\x1b'));
}

#[test]
fn completions_and_man_pages_know_every_command() {
    let dir = scratch();
    for shell in ["bash", "zsh", "fish"] {
        let script = good(&["completions", shell]);
        assert!(script.contains("checkpoint") && script.contains("kafka-brokers"), "{shell}");
    }
    good(&["man", dir.path().to_str().unwrap()]);
    let page = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(page("tuflog.1").contains("Exit codes"));
    assert!(page("tuflog-history.1").contains("tuflog history hello.txt"));
    assert!(std::fs::read_dir(dir.path()).unwrap().count() > 20);
}
