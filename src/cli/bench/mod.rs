//! `tuflog bench`: load a repository, measure, and check everything that is read meanwhile.

mod show;

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use tokio_util::sync::CancellationToken;

use self::show::Display;
use super::client::{DEFAULT_SERVER, token};
use super::failure::{Code, Failure, Outcome};
use super::output::{self, line, note, plural};
use super::write::Wait;
use crate::bench::{self, Mix, Options, Report, Skew, Until};
use crate::client;

const EXAMPLES: &str = "\
Examples:
  tuflog bench
  tuflog bench --producers 64 --batch-size 1 --targets 100000 --duration 30
  tuflog bench --changes 1000000 --mix 100:0:0 --batch-size 1000 --plot bench.html
  tuflog bench --producers 1 --batch-size 1 --rate 5 --wait published --mix 0:1:0 --targets 10000
  tuflog bench --skew hot:16:80 --server http://a:8080 --server http://b:8080 --json
  tuflog bench --clean --seed 7

Exit codes: 0 when all that was read is right and every acknowledged batch is there, 1 with findings, 3 when the server \
is away.";

/// Load a repository, measure, and check what it publishes meanwhile
#[derive(Debug, Args)]
#[command(long_about = "Load a repository, measure, and check what it publishes meanwhile.

Producers send batches; readers follow timestamp, snapshot and bins as TUF clients do and verify every signature, \
length and hash, that versions never go down, and that a batch is in a snapshot as a whole or not at all. In the end every \
acknowledged batch is looked up by its id, and every target is compared with its last acknowledged change.

Everything stands under bench/SEED/; one seed gives one load. It may run against a repository that is in use: --clean \
removes it all again.")]
#[command(after_long_help = EXAMPLES)]
pub struct BenchArgs {
    /// How many producers, each with one batch on its way at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    producers: u32,

    /// How many changes a batch has
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    batch_size: u64,

    /// How many changes are sent a second in all [default: as many as go]
    #[arg(long, value_name = "N", value_parser = positive)]
    rate: Option<f64>,

    /// How long to send, in seconds
    #[arg(long, value_name = "S", default_value = "10", value_parser = positive)]
    duration: f64,

    /// How many changes to send, however long it takes
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    changes: Option<u64>,

    /// Shares of changes that add, replace and remove targets
    #[arg(long, value_name = "ADD:REPLACE:REMOVE", default_value = "70:25:5")]
    mix: Mix,

    /// Which bins the changes fall into: uniform, zipf[:EXPONENT] or hot:BINS:PERCENT
    #[arg(long, value_name = "SKEW", default_value = "uniform")]
    skew: Skew,

    /// How many targets to add before anything is measured
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1_000_000_000))]
    targets: u64,

    /// What a producer waits for before its next batch
    #[arg(long, value_enum, default_value = "committed")]
    wait: Wait,

    /// How many further producers send single changes and wait until those are visible, which tells when all others are
    /// [default: 2; 0 with --wait published]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1024))]
    probes: Option<u32>,

    /// How many clients read and verify meanwhile
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=1024))]
    readers: u32,

    /// How long each of them pauses between two looks, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    read_every: u64,

    /// Names the load and its paths, bench/SEED/… [default: random]
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,

    /// Remove what runs of --seed have left, and do nothing else
    #[arg(long, requires = "seed")]
    clean: bool,

    /// The root that the readers trust [default: the server's first]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,

    /// The server's processes, to measure their CPU and memory [default: who listens at the address, if it is local]
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,

    /// Write a page with the curves: one file, nothing else needed to look at it
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    /// Print the report as JSON (schemas/bench.json)
    #[arg(long)]
    json: bool,

    /// The servers: URLs, or HOST:PORT, of nodes of one repository
    #[arg(long, env = "TUFLOG_SERVER", value_name = "URL", default_value = DEFAULT_SERVER, help_heading = "Server")]
    server: Vec<String>,

    /// File whose first word is the bearer token to send; else the variable TUFLOG_TOKEN is used
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    token_file: Option<PathBuf>,

    /// How long to try again while the server is away or answers 503, in seconds [default: 60; 2 while it has never
    /// answered]
    #[arg(long, env = "TUFLOG_RETRY_FOR", value_name = "S", help_heading = "Server")]
    retry_for: Option<u64>,
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n| (1e-3..=1e9).contains(n));
    number.ok_or_else(|| "expected a number from 0.001 to 1000000000".into())
}

/// Runs the command.
pub async fn run(args: BenchArgs) -> Outcome {
    let options = options(&args)?;
    let display = Display::new();
    let show = |progress| display.show(&options, progress);
    if args.clean {
        let removed = bench::clean(&options, |done, all| display.cleaning(done, all)).await;
        display.end();
        return line(format!("removed {}", plural(removed?, "target", "targets")));
    }
    let outcome = tokio::select! {
        outcome = bench::run(&options, show) => outcome,
        () = interrupted(&options.stop) => {
            return Err(Failure::new(Code::TryAgain, "interrupted, nothing was checked").hint(show::again(&options)));
        }
    };
    display.end();
    if !matches!(outcome, Err(client::Failure::Setup(_))) {
        note(show::again(&options)); // a random seed is not known otherwise
    }
    finish(&args, &outcome?)
}

fn finish(args: &BenchArgs, report: &Report) -> Outcome {
    if let Some(file) = &args.plot {
        let written = std::fs::write(file, bench::plot::page(report));
        written
            .map_err(|e| Failure::new(Code::Failed, format!("--plot: {} cannot be written: {e}", file.display())))?;
    }
    match args.json {
        true => output::json(report)?,
        false => show::report(report)?,
    }
    match report.findings_total {
        0 => Ok(()),
        _ => Err(Failure::Quiet(Code::Failed)),
    }
}

/// Ctrl-C ends the load; once more ends everything.
async fn interrupted(stop: &CancellationToken) {
    for _ in 0..2 {
        if tokio::signal::ctrl_c().await.is_err() {
            return std::future::pending().await; // the system lets nobody listen
        }
        if !stop.is_cancelled() {
            note("stopping the load, then checking (Ctrl-C again: at once)");
            stop.cancel();
        }
    }
}

fn options(args: &BenchArgs) -> Outcome<Options> {
    let root = match &args.root {
        Some(file) => Some(Bytes::from(
            std::fs::read(file)
                .map_err(|e| Failure::usage(format!("--root: {} cannot be read: {e}", file.display())))?,
        )),
        None => None,
    };
    Ok(Options {
        servers: args.server.clone(),
        token: token(args.token_file.as_deref())?,
        retry_for_ms: args.retry_for.map(|s| s.saturating_mul(1_000)),
        seed: args.seed.unwrap_or_else(|| fastrand::u64(1_000..1_000_000)),
        producers: args.producers,
        probes: args.probes.unwrap_or(if args.wait == Wait::Published { 0 } else { 2 }),
        batch_size: args.batch_size as usize,
        rate: args.rate,
        until: args.changes.map_or(Until::Seconds(args.duration), Until::Changes),
        mix: args.mix,
        skew: args.skew,
        targets: args.targets,
        wait: args.wait,
        readers: args.readers,
        read_every_ms: args.read_every,
        root,
        pids: args.pid.clone(),
        stop: CancellationToken::new(),
    })
}
