//! What all of librdkafka's clients share: settings, what they complain about, and how their errors read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::Metadata;

use super::inspect::Group;
use super::{KafkaSettings, describe, lock};
use crate::bins::PartitionId;
use crate::clock::Stopwatch;
use crate::error::{Error, Kind, Result};
use crate::log::{Offset, Partition, TakenIn};

/// The largest record that is taken. Segments are at most 512 KiB; the rest is room to grow.
pub(super) const MAX_RECORD_BYTES: usize = 2 << 20;
/// What a batch of one such record takes at the most: what a topic's `max.message.bytes` must admit.
pub(super) const MAX_MESSAGE_BYTES: usize = MAX_RECORD_BYTES + (4 << 10);
/// How long a first connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// What a reader's consumer may hold ahead of it.
const AHEAD_KBYTES: &str = "4096";

/// The settings that the contract rests on, or that have a place of their own: not the user's.
const OWNED: [&str; 20] = [
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "check.crcs",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "isolation.level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.max.bytes",
    "message.timeout.ms",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "request.required.acks",
    "transactional.id",
];

/// The options that are not the user's to set.
pub(super) fn refused_options(settings: &KafkaSettings) -> Vec<Error> {
    let owned = settings.options.keys().filter(|name| OWNED.contains(&name.as_str()));
    let refused = |name| Error::invalid(format!("kafka.{name}"), "is not yours to set: the log's promises rest on it");
    owned.map(refused).collect()
}

/// How to make clients.
pub(super) struct Link {
    settings: KafkaSettings,
    pub trouble: Trouble,
}

/// The last thing that librdkafka complained about, to explain what did not work.
#[derive(Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<(Code, String)>>>);

impl Trouble {
    /// The failure that `doing` met: `Invalid` if the broker does not take us as we are.
    pub fn explain(&self, doing: &str, e: &KafkaError) -> Error {
        let last = lock(&self.0).clone();
        let refused = [Code::Authentication, Code::SSL, Code::SaslAuthenticationFailed, Code::UnsupportedSASLMechanism];
        match last {
            Some((code, reason)) if refused.contains(&code) => {
                Error::invalid("kafka", format!("{doing}: the connection was refused: {reason}"))
            }
            Some((_, reason)) => Error::unavailable(format!("{doing}: {} ({reason})", words(e))),
            None => Error::unavailable(format!("{doing}: {}", words(e))),
        }
    }

    fn note(&self, code: Code, reason: &str) {
        let mut last = lock(&self.0);
        // "All brokers are down" explains less than why.
        if code != Code::AllBrokersDown || last.is_none() {
            *last = Some((code, reason.to_owned()));
        }
    }
}

/// Without the library's wrapping.
pub(super) fn words(e: &KafkaError) -> String {
    e.rdkafka_error_code().map_or_else(|| e.to_string(), |code| code.to_string())
}

/// Hears what a client has to say.
pub(super) struct Context(Trouble);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, "{message}")
            }
            // A broker that is away is said once a state, not once an attempt: see the reader.
            _ => tracing::debug!(facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        heard(&self.0, &error, reason);
    }
}

/// Takes note of a complaint.
pub(super) fn heard(trouble: &Trouble, error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        None | Some(Code::PartitionEOF | Code::GroupAuthorizationFailed) => {}
        Some(code) => {
            tracing::debug!(reason, "Kafka: {code}");
            trouble.note(code, reason);
        }
    }
}

impl ConsumerContext for Context {}

impl Link {
    pub fn new(settings: &KafkaSettings) -> Result<Link> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let repo = &settings.repo;
        if repo.is_empty() || repo.len() > 200 || !repo.chars().all(legal) || repo.starts_with('.') {
            let rule = "must be 1 to 200 of A-Z a-z 0-9 . _ - and not begin with a point: topics are named by it";
            return Err(Error::invalid("kafka.repo", format!("{rule}; it is {repo:?}")));
        }
        if settings.brokers.trim().is_empty() {
            return Err(Error::invalid("kafka.brokers", "names no broker: HOST:PORT,…"));
        }
        if settings.message_timeout_ms == 0 {
            return Err(Error::invalid("kafka.message_timeout_ms", "must be at least 1: an append must end some time"));
        }
        if let Some(refused) = refused_options(settings).into_iter().next() {
            return Err(refused);
        }
        Ok(Link { settings: settings.clone(), trouble: Trouble::default() })
    }

    /// The prefix of the topics' names.
    pub fn repo(&self) -> &str {
        &self.settings.repo
    }

    /// How one of Kafka's own tools is called for these brokers. Who must log in keeps how in a file.
    pub fn tool(&self, name: &str) -> String {
        let plain = self.settings.options.get("security.protocol").is_none_or(|p| p.eq_ignore_ascii_case("plaintext"));
        let login = if plain { "" } else { " --command-config ADMIN.properties" };
        format!("{name} --bootstrap-server {}{login}", self.settings.brokers)
    }

    /// The command that alters a topic's setting.
    pub fn alter(&self, topic: &str, setting: &str, value: &str) -> String {
        format!("{} --alter --topic {topic} --add-config {setting}={value}", self.tool("kafka-configs"))
    }

    /// `defaults`, then the user's options, then `ours`.
    fn config(&self, defaults: &[(&str, &str)], ours: &[(&str, &str)]) -> ClientConfig {
        let mut all = BTreeMap::from([
            ("client.id", "tuflog"),
            ("socket.nagle.disable", "true"),
            // A broker that stands still is given up after this, if its partition has another leader by then.
            ("socket.timeout.ms", "5000"),
            ("socket.connection.setup.timeout.ms", "5000"),
            ("api.version.request.timeout.ms", "5000"),
            ("reconnect.backoff.ms", "50"),
            ("reconnect.backoff.max.ms", "1000"),
            ("topic.metadata.refresh.interval.ms", "5000"),
        ]);
        all.extend(defaults.iter().copied());
        all.extend(self.settings.options.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        all.extend(ours.iter().copied());
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.settings.brokers);
        all.into_iter().for_each(|(name, value)| {
            config.set(name, value);
        });
        config
    }

    pub fn create<T: FromClientConfigAndContext<Context>>(&self, config: &ClientConfig) -> Result<T> {
        self.create_with(config, |context| context)
    }

    /// A client whose context is made of ours.
    pub fn create_with<C: ClientContext, T: FromClientConfigAndContext<C>>(
        &self,
        config: &ClientConfig,
        wrap: impl FnOnce(Context) -> C,
    ) -> Result<T> {
        config.create_with_context(wrap(Context(self.trouble.clone()))).map_err(wrong_setting)
    }

    pub fn producer(&self) -> ClientConfig {
        let (max, timeout) = (MAX_MESSAGE_BYTES.to_string(), self.settings.message_timeout_ms.to_string());
        let defaults = [("linger.ms", "0"), ("compression.type", "lz4")];
        let ours = [
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("max.in.flight", "5"),
            ("message.max.bytes", &max),
            ("message.timeout.ms", &timeout),
        ];
        self.config(&defaults, &ours)
    }

    /// Of a reader that goes along with its partition. The group only lets librdkafka assign; nobody ever joins it.
    /// What strangers write in transactions is theirs to take back; our own topics have none that could stall us.
    pub fn tail(&self, of: Partition) -> ClientConfig {
        let ahead = [("queued.max.messages.kbytes", AHEAD_KBYTES), ("fetch.queue.backoff.ms", "5")];
        let mut config =
            self.consumer(&[&ahead[..], &[("fetch.wait.max.ms", "500"), ("fetch.error.backoff.ms", "50")]].concat());
        if matches!(of, Partition::Inbox(_)) {
            config.set("isolation.level", "read_committed");
        }
        config
    }

    /// Of `fetch`: one record, and no waiting at the end.
    pub fn picker(&self) -> ClientConfig {
        self.consumer(&[
            ("fetch.wait.max.ms", "1"),
            ("fetch.message.max.bytes", "1024"),
            ("queued.min.messages", "1"),
            // What is left over from the last fetch counts as queued for a moment; the default is to look again in 1 s.
            ("fetch.queue.backoff.ms", "1"),
            ("fetch.error.backoff.ms", "50"),
        ])
    }

    fn consumer(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let group = format!("{}.readers", self.settings.repo);
        let ours = [
            ("group.id", group.as_str()),
            ("auto.offset.reset", "error"),
            ("check.crcs", "true"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("enable.partition.eof", "true"),
            ("isolation.level", "read_uncommitted"),
        ];
        self.config(&[defaults, &[("fetch.min.bytes", "1")]].concat(), &ours)
    }

    /// Of a member of a group. A session ends 6 s after its last heartbeat, the least that brokers admit.
    pub fn member(&self, group: &str, member: &str) -> ClientConfig {
        let ours = [
            ("group.id", group),
            ("group.instance.id", member),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("auto.offset.reset", "latest"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("fetch.message.max.bytes", "1"),
            ("queued.min.messages", "1"),
        ];
        let times = [
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "1500"),
            // Also how long a rebalance waits for a member that died in it; the default is 5 minutes.
            ("max.poll.interval.ms", "10000"),
        ];
        self.config(&times, &ours)
    }

    pub fn admin(&self) -> ClientConfig {
        self.config(&[], &[])
    }

    /// Whether librdkafka takes the user's options, for every kind of client that there will be.
    pub fn try_options(&self) -> Result<()> {
        let configs = [self.admin(), self.producer(), self.tail(Partition::Ledger), self.member("group", "member")];
        configs.iter().try_for_each(|config| config.create_native_config().map(drop).map_err(wrong_setting))
    }

    /// Of a client that asks; about a group, if one is named. It never joins it.
    pub fn asker(&self, group: Option<&str>) -> Result<Asker> {
        let mut config = self.config(&[], &[("isolation.level", "read_uncommitted"), ("enable.auto.commit", "false")]);
        group.map(|group| config.set("group.id", group));
        Ok(Asker { client: self.create(&config)?, trouble: self.trouble.clone() })
    }
}

fn wrong_setting(e: KafkaError) -> Error {
    match e {
        KafkaError::ClientConfig(_, why, name, _) => {
            // The value may be a password.
            Error::invalid(format!("kafka.{name}"), why.trim_end_matches('\0').trim())
        }
        KafkaError::ClientCreation(why) => Error::invalid("kafka", why),
        e => Error::unavailable(format!("cannot start a Kafka client: {}", words(&e))),
    }
}

/// What the group of a client has committed of partitions of a topic, where it has. Blocks.
pub(super) fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[PartitionId],
    patience: Duration,
) -> Result<BTreeMap<PartitionId, Offset>> {
    let failed = |e| Error::unavailable(format!("the group's offsets of {topic}: {}", words(&e)));
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, i32::from(*partition));
    }
    let mut offsets = BTreeMap::new();
    for place in consumer.committed_offsets(list, patience).map_err(failed)?.elements() {
        place.error().map_err(failed)?;
        let offset = place.offset().to_raw().and_then(|at| u64::try_from(at).ok());
        if let (Ok(partition), Some(offset)) = (PartitionId::try_from(place.partition()), offset) {
            offsets.insert(partition, offset);
        }
    }
    Ok(offsets)
}

/// A client for questions. Its methods block.
pub(super) struct Asker {
    client: BaseConsumer<Context>,
    trouble: Trouble,
}

impl Asker {
    /// The client itself, for what only librdkafka's own functions ask.
    pub fn client(&self) -> &BaseConsumer<Context> {
        &self.client
    }

    /// The first offset and the high watermark.
    pub fn span(&self, topic: &str, partition: i32, patience: Duration) -> Result<Range<Offset>> {
        match self.client.fetch_watermarks(topic, partition, patience) {
            Ok((low, high)) => Ok(u64::try_from(low).unwrap_or(0)..u64::try_from(high).unwrap_or(0)),
            Err(e) => Err(Error::unavailable(format!("the end of {topic}, partition {partition}: {}", words(&e)))),
        }
    }

    /// How far the group of this client is with a topic.
    pub fn taken_in(&self, topic: &str, patience: Duration) -> Result<Vec<TakenIn>> {
        let width = self.topic(topic)?.topics().first().map_or(0, |t| t.partitions().len());
        let partitions: Vec<PartitionId> = (0..PartitionId::MAX).take(width).collect();
        let told = committed(&self.client, topic, &partitions, patience)?;
        let one = |partition: PartitionId| {
            let span = self.span(topic, partition.into(), patience)?;
            let decided = told.get(&partition).map_or(span.start, |told| (*told).clamp(span.start, span.end));
            Ok(TakenIn { partition, decided, end: span.end })
        };
        partitions.into_iter().map(one).collect()
    }

    /// A group, as its coordinator knows it; `None` if there never was one.
    ///
    /// # Errors
    /// `Invalid` if this user may not see it.
    pub fn group(&self, name: &str) -> Result<Option<Group>> {
        match describe::group(&self.client, name)? {
            Ok(group) => Ok(Some(group)),
            Err(Code::GroupIdNotFound) => Ok(None),
            Err(Code::GroupAuthorizationFailed) => {
                Err(Error::invalid("kafka", format!("this user may not see group {name}")))
            }
            Err(code) => Err(Error::unavailable(format!("group {name}: {code}"))),
        }
    }

    /// What the brokers know about a topic. Tries until it has an answer, is refused, or loses patience.
    pub fn topic(&self, topic: &str) -> Result<Metadata> {
        let watch = Stopwatch::start();
        loop {
            let e = match self.client.fetch_metadata(Some(topic), Duration::from_millis(500)) {
                Ok(metadata) => return Ok(metadata),
                Err(e) => e,
            };
            while self.client.poll(Duration::ZERO).is_some() {} // brings what went wrong to the context
            let error = self.trouble.explain("cannot reach Kafka", &e);
            if error.kind == Kind::Invalid || watch.seconds() > CONNECT.as_secs_f64() {
                return Err(error);
            }
        }
    }
}
