//! The rights that the README says are enough: a user for each row of its table gets them and nothing else.

use std::collections::BTreeMap;
use std::path::Path;

use crate::help;
use crate::kafka::{self, tool};
use crate::server::{self, Server, said};

pub const REPO: &str = "rights";

/// Right and resource (`topic NAME` or `group NAME`) → who has it, as the table says.
pub fn table() -> BTreeMap<(String, String), Vec<String>> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect()
    };
    let mut lines = readme.lines().skip_while(|line| !line.starts_with("| who |"));
    let head = cells(lines.next().expect("the table of rights"));
    let mut rights: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for row in lines.skip(1).take_while(|line| line.starts_with('|')).map(cells) {
        let who = row[0].trim_start_matches("tuflog ").split(' ').next().unwrap().to_owned();
        for (place, granted) in head.iter().zip(&row).skip(1) {
            let place = place.replace("REPO", REPO);
            let place = if place.starts_with("group ") { place } else { format!("topic {place}") };
            let mut granted: Vec<&str> = granted.split(", ").filter(|right| !right.is_empty()).collect();
            if place.starts_with("topic ") {
                granted.extend(["Describe", "DescribeConfigs"]);
            }
            for right in granted {
                rights.entry((right.to_owned(), place.clone())).or_default().push(who.clone());
            }
        }
    }
    rights
}

/// Settings of librdkafka for a user.
pub fn as_user(who: &str) -> String {
    let authority = kafka::one().authority();
    format!(
        "security.protocol=SASL_SSL,ssl.ca.location={authority},sasl.mechanism=SCRAM-SHA-512,sasl.username={who},\
         sasl.password={who}-secret"
    )
}

#[test]
fn the_rights_that_the_readme_names_are_enough() {
    let rights = table();
    assert!(rights[&("Read".into(), format!("group {REPO}.folds"))] == ["fold"], "{rights:?}");
    let cluster = kafka::one();
    std::thread::scope(|scope| {
        for ((right, place), who) in &rights {
            scope.spawn(move || {
                let (kind, name) = place.split_once(' ').unwrap();
                let (kind, users) = (format!("--{kind}"), who.iter().map(|who| format!("User:{who}")));
                let users: Vec<String> = users.collect();
                let mut args = vec!["--add", "--operation", right, &kind, name];
                users.iter().for_each(|user| args.extend(["--allow-principal", user]));
                tool(cluster, "kafka-acls", &args)
            });
        }
    });

    let (dir, brokers) = (help::scratch(), cluster.sasl_bootstrap());
    let place = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(place("store")).unwrap();
    let settings = |who: &str| {
        [
            ("TUFLOG_KAFKA_BROKERS", brokers.clone()),
            ("TUFLOG_KAFKA_REPO", REPO.to_owned()),
            ("TUFLOG_KAFKA", as_user(who)),
            ("TUFLOG_STORE_URL", format!("file://{}", place("store"))),
            ("TUFLOG_KEYS", place("init/keys")),
        ]
    };
    let run = |who: &str, args: &[&str]| {
        let out = server::command(&[args, &["--data", &place(who)]].concat()).envs(settings(who)).output();
        let out = out.expect("the binary runs");
        assert!(out.status.success(), "{who}: {}", said(&out));
        said(&out)
    };
    run("init", &["init", "--kafka-replication", "1", "--kafka-min-insync", "1"]);

    let start = |role: &str| {
        let variables = settings(role);
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Server::spawn(Path::new(&place(role)), &["--roles", role, "--min-free-mib", "0"], &variables)
    };
    let mut nodes = Vec::from(["intake", "compact", "http", "fold"].map(start));
    for node in &nodes {
        node.wait_ready();
    }
    let (intake, http) = (nodes[0].url(), nodes[2].url());
    let digest = "ab".repeat(32);
    let publish = ["--server", &intake, "--wait", "published"];
    server::run(&[&["add", "one", "--length", "5", "--sha256", &digest], &publish[..]].concat());
    // What was not there stands in the folds' reports.
    let removed = server::run(&[&["remove", "one", "none"], &publish[..]].concat());
    assert!(removed.contains("nothing to remove at none"), "{removed}");
    for question in ["status", "lag", "checkpoints"] {
        server::run(&[question, "--server", &http]);
    }
    // A fold that was killed is followed by another with an empty directory.
    nodes.pop().unwrap().kill();
    std::fs::remove_dir_all(place("fold")).unwrap();
    nodes.push(start("fold"));
    server::run(&[&["add", "two", "--length", "5", "--sha256", &digest], &publish[..]].concat());
    nodes.iter_mut().for_each(|node| assert_eq!(node.terminate().code(), Some(0), "{}", node.said()));
    run("audit", &["audit"]);
    // And the doctor, which needs no more than the node, says so.
    for role in ["intake", "fold", "compact", "http"] {
        let said = run(role, &["doctor", "--roles", role, "--listen", "127.0.0.1:0", "--min-free-mib", "0"]);
        let unseen = |line: &&str| line.starts_with("skipped") && line.contains("lag");
        assert_eq!((role, said.lines().find(unseen)), (role, None));
    }
}
