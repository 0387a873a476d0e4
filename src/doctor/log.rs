//! The log: whether it can be read to its end, and whether the store belongs to it.
//!
//! A log in a directory is read under the directory's lock, as by every command: a node that is started in that moment
//! is told so.

use std::sync::Arc;

use super::clock::Times;
use super::kafka::Cluster;
use super::store::Opened;
use super::{Area, Finding, Node};
use crate::data_dir::DataDir;
use crate::error::{Kind, Result};
use crate::ledger::State;
use crate::log::embedded::EmbeddedLog;
use crate::log::kafka::KafkaLog;
use crate::log::{Log, Partition};
use crate::node;
use crate::recover;
use crate::store::Store;

const AREA: Area = Area::Log;

/// What was seen of the log.
#[derive(Default)]
pub struct Seen {
    /// The log and its store, if both can be read.
    pub parts: Option<(Arc<dyn Log>, Arc<dyn Store>)>,
    /// The ledger state at its end.
    pub end: Option<State>,
    /// When the log took its newest record, by its own clock.
    newest: Option<u64>,
    /// Whether the log's clock is another's: the brokers'.
    foreign: bool,
    /// Held while the log is read.
    _lock: Option<DataDir>,
}

impl Seen {
    /// The times that it knows; the present is left open.
    pub fn times(&self, store: Option<u64>) -> Times {
        let repository = self.end.as_ref().map(|state| state.time).filter(|time| *time > 0);
        Times { now: 0, repository, log: self.newest, log_is_foreign: self.foreign, store }
    }
}

/// Reads the log as `serve` would at its start.
pub async fn check(node: &Node, store: &Opened, kafka: Option<&Cluster>, found: &mut Vec<Finding>) -> Seen {
    let on_kafka = node.settings.kafka.brokers.is_some();
    let unread = || Seen { foreign: on_kafka, ..Seen::default() };
    let (log, lock): (Arc<dyn Log>, _) = match (on_kafka, kafka) {
        (true, Some(cluster)) => match KafkaLog::open_unchecked(&cluster.settings).await {
            Ok(log) => (Arc::new(log), None),
            Err(e) => {
                found.push(Finding::skipped(AREA, "readable", format!("the log cannot be read: {e}")));
                return unread();
            }
        },
        (true, None) => {
            found.push(Finding::skipped(AREA, "readable", "the log cannot be read without its brokers"));
            return unread();
        }
        (false, _) if node.in_use => {
            let what = "log, and whether the store belongs to it: the node that runs holds them, and checked them at its start";
            found.push(Finding::skipped(AREA, "readable", what));
            return unread();
        }
        (false, _) => match embedded(node) {
            Ok(opened) => opened,
            Err(e) => {
                let check = if e.kind == Kind::Unavailable { "in-use" } else { "readable" };
                let finding = Finding::of(AREA, check, &e).why("without its log there is no repository");
                // What is wrong with the directory itself says what to do.
                found.push(match e.field.as_deref() {
                    Some("--data") => finding,
                    _ if e.kind == Kind::Unavailable => finding.fix("run doctor again when that process has ended"),
                    _ => finding.fix("put the log back from a backup; never begin it anew"),
                });
                return unread();
            }
        },
    };
    let newest = newest(&*log).await;
    let mut seen = Seen { _lock: lock, newest: newest.clone().unwrap_or(None), ..unread() };
    if let Err(e) = newest {
        found.push(Finding::of(AREA, "readable", &e));
        return seen;
    }
    let Some(store) = &store.store else {
        found.push(without_store(&*log, store.is_new).await);
        return seen;
    };
    match node::recovered(&*log, &**store).await {
        Ok((_, end)) => {
            let published = match &end.stamp {
                Some(stamp) => format!("checkpoint {} is the newest in both", stamp.n),
                None => "nothing is published yet".into(),
            };
            found.push(Finding::ok(AREA, "belongs", format!("{} ledger records, {published}", end.next)));
            found.extend(unfinished(&*log, &**store, &end).await);
            seen.end = Some(end);
        }
        Err(e) => {
            let why =
                "serve refuses to start: going on could publish what clients reject, or lose what was acknowledged";
            let fix = match e.kind {
                Kind::Corrupt => {
                    "put log and store back from the same backup; if records are gone for good, see `tuflog recover`"
                }
                Kind::Unsupported => "upgrade tuflog",
                Kind::Invalid => "make a repository: tuflog init",
                _ => "try again",
            };
            found.push(Finding::of(AREA, "belongs", &e).why(why).fix(fix));
        }
    }
    seen.parts = Some((log, store.clone()));
    seen
}

/// A recovery that was cut off.
async fn unfinished(log: &dyn Log, store: &dyn Store, end: &State) -> Option<Finding> {
    match recover::repair::unfinished(log, store, end).await {
        Ok(None) => None,
        Ok(Some(u)) => {
            let what = format!(
                "the recovery at seq {} is unfinished: {} that it kept still to be committed again",
                u.seq,
                match u.left.len() {
                    1 => "1 batch".into(),
                    more => format!("{more} batches"),
                }
            );
            let why = "they were acknowledged, and are not published yet";
            let fix = "start serve (with the role intake): it finishes it before it takes anything; or run `tuflog recover --accept-loss` again";
            Some(Finding::warning(AREA, "unfinished-recovery", what).why(why).fix(fix))
        }
        Err(e) => {
            let what = format!("whether a recovery was cut off: {e}");
            Some(Finding::skipped(AREA, "unfinished-recovery", what))
        }
    }
}

/// Of a log whose store cannot be read: one that is not there yet belongs to a log that has published nothing.
async fn without_store(log: &dyn Log, is_new: bool) -> Finding {
    let last = match log.end(Partition::Ledger).await {
        Ok(end) => recover::last_anchor(log, end, |_| true).await,
        Err(e) => Err(e),
    };
    match last {
        Ok(Some(anchor)) if is_new => {
            let what = format!("the ledger ends at checkpoint {}, and there is no store", anchor.n());
            let why = "serve refuses to start: what is published is gone";
            Finding::error(AREA, "belongs", what).why(why).fix("is its volume mounted? Put it back from a backup")
        }
        Ok(None) if is_new => Finding::ok(AREA, "belongs", "nothing is published yet"),
        Ok(_) => Finding::skipped(AREA, "belongs", "whether the store belongs to the log: it cannot be read"),
        Err(e) => Finding::of(AREA, "readable", &e),
    }
}

fn embedded(node: &Node) -> Result<(Arc<dyn Log>, Option<DataDir>)> {
    let dir = DataDir::open(&node.data)?;
    Ok((EmbeddedLog::open_read_only(&dir.log())?, Some(dir)))
}

/// When the log took its newest ledger record.
async fn newest(log: &dyn Log) -> Result<Option<u64>> {
    match log.end(Partition::Ledger).await?.checked_sub(1) {
        Some(last) => Ok(log.fetch(Partition::Ledger, last).await?.map(|record| record.time())),
        None => Ok(None),
    }
}
