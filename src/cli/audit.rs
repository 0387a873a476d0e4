//! `tuflog audit`: everything from the first record on, rebuilt and compared.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::failure::{Code, Failure, Outcome};
use super::{opened, output};
use crate::audit::{self, Options, Progress};

const EXAMPLES: &str = "\
Examples:
  tuflog audit --data repo
  tuflog audit --data repo --json
  tuflog audit --data repo --max-findings 100

Exit codes: 0 when all is as the log says, 1 with findings, 3 when a node is running on DIR, 4 when log or store \
cannot be read as what they are.";

/// Rebuild everything from the log and compare it with what is published
#[derive(Debug, Args)]
#[command(long_about = "Rebuild everything from the log and compare it with what is published.

It replays the ledger from the first record into fresh state, rebuilds every signed byte, verifies every signature \
and the chain of roots with public keys only, and names the first object that is missing, altered or unexpected, with \
both values. It changes nothing and needs no private key. The node must be stopped.

Log and store are those of serve on DIR: what DIR/tuflog.toml says, or the file in TUFLOG_CONFIG, and before it the \
variables of serve, such as TUFLOG_KAFKA_BROKERS, TUFLOG_KAFKA_REPO and TUFLOG_STORE_URL.")]
#[command(after_long_help = EXAMPLES)]
pub struct AuditArgs {
    /// The data directory of a stopped node
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// After how many findings to stop
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    max_findings: u64,

    /// Where to put the temporary state, which grows to about the size of all targets [default: the system's place]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn run(args: AuditArgs) -> Outcome {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let options =
        Options { max_findings: args.max_findings as usize, scratch: args.scratch, ..Options::threads(threads) };
    let bar = bar();
    let opened = opened::open(&args.data).await?;
    // A directory that holds its log has made its repository; a worker's need not hold the root.
    let root = args.data.join("root.json");
    let options = Options { shipped_root: Some(root).filter(|root| opened.is_own() || root.exists()), ..options };
    let report = audit::run(opened.log.clone(), opened.store.clone(), options, |p| show(&bar, p)).await;
    bar.finish_and_clear();
    let report = report?;
    if args.json {
        output::json(&report)?;
    } else {
        output::line(&report)?;
    }
    match report.is_clean() {
        true => Ok(()),
        false => Err(Failure::Quiet(Code::Failed)),
    }
}

/// A progress bar, if a person is looking.
fn bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("[{bar:30}] {percent:>3} %  seq {pos} of {len}, {msg}, {eta} to go");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(bar: &ProgressBar, p: &Progress) {
    bar.set_length(p.end);
    bar.set_position(p.seq);
    bar.set_message(format!(
        "{} cuts, {} objects ({})",
        output::count(p.cuts),
        output::count(p.objects),
        output::bytes(p.bytes)
    ));
}
