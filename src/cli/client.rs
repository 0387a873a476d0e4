//! The options that say which server, and what the client's failures read like on a command line.

use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::{Code, Failure, Outcome};
use crate::client::{self, Settings};
pub use crate::client::{Client, Posted};

/// Where the commands look for a server.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

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

impl ServerArgs {
    /// A client as the arguments say.
    pub fn client(&self) -> Outcome<Client> {
        let retry_for_ms = self.retry_for.map(|s| s.saturating_mul(1_000));
        let settings = Settings {
            token: token(self.token_file.as_deref())?,
            retry_for_ms,
            ..Settings::new([self.server.as_str()])
        };
        let wrong = |e| Failure::usage(format!("--server: {e}")).hint(format!("such as {DEFAULT_SERVER}"));
        Client::new(&settings).map_err(wrong)
    }
}

impl From<client::Failure> for Failure {
    fn from(failure: client::Failure) -> Failure {
        use client::Failure as F;
        let said = |code| Failure::new(code, failure.to_string());
        match &failure {
            F::Setup(_) => said(Code::Usage),
            F::Unreachable { met: false, .. } => said(Code::TryAgain)
                .hint("start it with `tuflog serve --data DIR`, or say where it is with --server URL or TUFLOG_SERVER"),
            F::Unreachable { .. } => said(Code::TryAgain).hint("run the command again when it is back"),
            // Whose batch it is names its id.
            F::Unanswered { .. } | F::InDoubt(_) => said(Code::TryAgain).hint("run the command again"),
            F::Stranger { .. } => {
                said(Code::Failed).hint("is that the address of a tuflog? Say where it is with --server URL")
            }
            F::Unreadable(_) => {
                said(Code::Failed).hint("is the server of another version than this program (tuflog --version)?")
            }
            F::Denied(_) => said(Code::Failed)
                .hint("give a token with the scope this needs: --token-file FILE, or the variable TUFLOG_TOKEN"),
            F::NotFound(_) => said(Code::Failed),
            F::Answered(e) => Failure::from(e.clone()),
        }
    }
}

/// The bearer token: the first word of the file, else that of the variable TUFLOG_TOKEN.
pub fn token(file: Option<&Path>) -> Outcome<Option<String>> {
    let Some(file) = file else {
        return Ok(std::env::var("TUFLOG_TOKEN").ok().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()));
    };
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::usage(format!("--token-file: {} cannot be read: {e}", file.display())))?;
    match text.split_whitespace().next() {
        Some(word) => Ok(Some(word.to_owned())),
        None => Err(Failure::usage(format!("--token-file: {} is empty", file.display()))),
    }
}
