//! `tuflog import`: many targets, in batches, as a stream.
//!
//! ```text
//!   files ──► reader thread: parse, check, cut into batches ──► at most N batches in flight ──► receipts
//!             (waits when it is ahead)                          (each tried again under its id)
//! ```
//!
//! Invariants:
//! - **Resumable.** A batch's id follows from its content (see [`super::source::chunk`]), so the same import run again
//!   sends the same batches, and those that are there are recognised.
//! - **Order where it matters.** Batches in flight may be committed in any order; so a batch that changes a path which
//!   one in flight changes too waits for that one. The last change of a path in the input is the one that stays.
//! - **Bounded.** Memory is a few batches, whatever the input.

mod flight;
mod progress;
mod reader;
#[cfg(test)]
mod tests;

use clap::Args;
use serde_json::json;

use self::flight::Tally;
use self::progress::Display;
use super::client::ServerArgs;
use super::failure::{Code, Failure, Outcome};
use super::output::{count, duration, line, note, plural};
use super::source::{self, Format};
use super::write::{self, Wait, WaitArgs};
use crate::query::BatchAnswer;

const EXAMPLES: &str = "\
Examples:
  tuflog import --format debian '/var/lib/apt/lists/*_Packages*' --wait published
  tuflog import --format dir /srv/targets
  tuflog import --format csv --batch-size 5000 targets.csv
  zcat changes.jsonl.gz | tuflog import --format jsonl -

The formats:
  debian   Packages indexes: Filename, Size and SHA256 of every stanza
  jsonl    one change a line: {\"op\":\"add\",\"path\":\"a/b\",\"length\":3,\"hashes\":{\"sha256\":\"…\"}}
           or {\"op\":\"remove\",\"path\":\"a/b\"}
  csv      path;length;hash-name;hash   (a header line is optional)
  dir      every file in the directory, hashed here; links inside are left out and counted";

/// Import many targets, in batches
#[derive(Debug, Args)]
#[command(long_about = "Import many targets, in batches.

The inputs are read as a stream: plain or compressed (gzip, xz, lz4), files, patterns, or - for standard input. \
Each batch is all or nothing. Its id follows from its content, so an import that was interrupted is simply run \
again with the same inputs and --batch-size: the batches that are there are recognised and change nothing, not even \
back what came after them (for that: --again). \
An input that cannot be read as its format says ends the import with its file and line (exit code 1); the batches \
before it are in, and the corrected import sends only what is new.")]
#[command(after_long_help = EXAMPLES)]
pub struct ImportArgs {
    /// What the inputs hold
    #[arg(long, value_enum)]
    format: Format,

    /// How many changes make a batch
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    batch_size: u64,

    /// Send everything as new batches, though the same were sent before; with the salt of an interrupted run, go on with it
    #[arg(long, value_name = "SALT", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    again: Option<String>,

    /// How many batches are under way at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=64))]
    in_flight: u64,

    /// Files, patterns, directories (with --format dir), or - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,

    #[command(flatten)]
    wait: WaitArgs,

    /// Print the summary as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
pub async fn run(args: ImportArgs) -> Outcome {
    let source = source::open(args.format, &args.files)?;
    let salt = salt(args.again.clone())?;
    let client = args.server.client()?;
    let display = Display::new(source.progress());
    let batches = reader::start(source, args.batch_size as usize, salt.clone())?;
    let mut tally = Tally::default();
    let ended = flight::fly(&client, batches, args.in_flight as usize, &display, &mut tally).await;
    let last = match (&ended, args.wait.wait, &tally.last) {
        (Ok(()), Wait::Published, Some((receipt, chunk))) => {
            display.waiting();
            // A cut is of a prefix of the ledger: what was committed last is published last.
            let body = |basis| chunk.body(basis);
            write::published(&client, receipt.clone(), args.wait.timeout, body).await.map(Some)
        }
        _ => Ok(None),
    };
    display.end();
    match ended {
        Err(failure) => {
            note(format!("import stopped: {}", sentence(&tally, &display)));
            Err(resumable(failure, &tally, salt))
        }
        Ok(()) => summary(&args, &tally, &display, last?),
    }
}

fn summary(args: &ImportArgs, tally: &Tally, display: &Display, last: Option<BatchAnswer>) -> Outcome {
    let checkpoint = last.as_ref().and_then(|r| r.checkpoint);
    let overtaken = tally.overtaken();
    if let Some((theirs, newest)) = overtaken {
        let (batches, what) = match tally.known {
            1 => ("1 batch was".to_owned(), "it"),
            n => (format!("{} batches were", count(n)), "them"),
        };
        note(format!(
            "{batches} there already (published in checkpoint {theirs}, the newest is {newest}): what came since stays. \
             To apply {what} again: --again"
        ));
    }
    if args.json {
        return super::output::json(&json!({
            "changes": tally.changes,
            "batches": tally.batches(),
            "new": tally.new,
            "known": tally.known,
            "skipped": display.skipped(),
            "ms": display.elapsed_ms(),
            "seq": tally.last.as_ref().map(|(receipt, _)| receipt.seq),
            "state": if last.is_some() { "published" } else { "committed" },
            "checkpoint": checkpoint,
        }));
    }
    line(format!("imported {}", sentence(tally, display)))?;
    if display.skipped() > 0 {
        let skipped = plural(display.skipped(), "link or special file was", "links and special files were");
        line(format!("{skipped} left out (-v names them)"))?;
    }
    match checkpoint {
        Some(n) => line(format!("published in checkpoint {n}")),
        None if tally.batches() == 0 => line("there was nothing to import"),
        None if last.is_some() => line("published"),
        None if tally.new == 0 && overtaken.is_some() => line("all of it was there already: nothing of it was applied"),
        None if tally.new == 0 => line("all of it was there already: nothing has changed"),
        None => line("committed: nothing of it can be lost, and clients see it soon (--wait published waits for that)"),
    }
}

/// `66,498 changes in 67 batches: 67 new, 0 there already; 12 s, 5,400 changes/s`.
fn sentence(tally: &Tally, display: &Display) -> String {
    let (ms, batches) = (display.elapsed_ms(), plural(tally.batches(), "batch", "batches"));
    let seconds = if ms < 10_000 { format!("{:.1} s", ms as f64 / 1_000.0) } else { duration(ms / 1_000) };
    format!(
        "{} in {batches}: {} new, {} there already; {seconds}, {} changes/s",
        plural(tally.changes, "change", "changes"),
        count(tally.new),
        count(tally.known),
        count(tally.changes * 1_000 / ms.max(1)),
    )
}

/// Says how to go on.
fn resumable(failure: Failure, tally: &Tally, salt: Option<String>) -> Failure {
    let again = match salt {
        Some(salt) => format!("the same command with --again={salt}"),
        None => "the same command".to_owned(),
    };
    match failure {
        Failure::Said { code, message, hint } if tally.batches() > 0 || code == Code::TryAgain => {
            let go_on = format!("run {again} again to go on: the batches that are there are recognised");
            let hint = Some(hint.map_or(go_on.clone(), |h| format!("{h}; then {go_on}")));
            Failure::Said { code, message, hint }
        }
        other => other,
    }
}

/// The salt of `--again`: a new one, unless it names that of a run to go on with.
fn salt(again: Option<String>) -> Outcome<Option<String>> {
    let Some(given) = again else { return Ok(None) };
    if !given.is_empty() {
        return Ok(Some(given));
    }
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes)
        .map_err(|e| Failure::new(Code::TryAgain, format!("the system has no randomness for --again: {e}")))?;
    Ok(Some(hex::encode(bytes)))
}
