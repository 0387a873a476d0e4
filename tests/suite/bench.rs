//! `tuflog bench` against a real node, and against one whose answers a proxy makes into lies: each must be named.

use std::collections::HashMap;
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};
use tuflog::tuf::{Envelope, Meta, Root, Signer, key_file, parse, role};

use crate::help;
use crate::server::{self, Server, said};

/// Runs a short load; answers how it ended and its report.
fn bench(url: &str, options: &[&str]) -> (Output, Value) {
    let usual = ["bench", "--json", "--server", url, "--read-every", "50", "--producers", "4", "--batch-size", "40"];
    let out = server::command(&[&usual[..], options].concat()).output().expect("the binary runs");
    let report = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&out)));
    (out, report)
}

fn node(data: &Path) -> Server {
    server::init(data, &["--bins", "16", "--partitions", "2"]);
    Server::start(data, &[])
}

#[test]
fn a_run_against_an_honest_node_finds_nothing_and_can_be_removed_again() {
    let scratch = help::scratch();
    let data = scratch.path().join("data");
    let server = node(&data);
    let url = server.url();
    let sha256 = "ab".repeat(32);
    server::run(&["add", "mine", "--length", "3", "--sha256", &sha256, "--server", &url]);
    let page = scratch.path().join("bench.html");
    let options = ["--seed", "7", "--duration", "2", "--targets", "500", "--plot", page.to_str().unwrap()];
    let (out, report) = bench(&url, &options);
    assert_eq!(out.status.code(), Some(0), "{}", said(&out));

    let schema = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/bench.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_slice(&schema).unwrap()).unwrap();
    let errors: Vec<String> = schema.iter_errors(&report).map(|e| e.to_string()).collect();
    assert_eq!(errors, Vec::<String>::new(), "{report:#}");
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}"));
    let (changes, batches) = (number("/changes"), number("/batches"));
    let in_seconds =
        |what: &str| -> f64 { report["seconds"].as_array().unwrap().iter().map(|s| s[what].as_f64().unwrap()).sum() };
    assert_eq!((in_seconds("committed"), in_seconds("published")), (changes, changes));
    assert!(batches > 4.0 && changes > batches && changes <= 40.0 * batches, "{changes} in {batches}");
    assert!((2.0..60.0).contains(&number("/load_s")));
    assert_eq!(number("/visible/batches"), batches);
    assert!(number("/committed/p50_ms") > 0.0 && number("/committed/p50_ms") <= number("/visible/max_ms"));
    assert!(number("/checkpoints") >= 2.0 && number("/readers/looks") >= 2.0 && number("/readers/batches") >= 2.0);
    assert_eq!((number("/readers/unavailable"), number("/findings_total"), number("/checked/bins")), (0.0, 0.0, 16.0));
    // Those of the load, and those that added targets before it: one for each producer.
    assert_eq!(number("/checked/batches"), batches + 4.0);
    assert!(number("/written/store_bytes") > changes && number("/written/disk_bytes") > changes);
    assert!(number("/server/cpu_s") > 0.0 && number("/server/peak_rss_bytes") > 1e6);
    assert!(number("/client/cpu_s") > 0.0);
    check_page(&std::fs::read_to_string(&page).unwrap());

    // No two runs write the same paths.
    let again = server::command(&["bench", "--server", &url, "--seed", "7"]).output().unwrap();
    assert_eq!(again.status.code(), Some(2), "{}", said(&again));
    assert!(said(&again).contains("--clean"), "{}", said(&again));
    // A repository that cannot be believed is not a wrong command line.
    let forged = scratch.path().join("root.json");
    std::fs::write(&forged, "{}").unwrap();
    let begun = ["bench", "--server", &url, "--seed", "8", "--root", forged.to_str().unwrap()];
    for clean in [&[][..], &["--clean"]] {
        let out = server::command(&[&begun[..], clean].concat()).output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{}", said(&out));
        assert!(said(&out).contains("the repository: cannot be read: the first root"), "{}", said(&out));
    }
    let cleaned = server::run(&["bench", "--clean", "--seed", "7", "--server", &url]);
    assert!(cleaned.starts_with("removed "), "{cleaned}");
    server.stop();
    let left = server::published(&data.join("store"));
    assert_eq!(left, [("mine".to_owned(), 3)].into());
    server::run(&["audit", "--data", data.to_str().unwrap()]);
}

/// It loads nothing, and what it opens it closes.
fn check_page(page: &str) {
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg") && page.contains("prefers-color-scheme:dark"));
    for foreign in ["http:", "https:", "url(", "@import", "<script", "<link", "<img", "src=", "href="] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let mut open = Vec::new();
    for tag in page.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag ends");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if tag.starts_with(['!', 'm']) || tag.ends_with('/') => {} // doctype, meta
            None => open.push(tag.split(' ').next().unwrap()),
        }
    }
    assert_eq!(open, Vec::<&str>::new());
    assert!(!page.contains("NaN") && !page.contains("inf "), "{page}");
}

#[test]
fn a_rate_is_kept_and_producers_can_wait_until_clients_see_it() {
    let scratch = help::scratch();
    let server = node(&scratch.path().join("data"));
    let options = ["--rate", "400", "--changes", "800", "--wait", "published", "--skew", "hot:2:90", "--mix", "1:0:0"];
    let (out, report) = bench(&server.url(), &options);
    assert_eq!(out.status.code(), Some(0), "{}", said(&out));
    assert_eq!((&report["changes"], &report["batches"]), (&json!(800), &json!(20)));
    assert!(report["load_s"].as_f64().unwrap() > 1.5, "{report:#}");
    assert_eq!((&report["visible"]["batches"], &report["load"]["probes"]), (&json!(20), &json!(0)));
    assert_eq!(report.get("committed"), None);
    server.stop();
}

/// What the proxy does.
#[derive(Clone, Copy, PartialEq)]
enum Lie {
    /// Flips a bit of every bin that is not its first version.
    Altered,
    /// Answers the timestamp now and then with the first one.
    OldTimestamp,
    /// Answers every bin with the version of it that was asked for first.
    OldBin,
    /// Answers one POST itself.
    Unsent,
    /// Leaves out the newest bins.
    Missing,
    /// Signs what half of the bins held at first as their newest version, with the repository's own key.
    Split,
    /// Adds a root, with the repository's own keys, that has expired.
    ExpiredRoot,
    /// States now and then, with its key, that the newest snapshot is longer than it was before.
    OtherSnapshot,
    /// States at first, with its key, a newer `targets.json` than there is, and then the truth.
    OldTargets,
}

struct Proxy {
    lie: Lie,
    to: String,
    http: reqwest::Client,
    keys: Keys,
    seen: Mutex<Seen>,
}

/// The repository's own.
struct Keys {
    online: Arc<Signer>,
    root: Arc<Signer>,
}

/// At which look at the timestamp a lie begins that must come after a look at the truth, or ends that must come before.
const TURN: u64 = 5;

#[derive(Default)]
struct Seen {
    /// The first content by name without version.
    first: HashMap<String, Bytes>,
    asked: u64,
    posts: u64,
    seq: u64,
    unsent: Option<String>,
    /// The timestamp answered last.
    timestamp: Option<Bytes>,
    /// Metadata files that only the proxy has.
    forged: HashMap<String, Bytes>,
}

impl Proxy {
    /// Answers its address, and itself.
    async fn start(lie: Lie, to: String, keys: Keys) -> (String, Arc<Proxy>) {
        let proxy = Arc::new(Proxy { lie, to, http: reqwest::Client::new(), keys, seen: Mutex::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(pass).with_state(proxy.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, proxy)
    }

    /// The answer to a POST that nobody else will see, if it is the one.
    fn swallowed(&self, body: &[u8]) -> Option<Bytes> {
        let mut seen = self.seen.lock().unwrap();
        seen.posts += 1;
        let id = serde_json::from_slice::<Value>(body).ok()?["id"].as_str()?.to_owned();
        if self.lie != Lie::Unsent || seen.posts < 10 || seen.unsent.is_some() {
            return None;
        }
        let answer = json!({"batch": id, "seq": seen.seq, "basis": seen.seq - 1, "state": "committed"});
        seen.unsent = Some(id);
        Some(answer.to_string().into())
    }

    /// What is answered instead of `body`.
    fn twisted(&self, path: &str, body: Bytes) -> Option<Bytes> {
        let mut seen = self.seen.lock().unwrap();
        if let Some(seq) = serde_json::from_slice::<Value>(&body).ok().and_then(|b| b["seq"].as_u64()) {
            seen.seq = seen.seq.max(seq);
        }
        let Some(file) = path.strip_prefix("/metadata/") else { return Some(body) };
        let name = file.split_once('.').filter(|(version, _)| version.parse::<u64>().is_ok()).map_or(file, |(_, n)| n);
        let first = seen.first.entry(name.to_owned()).or_insert_with(|| body.clone()).clone();
        let is_bin = name.starts_with("bins-") && first != body;
        seen.asked += u64::from(file == "timestamp.json");
        if let Some(forged) = seen.forged.get(file) {
            return Some(forged.clone());
        }
        let last = seen.timestamp.clone();
        if file == "timestamp.json" {
            seen.timestamp = Some(body.clone());
        }
        match self.lie {
            Lie::OtherSnapshot if file == "timestamp.json" && seen.asked.is_multiple_of(4) => {
                Some(self.longer(&last.unwrap()))
            }
            Lie::Altered if is_bin => {
                let mut altered = body.to_vec();
                let middle = altered.len() / 2;
                altered[middle] ^= 1;
                Some(altered.into())
            }
            Lie::OldTimestamp if file == "timestamp.json" && seen.asked.is_multiple_of(4) => Some(first),
            Lie::OldBin if is_bin => Some(first),
            Lie::Missing if is_bin => None,
            Lie::Split if is_bin && name < "bins-8" => Some(self.signed_again(&first, &body)),
            _ => Some(body),
        }
    }
}

impl Proxy {
    fn online(&self) -> &[Arc<Signer>] {
        std::slice::from_ref(&self.keys.online)
    }

    /// The timestamp after this one, with the same snapshot, which it says to be longer.
    fn longer(&self, timestamp: &[u8]) -> Bytes {
        let old = parse::parse_timestamp(Envelope::open(timestamp).unwrap().signed).unwrap();
        let snapshot = Meta { length: old.snapshot.length + 1, ..old.snapshot };
        role::timestamp(self.online(), old.version + 1, old.expires, &snapshot).into()
    }

    /// A metadata file of the node.
    async fn real(&self, file: &str) -> Bytes {
        let answer = self.http.get(format!("{}/metadata/{file}", self.to)).send().await.unwrap();
        answer.error_for_status().unwrap().bytes().await.unwrap()
    }

    /// Makes what only the proxy has, before `file` is answered.
    async fn forge(&self, file: &str) {
        let asked = self.seen.lock().unwrap().asked;
        let mut forged = HashMap::new();
        match self.lie {
            Lie::ExpiredRoot if asked == TURN => {
                let (root, _) = Root::parse(&self.real("1.root.json").await).unwrap();
                let root = Root { version: 2, expires: 1_000_000_000, ..root };
                let root = root.render(std::slice::from_ref(&self.keys.root)).unwrap();
                forged.insert("2.root.json".to_owned(), root.into());
            }
            Lie::OldTargets if file == "timestamp.json" && asked < TURN => {
                let (root, _) = Root::parse(&self.real("1.root.json").await).unwrap();
                let timestamp = self.real(file).await;
                let timestamp = parse::parse_timestamp(Envelope::open(&timestamp).unwrap().signed).unwrap();
                let name = format!("{}.snapshot.json", timestamp.snapshot.version);
                let snapshot = self.real(&name).await;
                let snapshot = parse::parse_snapshot(Envelope::open(&snapshot).unwrap().signed).unwrap();
                let version = snapshot.targets.version + 1;
                let targets = role::targets(self.online(), version, snapshot.expires, &root, 4);
                let bins: Vec<String> =
                    snapshot.bins.iter().map(|(bin, v)| format!("\"{bin}.json\":{{\"version\":{v}}}")).collect();
                let (stated, bins) = (Meta::of(version, &targets), bins.join(","));
                let again = role::snapshot(self.online(), snapshot.version, snapshot.expires, &stated, bins.as_bytes());
                let stated = Meta::of(snapshot.version, &again);
                let pointer = role::timestamp(self.online(), timestamp.version, timestamp.expires, &stated);
                forged.insert(format!("{version}.targets.json"), targets.into());
                forged.insert(name, again.into());
                forged.insert(file.to_owned(), pointer.into());
            }
            Lie::OldTargets if asked == TURN => {
                self.seen.lock().unwrap().forged.remove("timestamp.json");
            }
            _ => {}
        }
        self.seen.lock().unwrap().forged.extend(forged);
    }

    /// The targets of `old` under the version of `new`.
    fn signed_again(&self, old: &[u8], new: &[u8]) -> Bytes {
        let [old, new] = [old, new].map(|b| parse::parse_bin(Envelope::open(b).unwrap().signed).unwrap());
        let members: Vec<String> = old.targets.iter().map(|(path, target)| format!("\"{path}\":{target}")).collect();
        role::bin(self.online(), new.version, new.expires, members.join(",").as_bytes()).into()
    }
}

async fn pass(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let answer = |status: StatusCode, body: Bytes| {
        Response::builder()
            .status(status)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .unwrap()
    };
    if parts.method == "POST"
        && let Some(lie) = proxy.swallowed(&body)
    {
        return answer(StatusCode::ACCEPTED, lie);
    }
    proxy.forge(parts.uri.path().trim_start_matches("/metadata/")).await;
    let url = format!("{}{}", proxy.to, parts.uri);
    let sent = proxy.http.request(parts.method, url).header(header::CONTENT_TYPE, "application/json").body(body).send();
    let Ok(real) = sent.await else { return answer(StatusCode::BAD_GATEWAY, Bytes::new()) };
    let (status, body) = (real.status(), real.bytes().await.unwrap());
    let real = body.clone();
    match proxy.twisted(parts.uri.path(), body) {
        Some(body) if body != real => answer(StatusCode::OK, body),
        Some(body) => answer(status, body),
        None => answer(StatusCode::NOT_FOUND, Bytes::from_static(b"{}")),
    }
}

/// The findings of a run through a lying proxy, as `kind: message`; and the batch that it kept for itself.
fn found(lie: Lie) -> (Vec<String>, Option<String>) {
    let scratch = help::scratch();
    let data = scratch.path().join("data");
    let server = node(&data);
    let key = |name: &str| Arc::new(key_file::load(&data.join("keys").join(name)).unwrap());
    let keys = Keys { online: key("online.pem"), root: key("root-1.pem") };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (url, proxy) = runtime.block_on(Proxy::start(lie, server.url(), keys));
    let (out, report) = bench(&url, &["--duration", "2"]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    server.stop();
    let text = |f: &Value| format!("{}: {}", f["kind"].as_str().unwrap(), f["message"].as_str().unwrap());
    let unsent = proxy.seen.lock().unwrap().unsent.clone();
    (report["findings"].as_array().unwrap().iter().map(text).collect(), unsent)
}

fn assert_found(all: &[String], kind: &str, words: &[&str]) {
    let is = |f: &&String| f.starts_with(kind) && words.iter().all(|word| f.contains(word));
    assert!(all.iter().any(|f| is(&f)), "{kind} {words:?} in {all:#?}");
}

#[test]
fn an_altered_bin_is_named() {
    assert_found(&found(Lie::Altered).0, "altered", &[".bins-"]);
}

#[test]
fn a_timestamp_that_goes_back_is_named() {
    assert_found(&found(Lie::OldTimestamp).0, "went-back", &["timestamp.json", "came after"]);
}

#[test]
fn a_root_that_has_expired_is_named() {
    assert_found(&found(Lie::ExpiredRoot).0, "expired", &["2.root.json", "2001-09-09"]);
}

#[test]
fn a_snapshot_that_is_stated_twice_is_named() {
    assert_found(
        &found(Lie::OtherSnapshot).0,
        "inconsistent",
        &["timestamp.json", "two contents of", ".snapshot.json"],
    );
}

#[test]
fn a_targets_file_that_goes_back_is_named() {
    assert_found(&found(Lie::OldTargets).0, "went-back", &[".snapshot.json", "targets.json has version", "it had"]);
}

#[test]
fn a_bin_of_an_older_snapshot_is_named() {
    assert_found(&found(Lie::OldBin).0, "inconsistent", &[".bins-", "was asked for"]);
}

#[test]
fn a_bin_that_is_not_there_is_named() {
    assert_found(&found(Lie::Missing).0, "missing", &[".bins-", "is not there"]);
}

#[test]
fn a_batch_that_is_visible_in_part_is_named_though_every_signature_is_right() {
    let (all, _) = found(Lie::Split);
    assert_found(&all, "split", &["in part", "bench/"]);
    assert!(all.iter().all(|f| !f.starts_with("altered")), "{all:#?}");
}

#[test]
fn an_acknowledged_batch_that_was_never_taken_is_named() {
    let (all, unsent) = found(Lie::Unsent);
    assert_found(&all, "lost", &[&unsent.unwrap(), "is not known"]);
    assert_found(&all, "wrong-target", &["bench/"]);
}
