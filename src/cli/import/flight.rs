//! Batches in flight: which may start, what came back, and when to stop.

use std::pin::pin;
use std::rc::Rc;

use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::Value;
use tokio::sync::mpsc::Receiver;
use tokio::time::{self, MissedTickBehavior};

use super::progress::{Display, TICK};
use crate::cli::client::{Client, Posted};
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::note;
use crate::cli::source::chunk::Chunk;
use crate::cli::write::was_known;
use crate::client::Wait;
use crate::error::Result;
use crate::query::BatchAnswer;

/// What has been taken by the server.
#[derive(Debug, Default)]
pub struct Tally {
    /// Changes in all batches.
    pub changes: u64,
    /// Batches that this import brought.
    pub new: u64,
    /// Batches that were there already.
    pub known: u64,
    /// The receipt with the highest seq, and its batch.
    pub last: Option<(BatchAnswer, Rc<Chunk>)>,
    /// The newest checkpoint before the first batch was sent; `None` if that is not known.
    pub newest: Option<u64>,
    /// The newest checkpoint of the batches that were there already; `None` if one of them is not published yet.
    pub known_in: Option<u64>,
}

impl Tally {
    /// All batches.
    pub fn batches(&self) -> u64 {
        self.new + self.known
    }

    /// The checkpoint that has published the batches that were there already, and the newest, if that is a later one:
    /// then other changes may stand over theirs.
    pub fn overtaken(&self) -> Option<(u64, u64)> {
        Some((self.known_in?, self.newest?)).filter(|(theirs, newest)| newest > theirs)
    }

    fn add(&mut self, chunk: Rc<Chunk>, posted: Posted) {
        let receipt = posted.receipt;
        self.changes += chunk.len as u64;
        if posted.tries == 1 && was_known(&receipt) {
            self.known_in = match self.known {
                0 => receipt.checkpoint,
                _ => self.known_in.zip(receipt.checkpoint).map(|(a, b)| a.max(b)),
            };
            self.known += 1;
        } else {
            self.new += 1; // or its first try was lost and had arrived: that was ours too
        }
        if self.last.as_ref().is_none_or(|(last, _)| receipt.seq > last.seq) {
            self.last = Some((receipt, chunk));
        }
    }
}

/// Sends all batches, at most `width` at a time. It ends when all have landed; after a failure or Ctrl-C nothing new
/// starts, but what is in flight lands.
pub async fn fly(
    client: &Client,
    mut batches: Receiver<Result<Chunk>>,
    width: usize,
    display: &Display,
    tally: &mut Tally,
) -> Outcome {
    let mut flying = FuturesUnordered::new();
    let mut aloft: Vec<Rc<Chunk>> = Vec::new(); // the same ones, to look at
    let mut next: Option<Chunk> = None;
    let (mut ended, mut failure) = (false, None);
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let mut ticks = time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let free = failure.is_none() && flying.len() < width;
        if let Some(chunk) = next.take_if(|c| free && !aloft.iter().any(|a| a.meets(c))) {
            let chunk = Rc::new(chunk);
            aloft.push(chunk.clone());
            flying.push(async move {
                let posted = client.post(&chunk.id, Wait::Committed, None, |basis| chunk.body(basis)).await;
                (chunk, posted)
            });
            continue;
        }
        if flying.is_empty() && (failure.is_some() || ended && next.is_none()) {
            return failure.map_or(Ok(()), Err);
        }
        tokio::select! {
            signal = &mut interrupt => {
                interrupt.set(tokio::signal::ctrl_c());
                if signal.is_err() {
                    continue; // the system lets nobody listen
                }
                if failure.is_some() {
                    return Err(Failure::new(Code::TryAgain, "interrupted, without waiting for what was under way"));
                }
                note("stopping when the batches under way have landed (Ctrl-C again: at once)");
                failure = Some(Failure::new(Code::TryAgain, "interrupted"));
            }
            Some((chunk, posted)) = flying.next() => {
                aloft.retain(|c| c.number != chunk.number);
                match posted {
                    Ok(posted) => tally.add(chunk, posted),
                    Err(e) => drop(failure.get_or_insert(about(e.into(), &chunk))),
                }
            }
            read = batches.recv(), if free && !ended && next.is_none() => match read {
                None => ended = true,
                Some(Ok(chunk)) => {
                    if chunk.number == 1 {
                        tally.newest = newest_checkpoint(client).await;
                    }
                    next = Some(chunk);
                }
                Some(Err(e)) => failure = Some(Failure::from(e).hint("correct that first")),
            },
            _ = ticks.tick() => display.tick(tally),
        }
    }
}

/// The newest published checkpoint, as everybody may know it; 0 if there is none yet.
async fn newest_checkpoint(client: &Client) -> Option<u64> {
    match client.glance("metadata/timestamp.json").await? {
        Value::Null => Some(0),
        timestamp => timestamp.pointer("/signed/meta/snapshot.json/version")?.as_u64(),
    }
}

/// A refusal names the batch: its fields, such as `changes[3].path`, count from the batch's first change.
fn about(failure: Failure, chunk: &Chunk) -> Failure {
    match failure {
        Failure::Said { code: Code::Failed, message, hint } => {
            let message = format!("batch {} of this import ({}): {message}", chunk.number, chunk.id);
            Failure::Said { code: Code::Failed, message, hint }
        }
        other => other,
    }
}
