//! `tuflog search`: the targets whose paths match a pattern.

use clap::Args;

use super::ask::{self, AskArgs, Asked, AtArgs};
use super::failure::{Code, Failure, Outcome};
use super::output::{note, plural, table};
use super::target::brief;
use crate::query::{FoundTarget, Pattern, SearchAnswer};

/// The most targets that are asked for at a time.
const PAGE: u64 = 10_000;

const EXAMPLES: &str = "\
Examples:
  tuflog search hello                     # anywhere in the path
  tuflog search 'pool/main/h/*.deb'
  tuflog search '*.whl' --limit 100000 --json
  tuflog search 'hello*' --at 2026-11-27

In a pattern * is any number of characters, / too, ? is one, [a-z] one of these, {a,b} either.";

/// Show the targets whose paths match a pattern
#[derive(Debug, Args)]
#[command(long_about = "Show the targets whose paths match a pattern, by bin and path. Exit code 1 if there is none.")]
#[command(after_long_help = EXAMPLES)]
pub struct SearchArgs {
    /// The pattern; without any of * ? [ ] { } it is looked for anywhere in the path
    #[arg(value_name = "GLOB")]
    glob: String,

    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,

    /// Only those behind this one
    #[arg(long, value_name = "PATH")]
    after: Option<String>,

    #[command(flatten)]
    at: AtArgs,

    #[command(flatten)]
    ask: AskArgs,
}

/// Runs the command.
pub async fn run(args: SearchArgs) -> Outcome {
    let pattern = Pattern::new(&args.glob).map_err(|e| Failure::usage(format!("GLOB: {}", e.message)))?;
    let (asked, at) = (args.ask.open().await?, args.at.at()?);
    let mut whole = SearchAnswer { checkpoint: 0, targets: vec![], after: args.after.clone() };
    // Page by page, of one checkpoint.
    let mut then = at;
    loop {
        let page = (args.limit - whole.targets.len() as u64).min(PAGE);
        let next: SearchAnswer = match &asked {
            Asked::Server(client) => {
                let mut query = vec![("glob", args.glob.clone()), ("limit", page.to_string())];
                query.extend(then.map(|at| ("at", at.to_string())));
                query.extend(whole.after.iter().map(|path| ("after", path.clone())));
                ask::read(client.get("v1/search", &query).await?)?
            }
            Asked::Data(data) => data.query.find_targets(&pattern, then, whole.after.as_deref(), page as usize).await?,
        };
        then = Some(crate::query::At::Checkpoint(next.checkpoint));
        (whole.checkpoint, whole.after) = (next.checkpoint, next.after);
        whole.targets.extend(next.targets);
        if whole.after.is_none() || whole.targets.len() as u64 >= args.limit {
            break;
        }
    }
    let is_empty = whole.targets.is_empty();
    if args.ask.json || !is_empty {
        args.ask.print(&whole, |a| {
            let row = |t: &FoundTarget| vec![t.path.clone(), t.bin.clone(), brief(&t.target)];
            table(&["PATH", "BIN", "TARGET"], &[], a.targets.iter().map(row).collect())?;
            let found = plural(a.targets.len() as u64, "target", "targets");
            note(match &a.after {
                None => format!("{found} at checkpoint {}", a.checkpoint),
                Some(after) => {
                    format!("{found} at checkpoint {}; there are more: --limit, or --after {after}", a.checkpoint)
                }
            });
            Ok(())
        })?;
    }
    match is_empty {
        false => Ok(()),
        true => {
            let none =
                Failure::new(Code::Failed, format!("no path matches {} at checkpoint {}", args.glob, whole.checkpoint));
            let part = args.glob.trim_matches('*');
            let is_anywhere = !args.glob.contains(['*', '?', '[', ']', '{', '}']) || args.glob == format!("*{part}*");
            Err(match is_anywhere {
                true => none,
                false => none.hint(format!("a pattern must match the whole path, capitals too: try '*{part}*'")),
            })
        }
    }
}
