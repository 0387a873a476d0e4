//! The HTTP API: every route, every form of error, over a real connection.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tuflog::http::openapi;

use crate::help::PATIENCE;
use crate::http_site::{BINS, PARTITIONS, Setup, Site, add, digest, refused, remove};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_goes_from_committed_to_visible_and_every_question_is_answered() {
    let site = Site::start().await;
    let changes = vec![add("dir/a.txt", "a"), add("dir/b+1.txt", "bb"), add("c", "ccc")];
    let (status, first) = site.post("", &json!({"id": "first", "changes": changes})).await;
    assert_eq!((status, &first["state"]), (StatusCode::ACCEPTED, &json!("committed")), "{first}");
    assert_eq!(first["batch"], "first");
    assert!(first["basis"].as_u64() < first["seq"].as_u64(), "{first}");
    let again = site.publish("first", changes).await;
    assert_eq!(again["seq"], first["seq"]);
    let n = again["checkpoint"].as_u64().unwrap();

    let receipt = site.json("/v1/batches/first").await;
    assert_eq!(
        (&receipt["seq"], &receipt["state"], &receipt["checkpoint"]),
        (&first["seq"], &json!("published"), &json!(n))
    );
    assert!(receipt.get("not_found").is_none());
    let visible = site.visible().await;
    assert_eq!(visible.keys().collect::<Vec<_>>(), ["c", "dir/a.txt", "dir/b+1.txt"]);

    let target = site.json("/v1/targets/dir/b+1.txt").await;
    assert_eq!((&target["length"], &target["hashes"]["sha256"]), (&json!(2), &json!(digest("bb"))));
    assert_eq!((&target["checkpoint"], &target["version"]), (&json!(n), &json!(n)));
    assert_eq!(site.json("/v1/targets/dir%2Fb%2B1.txt").await, target, "escapes are undone once");
    let route = site.json("/v1/route/dir/b+1.txt").await;
    assert_eq!((&route["bin"], &route["sha256"]), (&target["bin"], &json!(digest("dir/b+1.txt"))));
    assert!(route["partition"].as_u64().unwrap() < u64::from(PARTITIONS));

    for i in 0..5 {
        site.publish(&format!("more-{i}"), vec![add("c", &i.to_string())]).await;
    }
    let page = site.json("/v1/checkpoints?limit=3").await;
    let numbers = |page: &Value| -> Vec<u64> {
        page["checkpoints"].as_array().unwrap().iter().map(|c| c["n"].as_u64().unwrap()).collect()
    };
    let newest = numbers(&page)[0];
    assert_eq!(numbers(&page), [newest, newest - 1, newest - 2]);
    assert!(
        page["checkpoints"][0]["timestamp"]["version"].is_u64() && page["checkpoints"][1].get("timestamp").is_none()
    );
    let mut all = numbers(&page);
    let mut before = page["before"].clone();
    while let Some(b) = before.as_u64() {
        let page = site.json(&format!("/v1/checkpoints?limit=3&before={b}")).await;
        all.extend(numbers(&page));
        before = page["before"].clone();
    }
    assert_eq!(all, (1..=newest).rev().collect::<Vec<_>>());
    let one = site.json(&format!("/v1/checkpoints/{n}")).await;
    let snapshot = site.get(&format!("/{}", one["snapshot"]["name"].as_str().unwrap())).await.text().await.unwrap();
    assert_eq!(
        (&one["snapshot"]["sha256"], &one["snapshot"]["length"]),
        (&json!(digest(&snapshot)), &json!(snapshot.len()))
    );
    assert!(
        one["seq"].as_u64() > first["seq"].as_u64() && one["ends"].as_array().unwrap().len() == PARTITIONS as usize
    );
    assert_eq!(site.json("/v1/checkpoints/4").await["ledger_state"], "ledger/4.state.json");

    let status = site.json("/v1/status").await;
    assert_eq!((&status["layout"]["bins"], &status["published"]["checkpoint"]), (&json!(BINS), &json!(newest)));
    assert_eq!((&status["ready"], status["partitions"].as_array().unwrap().len()), (&json!(true), PARTITIONS as usize));
    assert_eq!(site.get("/healthz").await.status(), 200);
    assert_eq!(site.get("/readyz").await.text().await.unwrap(), "{\"ready\":true}\n");
    assert_eq!(site.json("/openapi.json").await, serde_json::to_value(openapi::document()).unwrap());
    let metrics = site.get("/metrics").await.text().await.unwrap();
    for line in [
        "tuflog_batches_total{outcome=\"committed\"} 6",
        "tuflog_batches_total{outcome=\"duplicate\"} 1",
        "tuflog_objects_created_total{object=\"bin\"}",
        "tuflog_http_requests_total{method=\"GET\",route=\"/v1/targets/{*path}\",status=\"200\"} 2",
        "tuflog_batch_visible_seconds_count 6",
        "tuflog_batch_commit_seconds_count 6",
        "tuflog_fold_position_seq{partition=\"3\"}",
        "tuflog_role_expires_seconds{role=\"root\"}",
        "tuflog_published_lag_seqs 0",
        "tuflog_queue_bytes 0",
        "tuflog_ready 1",
        "# EOF",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_id_is_one_batch_and_other_content_a_conflict() {
    let site = Site::start().await;
    let first = site.publish("id", vec![add("a", "a")]).await;
    let same: Vec<_> = (0..8).map(|_| json!({"id": "id", "changes": [add("a", "a")]})).collect();
    for (status, answer) in futures::future::join_all(same.iter().map(|b| site.post("", b))).await {
        assert_eq!((status.as_u16(), &answer["seq"]), (200, &first["seq"]), "published already: {answer}");
    }
    let other = json!({"id": "id", "changes": [add("a", "b")]}).to_string();
    let response = site.client.post(site.url("/v1/batches")).body(other).send().await.unwrap();
    let error = refused(response, 409, "Conflict").await;
    assert!(error["message"].as_str().unwrap().contains(&first["seq"].to_string()), "{error}");
    let (_, made_up) = site.post("", &json!({"changes": [add("x", "x")]})).await;
    assert_eq!(made_up["batch"].as_str().unwrap().len(), 32, "{made_up}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removals_that_found_nothing_are_in_the_receipt() {
    let site = Site::start().await;
    site.publish("adds", (0..20).map(|i| add(&format!("t/{i}"), "x")).collect()).await;
    let changes = (0..30).map(|i| remove(&format!("t/{i}"))).collect();
    let answer = site.publish("removes", changes).await;
    let mut missing: Vec<String> = (20..30).map(|i| format!("t/{i}")).collect();
    missing.sort();
    assert_eq!(answer["not_found"], json!(missing));
    site.publish("later", vec![remove("t/0"), add("z", "z")]).await;
    assert_eq!(site.json("/v1/batches/removes").await["not_found"], json!(missing), "asked again, after other cuts");
    assert_eq!(site.json("/v1/batches/later").await["not_found"], json!(["t/0"]));
    assert!(site.json("/v1/batches/adds").await.get("not_found").is_none());
    refused(site.get("/v1/targets/t/3").await, 404, "NotFound").await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_beyond_the_horizon_is_found_in_the_full_history() {
    let site = Site::with(Setup { horizon: 20, ..Setup::default() }).await;
    let first = site.publish("old", vec![add("a", "a")]).await;
    for i in 0..12 {
        site.publish(&format!("n{i}"), vec![add("b", &i.to_string())]).await;
    }
    let error = refused(site.get("/v1/batches/old").await, 404, "NotFound").await;
    assert!(error["basis"].as_u64() > first["seq"].as_u64(), "{error}");
    let found = site.json("/v1/batches/old?history=full").await;
    assert_eq!((&found["seq"], &found["checkpoint"]), (&first["seq"], &first["checkpoint"]));
    let error = refused(site.get("/v1/batches/never?history=full").await, 404, "NotFound").await;
    let basis = error["basis"].as_u64().unwrap();
    // A basis below the floor is void: the producer is told to look the id up; only that gives a new basis, for the id
    // may have been valid and forgotten.
    let late = json!({"id": "late", "basis": first["seq"], "changes": [add("a", "late")]}).to_string();
    let response = site.client.post(site.url("/v1/batches")).body(late).send().await.unwrap();
    let error = refused(response, 503, "Indeterminate").await;
    assert_eq!(error.get("basis"), None, "{error}");
    let error = refused(site.get("/v1/batches/late?history=full").await, 404, "NotFound").await;
    assert!(error["basis"].as_u64() >= Some(basis), "{error}");
    let retry = json!({"id": "late", "basis": error["basis"], "changes": [add("a", "late")]});
    assert_eq!(site.post("?wait=published", &retry).await.0, StatusCode::OK);
    // The same id again, once it is forgotten, is another batch: the newest one is answered.
    let second = site.publish("old", vec![add("a", "a2")]).await;
    assert_eq!(site.json("/v1/batches/old?history=full").await["seq"], second["seq"]);
    for i in 0..12 {
        site.publish(&format!("m{i}"), vec![add("b", &i.to_string())]).await;
    }
    assert_eq!(site.json("/v1/batches/old?history=full").await["seq"], second["seq"]);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_has_the_one_form_and_names_what_is_wrong() {
    let site = Site::start().await;
    for (path, status, kind) in [
        ("/v1/batches/none", 404, "NotFound"),
        ("/v1/batches/no%20id", 400, "Invalid"),
        ("/v1/batches/x?history=all", 400, "Invalid"),
        ("/v1/targets/none", 404, "NotFound"),
        ("/v1/targets/a//b", 400, "Invalid"),
        ("/v1/targets/a%00", 400, "Invalid"),
        ("/v1/targets/%ff", 400, "Invalid"),
        ("/v1/route/a%2F..%2Fb", 400, "Invalid"),
        ("/v1/checkpoints/99", 404, "NotFound"),
        ("/v1/checkpoints/0", 404, "NotFound"),
        ("/v1/checkpoints/x", 400, "Invalid"),
        ("/v1/checkpoints/18446744073709551615", 404, "NotFound"),
        ("/v1/checkpoints?limit=0", 400, "Invalid"),
        ("/v1/checkpoints?limit=1001", 400, "Invalid"),
        ("/v1/checkpoints?before=-1", 400, "Invalid"),
        ("/v1/checkpoints?page=2", 400, "Invalid"),
        ("/v1/status?verbose", 400, "Invalid"),
        ("/v1/batches", 405, "Invalid"),
        ("/v1", 404, "NotFound"),
        ("/nowhere", 404, "NotFound"),
        ("/console/nowhere", 404, "NotFound"),
        ("/metadata/", 404, "NotFound"),
        ("/metadata/2.root.json", 404, "NotFound"),
        ("/metadata/1.bins-zz.json", 404, "NotFound"),
        ("/metadata/99.bins-0.json", 404, "NotFound"),
        ("/targets/x", 404, "NotFound"),
    ] {
        refused(site.get(path).await, status, kind).await;
    }
    for (method, path) in
        [(Method::DELETE, "/v1/batches/x"), (Method::PUT, "/metadata/timestamp.json"), (Method::POST, "/v1/status")]
    {
        let response = site.ask(method, path, &[]).await;
        assert!(response.headers().contains_key("allow"), "{path}");
        refused(response, 405, "Invalid").await;
    }
    let sha = digest("x");
    for (query, body, field) in [
        ("", "", ""),
        ("", "[]", ""),
        ("", "{\"changes\":[]}", "changes"),
        ("", "{\"changes\":[],\"extra\":1}", "extra"),
        ("", "{\"id\":\"a b\",\"changes\":[{\"op\":\"remove\",\"path\":\"x\"}]}", "id"),
        ("", "{\"changes\":[{\"op\":\"remove\",\"path\":\"/x\"}]}", "changes[0].path"),
        ("", "{\"changes\":[{\"op\":\"add\",\"path\":\"x\"}]}", "changes[0].length"),
        (
            "",
            &format!(
                "{{\"changes\":[{{\"op\":\"add\",\"path\":\"x\",\"length\":1,\"hashes\":{{\"sha256\":\"{sha}\",\"md5\":\"\"}}}}]}}"
            ),
            "changes[0].hashes",
        ),
        ("?wait=forever", "{}", "wait"),
        ("?wait=committed&wait=published", "{}", "wait"),
        ("?Wait=published", "{}", "Wait"),
    ] {
        let response =
            site.client.post(site.url(&format!("/v1/batches{query}"))).body(body.to_owned()).send().await.unwrap();
        let error = refused(response, 400, "Invalid").await;
        assert!(error["field"].as_str().unwrap_or("").starts_with(field), "{body}: {error}");
    }
    let response =
        site.client.post(site.url("/v1/batches")).header("content-encoding", "br").body("x").send().await.unwrap();
    assert_eq!(refused(response, 400, "Invalid").await["field"], "Content-Encoding");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_above_the_limits_gets_413_and_gzip_is_unpacked() {
    let site = Site::start().await;
    let many = json!({"changes": vec![remove("x"); 100_001]}).to_string();
    assert_eq!(
        refused(site.client.post(site.url("/v1/batches")).body(many.clone()).send().await.unwrap(), 413, "Invalid")
            .await["field"],
        "changes"
    );
    let large = " ".repeat(tuflog::http::MAX_BODY_BYTES + 1);
    refused(site.client.post(site.url("/v1/batches")).body(large.clone()).send().await.unwrap(), 413, "Invalid").await;
    let gzip = |text: &str| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut writer, text.as_bytes()).unwrap();
        writer.finish().unwrap()
    };
    let post = |body: Vec<u8>| {
        site.client.post(site.url("/v1/batches?wait=published")).header("content-encoding", "gzip").body(body).send()
    };
    refused(post(gzip(&large)).await.unwrap(), 413, "Invalid").await;
    refused(post(b"not gzip".to_vec()).await.unwrap(), 400, "Invalid").await;
    let batch = json!({"changes": (0..2_000).map(|i| add(&format!("g/{i}"), "x")).collect::<Vec<_>>()}).to_string();
    assert_eq!(post(gzip(&batch)).await.unwrap().status(), 200);
    assert_eq!(site.visible().await.len(), 2_000);
    let (head, tail) = (r#"{"changes":[{"op":"remove","#, r#""path":"g/0"}]}"#);
    assert_eq!(post([gzip(head), gzip(tail)].concat()).await.unwrap().status(), 200, "as pigz and cat write it");
    assert_eq!(site.visible().await.len(), 1_999);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_requests_that_stand_still_leave_room_for_small_ones() {
    use tuflog::http::{MAX_BODIES_BYTES, MAX_BODY_BYTES};
    let site = Site::start().await;
    let most = MAX_BODY_BYTES - 1_000;
    let mut standing = Vec::new();
    for _ in 0..MAX_BODIES_BYTES / most {
        let mut stream = TcpStream::connect(site.addr).await.unwrap();
        let head = format!("POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_BODY_BYTES}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b' '; most]).await.unwrap();
        standing.push(stream);
    }
    let large = json!({"changes": vec![remove("x"); 50_000]}).to_string();
    let full = async {
        while site.client.post(site.url("/v1/batches")).body(large.clone()).send().await.unwrap().status() != 503 {}
    };
    tokio::time::timeout(PATIENCE, full).await.expect("large ones fill their room");
    assert_eq!(site.post("?wait=published", &json!({"changes": [add("small", "s")]})).await.0, 200);
    drop(standing);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_refused_while_the_node_is_not_fit_and_what_is_under_way_is_answered_at_the_end() {
    use tuflog::http::Cause;
    let mut site = Site::start().await;
    site.health.set(Cause::Disk, "disk full: 12 MiB free, 256 MiB needed");
    let body = json!({"id": "x", "changes": [add("a", "a")]});
    let response = site.client.post(site.url("/v1/batches")).body(body.to_string()).send().await.unwrap();
    assert!(refused(response, 503, "Unavailable").await["message"].as_str().unwrap().contains("disk full"));
    let ready = site.get("/readyz").await;
    assert_eq!(ready.status(), 503);
    assert_eq!(ready.json::<Value>().await.unwrap()["reasons"], json!(["disk full: 12 MiB free, 256 MiB needed"]));
    assert_eq!(site.get("/metadata/timestamp.json").await.status(), 200, "clients do not notice");
    site.health.clear(Cause::Disk);
    assert_eq!(site.post("", &body).await.1["batch"], "x", "and it goes on");

    let waiting = site
        .client
        .post(site.url("/v1/batches?wait=published"))
        .body(json!({"changes": [add("b", "b")]}).to_string())
        .send();
    let waiting = tokio::spawn(waiting);
    while !site.visible().await.contains_key("b") {
        tokio::task::yield_now().await;
    }
    let served = site.stop_serving();
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    tokio::time::timeout(Duration::from_secs(20), served).await.expect("idle connections are closed").unwrap();
    assert!(site.client.get(site.url("/healthz")).send().await.is_err(), "nobody listens any more");
}
