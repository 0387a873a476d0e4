//! `tuflog target`: what clients find at a path, now or then, and what brought it.

use clap::Args;

use super::ask::{self, AskArgs, Asked, AtArgs};
use super::failure::{Code, Failure, Outcome};
use super::output::{bytes, count, facts, time};
use crate::change::check_path;
use crate::clock::{Clock, SystemClock};
use crate::query::{EntryAnswer, TargetAnswer};

const EXAMPLES: &str = "\
Examples:
  tuflog target pool/main/h/hello/hello_2.10-3_amd64.deb
  tuflog target hello.txt --at 7          # as checkpoint 7 published it
  tuflog target hello.txt --at 2h --json
  tuflog target hello.txt --data repo     # of a stopped node

Nothing there though it was sent? `tuflog history PATH` shows what is committed and not yet published, `tuflog batch ID` \
how far a batch has come, `tuflog lag` what is behind.";

/// Show what is published at a path, and what brought it
#[derive(Debug, Args)]
#[command(
    long_about = "Show what is published at a path, found as a client finds it: timestamp, snapshot, bin, target. With \
it the batch that brought it, which is looked for in the log if need be. Exit code 1 if nothing is published there."
)]
#[command(after_long_help = EXAMPLES)]
pub struct TargetArgs {
    /// The target's path
    path: String,

    #[command(flatten)]
    at: AtArgs,

    #[command(flatten)]
    ask: AskArgs,
}

/// Runs the command.
pub async fn run(args: TargetArgs) -> Outcome {
    check_path(&args.path).map_err(|e| Failure::usage(format!("PATH: {}", e.message)))?;
    let at = args.at.at()?;
    let answer: Option<TargetAnswer> = match args.ask.open().await? {
        Asked::Server(client) => {
            let mut query = vec![("origin", "full".to_owned())];
            query.extend(args.at.parameter()?);
            client.find(&format!("v1/targets/{}", args.path), &query).await?.map(ask::read).transpose()?
        }
        Asked::Data(data) => data.query.target_and_origin(&args.path, at, true).await?,
    };
    let Some(answer) = answer else {
        let then = at.map_or(String::new(), |at| format!(" at {at}"));
        return Err(Failure::new(Code::Failed, format!("nothing is published at {}{then}", args.path))
            .hint(format!("`tuflog history {}` shows whether anything ever was, or is on its way", args.path)));
    };
    args.ask.print(&answer, |a| {
        let mut rows = vec![("path", a.path.clone())];
        let TargetAnswer { length, hashes, custom, .. } = a.clone();
        let stands = EntryAnswer { length, hashes, custom };
        rows.extend(entry(&stands));
        rows.push(("bin", format!("{} version {}", a.bin, a.version)));
        rows.push(("checkpoint", count(a.checkpoint)));
        if let Some(origin) = &a.origin {
            let published =
                origin.checkpoint.map_or(String::new(), |n| format!(", published by checkpoint {}", count(n)));
            rows.push(("brought by", format!("batch {}, seq {}{published}", origin.batch, count(origin.seq))));
            rows.push(("committed", time(origin.time, SystemClock.now())));
        }
        facts(&rows)
    })
}

/// What stands at a path, as facts.
fn entry(e: &EntryAnswer) -> Vec<(&str, String)> {
    let exact = if e.length < 1024 { String::new() } else { format!(" ({} bytes)", count(e.length)) };
    let mut rows = vec![("length", format!("{}{exact}", bytes(e.length)))];
    let digest = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    rows.extend(e.hashes.iter().map(|(name, value)| (name.as_str(), digest(value))));
    rows.extend(e.custom.iter().map(|custom| ("custom", serde_json::Value::Object(custom.clone()).to_string())));
    rows
}

/// The same in one line.
pub fn brief(e: &EntryAnswer) -> String {
    let sha256 = e.hashes.get("sha256").and_then(|v| v.as_str()).unwrap_or_default();
    format!("{} sha256:{}", bytes(e.length), sha256.get(..12).unwrap_or(sha256))
}
