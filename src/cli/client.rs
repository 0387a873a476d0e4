//! The HTTP client of the commands: connection reuse, time limits, and retries that cannot do a thing twice.
//!
//! Owns the producer's half of invariant 1: a batch has its id before the first try, every try sends the same id and
//! content, and the first basis that an answer brings is kept for all further tries, so that no try can be a second
//! batch however late it arrives.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use reqwest::{Method, RequestBuilder, StatusCode, Url, header};
use serde::Deserialize;
use serde_json::Value;

use super::ask;
use super::failure::{Code, Failure, Outcome};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Kind};
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
/// How long a server that was never there is tried, in milliseconds: it may be starting.
const NEVER_THERE_MS: u64 = 2_000;

/// Which server, and as whom.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// The server
    #[arg(long, env = "TUFLOG_SERVER", value_name = "URL", default_value = DEFAULT_SERVER)]
    pub server: String,

    /// File whose first word is the bearer token to send; else the variable TUFLOG_TOKEN is used
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// How long to try again while the server is away or answers 503, in seconds
    #[arg(long, env = "TUFLOG_RETRY_FOR", value_name = "S", default_value_t = 60)]
    pub retry_for: u64,
}

/// An HTTP client for one server.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
    retry_for_ms: u64,
    /// The server has answered once: from then on its absence is a pause, not a mistake.
    met: AtomicBool,
}

/// How an error reads in the API.
#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorFields,
}

#[derive(Deserialize)]
struct ErrorFields {
    kind: String,
    message: String,
    field: Option<String>,
    retry_after_s: Option<u64>,
    basis: Option<u64>,
}

/// What one try came to.
enum Try {
    /// 2xx.
    Good(Value),
    /// 404.
    Absent(Failure),
    /// Worth another try.
    Again { why: Failure, pause_ms: Option<u64>, basis: Option<u64>, refused: bool },
    /// Not worth another try.
    Final(Failure),
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
        let mut base = Url::parse(&args.server).map_err(|e| wrong(format!("is not a URL: {e}")))?;
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
        let http = builder.build().map_err(|e| Failure::new(Code::Failed, format!("no HTTP client: {}", cause(&e))))?;
        let retry_for_ms = args.retry_for.saturating_mul(1_000);
        Ok(Client { http, base, token: token(args)?, retry_for_ms, met: AtomicBool::new(false) })
    }

    /// The server's address, for messages.
    pub fn server(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// `GET`; `None` for what the server does not have.
    pub async fn find(&self, path: &str, query: &[(&str, String)]) -> Outcome<Option<Value>> {
        match self.repeat(|_| self.request(Method::GET, path).map(|r| r.query(query))).await {
            Ok((value, _)) => Ok(Some(value)),
            Err((_, true)) => Ok(None),
            Err((failure, false)) => Err(failure),
        }
    }

    /// `GET` of what is always there.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Outcome<Value> {
        let request = |_| self.request(Method::GET, path).map(|r| r.query(query));
        Ok(self.repeat(request).await.map_err(|(failure, _)| failure)?.0)
    }

    /// Posts a batch until the server has taken or refused it. `body` gives the same batch each time, with the basis
    /// to send along.
    pub async fn post(&self, wait: &str, body: impl Fn(Option<u64>) -> Vec<u8>) -> Outcome<Posted> {
        let request = |basis| {
            let request = self.request(Method::POST, "v1/batches")?;
            let request = request.query(&[("wait", wait)]).header(header::CONTENT_TYPE, "application/json");
            Ok(request.body(body(basis)))
        };
        let (receipt, tries) = self.repeat(request).await.map_err(|(failure, _)| failure)?;
        Ok(Posted { receipt: ask::read(receipt)?, tries })
    }

    /// Tries a request until it has an answer that will not change. An `Err` says whether that was 404.
    async fn repeat(
        &self,
        request: impl Fn(Option<u64>) -> Outcome<RequestBuilder>,
    ) -> std::result::Result<(Value, u32), (Failure, bool)> {
        let (started, mut kept, mut tries) = (SystemClock.ticks_ms(), None, 0u32);
        loop {
            let outcome = self.send(request(kept).map_err(|f| (f, false))?).await;
            tries += 1;
            let (why, asked_ms, refused) = match outcome {
                Try::Good(value) => return Ok((value, tries)),
                Try::Absent(failure) => return Err((failure, true)),
                Try::Final(failure) => return Err((failure, false)),
                Try::Again { why, pause_ms, basis, refused } => {
                    kept = kept.or(basis);
                    (why, pause_ms, refused)
                }
            };
            let met = self.met.load(Ordering::Relaxed);
            let patience = if refused && !met { self.retry_for_ms.min(NEVER_THERE_MS) } else { self.retry_for_ms };
            let pause = pause_ms(tries, asked_ms, fastrand::f64());
            if SystemClock.ticks_ms() - started + pause > patience {
                return Err((why, false));
            }
            tracing::debug!(tries, pause_ms = pause, "trying again: {why:?}");
            tokio::time::sleep(Duration::from_millis(pause)).await;
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
            Err(e) => return self.unanswered(&e),
        };
        self.met.store(true, Ordering::Relaxed);
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        match response.bytes().await {
            Ok(body) => self.understand(status, retry_after, &body),
            Err(e) => self.unanswered(&e),
        }
    }

    fn unanswered(&self, e: &reqwest::Error) -> Try {
        if e.is_builder() {
            return Try::Final(Failure::usage(format!("cannot ask {}: {}", self.server(), cause(e))));
        }
        let (server, cause, refused) = (self.server(), cause(e), e.is_connect());
        let why = match (refused, self.met.load(Ordering::Relaxed)) {
            (true, false) => Failure::new(Code::TryAgain, format!("no tuflog answers at {server}: {cause}"))
                .hint("start it with `tuflog serve --data DIR`, or say where it is with --server URL or TUFLOG_SERVER"),
            (true, true) => Failure::new(Code::TryAgain, format!("{server} is gone: {cause}"))
                .hint("run the same command again when it is back"),
            (false, _) => Failure::new(Code::TryAgain, format!("{server} did not finish its answer: {cause}"))
                .hint("it may have happened; the same batch id again is the same batch"),
        };
        Try::Again { why, pause_ms: None, basis: None, refused }
    }

    fn understand(&self, status: StatusCode, retry_after: Option<u64>, body: &[u8]) -> Try {
        if status.is_success() {
            return match serde_json::from_slice(body) {
                Ok(value) => Try::Good(value),
                Err(e) => Try::Final(self.stranger(status, &format!("no JSON: {e}"))),
            };
        }
        let Ok(ErrorBody { error }) = serde_json::from_slice(body) else {
            let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
            let why = self.stranger(status, text.trim());
            return match status {
                // A proxy in front of a server that is away.
                StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                    Try::Again { why, pause_ms: retry_after.map(|s| s * 1_000), basis: None, refused: false }
                }
                _ => Try::Final(why),
            };
        };
        let said = Error { kind: kind(&error.kind, status), message: error.message, field: error.field, basis: None };
        let why = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::from(said)
                .hint("give a token with the scope this needs: --token-file FILE, or the variable TUFLOG_TOKEN"),
            _ => Failure::from(said),
        };
        match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                let pause_ms = retry_after.or(error.retry_after_s).map(|s| s.saturating_mul(1_000));
                Try::Again { why, pause_ms, basis: error.basis, refused: false }
            }
            StatusCode::NOT_FOUND => Try::Absent(why),
            _ => Try::Final(why),
        }
    }

    fn stranger(&self, status: StatusCode, said: &str) -> Failure {
        Failure::new(Code::Failed, format!("{} answered {status}, not as a tuflog does: {said}", self.server()))
            .hint("is that the address of a tuflog? Say where it is with --server URL")
    }
}

/// The kind by its name; a server that is newer than we may have others.
fn kind(name: &str, status: StatusCode) -> Kind {
    let known =
        [Kind::Invalid, Kind::Conflict, Kind::Unavailable, Kind::Indeterminate, Kind::Unsupported, Kind::Corrupt];
    let other = if status.is_server_error() { Kind::Unavailable } else { Kind::Invalid };
    known.into_iter().find(|k| k.name() == name).unwrap_or(other)
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

/// What lies at the bottom of an error: the system's own words.
fn cause(e: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = e;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_keep_to_what_the_server_asked() {
        assert_eq!((pause_ms(1, None, 0.0), pause_ms(1, None, 0.999)), (50, 99));
        assert_eq!((pause_ms(4, None, 0.0), pause_ms(40, None, 0.0)), (400, LONGEST_PAUSE_MS / 2));
        assert!((2_000..=3_000).contains(&pause_ms(9, Some(2_000), 0.5)));
        assert!(pause_ms(1, Some(u64::MAX), 0.5) <= LONGEST_RETRY_AFTER_MS + 1_000);
    }

    #[test]
    fn only_a_url_of_a_server_is_one() {
        let args = |server: &str| ServerArgs { server: server.into(), token_file: None, retry_for: 0 };
        for bad in ["", "localhost:8080", "127.0.0.1:8080", "ftp://x", "/srv"] {
            let Err(Failure::Said { code, .. }) = Client::new(&args(bad)) else { panic!("{bad}") };
            assert_eq!(code, Code::Usage, "{bad}");
        }
        let client = Client::new(&args("http://127.0.0.1:1/prefix")).unwrap_or_else(|f| panic!("{f:?}"));
        assert_eq!(client.base.join("v1/status").unwrap().as_str(), "http://127.0.0.1:1/prefix/v1/status");
    }
}
