//! The real binary where something is not as its user thinks: old imports, lost or altered parts, tokens, inputs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cli::{bad, json, repository, run, stderr, stdout, text};
use crate::help::PATIENCE;
use crate::server::{Server, run as good};

const ONE: &str = "publish-0123456789";
const TWO: &str = "another-0123456789";

/// A file that holds one target of this length.
fn csv(dir: &Path, name: &str, length: u32) -> String {
    let file = dir.join(name);
    fs::write(&file, format!("a;{length};sha256;{length:064x}\n")).unwrap();
    text(&file).to_owned()
}

#[test]
fn an_import_of_before_says_that_what_came_since_stays() {
    let (dir, data) = repository();
    let server = Server::start(Path::new(&data), &[]);
    let url = server.url();
    let (a, b) = (csv(dir.path(), "a.csv", 1), csv(dir.path(), "b.csv", 2));
    let import = |more: &[&str]| {
        let out = run(&[&["import", "--format", "csv", "--server", &url], more].concat());
        assert!(out.status.success(), "{}", stderr(&out));
        (stdout(&out), stderr(&out))
    };
    let length = || json(&["target", "a", "--json", "--server", &url])["length"].as_u64().unwrap();
    let published = |file: &str| import(&[file, "--wait", "published"]);
    published(&a);
    let (said, loud) = import(&[&a]);
    assert!(said.contains("nothing has changed") && loud.is_empty(), "{said}{loud}");
    published(&b);
    let (said, loud) = import(&[&a]);
    assert_eq!(length(), 2);
    assert!(said.contains("nothing of it was applied"), "{said}");
    let expected = "1 batch was there already (published in checkpoint 2, the newest is 3): what came since stays. \
                    To apply it again: --again\n";
    assert_eq!(loud, expected);
    assert_eq!(published(&a).1, expected);
    let (_, loud) = import(&[&a, "--again", "--wait", "published"]);
    assert_eq!((length(), loud.as_str()), (1, ""));
}

#[test]
fn a_token_that_may_only_publish_is_enough_to_wait_and_tokens_are_read_again() {
    let (dir, data) = repository();
    let tokens = dir.path().join("tokens");
    let write = |mode: u32, token: &str| {
        fs::write(&tokens, format!("{token} publish\n")).unwrap();
        fs::set_permissions(&tokens, fs::Permissions::from_mode(mode)).unwrap();
    };
    write(0o600, ONE);
    let server = Server::start(Path::new(&data), &["--auth-tokens-file", text(&tokens)]);
    let url = server.url();
    let with = |token: &str, args: &[&str]| {
        let file = dir.path().join("token");
        fs::write(&file, token).unwrap();
        run(&[args, &["--server", &url, "--token-file", text(&file)]].concat())
    };
    let file = csv(dir.path(), "a.csv", 1);
    let out = with(ONE, &["import", "--format", "csv", "--wait", "published", &file]);
    assert!(out.status.success() && stdout(&out).contains("published in checkpoint 2"), "{}", stderr(&out));
    let out = with(ONE, &["remove", "a", "--wait", "published"]);
    assert!(out.status.success() && stdout(&out).contains("published in checkpoint 3"), "{}", stderr(&out));
    assert_eq!(with(ONE, &["status"]).status.code(), Some(1));

    // A file that cannot be taken changes nothing; the next one does.
    let hang_up = |word: &str| {
        let (before, started) = (server.said().matches(word).count(), Instant::now());
        server.signal(rustix::process::Signal::HUP);
        while server.said().matches(word).count() == before {
            assert!(started.elapsed() < PATIENCE, "it does not say {word:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    write(0o644, TWO);
    hang_up("keeps the tokens it has");
    assert!(with(ONE, &["remove", "a"]).status.success());
    write(0o600, TWO);
    hang_up("reads the tokens again");
    assert!(with(TWO, &["remove", "a"]).status.success());
    assert!(stderr(&with(ONE, &["remove", "a"])).contains("not known here"));
}

#[test]
fn a_hangup_without_tokens_ends_nothing() {
    let (_dir, data) = repository();
    let server = Server::start(Path::new(&data), &[]);
    server.signal(rustix::process::Signal::HUP);
    server.stop();
    assert!(bad(2, &["serve", "--data", &data, "--targets", "/absent"]).contains("/absent is no directory"));
}

/// The newest published file of a role.
fn newest(data: &str, role: &str) -> PathBuf {
    let metadata = Path::new(data).join("store/metadata");
    let files = fs::read_dir(metadata).unwrap().map(|e| e.unwrap().path());
    let version = |path: &PathBuf| -> Option<u64> {
        path.file_name()?.to_str()?.strip_suffix(&format!(".{role}.json"))?.parse().ok()
    };
    files.filter(|f| version(f).is_some()).max_by_key(version).unwrap()
}

#[test]
fn a_target_is_answered_only_from_what_is_signed() {
    let (dir, data) = repository();
    let file = csv(dir.path(), "a.csv", 7);
    let server = Server::start(Path::new(&data), &[]);
    let url = server.url();
    good(&["import", "--format", "csv", "--wait", "published", "--server", &url, &file]);
    let bin = json(&["target", "a", "--json", "--server", &url])["bin"].as_str().unwrap().to_owned();
    let altered = |role: &str, from: &str, to: &str| {
        let file = newest(&data, role);
        let right = fs::read_to_string(&file).unwrap();
        assert!(right.contains(from));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&file, right.replace(from, to)).unwrap();
        (file.file_name().unwrap().to_str().unwrap().to_owned(), move || fs::write(&file, &right).unwrap())
    };
    let (name, mend) = altered(&bin, "\"length\":7", "\"length\":8");
    let said = bad(4, &["target", "a", "--server", &url]);
    assert!(said.contains(&format!("metadata/{name}")) && said.contains("signatures valid"), "{said}");
    mend();
    good(&["target", "a", "--server", &url]);
    server.stop();
    for role in [&bin, "snapshot"] {
        let (name, mend) = altered(role, "\"expires\":\"2", "\"expires\":\"3");
        let said = bad(4, &["target", "a", "--data", &data]);
        assert!(said.contains(&format!("metadata/{name}")), "{said}");
        mend();
    }
    good(&["target", "a", "--data", &data]);

    // Another root than the ledger's first is found by the audit.
    let root = Path::new(&data).join("root.json");
    let right = fs::read(&root).unwrap();
    fs::write(&root, b"{}").unwrap();
    let out = run(&["audit", "--data", &data]);
    assert!(out.status.code() == Some(1) && stdout(&out).contains("root.json is altered"), "{}", stdout(&out));
    assert!(stdout(&out).matches("sha256 ").count() == 2, "{}", stdout(&out));
    fs::write(&root, right).unwrap();
    good(&["audit", "--data", &data]);
}

#[test]
fn a_log_that_is_gone_is_no_place_for_a_new_repository() {
    let (dir, data) = repository();
    fs::rename(Path::new(&data).join("log"), dir.path().join("log")).unwrap();
    for command in ["serve", "audit", "status"] {
        let said = bad(4, &[command, "--data", &data]);
        assert!(said.contains(&format!("{data}/log is missing: put it back from a backup")), "{said}");
        assert!(!said.contains("init"), "{said}");
    }
    fs::rename(dir.path().join("log"), Path::new(&data).join("log")).unwrap();
    fs::rename(Path::new(&data).join("keys/online.pem"), dir.path().join("online.pem")).unwrap();
    assert!(bad(2, &["serve", "--data", &data]).contains(&format!("{data}/keys/online.pem")));
}

#[test]
fn a_file_in_a_directory_that_cannot_be_a_target_is_named_with_it() {
    let (dir, data) = repository();
    let server = Server::start(Path::new(&data), &[]);
    let targets = dir.path().join("targets");
    fs::create_dir(&targets).unwrap();
    fs::write(targets.join("not a path"), "").unwrap();
    let said = bad(1, &["import", "--format", "dir", "--server", &server.url(), text(&targets)]);
    assert!(said.contains(&format!("{}/not a path: ", text(&targets))), "{said}");
}

#[test]
fn verbose_lines_are_for_people() {
    let said = bad(3, &["status", "-v", "--retry-for", "1", "--server", "127.0.0.1:1"]);
    assert!(said.contains("tries again") && !said.contains("Said {"), "{said}");
}
