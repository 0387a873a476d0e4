//! `tuflog target`: what clients find at a path.

use clap::Args;

use super::ask::{self, AskArgs, Asked};
use super::failure::{Code, Failure, Outcome};
use super::output::{bytes, count, facts};
use crate::change::check_path;
use crate::query::TargetAnswer;

const EXAMPLES: &str = "\
Examples:
  tuflog target pool/main/h/hello/hello_2.10-3_amd64.deb
  tuflog target hello.txt --json
  tuflog target hello.txt --data repo     # of a stopped node";

/// Show what is published at a path
#[derive(Debug, Args)]
#[command(
    long_about = "Show what is published at a path, found as a client finds it: timestamp, snapshot, bin, target. \
Exit code 1 if nothing is published there."
)]
#[command(after_long_help = EXAMPLES)]
pub struct TargetArgs {
    /// The target's path
    path: String,

    #[command(flatten)]
    ask: AskArgs,
}

/// Runs the command.
pub async fn run(args: TargetArgs) -> Outcome {
    check_path(&args.path).map_err(|e| Failure::usage(format!("PATH: {}", e.message)))?;
    let answer: Option<TargetAnswer> = match args.ask.open().await? {
        Asked::Server(client) => {
            client.find(&format!("v1/targets/{}", args.path), &[]).await?.map(ask::read).transpose()?
        }
        Asked::Data(data) => data.query.target(&args.path).await?,
    };
    let Some(answer) = answer else {
        return Err(Failure::new(Code::Failed, format!("nothing is published at {}", args.path)));
    };
    args.ask.print(&answer, |a| {
        let length = if a.length < 1024 { String::new() } else { format!(" ({} bytes)", count(a.length)) };
        let mut rows = vec![("path", a.path.clone()), ("length", format!("{}{length}", bytes(a.length)))];
        let digest = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        rows.extend(a.hashes.iter().map(|(name, value)| (name.as_str(), digest(value))));
        rows.extend(a.custom.iter().map(|custom| ("custom", serde_json::Value::Object(custom.clone()).to_string())));
        rows.push(("bin", format!("{} version {}", a.bin, a.version)));
        rows.push(("checkpoint", count(a.checkpoint)));
        facts(&rows)
    })
}
