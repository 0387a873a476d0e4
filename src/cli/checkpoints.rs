//! `tuflog checkpoints`: what was published, newest first.

use clap::Args;

use super::ask::{self, AskArgs, Asked};
use super::failure::{Code, Failure, Outcome};
use super::output::{bytes, count, facts, line, table, time};
use crate::clock::{Clock, SystemClock, format_utc};
use crate::query::{CheckpointAnswer, CheckpointsAnswer};

const EXAMPLES: &str = "\
Examples:
  tuflog checkpoints
  tuflog checkpoints 7                    # one of them, in full
  tuflog checkpoints --limit 100 --before 500
  tuflog checkpoints --data repo --json

Checkpoint n is the snapshot of cut n: n is the version of the snapshot and of every bin that was rendered for it.";

/// Show the checkpoints, newest first, or one of them
#[derive(Debug, Args)]
#[command(long_about = "Show the published checkpoints, newest first, or one of them in full. \
Exit code 1 if there is no checkpoint of the number given.")]
#[command(after_long_help = EXAMPLES)]
pub struct CheckpointsArgs {
    /// The number of one checkpoint
    #[arg(value_name = "N", conflicts_with_all = ["limit", "before"])]
    n: Option<u64>,

    /// How many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    limit: u64,

    /// Only those before this one
    #[arg(long, value_name = "N")]
    before: Option<u64>,

    #[command(flatten)]
    ask: AskArgs,
}

/// Runs the command.
pub async fn run(args: CheckpointsArgs) -> Outcome {
    let asked = args.ask.open().await?;
    if let Some(n) = args.n {
        return one(&args.ask, asked, n).await;
    }
    let answer: CheckpointsAnswer = match asked {
        Asked::Server(client) => {
            let mut query = vec![("limit", args.limit.to_string())];
            query.extend(args.before.map(|n| ("before", n.to_string())));
            ask::read(client.get("v1/checkpoints", &query).await?)?
        }
        Asked::Data(data) => data.query.checkpoints(args.before, args.limit as usize).await?,
    };
    args.ask.print(&answer, |a| {
        if a.checkpoints.is_empty() {
            return match args.before {
                Some(before) => line(format!("there is no checkpoint below {before}")),
                None => line("there is no checkpoint yet"),
            };
        }
        let row = |c: &CheckpointAnswer| {
            let timestamp = c.timestamp.as_ref().map_or(String::new(), |t| format!("version {}", t.version));
            vec![count(c.n), format_utc(c.time), count(c.seq), bytes(c.snapshot.length), timestamp]
        };
        let header = ["CHECKPOINT", "CUT AT", "SEQ", "SNAPSHOT", "TIMESTAMP"];
        table(&header, &[0, 2, 3], a.checkpoints.iter().map(row).collect())?;
        match a.before {
            Some(before) => line(format!("older ones: --before {before}")),
            None => Ok(()),
        }
    })
}

async fn one(args: &AskArgs, asked: Asked, n: u64) -> Outcome {
    let answer: Option<CheckpointAnswer> = match asked {
        Asked::Server(client) => client.find(&format!("v1/checkpoints/{n}"), &[]).await?.map(ask::read).transpose()?,
        Asked::Data(data) => data.query.checkpoint(n).await?,
    };
    let Some(answer) = answer else {
        return Err(Failure::new(Code::Failed, format!("there is no checkpoint {n}")));
    };
    args.print(&answer, |c| {
        let now = SystemClock.now();
        let mut rows = vec![
            ("checkpoint", count(c.n)),
            ("cut at", time(c.time, now)),
            ("seq", format!("{}: it holds the batches committed below", count(c.seq))),
            ("snapshot", format!("{}, {}", c.snapshot.name, bytes(c.snapshot.length))),
            ("sha256", c.snapshot.sha256.clone()),
            ("ends", c.ends.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")),
        ];
        rows.extend(c.ledger_state.iter().map(|name| ("ledger state", name.clone())));
        if let Some(t) = &c.timestamp {
            rows.push(("timestamp", format!("version {}, expires {}", t.version, time(t.expires, now))));
        }
        facts(&rows)
    })
}
