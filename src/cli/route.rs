//! `tuflog route`: where a path lives.

use clap::Args;

use super::ask::{self, AskArgs, Asked};
use super::failure::{Failure, Outcome};
use super::output::facts;
use crate::change::check_path;
use crate::query::RouteAnswer;

const EXAMPLES: &str = "\
Examples:
  tuflog route hello.txt
  tuflog route hello.txt --data repo --json";

/// Show in which bin and partition a path lives
#[derive(Debug, Args)]
#[command(long_about = "Show in which bin and partition a path lives, whether anything is published there or not.

The leading bits of the SHA-256 of the path name the bin, and fewer of them the partition.")]
#[command(after_long_help = EXAMPLES)]
pub struct RouteArgs {
    /// The path
    path: String,

    #[command(flatten)]
    ask: AskArgs,
}

/// Runs the command.
pub async fn run(args: RouteArgs) -> Outcome {
    check_path(&args.path).map_err(|e| Failure::usage(format!("PATH: {}", e.message)))?;
    let answer: RouteAnswer = match args.ask.open().await? {
        Asked::Server(client) => ask::read(client.get(&format!("v1/route/{}", args.path), &[]).await?)?,
        Asked::Data(data) => data.query.route(&args.path).await?,
    };
    args.ask.print(&answer, |a| {
        facts(&[
            ("path", a.path.clone()),
            ("path's sha256", a.sha256.clone()),
            ("bin", format!("{} (index {})", a.bin, a.bin_index)),
            ("partition", a.partition.to_string()),
        ])
    })
}
