//! `tuflog export`: the repository as it was published then.

use std::path::PathBuf;

use clap::Args;

use super::ask::{self, AtArgs};
use super::failure::Outcome;
use super::opened::SourceArgs;
use super::output::{self, bytes, count, line, time};
use crate::clock::{Clock, SystemClock};
use crate::query::At;
use crate::tuf::key::KeyRing;
use crate::tuf::key_file;

const EXAMPLES: &str = "\
Examples:
  tuflog export --at 7 --data repo then
  tuflog export --at 2026-11-27 --data repo then
  tuflog export --kafka-brokers HOST:9092 --store-url s3://BUCKET/REPO --keys keys now

A web server on DIR serves it to TUF clients: DIR/metadata/ is what they fetch, DIR/root.json the root they begin with. \
They accept it for as long as it is not expired.";

/// Write the repository as files, as it was published then
#[derive(Debug, Args)]
#[command(
    long_about = "Write the repository as files, as it was published then: every file verified, byte by byte as \
clients got it. timestamp.json is not kept by versions; it is signed again with the online key, which gives the same \
bytes. Only for the newest checkpoint no key is needed."
)]
#[command(after_long_help = EXAMPLES)]
pub struct ExportArgs {
    /// The directory to write to: empty, or not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Directory of the online keys [default: DATA/keys]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,

    /// Print what was written as JSON, as schemas/export.json describes it
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    at: AtArgs,

    #[command(flatten)]
    source: SourceArgs,
}

/// Runs the command.
pub async fn run(args: ExportArgs) -> Outcome {
    let at = args.at.at()?.unwrap_or(At::Time(u64::MAX));
    let place = args.keys.clone().or_else(|| args.source.data.as_ref().map(|data| data.join("keys")));
    // Without them the newest checkpoint can be exported all the same.
    let keys = match place {
        Some(dir) if args.keys.is_some() || dir.is_dir() => key_file::load_online(&dir)?,
        _ => KeyRing::default(),
    };
    let data = ask::data(&args.source).await?;
    let answer = data.query.export(at, &keys, &args.dir).await?;
    if args.json {
        return output::json(&answer);
    }
    line(format!(
        "checkpoint {} by timestamp {}: {} files, {}, in {}",
        count(answer.checkpoint),
        count(answer.timestamp),
        count(answer.files),
        bytes(answer.bytes),
        args.dir.display()
    ))?;
    line(format!("clients accept it until {}", time(answer.expires, SystemClock.now())))
}
