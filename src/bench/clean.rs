//! Removes what runs of a seed have left, whichever of them and however they ended.

use std::cell::Cell;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::check::patiently;
use super::{Options, connect, follow, load, run_id, unreadable};
use crate::change::{BatchRequest, ChangeRequest, Op};
use crate::client::{Client, Failure, Result, Wait};
use crate::pool::Pool;

/// How many changes a batch has.
const BATCH: usize = 10_000;
/// How many bins are read, and how many batches are on their way, at a time.
const WIDTH: usize = 4;

/// Removes every target under `bench/SEED/` that runs of the seed have made, and waits until clients see it. Answers
/// how many there were; `progress` is told how many are gone, of how many.
///
/// # Errors
/// When the repository cannot be read or written.
pub async fn clean(options: &Options, progress: impl Fn(u64, u64)) -> Result<u64> {
    let (clients, fetch) = connect(options)?;
    let pool = Pool::threads(1);
    let follower = follow(options, &fetch, &pool).await.map_err(unreadable)?;
    let bins = follower.layout().map_or(0, |layout| layout.bins());
    let read = async |bin| patiently(async || follower.bin(bin).await).await.map_err(unreadable);
    let mut paths = Vec::new();
    let mut reads = stream::iter(0..bins).map(read);
    let mut reads = std::pin::pin!((&mut reads).buffer_unordered(WIDTH));
    while let Some((seen, marker)) = reads.try_next().await? {
        paths.extend(seen.iter().map(|s| load::path(options.seed, s.lane, s.number)));
        paths.extend(marker.then(|| load::marker(options.seed)));
    }
    paths.sort_unstable();
    let (all, done, run) = (paths.len() as u64, Cell::new(0), run_id()?);
    let (client, progress) = (&clients[0], &progress);
    let (done, run) = (&done, &run);
    let remove = async |(n, paths): (usize, &[String])| {
        let id = format!("bench-{}-{run}-clean-{n}", options.seed);
        remove(client, id, paths, Wait::Committed).await?;
        done.set(done.get() + paths.len() as u64);
        progress(done.get(), all);
        Ok::<_, Failure>(())
    };
    let mut batches = paths.chunks(BATCH).enumerate();
    let last = batches.next_back();
    let mut removals = stream::iter(batches).map(remove);
    let mut removals = std::pin::pin!((&mut removals).buffer_unordered(WIDTH));
    while removals.try_next().await?.is_some() {}
    if let Some((n, paths)) = last {
        // Committed last, hence published last.
        self::remove(client, format!("bench-{}-{run}-clean-{n}", options.seed), paths, Wait::Published).await?;
    }
    Ok(all)
}

async fn remove(client: &Client, id: String, paths: &[String], wait: Wait) -> Result<()> {
    let change = |path: &String| {
        let path = path.clone();
        ChangeRequest { op: Op::Remove, path, length: None, hashes: None, custom: None }
    };
    let batch = BatchRequest { id: Some(id), basis: None, changes: paths.iter().map(change).collect() };
    client.publish(&batch, wait).await.map(drop)
}
