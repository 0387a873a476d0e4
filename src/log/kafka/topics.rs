//! The repository's topics: their names, how they are found, checked and created. What their settings must be:
//! [`super::rules`].

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::MetadataPartition;
use rdkafka::types::RDKafkaRespErr;
use std::sync::Arc;
use std::time::Duration;

use super::link::{Asker, Context, Link, words};
use super::rules::{deviations, initial};
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
pub(super) const INBOX: usize = 3;
pub(super) const REJECTS: usize = 4;

/// How long a new topic may take to get its leaders.
const SETTLE: Duration = Duration::from_secs(15);

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

pub(super) fn names(link: &Link) -> [String; TOPICS.len()] {
    TOPICS.map(|(suffix, _)| format!("{}.{suffix}", link.repo()))
}

/// The end of the name of one of [`TOPICS`].
pub(super) fn kind(topic: usize) -> &'static str {
    TOPICS[topic].0
}

/// What the brokers say of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copies {
    /// The broker that leads it.
    pub leader: Option<i32>,
    /// The brokers that should have a copy.
    pub replicas: Vec<i32>,
    /// Those of them whose copy is whole.
    pub isr: Vec<i32>,
}

/// What the brokers say of a topic.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub partitions: Vec<Copies>,
    /// The brokers that are there: number and address.
    pub brokers: Vec<(i32, String)>,
}

impl Found {
    /// The fewest copies that a partition has.
    pub fn replication(&self) -> usize {
        self.partitions.iter().map(|p| p.replicas.len()).min().unwrap_or(0)
    }

    fn is_led(&self) -> bool {
        !self.partitions.is_empty() && self.partitions.iter().all(|p| p.leader.is_some())
    }

    /// Refuses a number of partitions that the topic must not have.
    pub fn check_width(&self, topic: usize, name: &str) -> Result<()> {
        let (have, most) = (self.partitions.len(), MAX_PARTITIONS as usize);
        let rule = match TOPICS[topic].1 {
            Width::One if have != 1 => "must have 1".to_owned(),
            Width::Repository if !have.is_power_of_two() || have > most => {
                format!("must have a power of two up to {most}")
            }
            _ => return Ok(()),
        };
        Err(Error::invalid("kafka", format!("topic {name} has {have} partitions, {rule}")))
    }
}

/// `None` if there is no such topic. Blocks.
pub(super) fn find(asker: &Asker, name: &str) -> Result<Option<Found>> {
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
    let copies = |p: &MetadataPartition| Copies {
        leader: Some(p.leader()).filter(|id| *id >= 0 && leads(p.error())),
        replicas: p.replicas().to_vec(),
        isr: p.isr().to_vec(),
    };
    let brokers = metadata.brokers().iter().map(|b| (b.id(), format!("{}:{}", b.host(), b.port()))).collect();
    Ok(Some(Found { partitions: topic.partitions().iter().map(copies).collect(), brokers }))
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
    for (i, (name, topic)) in find_all(link, asker, asking).await?.into_iter().enumerate() {
        let topic = topic.ok_or_else(|| missing(link, &name))?;
        topic.check_width(i, &name)?;
        if i == CHANGES {
            partitions = topic.partitions.len() as u16; // at most MAX_PARTITIONS
        }
        found.push((name, topic.replication()));
    }
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    for (topic, ((name, copies), answer)) in found.iter().zip(settings(link, &names).await?).enumerate() {
        let settings = answer.map_err(|code| refused(name, "describe configs", code))?;
        if let Some(first) = deviations(topic, *copies, &settings).first() {
            let how = link.alter(name, first.setting, &first.must);
            return Err(Error::invalid("kafka", format!("topic {name}: {}: {how}", first.what())));
        }
    }
    Ok(Topics::of(link, partitions))
}

/// The topics that are there, as they are: enough to read the log by.
pub(super) async fn survey(link: &Link, asker: &Arc<Asker>, asking: &Worker) -> Result<Topics> {
    let (name, asker) = (names(link)[CHANGES].clone(), asker.clone());
    let (found, name) = asking.ask(move || find(&asker, &name).map(|found| (found, name))).await?;
    let found = found.ok_or_else(|| missing(link, &name))?;
    found.check_width(CHANGES, &name)?;
    Ok(Topics::of(link, found.partitions.len() as u16)) // at most MAX_PARTITIONS
}

fn missing(link: &Link, name: &str) -> Error {
    let repo = link.repo();
    let how = format!("if repository {repo} is yet to be made: tuflog init; else see what `tuflog doctor` says");
    Error::invalid("kafka", format!("topic {name} does not exist; {how}"))
}

/// What the brokers say of the settings of topics, in their order.
pub(super) async fn settings(link: &Link, names: &[&str]) -> Result<Vec<std::result::Result<ConfigResource, Code>>> {
    let admin: AdminClient<Context> = link.create(&link.admin())?;
    let specifiers: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let answers =
        admin.describe_configs(&specifiers, &options()).await.map_err(|e| failed("describe the topics", &e))?;
    // rdkafka shows a refusal as a topic without any setting.
    let shown =
        |answer: ConfigResource| Some(answer).filter(|a| !a.entries.is_empty()).ok_or(Code::TopicAuthorizationFailed);
    Ok(answers.into_iter().map(|answer| answer.and_then(shown)).collect())
}

/// The command that makes an inbox or its rejects anew; `None` of the log itself, whose records nothing brings back.
pub(super) fn create_command(link: &Link, topic: usize, like: (usize, usize, usize)) -> Option<String> {
    let (width, copies, insync) = like;
    let partitions = if TOPICS[topic].1 == Width::One { 1 } else { width };
    let settings = initial(topic).into_iter().map(|(setting, value)| format!(" --config {setting}={value}"));
    let (tool, name) = (link.tool("kafka-topics"), &names(link)[topic]);
    let new = format!("{tool} --create --topic {name} --partitions {partitions} --replication-factor {copies}");
    let insync = format!(" --config min.insync.replicas={insync}");
    matches!(topic, INBOX | REJECTS).then(|| [new].into_iter().chain(settings).chain([insync]).collect())
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
    let insync = min_insync.to_string();
    let mut missing = Vec::new();
    let there = find_all(link, asker, asking).await?;
    for (i, ((name, topic), (_, width))) in there.iter().zip(TOPICS).enumerate() {
        let want = if width == Width::One { 1 } else { partitions };
        match topic {
            Some(topic) if topic.partitions.len() != usize::from(want) && width != Width::Any => {
                let have = topic.partitions.len();
                return Err(Error::invalid("kafka", format!("topic {name} has {have} partitions, must have {want}")));
            }
            Some(_) => {}
            None => {
                let new = NewTopic::new(name, want.into(), TopicReplication::Fixed(replication.into()));
                let new = initial(i).into_iter().fold(new, |new, (setting, value)| new.set(setting, value));
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
    while !find_all(link, asker, asking).await?.iter().all(|(_, topic)| topic.as_ref().is_some_and(Found::is_led)) {
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

pub(super) fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(Duration::from_secs(10))).operation_timeout(Some(Duration::from_secs(10)))
}

fn failed(what: &str, e: &KafkaError) -> Error {
    Error::unavailable(format!("cannot {what}: {}", words(e)))
}

pub(super) fn refused(name: &str, what: &str, code: Code) -> Error {
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
