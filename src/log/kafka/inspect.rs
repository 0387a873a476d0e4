//! Looking at a repository's Kafka without opening its log: what is there, how it is set, who may do what, who is in
//! the groups. Nothing is created, altered, joined or committed.
//!
//! It owns no judgement but that of the topics' settings, which is [`super::rules`]'s; [`crate::doctor`] says what is
//! good.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rdkafka::admin::{AdminClient, ConfigResource, ResourceSpecifier};
use rdkafka::error::RDKafkaErrorCode as Code;

use super::group::group_id;
use super::link::{Asker, Context, Link, MAX_MESSAGE_BYTES, committed, refused_options, words};
use super::rules::{self, Deviation};
use super::topics::{self, Copies, Found};
use super::worker::Worker;
use super::{KafkaSettings, PATIENCE, describe};
use crate::bins::PartitionId;
use crate::error::{Error, Kind, Result};
use crate::log::{Offset, TakenIn};

/// What a user may be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Reads records; of a group, joins it.
    Read,
    /// Appends records.
    Write,
    /// Sees that it is there.
    Describe,
    /// Sees its settings.
    DescribeConfigs,
}

impl Right {
    /// All of them.
    pub const ALL: [Right; 4] = [Right::Read, Right::Write, Right::Describe, Right::DescribeConfigs];

    /// As Kafka's tools call it.
    pub fn name(self) -> &'static str {
        match self {
            Right::Read => "Read",
            Right::Write => "Write",
            Right::Describe => "Describe",
            Right::DescribeConfigs => "DescribeConfigs",
        }
    }
}

/// What is known of the rights to something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// These, and no others.
    Are(BTreeSet<Right>),
    /// Not even to see it.
    None,
    /// The brokers do not say, for this reason.
    Unknown(String),
}

/// A topic, as the brokers have it.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its whole name.
    pub name: String,
    /// Which one of a repository's: `changes`, `ledger` and so on.
    pub kind: &'static str,
    /// Its partitions; `None` if it does not exist, an error if it cannot be seen.
    pub partitions: Result<Option<Vec<Copies>>>,
    /// What is wrong with the number of partitions.
    pub width: Result<()>,
    /// What is set otherwise than it must be; an error if it cannot be seen.
    pub deviations: Result<Vec<Deviation>>,
    /// Its `min.insync.replicas`.
    pub min_insync: Option<usize>,
    /// If it does not exist and others do: the command that makes it, unless it held what cannot be made again.
    pub create: Option<String>,
}

/// A broker of the cluster.
#[derive(Clone, Debug)]
pub struct Broker {
    /// Its number.
    pub id: i32,
    /// Where it says that clients reach it.
    pub address: String,
    /// Its settings, of those that matter; an error if it does not answer.
    pub settings: Result<BrokerSettings>,
}

/// What a broker tells of itself.
#[derive(Clone, Debug)]
pub enum BrokerSettings {
    /// Name and value.
    Are(BTreeMap<String, String>),
    /// It answers, and this user may not see them.
    Hidden,
}

/// How a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// Its partitions are shared out.
    Stable,
    /// Nobody is in it.
    Empty,
    /// Its partitions are being shared out.
    Rebalancing,
}

/// A group, as its coordinator sees it.
#[derive(Clone, Debug)]
pub struct Group {
    /// How it stands.
    pub state: GroupState,
    /// How its partitions are shared out; empty while nobody is in it.
    pub assignor: String,
    /// Who is in it.
    pub members: Vec<Member>,
    /// What this user may do with it.
    pub rights: Option<BTreeSet<Right>>,
}

/// A member of a group.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its lasting name (`group.instance.id`), if it has one.
    pub name: Option<String>,
    /// What program it says it is.
    pub client: String,
    /// Where it connects from.
    pub host: String,
    /// Topic and partition of everything that is its own.
    pub partitions: BTreeSet<(String, i32)>,
}

/// See the module.
pub struct Inspector {
    link: Link,
    asker: Arc<Asker>,
    asking: Worker,
    dropping: Worker,
}

impl Inspector {
    /// The largest batch of records that is ever sent, in bytes.
    pub const LARGEST: usize = MAX_MESSAGE_BYTES;
    /// How long a group believes in a member that it does not hear of, in milliseconds.
    pub const SESSION_MS: u64 = 6_000;

    /// Connects to nothing yet.
    ///
    /// # Errors
    /// Everything in the settings that is wrong.
    pub fn new(settings: &KafkaSettings) -> std::result::Result<Inspector, Vec<Error>> {
        let made = |settings: &KafkaSettings| -> Result<Inspector> {
            let (link, asking, dropping) = super::start(settings)?;
            link.try_options()?;
            let asker = Arc::new(link.asker(None)?);
            Ok(Inspector { link, asker, asking, dropping })
        };
        let (mut wrong, mut rest) = (refused_options(settings), settings.clone());
        loop {
            // What is known to be wrong is left out, so that the rest is tried too.
            let named =
                |name: &String, e: &Error| e.field.as_ref().and_then(|f| f.strip_prefix("kafka.")) == Some(name);
            rest.options.retain(|name, _| !wrong.iter().any(|e| named(name, e)));
            match made(&rest) {
                Ok(inspector) if wrong.is_empty() => return Ok(inspector),
                Ok(_) => return Err(wrong),
                Err(e) => {
                    let is_option = rest.options.keys().any(|name| named(name, &e));
                    wrong.push(e);
                    if !is_option {
                        return Err(wrong);
                    }
                }
            }
        }
    }

    /// How one of Kafka's own tools is called.
    pub fn tool(&self, name: &str) -> String {
        self.link.tool(name)
    }

    /// The command that alters a topic's setting.
    pub fn alter(&self, topic: &str, setting: &str, value: &str) -> String {
        self.link.alter(topic, setting, value)
    }

    /// The topics of the repository, and the brokers that are there.
    ///
    /// # Errors
    /// `Unavailable` if no broker answers, `Invalid` if none takes us as we are.
    pub async fn topics(&self) -> Result<(Vec<Topic>, Vec<(i32, String)>)> {
        let (names, asker) = (topics::names(&self.link), self.asker.clone());
        let first = names[0].clone();
        let asked = self.asking.ask(move || {
            asker.topic(&first)?; // whether anybody answers
            Ok(names.map(|name| (topics::find(&asker, &name), name)))
        });
        let (mut brokers, mut found) = (Vec::new(), Vec::new());
        for (i, (partitions, name)) in asked.await?.into_iter().enumerate() {
            if let Ok(Some(topic)) = &partitions {
                brokers.clone_from(&topic.brokers);
            }
            found.push((i, name, partitions));
        }
        let there = |partitions: &Result<Option<Found>>| matches!(partitions, Ok(Some(_)));
        let seen: Vec<&str> = found.iter().filter(|(_, _, p)| there(p)).map(|(_, name, _)| name.as_str()).collect();
        let mut settings = topics::settings(&self.link, &seen).await.map(Vec::into_iter);
        let mut all = Vec::new();
        for (i, name, partitions) in &found {
            let (mut deviations, mut min_insync) = (Ok(Vec::new()), None);
            if let Ok(Some(topic)) = partitions {
                deviations = match &mut settings {
                    Ok(settings) => match settings.next() {
                        Some(Ok(settings)) => {
                            min_insync = value(&settings, "min.insync.replicas").and_then(|v| v.parse().ok());
                            Ok(rules::deviations(*i, topic.replication(), &settings))
                        }
                        Some(Err(code)) => Err(topics::refused(name, "describe configs", code)),
                        None => Err(Error::unavailable(format!("topic {name}: no answer"))),
                    },
                    Err(e) => Err(e.clone()),
                };
            }
            all.push(Topic {
                name: name.clone(),
                kind: topics::kind(*i),
                width: partitions.as_ref().map_or(Ok(()), |t| t.as_ref().map_or(Ok(()), |t| t.check_width(*i, name))),
                partitions: partitions.clone().map(|topic| topic.map(|topic| topic.partitions)),
                deviations,
                min_insync,
                create: None,
            });
        }
        let like = |kind: &str| {
            let topic: &Topic = all.iter().find(|topic| topic.kind == kind)?;
            let partitions = topic.partitions.as_ref().ok()?.as_ref()?;
            let copies = partitions.iter().map(|p| p.replicas.len()).min()?;
            Some((partitions.len(), copies, topic.min_insync.unwrap_or(1)))
        };
        if let (Some((width, ..)), Some((_, copies, insync))) = (like("changes"), like("ledger")) {
            for (i, topic) in all.iter_mut().enumerate().filter(|(_, topic)| matches!(topic.partitions, Ok(None))) {
                topic.create = topics::create_command(&self.link, i, (width, copies, insync));
            }
        }
        Ok((all, brokers))
    }

    /// Asks every one of these brokers itself.
    pub async fn brokers(&self, brokers: Vec<(i32, String)>) -> Result<Vec<Broker>> {
        let admin: AdminClient<Context> = self.link.create(&self.link.admin())?;
        let options = topics::options().request_timeout(Some(PATIENCE));
        let ask = async |(id, address)| {
            let answer = admin.describe_configs(&[ResourceSpecifier::Broker(id)], &options).await;
            let settings = match answer.map(|answers| answers.into_iter().next()) {
                Ok(Some(Ok(settings))) if settings.entries.is_empty() => Ok(BrokerSettings::Hidden), // see `settings`
                Ok(Some(Ok(settings))) => {
                    let all = settings.entries.iter().map(|e| (e.name.clone(), e.value.clone().unwrap_or_default()));
                    Ok(BrokerSettings::Are(all.collect()))
                }
                Ok(Some(Err(Code::ClusterAuthorizationFailed))) => Ok(BrokerSettings::Hidden),
                Ok(Some(Err(code))) => Err(Error::unavailable(code.to_string())),
                Ok(None) => Err(Error::unavailable("no answer")),
                Err(e) => Err(Error::unavailable(words(&e))),
            };
            Broker { id, address, settings }
        };
        // All at once: each that is away takes its time.
        let all = futures::future::join_all(brokers.into_iter().map(ask)).await;
        self.dropping.run(move || drop(admin));
        Ok(all)
    }

    /// What this user may do with each of these topics.
    pub async fn rights(&self, topics: Vec<String>) -> Result<BTreeMap<String, Rights>> {
        let asker = self.asker.clone();
        let answers = self.asking.ask(move || describe::topic_rights(asker.client(), &topics)).await?;
        let rights = |answer| match answer {
            Ok(Some(rights)) => Rights::Are(rights),
            Ok(None) => Rights::Unknown("the brokers do not tell".into()),
            Err(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => Rights::None,
            Err(code) => Rights::Unknown(code.to_string()),
        };
        Ok(answers.into_iter().map(|(name, answer)| (name, rights(answer))).collect())
    }

    /// The group REPO.`kind`; `None` if there never was one.
    ///
    /// # Errors
    /// `Invalid` if this user may not see it.
    pub async fn group(&self, kind: &str) -> Result<Option<Group>> {
        let (asker, name) = (self.asker.clone(), self.group_name(kind));
        self.asking.ask(move || asker.group(&name)).await
    }

    /// The whole name of a group.
    pub fn group_name(&self, kind: &str) -> String {
        group_id(&self.link, kind)
    }

    /// What the group has committed of the partitions of a topic; those of which it has committed nothing are not there.
    pub async fn committed(&self, kind: &str, topic: &str, partitions: usize) -> Result<BTreeMap<i32, Offset>> {
        let (onlooker, topic) = (self.link.asker(Some(&self.group_name(kind)))?, topic.to_owned());
        let partitions: Vec<PartitionId> = (0..PartitionId::MAX).take(partitions).collect();
        let ask = move || committed(onlooker.client(), &topic, &partitions, PATIENCE);
        let known = self.asking.ask(ask).await?;
        Ok(known.into_iter().map(|(partition, at)| (partition.into(), at)).collect())
    }

    /// How far the group is with each partition of a topic.
    pub async fn taken_in(&self, kind: &str, topic: &str) -> Result<Vec<TakenIn>> {
        let (onlooker, topic) = (self.link.asker(Some(&self.group_name(kind)))?, topic.to_owned());
        self.asking.ask(move || onlooker.taken_in(&topic, PATIENCE)).await
    }
}

impl Drop for Inspector {
    fn drop(&mut self) {
        let asker = self.asker.clone();
        self.dropping.run(move || drop(asker)); // takes its time
    }
}

/// Whether this error says that the user is not allowed to see it.
pub fn is_hidden(e: &Error) -> bool {
    e.kind == Kind::Invalid
}

fn value(settings: &ConfigResource, name: &str) -> Option<String> {
    settings.get(name).and_then(|entry| entry.value.clone())
}
