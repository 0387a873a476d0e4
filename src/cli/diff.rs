//! `tuflog diff`: what changed between two checkpoints, as it is found.

use clap::Args;
use futures::StreamExt;

use super::ask::{self, AskArgs, Asked};
use super::failure::{Failure, Outcome};
use super::output::{self, Look, count, line, look, note};
use super::target::brief;
use crate::client;
use crate::query::{DiffKind, DiffLine, Pattern};

const EXAMPLES: &str = "\
Examples:
  tuflog diff 6 7                         # what checkpoint 7 brought
  tuflog diff 2h                          # what changed in the last two hours
  tuflog diff 2026-11-26 2026-11-27 --filter 'pool/main/*' --json
  tuflog diff 6 7 --data repo             # of a stopped node

A and B are checkpoints (7), ledger positions (seq:1234), times or how long ago, as for --at.";

/// Show the targets that differ between two checkpoints
#[derive(Debug, Args)]
#[command(
    long_about = "Show the targets that were added (+), changed (~) and removed (-) between two checkpoints, as \
they are found: by bin, in a bin by path. With --json one JSON document a line, as schemas/diff.json describes it."
)]
#[command(after_long_help = EXAMPLES)]
pub struct DiffArgs {
    /// The one before
    #[arg(value_name = "A")]
    from: String,

    /// The one after [default: the newest]
    #[arg(value_name = "B")]
    to: Option<String>,

    /// Only paths that match this pattern
    #[arg(long, value_name = "GLOB")]
    filter: Option<String>,

    #[command(flatten)]
    ask: AskArgs,
}

/// How many of each there were.
#[derive(Default)]
struct Counts {
    added: u64,
    changed: u64,
    removed: u64,
}

/// Runs the command.
pub async fn run(args: DiffArgs) -> Outcome {
    let from = ask::at(&args.from, "A")?;
    let to = args.to.as_deref().map(|text| ask::at(text, "B")).transpose()?;
    let pattern = args.filter.as_deref().map(Pattern::new).transpose();
    let pattern = pattern.map_err(|e| Failure::usage(format!("--filter: {}", e.message)))?;
    let (mut counts, json) = (Counts::default(), args.ask.json);
    match args.ask.open().await? {
        Asked::Server(client) => {
            let mut query = vec![("from", from.to_string())];
            query.extend(to.map(|to| ("to", to.to_string())));
            query.extend(args.filter.iter().map(|glob| ("glob", glob.clone())));
            let mut lines = client.lines("v1/diff", &query).await?;
            while let Some(text) = lines.next().await? {
                let read = serde_json::from_slice(&text);
                counts.print(&read.map_err(|e| client::Failure::Unreadable(e.to_string()))?, json)?;
            }
        }
        Asked::Data(data) => {
            let diff = data.query.diff(from, to).await?;
            let mut bins = std::pin::pin!(data.query.diff_lines(&diff, pattern.as_ref()));
            while let Some(found) = bins.next().await {
                found?.iter().try_for_each(|line| counts.print(line, json))?;
            }
        }
    }
    if !json {
        let Counts { added, changed, removed } = counts;
        note(format!("{} added, {} changed, {} removed", count(added), count(changed), count(removed)));
    }
    Ok(())
}

impl Counts {
    fn print(&mut self, of: &DiffLine, json: bool) -> Outcome {
        let (counted, sign) = match of.diff {
            DiffKind::Added => (&mut self.added, look(Look::Good, "+")),
            DiffKind::Changed => (&mut self.changed, look(Look::Fair, "~")),
            DiffKind::Removed => (&mut self.removed, look(Look::Bad, "-")),
        };
        *counted += 1;
        if json {
            return output::json_line(of);
        }
        let side = |entry: &Option<_>| entry.as_ref().map(brief);
        let what = match (side(&of.before), side(&of.after)) {
            (Some(before), Some(after)) => format!("{before} → {after}"),
            (before, after) => before.or(after).unwrap_or_default(),
        };
        line(format!("{sign} {}  {}", of.path, look(Look::Faint, what)))
    }
}
