//! `schemas/`: what is written to topics, read as configuration and spoken over HTTP, generated from the Rust types.
//!
//! The committed files must be what the types say; `TUFLOG_WRITE_SCHEMAS=1 cargo test` writes them anew. Real records
//! are checked against them, so that the schemas describe what is written and not only what is meant.

use std::collections::BTreeSet;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde_json::{Value, json};
use tuflog::change::{BatchRequest, ChangeRequest};
use tuflog::error::Error;
use tuflog::ledger::inbox::Reject;
use tuflog::ledger::record::Renew;
use tuflog::ledger::{self, Record};
use tuflog::log::Partition;

use crate::http_site::{PARTITIONS, Site, add, digest, remove};

/// The schema of a type, under the name of its file.
fn schema_of<T: JsonSchema>(title: &str) -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    schema["title"] = title.into();
    schema
}

/// The schema of a tagged record as it is encoded: with the version `v` beside the kind.
fn record_of<T: JsonSchema>(title: &str) -> Value {
    let mut schema = schema_of::<T>(title);
    let variants = schema["oneOf"].as_array_mut().expect("a tagged enum");
    for variant in variants {
        let variant = variant.as_object_mut().filter(|v| !v.contains_key("$ref")).expect("with its content inline");
        variant["properties"]["v"] = json!({"const": ledger::VERSION, "description": "The version of the encoding."});
        let required = variant["required"].as_array_mut().expect("at least the kind");
        required.push("v".into());
        variant.insert("additionalProperties".into(), false.into());
    }
    schema
}

fn documents() -> Vec<(&'static str, Value)> {
    let header = record_of::<ledger::segment::HeaderRecord>("header");
    let line = schema_of::<ChangeRequest>("line");
    let mut defs = header["$defs"].as_object().cloned().unwrap_or_default();
    defs.extend(line["$defs"].as_object().cloned().unwrap_or_default());
    let part = |mut schema: Value| {
        let parts = schema.as_object_mut().expect("an object");
        parts.remove("$defs");
        parts.remove("$schema");
        schema
    };
    defs.extend([("header".to_owned(), part(header)), ("line".to_owned(), part(line))]);
    let changes = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "One line of a record of topic changes",
        "description": "A record is JSON Lines: a header, then one change a line.",
        "oneOf": [{"$ref": "#/$defs/header"}, {"$ref": "#/$defs/line"}],
        "$defs": defs,
    });
    vec![
        ("ledger.json", record_of::<ledger::Record>("A record of topic ledger")),
        ("changes.json", changes),
        ("folds.json", record_of::<ledger::report::FoldRecord>("A record of topic folds")),
        ("inbox-rejects.json", record_of::<ledger::inbox::RejectRecord>("A record of topic inbox-rejects")),
        ("ledger-state.json", record_of::<ledger::saved::StateRecord>("A stored ledger state")),
        ("batch.json", schema_of::<BatchRequest>("The body of POST /v1/batches, and a record of topic inbox")),
        ("config.json", schema_of::<tuflog::config::Settings>("tuflog.toml")),
        ("doctor.json", schema_of::<tuflog::doctor::Report>("What `tuflog doctor --json` prints")),
        (
            "doctor-repository.json",
            schema_of::<tuflog::doctor::repository::Report>("What `tuflog doctor REPOSITORY --json` prints"),
        ),
        ("bench.json", schema_of::<tuflog::bench::Report>("What tuflog bench --json prints")),
        (
            "replay.json",
            schema_of::<tuflog::query::ReplayLine>("A line of tuflog replay, and the data of an event of /v1/feed"),
        ),
        ("diff.json", schema_of::<tuflog::query::DiffLine>("A line of tuflog diff --json")),
        ("export.json", schema_of::<tuflog::query::ExportAnswer>("What tuflog export --json prints")),
        ("audit.json", schema_of::<tuflog::audit::Report>("What `tuflog audit --json` prints")),
        ("openapi.json", serde_json::to_value(tuflog::http::openapi::document()).expect("JSON")),
    ]
}

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas").join(name)
}

#[test]
fn the_committed_schemas_are_what_the_types_say() {
    for (name, schema) in documents() {
        let text = serde_json::to_string_pretty(&schema).expect("JSON") + "\n";
        if std::env::var_os("TUFLOG_WRITE_SCHEMAS").is_some() {
            std::fs::write(path_of(name), &text).expect("schemas/ can be written");
        }
        let committed = std::fs::read_to_string(path_of(name)).unwrap_or_default();
        assert!(committed == text, "schemas/{name} is not what the types say: run TUFLOG_WRITE_SCHEMAS=1 cargo test");
    }
}

pub struct Checker(Vec<(&'static str, jsonschema::Validator)>);

impl Checker {
    pub fn new() -> Checker {
        let compiled = |(name, schema): (_, Value)| (name, jsonschema::validator_for(&schema).expect(name));
        Checker(documents().into_iter().filter(|(name, _)| *name != "openapi.json").map(compiled).collect())
    }

    fn errors(&self, name: &str, value: &Value) -> Vec<String> {
        let (_, schema) = self.0.iter().find(|(n, _)| *n == name).expect("a schema");
        schema.iter_errors(value).map(|e| e.to_string()).collect()
    }

    pub fn good(&self, name: &str, bytes: &[u8]) {
        let value = serde_json::from_slice(bytes).expect("JSON");
        assert_eq!(self.errors(name, &value), Vec::<String>::new(), "{name}: {value}");
    }
}

async fn records(site: &Site, of: Partition) -> Vec<bytes::Bytes> {
    let mut reader = site.log.reader(of, 0);
    let mut all = Vec::new();
    loop {
        let some = reader.read(1 << 20).await.unwrap();
        if some.is_empty() {
            return all;
        }
        all.extend(some.into_iter().map(|r| r.payload));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_writes_is_what_the_schemas_say() {
    let (site, check) = (Site::start().await, Checker::new());
    let custom = json!({"op": "add", "path": "c", "length": 1, "hashes": {"sha256": digest("c")}, "custom": {"a": [1, null, {"b": "é"}]}});
    for i in 0..5 {
        let batch = json!({"id": format!("b{i}"), "changes": [add(&format!("x/{i}"), "x"), custom, remove("none")]});
        check.good("batch.json", batch.to_string().as_bytes());
        site.publish(&format!("b{i}"), batch["changes"].as_array().unwrap().clone()).await;
    }
    let ledger = records(&site, Partition::Ledger).await;
    let kinds: BTreeSet<String> = ledger
        .iter()
        .map(|r| {
            check.good("ledger.json", r);
            serde_json::from_slice::<Value>(r).unwrap()["kind"].as_str().unwrap().to_owned()
        })
        .collect();
    check.good("ledger.json", &Record::Renew(Renew { after: 1, time: 2 }).encode());
    assert_eq!(kinds.len(), 6, "all but renew and recovery: {kinds:?}");
    let (recovery, objects) = crate::ledger_recovery::sample();
    check.good("ledger.json", &Record::Recovery(recovery.into()).encode());
    check.good("ledger-state.json", &objects.state);
    let refusal = Reject::new((0, 1), Some("a".into()), &Error::invalid("changes", "no"), b"{");
    check.good("inbox-rejects.json", &refusal.encode());
    let folds = records(&site, Partition::Folds).await;
    folds.iter().for_each(|r| check.good("folds.json", r));
    let mut lines = 0;
    for p in 0..PARTITIONS as u16 {
        for segment in records(&site, Partition::Changes(p)).await {
            segment.split(|b| *b == b'\n').filter(|l| !l.is_empty()).for_each(|line| {
                check.good("changes.json", line);
                lines += 1;
            });
        }
    }
    assert!(!folds.is_empty() && lines >= 20, "{lines}");
    let states = site.store.list("ledger/").await.unwrap();
    let state = states.iter().find(|name| name.ends_with(".state.json")).expect("one was written");
    check.good("ledger-state.json", &site.store.get(state).await.unwrap().unwrap());
    site.stop().await;
}

#[test]
fn the_schemas_refuse_what_the_program_refuses() {
    let check = Checker::new();
    let refused = |name: &str, value: Value| assert!(!check.errors(name, &value).is_empty(), "{name}: {value}");
    refused("ledger.json", json!({"kind": "cut", "v": 1, "n": 1, "time": 2}));
    refused("ledger.json", json!({"kind": "cut", "v": 2, "n": 1, "time": 2, "folds_from": 0}));
    refused("ledger.json", json!({"kind": "cut", "n": 1, "time": 2, "folds_from": 0}));
    refused("ledger.json", json!({"kind": "cut", "v": 1, "n": 1, "time": 2, "folds_from": 0, "extra": 1}));
    refused("ledger.json", json!({"kind": "unknown", "v": 1}));
    refused("batch.json", json!({"changes": [{"op": "move", "path": "x"}]}));
    refused("batch.json", json!({"changes": [], "wait": true}));
    refused("changes.json", json!({"kind": "segment", "v": 1, "partition": 0, "batches": [{}]}));
    refused("config.json", json!({"groups": 0}));
    refused("config.json", json!({"lisen": "127.0.0.1:1"}));
}
