//! The log on Apache Kafka, by librdkafka.
//!
//! It owns the mapping of the contract ([`super`]) to Kafka, and the settings that make it true:
//!
//! | clause | how |
//! |---|---|
//! | append | idempotent producer, acks=all, explicit partition; `min.insync.replicas` copies ([`topics`]) |
//! | "might have happened" | `Unavailable` if the client did not take the record; what fails later is `Indeterminate` |
//! | readers | a consumer, placed by offset, reading uncommitted: a stranger's open transaction stalls nobody |
//! | never a record that could be lost | brokers show consumers nothing above the high watermark |
//! | end | the high watermark, and never below what this handle was answered or has read |
//! | bytes for ever | retention without limit, no compaction: checked at every open but that of the doctor |
//! | inbox | read committed, for its producers may use transactions; retention is the operator's |
//!
//! A position that the broker does not have (the log was cut off before or after it) is `Corrupt`, never a silent
//! reset. Brokers that cannot be reached are `Unavailable`, and librdkafka goes on connecting by itself.
//!
//! ```text
//!   append ─► room (bounded by bytes) ─► producer: changes │ ledger and folds ─► delivery ─► answer
//!   reader ─► consumer of its own: woken as soon as librdkafka has a record
//!             at the end of the ledger one for all of them ([`tail`])
//!   fetch  ─► a few idle consumers, assigned at the offset, one record each
//!   end    ─► one thread that asks and waits
//! ```
//!
//! # What was measured
//!
//! - `linger.ms=0`: any other value adds itself to every append (0.4, 1.5, 5.9 ms for 0, 1, 5).
//! - A consumer that waits at the end of a partition has a request at the broker for `fetch.wait.max.ms`, and
//!   everything else on that connection stands behind it: a seek, a question for the end. So a seek back takes a new
//!   consumer (8 ms), ends are asked by a client of their own, and the consumers of `fetch` never wait there.
//! - Dropping a consumer takes 100 ms: a thread does it.
//! - The first append of a producer takes about 0.5 s: it asks for its id and looks again for a broker after that long.
//!
//! It spawns no task; it has three threads of its own beside librdkafka's, and one for each group that it joins. It needs
//! a tokio runtime for its timers.

mod consumer;
mod describe;
mod group;
pub mod inspect;
mod link;
mod producer;
mod reader;
mod rules;
mod tail;
#[cfg(test)]
mod tests;
mod topics;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use self::consumer::Pickers;
use self::group::{FOLDS, Group, INBOX, group_id};
use self::link::{Asker, Link};
use self::producer::Producers;
use self::reader::KafkaReader;
pub use self::rules::Deviation;
use self::tail::Tail;
pub use self::topics::Copies;
use self::topics::Topics;
use self::worker::Worker;
use super::{Inbox, Log, Membership, Offset, Partition, Reader, Record, TakenIn};
use crate::config;
use crate::error::{Error, Result};

/// How long the broker may take over a question before it counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(5);

/// What it takes to reach the repository's topics.
#[derive(Clone)]
pub struct KafkaSettings {
    /// Some of the brokers: `HOST:PORT,…`.
    pub brokers: String,
    /// The repository's name, which its topics begin with: `REPO.changes`, `REPO.ledger` and so on.
    pub repo: String,
    /// librdkafka's own settings, such as `security.protocol`. Those that the contract rests on are refused.
    pub options: BTreeMap<String, String>,
    /// How long an append may take before it is answered `Indeterminate`; at least 1.
    pub message_timeout_ms: u64,
}

impl KafkaSettings {
    /// The default of [`KafkaSettings::message_timeout_ms`].
    pub const MESSAGE_TIMEOUT_MS: u64 = 30_000;

    /// What the configuration says; `None` when it names no brokers.
    pub fn of(settings: &config::Kafka) -> Result<Option<KafkaSettings>> {
        let Some(brokers) = &settings.brokers else {
            if settings.repo.is_some() || !settings.options.0.is_empty() {
                return Err(Error::invalid("kafka.brokers", "is missing: there are other settings of Kafka"));
            }
            return Ok(None);
        };
        let repo = settings.repo.as_deref().unwrap_or(config::defaults::KAFKA_REPO);
        let options = settings.options.clone().0;
        Ok(Some(KafkaSettings { options, ..KafkaSettings::new(brokers.as_str(), repo) }))
    }

    /// Without options.
    pub fn new(brokers: impl Into<String>, repo: impl Into<String>) -> KafkaSettings {
        let message_timeout_ms = KafkaSettings::MESSAGE_TIMEOUT_MS;
        KafkaSettings { brokers: brokers.into(), repo: repo.into(), options: BTreeMap::new(), message_timeout_ms }
    }
}

impl fmt::Debug for KafkaSettings {
    /// Options by name only: there are passwords among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KafkaSettings { brokers, repo, options, message_timeout_ms } = self;
        let mut shown = f.debug_struct("KafkaSettings");
        shown.field("brokers", brokers).field("repo", repo).field("options", &options.keys());
        shown.field("message_timeout_ms", message_timeout_ms).finish()
    }
}

/// The log on Kafka. Dropping it ends its threads; appends that have no answer yet are given up as `Indeterminate`.
pub struct KafkaLog {
    shared: Arc<Shared>,
}

struct Shared {
    link: Link,
    topics: Topics,
    producers: Producers,
    pickers: Pickers,
    /// Where readers at the ledger's end read, once there is one.
    tail: Mutex<Option<Arc<Tail>>>,
    asker: Arc<Asker>,
    /// Asks about the group of the inbox, once somebody wants to know.
    inbox_asker: OnceCell<Arc<Asker>>,
    /// Asks, and waits for the answer.
    asking: Worker,
    /// Drops what takes its time to go.
    dropping: Worker,
    /// The least that the end of each partition may be: one past what was answered, read or seen as its end.
    known: Mutex<BTreeMap<Partition, Offset>>,
    /// Cancelled when the log is dropped.
    closed: CancellationToken,
}

impl KafkaLog {
    /// Connects to topics that are there.
    ///
    /// # Errors
    /// `Invalid` if a setting is wrong, the broker refuses the user, or a topic is missing or keeps less than the
    /// contract needs: it names topic and setting with both values. `Unavailable` if no broker can be reached.
    pub async fn open(settings: &KafkaSettings) -> Result<KafkaLog> {
        KafkaLog::open_on(settings, true).await
    }

    /// Connects to topics as they are, whatever their settings: to read what is there, not to rely on it.
    ///
    /// # Errors
    /// As [`KafkaLog::open`], but for settings.
    pub async fn open_unchecked(settings: &KafkaSettings) -> Result<KafkaLog> {
        KafkaLog::open_on(settings, false).await
    }

    async fn open_on(settings: &KafkaSettings, checked: bool) -> Result<KafkaLog> {
        let (link, asking, dropping) = start(settings)?;
        let asker = Arc::new(link.asker(None)?);
        // Creating the producers first lets them connect meanwhile.
        let producers = Producers::new(&link)?;
        let topics = match checked {
            true => topics::check(&link, &asker, &asking).await?,
            false => topics::survey(&link, &asker, &asking).await?,
        };
        let (pickers, known, closed) = (Pickers::default(), Mutex::default(), CancellationToken::new());
        let (tail, inbox_asker) = (Mutex::default(), OnceCell::new());
        let shared =
            Shared { link, topics, producers, pickers, tail, asker, inbox_asker, asking, dropping, known, closed };
        Ok(KafkaLog { shared: Arc::new(shared) })
    }

    /// Creates the topics that are missing and checks those that are there: for `tuflog init`.
    ///
    /// # Errors
    /// As [`KafkaLog::open`], and `Invalid` if an existing topic differs from what is asked for here.
    pub async fn create_topics(
        settings: &KafkaSettings,
        partitions: u16,
        replication: u16,
        min_insync: u16,
    ) -> Result<()> {
        let (link, asking, dropping) = start(settings)?;
        let asker = Arc::new(link.asker(None)?);
        let wanted = topics::Wanted { partitions, replication, min_insync };
        let created = topics::create(&link, &asker, (&asking, &dropping), wanted).await;
        dropping.run(move || drop(asker));
        created
    }

    /// Joins the group of the folds, under a name that no other process has.
    pub fn join(&self, member: &str) -> Result<Arc<dyn Membership>> {
        Ok(Arc::new(Group::join(&self.shared, FOLDS, Partition::Changes(0), member)?))
    }

    /// Joins the group of the intakes, which share the inbox, under a name that no other process has.
    pub fn inbox(&self, member: &str) -> Result<Arc<dyn Inbox>> {
        Ok(Arc::new(Group::join(&self.shared, INBOX, Partition::Inbox(0), member)?))
    }

    /// The processes that fold or take in the inbox, as far as the brokers know.
    pub async fn members(&self) -> Result<Vec<String>> {
        let (asker, groups) = (self.shared.asker.clone(), [FOLDS, INBOX].map(|name| group_id(&self.shared.link, name)));
        let ask = move || {
            let mut all = Vec::new();
            for group in groups {
                let members = asker.group(&group)?.map_or_else(Vec::new, |found| found.members);
                all.extend(members.iter().map(|m| format!("{} at {} in the group {group}", m.client, m.host)));
            }
            Ok(all)
        };
        self.shared.asking.ask(ask).await
    }

    /// How many partitions topic `changes` has.
    pub fn partitions(&self) -> u16 {
        self.shared.topics.partitions
    }
}

fn start(settings: &KafkaSettings) -> Result<(Link, Worker, Worker)> {
    Ok((Link::new(settings)?, Worker::start("kafka-ask")?, Worker::start("kafka-drop")?))
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.shared.closed.cancel();
        self.shared.producers.close(&self.shared.dropping);
        self.shared.pickers.close();
    }
}

impl Shared {
    /// Notes that `of` ends at `end` or later; answers the most that was noted.
    fn note(&self, of: Partition, end: Offset) -> Offset {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let at_least = known.entry(of).or_default();
        *at_least = end.max(*at_least);
        *at_least
    }

    async fn end(&self, of: Partition) -> Result<Offset> {
        Ok(self.span(of).await?.end)
    }

    /// The first offset that is there, and the end.
    async fn span(&self, of: Partition) -> Result<Range<Offset>> {
        self.check_open()?;
        let (asker, (topic, partition)) = (self.asker.clone(), self.topics.place(of)?);
        let topic = topic.to_owned();
        let span = self.asking.ask(move || asker.span(&topic, partition, PATIENCE)).await?;
        Ok(span.start..self.note(of, span.end))
    }

    async fn taken_in(&self) -> Result<Vec<TakenIn>> {
        self.check_open()?;
        let create = || async { Ok::<_, Error>(Arc::new(self.link.asker(Some(&group_id(&self.link, INBOX)))?)) };
        let asker = self.inbox_asker.get_or_try_init(create).await?.clone();
        let topic = self.topics.place(Partition::Inbox(0))?.0.to_owned();
        self.asking.ask(move || asker.taken_in(&topic, PATIENCE)).await
    }

    async fn fetch(self: &Arc<Self>, of: Partition, at: Offset) -> Result<Option<Record>> {
        if at >= self.note(of, 0) && at >= self.end(of).await? {
            return Ok(None);
        }
        let (topic, partition) = self.topics.place(of)?;
        let record = Pickers::pick(self, topic, partition, at).await?;
        if record.is_some() {
            self.note(of, at + 1);
        }
        Ok(record)
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.is_cancelled() { Err(closed()) } else { Ok(()) }
    }
}

fn closed() -> Error {
    Error::unavailable("the log is closed")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log for KafkaLog {
    fn append(&self, to: Partition, payload: Bytes) -> BoxFuture<'static, Result<Offset>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            let offset = shared.producers.append(&shared, to, payload).await?;
            shared.note(to, offset + 1);
            Ok(offset)
        })
    }

    fn reader(&self, of: Partition, from: Offset) -> Box<dyn Reader> {
        Box::new(KafkaReader::new(self.shared.clone(), of, from))
    }

    fn fetch(&self, of: Partition, at: Offset) -> BoxFuture<'_, Result<Option<Record>>> {
        Box::pin(self.shared.fetch(of, at))
    }

    fn end(&self, of: Partition) -> BoxFuture<'_, Result<Offset>> {
        Box::pin(self.shared.end(of))
    }

    fn taken_in(&self) -> BoxFuture<'_, Result<Vec<TakenIn>>> {
        Box::pin(self.shared.taken_in())
    }
}
