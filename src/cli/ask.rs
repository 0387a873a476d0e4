//! Whom a question goes to: a server, or the data directory of a stopped node, read here.
//!
//! Both give the same answers, for both are given by [`crate::query`]. The directory's lock is held while it is read, so
//! nothing changes meanwhile, and a running node refuses with its address.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::{Client, ServerArgs};
use super::failure::Outcome;
use super::opened::{self, Opened};
use super::output;
use crate::client;
use crate::pool::Pool;
use crate::query::Query;

/// Whom to ask, and how to print the answer.
#[derive(Clone, Debug, Args)]
pub struct AskArgs {
    /// Ask the data directory of a stopped node instead of a server
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Print the answer as JSON, as the API gives it
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

/// Who answers.
pub enum Asked {
    /// A running node.
    Server(Client),
    /// The data of a stopped one.
    Data(Data),
}

/// An opened data directory; it stays locked as long as this lives.
pub struct Data {
    /// Answers.
    pub query: Query,
    _opened: Opened,
}

impl AskArgs {
    /// Opens the one or the other. `--data` wins over TUFLOG_SERVER.
    pub async fn open(&self) -> Outcome<Asked> {
        let Some(path) = &self.data else { return Ok(Asked::Server(self.server.client()?)) };
        let opened = opened::open(path).await?;
        let query = Query::new(opened.log.clone(), opened.store.clone(), Pool::Inline);
        Ok(Asked::Data(Data { query, _opened: opened }))
    }

    /// Prints an answer: as JSON, or as `people` says.
    pub fn print<T: Serialize>(&self, answer: &T, people: impl FnOnce(&T) -> Outcome) -> Outcome {
        if self.json { output::json(answer) } else { people(answer) }
    }
}

/// Reads an answer of the API.
pub fn read<T: DeserializeOwned>(value: Value) -> Outcome<T> {
    serde_json::from_value(value).map_err(|e| client::Failure::Unreadable(e.to_string()).into())
}
