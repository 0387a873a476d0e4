//! `tuflog batch`: what became of a batch.

use clap::Args;

use super::ask::{self, AskArgs, Asked};
use super::failure::{Code, Failure, Outcome};
use super::output::{count, facts};
use crate::change::check_id;
use crate::query::BatchAnswer;

const EXAMPLES: &str = "\
Examples:
  tuflog batch release-7
  tuflog batch release-7 --full           # also beyond the horizon: reads the whole ledger
  tuflog batch release-7 --data repo      # of a stopped node
  tuflog batch release-7 --json

A batch is accepted → committed → folded → published. An id is remembered for as many ledger positions as the horizon \
says (65,536); --full finds older ones too.";

/// Show what became of a batch
#[derive(Debug, Args)]
#[command(long_about = "Show what became of a batch: its receipt, by its id. Exit code 1 if there is no such batch.")]
#[command(after_long_help = EXAMPLES)]
pub struct BatchArgs {
    /// The batch's id
    id: String,

    /// Look in the whole ledger, beyond the horizon
    #[arg(long)]
    full: bool,

    #[command(flatten)]
    ask: AskArgs,
}

/// Runs the command.
pub async fn run(args: BatchArgs) -> Outcome {
    check_id(&args.id).map_err(|e| Failure::usage(format!("ID: {}", e.message)))?;
    let answer: Option<BatchAnswer> = match args.ask.open().await? {
        Asked::Server(client) => {
            let history: &[_] = if args.full { &[("history", "full".to_owned())] } else { &[] };
            client.find(&format!("v1/batches/{}", args.id), history).await?.map(ask::read).transpose()?
        }
        Asked::Data(data) => {
            let (query, end) = (&data.query, data.query.ledger_end().await?);
            match query.find(&args.id, end).await? {
                Some(seen) => {
                    let published = query.published().await?;
                    Some(query.receipt(&args.id, seen, end.saturating_sub(1), published, None).await?)
                }
                None => None,
            }
        }
    };
    let Some(answer) = answer else {
        let failure = Failure::new(Code::Failed, format!("there is no batch {}", args.id));
        return Err(if args.full {
            failure
        } else {
            failure.hint("what is refused is kept nowhere; --full looks for what is older than the horizon")
        });
    };
    args.ask.print(&answer, |a| {
        let mut rows = vec![("batch", a.batch.clone()), ("state", a.state.name().to_owned())];
        rows.push(("seq", count(a.seq)));
        rows.extend(a.checkpoint.map(|n| ("checkpoint", count(n))));
        rows.extend(a.not_found.iter().map(|path| ("not found", path.clone())));
        facts(&rows)
    })
}
