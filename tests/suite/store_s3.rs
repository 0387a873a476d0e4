//! What the S3 store adds to the contract: conditions that are tried, answers that are lost, errors that say what to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::Notify;
use tuflog::error::{Error, Kind};
use tuflog::store::s3::{S3Store, Settings};
use tuflog::store::{Created, POINTER, Store, metadata_name};

use crate::s3::proxy::{Act, Proxy, Seen};
use crate::s3::{self, Bucket};

fn bytes(n: usize) -> Bytes {
    format!("version {n}").into()
}

async fn refused(settings: &Settings) -> Error {
    S3Store::open(settings).await.err().expect("an error")
}

#[tokio::test]
async fn a_server_that_ignores_a_condition_is_refused() {
    for (header, named) in [("if-none-match", "If-None-Match"), ("if-match", "If-Match")] {
        let proxy = Proxy::start(move |_| Act::Without(header)).await;
        let e = refused(&Bucket::new().through(&proxy).settings()).await;
        assert!(e.kind == Kind::Invalid && e.message.contains(&format!("does not keep {named}")), "{e}");
        let not_implemented = "<Error><Code>NotImplemented</Code><Message>A header you provided …</Message></Error>";
        proxy.rule(move |r| match r.headers.contains_key(header) {
            true => Act::Answer(501, not_implemented),
            false => Act::Pass,
        });
        let e = refused(&Bucket::new().through(&proxy).settings()).await;
        assert!(e.kind == Kind::Invalid && e.message.contains(&format!("does not keep {named}")), "{e}");
    }
}

#[tokio::test]
async fn the_trial_of_the_conditions_leaves_nothing_and_survives_lost_answers() {
    let bucket = Bucket::new();
    let store = bucket.open().await;
    let probes = AtomicUsize::new(0);
    let lost = move |r: &Seen| r.is_probe() && probes.fetch_add(1, Ordering::SeqCst) < 3;
    let proxy = Proxy::start(move |r| if lost(r) { Act::DropAnswer } else { Act::Pass }).await;
    bucket.through(&proxy).open().await;
    assert_eq!(store.list("").await, Ok(vec![]));
    let left = bucket.dir.join("a/prefix/.probe");
    assert_eq!(std::fs::read_dir(left).map_or(0, |d| d.count()), 0);
    store.swap_pointer(None, bytes(1)).await.unwrap();
    assert!(bucket.dir.join("a/prefix").join(POINTER).exists(), "the prefix is where the URL says");
}

#[tokio::test]
async fn a_swap_costs_one_request_and_a_sync_of_what_was_created_none() {
    let bucket = Bucket::new();
    let proxy = Proxy::start(|_| Act::Pass).await;
    let (store, other) = (bucket.through(&proxy).open().await, bucket.open().await);
    proxy.requests();
    store.create("metadata/1.a.json", bytes(1)).await.unwrap();
    store.swap_pointer(None, bytes(1)).await.unwrap();
    store.swap_pointer(Some(&bytes(1)), bytes(2)).await.unwrap();
    store.sync(&["metadata/1.a.json".into()]).await.unwrap();
    assert_eq!(proxy.requests(), ["PUT 1.a.json", "PUT timestamp.json", "PUT timestamp.json"]);
    other.create("metadata/2.a.json", bytes(1)).await.unwrap();
    for requests in [vec!["HEAD 2.a.json"], vec![]] {
        store.sync(&["metadata/2.a.json".into()]).await.unwrap();
        assert_eq!(proxy.requests(), requests);
    }
    other.swap_pointer(Some(&bytes(2)), bytes(3)).await.unwrap();
    assert_eq!(store.swap_pointer(Some(&bytes(2)), bytes(4)).await, Ok(false));
    assert_eq!(store.swap_pointer(Some(&bytes(3)), bytes(4)).await, Ok(true));
    assert_eq!(proxy.requests(), ["PUT timestamp.json", "GET timestamp.json", "PUT timestamp.json"]);
}

#[tokio::test]
async fn answers_that_are_lost_change_no_outcome() {
    let bucket = Bucket::new();
    let proxy = Proxy::start(|_| Act::Pass).await;
    let (store, other) = (bucket.through(&proxy).open().await, bucket.open().await);
    proxy.rule(|r| if r.is_put() && r.before.is_multiple_of(2) { Act::DropAnswer } else { Act::Pass });
    let name = |n: usize| metadata_name(n as u64, "bins-00");
    for n in 0..5 {
        assert_eq!(store.create(&name(n), bytes(n)).await, Ok(Created::Same));
        assert_eq!(other.get(&name(n)).await, Ok(Some(bytes(n))));
        other.create(&name(n + 10), bytes(0)).await.unwrap();
        assert_eq!(store.create(&name(n + 10), bytes(1)).await, Ok(Created::Other(bytes(0))));
    }
    assert_eq!(store.swap_pointer(None, bytes(1)).await, Ok(true));
    for n in 1..6 {
        assert_eq!(store.swap_pointer(Some(&bytes(n)), bytes(n + 1)).await, Ok(true), "{n}");
        assert_eq!(other.get(POINTER).await, Ok(Some(bytes(n + 1))));
    }
    // An answer of the server that says nothing about what happened.
    proxy.requests();
    proxy.rule(|r| if r.is_put() && r.before == 0 { Act::Answer(500, "") } else { Act::Pass });
    assert_eq!(store.create(&name(20), bytes(1)).await, Ok(Created::New));
    assert_eq!(store.swap_pointer(Some(&bytes(6)), bytes(7)).await, Ok(true));
    assert_eq!(store.swap_pointer(None, bytes(8)).await, Ok(false), "nobody had begun this one before");
}

#[tokio::test]
async fn a_swap_that_others_went_on_from_before_its_answer_was_missed_is_indeterminate() {
    let bucket = Bucket::new();
    let proxy = Proxy::start(|_| Act::Pass).await;
    let (store, other) = (Arc::new(bucket.through(&proxy).open().await), bucket.open().await);
    store.swap_pointer(None, bytes(1)).await.unwrap();
    proxy.requests();
    let (acted, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let hold = Act::HoldAnswer(acted.clone(), release.clone());
    proxy.rule(move |r| if r.is_put() && r.before == 0 { hold.clone() } else { Act::Pass });
    let slow = tokio::spawn(async move { store.swap_pointer(Some(&bytes(1)), bytes(2)).await });
    acted.notified().await;
    assert_eq!(other.swap_pointer(Some(&bytes(2)), bytes(3)).await, Ok(true));
    release.notify_one();
    assert_eq!(slow.await.unwrap().unwrap_err().kind, Kind::Indeterminate);
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again_and_one_that_stays_so_is_given_up() {
    let bucket = Bucket::new();
    let proxy = Proxy::start(|_| Act::Pass).await;
    let mut settings = bucket.through(&proxy).settings();
    settings.options.0.insert("timeout".into(), "300ms".into());
    let store = S3Store::open(&settings).await.unwrap();
    store.swap_pointer(None, bytes(1)).await.unwrap();
    for fault in [Act::Answer(503, "SlowDown"), Act::Answer(429, ""), Act::Late(Duration::from_secs(2))] {
        let (once, always) = (fault.clone(), fault.clone());
        proxy.requests();
        proxy.rule(move |r| if r.before == 0 { once.clone() } else { Act::Pass });
        let name = "metadata/8.a.json";
        assert!(store.create(name, bytes(1)).await.is_ok());
        assert_eq!(store.get(name).await, Ok(Some(bytes(1))));
        assert_eq!(store.list("metadata/8").await, Ok(vec![name.to_owned()]));
        let begin = Instant::now();
        proxy.rule(move |_| always.clone());
        let e = store.create("metadata/9.a.json", bytes(1)).await.unwrap_err();
        let kind = if matches!(fault, Act::Answer(429, _)) { Kind::Unavailable } else { Kind::Indeterminate };
        assert_eq!(e.kind, kind, "{e}");
        assert_eq!(store.swap_pointer(Some(&bytes(1)), bytes(2)).await.unwrap_err().kind, kind);
        assert_eq!(store.get("metadata/9.a.json").await.unwrap_err().kind, Kind::Unavailable);
        assert_eq!(store.list("").await.unwrap_err().kind, Kind::Unavailable);
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn at_the_start_what_is_wrong_is_for_the_operator() {
    let bucket = Bucket::new();
    let good = bucket.settings();
    let mut settings = good.clone();
    settings.options.0.insert("secret_access_key".into(), "wrong".into());
    let e = refused(&settings).await;
    assert!(e.kind == Kind::Invalid && e.message.contains("SignatureDoesNotMatch"), "{e}");
    assert_eq!(e.field.as_deref(), Some("store credentials"));
    settings.options.0.insert("access_key_id".into(), "nobody".into());
    let e = refused(&settings).await;
    assert!(e.kind == Kind::Invalid && e.message.contains("access key"), "{e}");
    assert_eq!(e.field.as_deref(), Some("store credentials"));

    for open_to_read in [false, true] {
        let settings = Settings { url: "s3://no-such-bucket/x".into(), ..good.clone() };
        let e = match open_to_read {
            false => refused(&settings).await,
            true => S3Store::open_read_only(&settings).await.err().expect("an error"),
        };
        assert!(e.kind == Kind::Invalid && e.message.contains("NoSuchBucket"), "{e}");
        assert_eq!(e.field.as_deref(), Some("store.url"));
    }
    let settings = Settings { region: Some("eu-west-9".into()), ..good.clone() };
    let e = refused(&settings).await;
    assert!(e.kind == Kind::Invalid && e.message.contains("us-east-1"), "{e}");

    let proxy = Proxy::start(|_| Act::Pass).await;
    let denied = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
    proxy.rule(move |r| if r.path.ends_with("/none") { Act::Answer(403, denied) } else { Act::Pass });
    let e = refused(&bucket.through(&proxy).settings()).await;
    assert!(e.kind == Kind::Invalid && e.message.contains("AccessDenied"), "may read, but not list: {e}");

    let nobody = Settings { endpoint: Some("http://127.0.0.1:1".into()), ..good.clone() };
    let e = refused(&nobody).await;
    assert!(e.kind == Kind::Unavailable && e.message.contains("refused"), "{e}");
}

#[tokio::test]
async fn later_what_is_wrong_may_come_back() {
    let bucket = Bucket::new();
    let proxy = Proxy::start(|_| Act::Pass).await;
    let store = bucket.through(&proxy).open().await;
    store.create("metadata/1.a.json", bytes(1)).await.unwrap();
    store.swap_pointer(None, bytes(1)).await.unwrap();
    let expired = "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
    let no_bucket = "<Error><Code>NoSuchBucket</Code><Message>The bucket does not exist</Message></Error>";
    let unknown = "<Error><Code>InvalidAccessKeyId</Code><Message>…</Message></Error>";
    for fault in [
        Act::Answer(403, expired),
        Act::Answer(401, ""),
        Act::Answer(404, unknown),
        Act::Answer(404, no_bucket),
        Act::Answer(400, ""),
    ] {
        proxy.rule(move |_| fault.clone());
        let kinds = [
            store.create("metadata/2.a.json", bytes(1)).await.unwrap_err(),
            store.get("metadata/1.a.json").await.unwrap_err(),
            store.get(POINTER).await.unwrap_err(),
            store.swap_pointer(Some(&bytes(1)), bytes(2)).await.unwrap_err(),
            store.sync(&["metadata/3.a.json".into()]).await.unwrap_err(),
            store.list("").await.unwrap_err(),
        ];
        assert!(kinds.iter().all(|e| e.kind == Kind::Unavailable), "{kinds:?}");
    }
    proxy.rule(|_| Act::Pass);
    assert_eq!(store.swap_pointer(Some(&bytes(1)), bytes(2)).await, Ok(true));
    assert_eq!(store.sync(&["metadata/3.a.json".into()]).await.unwrap_err().kind, Kind::Corrupt);
}

#[tokio::test]
async fn a_store_opened_to_read_changes_nothing() {
    let bucket = Bucket::new();
    let store = bucket.open().await;
    store.create("metadata/1.a.json", bytes(1)).await.unwrap();
    store.swap_pointer(None, bytes(1)).await.unwrap();
    let proxy = Proxy::start(|_| Act::Pass).await;
    let reader = S3Store::open_read_only(&bucket.through(&proxy).settings()).await.unwrap();
    assert_eq!(reader.get(POINTER).await, Ok(Some(bytes(1))));
    assert_eq!(reader.list("").await, Ok(vec!["metadata/1.a.json".to_owned()]));
    assert_eq!(reader.create("metadata/9.a.json", bytes(1)).await.unwrap_err().kind, Kind::Invalid);
    assert_eq!(reader.sync(&[]).await.unwrap_err().kind, Kind::Invalid);
    assert_eq!(reader.swap_pointer(Some(&bytes(1)), bytes(2)).await.unwrap_err().kind, Kind::Invalid);
    assert!(proxy.requests().iter().all(|r| r.starts_with("GET")));
}

#[tokio::test]
async fn a_list_of_many_pages_is_whole_and_shows_nothing_of_others() {
    let bucket = Bucket::new();
    let store = bucket.open().await;
    let mut names: Vec<String> = (0..2_100).map(|n| metadata_name(n, "bins-00")).collect();
    join_all(names.iter().map(|name| store.create(name, bytes(1)))).await.into_iter().for_each(|c| drop(c.unwrap()));
    let foreign = Settings { url: format!("s3://{}/a/prefix-2", bucket.name), ..bucket.settings() };
    S3Store::open(&foreign).await.unwrap().create("metadata/x", bytes(1)).await.unwrap();
    std::fs::write(bucket.dir.join("a/prefix/.hidden"), "x").unwrap();
    names.sort();
    assert_eq!(store.list("").await.as_ref(), Ok(&names));
    names.retain(|name| name.starts_with("metadata/12"));
    assert_eq!(store.list("metadata/12").await, Ok(names));
}

/// Not a test: `cargo test --locked --test suite -- --ignored --nocapture measure_the_s3_store`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_the_s3_store() {
    let bucket = Bucket::new();
    let store = bucket.open().await;
    let name = |n: u64| metadata_name(n, "bins-00");
    let begin = Instant::now();
    join_all((0..1_000).map(|n| {
        let (store, name) = (&store, name(n));
        async move { store.create(&name, vec![n as u8; 60_000].into()).await.unwrap() }
    }))
    .await;
    println!("create: {:.0} objects of 60 kB a second, 32 in flight", 1e3 / begin.elapsed().as_secs_f64());
    store.swap_pointer(None, bytes(0)).await.unwrap();
    let mut took: Vec<Duration> = Vec::new();
    for n in 0..500 {
        let begin = Instant::now();
        assert!(store.swap_pointer(Some(&bytes(n)), bytes(n + 1)).await.unwrap());
        took.push(begin.elapsed());
    }
    took.sort();
    println!("swap: p50 {:?}, p99 {:?}", took[250], took[495]);
    println!("server: {}", s3::endpoint());
}
