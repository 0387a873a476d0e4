//! `tuflog replay`: history as JSON Lines, for other programs to build on.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::ask::{self, Data};
use super::client::{Client, ServerArgs};
use super::failure::{Failure, Outcome};
use super::opened::SourceArgs;
use super::output::note;
use crate::client;
use crate::log::Offset;
use crate::query::{Pattern, ReplayOptions};

/// How much is gathered before it is written, while more is at hand.
const WRITE_BYTES: usize = 256 << 10;
/// The first and the longest pause before an answer that broke off before it brought anything is asked for again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

const EXAMPLES: &str = "\
Examples:
  tuflog replay > history.jsonl
  tuflog replay --from 1234 --follow | your-program
  tuflog replay --filter 'pool/main/h/*' --data repo
  tuflog replay | jq -c 'select(.kind == \"checkpoint\") | [.n, .seq]'

Each line is one JSON document, as schemas/replay.json describes it: a batch with its verdict and its changes, a cut, a \
checkpoint, in the order of the ledger. To go on later, take the seq of the last line read: --from SEQ+1. A batch counts \
when its verdict is valid; it is published when a checkpoint's cut stands behind it.";

/// Stream history as JSON Lines, in the order of the ledger
#[derive(Debug, Args)]
#[command(
    long_about = "Stream history as JSON Lines, in the order of the ledger: every batch with its verdict and its \
changes, every cut, every checkpoint. With --follow it goes on with what comes; when the server goes away, it goes on \
where it was when it is back."
)]
#[command(after_long_help = EXAMPLES)]
pub struct ReplayArgs {
    /// From this seq on
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    from: Offset,

    /// Up to this seq
    #[arg(long, value_name = "SEQ")]
    to: Option<Offset>,

    /// Only changes of paths that match this pattern, and batches that have any
    #[arg(long, value_name = "GLOB")]
    filter: Option<String>,

    /// Go on with what comes
    #[arg(long)]
    follow: bool,

    #[command(flatten)]
    source: SourceArgs,

    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
pub async fn run(args: ReplayArgs) -> Outcome {
    let filter = args.filter.as_deref().map(Pattern::new).transpose();
    let filter = filter.map_err(|e| Failure::usage(format!("--filter: {}", e.message)))?;
    let options = ReplayOptions { from: args.from, to: args.to, filter, without_batches: false };
    match args.source.is_given() {
        true => {
            let data = ask::data(&args.source).await?;
            if args.follow {
                data.followed()?;
            }
            here(&data, options, args.follow).await
        }
        false => from_server(&args, &args.server.client()?).await,
    }
}

async fn here(data: &Data, options: ReplayOptions, follow: bool) -> Outcome {
    let mut replay = data.query.replay(options).await?;
    let mut text = Vec::with_capacity(WRITE_BYTES);
    loop {
        match replay.next().await? {
            Some(lines) => {
                for line in lines {
                    text.extend_from_slice(&line.text);
                    text.push(b'\n');
                }
                if text.len() >= WRITE_BYTES {
                    write(&mut text)?;
                }
            }
            None => {
                write(&mut text)?;
                if !follow || replay.is_done() {
                    return Ok(());
                }
                replay.ready().await?;
            }
        }
    }
}

/// What is read of a line to know where to go on.
#[derive(Deserialize)]
struct Place {
    seq: Offset,
}

async fn from_server(args: &ReplayArgs, client: &Client) -> Outcome {
    let (mut from, mut text) = (args.from, Vec::with_capacity(WRITE_BYTES));
    // How many lines of the last seq were printed: an answer may break off between them, and is asked for again.
    let (mut last, mut printed, mut skip) = (None, 0u64, 0u64);
    let mut pause = PAUSES.0;
    loop {
        let mut query = vec![("from", from.to_string()), ("follow", args.follow.to_string())];
        query.extend(args.to.map(|to| ("to", to.to_string())));
        query.extend(args.filter.iter().map(|glob| ("glob", glob.clone())));
        let mut lines = client.lines("v1/replay", &query).await?;
        let before = (last, printed);
        let broken = loop {
            if !lines.is_at_hand() || text.len() >= WRITE_BYTES {
                write(&mut text)?;
            }
            let line = match lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => return write(&mut text),
                Err(e) if args.follow => break e,
                Err(e) => return Err(e.into()),
            };
            let Place { seq } = serde_json::from_slice(&line)
                .map_err(|e| client::Failure::Unreadable(format!("a line of the replay: {e}")))?;
            if last != Some(seq) {
                (last, printed, skip) = (Some(seq), 0, 0);
            }
            if skip > 0 {
                skip -= 1;
                continue;
            }
            printed += 1;
            text.extend_from_slice(&line);
            text.push(b'\n');
        };
        write(&mut text)?;
        if (last, printed) == before {
            note(format!("{broken}; trying again in {} s", pause.as_secs()));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        } else {
            pause = PAUSES.0;
        }
        (from, skip) = (last.unwrap_or(from), printed);
    }
}

fn write(text: &mut Vec<u8>) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.flush()?;
    text.clear();
    Ok(())
}
