//! Batches in flight: which may start, what came back, and when to stop.

use std::pin::pin;
use std::rc::Rc;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc::Receiver;
use tokio::time::{self, MissedTickBehavior};

use super::progress::{Display, TICK};
use crate::cli::client::{Client, Posted};
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output::note;
use crate::cli::source::chunk::Chunk;
use crate::cli::write::was_known;
use crate::error::Result;

/// What has been taken by the server.
#[derive(Debug, Default)]
pub struct Tally {
    /// Changes in all batches.
    pub changes: u64,
    /// Batches that this import brought.
    pub new: u64,
    /// Batches that were there already.
    pub known: u64,
    /// The highest seq, and the id of a batch there.
    pub last: Option<(u64, String)>,
}

impl Tally {
    /// All batches.
    pub fn batches(&self) -> u64 {
        self.new + self.known
    }

    fn add(&mut self, chunk: &Chunk, posted: Posted) {
        let receipt = posted.receipt;
        self.changes += chunk.len as u64;
        match posted.tries == 1 && was_known(&receipt) {
            true => self.known += 1,
            false => self.new += 1, // or its first try was lost and had arrived: that was ours too
        }
        if self.last.as_ref().is_none_or(|(seq, _)| receipt.seq > *seq) {
            self.last = Some((receipt.seq, receipt.batch));
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
                let posted = client.post("committed", |basis| chunk.body(basis)).await;
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
                    Ok(posted) => tally.add(&chunk, posted),
                    Err(e) => drop(failure.get_or_insert(about(e, &chunk))),
                }
            }
            read = batches.recv(), if free && !ended && next.is_none() => match read {
                None => ended = true,
                Some(Ok(chunk)) => next = Some(chunk),
                Some(Err(e)) => failure = Some(e.into()),
            },
            _ = ticks.tick() => display.tick(tally),
        }
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
