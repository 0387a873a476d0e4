//! Errors as every route answers them: `{"error":{"kind","message","field"?,"retry_after_s"?,"basis"?}}`.
//!
//! | status | kind | what to do |
//! |---|---|---|
//! | 400, 405, 408, 413 | `Invalid` | fix the request |
//! | 401, 403 | `Unauthorized`, `Forbidden` | send a token that has the scope |
//! | 404 | `NotFound` | there is no such thing (now) |
//! | 409 | `Conflict` | re-read, then decide |
//! | 503 | `Unavailable` | nothing happened: try again after `Retry-After` |
//! | 503 | `Indeterminate` | it may have happened: try again with the same id, with `basis` if there is one |
//! | 500 | `Corrupt`, `Unsupported` | call the operator |

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::json::Json;
use crate::error::{Error, Kind};

/// When to try again after an `Unavailable` or `Indeterminate`, in seconds.
const RETRY_AFTER_S: u64 = 1;

/// The body of every answer that is not a success.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorAnswer {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// What to do about it: `Invalid`, `Conflict`, `Unavailable`, `Indeterminate`, `Unsupported`, `Corrupt`,
    /// `NotFound`, `Unauthorized` or `Forbidden`.
    pub kind: String,
    /// What happened, in words.
    pub message: String,
    /// The part of the request at fault, such as `changes[3].hashes.sha256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// When to try again, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// The ledger position to send as `basis` with a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<u64>,
}

/// What a handler answers when it cannot answer what was asked.
#[derive(Debug)]
pub struct Failure {
    /// The status.
    pub status: StatusCode,
    detail: ErrorDetail,
    close: bool,
}

/// What a handler answers.
pub type Answer<T> = std::result::Result<T, Failure>;

impl Failure {
    fn new(status: StatusCode, kind: &str, message: impl Into<String>) -> Failure {
        let (kind, message) = (kind.to_owned(), message.into());
        let detail = ErrorDetail { kind, message, field: None, retry_after_s: None, basis: None };
        Failure { status, detail, close: false }
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    /// There is no such thing in the ledger as read up to `basis`.
    pub fn not_found_at(message: impl Into<String>, basis: u64) -> Failure {
        let mut failure = Failure::not_found(message);
        failure.detail.basis = Some(basis);
        failure
    }

    /// No token, or none that is known.
    pub fn unauthorized(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::UNAUTHORIZED, "Unauthorized", message)
    }

    /// A known token without the scope.
    pub fn forbidden(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// Another method, on a path that there is.
    pub fn method_not_allowed() -> Failure {
        Failure::new(StatusCode::METHOD_NOT_ALLOWED, "Invalid", "this path does not take this method")
    }

    /// A body that is larger than any batch may be.
    pub fn too_large(message: impl Into<String>) -> Failure {
        let mut failure = Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "Invalid", message);
        failure.detail.field = Some("changes".into());
        failure
    }

    /// A body that did not come in time.
    pub fn timed_out() -> Failure {
        Failure::new(StatusCode::REQUEST_TIMEOUT, "Invalid", "the request's body did not come in time").closing()
    }

    /// What no request may bring about.
    pub fn internal(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "Corrupt", message)
    }

    /// Ends the connection after the answer: the rest of the request is not read.
    pub fn closing(mut self) -> Failure {
        self.close = true;
        self
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        let status = match e.kind {
            Kind::Invalid if e.too_large => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::Invalid => StatusCode::BAD_REQUEST,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::Unavailable | Kind::Indeterminate => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Unsupported | Kind::Corrupt => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut failure = Failure::new(status, e.kind.name(), e.message);
        failure.detail.field = e.field;
        failure.detail.basis = e.basis;
        failure.detail.retry_after_s = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_S);
        failure
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Failure { status, detail, close } = self;
        if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), kind = detail.kind, message = detail.message, "request failed");
        }
        let retry_after_s = detail.retry_after_s;
        let mut response = (status, Json(ErrorAnswer { error: detail })).into_response();
        let headers = response.headers_mut();
        if let Some(s) = retry_after_s {
            headers.insert(header::RETRY_AFTER, s.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tuflog\""));
        }
        if close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
