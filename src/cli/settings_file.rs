//! The `tuflog.toml` that `init` writes: every setting with its help and its default, commented out.
//!
//! The help is that of `serve --help`, so that there is one text for a setting.

use clap::{Args, Command};

use crate::config::{KEYS, Kafka, Settings, defaults, flag_of};

/// The text of the file.
pub fn template() -> String {
    let mut out = String::from(
        "# Settings of `tuflog serve`. Uncomment what you change: the values shown are the defaults, or examples where\n\
         # there is none. A flag wins over its variable TUFLOG_…, the variable over this file. Unknown keys are refused.\n\
         # Relative paths are taken from the directory of this file.\n",
    );
    let command = Settings::augment_args(Command::new("serve"));
    for key in KEYS {
        let flag = flag_of(key);
        let arg = command.get_arguments().find(|a| a.get_long() == Some(&flag));
        let help = arg.and_then(|a| a.get_help()).map(ToString::to_string).unwrap_or_default();
        let help = help.split(" [default: ").next().unwrap_or_default();
        let key = if *key == "kafka.*" { "kafka.security.protocol" } else { key };
        out.push_str(&format!("\n# {help}\n# {key} = {}\n", value(key)));
    }
    out
}

/// The lines that say where a log on Kafka is. Secrets are left to the variable TUFLOG_KAFKA.
pub fn of_kafka(kafka: &Kafka) -> String {
    let Some(brokers) = &kafka.brokers else { return String::new() };
    let mut out = format!("\n# As init was told\nkafka.brokers = {brokers:?}\n");
    if let Some(repo) = &kafka.repo {
        out.push_str(&format!("kafka.repo = {repo:?}\n"));
    }
    for (name, value) in &kafka.options.0 {
        match ["password", "secret", "key"].iter().any(|word| name.contains(word)) {
            true => out.push_str(&format!("# kafka.{name}: set it by the variable TUFLOG_KAFKA={name}=…\n")),
            false => out.push_str(&format!("kafka.{name} = {value:?}\n")),
        }
    }
    out
}

/// The default of a key, or an example.
fn value(key: &str) -> String {
    match key {
        "listen" => format!("{:?}", defaults::LISTEN),
        "targets" => "\"/srv/targets\"".into(),
        "min_cut_interval_ms" => defaults::MIN_CUT_INTERVAL_MS.to_string(),
        "queue_mib" => defaults::QUEUE_MIB.to_string(),
        "groups" => defaults::GROUPS.to_string(),
        "uploads" => defaults::UPLOADS.to_string(),
        "min_free_mib" => defaults::MIN_FREE_MIB.to_string(),
        "extra_hashes" => "[]".into(),
        "roles" => "[\"intake\", \"fold\", \"compact\", \"http\"]".into(),
        "keys" => "\"keys\"".into(),
        "patience_ms" => defaults::PATIENCE_MS.to_string(),
        "inbox_generation" => "0".into(),
        "kafka.brokers" => "\"127.0.0.1:9092\"".into(),
        "kafka.repo" => format!("{:?}", defaults::KAFKA_REPO),
        "kafka.member" => "\"worker-1\"".into(),
        "kafka.security.protocol" => "\"plaintext\"".into(),
        "store.url" => "\"s3://bucket/prefix\"".into(),
        "store.endpoint" => "\"https://s3.example.org\"".into(),
        "store.region" => "\"us-east-1\"".into(),
        "store.allow_http" => "false".into(),
        "store.options" => "{ virtual_hosted_style_request = \"true\" }".into(),
        "auth.tokens_file" => "\"/etc/tuflog/tokens\"".into(),
        "insecure" => "false".into(),
        "log" => "\"info\"".into(),
        "log_format" => "\"auto\"".into(),
        "drain_s" => defaults::DRAIN_S.to_string(),
        _ => "…".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_stands_there_and_can_be_uncommented() {
        assert_eq!(Settings::parse(&template()).unwrap(), Settings::default());
        let named = |k: &str| k.replace('*', "security.protocol");
        let is_key = |line: &str| KEYS.iter().any(|k| line.starts_with(&format!("# {} = ", named(k))));
        let active: Vec<String> =
            template().lines().map(|l| if is_key(l) { l[2..].to_owned() } else { l.to_owned() }).collect();
        let settings = Settings::parse(&active.join("\n")).unwrap();
        let written = serde_json::to_value(&settings).unwrap();
        let settled = !settings.kafka.options.0.is_empty();
        let place = |k: &str| format!("/{}", k.replace('.', "/"));
        assert!(KEYS.iter().all(|k| *k == "kafka.*" && settled || written.pointer(&place(k)).is_some()), "{written}");
        assert!(!template().contains("= …"), "every key has a value");
    }
}
