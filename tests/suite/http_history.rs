//! The past over HTTP: points in history, streams, and the change feed that a client comes back to.

use std::time::Duration;

use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use crate::help::PATIENCE;
use crate::http_site::{Site, add, refused, remove};

/// An event of the feed.
#[derive(Debug, PartialEq)]
struct Event {
    kind: String,
    id: Option<u64>,
    data: Value,
}

/// Reads events as they come.
struct Feed {
    response: Response,
    text: String,
}

impl Feed {
    async fn open(site: &Site, query: &str, last: Option<u64>) -> Feed {
        let last = last.map(|id| id.to_string());
        let headers: Vec<(&str, &str)> = last.iter().map(|id| ("last-event-id", id.as_str())).collect();
        let response = site.ask(Method::GET, &format!("/v1/feed{query}"), &headers).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Feed { response, text: String::new() }
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let of = |name: &str| event.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned());
                let (kind, id, data) = (of("event:"), of("id:"), of("data:"));
                self.text = rest.to_owned();
                let (Some(kind), Some(data)) = (kind, data) else { continue }; // it only says that it is alive
                let (id, data) = (id.map(|id| id.parse().unwrap()), serde_json::from_str(&data).unwrap());
                return Some(Event { kind, id, data });
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("an event in time");
            self.text.push_str(std::str::from_utf8(&chunk.ok()??).unwrap());
        }
    }

    async fn take(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.next().await.expect("an event"));
        }
        events
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().filter(|l| !l.is_empty()).map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_is_gone_on_with_where_it_was() {
    let site = Site::start().await;
    let mut live = Feed::open(&site, "", None).await;
    for n in 0..4 {
        site.publish(&format!("b{n}"), vec![add(&format!("p/{n}"), "x"), remove("absent")]).await;
    }
    let events = live.take(8).await;
    let kinds: Vec<&str> = events.iter().map(|e| e.kind.as_str()).collect();
    assert_eq!(kinds, ["batch", "checkpoint"].repeat(4), "{events:?}");
    let seqs: Vec<u64> = events.iter().map(|e| e.data["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, events.iter().map(|e| e.id.unwrap()).collect::<Vec<_>>());
    assert!(seqs.is_sorted_by(|a, b| a < b));
    // From any event on, the rest is what was seen; and what comes later comes too.
    for (at, seq) in seqs.iter().enumerate() {
        let mut again = Feed::open(&site, "", Some(*seq)).await;
        assert_eq!(again.take(7 - at).await, events[at + 1..], "after {seq}");
    }
    let mut some = Feed::open(&site, "?from=0&events=batch&glob=p/2", None).await;
    let found = some.next().await.unwrap();
    assert_eq!((found.data["batch"].as_str(), found.data["changes"].as_array().unwrap().len()), (Some("b2"), 1));
    site.publish("b4", vec![add("p/4", "x"), add("p/2", "y")]).await;
    assert_eq!(some.next().await.unwrap().data["batch"], "b4");
    assert_eq!(live.next().await.unwrap().data["batch"], "b4");

    let far = site.ask(Method::GET, "/v1/feed", &[("last-event-id", "9999")]).await;
    assert_eq!(refused(far, 400, "Invalid").await["field"], "Last-Event-ID");
    let greatest = site.ask(Method::GET, "/v1/feed", &[("last-event-id", &u64::MAX.to_string())]).await;
    assert_eq!(refused(greatest, 400, "Invalid").await["field"], "Last-Event-ID");
    let no = site.ask(Method::GET, "/v1/feed", &[("last-event-id", "x")]).await;
    refused(no, 400, "Invalid").await;
    refused(site.get("/v1/feed?events=cut").await, 400, "Invalid").await;
    site.stop().await;
    assert_eq!(live.next().await.map(|e| e.kind), Some("checkpoint".into()));
    assert!(live.next().await.is_none(), "it ends with the server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_feed_tells_of_is_there() {
    let site = Site::start().await;
    let mut feed = Feed::open(&site, "?events=checkpoint", None).await;
    for n in 0..20 {
        site.post("", &serde_json::json!({ "id": format!("b{n}"), "changes": [add("a", &n.to_string())] })).await;
        let told = feed.next().await.expect("a checkpoint");
        let checkpoint = told.data["n"].as_u64().unwrap();
        assert_eq!(site.json(&format!("/v1/checkpoints/{checkpoint}")).await["n"], checkpoint);
        assert!(site.visible().await.contains_key("a"), "clients find it");
    }
    // Who has met no event yet knows where to go on from all the same.
    let mut quiet = site.get("/v1/feed?events=checkpoint&from=5&glob=none").await;
    let first = tokio::time::timeout(PATIENCE, quiet.chunk()).await.expect("at once").unwrap().unwrap();
    assert!(first.starts_with(b"id: 4\n\n"), "{first:?}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_the_past_join() {
    let site = Site::start().await;
    for n in 0..40 {
        site.post("", &serde_json::json!({ "id": format!("b{n:02}"), "changes": [add("a", &n.to_string())] })).await;
    }
    site.publish("last", vec![add("a", "x")]).await;
    // As many as were asked for, and none twice or never.
    let (mut query, mut batches) = (String::from("limit=9"), Vec::new());
    loop {
        let page = site.json(&format!("/v1/history/a?{query}")).await;
        let found = page["changes"].as_array().unwrap();
        batches.extend(found.iter().map(|c| c["batch"].as_str().unwrap().to_owned()));
        let Some(before) = page["before"].as_u64() else { break };
        assert_eq!(found.len(), 9, "each batch has a segment of its own");
        query = format!("limit=9&before={before}");
    }
    let expected: Vec<String> =
        ["last".to_owned()].into_iter().chain((0..40).rev().map(|n| format!("b{n:02}"))).collect();
    assert_eq!(batches, expected);
    // The newest records of a kind, further and further back, are those of the whole.
    for kind in ["", "&kind=commit", "&kind=cut,checkpoint", "&kind=root", "&kind=recovery"] {
        let seqs = |page: &Value| -> Vec<u64> {
            page["records"].as_array().unwrap().iter().map(|r| r["seq"].as_u64().unwrap()).collect()
        };
        let whole = site.json(&format!("/v1/log?from=0&limit=1000{kind}")).await;
        let (mut found, mut to) = (Vec::new(), String::new());
        loop {
            let page = site.json(&format!("/v1/log?limit=7{kind}{to}")).await;
            found.splice(0..0, seqs(&page));
            match page["from"].as_u64().unwrap() {
                0 => break,
                from => to = format!("&to={}", from - 1),
            }
        }
        assert_eq!(found, seqs(&whole), "{kind}");
        let shown: Vec<&Value> = whole["records"].as_array().unwrap().iter().collect();
        assert!(
            shown
                .iter()
                .all(|r| r["valid"] == true && r["verdicts"].as_array().is_none_or(|v| v[0]["verdict"] == "valid"))
        );
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_bounded_and_end_with_the_server() {
    let mut site = Site::start().await;
    site.publish("one", vec![add("a", "x")]).await;
    let mut streams = Vec::new();
    let busy = loop {
        let stream = site.get("/v1/replay?follow=true").await;
        if stream.status() != StatusCode::OK {
            break stream;
        }
        streams.push(stream);
    };
    refused(busy, 503, "Unavailable").await;
    assert_eq!(streams.len(), 64);
    drop(streams.split_off(1));
    // Their places are free again once the server has seen that nobody reads.
    let again = tokio::time::timeout(PATIENCE, async {
        loop {
            site.publish(&format!("w{}", rand()), vec![add("a", "y")]).await;
            let again = site.get("/v1/replay?to=3").await;
            if again.status() == StatusCode::OK {
                return again;
            }
        }
    });
    assert!(!lines(&again.await.expect("room again").text().await.unwrap()).is_empty());
    let mut stream = streams.pop().unwrap();
    let stopped = site.stop_serving();
    // An answer that follows is cut off, so nobody takes it for whole.
    let end = tokio::time::timeout(PATIENCE, async { while let Ok(Some(_)) = stream.chunk().await {} }).await;
    assert!(end.is_ok());
    tokio::time::timeout(Duration::from_secs(10), stopped).await.expect("it does not wait for readers").unwrap();
}

fn rand() -> u64 {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_about_the_past_say_what_is_wrong_with_them() {
    let site = Site::start().await;
    site.publish("one", vec![add("a/b", "x")]).await;
    site.publish("two", vec![add("a/b", "yy")]).await;
    for (path, field) in [
        ("/v1/targets/a?at=x", "at"),
        ("/v1/targets/a?at=99", "at"),
        ("/v1/targets/a?origin=some", "origin"),
        ("/v1/targets/a?at=1970-01-02", "at"),
        ("/v1/bins?at=0", "at"),
        ("/v1/bins/bins-zz", "bin"),
        ("/v1/bins/bins-0?limit=0", "limit"),
        ("/v1/search", "glob"),
        ("/v1/search?glob=[", "glob"),
        ("/v1/search?glob=*&after=..", "path"),
        ("/v1/history/a%2F..", "path"),
        ("/v1/history/a?before=x", "before"),
        ("/v1/log?kind=cuts", "kind"),
        ("/v1/log/x", "seq"),
        ("/v1/diff?to=1", "from"),
        ("/v1/diff?from=1&to=9", "to"),
        ("/v1/diff?from=0", "from"),
        ("/v1/diff?from=seq:9999", "from"),
        ("/v1/replay?follow=yes", "follow"),
        ("/v1/replay?form=1", "form"),
        ("/v1/replay?from=9999", "from"),
        ("/v1/rates?after=x", "after"),
    ] {
        assert_eq!(refused(site.get(path).await, 400, "Invalid").await["field"], field, "{path}");
    }
    refused(site.get("/v1/log/9999").await, 404, "NotFound").await;
    refused(site.get("/v1/targets/a/b?at=1").await, 404, "NotFound").await;
    assert_eq!(site.json("/v1/targets/a/b?at=2").await["length"], 1);
    assert_eq!(site.json("/v1/targets/a/b?at=0s").await["length"], 2);
    let target = site.json("/v1/targets/a/b?origin=full").await;
    assert_eq!((target["origin"]["batch"].as_str(), target["origin"]["checkpoint"].as_u64()), (Some("two"), Some(3)));
    let diff = lines(&site.get("/v1/diff?from=2").await.text().await.unwrap());
    assert_eq!(
        (diff.len(), diff[0]["diff"].as_str(), diff[0]["after"]["length"].as_u64()),
        (1, Some("changed"), Some(2))
    );
    let history = site.json("/v1/history/a/b").await;
    let batches: Vec<&str> =
        history["changes"].as_array().unwrap().iter().map(|c| c["batch"].as_str().unwrap()).collect();
    assert_eq!(batches, ["two", "one"]);
    site.stop().await;
}
