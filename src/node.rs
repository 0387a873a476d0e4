//! A node: configuration → parts → tasks → shutdown. With the handling of connections the only place that spawns.
//!
//! Starts in the order in which things are needed (data directory, log, store, keys, rooms, HTTP) and stops in the
//! opposite one: no more batches, what is committed gets published, requests under way are answered, then the end.

mod engine;
mod folds;
mod room;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, SystemClock};
use crate::config::{Role, Roles, Settings, defaults};
use crate::data_dir::DataDir;
use crate::error::{Error, Kind, Result};
use crate::fold::state::State as BinState;
use crate::http::metered::MeteredStore;
use crate::http::metrics::Metrics;
use crate::http::{self, App, Cause, Health, Tokens};
use crate::ledger::State;
use crate::log::embedded::EmbeddedLog;
use crate::log::kafka::{KafkaLog, KafkaSettings};
use crate::log::{Inbox, Log, Membership};
use crate::pool::Pool;
use crate::query::{Query, Writers, Written};
use crate::recover;
use crate::store::{self, Store, local};
use crate::tuf::key::{KeyId, KeyRing};
use crate::tuf::key_file;

pub use engine::{Engine, Parts, Progress};

/// How often free space is looked at.
const DISK_EVERY: Duration = Duration::from_millis(500);

/// How far the repository's time may be ahead of the clock before that is worth a warning, in seconds.
pub(crate) const MAX_AHEAD_S: u64 = 300;

/// A running node on the embedded log and the store that its settings name.
pub struct Node {
    engine: Engine,
    addr: SocketAddr,
    dir: DataDir,
    tokens: Option<(PathBuf, Tokens)>,
    health: Arc<Health>,
    drain: Duration,
    http_stop: CancellationToken,
    http: JoinHandle<()>,
    disk: JoinHandle<()>,
}

impl Node {
    /// Starts every part; when it answers, the node takes batches.
    pub async fn start(dir: DataDir, settings: &Settings) -> Result<Node> {
        let read = |file: &PathBuf| Tokens::read(file).map(|tokens| (file.clone(), tokens));
        let tokens = settings.auth.tokens_file.as_ref().map(read).transpose()?;
        check_targets(settings)?;
        let listener = listen(settings, tokens.is_some()).await?;
        let addr = listener.local_addr().map_err(|e| Error::unavailable(format!("listen: {e}")))?;
        let (health, metrics) = (Arc::new(Health::new()), Arc::new(Metrics::new()));
        health.set(Cause::Unpublished, "there is no checkpoint yet");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let roles = settings.roles();
        let Opened { log, membership, inbox } = open_log(&dir, settings, clock.clone()).await?;
        let extra_hashes: Arc<[String]> = settings.extra_hashes.clone().unwrap_or_default().into();
        let store = store::open(&settings.store, &dir.store()).await?;
        let store: Arc<dyn Store> = Arc::new(MeteredStore::new(store, metrics.clone()));
        let signs = roles.sign();
        let key_dir = settings.keys.clone().unwrap_or_else(|| dir.keys());
        let keys = match signs {
            true => key_file::load_online(&key_dir)?,
            false => KeyRing::default(),
        };
        let keys = Arc::new(keys);
        let (start, end) = recovered(&*log, &*store).await?;
        if let Some(missing) = missing_keys(&keys, &end, &key_dir).into_iter().next().filter(|_| signs) {
            return Err(missing);
        }
        if let Some(ahead) = end.time.checked_sub(clock.now()).filter(|s| *s > MAX_AHEAD_S) {
            tracing::warn!(ahead_s = ahead, "the repository's time is ahead of this clock: expiry counts from there");
        }
        let state = Arc::new(BinState::open(&dir.state(), start.layout()?)?);
        let bin_state = state.clone();
        let width = std::thread::available_parallelism().map_or(2, |n| n.get());
        let pool = Pool::threads(width);
        if roles.has(Role::Intake) {
            finish_recovery(log.clone(), &*store, pool.clone(), &end).await?;
        }
        let parts = Parts {
            log: log.clone(),
            store: store.clone(),
            state,
            keys,
            clock: clock.clone(),
            pool: pool.clone(),
            uploads: settings.uploads.unwrap_or(defaults::UPLOADS) as usize,
            groups: settings.groups.unwrap_or(defaults::GROUPS) as usize,
            queue_bytes: (settings.queue_mib.unwrap_or(defaults::QUEUE_MIB) << 20) as usize,
            min_cut_interval_ms: settings.min_cut_interval_ms.unwrap_or(defaults::MIN_CUT_INTERVAL_MS),
            health: health.clone(),
            roles: roles.clone(),
            membership,
            inbox,
            inbox_generation: settings.inbox_generation.and_then(|g| g.try_into().ok()).unwrap_or(0),
            extra_hashes: extra_hashes.clone(),
            patience_ms: match settings.kafka.brokers.is_some() {
                // No two wait equally long, so that mostly one of them acts.
                true => jittered(settings.patience_ms.unwrap_or(defaults::PATIENCE_MS)),
                false => 0,
            },
        };
        let engine = Engine::start(parts, start).await?;
        let progress = engine.progress.clone();
        let writers = writers(bin_state, engine.progress.clone());
        let app = App::new(http::Parts {
            intake: engine.intake.clone(),
            query: Query::new(log, store.clone(), pool.clone()).with_writers(writers),
            store,
            published: engine.published.clone(),
            followed: engine.followed.clone(),
            folds: Box::new(move || progress.folds()),
            clock,
            // Of its own: a large request that is parsed must not hold up what is being published.
            pool: Pool::threads(width),
            health: health.clone(),
            metrics,
            options: http::Options {
                extra_hashes,
                targets: settings.targets.clone(),
                tokens: tokens.as_ref().map(|(_, tokens)| tokens.clone()),
                disk: Some(dir.path().to_owned()),
                roles: roles.clone(),
                takes_batches: roles.has(Role::Intake),
                serves: roles.has(Role::Http),
                ..http::Options::default()
            },
        });
        let http_stop = CancellationToken::new();
        let http = tokio::spawn(http::serve(listener, app, http_stop.clone().cancelled_owned()));
        let need = settings.min_free_mib.unwrap_or(defaults::MIN_FREE_MIB);
        check_disk(dir.path(), need, &health);
        let disk = tokio::spawn(watch_disk(dir.path().to_owned(), need, health.clone()));
        health.clear(Cause::Starting);
        dir.publish_addr(addr)?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), %addr, data = %dir.path().display(), "serves");
        let drain = Duration::from_secs(settings.drain_s.unwrap_or(defaults::DRAIN_S));
        Ok(Node { engine, addr, dir, tokens, health, drain, http_stop, http, disk })
    }

    /// Where it answers.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Reads the tokens file again, if there is one. One that cannot be taken changes nothing.
    pub fn reload_tokens(&self) {
        let Some((file, tokens)) = &self.tokens else { return };
        match Tokens::read(file) {
            Ok(new) => {
                tokens.replace(new);
                tracing::info!(file = %file.display(), "reads the tokens again");
            }
            Err(e) => tracing::warn!(error = %e, "keeps the tokens it has"),
        }
    }

    /// Completes with the error that makes it impossible to go on.
    pub async fn failed(&mut self) -> Error {
        let e = self.engine.failed().await;
        self.health.set(Cause::Fatal, e.to_string());
        e
    }

    /// Stops: no more batches, publishes what is committed, answers what is under way.
    pub async fn stop(mut self) -> Result<()> {
        self.health.set(Cause::Draining, "stopping");
        let drained = tokio::time::timeout(self.drain, self.engine.drain()).await.unwrap_or_else(|_| {
            let what = "stopped before everything committed was published; the next start publishes it";
            Err(Error::unavailable(what))
        });
        self.end(drained).await
    }

    /// Ends at once, after a fatal error.
    pub async fn abort(self, error: Error) -> Result<()> {
        self.end(Err(error)).await
    }

    async fn end(self, outcome: Result<()>) -> Result<()> {
        self.http_stop.cancel();
        if outcome.is_ok() {
            let _ = self.http.await; // it bounds itself
        } else {
            self.http.abort();
        }
        self.disk.abort();
        let stopped = self.engine.stop().await;
        self.dir.withdraw_addr()?;
        outcome.and(stopped)
    }
}

/// Runs a node until SIGTERM or SIGINT, which stop it cleanly, or until it cannot go on. SIGHUP reads the tokens again.
pub async fn run(data: PathBuf, settings: Settings) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let handler = |kind| signal(kind).map_err(|e| Error::unavailable(format!("signals: {e}")));
    let (mut term, mut int) = (handler(SignalKind::terminate())?, handler(SignalKind::interrupt())?);
    let mut hup = handler(SignalKind::hangup())?;
    let dir = match settings.kafka.brokers {
        Some(_) => DataDir::open_worker(&data)?,
        None => DataDir::open(&data)?,
    };
    let mut node = Node::start(dir, &settings).await?;
    let failed = loop {
        tokio::select! {
            _ = term.recv() => break None,
            _ = int.recv() => break None,
            _ = hup.recv() => node.reload_tokens(),
            e = node.failed() => break Some(e),
        }
    };
    match failed {
        Some(e) => node.abort(e).await,
        None => {
            tracing::info!("stops: takes no more batches, publishes what is committed");
            let stop = node.stop();
            tokio::select! {
                stopped = stop => stopped.inspect(|()| tracing::info!("stopped")),
                _ = term.recv() => Err(Error::unavailable("stopped at once by a second signal; the next start publishes what is committed")),
                _ = int.recv() => Err(Error::unavailable("stopped at once by a second signal; the next start publishes what is committed")),
            }
        }
    }
}

/// A log, and this process's places in its groups.
struct Opened {
    log: Arc<dyn Log>,
    membership: Option<Arc<dyn Membership>>,
    inbox: Option<Arc<dyn Inbox>>,
}

/// The log that the settings name; on Kafka a process that folds joins the others, and one that takes in the inbox.
async fn open_log(dir: &DataDir, settings: &Settings, clock: Arc<dyn Clock>) -> Result<Opened> {
    check_roles(settings)?;
    let Some(kafka) = KafkaSettings::of(&settings.kafka)? else {
        return Ok(Opened { log: EmbeddedLog::open(&dir.log(), clock)?, membership: None, inbox: None });
    };
    let (log, roles) = (Arc::new(KafkaLog::open(&kafka).await?), settings.roles());
    let member = || settings.kafka.member.clone().map_or_else(|| dir.member(), Ok);
    let membership = if roles.has(Role::Fold) { Some(log.join(&member()?)?) } else { None };
    let inbox = if roles.has(Role::Intake) { Some(log.inbox(&member()?)?) } else { None };
    Ok(Opened { log, membership, inbox })
}

/// What the folds of this process know of a path.
fn writers(state: Arc<BinState>, progress: Arc<Progress>) -> Writers {
    Box::new(move |path| {
        let layout = state.layout();
        let position = progress.fold_position(layout.partition_of(layout.bin_of(path)))?;
        let seq = state.written(path).ok().flatten()?; // what cannot be read now is looked for in the log
        Some(Written { seq, position })
    })
}

fn jittered(ms: u64) -> u64 {
    ms + fastrand::u64(0..=ms / 2)
}

/// The ledger state to start from and that at the ledger's end, of a log and a store that belong together.
pub(crate) async fn recovered(log: &dyn Log, store: &dyn Store) -> Result<(State, State)> {
    let start = match recover::start(log, store).await {
        Err(e) if e.kind == Kind::Invalid && recover::pointer(store).await?.is_some() => {
            let what = "the log is empty and the store is not: is the log's volume there? If its records are gone, see \
                        `tuflog recover`";
            return Err(Error::corrupt(what));
        }
        start => start?,
    };
    let end = recover::check_store(log, store, &start).await?;
    Ok((start, end))
}

/// Finishes a recovery that was cut off, before anything newer is taken: what it commits again comes first. What can no
/// longer be read of it holds nobody up.
async fn finish_recovery(log: Arc<dyn Log>, store: &dyn Store, pool: Pool, end: &State) -> Result<()> {
    match recover::repair::finish(log, store, pool, end).await {
        Ok(again) => {
            for (id, seq) in again {
                tracing::info!(id, seq, recovery = end.recovered, "committed again, of a recovery that was cut off");
            }
            Ok(())
        }
        Err(e) if e.kind == Kind::Corrupt => {
            tracing::warn!(error = %e, recovery = end.recovered, "cannot tell whether a recovery was cut off");
            Ok(())
        }
        Err(e) => Err(e.context("finishing a recovery that was cut off, as `tuflog recover --accept-loss` does too")),
    }
}

/// Every key that signs now must be there, in `dir`: better to say so at the start than at the next cut.
pub(crate) fn missing_keys(keys: &KeyRing, state: &State, dir: &Path) -> Vec<Error> {
    let place = dir.join("online.pem").display().to_string();
    let roots = [state.root.as_ref(), state.stamp.as_ref().map(|s| &s.root)].into_iter().flatten();
    let roles = roots.flat_map(|r| [&r.root.targets, &r.root.snapshot, &r.root.timestamp]);
    let ids: BTreeSet<KeyId> = roles.flat_map(|role| role.key_ids.iter().copied()).collect();
    let missing = ids.into_iter().filter_map(|id| keys.signers(&[id]).err());
    missing.map(|e| Error::invalid(&place, e.message)).collect()
}

/// Refuses roles that a log in a directory does not have.
pub(crate) fn check_roles(settings: &Settings) -> Result<()> {
    if settings.kafka.brokers.is_some() || settings.roles() == Roles::default() {
        return Ok(());
    }
    let rule =
        "a log in a directory has one process, which does everything; several share a log on Kafka (kafka.brokers)";
    Err(Error::invalid("roles", rule))
}

/// Refuses a directory of target files that is not there.
pub(crate) fn check_targets(settings: &Settings) -> Result<()> {
    match settings.targets.as_ref().filter(|t| !t.is_dir()) {
        Some(targets) => Err(Error::invalid("targets", format!("{} is no directory", targets.display()))),
        None => Ok(()),
    }
}

/// Binds the address; beyond loopback only with tokens or an explicit `insecure`.
pub(crate) async fn listen(settings: &Settings, tokens: bool) -> Result<TcpListener> {
    let text = settings.listen.as_deref().unwrap_or(defaults::LISTEN);
    let bad = |e: std::io::Error| Error::invalid("listen", format!("{text}: {e}"));
    let addrs: Vec<SocketAddr> = tokio::net::lookup_host(text).await.map_err(bad)?.collect();
    if !tokens && settings.insecure != Some(true) && addrs.iter().any(|a| !a.ip().is_loopback()) {
        let rule = format!(
            "{text} is reachable from other machines: set auth.tokens_file, or insecure if anybody who can connect may publish"
        );
        return Err(Error::invalid("listen", rule));
    }
    TcpListener::bind(&addrs[..]).await.map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => {
            Error::unavailable(format!("{text} is in use: stop what listens there, or use another --listen"))
        }
        _ => bad(e),
    })
}

/// Looks at the free space of the data directory for ever.
async fn watch_disk(dir: PathBuf, need_mib: u64, health: Arc<Health>) {
    loop {
        tokio::time::sleep(DISK_EVERY).await;
        check_disk(&dir, need_mib, &health);
    }
}

fn check_disk(dir: &Path, need_mib: u64, health: &Health) {
    match local::free_bytes(dir) {
        Ok(free) if free >= need_mib << 20 => health.clear(Cause::Disk),
        Ok(free) => health.set(Cause::Disk, format!("disk full: {} MiB free, {need_mib} MiB needed", free >> 20)),
        Err(e) => health.set(Cause::Disk, format!("free space cannot be read: {e}")),
    }
}
