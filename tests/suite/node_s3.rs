//! A node whose store is a bucket: published there, served from there, audited there.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tuflog::store::POINTER;

use crate::help;
use crate::s3::{ACCESS_KEY, Bucket, SECRET_KEY};
use crate::server::{self, Server, said};

const CREDENTIALS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];

/// The program on a stopped node's data.
fn ask(data: &Path, args: &[&str]) -> Output {
    let args = [args, &["--data", data.to_str().expect("UTF-8"), "--json"]].concat();
    server::command(&args).envs(CREDENTIALS).output().expect("the binary runs")
}

fn json(out: Output) -> Value {
    assert!(out.status.success(), "{}", said(&out));
    serde_json::from_slice(&out.stdout).expect("JSON")
}

#[test]
fn a_node_publishes_to_a_bucket_and_serves_from_it() {
    let (dir, bucket) = (help::scratch(), Bucket::new());
    let data = dir.path().join("repo");
    server::init(&data, &["--bins", "16"]);
    let (url, endpoint) = (bucket.url(), bucket.endpoint());
    let file = format!("[store]\nurl = \"{url}\"\nendpoint = \"{endpoint}\"\nallow_http = true\n");
    std::fs::write(data.join("tuflog.toml"), file).unwrap();
    let add = |node: &Server, path: &str| {
        let digest = "ab".repeat(32);
        server::run(&[
            "add",
            path,
            "--length",
            "5",
            "--sha256",
            &digest,
            "--server",
            &node.url(),
            "--wait",
            "published",
        ]);
    };

    let node = Server::start_with(&data, &[], &CREDENTIALS);
    add(&node, "one");
    let read = |name: &str| {
        let (status, body) = node.get(&format!("/metadata/{name}")).expect("an answer");
        assert_eq!(status, 200, "{name}");
        let stored = std::fs::read(bucket.dir.join("a/prefix/metadata").join(name)).expect("it is in the bucket");
        assert!(body == stored, "{name}");
        serde_json::from_slice::<Value>(&body).expect("JSON")
    };
    let snapshot = read("timestamp.json")["signed"]["meta"]["snapshot.json"]["version"].clone();
    let snapshot = read(&format!("{snapshot}.snapshot.json"));
    let bins = snapshot["signed"]["meta"].as_object().expect("an object").iter();
    let bins = bins.map(|(name, meta)| read(&format!("{}.{name}", meta["version"])));
    let targets: Vec<Value> = bins.filter_map(|bin| bin["signed"]["targets"].get("one").cloned()).collect();
    assert_eq!(targets.len(), 1);
    read("1.root.json");
    assert_eq!(node.get("/metadata/99.snapshot.json").expect("an answer").0, 404);
    node.stop();
    assert!(!data.join("store").join(POINTER).exists(), "the directory is not the store");

    let node = Server::start_with(&data, &[], &CREDENTIALS);
    add(&node, "two");
    node.kill();
    for path in ["one", "two"] {
        assert_eq!(json(ask(&data, &["target", path]))["length"], 5);
    }
    json(ask(&data, &["status"]));
    let report = json(ask(&data, &["audit"]));
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(0), "{report}");

    let bins = std::fs::read_dir(bucket.dir.join("a/prefix/metadata")).unwrap().map(|e| e.unwrap().path());
    let bin = bins.filter(|path| path.to_string_lossy().contains(".bins-")).max().expect("a bin");
    std::fs::remove_file(&bin).unwrap();
    let audit = ask(&data, &["audit"]);
    assert_eq!(audit.status.code(), Some(1), "{}", said(&audit));
    let name = bin.file_name().unwrap().to_str().unwrap();
    assert!(said(&audit).contains(name), "{}", said(&audit));
}

#[test]
fn a_node_whose_bucket_is_not_there_does_not_start() {
    let (dir, bucket) = (help::scratch(), Bucket::new());
    let data = dir.path().join("repo");
    server::init(&data, &["--bins", "2", "--partitions", "2"]);
    let data = data.to_str().unwrap();
    let flags = ["serve", "--data", data, "--listen", "127.0.0.1:0", "--store-endpoint", bucket.endpoint()];
    let serve = |more: &[&str]| {
        let out = server::command(&[&flags[..], more].concat()).envs(CREDENTIALS).output().unwrap();
        (out.status.code(), said(&out))
    };
    let (code, said) = serve(&["--store-url", "s3://no-such-bucket/x", "--store-allow-http"]);
    assert!(code == Some(2) && said.contains("store.url") && said.contains("NoSuchBucket"), "{said}");
    let (code, said) = serve(&["--store-url", &bucket.url()]);
    assert!(code == Some(2) && said.contains("store.allow_http"), "{said}");
    let (code, said) = serve(&[]);
    assert!(code == Some(2) && said.contains("store.endpoint"), "{said}");
    let options = "secret_access_key=wrong";
    let (code, said) = serve(&["--store-url", &bucket.url(), "--store-allow-http", "--store-options", options]);
    assert!(code == Some(2) && said.contains("store credentials") && !said.contains("wrong"), "{said}");
    let options = "metadata_endpoint=http://127.0.0.1:1";
    let url = bucket.url();
    let args = [&flags[..], &["--store-url", &url, "--store-allow-http", "--store-options", options]].concat();
    let out = server::command(&args).output().unwrap();
    let text = server::said(&out);
    assert!(out.status.code() == Some(3) && text.contains("AWS_ACCESS_KEY_ID"), "{text}");
}
