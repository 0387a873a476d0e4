//! The consumer groups: who folds which partition, who takes in which partition of the inbox, and lag that Kafka's own
//! tools show.
//!
//! Nothing is read through a group: its partitions are paused as soon as they are assigned. The folds commit the
//! offsets of the checkpoints, so that `kafka-consumer-groups --describe` tells how far each partition is published;
//! the intakes how far the inbox is decided.
//! Members are static: a worker that comes back within the session keeps its partitions without a rebalance, and one
//! that is gone loses them when the session ends. A second process under the same name is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use tokio::sync::watch;

use super::link::{Context, Link, committed};
use super::{PATIENCE, Shared, lock};
use crate::bins::PartitionId;
use crate::error::{Error, Result};
use crate::log::{Inbox, Membership, Offset, Partition};

/// The group of the folds.
pub(super) const FOLDS: &str = "folds";
/// The group of the intakes.
pub(super) const INBOX: &str = "inbox";

/// How long a poll waits; also how soon a commit follows what was told.
const POLL: Duration = Duration::from_millis(50);

/// After so many polls a commit that was not confirmed is sent again.
const AGAIN: u32 = 40;

/// The id of one of the repository's groups.
pub(super) fn group_id(link: &Link, name: &str) -> String {
    format!("{}.{name}", link.repo())
}

/// What the group's thread and its owner share.
#[derive(Default)]
struct Told {
    /// What is to be committed: by partition, the offset and a word to it.
    ends: Mutex<BTreeMap<PartitionId, (Offset, String)>>,
    /// What is on its way there, and not confirmed.
    sent: Mutex<BTreeMap<PartitionId, (Offset, String)>>,
    stop: AtomicBool,
}

impl Told {
    /// What was sent and not confirmed is sent again, unless something newer is.
    fn again(&self) {
        let sent = std::mem::take(&mut *lock(&self.sent));
        let mut ends = lock(&self.ends);
        for (p, end) in sent {
            ends.entry(p).or_insert(end);
        }
    }
}

/// A place in a group. Dropping it ends its thread; the partitions stay this member's until its session ends.
pub(super) struct Group {
    shared: Arc<Shared>,
    topic: String,
    consumer: Arc<BaseConsumer<Listener>>,
    owned: watch::Receiver<Result<BTreeSet<PartitionId>>>,
    told: Arc<Told>,
    thread: Option<std::thread::JoinHandle<()>>,
}

pub(super) struct Listener {
    context: Context,
    told: Arc<Told>,
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

    fn commit_callback(&self, result: KafkaResult<()>, list: &TopicPartitionList) {
        for place in list.elements() {
            let failed = result.is_err() || place.error().is_err();
            let Ok(p) = PartitionId::try_from(place.partition()) else { continue };
            if !failed {
                let done = place.offset().to_raw().and_then(|at| u64::try_from(at).ok());
                lock(&self.told.sent).retain(|sent, (at, _)| *sent != p || Some(*at) != done);
            }
        }
    }
}

impl Group {
    /// Joins the group REPO.`name`, which shares out the topic that `of` is one of.
    pub fn join(shared: &Arc<Shared>, name: &str, of: Partition, member: &str) -> Result<Group> {
        let (link, (topic, _)) = (&shared.link, shared.topics.place(of)?);
        let (topic, group) = (topic.to_owned(), group_id(link, name));
        let (sender, owned) = watch::channel(Ok(BTreeSet::new()));
        let told = Arc::new(Told::default());
        let listener = |context| Listener { context, told: told.clone(), owned: sender };
        let consumer: BaseConsumer<Listener> = link.create_with(&link.member(&group, member), listener)?;
        consumer.subscribe(&[&topic]).map_err(|e| Error::unavailable(format!("cannot join the group {group}: {e}")))?;
        let consumer = Arc::new(consumer);
        let parts = (consumer.clone(), told.clone(), topic.clone(), member.to_owned());
        let thread = std::thread::Builder::new()
            .name("kafka-group".into())
            .spawn(move || poll(&parts.0, &group, &parts.2, &parts.3, &parts.1))
            .map_err(|e| Error::unavailable(format!("cannot start a thread for the group: {e}")))?;
        Ok(Group { shared: shared.clone(), topic, consumer, owned, told, thread: Some(thread) })
    }

    /// What the group has committed of a partition.
    async fn committed(&self, partition: PartitionId) -> Result<Option<Offset>> {
        let (consumer, topic) = (self.consumer.clone(), self.topic.clone());
        let ask = move || committed(&*consumer, &topic, &[partition], PATIENCE);
        Ok(self.shared.asking.ask(ask).await?.remove(&partition))
    }
}

/// Hands over what was told.
fn commit(consumer: &BaseConsumer<Listener>, topic: &str, told: &Told) {
    // What is another's now is told by the other, unless it comes back.
    let owns = |p: &PartitionId| consumer.context().owned.borrow().as_ref().is_ok_and(|owned| owned.contains(p));
    let ends: BTreeMap<_, _> = {
        let mut all = lock(&told.ends);
        let own: Vec<PartitionId> = all.keys().copied().filter(owns).collect();
        own.into_iter().filter_map(|p| all.remove_entry(&p)).collect()
    };
    if ends.is_empty() {
        return;
    }
    lock(&told.sent).extend(ends.clone());
    let mut list = TopicPartitionList::new();
    for (partition, (end, word)) in ends {
        let mut place = list.add_partition(topic, i32::from(partition));
        place.set_metadata(word);
        let set = place.set_offset(rdkafka::Offset::Offset(i64::try_from(end).unwrap_or(i64::MAX)));
        if let Err(e) = set {
            tracing::debug!(error = %e, "an offset cannot be committed");
        }
    }
    if let Err(e) = consumer.commit(&list, CommitMode::Async) {
        tracing::debug!(error = %e, "offsets are not committed; they are with the next ones");
    }
}

/// Keeps the membership alive and commits what was told.
fn poll(consumer: &BaseConsumer<Listener>, group: &str, topic: &str, member: &str, told: &Told) {
    for turn in 1u32.. {
        if told.stop.load(Ordering::SeqCst) {
            break;
        }
        if turn.is_multiple_of(AGAIN) {
            told.again();
        }
        if let Some(Err(e)) = consumer.poll(POLL) {
            tracing::debug!(error = %e, "group {group}");
        }
        if let Some((code, reason)) = consumer.client().fatal_error() {
            let what = match code {
                Code::FencedInstanceId => Error::invalid(
                    "kafka.member",
                    format!("{member:?} is the name of another process too: give each its own"),
                ),
                _ => Error::unavailable(format!("the group {group} has put this process out: {reason}")),
            };
            let _ = consumer.context().owned.send_replace(Err(what));
            return;
        }
        commit(consumer, topic, told);
    }
    commit(consumer, topic, told);
    let _ = consumer.poll(POLL); // time to send it
}

impl Membership for Group {
    fn owned(&self) -> watch::Receiver<Result<BTreeSet<PartitionId>>> {
        self.owned.clone()
    }

    fn tell(&self, partition: PartitionId, end: Offset, n: u64) {
        lock(&self.told.ends).insert(partition, (end, format!("checkpoint {n}")));
    }
}

impl Inbox for Group {
    fn owned(&self) -> watch::Receiver<Result<BTreeSet<PartitionId>>> {
        self.owned.clone()
    }

    fn span(&self, partition: PartitionId) -> BoxFuture<'_, Result<Range<Offset>>> {
        Box::pin(self.shared.span(Partition::Inbox(partition)))
    }

    fn told(&self, partition: PartitionId) -> BoxFuture<'_, Result<Option<Offset>>> {
        Box::pin(self.committed(partition))
    }

    fn tell(&self, partition: PartitionId, next: Offset) {
        lock(&self.told.ends).insert(partition, (next, String::new()));
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
