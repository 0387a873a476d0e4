//! A TUF client: from a trusted root over timestamp and snapshot to bins, and the checks of the specification
//! (§5.3 to §5.6) and of invariants 2 to 4 on the way.
//!
//! Owns what a reader may believe: nothing is remembered that was not verified, and what is remembered only rises.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{StatusCode, Url};

use super::load::{self, Seen};
use super::report::{Finding, Kind};
use crate::bins::{self, Layout, Sha256Digest};
use crate::clock::{Clock, SystemClock};
use crate::pool::Pool;
use crate::tuf::parse::{self, Snapshot, Targets, Timestamp};
use crate::tuf::{Envelope, Meta, Root};

/// How long a file may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many new roots are taken at one look.
const MAX_ROOTS: u32 = 64;

/// Why there is nothing to believe.
#[derive(Debug)]
pub enum Trouble {
    /// The server cannot give it now.
    Away(String),
    /// It is wrong.
    Wrong(Finding),
}

/// A verified thing, or why there is none.
pub type Believed<T> = Result<T, Trouble>;

fn wrong<T>(kind: Kind, message: impl Into<String>) -> Believed<T> {
    Err(Trouble::Wrong(Finding::new(kind, message)))
}

fn altered(file: &str) -> impl Fn(crate::Error) -> Trouble + '_ {
    move |e| Trouble::Wrong(Finding::new(Kind::Altered, format!("{file}: {e}")))
}

/// Fetches files, from one server after the other.
pub struct Fetch {
    http: reqwest::Client,
    bases: Vec<Url>,
    token: Option<String>,
    turn: Cell<usize>,
    /// Files that came.
    pub files: Cell<u64>,
    /// Their bytes.
    pub bytes: Cell<u64>,
}

impl Fetch {
    /// From these servers, whose URLs end with a slash.
    pub fn new(http: reqwest::Client, bases: Vec<Url>, token: Option<String>) -> Fetch {
        Fetch { http, bases, token, turn: Cell::new(0), files: Cell::new(0), bytes: Cell::new(0) }
    }

    /// The servers.
    pub fn bases(&self) -> &[Url] {
        &self.bases
    }

    /// A metadata file of the next server; `None` if it has none of that name.
    pub async fn metadata(&self, name: &str) -> Believed<Option<Bytes>> {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let base = &self.bases[turn % self.bases.len()];
        let away = |e: &dyn std::fmt::Display| Trouble::Away(format!("{base}metadata/{name}: {e}"));
        let url = base.join(&format!("metadata/{name}")).map_err(|e| away(&e))?;
        let answer = self.http.get(url).timeout(PATIENCE).send().await.map_err(|e| away(&e))?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(away(&status)),
        }
        let bytes = answer.bytes().await.map_err(|e| away(&e))?;
        self.files.set(self.files.get() + 1);
        self.bytes.set(self.bytes.get() + bytes.len() as u64);
        Ok(Some(bytes))
    }

    /// What a path of each server answers, as text; `None` unless all of them do.
    pub async fn texts(&self, path: &str) -> Option<Vec<String>> {
        let mut all = Vec::new();
        for base in &self.bases {
            let mut request = self.http.get(base.join(path).ok()?).timeout(PATIENCE);
            if let Some(token) = &self.token {
                request = request.bearer_auth(token);
            }
            all.push(request.send().await.ok()?.error_for_status().ok()?.text().await.ok()?);
        }
        Some(all)
    }

    async fn must(&self, name: &str) -> Believed<Bytes> {
        match self.metadata(name).await? {
            Some(bytes) => Ok(bytes),
            None => wrong(Kind::Missing, format!("{name} is not there")),
        }
    }
}

/// What a client remembers of a timestamp.
#[derive(Clone, Copy)]
struct Pointer {
    version: u64,
    snapshot: Meta,
    digest: Sha256Digest,
}

/// What a client remembers.
pub struct Follower<'a> {
    fetch: &'a Fetch,
    pool: &'a Pool,
    seed: u64,
    root: Root,
    timestamp: Option<Pointer>,
    snapshot: Option<Snapshot>,
    targets: Option<(Meta, Arc<Targets>)>,
    layout: Option<Layout>,
    /// Version and digest of each bin that was read.
    read: RefCell<HashMap<String, (u64, Sha256Digest)>>,
}

impl<'a> Follower<'a> {
    /// A client that trusts `root`, or on first use the server's first root. It looks at the targets of `seed`.
    pub async fn start(fetch: &'a Fetch, pool: &'a Pool, seed: u64, root: Option<Bytes>) -> Believed<Follower<'a>> {
        let bytes = match root {
            Some(bytes) => bytes,
            None => fetch.must("1.root.json").await?,
        };
        let root = Root::verify_first(&bytes).map_err(altered("the first root"))?;
        let (timestamp, snapshot, targets, layout, read) = Default::default();
        Ok(Follower { fetch, pool, seed, root, timestamp, snapshot, targets, layout, read })
    }

    /// The layout that `targets.json` gives; `None` before the first look.
    pub fn layout(&self) -> Option<Layout> {
        self.layout
    }

    /// The version of the snapshot; 0 before the first look.
    pub fn checkpoint(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |s| s.version)
    }

    /// Follows the timestamp; true if it led to another snapshot than the one before.
    pub async fn look(&mut self) -> Believed<bool> {
        self.roots().await?;
        let meta = match self.timestamp().await {
            // The keys may have changed between the two: a client looks again.
            Err(Trouble::Wrong(_)) if self.roots().await? => self.timestamp().await?,
            other => other?,
        };
        let was = self.checkpoint();
        if meta.version != was {
            let snapshot = self.new_snapshot(&meta).await?;
            self.snapshot = Some(snapshot);
        }
        Ok(meta.version != was)
    }

    /// Takes the roots that follow; true if there were any.
    async fn roots(&mut self) -> Believed<bool> {
        for taken in 0..MAX_ROOTS {
            let name = format!("{}.root.json", self.root.version.saturating_add(1));
            let Some(bytes) = self.fetch.metadata(&name).await? else {
                // Only the last one has to last: the way there may lead through roots that have expired.
                not_expired(&format!("{}.root.json", self.root.version), self.root.expires)?;
                return Ok(taken > 0);
            };
            self.root = Root::verify_next(&self.root, &bytes).map_err(altered(&name))?;
        }
        Ok(true)
    }

    /// What the timestamp says about the snapshot.
    async fn timestamp(&mut self) -> Believed<Meta> {
        let file = "timestamp.json";
        let bytes = self.fetch.must(file).await?;
        let envelope = Envelope::open(&bytes).map_err(altered(file))?;
        envelope.verify(&self.root.keys, &self.root.timestamp).map_err(altered(file))?;
        let Timestamp { version, expires, snapshot } =
            parse::parse_timestamp(envelope.signed).map_err(altered(file))?;
        let new = Pointer { version, snapshot, digest: bins::sha256(&bytes) };
        if let Some(old) = &self.timestamp {
            let snapshots = (old.snapshot.version, new.snapshot.version);
            for (what, (old, new)) in [("version", (old.version, new.version)), ("snapshot", snapshots)] {
                if new < old {
                    return wrong(Kind::WentBack, format!("{file}: {what} {new} came after {old}"));
                }
            }
            if old.version == version && old.digest != new.digest {
                return wrong(Kind::Inconsistent, format!("{file}: two contents with version {version}"));
            }
            if old.snapshot.version == snapshot.version && old.snapshot != snapshot {
                let n = snapshot.version;
                return wrong(Kind::Inconsistent, format!("{file}: states two contents of {n}.snapshot.json"));
            }
        }
        not_expired(file, expires)?;
        self.timestamp = Some(new);
        Ok(snapshot)
    }

    async fn new_snapshot(&mut self, meta: &Meta) -> Believed<Snapshot> {
        let file = format!("{}.snapshot.json", meta.version);
        let bytes = self.fetch.must(&file).await?;
        as_stated(&file, meta, &bytes)?;
        let (keys, role) = (self.root.keys.clone(), self.root.snapshot.clone());
        let work = move || {
            let envelope = Envelope::open(&bytes)?;
            envelope.verify(&keys, &role)?;
            parse::parse_snapshot(envelope.signed)
        };
        let new = self.pool.run(work).await.map_err(altered(&file))?;
        has_version(&file, meta.version, new.version)?;
        not_expired(&file, new.expires)?;
        if let Some((old, _)) = &self.targets {
            let (was, is) = (old.version, new.targets.version);
            if is < was {
                return wrong(Kind::WentBack, format!("{file}: targets.json has version {is}, it had {was}"));
            }
            if is == was && *old != new.targets {
                return wrong(Kind::Inconsistent, format!("{file}: states another content of {is}.targets.json"));
            }
        }
        if self.targets.as_ref().is_none_or(|(meta, _)| *meta != new.targets) {
            self.targets = Some((new.targets, Arc::new(self.new_targets(&new.targets).await?)));
        }
        if let Some(old) = &self.snapshot {
            for (bin, was) in &old.bins {
                match new.bins.get(bin) {
                    None => return wrong(Kind::WentBack, format!("{file}: {bin} is gone, which {} had", old.version)),
                    Some(is) if is < was => {
                        return wrong(Kind::WentBack, format!("{file}: {bin} has version {is}, it had {was}"));
                    }
                    Some(_) => {}
                }
            }
        }
        if let Some((bin, version)) = new.bins.iter().find(|(_, version)| **version > new.version) {
            return wrong(Kind::Inconsistent, format!("{file}: {bin} has version {version}, which is to come"));
        }
        let layout = self.layout.map_or(0, |l| l.bins() as usize);
        if new.bins.len() != layout {
            return wrong(Kind::Inconsistent, format!("{file}: {} of {layout} bins", new.bins.len()));
        }
        Ok(new)
    }

    async fn new_targets(&mut self, meta: &Meta) -> Believed<Targets> {
        let file = format!("{}.targets.json", meta.version);
        let bytes = self.fetch.must(&file).await?;
        as_stated(&file, meta, &bytes)?;
        let envelope = Envelope::open(&bytes).map_err(altered(&file))?;
        envelope.verify(&self.root.keys, &self.root.targets).map_err(altered(&file))?;
        let targets = parse::parse_targets(envelope.signed).map_err(altered(&file))?;
        has_version(&file, meta.version, targets.version)?;
        not_expired(&file, targets.expires)?;
        let bins = 1u32.checked_shl(targets.bit_length.into()).unwrap_or(0);
        self.layout = Some(Layout::new(bins, 1).map_err(altered(&file))?);
        Ok(targets)
    }

    /// The targets of the seed in a bin, and whether its marker stands there, as of the last look.
    pub async fn bin(&self, bin: bins::Bin) -> Believed<(Vec<Seen>, bool)> {
        let (Some(layout), Some(snapshot), Some((_, targets))) = (self.layout, &self.snapshot, &self.targets) else {
            return Err(Trouble::Away("nothing was read before".into()));
        };
        let name = layout.name(bin);
        let Some(&version) = snapshot.bins.get(&name) else {
            return wrong(Kind::Missing, format!("{}.snapshot.json: no entry for {name}", snapshot.version));
        };
        let file = format!("{version}.{name}.json");
        let bytes = self.fetch.must(&file).await?;
        let (keys, seed) = (targets.clone(), self.seed);
        let (shown, last) = (file.clone(), self.read.borrow().get(&name).copied());
        let work = move || read_bin(&shown, &bytes, &keys, version, last, |path| layout.bin_of(path) == bin, seed);
        let (seen, marker, digest) = self.pool.run(work).await?;
        self.read.borrow_mut().insert(name, (version, digest));
        Ok((seen, marker))
    }
}

/// Verifies a bin and reads what the load has in it.
fn read_bin(
    file: &str,
    bytes: &[u8],
    keys: &Targets,
    version: u64,
    last: Option<(u64, Sha256Digest)>,
    belongs: impl Fn(&str) -> bool,
    seed: u64,
) -> Believed<(Vec<Seen>, bool, Sha256Digest)> {
    let envelope = Envelope::open(bytes).map_err(altered(file))?;
    envelope.verify(&keys.keys, &keys.bins).map_err(altered(file))?;
    let parsed = parse::parse_bin(envelope.signed).map_err(altered(file))?;
    has_version(file, version, parsed.version)?;
    not_expired(file, parsed.expires)?;
    let digest = bins::sha256(bytes);
    if last.is_some_and(|(v, d)| v == version && d != digest) {
        return wrong(Kind::Inconsistent, format!("{file}: two contents under this name"));
    }
    let (prefix, marker) = (load::prefix(seed), load::marker(seed));
    let from = parsed.targets.partition_point(|(path, _)| &**path < prefix.as_str());
    let own = parsed.targets[from..].iter().take_while(|(path, _)| path.starts_with(&prefix));
    let (mut seen, mut marked) = (Vec::new(), false);
    for (path, fragment) in own {
        if !belongs(path) {
            return wrong(Kind::Inconsistent, format!("{file}: {path} belongs into another bin"));
        }
        marked |= **path == marker;
        seen.extend(load::read(seed, path, fragment));
    }
    Ok((seen, marked, digest))
}

fn as_stated(file: &str, meta: &Meta, bytes: &[u8]) -> Believed<()> {
    let found = Meta::of(meta.version, bytes);
    if found == *meta {
        return Ok(());
    }
    let said = |m: &Meta| format!("{} bytes, sha256 {}", m.length, hex::encode(m.sha256));
    wrong(Kind::Altered, format!("{file}: {}, stated are {}", said(&found), said(meta)))
}

fn has_version(file: &str, stated: u64, found: u64) -> Believed<()> {
    match stated == found {
        true => Ok(()),
        false => wrong(Kind::Inconsistent, format!("{file}: has version {found}, {stated} was asked for")),
    }
}

fn not_expired(file: &str, expires: u64) -> Believed<()> {
    match expires > SystemClock.now() {
        true => Ok(()),
        false => wrong(Kind::Expired, format!("{file}: expired at {}", crate::clock::format_utc(expires))),
    }
}
