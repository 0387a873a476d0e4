//! The doctor of published repositories, ours or not: what real clients will refuse or choke on, client by client.
//!
//! ```text
//!   clients.rs  the clients: names, limits, keys      found.rs   what is put down, whom it concerns
//!   fetch.rs    a folder or a web server              json.rs    JSON as it stands in the file
//!   keys.rs     keys of every kind, signatures        file.rs    a file taken apart, as the checks see it
//!   roots.rs    the chain of roots                    walk.rs    timestamp, snapshot, targets, delegated roles
//!   graph.rs    who delegates to whom                 report.rs  findings, levels, a verdict for each client
//!   checks/     one function a check
//! ```
//!
//! It reads as a client does, but goes on after a fault, and looks at every delegated role instead of those on the way
//! to one target. Target files are not looked at. What it reads is hostile until shown otherwise: sizes, nesting, time,
//! what is kept and what is compared are bounded, and nothing panics.

mod checks;
pub mod clients;
mod fetch;
mod file;
mod found;
mod graph;
mod json;
mod keys;
pub mod report;
mod roots;
mod walk;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use clients::{Client, Clients};
pub use report::{Report, Seen};

use self::fetch::{MAX_FILE, Source};
use self::found::{Effect, Fault, Found};
use self::walk::Walk;
use crate::clock::Clock;
use crate::{Error, Result};

/// Which repository is looked at, and for whom.
pub struct Subject {
    /// Its metadata: `http(s)://…/` or a folder; or what has them under `metadata/`.
    pub repository: String,
    /// The root that clients trust; else the repository's own first root.
    pub root: Option<PathBuf>,
    /// The clients that count; none for the general ones.
    pub clients: Vec<Client>,
    /// How long it may take.
    pub timeout: Duration,
}

static ELSEWHERE: Fault = Fault {
    name: "redirect",
    what: "the server sends clients to another one",
    why: "clients follow, so what they get is in the hands of that one too",
    fix: "nothing, if that is meant",
    choice: true,
};

/// Checks a repository. `watch` is told of every file that was read.
///
/// # Errors
/// `Invalid` if there is no repository, no root to begin with, or `root` cannot be read; `Unavailable` if the server
/// does not answer.
pub async fn check(subject: &Subject, clock: &dyn Clock, watch: &dyn Fn(&Seen)) -> Result<Report> {
    let trusted = subject.root.as_deref().map(trusted).transpose()?;
    let source = Source::open(&subject.repository, clock, subject.timeout).await?;
    let seen = Seen { repository: source.shown(), ..Seen::default() };
    let mut walk = Walk { source: &source, now: clock.now(), found: Found::default(), seen, watch };
    if let Some(root) = walk.roots(trusted).await? {
        walk.from(&root).await;
    }
    let Walk { mut found, seen, .. } = walk;
    if let Some(url) = source.elsewhere() {
        found.add(&ELSEWHERE, Effect::default(), &url, "", "answered instead");
    }
    Ok(Report::of(seen, found, Clients::of(&subject.clients)))
}

/// The root that an operator brought: name and bytes.
fn trusted(path: &Path) -> Result<(String, Vec<u8>)> {
    let wrong = |e: String| Error::invalid("--root", format!("{} cannot be read: {e}", path.display()));
    let length = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?.len();
    if length > MAX_FILE {
        return Err(wrong(format!("it has {length} bytes")));
    }
    Ok((path.display().to_string(), std::fs::read(path).map_err(|e| wrong(e.to_string()))?))
}
