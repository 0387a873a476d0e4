//! A full disk under the real binary: it becomes unready, refuses writes, loses nothing, and goes on when there is
//! room again.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::help::{self, PATIENCE};
use crate::server::{self, Server};

/// Writes on until `left` bytes remain, or as far as it goes.
fn fill(path: &Path, left: u64) {
    let mut file = File::options().create(true).append(true).open(path).unwrap();
    let block = vec![1u8; 1 << 20];
    while tuflog::store::local::free_bytes(path.parent().unwrap()).unwrap() > left {
        if file.write_all(&block).is_err() {
            return;
        }
    }
}

/// POSTs changes with curl, the first at path `id`, and waits until they are committed: the status and the body.
fn post(server: &Server, id: &str, changes: usize) -> (u16, String) {
    let change = |i: usize| {
        // One of its own; the others are replaced, so that the log grows and what is published does not.
        let path = if i == 0 { id.to_owned() } else { format!("filler/{i}") };
        let hash = hex::encode(tuflog::bins::sha256(format!("{id}/{i}").as_bytes())); // nothing that compresses
        format!(r#"{{"op":"add","path":"{path}","length":1,"hashes":{{"sha256":"{hash}"}}}}"#)
    };
    let changes: Vec<String> = (0..changes).map(change).collect();
    let body = format!(r#"{{"id":"{id}","changes":[{}]}}"#, changes.join(","));
    let url = format!("{}/v1/batches", server.url());
    let mut curl = Command::new("curl")
        .args(["-s", "-m", "60", "-w", "\n%{http_code}", "--data-binary", "@-", &url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl");
    let sent = curl.stdin.take().expect("piped").write_all(body.as_bytes());
    let out = curl.wait_with_output().expect("its end");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap_or_else(|| panic!("{text:?} {sent:?}"));
    (status.parse().unwrap_or(0), body.to_owned())
}

fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn audited(data: &Path, acknowledged: &[String]) {
    server::run(&["audit", "--data", data.to_str().unwrap()]);
    let published = server::published(&data.join("store"));
    for id in acknowledged {
        assert!(published.contains_key(id), "{id} was acknowledged");
    }
}

#[test]
fn below_the_free_space_it_needs_a_server_refuses_writes_until_there_is_room() {
    let Some(dir) = help::child_dir() else {
        return help::child_on_small_disk(
            "disk_full::below_the_free_space_it_needs_a_server_refuses_writes_until_there_is_room",
            300,
        );
    };
    let (data, filler) = (dir.join("data"), dir.join("filler"));
    server::init(&data, &["--bins", "4", "--partitions", "2"]);
    let server = Server::start(&data, &["--min-free-mib", "64"]);
    assert_eq!(post(&server, "before", 1).0, 202);
    fill(&filler, 60 << 20);
    until("it is unready", || server.get("/readyz").unwrap().0 == 503);
    let reasons = String::from_utf8(server.get("/readyz").unwrap().1).unwrap();
    assert!(reasons.contains("64 MiB"), "it says how much it needs: {reasons}");
    let (status, body) = post(&server, "refused", 1);
    assert!(status == 503 && body.contains("Unavailable") && body.contains("retry_after_s"), "{status} {body}");
    assert_eq!(server.get("/metadata/timestamp.json").unwrap().0, 200, "reads go on");
    std::fs::remove_file(&filler).unwrap();
    until("it is ready", || server.get("/readyz").unwrap().0 == 200);
    assert_eq!(post(&server, "after", 1).0, 202);
    server.stop();
    audited(&data, &["before".into(), "after".into()]);
}

#[test]
fn a_server_that_ran_into_the_end_of_the_disk_goes_on_when_there_is_room() {
    let Some(dir) = help::child_dir() else {
        return help::child_on_small_disk(
            "disk_full::a_server_that_ran_into_the_end_of_the_disk_goes_on_when_there_is_room",
            200,
        );
    };
    let (data, filler) = (dir.join("data"), dir.join("filler"));
    server::init(&data, &["--bins", "4", "--partitions", "2"]);
    let server = Server::start(&data, &["--min-free-mib", "0"]);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let mut refused = 0;
        for i in 0..200 {
            fill(&filler, 0); // again and again: the server gives room back as it tidies up
            let id = format!("full-{round}-{i}");
            match post(&server, &id, 2_000) {
                (202, _) => acknowledged.push(id), // perhaps without room to publish it
                (503, _) => refused += 1,
                other => panic!("{other:?}"),
            }
            if refused > 2 {
                break;
            }
        }
        assert!(refused > 0, "the disk was full");
        std::fs::remove_file(&filler).unwrap();
        let id = format!("room-{round}");
        until("it takes writes again", || post(&server, &id, 1).0 == 202);
        acknowledged.push(id);
    }
    server.stop();
    audited(&data, &acknowledged);
}
