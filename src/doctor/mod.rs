//! The doctor: looks at what a node stands on, and says what is wrong and what to do.
//!
//! ```text
//!   finding.rs   severities, areas, the report
//!   config.rs    settings and the files that they name     machine.rs   disk, open files, the node that runs
//!   keys.rs      the private keys                          store.rs     the object store
//!   log.rs       the log, and that the store belongs to it clock.rs     whose clock says what
//!   kafka.rs     brokers and topics      rights.rs   what this user may do      groups.rs   the consumer groups
//!   repository/  a published repository, ours or another's, as clients see it
//! ```
//!
//! It looks where `serve` would look, by the same code, and goes on after a problem: whoever mends one should know of
//! the next. It changes nothing, but for the trial of an S3 server's conditions that every start makes too. It works
//! beside a running node; what only the holder of the data directory can see is then said to be left out.

mod clock;
mod config;
mod finding;
mod groups;
mod kafka;
mod keys;
mod log;
mod machine;
pub mod repository;
pub mod rights;
mod store;

use std::path::PathBuf;

pub use finding::{Area, Finding, Report, Severity};

use crate::clock::Clock;
use crate::config::Settings;
use crate::data_dir;

/// Whose node is looked at.
pub struct Subject {
    /// Its data directory.
    pub data: PathBuf,
    /// Its configuration file, if it is named.
    pub config: Option<PathBuf>,
    /// What the command line and the variables say.
    pub flags: Settings,
}

/// A node as the checks see it.
struct Node {
    data: PathBuf,
    settings: Settings,
    /// Whether a process holds the data directory.
    in_use: bool,
}

/// Checks a node, running or not.
pub async fn check(subject: Subject, clock: &dyn Clock) -> Report {
    let mut found = Vec::new();
    let in_use = data_dir::is_in_use(&subject.data);
    let Some(settings) = config::read(&subject, &mut found) else {
        let rest = "everything else hangs on the settings, which cannot be read";
        found.push(Finding::skipped(Area::Config, "rest", rest));
        return Report::of(found);
    };
    let node = Node { data: subject.data, settings, in_use };
    config::check(&node, &mut found).await;
    machine::check(&node, &mut found).await;
    let keys = keys::check(&node, &mut found);
    let store = store::check(&node, &mut found).await;
    let opened = clock.now();
    let kafka = kafka::check(&node, &mut found).await;
    let log = log::check(&node, &store, kafka.as_ref(), &mut found).await;
    // Before anything else takes its time; the store's clock has gone on since it was asked.
    let now = clock.now();
    let store_now = store.opened_at.map(|at| at + now.saturating_sub(opened));
    clock::check(&clock::Times { now, ..log.times(store_now) }, &mut found);
    keys::check_against(&node, keys.as_ref(), &log, &store, &mut found).await;
    if let Some(kafka) = &kafka {
        rights::check(&node, kafka, &mut found).await;
        groups::check(&node, kafka, &log, clock, &mut found).await;
    }
    Report::of(found)
}
