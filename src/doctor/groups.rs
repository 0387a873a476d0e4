//! The consumer groups: who folds, who takes in the inbox, and what waits for them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use super::kafka::{Cluster, list_of, some};
use super::log::Seen;
use super::{Area, Finding, Node};
use crate::clock::Clock;
use crate::config::Role;
use crate::data_dir;
use crate::error::Result;
use crate::log::kafka::inspect::{Group, GroupState, Inspector, Member, is_hidden};
use crate::log::{Offset, Partition};
use crate::pool::Pool;
use crate::query::Query;

const AREA: Area = Area::Groups;

/// How long something may wait for its owner before that is worth a word, in seconds.
const PATIENT_S: u64 = 60;
/// How long after a checkpoint its offsets may be on their way to the group.
const TOLD: Duration = Duration::from_secs(2);
/// How members share partitions out. One who does otherwise is a stranger.
const ASSIGNOR: &str = "cooperative-sticky";

/// What a group works on.
struct Work {
    /// The end of the group's name.
    kind: &'static str,
    /// The end of the topic's name.
    topic: &'static str,
    role: Role,
    place: fn(u16) -> Partition,
    /// What a member does.
    does: &'static str,
}

const WORK: [Work; 2] = [
    Work { kind: "folds", topic: "changes", role: Role::Fold, place: Partition::Changes, does: "folds" },
    Work { kind: "inbox", topic: "inbox", role: Role::Intake, place: Partition::Inbox, does: "takes in" },
];

/// Looks at both groups.
pub async fn check(node: &Node, cluster: &Cluster, log: &Seen, clock: &dyn Clock, found: &mut Vec<Finding>) {
    for work in &WORK {
        let name = cluster.inspector.group_name(work.kind);
        let Some((topic, partitions)) = cluster.topic(work.topic) else {
            found.push(Finding::skipped(
                AREA,
                "members",
                format!("{name}: its topic is not there, or this user may not see it"),
            ));
            continue;
        };
        let group = match settled(node, cluster, work).await {
            Ok(group) => group,
            Err(e) => {
                let what = match is_hidden(&e) {
                    true => format!("{name}: this user may not see it, and its roles need not"),
                    false => format!("{name}: {e}"),
                };
                // Who must join it is told so among the rights.
                found.push(Finding::skipped(AREA, "members", what));
                continue;
            }
        };
        let before = found.len();
        let owned = members(node, work, &name, topic, partitions, group.as_ref(), found);
        let waiting = match waiting(cluster, work, topic, log).await {
            Ok(waiting) => waiting,
            Err(e) => {
                found.push(Finding::skipped(AREA, "lag", format!("{name}: {e}")));
                continue;
            }
        };
        lag(work, &name, &owned, &waiting, log, clock, found).await;
        if work.kind == "folds" {
            behind(cluster, &name, topic, &owned, &waiting, found).await;
        }
        if found.len() == before {
            let (members, waits) = (group.map_or(0, |g| g.members.len()), total(&waiting));
            let what = match members {
                0 => format!("{name}: nobody is in it, and nothing waits"),
                n => {
                    format!("{name}: {} for {}, {}", some(n, "member"), some(partitions, "partition"), waits_for(waits))
                }
            };
            found.push(Finding::ok(AREA, "members", what));
        }
    }
}

/// The group. A node that has stopped stays in it until its session ends; that long it is waited for.
async fn settled(node: &Node, cluster: &Cluster, work: &Work) -> Result<Option<Group>> {
    let own = own_name(node);
    let mut left = Inspector::SESSION_MS / 1_000 + 2;
    loop {
        let group = cluster.inspector.group(work.kind).await?;
        let lingers =
            !node.in_use && own.as_ref().is_some_and(|own| group.as_ref().is_some_and(|g| has(&g.members, own)));
        if !lingers || left == 0 {
            return Ok(group);
        }
        left -= 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// This node's name among others, if it has one yet.
fn own_name(node: &Node) -> Option<String> {
    node.settings.kafka.member.clone().or_else(|| data_dir::member(&node.data))
}

fn has(members: &[Member], name: &str) -> bool {
    members.iter().any(|member| member.name.as_deref() == Some(name))
}

fn waits_for(records: u64) -> String {
    if records == 0 { "nothing waits".into() } else { format!("{} wait a moment", some(records as usize, "record")) }
}

fn total(waiting: &BTreeMap<i32, Range<Offset>>) -> u64 {
    waiting.values().map(|range| range.end.saturating_sub(range.start)).sum()
}

/// Who is in the group; answers the partitions that have an owner.
fn members(
    node: &Node,
    work: &Work,
    name: &str,
    topic: &str,
    partitions: usize,
    group: Option<&Group>,
    found: &mut Vec<Finding>,
) -> BTreeSet<i32> {
    let none = Vec::new();
    let members: &Vec<Member> = group.map_or(&none, |group| &group.members);
    let own = own_name(node);
    let in_it = own.as_ref().is_some_and(|own| has(members, own));
    let mine = node.settings.roles().has(work.role);
    if let (Some(own), true, false) = (&own, in_it, node.in_use) {
        let host = members.iter().find(|m| m.name.as_ref() == Some(own)).map_or("?", |m| m.host.as_str());
        let what = format!(
            "{name}: {own}, this node's name, is in it, from {host}, though no node runs on {}",
            node.data.display()
        );
        let why = "two processes of one name put each other out";
        let fix = "give each its own kafka.member, or its own DIR/member";
        found.push(Finding::error(AREA, "names", what).why(why).fix(fix));
    }
    if let (Some(own), false, true, true) = (&own, in_it, node.in_use, mine) {
        let what = format!("{name}: the node that runs here, {own}, is not in it");
        let why = format!("it {} nothing", work.does);
        found
            .push(Finding::warning(AREA, "members", what).why(why).fix("see its log; right after a start, look again"));
    }
    let Some(group) = group.filter(|group| group.state != GroupState::Empty) else { return BTreeSet::new() };
    if group.state == GroupState::Rebalancing {
        let what = format!("{name}: its partitions are being shared out anew");
        let fix =
            "look again in some seconds; if it never ends, a member joins and leaves all the time: see their logs";
        found.push(Finding::warning(AREA, "members", what).fix(fix));
        // Nobody's partitions are known meanwhile.
        return (0..partitions as i32).collect();
    }
    if group.assignor != ASSIGNOR {
        let what = format!("{name}: partitions are shared out by {:?}, not {ASSIGNOR}", group.assignor);
        found.push(stranger(what, name));
    }
    let strangers: Vec<&str> = members.iter().filter(|m| m.name.is_none()).map(|m| m.client.as_str()).collect();
    if !strangers.is_empty() {
        let what =
            format!("{name}: {} without a lasting name ({})", some(strangers.len(), "member"), strangers.join(", "));
        found.push(stranger(what, name));
    }
    members.iter().flat_map(|m| m.partitions.iter()).filter(|(of, _)| of == topic).map(|(_, p)| *p).collect()
}

fn stranger(what: String, name: &str) -> Finding {
    let why = "a program that is no tuflog node holds partitions, for which nothing is done then";
    Finding::error(AREA, "strangers", what)
        .why(why)
        .fix(format!("stop that program, or give it another group than {name}"))
}

/// What is not done yet, by partition.
async fn waiting(cluster: &Cluster, work: &Work, topic: &str, log: &Seen) -> Result<BTreeMap<i32, Range<Offset>>> {
    if work.kind == "folds"
        && let Some((log, store)) = log.parts.clone().filter(|_| log.end.is_some())
    {
        let (_, partitions) = Query::new(log, store, Pool::Inline).fold_lag().await?;
        return Ok(partitions.iter().map(|p| (p.partition.into(), p.published..p.end)).collect());
    }
    let taken = cluster.inspector.taken_in(work.kind, topic).await?;
    Ok(taken.into_iter().map(|t| (t.partition.into(), t.decided..t.end)).collect())
}

/// What waits for nobody, or for too long.
async fn lag(
    work: &Work,
    name: &str,
    owned: &BTreeSet<i32>,
    waiting: &BTreeMap<i32, Range<Offset>>,
    log: &Seen,
    clock: &dyn Clock,
    found: &mut Vec<Finding>,
) {
    let (mut alone, mut records, mut longest) = (Vec::new(), 0, None::<(u64, i32)>);
    for (p, range) in waiting.iter().filter(|(_, range)| !range.is_empty()) {
        if !owned.contains(p) {
            alone.push(*p);
            records += range.end.saturating_sub(range.start);
        } else if let (Some((log, _)), Ok(partition)) = (&log.parts, u16::try_from(*p))
            && let Ok(Some(oldest)) = log.fetch((work.place)(partition), range.start).await
        {
            let age = clock.now().saturating_sub(oldest.time());
            longest = longest.max(Some((age, *p)));
        }
    }
    if !alone.is_empty() {
        let what =
            format!("{name}: {} in {} for which there is no member", waits(records), list_of("partition", &alone));
        let why = format!("nobody {} them, so they are not published", work.does);
        let fix = format!("start a node with role {}", work.role.name());
        found.push(Finding::warning(AREA, "lag", what).why(why).fix(fix));
    }
    if let Some((age, p)) = longest.filter(|(age, _)| *age > PATIENT_S) {
        let what = format!("{name}: a record of partition {p} has waited for {age} s");
        let why = "its owner does not get on, or a segment that no commit names lies last in it (harmless)";
        found.push(
            Finding::warning(AREA, "lag", what)
                .why(why)
                .fix("see /readyz and the log of its owner: it names what it waits for"),
        );
    }
}

fn waits(records: u64) -> String {
    format!("{} {}", some(records as usize, "record"), if records == 1 { "waits" } else { "wait" })
}

/// Whether the group's offsets are those of the newest checkpoint, as its members tell them.
async fn behind(
    cluster: &Cluster,
    name: &str,
    topic: &str,
    owned: &BTreeSet<i32>,
    waiting: &BTreeMap<i32, Range<Offset>>,
    found: &mut Vec<Finding>,
) {
    let ask = async || {
        let committed = cluster.inspector.committed("folds", topic, waiting.len()).await.ok()?;
        let is_behind = |(p, range): &(&i32, &Range<Offset>)| {
            owned.contains(p) && range.start > 0 && committed.get(p).is_none_or(|at| *at < range.start)
        };
        Some(waiting.iter().filter(is_behind).map(|(p, _)| *p).collect::<Vec<i32>>())
    };
    let Some(mut late) = ask().await else { return };
    if !late.is_empty() {
        tokio::time::sleep(TOLD).await; // a checkpoint may be of this moment
        late = ask().await.unwrap_or_default();
    }
    if !late.is_empty() {
        let what = format!("{name}: offsets of {} are behind the newest checkpoint", list_of("partition", &late));
        let why = "Kafka's own tools show more lag than there is; what is published is not concerned";
        found.push(Finding::warning(AREA, "offsets", what).why(why).fix("see the log of their owner"));
    }
}
