//! What an attempt that failed tells, and whether there is another.
//!
//! Owns the rule that `Unavailable` means nothing happened: a [`Tries`] remembers whether any of its attempts may have
//! acted, and from then on can only end as `Indeterminate`.

use std::error::Error as _;
use std::time::{Duration, Instant};

use object_store::Error as ClientError;
use object_store::client::{HttpError, HttpErrorKind};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{Error, Result};

/// How often a request is sent at most.
const ATTEMPTS: u32 = 4;
/// No attempt begins later than this after the first; each is bounded by the client's own time-out (30 s unless
/// `store.options.timeout` says otherwise).
const LAST_START: Duration = Duration::from_secs(30);
/// The pause before the second attempt; it triples.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How much of an answer that is no S3 error goes into a message, in characters.
const QUOTED: usize = 300;

/// The settings that a refusal sends the operator to.
pub(super) const URL: &str = "store.url";
pub(super) const ENDPOINT: &str = "store.endpoint";
const REGION: &str = "store.region";
const CREDENTIALS: &str = "store credentials";

/// Why an attempt failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no such object.
    Absent,
    /// The condition does not hold, or another request for the same key is under way; nothing happened.
    Condition,
    /// The server will not do this, however often it is asked; nothing happened. `field` names the setting to look at.
    Refused { field: &'static str, message: String },
    /// Nothing happened, and it may go better next time.
    Passing(String),
    /// No answer, or one that leaves open what happened.
    Uncertain(String),
}

/// What one attempt comes to.
pub(super) type Attempt<T> = std::result::Result<T, Failure>;

impl Failure {
    /// Something else is at the same key.
    pub fn busy(what: &str) -> Failure {
        Failure::Passing(what.to_owned())
    }

    /// The same of a request that changes nothing.
    pub fn of_read(self) -> Failure {
        match self {
            Failure::Uncertain(message) => Failure::Passing(message),
            other => other,
        }
    }
}

/// The attempts of one operation.
pub(super) struct Tries {
    doing: String,
    left: u32,
    start: Instant,
    pause: Duration,
    may_have_acted: bool,
}

impl Tries {
    pub fn new(doing: String) -> Tries {
        Tries { doing, left: ATTEMPTS, start: Instant::now(), pause: FIRST_PAUSE, may_have_acted: false }
    }

    /// Whether one of the attempts so far may have acted.
    pub fn may_have_acted(&self) -> bool {
        self.may_have_acted
    }

    /// Waits for the time of the next attempt.
    ///
    /// # Errors
    /// When there is none: `Unavailable`, or `Indeterminate` if one so far may have acted.
    pub async fn again(&mut self, failure: Failure) -> Result<()> {
        let (message, last) = match failure {
            Failure::Absent => ("there is no such object".into(), true),
            Failure::Condition => ("the condition does not hold".into(), true),
            Failure::Refused { message, .. } => (message, true),
            Failure::Passing(message) => (message, false),
            Failure::Uncertain(message) => {
                self.may_have_acted = true;
                (message, false)
            }
        };
        self.left -= 1;
        if last || self.left == 0 || self.start.elapsed() > LAST_START {
            return Err(self.settle(Error::unavailable(message)).context(&self.doing));
        }
        tracing::debug!(doing = self.doing, error = message, "tries again");
        tokio::time::sleep(self.pause).await;
        self.pause *= 3;
        Ok(())
    }

    /// [`Tries::again`] of a request that changes nothing.
    pub async fn again_read(&mut self, failure: Failure) -> Result<()> {
        self.again(failure.of_read()).await
    }

    /// [`Tries::again`] before the node has started: what is refused is for the operator to put right.
    pub async fn again_at_start(&mut self, failure: Failure) -> Result<()> {
        match failure {
            Failure::Refused { field, message } => Err(Error::invalid(field, message).context(&self.doing)),
            other => self.again_read(other).await,
        }
    }

    /// The error with which an operation ends that a later step of it stopped.
    pub fn settle(&self, e: Error) -> Error {
        if self.may_have_acted && !e.is_fatal() { Error::indeterminate(e.message) } else { e }
    }
}

/// A permit of a semaphore that is never closed.
pub(super) async fn permit(requests: &Semaphore) -> Option<SemaphorePermit<'_>> {
    requests.acquire().await.ok()
}

/// One attempt.
pub(super) async fn attempt<T>(request: impl Future<Output = object_store::Result<T>>) -> Attempt<T> {
    request.await.map_err(|e| classify(&e))
}

fn classify(e: &ClientError) -> Failure {
    let text = e.to_string();
    let (status, code, message) = (status(&text), element(&text, "Code"), describe(e, &text));
    // The code decides before the status: versitygw answers 404 for an unknown key id, S3 400 for an expired token.
    let field = match code.unwrap_or_default() {
        "NoSuchBucket" | "InvalidBucketName" => Some(URL),
        "AccessDenied"
        | "ExpiredToken"
        | "InvalidAccessKeyId"
        | "InvalidToken"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch"
        | "TokenRefreshRequired"
        | "XAdminUserNotFound" => Some(CREDENTIALS),
        "AuthorizationHeaderMalformed" | "IncorrectEndpoint" | "PermanentRedirect" => Some(REGION),
        _ => None,
    };
    if let Some(field) = field {
        return Failure::Refused { field, message };
    }
    let refused = |field| Failure::Refused { field, message: message.clone() };
    match e {
        ClientError::NotFound { .. } if code.is_none_or(|code| code == "NoSuchKey") => Failure::Absent,
        ClientError::NotFound { .. } => refused(URL),
        ClientError::AlreadyExists { .. } | ClientError::Precondition { .. } => Failure::Condition,
        ClientError::PermissionDenied { .. } | ClientError::Unauthenticated { .. } => refused(CREDENTIALS),
        _ => match (transport(e), status) {
            (Some(HttpErrorKind::Connect), _) => Failure::Passing(message),
            (Some(_), _) => Failure::Uncertain(message),
            (None, _) if code == Some("RequestTimeout") => Failure::Passing(message),
            (None, Some(408 | 429)) => Failure::Passing(message),
            (None, Some(501)) => refused(ENDPOINT),
            (None, Some(401 | 403)) => refused(CREDENTIALS),
            (None, Some(300..=399)) => refused(REGION),
            (None, Some(400..=499)) => refused(URL),
            (None, None) if text.contains("redirect") => refused(REGION),
            (None, _) => Failure::Uncertain(message),
        },
    }
}

/// The text of an element of an S3 error.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inner, _)| inner)
}

/// The kind of the transport error below `e`, if one is.
fn transport(e: &ClientError) -> Option<HttpErrorKind> {
    let mut source = e.source();
    while let Some(e) = source {
        if let Some(e) = e.downcast_ref::<HttpError>() {
            return Some(e.kind());
        }
        source = e.source();
    }
    None
}

/// The status of an answer. `object_store` keeps it in a private type and tells it in words only.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// What happened, in one line.
fn describe(e: &ClientError, text: &str) -> String {
    let mut said = match (element(text, "Code"), element(text, "Message"), status(text)) {
        (Some(code), said, Some(status)) => format!("{status} {code}: {}", said.unwrap_or_default()),
        _ => {
            let mut said: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let mut source = e.source();
            while let Some(e) = source {
                let cause = e.to_string();
                if !said.contains(&cause) {
                    said = format!("{said}: {cause}");
                }
                source = e.source();
            }
            said.chars().take(QUOTED).collect()
        }
    };
    if text.contains("/latest/api/token") || text.contains("/latest/meta-data") {
        said = format!(
            "no credentials: neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor a web identity is in the \
             environment, and the instance's metadata do not answer ({said})"
        );
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[tokio::test]
    async fn what_may_have_happened_once_stays_so() {
        let mut tries = Tries::new("x".into());
        tries.again(Failure::busy("b")).await.unwrap();
        assert!(!tries.may_have_acted());
        tries.again(Failure::Uncertain("u".into())).await.unwrap();
        assert!(tries.may_have_acted());
        let refused = Failure::Refused { field: "f", message: "no".into() };
        assert_eq!(tries.again(refused).await.unwrap_err().kind, Kind::Indeterminate);
    }

    #[tokio::test]
    async fn attempts_end() {
        let mut tries = Tries::new("x".into());
        for _ in 1..ATTEMPTS {
            tries.again_read(Failure::Uncertain("u".into())).await.unwrap();
        }
        let e = tries.again_read(Failure::Uncertain("u".into())).await.unwrap_err();
        assert_eq!((e.kind, e.message.as_str()), (Kind::Unavailable, "x: u"));
        let refused = Failure::Refused { field: "f", message: "no".into() };
        assert_eq!(Tries::new("x".into()).again(refused).await.unwrap_err().kind, Kind::Unavailable);
    }
}
