//! Why a request came to nothing: typed, so that a caller can tell what to do.

use reqwest::StatusCode;

use crate::error::{Error, Kind};

/// The result of a request.
pub type Result<T> = std::result::Result<T, Failure>;

/// See the module. Everything that trying again could mend has been tried again before it is said.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Failure {
    /// A setting of the client, or what it was asked to ask, is wrong.
    #[error("{0}")]
    Setup(String),
    /// There is no connection: this try did not happen.
    #[error("{}: {cause}", if *.met { format!("{server} is gone") } else { format!("no tuflog answers at {server}") })]
    Unreachable {
        /// Who was asked last.
        server: String,
        /// The system's words.
        cause: String,
        /// It has answered before.
        met: bool,
    },
    /// There was no answer: it may have happened. Publish it again with the same id.
    #[error("{server} did not finish its answer: {cause}")]
    Unanswered {
        /// Who was asked last.
        server: String,
        /// The system's words.
        cause: String,
    },
    /// What answered is no tuflog.
    #[error("{server} answered {}, not as a tuflog does: {said}", shown(*.status))]
    Stranger {
        /// Who was asked.
        server: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        said: String,
    },
    /// A tuflog answered, of a version that this program cannot read.
    #[error("the server's answer cannot be read: {0}")]
    Unreadable(String),
    /// The token is not known there, or lacks a scope.
    #[error("{0}")]
    Denied(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The server said no, or not now: the kind says what to do.
    #[error("{0}")]
    Answered(Error),
    /// Of a batch: the last try came to this, which says nothing of an earlier one that may have happened. Publish it
    /// again with the same id.
    #[error("{0}; it may have happened")]
    InDoubt(Box<Failure>),
}

impl Failure {
    /// This failure of a batch, an earlier try of which may have happened.
    ///
    /// One refusal is a verdict on the id, whichever try it answers: the ledger has the id with other content, and all
    /// tries have the same, so none of them happened. Every other one is about its own try and leaves the earlier one
    /// open: a body that broke off (400), the limits and roles of another server (413, 404), a token that has run out
    /// (401), what is broken there (500), a proxy's page.
    pub(super) fn after_another_try(self) -> Failure {
        match self.kind() {
            Kind::Indeterminate | Kind::Conflict => self,
            _ => Failure::InDoubt(Box::new(self)),
        }
    }

    /// What to do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Failure::Unreachable { .. } => Kind::Unavailable,
            Failure::Unanswered { .. } | Failure::InDoubt(_) => Kind::Indeterminate,
            Failure::Unreadable(_) => Kind::Unsupported,
            Failure::Setup(_) | Failure::Stranger { .. } | Failure::Denied(_) | Failure::NotFound(_) => Kind::Invalid,
            Failure::Answered(e) => e.kind,
        }
    }
}

fn shown(status: u16) -> String {
    StatusCode::from_u16(status).map_or_else(|_| status.to_string(), |s| s.to_string())
}
