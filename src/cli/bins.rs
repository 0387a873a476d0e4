//! `tuflog bins` and `tuflog bin`: the hash bins, and one of them in full.

use clap::{Args, ValueEnum};

use super::ask::{self, AskArgs, Asked, AtArgs};
use super::failure::{Code, Failure, Outcome};
use super::output::{ago, bytes, count, facts, line, note, table, time};
use super::target::brief;
use crate::clock::{Clock, SystemClock};
use crate::query::{BinAnswer, BinSummary, BinTarget, BinsAnswer};

const BINS_EXAMPLES: &str = "\
Examples:
  tuflog bins --sort size --limit 10      # the largest
  tuflog bins --sort age                  # those rendered longest ago first
  tuflog bins --at 7 --json
  tuflog bins --data repo                 # of a stopped node";

/// By what bins are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// By name
    Name,
    /// The largest first
    Size,
    /// The newest version first
    Version,
    /// The one rendered longest ago first
    Age,
}

/// Show the bins: their versions, sizes and ages
#[derive(Debug, Args)]
#[command(
    long_about = "Show the bins: in which partition each lives, its version (the number of the cut that rendered \
it), its size and its age."
)]
#[command(after_long_help = BINS_EXAMPLES)]
pub struct BinsArgs {
    /// In this order
    #[arg(long, value_enum, default_value = "name")]
    sort: Sort,

    /// Show so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    #[command(flatten)]
    at: AtArgs,

    #[command(flatten)]
    ask: AskArgs,
}

/// Runs `tuflog bins`.
pub async fn all(args: BinsArgs) -> Outcome {
    let at = args.at.at()?;
    let mut answer: BinsAnswer = match args.ask.open().await? {
        Asked::Server(client) => {
            let query: Vec<_> = args.at.parameter()?.into_iter().collect();
            ask::read(client.get("v1/bins", &query).await?)?
        }
        Asked::Data(data) => data.query.bins(at).await?,
    };
    match args.sort {
        Sort::Name => {}
        Sort::Size => answer.bins.sort_by_key(|bin| std::cmp::Reverse(bin.length)),
        Sort::Version => answer.bins.sort_by_key(|bin| std::cmp::Reverse(bin.version)),
        Sort::Age => answer.bins.sort_by_key(|bin| bin.version),
    }
    let all = answer.bins.len();
    answer.bins.truncate(args.limit.unwrap_or(usize::MAX));
    args.ask.print(&answer, |a| {
        let now = SystemClock.now();
        let row = |b: &BinSummary| {
            vec![b.bin.clone(), b.partition.to_string(), count(b.version), bytes(b.length), ago(b.time, now)]
        };
        let header = ["BIN", "PARTITION", "VERSION", "SIZE", "RENDERED"];
        table(&header, &[1, 2, 3], a.bins.iter().map(row).collect())?;
        note(format!("{} bins at checkpoint {}, {}", count(all as u64), count(a.checkpoint), bytes(a.length)));
        Ok(())
    })
}

const BIN_EXAMPLES: &str = "\
Examples:
  tuflog bin bins-0a
  tuflog bin bins-0a --limit 1000 --after pool/main/h/hello.deb
  tuflog bin bins-0a --at 7 --json";

/// Show a bin and the targets in it
#[derive(Debug, Args)]
#[command(after_long_help = BIN_EXAMPLES)]
pub struct BinArgs {
    /// Its role's name
    #[arg(value_name = "NAME")]
    name: String,

    /// How many of its targets
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,

    /// Only targets behind this path
    #[arg(long, value_name = "PATH")]
    after: Option<String>,

    #[command(flatten)]
    at: AtArgs,

    #[command(flatten)]
    ask: AskArgs,
}

/// Runs `tuflog bin`.
pub async fn one(args: BinArgs) -> Outcome {
    let at = args.at.at()?;
    let answer: Option<BinAnswer> = match args.ask.open().await? {
        Asked::Server(client) => {
            let mut query = vec![("limit", args.limit.to_string())];
            query.extend(args.at.parameter()?);
            query.extend(args.after.iter().map(|path| ("after", path.clone())));
            client.find(&format!("v1/bins/{}", args.name), &query).await?.map(ask::read).transpose()?
        }
        Asked::Data(data) => data.query.bin(&args.name, at, args.after.as_deref(), args.limit as usize).await?,
    };
    let Some(answer) = answer else { return Err(Failure::new(Code::Failed, "nothing is published yet")) };
    args.ask.print(&answer, |a| {
        let (now, of) = (SystemClock.now(), &a.summary);
        facts(&[
            ("bin", of.bin.clone()),
            ("partition", of.partition.to_string()),
            ("version", format!("{}, rendered {}", count(of.version), time(of.time, now))),
            ("expires", time(a.expires, now)),
            ("file", format!("{}, {}", a.name, bytes(of.length))),
            ("sha256", a.sha256.clone()),
            ("targets", count(a.count)),
        ])?;
        if a.targets.is_empty() {
            return Ok(());
        }
        line("")?;
        let row = |t: &BinTarget| vec![t.path.clone(), brief(&t.target)];
        table(&["PATH", "TARGET"], &[], a.targets.iter().map(row).collect())?;
        if let Some(after) = &a.after {
            note(format!("more: --after {after}"));
        }
        Ok(())
    })
}
