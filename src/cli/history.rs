//! `tuflog history`: every change of a path.

use clap::Args;

use super::ask::{self, AskArgs, Asked};
use super::failure::{Code, Failure, Outcome};
use super::output::{Look, ago, count, line, look, note, table};
use super::target::brief;
use crate::change::{Op, check_path};
use crate::clock::{Clock, SystemClock};
use crate::log::Offset;
use crate::query::{HistoryAnswer, HistoryChange};

/// How many changes are asked for at a time.
const PAGE: usize = 1_000;

const EXAMPLES: &str = "\
Examples:
  tuflog history hello.txt
  tuflog history hello.txt --limit 1      # the last change, and what brought it
  tuflog history hello.txt --json
  tuflog history hello.txt --data repo    # of a stopped node

Which batch removed a path? The first line that says so. A change without a checkpoint is committed and not yet \
published.";

/// Show every change of a path, newest first
#[derive(Debug, Args)]
#[command(
    long_about = "Show every change of a path that was ever applied, newest first, removals too: with its batch, \
seq, checkpoint and time.

It reads the one partition of the log that the path belongs to, backwards, and says how far back it saw. Exit code 1 if \
there was never a change."
)]
#[command(after_long_help = EXAMPLES)]
pub struct HistoryArgs {
    /// The path
    path: String,

    /// Stop when so many changes were found; those that stand together in the log come together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// Only what stands in the partition before this offset
    #[arg(long, value_name = "OFFSET")]
    before: Option<Offset>,

    #[command(flatten)]
    ask: AskArgs,
}

/// Runs the command.
pub async fn run(args: HistoryArgs) -> Outcome {
    check_path(&args.path).map_err(|e| Failure::usage(format!("PATH: {}", e.message)))?;
    let asked = args.ask.open().await?;
    let limit = args.limit.map_or(usize::MAX, |n| n as usize);
    let mut whole: Option<HistoryAnswer> = None;
    loop {
        let found = whole.as_ref().map_or(0, |w| w.changes.len());
        let before = whole.as_ref().map_or(args.before, |w| w.before);
        let page = limit.saturating_sub(found).min(PAGE);
        let next: HistoryAnswer = match &asked {
            Asked::Server(client) => {
                let mut query = vec![("limit", page.to_string())];
                query.extend(before.map(|before| ("before", before.to_string())));
                ask::read(client.get(&format!("v1/history/{}", args.path), &query).await?)?
            }
            Asked::Data(data) => data.query.history(&args.path, before, page).await?,
        };
        let so_far = match whole.take() {
            None => next,
            Some(mut so_far) => {
                so_far.changes.extend(next.changes);
                so_far.changes.sort_by_key(|c| std::cmp::Reverse(c.seq));
                HistoryAnswer { read_from: next.read_from, before: next.before, ..so_far }
            }
        };
        let done = so_far.before.is_none() || so_far.changes.len() >= limit;
        whole = Some(so_far);
        if done {
            break;
        }
    }
    let Some(answer) = whole else { return Ok(()) };
    let is_empty = answer.changes.is_empty();
    if args.ask.json || !is_empty {
        args.ask.print(&answer, people)?;
    }
    match is_empty {
        false => Ok(()),
        true => {
            Err(Failure::new(Code::Failed, format!("no change of {} is in the log ({})", args.path, seen(&answer))))
        }
    }
}

fn people(a: &HistoryAnswer) -> Outcome {
    let now = SystemClock.now();
    let row = |c: &HistoryChange| {
        let op = match c.op {
            Op::Add => look(Look::Good, "add"),
            Op::Remove => look(Look::Bad, "remove"),
        };
        let checkpoint = c.checkpoint.map_or_else(|| look(Look::Fair, "not yet"), count);
        let target = c.target.as_ref().map_or(String::new(), brief);
        vec![op, ago(c.time, now), count(c.seq), checkpoint, c.batch.clone(), target]
    };
    line(format!("{}: {} in partition {}", a.path, a.bin, a.partition))?;
    line("")?;
    table(
        &["CHANGE", "COMMITTED", "SEQ", "CHECKPOINT", "BATCH", "TARGET"],
        &[2, 3],
        a.changes.iter().map(row).collect(),
    )?;
    if a.changes.iter().any(|c| c.checkpoint.is_none()) {
        note(
            "not yet: the next cut publishes it, at least min_cut_interval_ms after the last one; `tuflog status` shows what \
             is behind, `tuflog lag` where",
        );
    }
    note(seen(a));
    Ok(())
}

fn seen(a: &HistoryAnswer) -> String {
    match a.before {
        None => format!("all of partition {} was read, {} offsets", a.partition, count(a.read_to)),
        Some(before) => format!(
            "of partition {} the offsets {} to {} were read; further back: --before {before}",
            a.partition,
            count(a.read_from),
            count(a.read_to.saturating_sub(1))
        ),
    }
}
