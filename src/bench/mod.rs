//! The load tool, which is also a checker: producers load a repository, and TUF clients read it meanwhile and verify.
//!
//! ```text
//!   load.rs     the changes of a seed             produce.rs  producers: one batch on its way each, receipts kept
//!   follow.rs   a TUF client                      read.rs     readers: batches are there as a whole or not at all
//!   check.rs    in the end: every batch, target   measure.rs  latencies, second by second
//!   host.rs     /proc and /metrics                report.rs   what it came to       plot.rs  the same as a page
//! ```
//!
//! Owns no invariant: it checks them from outside, over HTTP, as producers and clients see them. All that it writes
//! stands under `bench/SEED/`, and [`clean`] removes it again.

mod check;
mod clean;
mod follow;
mod host;
mod load;
mod measure;
mod options;
pub mod plot;
mod produce;
mod read;
pub mod report;

use std::cell::{Cell, RefCell};
use std::time::Duration;

pub use clean::clean;
pub use options::{Mix, Options, Skew, Until};
pub use report::Report;
use tokio_util::sync::CancellationToken;

use self::check::patiently;
use self::follow::{Fetch, Follower};
use self::host::Usage;
use self::load::{Lane, Load};
use self::measure::Tally;
use self::produce::Known;
use self::report::{Finding, LoadReport, Process, Readers, Written};
use crate::bins::Layout;
use crate::change::{BatchRequest, ChangeRequest, Op};
use crate::client::{self, Client, Failure, Result, Settings, Wait};
use crate::error::Error;
use crate::http::StatusAnswer;
use crate::pool::Pool;

/// How long everything may take to become visible after the load.
const SETTLE: Duration = Duration::from_secs(300);
/// How often the server's status is looked at.
const STATUS: Duration = Duration::from_millis(50);
/// How often the processes are looked at.
const SAMPLE: Duration = Duration::from_millis(200);
/// How many of those make a second.
const SAMPLES_PER_S: u32 = 5;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// Targets are being added: so many of so many.
    Filling(u64, u64),
    /// The load runs.
    Loading {
        /// Seconds since its begin.
        elapsed_s: f64,
        /// Changes acknowledged.
        changes: u64,
        /// Changes acknowledged and changes that became visible in the last second.
        per_s: (u64, u64),
        /// What is wrong so far.
        findings: u64,
    },
    /// Waiting until everything is visible.
    Settling,
    /// Batches looked up, of so many.
    LookingUp(u64, u64),
    /// Bins compared, of so many.
    Comparing(u64, u64),
}

/// A run under way.
struct Run<'a> {
    options: &'a Options,
    load: Load,
    /// One for each server, which it asks first.
    clients: Vec<Client>,
    known: Known,
    tally: RefCell<Tally>,
    readers: Cell<Readers>,
    /// The load is over: readers stop.
    over: CancellationToken,
}

impl Run<'_> {
    fn client(&self, lane: u32) -> &Client {
        &self.clients[lane as usize % self.clients.len()]
    }

    fn found(&self, finding: Finding) {
        tracing::debug!(kind = finding.kind.name(), finding.message, "finding");
        self.tally.borrow_mut().found(finding);
    }
}

/// The clients of a run, one for each server, and what files are fetched with.
fn connect(options: &Options) -> Result<(Vec<Client>, Fetch)> {
    let mut settings = Settings {
        token: options.token.clone(),
        retry_for_ms: options.retry_for_ms,
        ..Settings::new(&options.servers)
    };
    let (http, bases) = client::connections(&settings)?;
    let mut clients = Vec::new();
    for _ in 0..options.servers.len() {
        clients.push(Client::new(&settings)?);
        settings.servers.rotate_left(1);
    }
    Ok((clients, Fetch::new(http, bases, options.token.clone())))
}

/// Runs a load and checks it. Needs the scopes `publish` and `read` where the server has tokens.
///
/// # Errors
/// When it cannot begin, or the server cannot be asked at the end. Whatever is wrong is a finding of the report.
pub async fn run(options: &Options, show: impl Fn(Progress)) -> Result<Report> {
    let (clients, fetch) = connect(options)?;
    let pool = Pool::threads(1); // one core for verifying, one for all else
    let status = status(&clients[0]).await?;
    let layout = Layout::new(status.layout.bins, status.layout.partitions.into())
        .map_err(|e| Failure::Unreadable(format!("the server's layout: {e}")))?;
    let load = Load::new(options.seed, run_id()?, options.mix, options.skew, layout);
    claim(options, &load, &clients[0], &fetch, &pool, layout).await?;
    let lanes = (0..options.producers + options.probes).map(|id| RefCell::new(Lane::new(&load, id))).collect();
    let (known, tally) = (Known::new(lanes), RefCell::new(Tally::new()));
    let (readers, over) = (Cell::new(Readers { readers: options.readers, ..Readers::default() }), Default::default());
    let run = Run { options, load, clients, known, tally, readers, over };
    if options.targets > 0 {
        run.fill(|done| show(Progress::Filling(done, options.targets))).await;
        show(Progress::Settling);
        run.settle(SETTLE).await;
    }

    let pids = if options.pids.is_empty() { host::listeners(fetch.bases()) } else { options.pids.clone() };
    let watch = Watch { pids: [pids, vec![std::process::id()]], peaks: Cell::new([0; 2]) };
    let (files, bytes) = (fetch.files.get(), fetch.bytes.get());
    let (before, stored, first) = (watch.usages(), stored(&fetch).await, checkpoint(&run).await?);
    run.tally.borrow_mut().begin();
    let settled_s = Cell::new(0.0);
    let loading = async {
        run.produce().await;
        show(Progress::Settling);
        run.settle(SETTLE).await;
        settled_s.set(run.tally.borrow().now() - run.tally.borrow().began()); // the readers finish their looks after it
        run.over.cancel();
    };
    futures::join!(loading, read_all(&run, &fetch, &pool), watch.run(&run, &show), run.follow_published());
    let settled_s = settled_s.get();
    let (after, last) = (watch.usages(), checkpoint(&run).await?);
    let store_bytes = stored.zip(self::stored(&fetch).await).map(|(before, after)| after.saturating_sub(before));
    let mut readers = run.readers.get();
    (readers.files, readers.bytes) = (fetch.files.get() - files, fetch.bytes.get() - bytes);

    let checking = crate::clock::Stopwatch::start();
    let (batches, unchecked) = run.check_batches(|done, all| show(Progress::LookingUp(done, all))).await?;
    let mut checked = match follow(options, &fetch, &pool).await {
        Ok(follower) => run.check_targets(&follower, layout, |done, all| show(Progress::Comparing(done, all))).await,
        Err(finding) => {
            run.found(finding);
            Default::default()
        }
    };
    (checked.batches, checked.unchecked, checked.check_s) = (batches, unchecked, round(checking.seconds()));

    let [server, client] = [0, 1].map(|i| watch.process(i, before[i], after[i]));
    let disk = |u: Option<Usage>| u.and_then(|u| u.disk_bytes);
    let disk_bytes = disk(before[0]).zip(disk(after[0])).map(|(before, after)| after.saturating_sub(before));
    let tally = run.tally.into_inner();
    let (committed, visible) = tally.latencies();
    let per_s = |s: f64| if s > 0.0 { (tally.changes as f64 / s).round() } else { 0.0 };
    Ok(Report {
        v: report::VERSION,
        tuflog: env!("CARGO_PKG_VERSION").into(),
        load: described(options, &run.load.run, &status),
        load_s: round(tally.load_s()),
        settle_s: round((settled_s - tally.load_s()).max(0.0)),
        changes: tally.changes,
        batches: tally.batches,
        published_per_s: per_s(settled_s),
        committed_per_s: per_s(tally.load_s()),
        retries: tally.retries,
        committed,
        visible,
        checkpoints: last.saturating_sub(first),
        longest_gap_s: tally.longest_gap_s().map(round),
        written: Written { store_bytes, disk_bytes },
        server,
        client,
        readers,
        checked,
        seconds: tally.seconds().to_vec(),
        findings: tally.findings,
        findings_total: tally.findings_total,
    })
}

fn described(options: &Options, run: &str, status: &StatusAnswer) -> LoadReport {
    LoadReport {
        servers: options.servers.clone(),
        bins: status.layout.bins,
        partitions: status.layout.partitions,
        seed: options.seed,
        run: run.to_owned(),
        producers: options.producers,
        probes: options.probes,
        batch_size: options.batch_size as u64,
        rate: options.rate,
        mix: [options.mix.add, options.mix.replace, options.mix.remove],
        skew: options.skew.to_string(),
        wait: options.wait.name().into(),
        targets: options.targets,
    }
}

impl Run<'_> {
    /// Notes how far the server says that it has published, until the load is over; what it says the readers hold it to.
    async fn follow_published(&self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(STATUS) => {}
                () = self.over.cancelled() => return,
            }
            let Some(status) = self.client(0).glance("v1/status").await else { continue };
            let Ok(StatusAnswer { published: Some(published), .. }) = serde_json::from_value(status) else { continue };
            if let Some(seq) = published.seq.checked_sub(1) {
                self.tally.borrow_mut().published(seq, Some(published.checkpoint));
            }
        }
    }
}

/// To thousandths.
fn round(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}

async fn status(client: &Client) -> Result<StatusAnswer> {
    let value = client.get("v1/status", &[]).await?;
    serde_json::from_value(value).map_err(|e| Failure::Unreadable(e.to_string()))
}

/// The newest published checkpoint.
async fn checkpoint(run: &Run<'_>) -> Result<u64> {
    Ok(status(run.client(0)).await?.published.map_or(0, |p| p.checkpoint))
}

/// Bytes of objects that the servers have created since they started, if they say so.
async fn stored(fetch: &Fetch) -> Option<u64> {
    let name = "tuflog_objects_created_bytes_total";
    host::metric(&fetch.texts("metrics").await?, name)
}

/// A client that has looked once.
async fn follow<'a>(options: &Options, fetch: &'a Fetch, pool: &'a Pool) -> std::result::Result<Follower<'a>, Finding> {
    let start = async || Follower::start(fetch, pool, options.seed, options.root.clone()).await;
    let mut follower = patiently(start).await?;
    patiently(async || follower.look().await).await?;
    Ok(follower)
}

/// What is found before anything has begun. It is about what the server serves, not about how it was asked for.
fn unreadable(finding: Finding) -> Failure {
    Failure::Answered(Error::invalid("the repository", format!("cannot be read: {}", finding.message)))
}

/// Makes the seed ours: no two runs may write the same paths.
async fn claim(
    options: &Options,
    load: &Load,
    client: &Client,
    fetch: &Fetch,
    pool: &Pool,
    layout: Layout,
) -> Result<()> {
    let follower = follow(options, fetch, pool).await.map_err(unreadable)?;
    let path = load::marker(options.seed);
    let bin = layout.bin_of(&path);
    if patiently(async || follower.bin(bin).await).await.map_err(unreadable)?.1 {
        let seed = options.seed;
        return Err(Failure::Setup(format!(
            "targets of an earlier run stand under bench/{seed}/: --clean removes them"
        )));
    }
    let hashes = [("sha256".to_owned(), hex::encode(crate::bins::sha256(load.run.as_bytes())))];
    let add = ChangeRequest { op: Op::Add, path, length: Some(1), hashes: Some(hashes.into()), custom: None };
    let id = format!("bench-{}-{}-marker", options.seed, load.run);
    client.publish(&BatchRequest { id: Some(id), basis: None, changes: vec![add] }, Wait::Committed).await?;
    Ok(())
}

/// Runs the readers until the load is over.
async fn read_all(run: &Run<'_>, fetch: &Fetch, pool: &Pool) {
    let readers = (0..run.options.readers).map(async |reader| match follow(run.options, fetch, pool).await {
        Ok(mut follower) => run.read(reader, &mut follower).await,
        Err(finding) => run.found(finding),
    });
    futures::future::join_all(readers).await;
}

/// A name that no other run has.
fn run_id() -> Result<String> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|e| Failure::Setup(format!("the system has no randomness: {e}")))?;
    Ok(hex::encode(bytes))
}

/// Watches the server's processes and this one.
struct Watch {
    pids: [Vec<u32>; 2],
    peaks: Cell<[u64; 2]>,
}

impl Watch {
    fn usages(&self) -> [Option<Usage>; 2] {
        let usages = [0, 1].map(|i| host::usage(&self.pids[i]));
        let peaks = self.peaks.get();
        self.peaks.set([0, 1].map(|i| peaks[i].max(usages[i].map_or(0, |u| u.rss_bytes))));
        usages
    }

    /// Looks again and again until the load is over.
    async fn run(&self, run: &Run<'_>, show: &impl Fn(Progress)) {
        let mut last = self.usages();
        let mut ticks = tokio::time::interval(SAMPLE);
        ticks.tick().await; // at once
        let mut per_s = (0, 0);
        let mut n = 0u32;
        loop {
            let ended = tokio::select! {
                _ = ticks.tick() => false,
                () = run.over.cancelled() => true,
            };
            n += 1;
            let now = self.usages();
            let mut tally = run.tally.borrow_mut();
            if n.is_multiple_of(SAMPLES_PER_S) || ended {
                let cpu = |i: usize| last[i].zip(now[i]).map(|(a, b): (Usage, Usage)| round(b.cpu_s - a.cpu_s));
                if let Some(second) = tally.seconds().last() {
                    per_s = (second.committed, second.published);
                }
                tally.tick(cpu(0), cpu(1), ended);
                last = now;
            }
            let (elapsed_s, changes, findings) = (tally.now() - tally.began(), tally.changes, tally.findings_total);
            drop(tally);
            if ended {
                return;
            }
            show(Progress::Loading { elapsed_s, changes, per_s, findings });
        }
    }

    fn process(&self, i: usize, before: Option<Usage>, after: Option<Usage>) -> Option<Process> {
        let cpu_s = round(after?.cpu_s - before?.cpu_s);
        Some(Process { pids: self.pids[i].clone(), cpu_s, peak_rss_bytes: self.peaks.get()[i] })
    }
}
