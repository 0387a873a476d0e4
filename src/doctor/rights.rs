//! What a role needs of Kafka's ACLs, and whether this user has it.
//!
//! [`NEEDS`] is the table of the README; a test holds the one against the other, and another runs nodes that have these
//! rights and no more.

use std::collections::BTreeSet;

use super::kafka::Cluster;
use super::{Area, Finding, Node};
use crate::config::{Role, Roles};
use crate::log::kafka::inspect::{Right, Rights, is_hidden};

const AREA: Area = Area::Rights;

/// What kind of thing a right is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// The topic REPO.`name`.
    Topic(&'static str),
    /// The group REPO.`name`.
    Group(&'static str),
}

use Resource::{Group, Topic};

/// What each role does, beside what all do ([`ALL`]).
pub const NEEDS: [(Role, &[(Resource, Right)]); 4] = [
    (
        Role::Intake,
        &[
            (Topic("changes"), Right::Write),
            (Topic("ledger"), Right::Read),
            (Topic("ledger"), Right::Write),
            (Topic("folds"), Right::Read),
            (Topic("inbox"), Right::Read),
            (Topic("inbox-rejects"), Right::Write),
            (Group("inbox"), Right::Read),
        ],
    ),
    (
        Role::Fold,
        &[
            (Topic("changes"), Right::Read),
            (Topic("ledger"), Right::Read),
            (Topic("folds"), Right::Write),
            (Group("folds"), Right::Read),
        ],
    ),
    (Role::Compact, &[(Topic("ledger"), Right::Read), (Topic("ledger"), Right::Write), (Topic("folds"), Right::Read)]),
    (Role::Http, &[(Topic("ledger"), Right::Read), (Group("inbox"), Right::Describe)]),
];

/// What every role needs of every topic.
pub const ALL: [Right; 2] = [Right::Describe, Right::DescribeConfigs];

/// Everything that some roles need, and the roles that need it.
fn needs(roles: &Roles, topics: &[&'static str]) -> Vec<(Resource, Right, Vec<Role>)> {
    let mut all: BTreeSet<(Resource, Right)> = BTreeSet::new();
    all.extend(topics.iter().flat_map(|topic| ALL.map(|right| (Topic(topic), right))));
    let own = || NEEDS.iter().filter(|(role, _)| roles.has(*role));
    all.extend(own().flat_map(|(_, needs)| needs.iter().copied()));
    let who =
        |need: &(Resource, Right)| own().filter(|(_, needs)| needs.contains(need)).map(|(role, _)| *role).collect();
    all.into_iter().map(|need| (need.0, need.1, who(&need))).collect()
}

/// Compares what this user may do with what the node's roles need.
pub(super) async fn check(node: &Node, cluster: &Cluster, found: &mut Vec<Finding>) {
    let roles = node.settings.roles();
    let inspector = &cluster.inspector;
    let kinds: Vec<&'static str> = cluster.topics.iter().map(|topic| topic.kind).collect();
    let names = cluster.topics.iter().map(|topic| topic.name.clone()).collect();
    let topics = match inspector.rights(names).await {
        Ok(topics) => topics,
        Err(e) => return found.push(Finding::skipped(AREA, "acls", format!("rights cannot be asked for: {e}"))),
    };
    let user = cluster.settings.options.get("sasl.username").map_or("…", String::as_str);
    let (mut had, mut unknown) = (0, BTreeSet::new());
    for needs in needs(&roles, &kinds).chunk_by(|a, b| a.0 == b.0) {
        let (name, thing, rights) = match needs[0].0 {
            Topic(kind) => {
                let name = inspector.group_name(kind); // REPO.kind, as a group's
                let rights = topics.get(&name).cloned().unwrap_or(Rights::Unknown("no answer".into()));
                (name, "topic", rights)
            }
            Group(kind) => {
                let rights = match inspector.group(kind).await {
                    Ok(Some(group)) => {
                        group.rights.map_or(Rights::Unknown("the brokers do not tell".into()), Rights::Are)
                    }
                    Ok(None) => Rights::Unknown("nobody has joined it yet".into()),
                    Err(e) if is_hidden(&e) => Rights::None,
                    Err(e) => Rights::Unknown(e.message),
                };
                (inspector.group_name(kind), "group", rights)
            }
        };
        let rights = match rights {
            Rights::Are(rights) => rights,
            Rights::None => BTreeSet::new(),
            Rights::Unknown(why) => {
                unknown.insert(format!("{thing} {name}: {why}"));
                continue;
            }
        };
        let lacked: Vec<_> = needs.iter().filter(|(_, right, _)| !rights.contains(right)).collect();
        had += needs.len() - lacked.len();
        if lacked.is_empty() {
            continue;
        }
        let names: Vec<&str> = lacked.iter().map(|(_, right, _)| right.name()).collect();
        let by: BTreeSet<&str> = lacked.iter().flat_map(|(_, _, who)| who).map(|role| role.name()).collect();
        let why = match by.is_empty() {
            true => "every role needs that".to_owned(),
            false => format!("role {} needs that", by.into_iter().collect::<Vec<_>>().join(" and role ")),
        };
        let what = format!("user {user} lacks {} on {thing} {name}", names.join(", "));
        let operations: String = names.iter().map(|name| format!(" --operation {name}")).collect();
        let tool = inspector.tool("kafka-acls");
        let fix = format!("{tool} --add --allow-principal User:{user}{operations} --{thing} {name}");
        found.push(Finding::error(AREA, "acls", what).why(why).fix(fix));
    }
    if had > 0 {
        let roles: Vec<&str> = roles.iter().map(|role| role.name()).collect();
        found.push(Finding::ok(AREA, "acls", format!("{had} rights that {} need are there", roles.join(", "))));
    }
    let readers = inspector.group_name("readers");
    if let Err(e) = inspector.group("readers").await
        && is_hidden(&e)
    {
        let tool = inspector.tool("kafka-acls");
        let finding = Finding::warning(AREA, "acls", format!("user {user} lacks Describe on group {readers}"));
        let why = "nobody joins it, but readers name it, and the brokers log a refusal each time";
        let fix = format!("{tool} --add --allow-principal User:{user} --operation Describe --group {readers}");
        found.push(finding.why(why).fix(fix));
    }
    found.extend(unknown.into_iter().map(|what| Finding::skipped(AREA, "acls", format!("rights to {what}"))));
}
