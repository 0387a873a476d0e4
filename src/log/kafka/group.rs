//! The consumer group of the folds: who folds which partition, and lag that Kafka's own tools show.
//!
//! Nothing is read through the group: its partitions are paused as soon as they are assigned. What it commits are the
//! offsets of the checkpoints, so that `kafka-consumer-groups --describe` tells how far each partition is published.
//! Members are static: a worker that comes back within the session keeps its partitions without a rebalance, and one
//! that is gone loses them when the session ends. A second process under the same name is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::sync::watch;

use super::link::{Context, Link};
use super::lock;
use crate::bins::PartitionId;
use crate::error::{Error, Result};
use crate::log::{Membership, Offset};

/// How long a poll waits; also how soon a commit follows what was told.
const POLL: Duration = Duration::from_millis(50);

/// What the group's thread and its owner share.
#[derive(Default)]
struct Told {
    /// What is to be committed: by partition, the offset and the checkpoint's number.
    ends: Mutex<BTreeMap<PartitionId, (Offset, u64)>>,
    stop: AtomicBool,
}

/// A place in the group. Dropping it ends its thread; the partitions stay this member's until its session ends.
pub(super) struct Group {
    owned: watch::Receiver<Result<BTreeSet<PartitionId>>>,
    told: Arc<Told>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// The name of the group.
pub(super) fn group_id(repo: &str) -> String {
    format!("{repo}.folds")
}

struct Listener {
    context: Context,
    owned: watch::Sender<Result<BTreeSet<PartitionId>>>,
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

fn numbers(list: &TopicPartitionList) -> Vec<PartitionId> {
    list.elements().iter().filter_map(|e| PartitionId::try_from(e.partition()).ok()).collect()
}

impl ConsumerContext for Listener {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            let lost = numbers(list);
            self.owned.send_if_modified(|owned| {
                let Ok(owned) = owned else { return false };
                lost.iter().filter(|p| owned.remove(p)).count() > 0
            });
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            if let Err(e) = consumer.pause(list) {
                tracing::debug!(error = %e, "partitions of the group cannot be paused"); // they are read for nothing
            }
            let got = numbers(list);
            self.owned.send_if_modified(|owned| {
                let Ok(owned) = owned else { return false };
                got.into_iter().filter(|p| owned.insert(*p)).count() > 0
            });
        }
    }
}

impl Group {
    pub fn join(link: &Link, topic: &str, member: &str) -> Result<Group> {
        let (sender, owned) = watch::channel(Ok(BTreeSet::new()));
        let listener = |context| Listener { context, owned: sender };
        let consumer: BaseConsumer<Listener> = link.create_with(&link.member(member), listener)?;
        consumer.subscribe(&[topic]).map_err(|e| Error::unavailable(format!("cannot join the group of folds: {e}")))?;
        let told = Arc::new(Told::default());
        let (shared, topic, member) = (told.clone(), topic.to_owned(), member.to_owned());
        let thread = std::thread::Builder::new()
            .name("kafka-group".into())
            .spawn(move || poll(&consumer, &topic, &member, &shared))
            .map_err(|e| Error::unavailable(format!("cannot start a thread for the group: {e}")))?;
        Ok(Group { owned, told, thread: Some(thread) })
    }
}

/// Keeps the membership alive and commits what was told.
fn poll(consumer: &BaseConsumer<Listener>, topic: &str, member: &str, told: &Told) {
    while !told.stop.load(Ordering::SeqCst) {
        if let Some(Err(e)) = consumer.poll(POLL) {
            tracing::debug!(error = %e, "group of folds");
        }
        if let Some((code, reason)) = consumer.client().fatal_error() {
            let what = match code {
                Code::FencedInstanceId => Error::invalid(
                    "kafka.member",
                    format!("{member:?} is the name of another process too: give each its own"),
                ),
                _ => Error::unavailable(format!("the group of folds has put this worker out: {reason}")),
            };
            let _ = consumer.context().owned.send_replace(Err(what));
            return;
        }
        let ends = std::mem::take(&mut *lock(&told.ends));
        if ends.is_empty() {
            continue;
        }
        let mut list = TopicPartitionList::new();
        for (partition, (end, n)) in &ends {
            let mut place = list.add_partition(topic, i32::from(*partition));
            place.set_metadata(format!("checkpoint {n}"));
            let set = place.set_offset(rdkafka::Offset::Offset(i64::try_from(*end).unwrap_or(i64::MAX)));
            if let Err(e) = set {
                tracing::debug!(error = %e, "an offset cannot be committed");
            }
        }
        if let Err(e) = consumer.commit(&list, CommitMode::Async) {
            tracing::debug!(error = %e, "offsets are not committed; they are with the next checkpoint");
        }
    }
}

impl Membership for Group {
    fn owned(&self) -> watch::Receiver<Result<BTreeSet<PartitionId>>> {
        self.owned.clone()
    }

    fn tell(&self, partition: PartitionId, end: Offset, n: u64) {
        lock(&self.told.ends).insert(partition, (end, n));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.told.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a poll's time, and the consumer's close
        }
    }
}
