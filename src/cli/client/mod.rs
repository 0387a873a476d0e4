//! The HTTP client of the commands: connection reuse, time limits, and retries that cannot do a thing twice.
//!
//! Owns the producer's half of invariant 1: a batch has its id before the first try, every try sends the same id and
//! content, and the first basis that an answer brings is kept for all further tries, so that no try can be a second
//! batch however late it arrives.

mod answer;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use reqwest::{Method, RequestBuilder, Url, header};
use serde_json::Value;

use self::answer::Try;
use super::ask;
use super::failure::{Code, Failure, Outcome};
use crate::clock::{Clock, SystemClock};
use crate::query::BatchAnswer;

/// Where the commands look for a server.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";
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

/// Which server, and as whom.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// The server: a URL, or HOST:PORT
    #[arg(long, env = "TUFLOG_SERVER", value_name = "URL", default_value = DEFAULT_SERVER)]
    pub server: String,

    /// File whose first word is the bearer token to send; else the variable TUFLOG_TOKEN is used
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// How long to try again while the server is away or answers 503, in seconds [default: 60; 2 while it has never
    /// answered]
    #[arg(long, env = "TUFLOG_RETRY_FOR", value_name = "S")]
    pub retry_for: Option<u64>,
}

/// An HTTP client for one server.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
    retry_for_ms: u64,
    /// The same as long as the server has never answered.
    never_there_ms: u64,
    /// The server has answered once: from then on its absence is a pause, not a mistake.
    met: AtomicBool,
}

/// What a request came to in the end.
enum Settled {
    Good(Value),
    Absent(Failure),
}

/// A batch that the server has taken.
pub struct Posted {
    /// Its receipt.
    pub receipt: BatchAnswer,
    /// How many tries it took.
    pub tries: u32,
}

impl Client {
    /// A client as the arguments say.
    pub fn new(args: &ServerArgs) -> Outcome<Client> {
        let wrong = |why: String| {
            Failure::usage(format!("--server: {:?} {why}", args.server)).hint(format!("such as {DEFAULT_SERVER}"))
        };
        let mut base = Url::parse(&with_scheme(&args.server)).map_err(|e| wrong(format!("is not a URL: {e}")))?;
        if !["http", "https"].contains(&base.scheme()) || base.host_str().is_none() {
            return Err(wrong("is not a URL of a server".into()));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let mut builder = reqwest::Client::builder().connect_timeout(CONNECT).read_timeout(SILENCE);
        if base.host_str().is_some_and(|h| h == "localhost" || h == "[::1]" || h.starts_with("127.")) {
            builder = builder.no_proxy(); // a proxy has another loopback
        }
        let http = builder
            .build()
            .map_err(|e| Failure::new(Code::Failed, format!("no HTTP client: {}", answer::cause(&e))))?;
        let said_ms = args.retry_for.map(|s| s.saturating_mul(1_000));
        let (retry_for_ms, never_there_ms) = (said_ms.unwrap_or(RETRY_FOR_MS), said_ms.unwrap_or(NEVER_THERE_MS));
        Ok(Client { http, base, token: token(args)?, retry_for_ms, never_there_ms, met: AtomicBool::new(false) })
    }

    /// The server's address, for messages.
    pub fn server(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// `GET`; `None` for what the server does not have.
    pub async fn find(&self, path: &str, query: &[(&str, String)]) -> Outcome<Option<Value>> {
        let get = |_| self.request(Method::GET, path).map(|r| r.query(query));
        match self.repeat(get, None).await? {
            (Settled::Good(value), _) => Ok(Some(value)),
            (Settled::Absent(_), _) => Ok(None),
        }
    }

    /// `GET` of what is always there.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Outcome<Value> {
        let get = |_| self.request(Method::GET, path).map(|r| r.query(query));
        match self.repeat(get, None).await? {
            (Settled::Good(value), _) => Ok(value),
            (Settled::Absent(failure), _) => Err(failure),
        }
    }

    /// `GET`, tried once: `None` when there is no answer, `Null` for what the server does not have.
    pub async fn glance(&self, path: &str) -> Option<Value> {
        let sent = self.send(self.request(Method::GET, path).ok()?);
        match tokio::time::timeout(CONNECT, sent).await.ok()? {
            Try::Good(value) => Some(value),
            Try::Absent { .. } => Some(Value::Null),
            Try::Again(_) | Try::Final(_) => None,
        }
    }

    /// Posts a batch until the server has taken or refused it. `body` gives the same batch each time, with the basis
    /// to send along.
    pub async fn post(&self, id: &str, wait: &str, body: impl Fn(Option<u64>) -> Vec<u8>) -> Outcome<Posted> {
        let post = |basis| {
            let request = self.request(Method::POST, "v1/batches")?;
            let request = request.query(&[("wait", wait)]).header(header::CONTENT_TYPE, "application/json");
            Ok(request.body(body(basis)))
        };
        match self.repeat(post, Some(id)).await? {
            (Settled::Good(receipt), tries) => Ok(Posted { receipt: ask::read(receipt)?, tries }),
            (Settled::Absent(failure), _) => Err(failure),
        }
    }

    /// Tries a request until it has an answer that will not change, or patience ends. `batch` is the id of what it
    /// brings.
    async fn repeat(
        &self,
        request: impl Fn(Option<u64>) -> Outcome<RequestBuilder>,
        batch: Option<&str>,
    ) -> Outcome<(Settled, u32)> {
        let (started, mut kept, mut tries, mut unsure) = (SystemClock.ticks_ms(), None, 0u32, false);
        loop {
            let outcome = self.send(request(kept)?).await;
            tries += 1;
            let again = match outcome {
                Try::Good(value) => return Ok((Settled::Good(value), tries)),
                Try::Absent { why, .. } => return Ok((Settled::Absent(why), tries)),
                Try::Final(failure) => return Err(failure),
                Try::Again(again) => again,
            };
            let forgotten = again.indeterminate && again.basis.is_some_and(|b| kept.map_or(unsure, |k| k != b));
            unsure |= again.indeterminate;
            match batch {
                // The ledger may have grown beyond the horizon since the first try: only the whole history knows.
                Some(id) if forgotten => match self.look_back(id).await {
                    Try::Good(receipt) => return Ok((Settled::Good(receipt), tries)),
                    Try::Absent { basis, .. } => kept = basis.or(kept),
                    Try::Final(_) | Try::Again(_) => {} // next time
                },
                _ => kept = kept.or(again.basis),
            }
            let met = self.met.load(Ordering::Relaxed);
            let patience = if again.refused && !met { self.never_there_ms } else { self.retry_for_ms };
            let left = patience.saturating_sub(SystemClock.ticks_ms() - started);
            let mut pause = pause_ms(tries, again.asked_ms, fastrand::f64());
            if pause > left && again.asked_ms.is_none() {
                pause = left; // one last time at the end
            }
            if left == 0 || pause > left {
                return Err(again.why);
            }
            tracing::debug!(tries, pause_ms = pause, why = again.why.message(), "tries again");
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Looks a batch up in the whole history, once.
    async fn look_back(&self, id: &str) -> Try {
        match self.request(Method::GET, &format!("v1/batches/{id}")) {
            Ok(request) => self.send(request.query(&[("history", "full")])).await,
            Err(failure) => Try::Final(failure),
        }
    }

    fn request(&self, method: Method, path: &str) -> Outcome<RequestBuilder> {
        let wrong = |e| Failure::usage(format!("{path:?} cannot stand in a URL: {e}"));
        let url = self.base.join(path).map_err(wrong)?;
        let request = self.http.request(method, url).header(header::ACCEPT, "application/json");
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    async fn send(&self, request: RequestBuilder) -> Try {
        let response = match request.send().await {
            Ok(response) => response,
            Err(e) => return answer::none(self.server(), &e, self.met.load(Ordering::Relaxed)),
        };
        self.met.store(true, Ordering::Relaxed);
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        match response.bytes().await {
            Ok(body) => answer::read(self.server(), status, retry_after, &body),
            Err(e) => answer::none(self.server(), &e, true),
        }
    }
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

fn token(args: &ServerArgs) -> Outcome<Option<String>> {
    let Some(file) = &args.token_file else {
        return Ok(std::env::var("TUFLOG_TOKEN").ok().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()));
    };
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::usage(format!("--token-file: {} cannot be read: {e}", file.display())))?;
    match text.split_whitespace().next() {
        Some(word) => Ok(Some(word.to_owned())),
        None => Err(Failure::usage(format!("--token-file: {} is empty", file.display()))),
    }
}
