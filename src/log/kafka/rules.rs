//! What the settings of a repository's topics must be: the one table that `init` creates by, an open checks, and the
//! doctor explains.

use rdkafka::admin::ConfigResource;

use super::link::MAX_MESSAGE_BYTES;
use super::topics::{INBOX, REJECTS};

/// The largest record that a new inbox takes; the operator may alter it.
const MAX_INBOX_BYTES: &str = "8388608";

/// [`MAX_MESSAGE_BYTES`], written out.
const MAX_BYTES: &str = "2101248";
const _: () = assert!(MAX_MESSAGE_BYTES == 2_101_248);

/// What a topic's setting must be, and what it is good for.
struct Rule {
    setting: &'static str,
    must: Must,
    why: &'static str,
}

enum Must {
    Be(&'static str),
    BeAtLeast(i64),
}

const fn be(setting: &'static str, value: &'static str, why: &'static str) -> Rule {
    Rule { setting, must: Must::Be(value), why }
}

const fn at_least(setting: &'static str, least: i64, why: &'static str) -> Rule {
    Rule { setting, must: Must::BeAtLeast(least), why }
}

const CLEAN: &str = "an unclean leader lacks records that were acknowledged: they would be lost";

/// The rules of the log itself.
const RULES: [Rule; 7] = [
    be("cleanup.policy", "delete", "compaction removes records, and everything follows from all of them"),
    be("retention.ms", "-1", "older records are deleted, and everything follows from all of them"),
    be("retention.bytes", "-1", "the oldest records are deleted, and everything follows from all of them"),
    be("unclean.leader.election.enable", "false", CLEAN),
    at_least("max.message.bytes", MAX_MESSAGE_BYTES as i64, "larger records are refused, and batches with them"),
    be("message.timestamp.type", "LogAppendTime", "a record's time must be the brokers', for clocks are judged by it"),
    be("compression.type", "producer", "a broker that packs again could use a codec that readers do not have"),
];

/// The rules of the inbox and its rejects: how long they keep what is the operator's choice.
const INBOX_RULES: [Rule; 3] = [
    be("cleanup.policy", "delete", "compaction removes batches that were not taken in yet"),
    be("unclean.leader.election.enable", "false", CLEAN),
    be(
        "compression.type",
        "lz4",
        "producers pack with what they like; brokers must pack again, so that intakes can read it",
    ),
];

/// A topic with copies must write two of them before it answers.
const INSYNC: Rule =
    at_least("min.insync.replicas", 2, "a record that only one broker has is lost with that broker's disk");

/// The rules of one of the topics.
fn rules(topic: usize) -> &'static [Rule] {
    match topic {
        INBOX | REJECTS => &INBOX_RULES,
        _ => &RULES,
    }
}

/// A setting that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deviation {
    /// Its name.
    pub setting: &'static str,
    /// What it is.
    pub is: String,
    /// A value that it may have.
    pub must: String,
    /// True if `must` is the least, and more is good too.
    pub or_more: bool,
    /// What comes of it.
    pub why: &'static str,
}

impl Deviation {
    /// What it is and what it must be.
    pub fn what(&self) -> String {
        let or_more = if self.or_more { " or more" } else { "" };
        format!("{} is {:?}, must be {}{or_more}", self.setting, self.is, self.must)
    }
}

/// What one of the topics, in `copies` copies, has otherwise than it must.
pub(super) fn deviations(topic: usize, copies: usize, settings: &ConfigResource) -> Vec<Deviation> {
    let rules = rules(topic).iter().chain((copies > 1).then_some(&INSYNC));
    let deviation = |rule: &Rule| {
        let is = settings.get(rule.setting).and_then(|entry| entry.value.clone()).unwrap_or_default();
        let (good, must, or_more) = match rule.must {
            Must::Be(must) => (is == must, must.to_owned(), false),
            Must::BeAtLeast(least) => (is.parse().is_ok_and(|v: i64| v >= least), least.to_string(), true),
        };
        (!good).then_some(Deviation { setting: rule.setting, is, must, or_more, why: rule.why })
    };
    rules.filter_map(deviation).collect()
}

/// What one of the topics is created with, beside its copies.
pub(super) fn initial(topic: usize) -> Vec<(&'static str, &'static str)> {
    let ruled = rules(topic).iter().filter_map(|rule| match rule.must {
        Must::Be(must) => Some((rule.setting, must)),
        Must::BeAtLeast(_) => None,
    });
    let chosen: &[_] = match topic {
        INBOX => &[("retention.ms", "-1"), ("max.message.bytes", MAX_INBOX_BYTES)],
        REJECTS => &[("retention.ms", "-1")],
        _ => &[("max.message.bytes", MAX_BYTES)],
    };
    ruled.chain(chosen.iter().copied()).collect()
}
