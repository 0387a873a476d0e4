//! What must be so in the end: every acknowledged batch is known by its id, and every target is as its last change left
//! it.
//!
//! Owns the tool's half of invariant 1, from outside: it trusts no receipt, only what a client reads. A batch in doubt
//! (it was sent, and no answer came) may have happened or not; its targets may be either way.

use std::collections::{HashMap, HashSet};

use futures::stream::{self, StreamExt};

use super::Run;
use super::follow::{Follower, Trouble};
use super::load::{self, REMOVED, Seen};
use super::produce::Acknowledged;
use super::report::{Checked, Finding, Kind};
use crate::bins::{Bin, Layout};
use crate::client;
use crate::query::{BatchAnswer, BatchState};

/// How many lookups, and how many bins, are under way at a time.
const WIDTH: usize = 16;
/// How many batches are looked for in the whole ledger, which the server reads for each.
const HISTORIES: usize = 8;
/// How often a file is asked for while the server is away.
const TRIES: u32 = 20;
/// The pause after each, in milliseconds.
const PAUSE_MS: u64 = 250;

/// What a server knows of an acknowledged batch.
enum Lookup {
    /// It is published with its seq.
    Good,
    /// It has another seq, or is not published.
    Wrong,
    /// Nothing, as far as it looked.
    Unknown,
}

impl Run<'_> {
    /// Looks up every acknowledged batch by its id; answers how many were found as they must be, and of how many it is
    /// not known whether they are lost.
    pub async fn check_batches(&self, progress: impl Fn(u64, u64)) -> client::Result<(u64, u64)> {
        let all = self.known.acknowledged.take();
        let total = all.len() as u64;
        let mut lookups = stream::iter(&all).map(async |ack| (ack, self.look_up(ack, false).await));
        let mut lookups = std::pin::pin!((&mut lookups).buffer_unordered(WIDTH));
        let (mut done, mut good, mut unknown) = (0, 0, Vec::new());
        while let Some((ack, found)) = lookups.next().await {
            match found? {
                Lookup::Good => good += 1,
                Lookup::Wrong => {}
                Lookup::Unknown => unknown.push(ack),
            }
            done += 1;
            progress(done, total);
        }
        // An old one may be beyond the horizon, so a new one tells most.
        unknown.sort_unstable_by_key(|ack| std::cmp::Reverse(ack.seq));
        let unchecked = unknown.len().saturating_sub(HISTORIES) as u64;
        for ack in unknown.into_iter().take(HISTORIES) {
            match self.look_up(ack, true).await? {
                Lookup::Good => good += 1,
                Lookup::Wrong => {}
                Lookup::Unknown => {
                    let (id, seq) = (self.id_of(ack), ack.seq);
                    let message = format!("batch {id} was acknowledged with seq {seq} and is not known");
                    self.found(Finding::new(Kind::Lost, message));
                }
            }
        }
        Ok((good, unchecked))
    }

    fn id_of(&self, ack: &Acknowledged) -> String {
        self.known.lanes[ack.lane as usize].borrow().batch_id(&self.load, ack.number)
    }

    /// Asks for it by its id, in the whole history if `full`. That it is wrong is a finding by then.
    async fn look_up(&self, ack: &Acknowledged, full: bool) -> client::Result<Lookup> {
        let id = self.id_of(ack);
        let query: &[_] = if full { &[("history", "full".to_owned())] } else { &[] };
        let Some(value) = self.client(ack.lane).find(&format!("v1/batches/{id}"), query).await? else {
            return Ok(Lookup::Unknown);
        };
        let answer: BatchAnswer =
            serde_json::from_value(value).map_err(|e| client::Failure::Unreadable(e.to_string()))?;
        if answer.seq != ack.seq || answer.state != BatchState::Published {
            let message = format!(
                "batch {id} was acknowledged with seq {} and must be published, it has seq {} and is {}",
                ack.seq,
                answer.seq,
                answer.state.name(),
            );
            self.found(Finding::new(Kind::Lost, message));
            return Ok(Lookup::Wrong);
        }
        Ok(Lookup::Good)
    }

    /// Reads every bin, and compares each target with what was written last.
    pub async fn check_targets(&self, follower: &Follower<'_>, layout: Layout, progress: impl Fn(u64, u64)) -> Checked {
        let mut left: Vec<HashMap<u32, u32>> = Vec::new();
        for lane in &self.known.lanes {
            let lane = lane.borrow();
            left.push(lane.revisions().iter().filter(|(_, rev)| **rev != REMOVED).map(|(n, rev)| (*n, *rev)).collect());
        }
        let doubts = self.known.doubts.take();
        let steps = doubts.iter().flat_map(|(lane, steps)| steps.iter().map(|s| (*lane, s.number)));
        let doubtful: HashSet<(u32, u32)> = steps.collect();
        let mut checked = Checked::default();
        let mut unread: HashSet<Bin> = HashSet::new();
        let mut bins = stream::iter(0..layout.bins()).map(async |bin| (bin, self.bin(follower, bin).await));
        let mut bins = std::pin::pin!((&mut bins).buffer_unordered(WIDTH));
        while let Some((bin, read)) = bins.next().await {
            checked.bins += 1;
            progress(checked.bins, layout.bins().into());
            let Some(targets) = read else {
                unread.insert(bin); // that it cannot be read is a finding already
                continue;
            };
            for target in targets {
                checked.targets += 1;
                let expected = left.get_mut(target.lane as usize).and_then(|lane| lane.remove(&target.number));
                let doubted = target.rev.is_some() && doubtful.contains(&(target.lane, target.number));
                if expected != target.rev && !doubted || target.rev.is_none() {
                    self.differs(follower, target, expected);
                }
            }
        }
        for (lane, left) in (0..).zip(left) {
            let mut missing: Vec<(u32, u32)> = left.into_iter().collect();
            missing.sort_unstable();
            for (number, rev) in missing {
                let path = load::path(self.load.seed, lane, number);
                if doubtful.contains(&(lane, number)) || unread.contains(&layout.bin_of(&path)) {
                    continue;
                }
                checked.targets += 1;
                let n = follower.checkpoint();
                let message = format!("{path} is missing in snapshot {n}: revision {rev} of it was acknowledged");
                self.found(Finding::new(Kind::WrongTarget, message));
            }
        }
        checked
    }

    fn differs(&self, follower: &Follower<'_>, found: Seen, expected: Option<u32>) {
        let path = load::path(self.load.seed, found.lane, found.number);
        let shown = |rev: Option<u32>, none: &str| rev.map_or(none.to_owned(), |rev| format!("revision {rev}"));
        let message = format!(
            "{path} in snapshot {}: {}, the last acknowledged is {}",
            follower.checkpoint(),
            shown(found.rev, "content that was never sent"),
            shown(expected, "that it is not there"),
        );
        self.found(Finding::new(Kind::WrongTarget, message));
    }

    /// The targets of a bin; `None` if it cannot be believed, which is a finding.
    pub async fn bin(&self, follower: &Follower<'_>, bin: Bin) -> Option<Vec<Seen>> {
        let read = patiently(async || follower.bin(bin).await).await;
        read.map_err(|finding| self.found(finding)).ok().map(|(seen, _)| seen)
    }
}

/// Asks again while the server is away.
pub async fn patiently<T>(mut ask: impl AsyncFnMut() -> Result<T, Trouble>) -> Result<T, Finding> {
    let mut tries = 0;
    loop {
        match ask().await {
            Ok(found) => return Ok(found),
            Err(Trouble::Wrong(finding)) => return Err(finding),
            Err(Trouble::Away(why)) if tries == TRIES => return Err(Finding::new(Kind::Missing, why)),
            Err(Trouble::Away(_)) => tries += 1,
        }
        tokio::time::sleep(std::time::Duration::from_millis(PAUSE_MS)).await;
    }
}
