//! Whom a question goes to: a server; or the data directory of a stopped node, or the log on Kafka and the store, read
//! here.
//!
//! All give the same answers, for all are given by [`crate::query`]. A directory's lock is held while it is read, so
//! nothing changes meanwhile, and a running node refuses with its address.

use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::{Client, ServerArgs};
use super::failure::{Failure, Outcome};
use super::opened::{Opened, SourceArgs};
use super::output;
use crate::client;
use crate::clock::{Clock, SystemClock};
use crate::pool::Pool;
use crate::query::{At, Query};

/// Whom to ask, and how to print the answer.
#[derive(Clone, Debug, Args)]
pub struct AskArgs {
    /// Print the answer as JSON, as the API gives it
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub source: SourceArgs,

    #[command(flatten)]
    pub server: ServerArgs,
}

/// Who answers.
pub enum Asked {
    /// A running node.
    Server(Client),
    /// Log and store, read here.
    Data(Box<Data>),
}

/// An opened repository; a data directory stays locked as long as this lives.
pub struct Data {
    /// Answers.
    pub query: Query,
    opened: Opened,
}

impl Data {
    /// Refuses to wait for what comes where nothing can: a directory that is read is locked.
    pub fn followed(&self) -> Outcome {
        match self.opened.is_own() {
            true => Err(Failure::usage("--follow: nothing comes to the directory of a stopped node")
                .hint("start the node, and follow it with --server")),
            false => Ok(()),
        }
    }
}

impl AskArgs {
    /// Opens the one or the other. Log and store that are named win over TUFLOG_SERVER.
    pub async fn open(&self) -> Outcome<Asked> {
        match self.source.is_given() {
            true => Ok(Asked::Data(Box::new(data(&self.source).await?))),
            false => Ok(Asked::Server(self.server.client()?)),
        }
    }

    /// Prints an answer: as JSON, or as `people` says.
    pub fn print<T: Serialize>(&self, answer: &T, people: impl FnOnce(&T) -> Outcome) -> Outcome {
        if self.json { output::json(answer) } else { people(answer) }
    }
}

/// Opens log and store.
pub async fn data(source: &SourceArgs) -> Outcome<Data> {
    let opened = source.open().await?;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let query = Query::new(opened.log.clone(), opened.store.clone(), Pool::threads(threads));
    Ok(Data { query, opened })
}

/// Reads an answer of the API.
pub fn read<T: DeserializeOwned>(value: Value) -> Outcome<T> {
    serde_json::from_value(value).map_err(|e| client::Failure::Unreadable(e.to_string()).into())
}

/// A point in history that an option names.
#[derive(Clone, Debug, Args)]
pub struct AtArgs {
    /// As it was published then: a checkpoint (7), a ledger position (seq:1234), a time (2026-11-27T10:30:00Z,
    /// 2026-11-27) or some time ago (90s, 5min, 2h, 3d)
    #[arg(long, value_name = "CHECKPOINT|SEQ|TIME")]
    pub at: Option<String>,
}

impl AtArgs {
    /// It, if it is given.
    pub fn at(&self) -> Outcome<Option<At>> {
        self.at.as_deref().map(|text| at(text, "--at")).transpose()
    }

    /// As a parameter of the API.
    pub fn parameter(&self) -> Outcome<Option<(&'static str, String)>> {
        Ok(self.at()?.map(|at| ("at", at.to_string())))
    }
}

/// A point in history, as `name` gives it.
pub fn at(text: &str, name: &str) -> Outcome<At> {
    At::parse(text, SystemClock.now()).map_err(|e| Failure::usage(format!("{name}: {}", e.message)))
}
