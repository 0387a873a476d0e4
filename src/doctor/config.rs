//! Settings: whether they can be read, fit together, and name files that are there.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Area, Finding, Node, Subject};
use crate::config::Settings;
use crate::http::Tokens;
use crate::log::kafka::KafkaSettings;
use crate::node;
use crate::store::s3;

const AREA: Area = Area::Config;

/// The settings of librdkafka that name a file, and whether it holds a secret.
const FILES: [(&str, bool); 5] = [
    ("ssl.ca.location", false),
    ("ssl.certificate.location", false),
    ("ssl.key.location", true),
    ("ssl.keystore.location", true),
    ("sasl.kerberos.keytab", true),
];

/// The settings as `serve` would take them; `None` if that cannot be known.
pub fn read(subject: &Subject, found: &mut Vec<Finding>) -> Option<Settings> {
    let usual = subject.data.join("tuflog.toml");
    let Some(path) = subject.config.as_deref().or_else(|| Some(usual.as_path()).filter(|path| path.exists())) else {
        let what = format!("there is no {}: flags, variables and defaults count", usual.display());
        found.push(Finding::ok(AREA, "file", what));
        return Some(subject.flags.clone());
    };
    let shown = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) => {
            found.push(Finding::error(AREA, "file", format!("{shown} cannot be read: {e}")));
            return None;
        }
    };
    let (settings, wrong) = match Settings::examine(&text) {
        Ok(examined) => examined,
        Err(e) => {
            let finding = Finding::error(AREA, "file", format!("{shown}: {e}"));
            found.push(finding.fix("`tuflog serve --help` explains every setting"));
            return None;
        }
    };
    if wrong.is_empty() {
        found.push(Finding::ok(AREA, "file", format!("{shown} can be read, and every key is known")));
    }
    for e in wrong {
        let finding = Finding::error(AREA, "keys", format!("{shown}: {e}"));
        found.push(finding.why("serve refuses a file that it does not understand").fix(format!("edit {shown}")));
    }
    Some(subject.flags.clone().or(settings.relative_to(path.parent().unwrap_or(Path::new(".")))))
}

/// Whether the settings fit together, and what they name is there.
pub async fn check(node: &Node, found: &mut Vec<Finding>) {
    let settings = &node.settings;
    match node::check_roles(settings) {
        Err(e) => found.push(Finding::of(AREA, "roles", &e).fix("leave roles out, or set kafka.brokers")),
        Ok(()) => {
            let roles: Vec<&str> = settings.roles().iter().map(|role| role.name()).collect();
            let log = if settings.kafka.brokers.is_some() { "Kafka" } else { "the data directory" };
            found.push(Finding::ok(AREA, "roles", format!("{}, with the log in {log}", roles.join(", "))));
        }
    }
    if let Err(e) = KafkaSettings::of(&settings.kafka) {
        found.push(Finding::of(AREA, "kafka", &e));
    }
    // A directory is no bucket's address, and `file:` is told apart where stores are opened.
    if settings.store.url.as_deref().is_none_or(|url| !url.starts_with("file://"))
        && let Err(e) = s3::Settings::of(&settings.store)
    {
        found.push(Finding::of(AREA, "store", &e));
    }
    if settings.kafka.brokers.is_some() && settings.store.url.is_none() {
        let what = format!("what is published lies in {}, which only this node has", node.data.join("store").display());
        let why = "the processes of a repository on Kafka share one store; with two, each lacks what the other writes";
        let finding = Finding::warning(AREA, "store", what).why(why);
        found.push(
            finding.fix("with more than one process, set store.url: s3://BUCKET/PREFIX, or file:///DIR on one machine"),
        );
    }
    if let Err(e) = node::check_targets(settings) {
        found.push(Finding::of(AREA, "targets", &e));
    }
    if let Some(file) = &settings.auth.tokens_file {
        found.push(match Tokens::read(file) {
            Ok(_) => Finding::ok(AREA, "tokens", format!("{} holds tokens", file.display())),
            Err(e) => Finding::of(AREA, "tokens", &e),
        });
    }
    files(settings, found);
    listen(node, found).await;
}

/// The files that Kafka's settings name.
fn files(settings: &Settings, found: &mut Vec<Finding>) {
    for (name, secret) in FILES {
        let Some(path) = settings.kafka.options.0.get(name).filter(|path| *path != "probe") else { continue };
        let what = |problem: String| format!("kafka.{name}: {path} {problem}");
        found.push(match std::fs::metadata(path).and_then(|meta| std::fs::File::open(path).map(|_| meta)) {
            Err(e) => Finding::error(AREA, "tls", what(format!("cannot be read: {e}")))
                .why("no broker is reached without it")
                .fix("put it there, readable by the user that runs serve, or correct the setting"),
            Ok(meta) if secret && meta.permissions().mode() & 0o077 != 0 => {
                let mode = meta.permissions().mode() & 0o777;
                let finding = Finding::warning(AREA, "tls", what(format!("has mode {mode:03o}: others can get at it")));
                finding.why("whoever has it can log in as this node").fix(format!("chmod 600 {path}"))
            }
            Ok(_) => Finding::ok(AREA, "tls", what("can be read".into())),
        });
    }
}

/// Whether the address is one that serve would take. It is bound for a moment, unless the node runs.
async fn listen(node: &Node, found: &mut Vec<Finding>) {
    if node.in_use {
        return found.push(Finding::skipped(AREA, "listen", "whether the address is free: the node that runs has it"));
    }
    match node::listen(&node.settings, node.settings.auth.tokens_file.is_some()).await {
        Ok(listener) => {
            let addr = listener.local_addr().map_or_else(|_| "the address".into(), |addr| addr.to_string());
            found.push(Finding::ok(AREA, "listen", format!("{addr} is free to listen on")));
        }
        Err(e) => found.push(Finding::of(AREA, "listen", &e)),
    }
}
