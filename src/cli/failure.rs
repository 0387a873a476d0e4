//! What a command ends with: an exit code, and for people what happened and what to do.
//!
//! Owns the exit codes. Kinds prescribe, so they decide: nothing looks at a message.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use crate::error::{Error, Kind};

/// The result of a command.
pub type Outcome<T = ()> = std::result::Result<T, Failure>;

/// The exit codes beside 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The command found something, or failed.
    Failed = 1,
    /// The command was not called rightly, or its configuration is wrong.
    Usage = 2,
    /// Nothing happened, or it may have: the same command can be run again.
    TryAgain = 3,
    /// What is stored cannot be true: call someone.
    Corrupt = 4,
}

/// Why a command ends early.
#[derive(Debug)]
pub enum Failure {
    /// `error: …` and perhaps `hint: …` on stderr.
    Said {
        /// The exit code.
        code: Code,
        /// What happened.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The command has said everything itself; only the code is left.
    Quiet(Code),
    /// Whoever read our output has read enough (`| head`): not a failure.
    OutputClosed,
}

impl Failure {
    /// A failure with this code.
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure::Said { code, message: message.into(), hint: None }
    }

    /// The command line is wrong in a way that clap cannot see.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Code::Usage, message)
    }

    /// Says what to do about it.
    pub fn hint(mut self, text: impl Display) -> Failure {
        if let Failure::Said { hint, .. } = &mut self {
            *hint = Some(text.to_string());
        }
        self
    }

    /// Writes it to stderr, and gives the exit code.
    pub fn report(self) -> ExitCode {
        match self {
            Failure::OutputClosed => ExitCode::SUCCESS,
            Failure::Quiet(code) => ExitCode::from(code as u8),
            Failure::Said { code, message, hint } => {
                // Nobody is left to tell if stderr is closed too.
                let _ = io::Write::write_all(&mut io::stderr(), format!("error: {message}\n").as_bytes());
                if let Some(hint) = hint {
                    let _ = io::Write::write_all(&mut io::stderr(), format!("hint: {hint}\n").as_bytes());
                }
                ExitCode::from(code as u8)
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        let code = match e.kind {
            // A field such as `--data` is a part of the command line.
            Kind::Invalid if e.field.as_ref().is_some_and(|f| f.starts_with("--")) => Code::Usage,
            Kind::Invalid | Kind::Conflict | Kind::Unsupported => Code::Failed,
            Kind::Unavailable | Kind::Indeterminate => Code::TryAgain,
            Kind::Corrupt => Code::Corrupt,
        };
        let failure = Failure::new(code, e.to_string());
        match e.kind {
            // What is wrong with the command line's directory says itself what to do.
            Kind::Corrupt if e.field.is_none() => failure.hint(
                "nothing was repaired; keep the data directory as it is, and see what `tuflog audit --data DIR` names first",
            ),
            _ => failure,
        }
    }
}

impl From<io::Error> for Failure {
    /// Of writing our output: everything else that is read or written has a name to say.
    fn from(e: io::Error) -> Failure {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::new(Code::Failed, format!("cannot write the output: {e}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_decide_the_exit_code() {
        for (error, expected) in [
            (Error::invalid("path", "x"), 1),
            (Error::invalid("--data", "x"), 2),
            (Error::conflict("x"), 1),
            (Error::unsupported("x"), 1),
            (Error::unavailable("x"), 3),
            (Error::indeterminate("x"), 3),
            (Error::corrupt("x"), 4),
        ] {
            let Failure::Said { code, .. } = Failure::from(error.clone()) else { panic!("{error}") };
            assert_eq!(code as u8, expected, "{error}");
        }
    }
}
