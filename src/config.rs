//! Configuration: one definition that serves `tuflog.toml`, the `--flags` and the `TUFLOG_…` variables.
//!
//! A flag wins over its variable, a variable over the file, the file over the default. A key that the file has and
//! this program does not know is refused, with the nearest right one.

mod tables;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use tables::{Auth, Kafka, Options, Role, Roles, Store};

use crate::error::{Error, Result};

/// The defaults, in one place.
pub mod defaults {
    /// Where `serve` listens.
    pub const LISTEN: &str = "127.0.0.1:8080";
    /// The least time between two cuts.
    pub const MIN_CUT_INTERVAL_MS: u64 = 0;
    /// How many bytes of changes may be queued or in flight.
    pub const QUEUE_MIB: u64 = 64;
    /// How many groups of batches are committed at a time.
    pub const GROUPS: u64 = 4;
    /// How many bins a fold stores at a time.
    pub const UPLOADS: u64 = 4;
    /// Below this much free space writes are refused.
    pub const MIN_FREE_MIB: u64 = 256;
    /// How long `?wait=` waits.
    pub const WAIT_S: u64 = 30;
    /// How long a request may take to send its body.
    pub const REQUEST_S: u64 = 60;
    /// How long a stop may take to publish what is committed.
    pub const DRAIN_S: u64 = 60;
    /// What the names of a repository's topics begin with.
    pub const KAFKA_REPO: &str = "tuflog";
    /// How long a compactor waits before it acts in another's place.
    pub const PATIENCE_MS: u64 = 1_000;
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// The settings of `tuflog serve`. All are optional; what nothing sets has its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address to listen on; port 0 picks a free one, written to DIR/http.addr [default: 127.0.0.1:8080]
    #[arg(long, env = "TUFLOG_LISTEN", value_name = "ADDR")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,

    /// Directory of target files to serve under /targets/
    #[arg(long, env = "TUFLOG_TARGETS", value_name = "DIR")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<PathBuf>,

    /// Least time between two cuts, in milliseconds [default: 0]
    #[arg(long, env = "TUFLOG_MIN_CUT_INTERVAL_MS", value_name = "MS")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_cut_interval_ms: Option<u64>,

    /// How many MiB of changes may be queued or in flight; beyond it POST answers 503 [default: 64]
    #[arg(long, env = "TUFLOG_QUEUE_MIB", value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=2048))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2048))]
    pub queue_mib: Option<u64>,

    /// How many groups of batches are committed at a time [default: 4]
    #[arg(long, env = "TUFLOG_GROUPS", value_name = "N", value_parser = clap::value_parser!(u64).range(1..=64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub groups: Option<u64>,

    /// How many bins a fold stores at a time [default: 4]
    #[arg(long, env = "TUFLOG_UPLOADS", value_name = "N", value_parser = clap::value_parser!(u64).range(1..=256))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub uploads: Option<u64>,

    /// Free space below which the server is unready and refuses writes, in MiB [default: 256]
    #[arg(long, env = "TUFLOG_MIN_FREE_MIB", value_name = "MIB")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_free_mib: Option<u64>,

    /// Hash algorithms admitted in `hashes` beside sha256: sha512, blake2b-256
    #[arg(long, env = "TUFLOG_EXTRA_HASHES", value_name = "NAMES", value_delimiter = ',', value_parser = ["sha512", "blake2b-256"])]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra_hashes: Option<Vec<String>>,

    /// What this process does, where several share a log on Kafka: intake, fold, compact, http [default: all]
    #[arg(long, env = "TUFLOG_ROLES", value_name = "ROLES", value_delimiter = ',', value_enum)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<Role>>,

    /// Directory of the online keys [default: DIR/keys]
    #[arg(long, env = "TUFLOG_KEYS", value_name = "DIR")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<PathBuf>,

    /// How long a compactor waits before it acts in place of another, in milliseconds [default: 1000]
    #[arg(long, env = "TUFLOG_PATIENCE_MS", value_name = "MS")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience_ms: Option<u64>,

    /// How often REPO.inbox was made anew, the same for all intakes [default: 0]
    #[arg(long, env = "TUFLOG_INBOX_GENERATION", value_name = "N", value_parser = clap::value_parser!(u64).range(..=63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 63))]
    pub inbox_generation: Option<u64>,

    /// The log on Kafka
    #[command(flatten)]
    #[serde(default, skip_serializing_if = "Kafka::is_empty")]
    pub kafka: Kafka,

    /// Where what is published lies
    #[command(flatten)]
    #[serde(default, skip_serializing_if = "Store::is_empty")]
    pub store: Store,

    /// Who may do what
    #[command(flatten)]
    #[serde(default, skip_serializing_if = "Auth::is_empty")]
    pub auth: Auth,

    /// Listen beyond loopback without tokens: anybody who can connect can publish
    #[arg(long, env = "TUFLOG_INSECURE", num_args = 0..=1, default_missing_value = "true")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure: Option<bool>,

    /// What to log, such as `info` or `tuflog=debug` [default: info]
    #[arg(long, env = "TUFLOG_LOG", value_name = "FILTER")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,

    /// How to write log lines [default: auto: pretty on a terminal, else JSON]
    #[arg(long, env = "TUFLOG_LOG_FORMAT", value_enum)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,

    /// How long a stop may take to publish what is committed, in seconds [default: 60]
    #[arg(long, env = "TUFLOG_DRAIN_S", value_name = "S")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_s: Option<u64>,
}

/// Calls a macro with every field of [`Settings`].
macro_rules! every_field {
    ($call:ident) => {
        $call!(
            listen,
            targets,
            min_cut_interval_ms,
            queue_mib,
            groups,
            uploads,
            min_free_mib,
            extra_hashes,
            roles,
            keys,
            patience_ms,
            inbox_generation,
            kafka,
            store,
            auth,
            insecure,
            log,
            log_format,
            drain_s
        )
    };
}

impl Settings {
    /// Reads a configuration file.
    pub fn read(path: &Path) -> Result<Settings> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::invalid(path.display().to_string(), format!("cannot be read: {e}")))?;
        Settings::parse(&text).map_err(|e| Error::invalid(path.display().to_string(), e.to_string()))
    }

    /// Parses the text of a configuration file; the first thing that is wrong with it is the error.
    pub fn parse(text: &str) -> Result<Settings> {
        let (settings, wrong) = Settings::examine(text)?;
        wrong.into_iter().next().map_or(Ok(settings), Err)
    }

    /// What the text of a configuration file says where it can be taken, and everything in it that cannot.
    ///
    /// # Errors
    /// If the text is no TOML, or a value is of another type than its key's: then nothing is known.
    pub fn examine(text: &str) -> Result<(Settings, Vec<Error>)> {
        let mut table: toml::Table = text.parse().map_err(|e| no_toml(&e))?;
        let free = |key: &str| ["store.options.", "kafka."].iter().any(|free| key.starts_with(free));
        let unknown: Vec<String> =
            keys_of(&table, "").into_iter().filter(|key| !KEYS.contains(&key.as_str()) && !free(key)).collect();
        let settings: Settings = match unknown.is_empty() {
            true => toml::from_str(text).map_err(|e| no_toml(&e))?, // its errors name the line
            false => {
                unknown.iter().for_each(|key| remove(&mut table, key));
                table.try_into().map_err(|e| no_toml(&e))?
            }
        };
        let mut wrong: Vec<Error> = unknown.into_iter().map(unknown_key).collect();
        wrong.extend(settings.check());
        Ok((settings, wrong))
    }

    /// These settings, with what they leave open taken from `fallback`.
    pub fn or(self, fallback: Settings) -> Settings {
        macro_rules! merge {
            ($($field:ident),*) => { Settings { $($field: self.$field.or(fallback.$field)),* } };
        }
        every_field!(merge)
    }

    /// These settings, with relative paths taken from `near`, the directory of their file.
    pub fn relative_to(self, near: &Path) -> Settings {
        Settings {
            targets: self.targets.map(|p| near.join(p)),
            keys: self.keys.map(|p| near.join(p)),
            auth: Auth { tokens_file: self.auth.tokens_file.map(|p| near.join(p)) },
            ..self
        }
    }

    /// What this process does.
    pub fn roles(&self) -> Roles {
        self.roles.as_ref().map_or_else(Roles::default, |roles| Roles(roles.iter().copied().collect()))
    }

    /// The ranges that the flags check, for what came from a file.
    fn check(&self) -> Vec<Error> {
        let ranges = [
            ("queue_mib", self.queue_mib, 1, 2048),
            ("groups", self.groups, 1, 64),
            ("uploads", self.uploads, 1, 256),
            ("inbox_generation", self.inbox_generation, 0, 63),
        ];
        let beyond = |(field, value, least, most): (&str, Option<u64>, u64, u64)| {
            let value = value.filter(|v| !(least..=most).contains(v))?;
            Some(Error::invalid(field, format!("must be from {least} to {most}, not {value}")))
        };
        let mut wrong: Vec<Error> = ranges.into_iter().filter_map(beyond).collect();
        if self.roles.as_ref().is_some_and(Vec::is_empty) {
            wrong.push(Error::invalid("roles", "must name at least one of intake, fold, compact, http"));
        }
        for name in self.extra_hashes.iter().flatten() {
            if !["sha512", "blake2b-256"].contains(&name.as_str()) {
                wrong.push(Error::invalid("extra_hashes", format!("may hold sha512 and blake2b-256, not {name:?}")));
            }
        }
        wrong
    }
}

/// Every key of `tuflog.toml`, those of a table with its name before them.
pub const KEYS: &[&str] = &[
    "listen",
    "targets",
    "min_cut_interval_ms",
    "queue_mib",
    "groups",
    "uploads",
    "min_free_mib",
    "extra_hashes",
    "roles",
    "keys",
    "patience_ms",
    "inbox_generation",
    "kafka.brokers",
    "kafka.repo",
    "kafka.member",
    "kafka.*",
    "store.url",
    "store.endpoint",
    "store.region",
    "store.allow_http",
    "store.options",
    "auth.tokens_file",
    "insecure",
    "log",
    "log_format",
    "drain_s",
];

/// The flag of a key.
pub fn flag_of(key: &str) -> String {
    key.trim_end_matches(".*").replace(['.', '_'], "-")
}

/// What the parser says has the line and the key in it.
fn no_toml(e: &toml::de::Error) -> Error {
    Error { field: None, ..Error::invalid("", e.to_string().trim_end()) }
}

/// A key that is not one of [`KEYS`], with the nearest of them.
fn unknown_key(key: String) -> Error {
    let nearest = KEYS.iter().max_by(|a, b| strsim::jaro(&key, a).total_cmp(&strsim::jaro(&key, b)));
    let hint = nearest.filter(|k| strsim::jaro(&key, k) > 0.7).map(|k| format!("; did you mean `{k}`?"));
    let message = format!("is not a setting{}", hint.unwrap_or_else(|| format!(" (known: {})", KEYS.join(", "))));
    Error::invalid(key, message)
}

/// Takes a key out, as [`keys_of`] names it, and its table if nothing else is in it.
fn remove(table: &mut toml::Table, key: &str) {
    if table.remove(key).is_some() {
        return;
    }
    // A table may have a point in its own name.
    for (at, _) in key.match_indices('.') {
        let name = &key[..at];
        let Some(toml::Value::Table(inner)) = table.get_mut(name) else { continue };
        remove(inner, &key[at + 1..]);
        if inner.is_empty() {
            table.remove(name);
        }
    }
}

/// The keys of a table and of the tables in it, those with their table's name before them.
fn keys_of(table: &toml::Table, prefix: &str) -> Vec<String> {
    let own = |(key, value): (&String, &toml::Value)| match value {
        toml::Value::Table(inner) => keys_of(inner, &format!("{prefix}{key}.")),
        _ => vec![format!("{prefix}{key}")],
    };
    table.iter().flat_map(own).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_right_one() {
        let e = Settings::parse("lisen = \"127.0.0.1:1\"").unwrap_err();
        assert_eq!((e.field.as_deref(), e.message.contains("`listen`")), (Some("lisen"), true), "{e}");
        let e = Settings::parse("[auth]\ntoken_file = \"x\"").unwrap_err();
        assert!(e.message.contains("`auth.tokens_file`"), "{e}");
        let e = Settings::parse("zzz = 1").unwrap_err();
        assert!(e.message.contains("known: listen"), "{e}");
        assert_eq!(Settings::parse("groups = 0").unwrap_err().field.as_deref(), Some("groups"));
        assert!(Settings::parse("extra_hashes = [\"md5\"]").is_err());
        for bad in ["groups = \"x\"", "groups = = 1"] {
            let e = Settings::parse(bad).unwrap_err().to_string();
            assert!(e.starts_with("TOML parse error at line 1"), "{e}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_found_and_the_rest_is_taken() {
        let text = "lisen = \"x\"\ngroups = 0\nuploads = 3\n[auth]\ntoken_file = \"t\"\n[\"a.b\"]\nc = 1\n";
        let (settings, wrong) = Settings::examine(text).unwrap();
        let fields: Vec<_> = wrong.iter().filter_map(|e| e.field.as_deref()).collect();
        assert_eq!(fields, ["a.b.c", "auth.token_file", "lisen", "groups"]);
        assert_eq!((settings.uploads, settings.auth.tokens_file), (Some(3), None));
        assert!(Settings::examine("uploads = \"x\"\nlisen = 1").is_err() && Settings::examine("=").is_err());
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let file = Settings::parse("groups = 2\nuploads = 3").unwrap();
        let flags = Settings { groups: Some(7), ..Settings::default() };
        let merged = flags.or(file);
        assert_eq!((merged.groups, merged.uploads, merged.listen), (Some(7), Some(3), None));
        let file = Settings::parse("auth.tokens_file = \"t\"").unwrap();
        assert_eq!(Settings::default().or(file).auth.tokens_file, Some("t".into()));
    }

    #[test]
    fn the_options_of_a_store_are_free_and_never_shown() {
        let file = Settings::parse("[store]\nurl = \"s3://b/p\"\n[store.options]\nany_name = \"secret\"").unwrap();
        assert!(!format!("{file:?}").contains("secret") && format!("{file:?}").contains("any_name"));
        assert_eq!("any_name=secret".parse(), Ok(file.store.options.clone().unwrap()));
        let flags = Store { url: Some("s3://c".into()), ..Store::default() };
        let merged = flags.or(file.store.clone());
        assert_eq!((merged.url.as_deref(), merged.options), (Some("s3://c"), file.store.options));
        assert!(Settings::parse("store.bucket = \"b\"").unwrap_err().message.contains("`store."));
        assert!("x".parse::<Options>().is_err() && "=1".parse::<Options>().is_err());
    }

    #[test]
    fn what_kafka_holds_beside_its_own_keys_reaches_the_client_library() {
        let text = "[kafka]\nbrokers = \"b:1\"\nsecurity.protocol = \"SASL_SSL\"\nsocket.timeout.ms = 5\n";
        let kafka = Settings::parse(text).unwrap().kafka;
        let options = [("security.protocol", "SASL_SSL"), ("socket.timeout.ms", "5")];
        let options = BTreeMap::from(options.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!((kafka.brokers.as_deref(), &kafka.options), (Some("b:1"), &Options(options)));
        let flags = Kafka { options: "socket.timeout.ms=7".parse().unwrap(), ..Kafka::default() };
        let merged = flags.or(kafka).options.0;
        assert_eq!((merged.len(), merged["socket.timeout.ms"].as_str()), (2, "7"));
        assert!(Settings::parse("kafka.acks = []").unwrap_err().message.contains("acks must be a string"));
        let roles = Settings::parse("roles = [\"fold\", \"http\"]").unwrap().roles();
        assert!(roles.has(Role::Fold) && !roles.has(Role::Intake) && Roles::default().has(Role::Intake));
        assert!(Settings::parse("roles = [\"folds\"]").is_err() && Settings::parse("roles = []").is_err());
    }

    #[test]
    fn every_key_is_a_flag_and_every_flag_a_key() {
        let command = <Settings as clap::Args>::augment_args(clap::Command::new("serve"));
        let flags: Vec<String> = command.get_arguments().filter_map(|a| a.get_long()).map(str::to_owned).collect();
        let keys: Vec<String> = KEYS.iter().map(|k| flag_of(k)).collect();
        assert_eq!(flags, keys);
    }
}
