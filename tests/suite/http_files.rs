//! What TUF clients fetch over HTTP: metadata with its caching and encodings, target files; tokens; odd paths.

use std::io::Read;

use reqwest::{Method, header::HeaderMap};
use serde_json::json;
use tuflog::http::{Options, Tokens};

use crate::http_site::{Setup, Site, add, digest, refused, remove};

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |v| v.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versioned_files_are_immutable_and_the_timestamp_is_asked_for_each_time() {
    let site = Site::start().await;
    site.publish("a", (0..200).map(|i| add(&format!("f/{i}"), "x")).collect()).await;
    let bin = site.json("/v1/targets/f/7").await;
    let path = format!("/metadata/{}.{}.json", bin["version"], bin["bin"].as_str().unwrap());
    let plain = site.get(&path).await;
    let headers = plain.headers().clone();
    let body = plain.bytes().await.unwrap();
    assert_eq!(text(&headers, "cache-control"), "public, max-age=31536000, immutable");
    assert_eq!((text(&headers, "content-type"), text(&headers, "vary")), ("application/json", "accept-encoding"));
    let etag = text(&headers, "etag").to_owned();
    assert!(etag.starts_with('"') && headers.get("content-encoding").is_none());

    let mut etags = vec![etag.clone()];
    for encoding in ["gzip", "zstd"] {
        let packed = site.ask(Method::GET, &path, &[("accept-encoding", encoding)]).await;
        assert_eq!(
            (text(packed.headers(), "content-encoding"), text(packed.headers(), "vary")),
            (encoding, "accept-encoding")
        );
        etags.push(text(packed.headers(), "etag").to_owned());
        let packed = packed.bytes().await.unwrap();
        assert!(packed.len() < body.len());
        let unpacked = match encoding {
            "gzip" => {
                let mut out = Vec::new();
                flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut out).unwrap();
                out
            }
            _ => zstd::bulk::decompress(&packed, 1 << 20).unwrap(),
        };
        assert_eq!(unpacked, body);
    }
    assert!(etags[0] != etags[1] && etags[1] != etags[2] && etags[0] != etags[2], "one for each sequence of bytes");
    let fresh = site.ask(Method::GET, &path, &[("if-none-match", &format!("\"other\", {etag}"))]).await;
    assert_eq!((fresh.status().as_u16(), text(fresh.headers(), "etag")), (304, etag.as_str()));
    assert_eq!(text(fresh.headers(), "cache-control"), "public, max-age=31536000, immutable");
    assert!(fresh.bytes().await.unwrap().is_empty());
    let stale = site.ask(Method::GET, &path, &[("if-none-match", &etag), ("accept-encoding", "gzip")]).await;
    assert_eq!(stale.status(), 200, "another encoding is another thing");
    let head = site.ask(Method::HEAD, &path, &[]).await;
    assert_eq!(
        (head.status().as_u16(), text(head.headers(), "content-length")),
        (200, body.len().to_string().as_str())
    );
    assert_eq!(text(head.headers(), "etag"), etag);

    let timestamp = site.get("/metadata/timestamp.json").await;
    assert_eq!(text(timestamp.headers(), "cache-control"), "no-cache");
    let etag = text(timestamp.headers(), "etag").to_owned();
    let fresh = site.ask(Method::GET, "/metadata/timestamp.json", &[("if-none-match", &etag)]).await;
    assert_eq!(fresh.status(), 304);
    site.publish("b", vec![add("f/0", "y")]).await;
    let moved = site.ask(Method::GET, "/metadata/timestamp.json", &[("if-none-match", &etag)]).await;
    assert_eq!(moved.status(), 200);
    assert_eq!(site.get("/metadata/1.root.json").await.status(), 200);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_never_leads_out_of_where_it_should() {
    let targets = crate::help::scratch();
    std::fs::write(targets.path().join("file"), "x").unwrap();
    let options = Options { targets: Some(targets.path().join("public")), ..Options::default() };
    std::fs::create_dir(targets.path().join("public")).unwrap();
    let site = Site::with(Setup { options, ..Setup::default() }).await;
    std::fs::create_dir(site.dir.path().join("keys")).unwrap();
    std::fs::write(site.dir.path().join("keys/online.pem"), "secret").unwrap();
    for path in [
        "/metadata/../../keys/online.pem",
        "/metadata/..%2F..%2Fkeys%2Fonline.pem",
        "/metadata/%2e%2e/%2e%2e/keys/online.pem",
        "/metadata/.new",
        "/metadata/1.root.json%00",
        "/metadata/1.root.json/",
        "/metadata//1.root.json",
        "/metadata/ledger%2F4.state.json",
        "/metadata/1+root.json",
        "/targets/../file",
        "/targets/%2e%2e/file",
        "/targets/..%2ffile",
        "/targets//etc/passwd",
        "/targets/%2Fetc%2Fpasswd",
        "/targets/",
        "//metadata/timestamp.json",
    ] {
        let answer = site.raw(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("\"kind\":\"NotFound\""), "{path}: {answer}");
    }
    let encoded = site.raw("GET /metadata/%31.root%2Ejson HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(encoded.starts_with("HTTP/1.1 200 "), "an escape of an ordinary character is that character: {encoded}");
    let answer = site.raw("GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn target_files_are_found_under_every_client_s_name_while_they_are_published() {
    let targets = crate::help::scratch();
    std::fs::create_dir(targets.path().join("dir")).unwrap();
    for (name, content) in
        [("dir/file.tar.gz", "hello world"), ("plain", "12345"), ("unpublished", "x"), ("changed", "longer")]
    {
        std::fs::write(targets.path().join(name), content).unwrap();
    }
    let options = Options { targets: Some(targets.path().to_owned()), ..Options::default() };
    let site = Site::with(Setup { options, ..Setup::default() }).await;
    let changes =
        vec![add("dir/file.tar.gz", "hello world"), add("plain", "12345"), add("changed", "short"), add("gone", "x")];
    site.publish("a", changes).await;
    let hash = digest("hello world");
    for path in [format!("dir/{hash}.file.tar.gz"), format!("{hash}.dir/file.tar.gz"), "dir/file.tar.gz".into()] {
        let response = site.get(&format!("/targets/{path}")).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.text().await.unwrap(), "hello world");
    }
    assert_eq!(site.get(&format!("/targets/{}.plain", digest("12345"))).await.text().await.unwrap(), "12345");
    let other = digest("other");
    for path in [
        format!("dir/{other}.file.tar.gz"),
        format!("{other}.dir/file.tar.gz"),
        "unpublished".into(),
        "changed".into(),
        "gone".into(),
        "dir".into(),
    ] {
        refused(site.get(&format!("/targets/{path}")).await, 404, "NotFound").await;
    }
    let part = site.ask(Method::GET, "/targets/dir/file.tar.gz", &[("range", "bytes=6-")]).await;
    assert_eq!((part.status().as_u16(), text(part.headers(), "content-range")), (206, "bytes 6-10/11"));
    assert_eq!(part.text().await.unwrap(), "world");
    let head = site.ask(Method::HEAD, "/targets/dir/file.tar.gz", &[]).await;
    assert_eq!((head.status().as_u16(), text(head.headers(), "content-length")), (200, "11"));
    site.publish("b", vec![remove("dir/file.tar.gz")]).await;
    refused(site.get("/targets/dir/file.tar.gz").await, 404, "NotFound").await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_say_who_may_do_what_and_clients_need_none() {
    let tokens = "publish-0123456789 publish\nread-0123456789ab read\nadmin-0123456789a admin\n";
    let options = Options { tokens: Some(Tokens::parse(tokens).unwrap()), ..Options::default() };
    let site = Site::with(Setup { options, ..Setup::default() }).await;
    let as_ = |token: &str| format!("Bearer {token}");
    let (publish, read, admin) = (as_("publish-0123456789"), as_("read-0123456789ab"), as_("admin-0123456789a"));
    for path in ["/metadata/timestamp.json", "/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(site.get(path).await.status(), 200, "{path}");
    }
    for path in ["/v1/status", "/v1/checkpoints", "/metrics", "/v1/anything"] {
        refused(site.get(path).await, 401, "Unauthorized").await;
        refused(
            site.ask(Method::GET, path, &[("authorization", &as_("unknown-0123456789"))]).await,
            401,
            "Unauthorized",
        )
        .await;
        refused(site.ask(Method::GET, path, &[("authorization", "Basic eDp5")]).await, 401, "Unauthorized").await;
        refused(site.ask(Method::GET, path, &[("authorization", &publish)]).await, 403, "Forbidden").await;
    }
    for token in [&read, &admin] {
        assert_eq!(site.ask(Method::GET, "/v1/status", &[("authorization", token)]).await.status(), 200);
        assert_eq!(site.ask(Method::GET, "/metrics", &[("authorization", token)]).await.status(), 200);
    }
    let body = json!({"id": "t", "changes": [add("a", "a")]}).to_string();
    let post = async |token: Option<&str>| {
        let request = site.client.post(site.url("/v1/batches")).body(body.clone());
        token.iter().fold(request, |r, t| r.header("authorization", *t)).send().await.unwrap()
    };
    refused(post(None).await, 401, "Unauthorized").await;
    refused(post(Some(&read)).await, 403, "Forbidden").await;
    for token in [&publish, &admin] {
        assert!(post(Some(token)).await.status().is_success());
    }
    site.stop().await;
}
