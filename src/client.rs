//! The producer's API over HTTP: connection reuse, time limits, several servers, and retries that cannot do a thing
//! twice. The commands of the command line use it too.
//!
//! ```no_run
//! use tuflog::change::{BatchRequest, ChangeRequest};
//! use tuflog::client::{Client, Settings, Wait};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let token = std::env::var("TUFLOG_TOKEN").ok();
//! let client = Client::new(&Settings { token, ..Settings::new(["https://a.example", "https://b.example"]) })?;
//! let change = ChangeRequest::parse(br#"{"op": "remove", "path": "old/file.txt"}"#)?;
//! let batch = BatchRequest { id: Some("cleanup-7".into()), basis: None, changes: vec![change] };
//! let receipt = client.publish(&batch, Wait::Published).await?;
//! println!("published in checkpoint {:?}", receipt.checkpoint);
//! # Ok(())
//! # }
//! ```
//!
//! Owns the producer's half of invariant 1: a batch has its id before the first try, every try sends the same id and
//! content, and the first basis that an answer brings is kept for all further tries, so that no try can be a second
//! batch however late it arrives.

mod answer;
mod failure;
mod lines;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Url, header};
use serde_json::Value;

use self::answer::Try;
pub(crate) use self::answer::cause;
pub use self::failure::{Failure, Result};
pub use self::lines::Lines;
use crate::change::BatchRequest;
use crate::clock::{Clock, SystemClock};
use crate::query::{BatchAnswer, BatchState};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a server may be silent: longer than it waits for a batch to be published.
const SILENCE: Duration = Duration::from_secs(90);
/// The first pause between two tries, in milliseconds; each further one is twice as long.
const FIRST_PAUSE_MS: u64 = 100;
/// The longest pause between two tries, in milliseconds, unless the server asks for more.
const LONGEST_PAUSE_MS: u64 = 5_000;
/// The longest pause that a server may ask for, in milliseconds.
const LONGEST_RETRY_AFTER_MS: u64 = 60_000;
/// How long a request is tried again unless the user says so, in milliseconds.
const RETRY_FOR_MS: u64 = 60_000;
/// The same for a server that was never there: it may be starting.
const NEVER_THERE_MS: u64 = 2_000;

/// The shortest and the longest pause between two looks at a batch that is not published yet, in milliseconds.
const LOOK_MS: (u64, u64) = (25, 1_000);

/// Which servers, and as whom.
#[derive(Clone)]
pub struct Settings {
    /// URLs, or HOST:PORT: nodes of one repository that take batches. One that does not do is followed by the next.
    pub servers: Vec<String>,
    /// The bearer token.
    pub token: Option<String>,
    /// How long a request is tried again while the servers are away or answer 503, in milliseconds [default: 60,000;
    /// 2,000 while none has ever answered]
    pub retry_for_ms: Option<u64>,
}

impl Settings {
    /// These servers, without a token.
    pub fn new(servers: impl IntoIterator<Item = impl Into<String>>) -> Settings {
        Settings { servers: servers.into_iter().map(Into::into).collect(), token: None, retry_for_ms: None }
    }
}

/// When a batch is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Wait {
    /// It cannot be lost any more.
    Committed,
    /// Clients see it.
    Published,
}

impl Wait {
    /// As the API has it.
    pub fn name(self) -> &'static str {
        match self {
            Wait::Committed => "committed",
            Wait::Published => "published",
        }
    }
}

/// A client for the servers of one repository. See the module.
pub struct Client {
    http: reqwest::Client,
    servers: Vec<Url>,
    /// Counts on from server to server.
    turn: AtomicUsize,
    token: Option<String>,
    retry_for_ms: u64,
    /// The same as long as no server has ever answered.
    never_there_ms: u64,
    /// A server has answered once: from then on its absence is a pause, not a mistake.
    met: AtomicBool,
}

/// What a request came to in the end.
enum Settled {
    Good(Value),
    Absent(Failure),
}

/// A batch that a server has taken.
pub struct Posted {
    /// Its receipt.
    pub receipt: BatchAnswer,
    /// How many tries it took.
    pub tries: u32,
}

impl Client {
    /// A client as the settings say.
    pub fn new(settings: &Settings) -> Result<Client> {
        let (http, servers) = connections(settings)?;
        let (said_ms, token) = (settings.retry_for_ms, settings.token.clone());
        let (retry_for_ms, never_there_ms) = (said_ms.unwrap_or(RETRY_FOR_MS), said_ms.unwrap_or(NEVER_THERE_MS));
        let (turn, met) = (AtomicUsize::new(0), AtomicBool::new(false));
        Ok(Client { http, servers, turn, token, retry_for_ms, never_there_ms, met })
    }

    fn turn(&self) -> usize {
        self.turn.load(Ordering::Relaxed)
    }

    fn base(&self, turn: usize) -> &Url {
        &self.servers[turn % self.servers.len()]
    }

    fn server_at(&self, turn: usize) -> &str {
        self.base(turn).as_str().trim_end_matches('/')
    }

    /// The address of the server that is asked next, for messages.
    pub fn server(&self) -> &str {
        self.server_at(self.turn())
    }

    /// Publishes a batch: tries until a server has taken or refused it, and waits as long as `wait` says, however long
    /// that is (put a limit around it: a batch that is committed stays so). Without an id it gets a random one, which
    /// all tries share; a failure that leaves in doubt whether it happened can be mended only by the caller's own id.
    pub async fn publish(&self, batch: &BatchRequest, wait: Wait) -> Result<BatchAnswer> {
        let id = match &batch.id {
            Some(id) => id.clone(),
            None => random_id()?,
        };
        let request = |basis| BatchRequest { id: Some(id.clone()), basis, changes: batch.changes.clone() };
        let body = |basis| serde_json::to_vec(&request(basis)).unwrap_or_default();
        let posted = self.post(&id, wait, batch.basis, body).await?;
        if wait == Wait::Committed {
            return Ok(posted.receipt);
        }
        self.published(posted.receipt, body).await
    }

    /// Waits until a committed batch is published, by sending it again: that is the same batch, and needs no scope but
    /// the one that brought it. The receipt's basis goes along, so that it stays the same batch however long this takes.
    pub async fn published(&self, receipt: BatchAnswer, body: impl Fn(Option<u64>) -> Vec<u8>) -> Result<BatchAnswer> {
        let (mut receipt, mut pause) = (receipt, LOOK_MS.0);
        let basis = receipt.basis;
        while receipt.state != BatchState::Published {
            let posted = self.post(&receipt.batch, Wait::Published, Some(basis), &body).await;
            receipt = posted.map_err(Failure::after_another_try)?.receipt; // the receipt's own try
            if receipt.state != BatchState::Published {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                pause = (pause * 2).min(LOOK_MS.1);
            }
        }
        Ok(receipt)
    }

    /// `GET`; `None` for what the server does not have.
    pub async fn find(&self, path: &str, query: &[(&str, String)]) -> Result<Option<Value>> {
        let get = |turn, _| self.request(turn, Method::GET, path).map(|r| r.query(query));
        match self.repeat(get, None).await? {
            (Settled::Good(value), _) => Ok(Some(value)),
            (Settled::Absent(_), _) => Ok(None),
        }
    }

    /// `GET` of what is always there.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value> {
        let get = |turn, _| self.request(turn, Method::GET, path).map(|r| r.query(query));
        match self.repeat(get, None).await? {
            (Settled::Good(value), _) => Ok(value),
            (Settled::Absent(failure), _) => Err(failure),
        }
    }

    /// `GET`, tried once: `None` when there is no answer, `Null` for what the server does not have.
    pub async fn glance(&self, path: &str) -> Option<Value> {
        let turn = self.turn();
        let sent = self.send(turn, self.request(turn, Method::GET, path).ok()?);
        match tokio::time::timeout(CONNECT, sent).await.ok()? {
            Try::Good(value) => Some(value),
            Try::Absent { .. } => Some(Value::Null),
            Try::Again(_) | Try::Final(_) => None,
        }
    }

    /// Posts a batch until a server has taken or refused it. `body` gives the same batch each time, with the basis to
    /// send along; `basis` is that of the first try.
    pub async fn post(
        &self,
        id: &str,
        wait: Wait,
        basis: Option<u64>,
        body: impl Fn(Option<u64>) -> Vec<u8>,
    ) -> Result<Posted> {
        let post = |turn, basis| {
            let request = self.request(turn, Method::POST, "v1/batches")?;
            let request = request.query(&[("wait", wait.name())]).header(header::CONTENT_TYPE, "application/json");
            Ok(request.body(body(basis)))
        };
        match self.repeat(post, Some((id, basis))).await? {
            (Settled::Good(receipt), tries) => {
                let receipt = serde_json::from_value(receipt).map_err(|e| Failure::Unreadable(e.to_string()))?;
                Ok(Posted { receipt, tries })
            }
            (Settled::Absent(failure), _) => Err(failure),
        }
    }

    /// Tries a request until it has an answer that will not change, or patience ends. `batch` is the id of what it
    /// brings, and the basis to begin with; what it then fails with speaks for all tries, not for the last one.
    async fn repeat(
        &self,
        request: impl Fn(usize, Option<u64>) -> Result<RequestBuilder>,
        batch: Option<(&str, Option<u64>)>,
    ) -> Result<(Settled, u32)> {
        let (started, mut tries, mut unsure) = (SystemClock.ticks_ms(), 0u32, false);
        let mut kept = batch.and_then(|(_, basis)| basis);
        let of_all = |unsure, why: Failure| if unsure { why.after_another_try() } else { why };
        loop {
            let turn = self.turn();
            let outcome = self.send(turn, request(turn, kept)?).await;
            tries += 1;
            let again = match outcome {
                Try::Good(value) => return Ok((Settled::Good(value), tries)),
                Try::Absent { why, .. } => return Ok((Settled::Absent(of_all(unsure, why)), tries)),
                Try::Final(failure) => return Err(of_all(unsure, failure)),
                Try::Again(again) => again,
            };
            let forgotten = again.indeterminate && again.basis.is_some_and(|b| kept.map_or(unsure, |k| k != b));
            unsure |= again.indeterminate && batch.is_some();
            match batch {
                // The ledger may have grown beyond the horizon since the first try: only the whole history knows.
                Some((id, _)) if forgotten => match self.look_back(turn, id).await {
                    Try::Good(receipt) => return Ok((Settled::Good(receipt), tries)),
                    Try::Absent { basis, .. } => kept = basis.or(kept),
                    Try::Final(_) | Try::Again(_) => {} // next time
                },
                _ => kept = kept.or(again.basis),
            }
            let left = self.patience_ms(&again).saturating_sub(SystemClock.ticks_ms() - started);
            // Whoever comes second after the same failure finds that all have gone on already.
            let _ = self.turn.compare_exchange(turn, turn.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
            let round = self.servers.len() as u32;
            if !tries.is_multiple_of(round) && left > 0 {
                continue; // another one may do
            }
            let mut pause = pause_ms(tries / round, again.asked_ms, fastrand::f64());
            if pause > left && again.asked_ms.is_none() {
                pause = left; // one last time at the end
            }
            if left == 0 || pause > left {
                return Err(of_all(unsure, again.why));
            }
            tracing::debug!(tries, pause_ms = pause, why = %again.why, "tries again");
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// For how long it is tried again after this.
    fn patience_ms(&self, again: &answer::Again) -> u64 {
        let met = self.met.load(Ordering::Relaxed);
        if again.refused && !met { self.never_there_ms } else { self.retry_for_ms }
    }

    /// Looks a batch up in the whole history, once.
    async fn look_back(&self, turn: usize, id: &str) -> Try {
        match self.request(turn, Method::GET, &format!("v1/batches/{id}")) {
            Ok(request) => self.send(turn, request.query(&[("history", "full")])).await,
            Err(failure) => Try::Final(failure),
        }
    }

    fn request(&self, turn: usize, method: Method, path: &str) -> Result<RequestBuilder> {
        let wrong = |e| Failure::Setup(format!("{path:?} cannot stand in a URL: {e}"));
        let url = self.base(turn).join(path).map_err(wrong)?;
        let request = self.http.request(method, url).header(header::ACCEPT, "application/json");
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    async fn send(&self, turn: usize, request: RequestBuilder) -> Try {
        let server = self.server_at(turn); // not the next one, to which others of this client's requests may have gone
        let response = match request.send().await {
            Ok(response) => response,
            Err(e) => return answer::none(server, &e, self.met.load(Ordering::Relaxed)),
        };
        self.read(turn, response).await
    }

    /// What an answer comes to.
    async fn read(&self, turn: usize, response: reqwest::Response) -> Try {
        let server = self.server_at(turn);
        self.met.store(true, Ordering::Relaxed);
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        match response.bytes().await {
            Ok(body) => answer::read(server, status, retry_after, &body),
            Err(e) => answer::none(server, &e, true),
        }
    }
}

/// An HTTP client for these servers, with the module's time limits, and their URLs, to which paths are joined.
pub(crate) fn connections(settings: &Settings) -> Result<(reqwest::Client, Vec<Url>)> {
    if settings.servers.is_empty() {
        return Err(Failure::Setup("no server is named".into()));
    }
    let servers = settings.servers.iter().map(|server| url(server)).collect::<Result<Vec<_>>>()?;
    let mut builder = reqwest::Client::builder().connect_timeout(CONNECT).read_timeout(SILENCE);
    let local = |h: &str| h == "localhost" || h == "[::1]" || h.starts_with("127.");
    if servers.iter().all(|base| base.host_str().is_some_and(local)) {
        builder = builder.no_proxy(); // a proxy has another loopback
    }
    let http = builder.build().map_err(|e| Failure::Setup(format!("no HTTP client: {}", answer::cause(&e))))?;
    Ok((http, servers))
}

/// The URL of a server, to which paths are joined.
fn url(server: &str) -> Result<Url> {
    let wrong = |why: String| Failure::Setup(format!("{server:?} {why}"));
    let mut base = Url::parse(&with_scheme(server)).map_err(|e| wrong(format!("is not a URL: {e}")))?;
    if !["http", "https"].contains(&base.scheme()) || base.host_str().is_none() {
        return Err(wrong("is not a URL of a server".into()));
    }
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    Ok(base)
}

fn random_id() -> Result<String> {
    let mut bytes = [0; 12];
    let failed = |e| Failure::Setup(format!("the system has no randomness for a batch id: {e}"));
    getrandom::fill(&mut bytes).map_err(failed)?;
    Ok(format!("client-{}", hex::encode(bytes)))
}

/// `HOST:PORT` is short for `http://HOST:PORT`.
fn with_scheme(server: &str) -> String {
    match server.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok() => {
            format!("http://{server}")
        }
        _ => server.to_owned(),
    }
}

/// The pause after the `tries`-th try: doubled each time, half of it by chance (`chance` in 0..1), never less than what
/// the server asked for.
fn pause_ms(tries: u32, asked_ms: Option<u64>, chance: f64) -> u64 {
    let full = FIRST_PAUSE_MS.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(LONGEST_PAUSE_MS);
    let own = full / 2 + (full as f64 / 2.0 * chance) as u64;
    match asked_ms {
        // Everybody was told the same: some come a little later.
        Some(asked) => asked.min(LONGEST_RETRY_AFTER_MS) + (own / 2).min(1_000),
        None => own,
    }
}
