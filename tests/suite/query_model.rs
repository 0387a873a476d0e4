//! Questions about the past, against a naive model of it, over random histories: with batches that come twice, with
//! other content, too late, and Commits that are appended again long after.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tuflog::change::{Batch, BatchRequest};
use tuflog::ledger::record::{BatchRef, Commit, SegmentRef};
use tuflog::ledger::{Record, segment};
use tuflog::log::{Log, Partition};
use tuflog::pool::Pool;
use tuflog::query::{At, Pattern, Query, ReplayOptions};
use tuflog::store::Store;

use crate::history_model::{Cut, Model};
use crate::http_site::{Setup, Site, add, remove};

/// How many paths there are.
const PATHS: u8 = 14;

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    /// Batches that come at the same time, each of some changes: path, and content or removal.
    Post(Vec<Vec<(u8, Option<u8>)>>),
    /// A batch under the id of an earlier one, written by an intake that is behind: with the basis it had then.
    Late { of: prop::sample::Index, changes: Vec<(u8, Option<u8>)>, behind: u8 },
    /// A ledger record appended again.
    Again(prop::sample::Index),
}

fn changes() -> impl Strategy<Value = Vec<(u8, Option<u8>)>> {
    prop::collection::vec((0..PATHS, prop::option::weighted(0.7, 0u8..4)), 1..5)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(changes(), 1..5).prop_map(Step::Post),
        2 => (any::<prop::sample::Index>(), changes(), 0u8..40).prop_map(|(of, changes, behind)| Step::Late { of, changes, behind }),
        1 => any::<prop::sample::Index>().prop_map(Step::Again),
    ];
    prop::collection::vec(step, 10..35)
}

fn path(n: u8) -> String {
    // Some are the beginning of others.
    format!("d{}/{}", n % 3, "f".repeat(1 + usize::from(n)))
}

fn request(id: &str, changes: &[(u8, Option<u8>)]) -> Value {
    let one = |(n, content): &(u8, Option<u8>)| match content {
        Some(content) => {
            let mut change = add(&path(*n), &content.to_string());
            if content % 2 == 1 {
                change["custom"] = json!({"path": path(*n), "n": content});
            }
            change
        }
        None => remove(&path(*n)),
    };
    json!({"id": id, "changes": changes.iter().map(one).collect::<Vec<_>>()})
}

/// Segments and a Commit, as an intake writes them whose lookup was at `basis`.
async fn commit_late(log: &dyn Log, query: &Query, id: &str, changes: &[(u8, Option<u8>)], basis: u64) {
    let batch: Batch =
        BatchRequest::parse(request(id, changes).to_string().as_bytes()).unwrap().validate(String::new, &[]).unwrap();
    let cutting = segment::cut(std::slice::from_ref(&batch), query.layout().await.unwrap(), 300);
    let mut segments = Vec::new();
    for (partition, payload) in cutting.segments {
        let digest = tuflog::bins::sha256(&payload);
        let offset = log.append(Partition::Changes(partition), payload).await.unwrap();
        segments.push(SegmentRef { partition, offset, digest });
    }
    let parts = cutting.parts.into_iter().next().unwrap();
    let batches = vec![BatchRef { id: batch.id, digest: batch.digest, basis, parts, inbox: None }];
    log.append(Partition::Ledger, Record::Commit(Commit { batches, segments }).encode()).await.unwrap();
}

async fn live_through(site: &Site, steps: Vec<Step>) {
    let query = Query::new(site.log.clone(), site.store.clone(), Pool::Inline);
    let mut ids: Vec<String> = vec!["0".into()];
    for step in steps {
        match step {
            Step::Post(batches) => {
                let posts = batches.iter().enumerate().map(|(i, changes)| {
                    let id = (ids.len() + i).to_string();
                    async move { site.post("", &request(&id, changes)).await }
                });
                for (status, answer) in futures::future::join_all(posts).await {
                    assert!(status.is_success(), "{answer}");
                }
                ids.extend((0..batches.len()).map(|i| (ids.len() + i).to_string()).collect::<Vec<_>>());
            }
            Step::Late { of, changes, behind } => {
                let end = query.ledger_end().await.unwrap();
                let (id, basis) = (&ids[of.index(ids.len())], end.saturating_sub(1 + u64::from(behind)));
                commit_late(&*site.log, &query, id, &changes, basis).await;
            }
            Step::Again(which) => {
                let end = query.ledger_end().await.unwrap();
                let record =
                    site.log.fetch(Partition::Ledger, which.index(end as usize) as u64).await.unwrap().unwrap();
                // A Root or Settings twice is nothing that happens.
                if matches!(
                    Record::decode(&record.payload).unwrap(),
                    Record::Commit(_) | Record::Cut(_) | Record::Checkpoint(_)
                ) {
                    site.log.append(Partition::Ledger, record.payload).await.unwrap();
                }
            }
        }
    }
    // What comes last is published: then everything before it is.
    site.publish("last", vec![add("last", "x")]).await;
}

fn entry(value: &impl serde::Serialize) -> Value {
    let mut value = serde_json::to_value(value).unwrap();
    let fields = value.as_object_mut().unwrap();
    fields.retain(|name, _| ["length", "hashes", "custom"].contains(&name.as_str()));
    value
}

async fn targets_are_what_they_were(query: &Query, model: &Model, cut: &Cut, at: At) {
    for n in 0..PATHS {
        let path = path(n);
        let found = query.target_and_origin(&path, Some(at), true).await.unwrap();
        assert_eq!(found.as_ref().map(entry), cut.map.get(&path).cloned(), "{path} at {at}");
        let Some(found) = found else { continue };
        assert_eq!(
            (found.checkpoint, found.version),
            (cut.n, cut.versions[model.bin_of(&path) as usize]),
            "{path} at {at}"
        );
        let brought =
            model.history(&path).into_iter().rfind(|(batch, _)| batch.seq < cut.seq).map(|(batch, _)| batch).unwrap();
        let origin = found.origin.expect("it is in the log");
        assert_eq!((&origin.batch, origin.seq), (&brought.id, brought.seq), "{path} at {at}");
        assert_eq!(origin.checkpoint, model.covering(brought.seq));
    }
    let bins = query.bins(Some(at)).await.unwrap();
    assert_eq!(bins.bins.iter().map(|bin| bin.version).collect::<Vec<_>>(), cut.versions, "at {at}");
    for bin in &bins.bins {
        let whole = query.bin(&bin.bin, Some(at), None, 1_000).await.unwrap().unwrap();
        assert_eq!((whole.summary.length, whole.summary.time), (bin.length, bin.time));
        assert_eq!(bin.time, model.cuts[bin.version as usize - 1].time);
    }
    // Page by page, and all in the end.
    let (mut found, mut after) = (BTreeMap::new(), None::<String>);
    loop {
        let page = query.find_targets(&Pattern::new("*").unwrap(), Some(at), after.as_deref(), 3).await.unwrap();
        found.extend(page.targets.iter().map(|t| (t.path.clone(), entry(&t.target))));
        after = page.after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, cut.map, "at {at}");
    let some = query.find_targets(&Pattern::new("d1/*").unwrap(), Some(at), None, 1_000).await.unwrap();
    let wanted = cut.map.keys().filter(|path| path.starts_with("d1/")).count();
    assert_eq!(some.targets.len(), wanted);
}

async fn a_diff_is_the_difference(query: &Query, from: &Cut, to: &Cut) {
    let diff = query.diff(At::Checkpoint(from.n), Some(At::Checkpoint(to.n))).await.unwrap();
    let lines: Vec<_> = query.diff_lines(&diff, None).map(Result::unwrap).collect().await;
    let mut patched = from.map.clone();
    for line in lines.iter().flatten() {
        assert_eq!(patched.get(&line.path).cloned(), line.before.as_ref().map(entry), "{line:?}");
        assert_ne!(line.before, line.after, "{line:?}");
        let kind = match (&line.before, &line.after) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        assert_eq!(serde_json::to_value(line.diff).unwrap(), kind);
        match &line.after {
            Some(after) => drop(patched.insert(line.path.clone(), entry(after))),
            None => drop(patched.remove(&line.path)),
        }
    }
    assert_eq!(patched, to.map, "from {} to {}", from.n, to.n);
}

async fn histories_are_what_was_applied(query: &Query, model: &Model) {
    for n in 0..PATHS {
        let path = path(n);
        let mut wanted: Vec<Value> = Vec::new();
        for (batch, change) in model.history(&path).into_iter().rev() {
            wanted.push(json!([batch.seq, batch.id, change.entry, model.covering(batch.seq)]));
        }
        let shown =
            |c: &tuflog::query::HistoryChange| json!([c.seq, c.batch, c.target.as_ref().map(entry), c.checkpoint]);
        let whole = query.history(&path, None, usize::MAX).await.unwrap();
        assert_eq!(whole.changes.iter().map(shown).collect::<Vec<_>>(), wanted, "{path}");
        assert_eq!((whole.read_from, whole.before), (0, None));
        let (mut paged, mut before) = (Vec::new(), None);
        loop {
            let page = query.history(&path, before, 1).await.unwrap();
            paged.extend(page.changes);
            before = page.before;
            if before.is_none() {
                break;
            }
        }
        paged.sort_by_key(|c| std::cmp::Reverse(c.seq));
        assert_eq!(paged.iter().map(shown).collect::<Vec<_>>(), wanted, "{path}");
    }
}

async fn a_replay_is_the_ledger(query: &Query, model: &Model, from: u64, to: Option<u64>, filter: Option<&str>) {
    let pattern = filter.map(|glob| Pattern::new(glob).unwrap());
    let mut replay =
        query.replay(ReplayOptions { from, to, filter: pattern.clone(), without_batches: false }).await.unwrap();
    let mut lines = Vec::new();
    while let Some(found) = replay.next().await.unwrap() {
        assert!(found.last().unwrap().last && found.iter().filter(|line| line.last).count() == 1);
        lines.extend(found.iter().map(|line| serde_json::from_slice::<Value>(&line.text).unwrap()));
    }
    let mut wanted = BTreeMap::new();
    for b in &model.batches {
        let kept = |path: &str| pattern.as_ref().is_none_or(|pattern| pattern.matches(path));
        let changes: Vec<&Value> = b.changes.iter().filter(|c| kept(&c.path)).map(|c| &c.line).collect();
        if pattern.is_none() || !changes.is_empty() {
            wanted.insert(
                (b.seq, b.index),
                json!({"batch": b.id, "verdict": b.verdict, "first": b.first, "changes": changes}),
            );
        }
    }
    for (cut, checkpoint) in model.cuts.iter().zip(&model.checkpoints) {
        wanted.insert((cut.seq, 0), json!({"kind": "cut", "n": cut.n}));
        wanted.insert((*checkpoint, 0), json!({"kind": "checkpoint", "n": cut.n, "cut": cut.seq}));
    }
    wanted.retain(|(seq, _), _| *seq >= from && to.is_none_or(|to| *seq <= to));
    let shown = |line: &Value| {
        let at = (line["seq"].as_u64().unwrap(), line["index"].as_u64().unwrap_or(0));
        let what = match line["kind"].as_str().unwrap() {
            "batch" => {
                json!({"batch": line["batch"], "verdict": line["verdict"], "first": line["first"], "changes": line["changes"]})
            }
            "cut" => json!({"kind": "cut", "n": line["n"]}),
            kind => json!({"kind": kind, "n": line["n"], "cut": line["cut"]}),
        };
        (at, what)
    };
    let found: Vec<_> = lines.iter().map(shown).collect();
    assert_eq!(found, wanted.into_iter().collect::<Vec<_>>(), "from {from} to {to:?}, {filter:?}");
}

async fn every_answer_is_the_models(log: Arc<dyn Log>, store: Arc<dyn Store>) {
    let model = Model::read(&*log).await;
    let query = Query::new(log, store, Pool::Inline);
    let end = query.ledger_end().await.unwrap();
    assert_eq!(model.cuts.len(), model.checkpoints.len(), "all is published");
    for cut in &model.cuts {
        targets_are_what_they_were(&query, &model, cut, At::Checkpoint(cut.n)).await;
    }
    for (i, from) in model.cuts.iter().enumerate() {
        a_diff_is_the_difference(&query, from, &model.cuts[(i * 7 + 3) % model.cuts.len()]).await;
    }
    for seq in (0..end).step_by(3) {
        let wanted = model.cuts.iter().rfind(|cut| cut.seq <= seq).map(|cut| cut.n);
        let found = query.view(Some(At::Seq(seq))).await.ok().flatten().map(|view| view.n);
        assert_eq!(found, wanted, "at seq {seq}");
    }
    for cut in &model.cuts {
        let wanted = model.cuts.iter().rfind(|c| c.time <= cut.time).map(|c| c.n);
        assert_eq!(query.view(Some(At::Time(cut.time))).await.unwrap().map(|view| view.n), wanted);
        let listed = query.checkpoints(Some(cut.n + 1), 3).await.unwrap();
        let wanted: Vec<u64> = (1..=cut.n).rev().take(3).collect();
        assert_eq!(listed.checkpoints.iter().map(|c| c.n).collect::<Vec<_>>(), wanted);
        let detail = query.checkpoint(cut.n).await.unwrap().unwrap().detail.expect("its records are there");
        let before = model.cuts.iter().rfind(|c| c.n < cut.n).map_or(0, |c| c.seq);
        let brought = model.batches.iter().filter(|b| b.verdict == "valid" && (before..cut.seq).contains(&b.seq));
        let (batches, changes) = brought.fold((0, 0), |(b, c), batch| (b + 1, c + batch.changes.len() as u64));
        assert_eq!((detail.batches, detail.changes), (batches, changes), "checkpoint {}", cut.n);
        let rendered = cut.versions.iter().filter(|version| **version == cut.n).count();
        assert_eq!(detail.bins.len(), rendered, "checkpoint {}", cut.n);
    }
    histories_are_what_was_applied(&query, &model).await;
    a_replay_is_the_ledger(&query, &model, 0, None, None).await;
    a_replay_is_the_ledger(&query, &model, 0, Some(end / 2), Some("d2/*")).await;
    for from in (0..end).step_by(5) {
        a_replay_is_the_ledger(&query, &model, from, None, None).await;
    }
}

#[test]
fn the_past_is_what_a_naive_replay_says() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let cases = std::env::var("CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 40, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let history = (steps(), prop_oneof![Just(40u64), Just(65_536)]);
    let outcome = runner.run(&history, |(steps, horizon)| {
        runtime.block_on(async {
            let site = Site::with(Setup { horizon, ..Setup::default() }).await;
            live_through(&site, steps).await;
            every_answer_is_the_models(site.log.clone(), site.store.clone()).await;
            site.stop().await;
        });
        Ok(())
    });
    if let Err(e) = outcome {
        panic!("{e}");
    }
}
