//! The brokers and the topics of a log on Kafka.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::net::TcpStream;

use super::{Area, Finding, Node};
use crate::error::Kind;
use crate::log::kafka::inspect::{BrokerSettings, Inspector, Topic, is_hidden};
use crate::log::kafka::{Copies, KafkaSettings};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How many partitions or brokers are named before the rest is counted.
const NAMED: usize = 8;

/// A cluster that answers.
pub struct Cluster {
    pub settings: KafkaSettings,
    pub inspector: Inspector,
    /// The repository's topics, there or not.
    pub topics: Vec<Topic>,
}

impl Cluster {
    /// The topic `kind`, if it is there: its name and number of partitions.
    pub fn topic(&self, kind: &str) -> Option<(&str, usize)> {
        let topic = self.topics.iter().find(|topic| topic.kind == kind)?;
        Some((&topic.name, topic.partitions.as_ref().ok()?.as_ref()?.len()))
    }
}

/// Looks at brokers and topics; `None` if the log is elsewhere or nobody answers.
pub async fn check(node: &Node, found: &mut Vec<Finding>) -> Option<Cluster> {
    let settings = KafkaSettings::of(&node.settings.kafka).ok().flatten()?;
    let inspector = match Inspector::new(&settings) {
        Ok(inspector) => inspector,
        Err(wrong) => {
            let why = "serve refuses to start with it";
            found.extend(wrong.iter().map(|e| Finding::of(Area::Config, "kafka", e).why(why)));
            found.push(Finding::skipped(Area::Brokers, "reachable", "the settings kafka.* are wrong: see above"));
            return None;
        }
    };
    bootstrap(&settings.brokers, found).await;
    let (topics, brokers) = match inspector.topics().await {
        Ok(seen) => seen,
        Err(e) => {
            let fix = match e.kind {
                Kind::Invalid => "see security.protocol, sasl.* and ssl.* among the settings kafka.*",
                _ => "are the brokers up, and is kafka.brokers right?",
            };
            let why = "nothing can be written or read";
            found.push(Finding::of(Area::Brokers, "reachable", &e).why(why).fix(fix));
            found.push(Finding::skipped(Area::Topics, "exist", "topics, rights and groups: no broker answers"));
            return None;
        }
    };
    self::brokers(&inspector, &brokers, found).await;
    let present: BTreeSet<i32> = brokers.iter().map(|(id, _)| *id).collect();
    for topic in &topics {
        self::topic(&inspector, topic, &present, found);
    }
    Some(Cluster { settings, inspector, topics })
}

/// Whether each address of `kafka.brokers` takes a connection.
async fn bootstrap(brokers: &str, found: &mut Vec<Finding>) {
    let addresses: Vec<&str> = brokers.split(',').map(str::trim).filter(|address| !address.is_empty()).collect();
    let tries = addresses.iter().map(|address| async move {
        // `SSL://HOST:PORT` is an address too.
        let host = address.rsplit_once("://").map_or(*address, |(_, host)| host);
        let host = if host.rsplit_once(':').is_some() { host.to_owned() } else { format!("{host}:9092") };
        match tokio::time::timeout(CONNECT, TcpStream::connect(&host)).await {
            Ok(Ok(_)) => None,
            Ok(Err(e)) => Some(format!("{address}: {e}")),
            Err(_) => Some(format!("{address}: no answer within {} s", CONNECT.as_secs())),
        }
    });
    let failed: Vec<String> = futures::future::join_all(tries).await.into_iter().flatten().collect();
    let all = failed.len() == addresses.len();
    for what in &failed {
        let what = format!("kafka.brokers: {what}");
        let finding = if all { Finding::error } else { Finding::warning }(Area::Brokers, "address", what);
        found.push(
            finding
                .why("a node that starts finds the others through these")
                .fix("start that broker, or correct kafka.brokers"),
        );
    }
    if failed.is_empty() {
        let what = format!("every address of kafka.brokers takes connections ({brokers})");
        found.push(Finding::ok(Area::Brokers, "address", what));
    }
}

/// Whether each broker answers, at the address that it gives, and is set so that we can work.
async fn brokers(inspector: &Inspector, brokers: &[(i32, String)], found: &mut Vec<Finding>) {
    const AREA: Area = Area::Brokers;
    let seen = match inspector.brokers(brokers.to_vec()).await {
        Ok(seen) => seen,
        Err(e) => return found.push(Finding::of(AREA, "answers", &e)),
    };
    let (mut answer, mut hidden) = (Vec::new(), Vec::new());
    for broker in &seen {
        let (id, address) = (broker.id, &broker.address);
        match &broker.settings {
            Ok(settings) => {
                answer.push(id);
                match settings {
                    BrokerSettings::Are(settings) => limits(id, settings, found),
                    BrokerSettings::Hidden => hidden.push(id),
                }
            }
            Err(e) => {
                let what = format!("broker {id} does not answer at {address}, where it says that it is: {e}");
                let fix =
                    format!("is that broker alive, and can this machine reach {address}? See its advertised.listeners");
                let why = "the partitions that it leads can be neither written nor read from here";
                found.push(Finding::error(AREA, "answers", what).why(why).fix(fix));
            }
        }
    }
    if !answer.is_empty() {
        let verb = if answer.len() == 1 { "answers" } else { "answer" };
        found.push(Finding::ok(AREA, "answers", format!("{} {verb}", list_of("broker", &answer))));
    }
    if !hidden.is_empty() {
        let what = format!("the settings of {}: this user may not see them", list_of("broker", &hidden));
        let fix = format!(
            "{} --add --allow-principal User:… --operation DescribeConfigs --cluster",
            inspector.tool("kafka-acls")
        );
        found.push(Finding::skipped(AREA, "settings", what).fix(format!("if they should be checked: {fix}")));
    }
}

/// What a broker admits, against what we need.
fn limits(id: i32, settings: &BTreeMap<String, String>, found: &mut Vec<Finding>) {
    let number = |name: &str| settings.get(name).and_then(|value| value.parse::<u64>().ok());
    let session = Inspector::SESSION_MS;
    let joins = "a node cannot join the groups, so it neither folds nor takes in the inbox";
    let largest = Inspector::LARGEST as u64;
    let rules = [
        ("socket.request.max.bytes", largest + (64 << 10), true, "large batches are cut off and refused"),
        ("group.min.session.timeout.ms", session, false, joins),
        ("group.max.session.timeout.ms", session, true, joins),
    ];
    for (name, bound, is_least, why) in rules {
        let Some(value) = number(name).filter(|value| if is_least { *value < bound } else { *value > bound }) else {
            continue;
        };
        let rule = if is_least { "at least" } else { "at most" };
        let what = format!("broker {id}: {name} is {value}, must be {rule} {bound}");
        let fix = format!("set {name}={bound} in the broker's properties, and restart it");
        found.push(Finding::error(Area::Brokers, "settings", what).why(why).fix(fix));
    }
    if settings.get("auto.create.topics.enable").is_some_and(|value| value == "true") {
        let what = format!("broker {id}: auto.create.topics.enable is true");
        let why = "a producer that misspells the inbox makes a topic that nobody reads";
        let alter = "set auto.create.topics.enable=false in the broker's properties";
        found.push(Finding::warning(Area::Brokers, "settings", what).why(why).fix(alter));
    }
}

/// One topic: there, led, copied, set as it must be.
fn topic(inspector: &Inspector, topic: &Topic, present: &BTreeSet<i32>, found: &mut Vec<Finding>) {
    const AREA: Area = Area::Topics;
    let (name, before) = (&topic.name, found.len());
    let partitions = match &topic.partitions {
        Ok(Some(partitions)) => partitions,
        Ok(None) => {
            let finding = Finding::error(AREA, "exists", format!("{name} does not exist"));
            let why = match topic.kind {
                "inbox" => {
                    "serve refuses to start without it; one made anew needs inbox_generation one higher on every intake"
                }
                _ => "serve refuses to start without it",
            };
            return found.push(finding.why(why).fix(match &topic.create {
                Some(create) => create.clone(),
                None => "if the repository is yet to be made: tuflog init. Else its records are gone, and a topic that is \
                         made anew does not bring them back: ask who deleted it, and restore it from a copy"
                    .into(),
            }));
        }
        // What a user may not do stands under the rights.
        Err(e) if is_hidden(e) => {
            return found.push(Finding::skipped(AREA, "exists", format!("{name}: this user may not see it")));
        }
        Err(e) => return found.push(Finding::of(AREA, "exists", e)),
    };
    if let Err(e) = &topic.width {
        let fix = "make the repository's topics with tuflog init, not by hand";
        found.push(Finding::error(AREA, "partitions", e.message.clone()).fix(fix));
    }
    copies(name, partitions, present, topic.min_insync, found);
    match &topic.deviations {
        Ok(deviations) => {
            for deviation in deviations {
                let fix = inspector.alter(name, deviation.setting, &deviation.must);
                found.push(
                    Finding::error(AREA, "settings", format!("{name}: {}", deviation.what()))
                        .why(deviation.why)
                        .fix(fix),
                );
            }
        }
        Err(e) if is_hidden(e) => {
            found.push(Finding::skipped(AREA, "settings", format!("{name}: this user may not see its settings")));
        }
        Err(e) => found.push(Finding::of(AREA, "settings", e)),
    }
    if let Some(insync) = topic.min_insync {
        self::insync(inspector, name, partitions, insync, found);
    }
    // Copies have a word of their own.
    if topic.deviations.as_ref().is_ok_and(Vec::is_empty) && topic.width.is_ok() {
        let what = format!("{name}: {}, set as it must be", some(partitions.len(), "partition"));
        found.push(Finding::ok(AREA, "settings", what));
    }
    let copies = partitions.iter().map(|p| p.replicas.len()).min().unwrap_or(0);
    if found[before..].iter().all(|f| f.check == "settings") && copies > 0 {
        let what = format!("{name}: every partition has its leader and {copies} whole copies");
        found.push(Finding::ok(AREA, "copies", what));
    }
}

/// Leaders and copies of the partitions.
fn copies(name: &str, partitions: &[Copies], present: &BTreeSet<i32>, insync: Option<usize>, found: &mut Vec<Finding>) {
    const AREA: Area = Area::Topics;
    let those = |wanted: &dyn Fn(&Copies) -> bool| -> Vec<i32> {
        (0..).zip(partitions).filter(|(_, p)| wanted(p)).map(|(i, _)| i).collect()
    };
    let gone: Vec<i32> = {
        let replicas: BTreeSet<i32> = partitions.iter().flat_map(|p| p.replicas.iter().copied()).collect();
        replicas.difference(present).copied().collect()
    };
    let away = if gone.is_empty() { String::new() } else { format!("; {} not there", are(&gone)) };
    let start = match gone.is_empty() {
        true => "see the brokers' logs: a copy that lags has a slow disk or network".to_owned(),
        false => format!("start {}", list_of("broker", &gone)),
    };
    let least = insync.unwrap_or(1);
    let leaderless = those(&|p| p.leader.is_none());
    let starved = those(&|p| p.leader.is_some() && p.isr.len() < least);
    let lagging = those(&|p| p.leader.is_some() && p.isr.len() >= least && p.isr.len() < p.replicas.len());
    if !leaderless.is_empty() {
        let what = format!("{name}: {} without a leader{away}", list_of("partition", &leaderless));
        found
            .push(Finding::error(AREA, "leaders", what).why("they can be neither written nor read").fix(start.clone()));
    }
    if !starved.is_empty() {
        let what = format!(
            "{name}: {} with fewer whole copies than min.insync.replicas, {least}{away}",
            list_of("partition", &starved)
        );
        found.push(
            Finding::error(AREA, "copies", what)
                .why("they cannot be written until a copy is whole again")
                .fix(start.clone()),
        );
    }
    if !lagging.is_empty() {
        let what = format!("{name}: {} under-replicated{away}", list_of("partition", &lagging));
        let why = "what is written now has fewer copies than it should";
        found.push(Finding::warning(AREA, "copies", what).why(why).fix(start));
    }
    let single = those(&|p| p.replicas.len() == 1);
    if !single.is_empty() {
        let what = match single.len() == partitions.len() {
            true => format!("{name}: replication factor 1"),
            false => format!("{name}: {} in one copy", list_of("partition", &single)),
        };
        let why = "the loss of one broker's disk loses its records: those of changes and ledger are the repository";
        let fix = "give it three copies: kafka-reassign-partitions, on a cluster of three brokers or more";
        found.push(Finding::warning(AREA, "replication", what).why(why).fix(fix));
    }
}

/// `min.insync.replicas` against the number of copies; that it is two is one of the topics' rules.
fn insync(inspector: &Inspector, name: &str, partitions: &[Copies], insync: usize, found: &mut Vec<Finding>) {
    const AREA: Area = Area::Topics;
    let copies = partitions.iter().map(|p| p.replicas.len()).min().unwrap_or(0);
    let what = format!("{name}: min.insync.replicas is {insync}, of {copies} copies");
    if insync > copies {
        let fix = inspector.alter(name, "min.insync.replicas", &copies.min(2).to_string());
        found.push(Finding::error(AREA, "min-insync", what).why("nothing can be written").fix(fix));
    } else if insync == copies && copies > 1 {
        let why = "one broker that is down, for an upgrade too, stops all writes";
        let fix = "give it one copy more than min.insync.replicas: kafka-reassign-partitions";
        found.push(Finding::warning(AREA, "min-insync", what).why(why).fix(fix));
    }
}

/// `1 broker`, `3 brokers`.
pub fn some(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// `1, 2, 5`, not more than some.
pub fn list(numbers: &[i32]) -> String {
    let named: Vec<String> = numbers.iter().take(NAMED).map(i32::to_string).collect();
    let rest = numbers.len().saturating_sub(NAMED);
    if rest == 0 { named.join(", ") } else { format!("{} and {rest} more", named.join(", ")) }
}

/// `partition 3`, `partitions 1, 2`.
pub fn list_of(thing: &str, numbers: &[i32]) -> String {
    format!("{thing}{} {}", if numbers.len() == 1 { "" } else { "s" }, list(numbers))
}

fn are(brokers: &[i32]) -> String {
    format!("{} {}", list_of("broker", brokers), if brokers.len() == 1 { "is" } else { "are" })
}
