//! `tuflog checkpoints` and `tuflog checkpoint`: what was published, newest first, and one of them in full.

use clap::Args;

use super::ask::{self, AskArgs, Asked};
use super::failure::{Code, Failure, Outcome};
use super::output::{Look, ago, bytes, count, facts, line, look, milliseconds, plural, table, time};
use crate::clock::{Clock, SystemClock};
use crate::query::{CheckpointAnswer, CheckpointsAnswer, PartitionCut, Stages};

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
        let now = SystemClock.now();
        let row = |c: &CheckpointAnswer| {
            let timestamp = c.timestamp.as_ref().map_or(String::new(), |t| format!("version {}", t.version));
            vec![count(c.n), ago(c.time, now), count(c.seq), bytes(c.snapshot.length), timestamp]
        };
        let header = ["CHECKPOINT", "CUT", "SEQ", "SNAPSHOT", "TIMESTAMP"];
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
    args.print(&answer, full)
}

fn full(c: &CheckpointAnswer) -> Outcome {
    let now = SystemClock.now();
    let mut rows = vec![
        ("checkpoint", count(c.n)),
        ("cut at", time(c.time, now)),
        ("seq", format!("{}: of its cut, and it holds what was committed before that", count(c.seq))),
        ("snapshot", format!("{}, {}", c.snapshot.name, bytes(c.snapshot.length))),
        ("sha256", c.snapshot.sha256.clone()),
    ];
    rows.extend(c.ledger_state.iter().map(|name| ("ledger state", name.clone())));
    if let Some(t) = &c.timestamp {
        rows.push(("timestamp", format!("version {}, expires {}", t.version, time(t.expires, now))));
    }
    let Some(d) = &c.detail else {
        rows.push(("ends", c.ends.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")));
        return facts(&rows);
    };
    let (batches, changes) = (plural(d.batches, "batch", "batches"), plural(d.changes, "change", "changes"));
    let since = d.previous.map_or(String::new(), |n| format!(" since checkpoint {}", count(n)));
    rows.push(("brings", format!("{changes} in {batches}{since}")));
    let rendered = plural(d.bins.len() as u64, "bin", "bins");
    rows.push(("renders", if d.targets_json { format!("{rendered}, targets.json") } else { rendered }));
    let Stages { gathered_ms, folded_ms, sealed_ms } = d.stages;
    rows.push(("gathered", format!("{} from its first commit to the cut", milliseconds(gathered_ms))));
    let waited = d.waited_for.map_or(String::new(), |p| format!("; partition {p} came last"));
    rows.push(("folded", format!("{} until all bins were stored{waited}", milliseconds(folded_ms))));
    rows.push(("sealed", format!("{} until snapshot and Checkpoint were written", milliseconds(sealed_ms))));
    facts(&rows)?;
    line("")?;
    let row = |p: &PartitionCut| {
        let reported = p.reported_ms.map_or("-".to_owned(), milliseconds);
        let last = if d.waited_for == Some(p.partition) { look(Look::Fair, reported) } else { reported };
        vec![p.partition.to_string(), count(p.end), count(p.changes), count(p.bins), bytes(p.bytes), last]
    };
    let header = ["PARTITION", "OFFSET", "CHANGES", "BINS", "WRITTEN", "REPORTED AFTER"];
    table(&header, &[0, 1, 2, 3, 4, 5], d.partitions.iter().map(row).collect())
}

const ONE_EXAMPLES: &str = "\
Examples:
  tuflog checkpoint 7
  tuflog checkpoint 7 --json              # with the names of its bins
  tuflog diff 6 7                         # which targets it changed

Which partition is slow? The one that came last, time and again.";

/// Show a checkpoint in full: what it brought, how long it took
#[derive(Debug, Args)]
#[command(
    long_about = "Show a checkpoint in full: its cut, the committed offset of every partition, what it brought, \
which partition was waited for, and how long each stage took by the times at which the log took its records. Exit code 1 \
if there is no checkpoint of the number given."
)]
#[command(after_long_help = ONE_EXAMPLES)]
pub struct CheckpointArgs {
    /// Its number
    #[arg(value_name = "N")]
    n: u64,

    #[command(flatten)]
    ask: AskArgs,
}

/// Runs `tuflog checkpoint`.
pub async fn of(args: CheckpointArgs) -> Outcome {
    let asked = args.ask.open().await?;
    one(&args.ask, asked, args.n).await
}
