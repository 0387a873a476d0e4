//! The repository's topics: their names, and the settings without which the contract would not hold.

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaRespErr;
use std::sync::Arc;
use std::time::Duration;

use super::link::{Asker, Context, Link, MAX_MESSAGE_BYTES, words};
use super::worker::Worker;
use crate::bins::MAX_PARTITIONS;
use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::log::Partition;

/// How many partitions a topic has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    One,
    /// As many as the repository has.
    Repository,
    /// Any number; as many as the repository has when we create it.
    Any,
}

/// Every topic of a repository: the end of its name.
const TOPICS: [(&str, Width); 5] = [
    ("changes", Width::Repository),
    ("ledger", Width::One),
    ("folds", Width::One),
    ("inbox", Width::Any),
    ("inbox-rejects", Width::One),
];
/// Their places in [`TOPICS`].
const CHANGES: usize = 0;
const LEDGER: usize = 1;
const FOLDS: usize = 2;
const INBOX: usize = 3;
const REJECTS: usize = 4;

/// The largest record that a new inbox takes; the operator may alter it.
const MAX_INBOX_BYTES: &str = "8388608";

/// How long a new topic may take to get its leaders.
const SETTLE: Duration = Duration::from_secs(15);

/// What a topic's setting must be.
enum Rule {
    Is(&'static str),
    AtLeast(i64),
}

/// The rules of the log itself; a topic with copies must also write two of them before it answers.
const RULES: [(&str, Rule); 7] = [
    ("cleanup.policy", Rule::Is("delete")),
    ("retention.ms", Rule::Is("-1")),
    ("retention.bytes", Rule::Is("-1")),
    ("unclean.leader.election.enable", Rule::Is("false")),
    ("max.message.bytes", Rule::AtLeast(MAX_MESSAGE_BYTES as i64)),
    // A record's time is the log's own clock, not ours.
    ("message.timestamp.type", Rule::Is("LogAppendTime")),
    // What was sent is kept: a broker that packs again could use a codec that readers do not have.
    ("compression.type", Rule::Is("producer")),
];

/// The rules of the inbox and its rejects: how long they keep what is the operator's choice.
const INBOX_RULES: [(&str, Rule); 3] = [
    ("cleanup.policy", Rule::Is("delete")),
    ("unclean.leader.election.enable", Rule::Is("false")),
    // Producers pack with what they like. The broker packs again, with what every intake can read.
    ("compression.type", Rule::Is("lz4")),
];

/// The rules of one of [`TOPICS`].
fn rules(topic: usize) -> &'static [(&'static str, Rule)] {
    match topic {
        INBOX | REJECTS => &INBOX_RULES,
        _ => &RULES,
    }
}

/// What `tuflog init` asks for.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub partitions: u16,
    pub replication: u16,
    pub min_insync: u16,
}

/// The names, and how many partitions `changes` has.
pub(super) struct Topics {
    names: [String; TOPICS.len()],
    pub partitions: u16,
}

impl Topics {
    pub fn of(link: &Link, partitions: u16) -> Topics {
        Topics { names: names(link), partitions }
    }

    /// Topic and partition.
    pub fn place(&self, of: Partition) -> Result<(&str, i32)> {
        match of {
            Partition::Ledger => Ok((&self.names[LEDGER], 0)),
            Partition::Folds => Ok((&self.names[FOLDS], 0)),
            Partition::Inbox(p) => Ok((&self.names[INBOX], p.into())),
            Partition::Rejects => Ok((&self.names[REJECTS], 0)),
            Partition::Changes(p) if p < self.partitions => Ok((&self.names[CHANGES], p.into())),
            Partition::Changes(p) => {
                let (name, have) = (&self.names[CHANGES], self.partitions);
                Err(Error::invalid("partition", format!("{p} is not there: topic {name} has {have}")))
            }
        }
    }

    /// The key of a record of `changes`: the leading bits of the hashes that go to its partition, as hex.
    pub fn key(&self, of: Partition) -> Option<String> {
        let Partition::Changes(p) = of else { return None };
        let bits = u32::from(self.partitions).trailing_zeros();
        let digits = bits.div_ceil(4).max(1);
        Some(format!("{:0width$x}", u32::from(p) << (digits * 4 - bits), width = digits as usize))
    }
}

fn names(link: &Link) -> [String; TOPICS.len()] {
    TOPICS.map(|(suffix, _)| format!("{}.{suffix}", link.repo()))
}

/// What the brokers say of a topic.
struct Found {
    partitions: usize,
    /// The fewest copies that a partition has.
    replication: usize,
    /// Whether every partition has a leader.
    led: bool,
}

/// `None` if there is no such topic. Blocks.
fn find(asker: &Asker, name: &str) -> Result<Option<Found>> {
    let metadata = asker.topic(name)?;
    let Some(topic) = metadata.topics().iter().find(|t| t.name() == name) else { return Ok(None) };
    match topic.error().map(Code::from) {
        None | Some(Code::LeaderNotAvailable) => {}
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => return Ok(None),
        Some(code @ (Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed | Code::InvalidTopic)) => {
            let needs = "this user must be allowed to describe, describe configs of, read and write it";
            return Err(Error::invalid("kafka", format!("topic {name}: {code}; {needs}")));
        }
        Some(code) => return Err(Error::unavailable(format!("topic {name}: {code}"))),
    }
    let partitions = topic.partitions();
    Ok(Some(Found {
        partitions: partitions.len(),
        replication: partitions.iter().map(|p| p.replicas().len()).min().unwrap_or(0),
        led: !partitions.is_empty() && partitions.iter().all(|p| p.leader() >= 0 && leads(p.error())),
    }))
}

fn leads(error: Option<RDKafkaRespErr>) -> bool {
    !matches!(error.map(Code::from), Some(Code::LeaderNotAvailable))
}

async fn find_all(link: &Link, asker: &Arc<Asker>, asking: &Worker) -> Result<Vec<(String, Option<Found>)>> {
    let (names, asker) = (names(link), asker.clone());
    asking.ask(move || names.into_iter().map(|n| find(&asker, &n).map(|found| (n, found))).collect()).await
}

/// The topics that are there, if they are as they must be.
pub(super) async fn check(link: &Link, asker: &Arc<Asker>, asking: &Worker) -> Result<Topics> {
    let mut partitions = 0;
    let mut found = Vec::new();
    for ((name, topic), (_, width)) in find_all(link, asker, asking).await?.into_iter().zip(TOPICS) {
        let Some(topic) = topic else {
            let how = format!("create the topics of repository {} first: tuflog init", link.repo());
            return Err(Error::invalid("kafka", format!("topic {name} does not exist; {how}")));
        };
        let have = topic.partitions;
        if width == Width::One && have != 1 {
            return Err(Error::invalid("kafka", format!("topic {name} has {have} partitions, must have 1")));
        }
        if width == Width::Repository {
            let most = MAX_PARTITIONS as usize;
            partitions = u16::try_from(have).ok().filter(|p| p.is_power_of_two() && have <= most).ok_or_else(|| {
                let rule = format!("must have a power of two up to {most}");
                Error::invalid("kafka", format!("topic {name} has {have} partitions, {rule}"))
            })?;
        }
        found.push((name, topic.replication));
    }
    let admin: AdminClient<Context> = link.create(&link.admin())?;
    let specifiers: Vec<_> = found.iter().map(|(name, _)| ResourceSpecifier::Topic(name)).collect();
    let answers =
        admin.describe_configs(&specifiers, &options()).await.map_err(|e| failed("describe the topics", &e))?;
    for (topic, ((name, copies), answer)) in found.iter().zip(answers).enumerate() {
        let settings = answer.map_err(|code| refused(name, "describe configs", code))?;
        check_settings(name, rules(topic), *copies, &settings)?;
    }
    Ok(Topics::of(link, partitions))
}

fn check_settings(name: &str, rules: &[(&str, Rule)], copies: usize, settings: &ConfigResource) -> Result<()> {
    let insync = ("min.insync.replicas", Rule::AtLeast(2));
    for (setting, rule) in rules.iter().chain((copies > 1).then_some(&insync)) {
        let value = settings.get(setting).and_then(|entry| entry.value.clone()).unwrap_or_default();
        let (good, must) = match rule {
            Rule::Is(must) => (value == *must, (*must).to_owned()),
            Rule::AtLeast(least) => (value.parse().is_ok_and(|v: i64| v >= *least), format!("{least} or more")),
        };
        if !good {
            let set = must.trim_end_matches(" or more");
            let how = format!("kafka-configs --alter --topic {name} --add-config {setting}={set}");
            return Err(Error::invalid(
                "kafka",
                format!("topic {name}: {setting} is {value:?}, must be {must}: {how}"),
            ));
        }
    }
    Ok(())
}

/// Creates what is missing and checks what is there.
pub(super) async fn create(
    link: &Link,
    asker: &Arc<Asker>,
    (asking, dropping): (&Worker, &Worker),
    wanted: Wanted,
) -> Result<()> {
    let Wanted { partitions, replication, min_insync } = wanted;
    if min_insync == 0 || min_insync > replication {
        let rule = format!("must be from 1 to the number of copies, {replication}; it is {min_insync}");
        return Err(Error::invalid("kafka.min_insync", rule));
    }
    let (max, insync) = (MAX_MESSAGE_BYTES.to_string(), min_insync.to_string());
    let mut missing = Vec::new();
    let there = find_all(link, asker, asking).await?;
    for (i, ((name, topic), (_, width))) in there.iter().zip(TOPICS).enumerate() {
        let want = if width == Width::One { 1 } else { partitions };
        match topic {
            Some(topic) if topic.partitions != usize::from(want) && width != Width::Any => {
                let have = topic.partitions;
                return Err(Error::invalid("kafka", format!("topic {name} has {have} partitions, must have {want}")));
            }
            Some(_) => {}
            None => {
                let new = NewTopic::new(name, want.into(), TopicReplication::Fixed(replication.into()));
                let new = rules(i).iter().fold(new, |new, (setting, rule)| match rule {
                    Rule::Is(must) => new.set(setting, must),
                    Rule::AtLeast(_) => new,
                });
                let new = match i {
                    INBOX => new.set("retention.ms", "-1").set("max.message.bytes", MAX_INBOX_BYTES),
                    REJECTS => new.set("retention.ms", "-1"),
                    _ => new.set("max.message.bytes", &max),
                };
                missing.push(new.set("min.insync.replicas", &insync));
            }
        }
    }
    if !missing.is_empty() {
        let admin: AdminClient<Context> = link.create(&link.admin())?;
        let answers = admin.create_topics(&missing, &options()).await.map_err(|e| failed("create the topics", &e))?;
        dropping.run(move || drop(admin));
        for answer in answers {
            match answer {
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {} // somebody else was faster: checked below
                Err((name, code)) => return Err(refused(&name, "create", code)),
            }
        }
    }
    let watch = Stopwatch::start();
    while !find_all(link, asker, asking).await?.iter().all(|(_, topic)| topic.as_ref().is_some_and(|t| t.led)) {
        if watch.seconds() > SETTLE.as_secs_f64() {
            return Err(Error::unavailable("the new topics have no leaders yet"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let topics = check(link, asker, asking).await?;
    if topics.partitions != partitions {
        let (name, have) = (&topics.names[CHANGES], topics.partitions);
        return Err(Error::invalid("kafka", format!("topic {name} has {have} partitions, must have {partitions}")));
    }
    Ok(())
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(Duration::from_secs(10))).operation_timeout(Some(Duration::from_secs(10)))
}

fn failed(what: &str, e: &KafkaError) -> Error {
    Error::unavailable(format!("cannot {what}: {}", words(e)))
}

fn refused(name: &str, what: &str, code: Code) -> Error {
    let message = format!("topic {name}: cannot {what}: {code}");
    match code {
        Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::InvalidReplicationFactor
        | Code::InvalidPartitions
        | Code::InvalidConfig
        | Code::InvalidTopic
        | Code::PolicyViolation => Error::invalid("kafka", message),
        _ => Error::unavailable(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_hash_prefix_of_its_partition() {
        let key = |partitions, p| Topics { names: Default::default(), partitions }.key(Partition::Changes(p));
        let keys = [key(1, 0), key(4, 1), key(4, 3), key(16, 10), key(32, 1), key(1024, 1023)];
        assert_eq!(keys.map(Option::unwrap), ["0", "4", "c", "a", "08", "ffc"]);
        let topics = Topics { names: Default::default(), partitions: 4 };
        assert_eq!(topics.key(Partition::Ledger), None);
        assert!(topics.place(Partition::Changes(3)).is_ok() && topics.place(Partition::Changes(4)).is_err());
    }
}
