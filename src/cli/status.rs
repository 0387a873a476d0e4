//! `tuflog status`: how the repository stands.

use clap::Args;
use serde_json::Value;

use super::ask::{AskArgs, Asked};
use super::failure::Outcome;
use super::output::line;

const EXAMPLES: &str = "\
Examples:
  tuflog status
  tuflog status --json
  tuflog status --data repo               # of a stopped node
  tuflog status --server https://tuf.example.org";

/// Show how the repository stands
#[derive(Debug, Args)]
#[command(long_about = "Show how the repository stands: what is committed, what is published, until when it is valid.")]
#[command(after_long_help = EXAMPLES)]
pub struct StatusArgs {
    #[command(flatten)]
    ask: AskArgs,
}

/// Runs the command.
pub async fn run(args: StatusArgs) -> Outcome {
    let answer: Value = match args.ask.open()? {
        Asked::Server(client) => client.get("v1/status", &[]).await?,
        Asked::Data(data) => serde_json::json!({"data": data.dir.path()}),
    };
    args.ask.print(&answer, |a| line(a))
}
