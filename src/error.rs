//! Error kinds: one for each thing a caller can do about a failure, and no more.
//!
//! Kinds prescribe, messages explain. A message says what was found, what was expected and, for
//! `Invalid`, what to change; it never decides control flow.

use std::fmt;

/// The result of everything that can fail in tuflog.
pub type Result<T> = std::result::Result<T, Error>;

/// What the caller should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is wrong: fix it. Sending it again unchanged cannot succeed.
    Invalid,
    /// Somebody else was first, or the id already stands for other content: re-read, then decide.
    Conflict,
    /// Nothing happened; try again later.
    Unavailable,
    /// It may have happened: try again with the same id, or look it up.
    Indeterminate,
    /// Written by a newer tuflog: upgrade before going on.
    Unsupported,
    /// What was read cannot be true: stop, and call someone. Never repaired silently.
    Corrupt,
}

impl Kind {
    /// The kind's name in the HTTP API and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Invalid => "Invalid",
            Kind::Conflict => "Conflict",
            Kind::Unavailable => "Unavailable",
            Kind::Indeterminate => "Indeterminate",
            Kind::Unsupported => "Unsupported",
            Kind::Corrupt => "Corrupt",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failure: its kind, an explanation, and where a caller can use them the field at fault and a basis to retry with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", field.as_ref().map(|f| format!("{f}: ")).unwrap_or_default())]
pub struct Error {
    /// What to do about it.
    pub kind: Kind,
    /// What happened, in words.
    pub message: String,
    /// The part of the input at fault, such as `changes[3].hashes.sha256`.
    pub field: Option<String>,
    /// The ledger position to send as `basis` with a retry.
    pub basis: Option<u64>,
    /// Of an `Invalid`: a smaller request would pass.
    pub too_large: bool,
}

impl Error {
    fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), field: None, basis: None, too_large: false }
    }

    /// The input breaks a rule; `field` names the part at fault.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Error {
        Error { field: Some(field.into()), ..Error::new(Kind::Invalid, message) }
    }

    /// The input is above a limit; `field` names the part to make smaller.
    pub fn too_large(field: impl Into<String>, message: impl Into<String>) -> Error {
        Error { too_large: true, ..Error::invalid(field, message) }
    }

    /// See [`Kind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Error {
        Error::new(Kind::Conflict, message)
    }

    /// See [`Kind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Error {
        Error::new(Kind::Unavailable, message)
    }

    /// See [`Kind::Indeterminate`].
    pub fn indeterminate(message: impl Into<String>) -> Error {
        Error::new(Kind::Indeterminate, message)
    }

    /// See [`Kind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Error {
        Error::new(Kind::Unsupported, message)
    }

    /// See [`Kind::Corrupt`].
    pub fn corrupt(message: impl Into<String>) -> Error {
        Error::new(Kind::Corrupt, message)
    }

    /// Puts `outer` before the field: `length` inside `changes[3]` becomes `changes[3].length`.
    pub fn within(mut self, outer: &str) -> Error {
        self.field = Some(match self.field.take() {
            Some(inner) if inner.starts_with('[') => format!("{outer}{inner}"),
            Some(inner) => format!("{outer}.{inner}"),
            None => outer.to_owned(),
        });
        self
    }

    /// Says what was being done when it failed.
    pub fn context(mut self, doing: impl fmt::Display) -> Error {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// True for the kinds that end the process: going on could make it worse.
    pub fn is_fatal(&self) -> bool {
        matches!(self.kind, Kind::Corrupt | Kind::Unsupported)
    }
}
