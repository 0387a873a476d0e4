//! `tuflog doctor` on a log in a directory: silent when all is well, and every planted fault is named, all in one run.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tuflog::clock::{Clock, ManualClock, SystemClock};
use tuflog::doctor::{Finding, Report, Severity};
use tuflog::ledger::Record;
use tuflog::ledger::record::Cut;
use tuflog::log::embedded::EmbeddedLog;
use tuflog::log::{Log, Partition};

use crate::help;
use crate::s3::proxy::{Act, Proxy};
use crate::s3::{ACCESS_KEY, Bucket, SECRET_KEY};
use crate::schemas::Checker;
use crate::server::{self, Server, said};

/// What the doctor said; its exit code is that of the report, and the report that of the schema.
pub fn doctor(args: &[&str], variables: &[(&str, &str)]) -> Report {
    let args = [&["doctor", "--json"], args].concat();
    let out = server::command(&args).envs(variables.iter().copied()).output().expect("the binary runs");
    Checker::new().good("doctor.json", &out.stdout);
    let report: Report = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&out)));
    assert_eq!(out.status.code(), Some(i32::from(report.errors > 0)), "{}", said(&out));
    report
}

/// What is not well, in a form to compare.
pub fn unwell(report: &Report) -> Vec<(Severity, String, &str)> {
    let unwell = report.findings.iter().filter(|f| f.severity != Severity::Ok);
    unwell.map(|f| (f.severity, format!("{}.{}", f.area.name(), f.check), f.what.as_str())).collect()
}

/// The finding that has all of these words.
pub fn find<'a>(report: &'a Report, severity: Severity, place: &str, words: &[&str]) -> &'a Finding {
    let is = |f: &&Finding| {
        let text = format!("{} {} {}", f.what, f.why.as_deref().unwrap_or(""), f.fix.as_deref().unwrap_or(""));
        f.severity == severity
            && format!("{}.{}", f.area.name(), f.check) == place
            && words.iter().all(|w| text.contains(w))
    };
    report.findings.iter().find(is).unwrap_or_else(|| panic!("no {severity:?} {place} {words:?} in {report:#?}"))
}

fn error(report: &Report, place: &str, words: &[&str]) {
    find(report, Severity::Error, place, words);
}

/// A repository whose root keys are put away.
fn repository() -> (TempDir, PathBuf) {
    let dir = help::scratch();
    let data = dir.path().join("repo");
    server::init(&data, &["--bins", "4", "--partitions", "2"]);
    put_away(&data);
    (dir, data)
}

pub fn put_away(data: &Path) {
    for n in 1.. {
        let key = data.join(format!("keys/root-{n}.pem"));
        if !key.exists() {
            break;
        }
        fs::rename(&key, data.with_extension(format!("root-{n}.pem"))).unwrap();
    }
}

fn of(data: &Path, more: &[&str]) -> Report {
    let data = data.to_str().unwrap();
    doctor(&[&["--data", data, "--listen", "127.0.0.1:0"], more].concat(), &[])
}

pub fn add(url: &str, path: &str) {
    let hash = "ab".repeat(32);
    server::run(&["add", path, "--length", "1", "--sha256", &hash, "--wait", "published", "--server", url]);
}

#[test]
fn a_good_repository_is_well_and_so_it_is_beside_its_node() {
    let (_dir, data) = repository();
    assert_eq!(unwell(&of(&data, &["--min-free-mib", "1"])), []);
    let node = Server::start(&data, &["--min-free-mib", "1"]);
    add(&node.url(), "one");
    let report = of(&data, &["--min-free-mib", "1"]);
    assert_eq!((report.errors, report.warnings), (0, 0), "{report:#?}");
    find(&report, Severity::Ok, "node.ready", &[&node.url(), "is ready"]);
    find(&report, Severity::Ok, "keys.in-force", &["root 1"]);
    find(&report, Severity::Skipped, "log.readable", &["the node that runs holds them"]);
    find(&report, Severity::Skipped, "config.listen", &[]);
    node.stop();
    let report = of(&data, &["--min-free-mib", "1"]);
    assert_eq!(unwell(&report), []);
    find(&report, Severity::Ok, "log.belongs", &["checkpoint 2 is the newest in both"]);
    // The configuration file names the directory too, and a person reads the same.
    let file = data.join("tuflog.toml");
    let args =
        ["doctor", "--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0", "--min-free-mib", "1", "--quiet"];
    assert!(server::run(&args).ends_with(" ok\n"));
}

#[test]
fn everything_that_is_wrong_with_settings_files_and_disk_is_said_at_once() {
    let (dir, data) = repository();
    let mode = |path: PathBuf, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(data.join("keys/online.pem"), 0o644);
    mode(data.join("keys"), 0o777);
    let tokens = dir.path().join("tokens");
    fs::write(&tokens, "short read\n").unwrap();
    mode(tokens, 0o600);
    let text = "lisen = \"x\"\ngroups = 0\nroles = [\"fold\"]\ntargets = \"absent\"\nmin_free_mib = 1000000000000\n\
                [auth]\ntokens_file = \"../tokens\"\ntoken_file = \"t\"\n";
    fs::write(data.join("tuflog.toml"), text).unwrap();
    fs::write(data.join("keys/root-1.pem"), "").unwrap();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let report = doctor(&["--data", data.to_str().unwrap(), "--listen", &busy.local_addr().unwrap().to_string()], &[]);
    for (place, words) in [
        ("config.keys", &["lisen", "did you mean `listen`?", "tuflog.toml"][..]),
        ("config.keys", &["auth.token_file", "`auth.tokens_file`"]),
        ("config.keys", &["groups", "from 1 to 64"]),
        ("config.roles", &["one process"]),
        ("config.targets", &["absent is no directory"]),
        ("config.tokens", &["line 1", "16"]),
        ("config.listen", &["is in use"]),
        ("machine.disk", &["1000000000000 MiB are needed", "refuses writes", "make room"]),
        ("keys.files", &["online.pem", "chmod 600"]),
        ("keys.directory", &["mode 777", "chmod 700"]),
    ] {
        error(&report, place, words);
    }
    find(&report, Severity::Skipped, "keys.in-force", &["not every file can be read"]);
    find(&report, Severity::Warning, "keys.root-keys", &["root-1.pem", "not online"]);
    find(&report, Severity::Ok, "log.belongs", &["nothing is published yet"]);

    fs::write(data.join("tuflog.toml"), "groups = \"x\"").unwrap();
    let report = of(&data, &[]);
    error(&report, "config.file", &["line 1"]);
    find(&report, Severity::Skipped, "config.rest", &[]);
    error(&of(&data, &["--config", "/absent.toml"]), "config.file", &["/absent.toml cannot be read"]);
    error(&of(&dir.path().join("none"), &[]), "log.readable", &["tuflog init --data"]);
}

#[test]
fn a_key_that_is_not_there_or_another_s_is_named_beside_a_running_node_too() {
    let (dir, data) = repository();
    let other = dir.path().join("other");
    server::init(&other, &["--bins", "4"]);
    let (key, aside) = (data.join("keys/online.pem"), dir.path().join("aside.pem"));
    fs::rename(&key, &aside).unwrap();
    let report = of(&data, &[]);
    error(&report, "keys.files", &["holds no online key", "put the repository's online.pem there"]);
    error(&report, "keys.in-force", &["is missing"]);
    fs::copy(other.join("keys/online.pem"), &key).unwrap();
    error(&of(&data, &[]), "keys.in-force", &["the private key", "is missing", "nothing is published any more"]);
    fs::rename(&aside, &key).unwrap();
    let node = Server::start(&data, &["--min-free-mib", "0"]);
    fs::rename(&key, &aside).unwrap();
    fs::copy(other.join("keys/online.pem"), &key).unwrap();
    error(&of(&data, &[]), "keys.in-force", &["which root 1 names, is not in"]);
    fs::write(&key, "no key").unwrap();
    error(&of(&data, &[]), "keys.files", &["PKCS#8"]);
    node.stop();
    fs::remove_dir_all(data.join("keys")).unwrap();
    error(&of(&data, &[]), "keys.files", &["no such file or directory", "--keys DIR"]);
}

#[test]
fn a_store_that_is_not_the_logs_is_named() {
    let (dir, data) = repository();
    let node = Server::start(&data, &["--min-free-mib", "0"]);
    add(&node.url(), "one");
    node.stop();
    let aside = dir.path().join("aside");
    fs::rename(data.join("store"), &aside).unwrap();
    error(&of(&data, &[]), "log.belongs", &["the ledger ends at checkpoint 2", "there is no store", "volume"]);
    fs::create_dir(data.join("store")).unwrap();
    error(&of(&data, &[]), "log.belongs", &["the store does not hold it", "serve refuses to start"]);
    fs::remove_dir(data.join("store")).unwrap();
    fs::rename(&aside, data.join("store")).unwrap();
    fs::rename(data.join("log"), &aside).unwrap();
    error(&of(&data, &[]), "log.readable", &["log is missing", "backup"]);
    fs::create_dir(data.join("log")).unwrap();
    error(&of(&data, &[]), "log.readable", &["cannot read the log", "backup"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_behind_is_told_by_log_and_repository() {
    let (_dir, data) = repository();
    let now = SystemClock.now();
    let log = EmbeddedLog::open(&data.join("log"), Arc::new(ManualClock::new(now + 5_000))).unwrap();
    let cut = Record::Cut(Cut { n: 1, time: now + 4_000, folds_from: 0 });
    log.append(Partition::Ledger, cut.encode()).await.unwrap();
    drop(log);
    let report = of(&data, &[]);
    error(&report, "clock.log", &["or more behind the log's own clock", "makes no cuts", "chrony"]);
    find(&report, Severity::Warning, "clock.repository", &["s ahead of this clock", "expiry"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_is_tried_and_what_it_lacks_is_named() {
    let (_dir, data) = repository();
    let see = async |url: String, endpoint: String, secret: &'static str| {
        let data = data.clone();
        let asked = move || {
            let credentials = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", secret)];
            let store = ["--store-url", &url, "--store-endpoint", &endpoint, "--store-allow-http"];
            let args = ["--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0", "--min-free-mib", "1"];
            doctor(&[&args[..], &store].concat(), &credentials)
        };
        tokio::task::spawn_blocking(asked).await.unwrap()
    };
    let bucket = Bucket::new();
    let report = see(bucket.url(), bucket.endpoint().into(), SECRET_KEY).await;
    assert_eq!(unwell(&report), []);
    find(&report, Severity::Ok, "store.conditions", &["keeps If-None-Match and If-Match"]);
    find(&report, Severity::Ok, "clock.store", &[]);

    for header in ["if-none-match", "if-match"] {
        let proxy = Proxy::start(move |_| Act::Without(header)).await;
        let report = see(bucket.url(), proxy.url(), SECRET_KEY).await;
        error(&report, "store.conditions", &["does not keep", "publish against each other", "keeps both conditions"]);
    }
    error(&see(bucket.url(), bucket.endpoint().into(), "wrong").await, "store.reachable", &["store credentials"]);
    error(&see("s3://absent".into(), bucket.endpoint().into(), SECRET_KEY).await, "store.reachable", &["store.url"]);
    let report = see(bucket.url(), "http://127.0.0.1:1".into(), SECRET_KEY).await;
    error(&report, "store.reachable", &["nothing can be published", "is the server there?"]);
    find(&report, Severity::Skipped, "log.belongs", &["it cannot be read"]);
    let report = see("ftp://x".into(), bucket.endpoint().into(), SECRET_KEY).await;
    error(&report, "store.reachable", &["must be s3://BUCKET"]);
}
