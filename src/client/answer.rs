//! What one try of a request came to: an answer, a refusal, or a reason to try again.

use reqwest::StatusCode;
use serde_json::Value;

use super::Failure;
use crate::error::{Error, Kind};
use crate::http::{ErrorAnswer, ErrorDetail};

/// What one try came to.
pub enum Try {
    /// 2xx.
    Good(Value),
    /// 404, as of a ledger position if it is about a batch.
    Absent { why: Failure, basis: Option<u64> },
    /// Worth another try.
    Again(Again),
    /// Not worth another try.
    Final(Failure),
}

/// Why, and how, to try again.
pub struct Again {
    /// What to say if nobody tries again.
    pub why: Failure,
    /// The pause that the server asks for.
    pub asked_ms: Option<u64>,
    /// The ledger position to send along.
    pub basis: Option<u64>,
    /// It may have happened.
    pub indeterminate: bool,
    /// There was no connection: it has not happened.
    pub refused: bool,
}

/// There was no answer. `met` says whether there ever was one.
pub fn none(server: &str, e: &reqwest::Error, met: bool) -> Try {
    if e.is_builder() {
        return Try::Final(Failure::Setup(format!("cannot ask {server}: {}", cause(e))));
    }
    let (cause, refused) = (cause(e), e.is_connect());
    let server = server.to_owned();
    let why = match refused {
        true => Failure::Unreachable { server, cause, met },
        false => Failure::Unanswered { server, cause },
    };
    Try::Again(Again { why, asked_ms: None, basis: None, indeterminate: !refused, refused })
}

/// An answer came.
pub fn read(server: &str, status: StatusCode, retry_after_s: Option<u64>, body: &[u8]) -> Try {
    if status.is_success() {
        return match serde_json::from_slice(body) {
            Ok(value) => Try::Good(value),
            Err(e) => Try::Final(stranger(server, status, &format!("no JSON: {e}"))),
        };
    }
    let again = |why, asked_s: Option<u64>, basis, indeterminate| {
        let asked_ms = asked_s.map(|s| s.saturating_mul(1_000));
        Try::Again(Again { why, asked_ms, basis, indeterminate, refused: false })
    };
    let Ok(ErrorAnswer { error }) = serde_json::from_slice(body) else {
        let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
        let why = stranger(server, status, text.trim());
        return match status {
            // A proxy before a server that is away, or that did not answer the proxy in time.
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                again(why, retry_after_s, None, true)
            }
            _ => Try::Final(why),
        };
    };
    let ErrorDetail { kind: name, message, field, retry_after_s: in_body, basis } = error;
    let kind = kind(&name, status);
    let error = Error { kind, message, field, basis: None, too_large: status == StatusCode::PAYLOAD_TOO_LARGE };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Try::Final(Failure::Denied(error.to_string())),
        StatusCode::NOT_FOUND => Try::Absent { why: Failure::NotFound(error.to_string()), basis },
        // 408: the body did not come in time.
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            again(Failure::Answered(error), retry_after_s.or(in_body), basis, kind == Kind::Indeterminate)
        }
        _ => Try::Final(Failure::Answered(error)),
    }
}

/// What answered is no tuflog.
fn stranger(server: &str, status: StatusCode, said: &str) -> Failure {
    Failure::Stranger { server: server.to_owned(), status: status.as_u16(), said: said.to_owned() }
}

/// The kind by its name; the API has more of them than there are things to do.
fn kind(name: &str, status: StatusCode) -> Kind {
    let known =
        [Kind::Invalid, Kind::Conflict, Kind::Unavailable, Kind::Indeterminate, Kind::Unsupported, Kind::Corrupt];
    let other = if status.is_server_error() { Kind::Unavailable } else { Kind::Invalid };
    known.into_iter().find(|k| k.name() == name).unwrap_or(other)
}

/// What lies at the bottom of an error: the system's own words.
pub fn cause(e: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = e;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &str) -> Try {
        read("http://s", StatusCode::from_u16(status).unwrap(), None, body.as_bytes())
    }

    #[test]
    fn a_503_brings_the_pause_and_the_basis_to_try_again_with() {
        let body = r#"{"error":{"kind":"Indeterminate","message":"m","retry_after_s":2,"basis":7}}"#;
        let Try::Again(again) = answered(503, body) else { panic!() };
        assert_eq!(
            (again.asked_ms, again.basis, again.indeterminate, again.refused),
            (Some(2_000), Some(7), true, false)
        );
        let Try::Again(again) = answered(502, "<html>") else { panic!() };
        assert_eq!((again.asked_ms, again.basis, again.indeterminate), (None, None, true));
    }

    #[test]
    fn refusals_are_final_and_say_what_the_server_said() {
        let body = r#"{"error":{"kind":"Invalid","message":"is required","field":"changes[0].length"}}"#;
        let Try::Final(failure @ Failure::Answered(_)) = answered(400, body) else { panic!() };
        assert_eq!((failure.kind(), failure.to_string().as_str()), (Kind::Invalid, "changes[0].length: is required"));
        let body = r#"{"error":{"kind":"Forbidden","message":"no"}}"#;
        assert!(matches!(answered(403, body), Try::Final(Failure::Denied(_))));
        let body = r#"{"error":{"kind":"Corrupt","message":"x"}}"#;
        let Try::Final(failure) = answered(500, body) else { panic!() };
        assert_eq!(failure.kind(), Kind::Corrupt);
        let body = r#"{"error":{"kind":"NotFound","message":"no batch","basis":9}}"#;
        assert!(matches!(answered(404, body), Try::Absent { basis: Some(9), .. }));
    }

    #[test]
    fn who_is_no_tuflog_is_told_apart() {
        for (status, body) in [(200, "<html>"), (404, "404 page not found"), (500, "")] {
            let Try::Final(failure) = answered(status, body) else { panic!("{status}") };
            assert!(failure.to_string().contains("not as a tuflog does"), "{failure}");
        }
    }
}
