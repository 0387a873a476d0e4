//! `tuflog doctor` on real Kafka: topics, brokers, rights and groups, with a fault planted in each.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use tempfile::TempDir;
use tuflog::config::Role;
use tuflog::doctor::rights::{ALL, NEEDS, Resource};
use tuflog::doctor::{Report, Severity};
use tuflog::log::kafka::KafkaSettings;

use crate::doctor::{add, doctor, find, put_away, unwell};
use crate::help::{self, PATIENCE};
use crate::kafka::{self, Cluster, kcat, tool};
use crate::rights;
use crate::server::{self, Server};

/// A repository on Kafka, with a store that its processes share.
struct Repository<'a> {
    cluster: &'a Cluster,
    settings: KafkaSettings,
    dir: TempDir,
}

impl Repository<'_> {
    fn new(cluster: &Cluster, copies: u16) -> Repository<'_> {
        let repository = Repository { cluster, settings: cluster.fresh(), dir: help::scratch() };
        let (copies, insync) = (copies.to_string(), copies.min(2).to_string());
        let KafkaSettings { brokers, repo, .. } = &repository.settings;
        let layout =
            ["--kafka-replication", &copies, "--kafka-min-insync", &insync, "--bins", "4", "--partitions", "2"];
        server::init(
            &repository.path("first"),
            &[&["--kafka-brokers", brokers, "--kafka-repo", repo], &layout[..]].concat(),
        );
        put_away(&repository.path("first"));
        std::fs::create_dir(repository.path("store")).unwrap();
        repository
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn topic(&self, kind: &str) -> String {
        format!("{}.{kind}", self.settings.repo)
    }

    /// The options that a process with the data directory `name` is given.
    fn options(&self) -> Vec<String> {
        let KafkaSettings { brokers, repo, .. } = &self.settings;
        let keys = self.path("first/keys").to_str().unwrap().to_owned();
        let store = format!("file://{}", self.path("store").display());
        let options = ["--kafka-brokers", brokers, "--kafka-repo", repo, "--keys", &keys, "--store-url", &store];
        options.iter().map(|option| (*option).to_owned()).chain(["--min-free-mib".into(), "1".into()]).collect()
    }

    fn start(&self, name: &str, more: &[&str]) -> Server {
        let options = self.options();
        let options: Vec<&str> = options.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let node = Server::spawn(&self.path(name), &options, &[]);
        node.wait_ready();
        node
    }

    fn doctor(&self, name: &str, more: &[&str]) -> Report {
        let (data, options) = (self.path(name), self.options());
        let mut args = vec!["--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        // What is said last counts.
        args.extend(options.iter().map(String::as_str));
        for (i, name) in more.iter().enumerate().step_by(2) {
            if let Some(at) = args.iter().position(|arg| arg == name) {
                args[at + 1] = more[i + 1];
            } else {
                args.extend(&more[i..i + 2]);
            }
        }
        doctor(&args, &[])
    }

    /// The doctor, until it says what `good` wants.
    fn wait(&self, name: &str, good: impl Fn(&Report) -> bool) -> Report {
        let start = Instant::now();
        loop {
            let report = self.doctor(name, &[]);
            if good(&report) {
                return report;
            }
            assert!(start.elapsed() < PATIENCE, "{report:#?}");
        }
    }

    fn alter(&self, kind: &str, settings: &str) {
        let topic = self.topic(kind);
        tool(self.cluster, "kafka-configs", &["--alter", "--topic", &topic, "--add-config", settings]);
    }
}

/// Without what a single broker cannot have.
fn but_replication(report: &Report) -> Vec<(Severity, String, &str)> {
    unwell(report).into_iter().filter(|(_, place, _)| place != "topics.replication").collect()
}

#[test]
fn topics_are_held_to_every_rule_at_once() {
    let repository = Repository::new(kafka::one(), 1);
    let report = repository.doctor("first", &[]);
    assert_eq!(but_replication(&report), []);
    let single = |f: &&tuflog::doctor::Finding| f.what.contains("replication factor 1");
    assert_eq!((report.errors, report.findings.iter().filter(single).count()), (0, 5));

    repository.alter("ledger", "retention.ms=604800000,cleanup.policy=compact,message.timestamp.type=CreateTime");
    repository.alter("changes", "max.message.bytes=1048588,unclean.leader.election.enable=true");
    repository.alter("inbox", "compression.type=zstd");
    repository.alter("folds", "min.insync.replicas=2,retention.bytes=1000");
    let rejects = repository.topic("inbox-rejects");
    tool(repository.cluster, "kafka-topics", &["--delete", "--topic", &rejects]);
    let report = repository.doctor("first", &[]);
    let ledger = repository.topic("ledger");
    let mends = format!("--alter --topic {ledger} --add-config retention.ms=-1");
    let brokers = format!("kafka-configs --bootstrap-server {}", repository.settings.brokers);
    for (kind, words) in [
        ("ledger", &["retention.ms is \"604800000\", must be -1", &mends, &brokers][..]),
        ("ledger", &["cleanup.policy", "must be delete", "compaction"]),
        ("ledger", &["message.timestamp.type", "LogAppendTime"]),
        ("changes", &["max.message.bytes is \"1048588\"", "2101248 or more"]),
        ("changes", &["unclean.leader.election.enable", "must be false"]),
        ("inbox", &["compression.type", "lz4"]),
        ("folds", &["retention.bytes", "-1"]),
    ] {
        let topic = repository.topic(kind);
        find(&report, Severity::Error, "topics.settings", &[&[topic.as_str()], words].concat());
    }
    find(
        &report,
        Severity::Error,
        "topics.min-insync",
        &["min.insync.replicas is 2, of 1 copies", "min.insync.replicas=1"],
    );
    let found = find(&report, Severity::Error, "topics.exists", &[&rejects, "does not exist"]);
    // The command that it names works as it is.
    let create: Vec<&str> = found.fix.as_ref().unwrap().split(' ').skip(3).collect();
    tool(repository.cluster, "kafka-topics", &create);
    let report_then = repository.doctor("first", &[]);
    assert!(!report_then.findings.iter().any(|f| f.check == "exists"), "{report_then:#?}");
    find(&report_then, Severity::Ok, "topics.settings", &[&rejects, "1 partition, set as it must be"]);
    // The log itself can be read, whatever its topics' settings.
    find(&report, Severity::Ok, "log.belongs", &["3 ledger records"]);
}

#[test]
fn brokers_and_settings_that_do_not_work_are_named() {
    let repository = Repository::new(kafka::one(), 1);
    let brokers = format!("{},127.0.0.1:1", repository.settings.brokers);
    let report = repository.doctor("first", &["--kafka-brokers", &brokers]);
    assert_eq!(but_replication(&report).len(), 1, "{report:#?}");
    find(&report, Severity::Warning, "brokers.address", &["127.0.0.1:1", "refused"]);
    let report = repository.doctor("first", &["--kafka-brokers", "127.0.0.1:1"]);
    find(&report, Severity::Error, "brokers.reachable", &["cannot reach Kafka", "are the brokers up"]);
    for place in ["topics.exist", "log.readable", "clock.log"] {
        find(&report, Severity::Skipped, place, &[]);
    }
    let report =
        repository.doctor("first", &["--kafka", "acks=1,group.id=g,no.such=1,linger.ms=soon,ssl.key.location=/absent"]);
    for words in [
        &["kafka.acks", "not yours"],
        &["kafka.group.id", "not yours"],
        &["kafka.no.such", "refuses to start"],
        &["kafka.linger.ms", "nvalid value"],
    ] {
        find(&report, Severity::Error, "config.kafka", words);
    }
    find(&report, Severity::Error, "config.tls", &["kafka.ssl.key.location: /absent"]);
    let refused = format!("{}=wrong", rights::as_user("fold").split("=fold-secret").next().unwrap());
    let report = repository.doctor("first", &["--kafka-brokers", &kafka::one().sasl_bootstrap(), "--kafka", &refused]);
    find(&report, Severity::Error, "brokers.reachable", &["refused", "SASL", "sasl.*"]);
}

#[test]
fn what_waits_for_nobody_and_who_should_not_be_in_a_group_is_named() {
    let repository = Repository::new(kafka::one(), 1);
    let (inbox, folds) = (repository.topic("inbox"), repository.topic("folds"));
    kcat(repository.cluster, &["-P", "-t", &inbox, "-p", "1"], "{\"changes\":[{\"op\":\"remove\",\"path\":\"x\"}]}\n");
    let report = repository.doctor("first", &[]);
    let words = [&inbox, "1 record waits in partition 1", "no member", "start a node with role intake"];
    find(&report, Severity::Warning, "groups.lag", &words);

    let node = repository.start("first", &["--kafka-member", "doubled"]);
    add(&node.url(), "one");
    let well = |report: &Report| but_replication(report).iter().all(|(s, ..)| *s == Severity::Skipped);
    let report = repository.wait("first", well);
    find(&report, Severity::Ok, "groups.members", &[&folds, "1 member for 2 partitions, nothing waits"]);
    find(&report, Severity::Ok, "node.ready", &[]);
    // A second process of that name would put it out.
    let report = repository.doctor("second", &["--kafka-member", "doubled"]);
    find(&report, Severity::Error, "groups.names", &[&folds, "doubled", "put each other out"]);

    // Somebody's consumer in the group of the folds.
    let mut stranger = kafka::kcat_command();
    let changes = repository.topic("changes");
    let assignor = "partition.assignment.strategy=cooperative-sticky";
    stranger.args(["-b", &repository.settings.brokers, "-X", assignor, "-G", &folds, &changes]);
    let mut stranger = stranger.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("kcat");
    let is_there = |report: &Report| report.findings.iter().any(|f| f.check == "strangers");
    let report = repository.wait("first", is_there);
    find(&report, Severity::Error, "groups.strangers", &["1 member without a lasting name", &folds]);
    let pid = rustix::process::Pid::from_child(&stranger);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap(); // it leaves the group
    stranger.wait().unwrap();

    // Nobody folds any more.
    node.kill();
    let changes = |report: &Report| report.findings.iter().any(|f| f.what.contains("nobody is in it"));
    repository.wait("first", changes);
    let report = repository.doctor("first", &[]);
    assert_eq!(report.errors, 0, "{report:#?}");
    kcat(
        repository.cluster,
        &["-P", "-t", &repository.topic("changes"), "-p", "0"],
        "a segment that no commit names\n",
    );
    let waits = |report: &Report| report.findings.iter().any(|f| f.check == "lag" && f.what.contains(&folds));
    let report = repository.wait("first", waits);
    find(&report, Severity::Warning, "groups.lag", &[&folds, "partition 0", "start a node with role fold"]);
}

#[test]
fn three_brokers_are_well_and_one_that_is_down_is_named() {
    let cluster = Cluster::start(3);
    let repository = Repository::new(&cluster, 3);
    assert_eq!(unwell(&repository.doctor("first", &[])), []);
    repository.alter("ledger", "min.insync.replicas=1");
    repository.alter("changes", "min.insync.replicas=3");
    let report = repository.doctor("first", &[]);
    let (ledger, changes) = (repository.topic("ledger"), repository.topic("changes"));
    find(&report, Severity::Error, "topics.settings", &[&ledger, "min.insync.replicas is \"1\", must be 2 or more"]);
    find(&report, Severity::Warning, "topics.min-insync", &[&changes, "3, of 3 copies", "stops all writes"]);
    repository.alter("ledger", "min.insync.replicas=2");

    cluster.kill(3);
    let starved = |report: &Report| {
        report.findings.iter().filter(|f| f.check == "copies" && f.severity != Severity::Ok).count() == 5
    };
    let report = repository.wait("first", starved);
    find(&report, Severity::Warning, "brokers.address", &["refused"]);
    find(
        &report,
        Severity::Warning,
        "topics.copies",
        &[&ledger, "under-replicated; broker 3 is not there", "start broker 3"],
    );
    let words = [&changes, "partitions 0, 1", "min.insync.replicas, 3", "cannot be written"];
    find(&report, Severity::Error, "topics.copies", &words);
    cluster.restart(3);
    cluster.wait();
    repository.alter("changes", "min.insync.replicas=2");
    repository.wait("first", |report| unwell(report).is_empty());
}

#[test]
fn the_rights_that_a_role_needs_are_those_of_the_readme() {
    let table = rights::table();
    let (roles, mut ours) = (["intake", "fold", "compact", "http"], Vec::new());
    for (role, needs) in NEEDS {
        for (resource, right) in needs {
            let (kind, name) = match resource {
                Resource::Topic(name) => ("topic", name),
                Resource::Group(name) => ("group", name),
            };
            ours.push((right.name().to_owned(), format!("{kind} {}.{name}", rights::REPO), role.name().to_owned()));
        }
        for right in ALL {
            let topics = ["changes", "ledger", "folds", "inbox", "inbox-rejects"];
            let place =
                |topic| (right.name().to_owned(), format!("topic {}.{topic}", rights::REPO), role.name().to_owned());
            ours.extend(topics.map(place));
        }
    }
    let mut theirs = Vec::new();
    for ((right, place), who) in table {
        let who = who.into_iter().filter(|who| roles.contains(&who.as_str()));
        theirs.extend(who.map(|who| (right.clone(), place.clone(), who)));
    }
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
}

#[test]
fn a_right_that_is_lacking_is_named_with_the_command_that_gives_it() {
    let repository = Repository::new(kafka::one(), 1);
    let repo = &repository.settings.repo;
    // Role → what it is not given.
    let lacking = [
        (Role::Intake, "Read", "topic inbox"),
        (Role::Fold, "Read", "group folds"),
        (Role::Compact, "Write", "topic ledger"),
        (Role::Http, "DescribeConfigs", "topic changes"),
    ];
    std::thread::scope(|scope| {
        let mut granted = std::collections::BTreeMap::<(String, String), Vec<&str>>::new();
        for (role, needs) in NEEDS {
            let mut grant = |right: &str, kind: &str, name: &str| {
                let place = format!("{kind} {name}");
                if !lacking.contains(&(role, right, &place)) {
                    granted.entry((right.to_owned(), place)).or_default().push(role.name());
                }
            };
            for (resource, right) in needs {
                match resource {
                    Resource::Topic(name) => grant(right.name(), "topic", name),
                    Resource::Group(name) => grant(right.name(), "group", name),
                }
            }
            for topic in ["changes", "ledger", "folds", "inbox", "inbox-rejects"] {
                ALL.iter().for_each(|right| grant(right.name(), "topic", topic));
            }
        }
        for ((right, place), who) in granted {
            scope.spawn(move || {
                let (kind, name) = place.split_once(' ').unwrap();
                let (flag, name) = (format!("--{kind}"), format!("{repo}.{name}"));
                let users: Vec<String> = who.iter().map(|who| format!("User:{who}")).collect();
                let mut args = vec!["--add", "--operation", &right, &flag, &name];
                users.iter().for_each(|user| args.extend(["--allow-principal", user]));
                tool(kafka::one(), "kafka-acls", &args);
            });
        }
    });
    for (role, right, place) in lacking {
        let (who, login) = (role.name(), rights::as_user(role.name()));
        let brokers = kafka::one().sasl_bootstrap();
        let report = repository.doctor(who, &["--kafka-brokers", &brokers, "--kafka", &login, "--roles", who]);
        let (kind, name) = place.split_once(' ').unwrap();
        let what = format!("user {who} lacks {right} on {kind} {repo}.{name}");
        let fix = format!("--add --allow-principal User:{who} --operation {right} --{kind} {repo}.{name}");
        let why = format!("role {who} needs that");
        let why = if right == "DescribeConfigs" { "every role needs that" } else { &why };
        assert_eq!(find(&report, Severity::Error, "rights.acls", &[&fix, why]).what, what);
        assert_eq!(report.errors, 1, "{report:#?}");
        find(
            &report,
            Severity::Warning,
            "rights.acls",
            &[&format!("Describe on group {repo}.readers"), "log a refusal"],
        );
        find(&report, Severity::Skipped, "brokers.settings", &["may not see them", "DescribeConfigs --cluster"]);
        find(&report, Severity::Ok, "rights.acls", &["rights that", who]);
    }
}
