//! `tuflog audit`: everything from the first record on, or between two checkpoints, rebuilt and compared.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::failure::{Code, Failure, Outcome};
use super::opened::SourceArgs;
use super::output;
use crate::audit::{self, Options, Progress, Range, Report, Verdict};
use crate::error::Kind;

/// How often a line of progress is logged where nobody looks at a bar, in milliseconds.
const LOG_EVERY_MS: u64 = 10_000;

const EXAMPLES: &str = "\
Examples:
  tuflog audit --data repo
  tuflog audit --data repo --json
  tuflog audit --data repo --max-findings 100
  tuflog audit --data repo --from 120 --to 140
  tuflog audit --data repo --resume audit.progress

Exit codes:
  0  whole: all is as the log says
  1  damaged: there are findings
  2  usage: an option is wrong, such as a checkpoint that is not there
  3  incomplete: it was cut off, a node is running on DIR, or log or store do not answer; try again
  4  log or store cannot be read as what they are

Each finding has one of these names, the same with --json: object_missing, object_altered, object_added, \
bad_signature, wrong_expiry, rolled_back, record_altered, record_dropped, record_added, record_reordered, \
record_duplicated, split_batch, version_gap.";

/// Rebuild everything from the log and compare it with what is published
#[derive(Debug, Args)]
#[command(long_about = "Rebuild everything from the log and compare it with what is published.

It replays the ledger from the first record into fresh state, rebuilds every signed byte, verifies every signature \
and the chain of roots with public keys only, and names the first object or record that is missing, altered or out of \
place, with both values. It changes nothing and needs no private key. The node must be stopped.

With --from it begins at a checkpoint as it was signed, and with --to it ends at one; the report says what that leaves \
out. With --resume an audit that was cut off goes on at the last checkpoint that it had verified.

Log and store are those of serve on --data DIR: what DIR/tuflog.toml says, or the file in TUFLOG_CONFIG, and before it \
the variables of serve, such as TUFLOG_KAFKA_BROKERS, TUFLOG_KAFKA_REPO and TUFLOG_STORE_URL. They can also be named \
here.")]
#[command(after_long_help = EXAMPLES)]
pub struct AuditArgs {
    /// Begin with this checkpoint as it was signed [default: with the first record]
    #[arg(long, value_name = "N")]
    from: Option<u64>,

    /// End with this checkpoint [default: with the ledger]
    #[arg(long, value_name = "N")]
    to: Option<u64>,

    /// Keep in FILE how far it is, and go on there if FILE exists; it is removed when the audit has come to its end
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,

    /// After how many findings to stop
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    max_findings: u64,

    /// Where to put the temporary state, which grows to about the size of all targets [default: the system's place]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    source: SourceArgs,
}

/// Runs the command.
pub async fn run(args: AuditArgs) -> Outcome {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let stop = Arc::new(AtomicBool::new(false));
    let options = Options {
        max_findings: args.max_findings as usize,
        scratch: args.scratch,
        range: Range { from: args.from, to: args.to },
        resume: args.resume.clone(),
        stop: stop.clone(),
        ..Options::threads(threads)
    };
    let opened = args.source.open().await?;
    // A directory that holds its log has made its repository; a worker's need not hold the root.
    let root = args.source.data.as_ref().map(|data| data.join("root.json"));
    let options = Options { shipped_root: root.filter(|root| opened.is_own() || root.exists()), ..options };
    let mut meter = Meter::new();
    let audit = audit::run(opened.log.clone(), opened.store.clone(), options, |p| meter.show(p));
    let report = until_interrupted(audit, &stop).await;
    meter.bar.finish_and_clear();
    let report = report?.map_err(|e| match e.kind {
        // Not damaged, but not what this program can judge.
        Kind::Unsupported => Failure::new(Code::Corrupt, e.to_string()),
        _ => e.into(),
    })?;
    if args.json {
        output::json(&report)?;
    } else {
        output::line(&report)?;
    }
    match report.verdict {
        Verdict::Whole => Ok(()),
        Verdict::Damaged => Err(Failure::Quiet(Code::Failed)),
        Verdict::Incomplete => Err(cut_off(&report, args.resume)),
    }
}

/// Runs an audit; at the first SIGINT it ends with what it has, at the second at once.
async fn until_interrupted(
    audit: impl Future<Output = crate::error::Result<Report>>,
    stop: &AtomicBool,
) -> Outcome<crate::error::Result<Report>> {
    let mut audit = pin!(audit);
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            biased;
            signal = &mut interrupt => {
                if signal.is_err() {
                    return Ok(audit.await); // the system gives us no signals
                }
                if stop.swap(true, Ordering::Relaxed) {
                    return Err(Failure::new(Code::TryAgain, "stopped at once by a second interrupt"));
                }
                interrupt.set(tokio::signal::ctrl_c());
            }
            report = &mut audit => return Ok(report),
        }
    }
}

/// Says how to go on.
fn cut_off(report: &Report, resume: Option<PathBuf>) -> Failure {
    let at = format!("cut off at ledger seq {}", report.covered.end_seq);
    match resume {
        Some(file) if file.exists() => {
            Failure::new(Code::TryAgain, at).hint(format!("the same command goes on where {} says", file.display()))
        }
        Some(_) => Failure::new(Code::TryAgain, at).hint("no checkpoint was verified yet: it begins again"),
        None => Failure::new(Code::TryAgain, at)
            .hint("nothing was kept: with --resume FILE an audit that is cut off can go on"),
    }
}

/// Shows how far it is: a bar if a person is looking, else with -v a line now and then.
struct Meter {
    bar: ProgressBar,
    logged_ms: u64,
}

impl Meter {
    fn new() -> Meter {
        let bar = if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("[{bar:30}] {percent:>3} %  {msg}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        } else {
            ProgressBar::hidden()
        };
        Meter { bar, logged_ms: 0 }
    }

    fn show(&mut self, p: &Progress) {
        if !self.bar.is_hidden() {
            self.bar.set_length(p.end);
            self.bar.set_position(p.seq);
            self.bar.set_message(said(p));
        } else if p.elapsed_ms >= self.logged_ms + LOG_EVERY_MS {
            self.logged_ms = p.elapsed_ms;
            let percent = (p.seq * 100).checked_div(p.end).unwrap_or(0);
            tracing::info!("audit: {percent} %, {}", said(p));
        }
    }
}

/// `seq 120 of 4,000, 31,000 changes/s, 1,200 bins/s, 10 s, 1 min to go`
fn said(p: &Progress) -> String {
    let rate = |n: u64| output::count((u128::from(n) * 1_000 / u128::from(p.elapsed_ms.max(1))) as u64);
    let to_go = p.to_go_ms.map_or(String::new(), |ms| format!(", {} to go", output::duration(ms.div_ceil(1_000))));
    format!(
        "seq {} of {}, {} changes/s, {} bins/s, {}{to_go}",
        output::count(p.seq),
        output::count(p.end),
        rate(p.changes),
        rate(p.bins),
        output::duration(p.elapsed_ms / 1_000)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_how_fast_and_how_long() {
        let p = Progress { seq: 12, end: 4_000, changes: 62_000, bins: 500, elapsed_ms: 2_000, ..Progress::default() };
        assert_eq!(said(&p), "seq 12 of 4,000, 31,000 changes/s, 250 bins/s, 2 s");
        assert!(said(&Progress { to_go_ms: Some(59_001), ..p }).ends_with(", 2 s, 1 min to go"));
    }
}
