//! The tables of `tuflog.toml`, and the kinds of values they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a process does for its repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes batches, over HTTP and from the inbox.
    Intake,
    /// Folds partitions and publishes their bins.
    Fold,
    /// Turns cuts into checkpoints, or stands by to.
    Compact,
    /// Serves metadata, target files and queries.
    Http,
}

impl Role {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Role::Intake => "intake",
            Role::Fold => "fold",
            Role::Compact => "compact",
            Role::Http => "http",
        }
    }
}

/// The roles of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles(pub(super) BTreeSet<Role>);

impl Roles {
    /// True if the process has this one.
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// True if the process signs what is published, so needs the online keys.
    pub fn sign(&self) -> bool {
        self.has(Role::Fold) || self.has(Role::Compact)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = Role> + '_ {
        self.0.iter().copied()
    }
}

impl Default for Roles {
    /// All of them.
    fn default() -> Roles {
        Roles([Role::Intake, Role::Fold, Role::Compact, Role::Http].into())
    }
}

/// The table `auth`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// File of bearer tokens, one `TOKEN SCOPES` a line; scopes are publish, read and admin, joined by commas
    #[arg(long = "auth-tokens-file", env = "TUFLOG_AUTH_TOKENS_FILE", value_name = "FILE")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_file: Option<PathBuf>,
}

impl Auth {
    pub(super) fn is_empty(&self) -> bool {
        *self == Auth::default()
    }

    pub(super) fn or(self, fallback: Auth) -> Auth {
        Auth { tokens_file: self.tokens_file.or(fallback.tokens_file) }
    }
}

/// The table `kafka`. What it holds beside its own keys are settings of librdkafka, such as `security.protocol`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
pub struct Kafka {
    /// Some of the brokers, HOST:PORT,…: the log is on Kafka [default: the directory DIR/log]
    #[arg(id = "brokers", long = "kafka-brokers", env = "TUFLOG_KAFKA_BROKERS", value_name = "BROKERS")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brokers: Option<String>,

    /// What the names of the repository's topics begin with [default: tuflog]
    #[arg(long = "kafka-repo", env = "TUFLOG_KAFKA_REPO", value_name = "NAME")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,

    /// Name of this process in the consumer group, unlike any other's [default: made up, and kept in DIR/member]
    #[arg(long = "kafka-member", env = "TUFLOG_KAFKA_MEMBER", value_name = "NAME")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,

    /// Settings of librdkafka: NAME=VALUE, several with commas between; in the file each is a key of the table kafka
    #[arg(id = "kafka", long = "kafka", env = "TUFLOG_KAFKA", value_name = "SETTINGS")]
    #[arg(default_value = "", hide_default_value = true, hide_env_values = true)]
    #[serde(flatten)]
    pub options: Options,
}

impl Kafka {
    pub(super) fn is_empty(&self) -> bool {
        *self == Kafka::default()
    }

    /// These settings, with what they leave open taken from `fallback`.
    pub fn or(self, fallback: Kafka) -> Kafka {
        let Options(mut options) = fallback.options;
        options.extend(self.options.0);
        Kafka {
            brokers: self.brokers.or(fallback.brokers),
            repo: self.repo.or(fallback.repo),
            member: self.member.or(fallback.member),
            options: Options(options),
        }
    }
}

/// The table `store`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Bucket and prefix of an S3-compatible store, s3://BUCKET[/PREFIX], or a directory, file:///DIR, that the processes of one machine share; credentials come from AWS_ACCESS_KEY_ID and the like, a web identity or the instance [default: the directory DIR/store]
    #[arg(long = "store-url", env = "TUFLOG_STORE_URL", value_name = "URL")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,

    /// Address of the S3 server [default: Amazon's, by region]
    #[arg(long = "store-endpoint", env = "TUFLOG_STORE_ENDPOINT", value_name = "URL")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,

    /// Region of the bucket [default: that of AWS_REGION, else us-east-1]
    #[arg(long = "store-region", env = "TUFLOG_STORE_REGION", value_name = "NAME")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,

    /// Talk to the S3 server without TLS, if its address says http:
    #[arg(long = "store-allow-http", env = "TUFLOG_STORE_ALLOW_HTTP", num_args = 0..=1, default_missing_value = "true")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_http: Option<bool>,

    /// More options of the S3 client, as the crate object_store names them: NAME=VALUE, several with commas between
    #[arg(long = "store-options", env = "TUFLOG_STORE_OPTIONS", value_name = "OPTIONS", hide_env_values = true)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Options>,
}

impl Store {
    pub(super) fn is_empty(&self) -> bool {
        *self == Store::default()
    }

    /// These settings, with what they leave open taken from `fallback`.
    pub fn or(self, fallback: Store) -> Store {
        Store {
            url: self.url.or(fallback.url),
            endpoint: self.endpoint.or(fallback.endpoint),
            region: self.region.or(fallback.region),
            allow_http: self.allow_http.or(fallback.allow_http),
            options: self.options.or(fallback.options),
        }
    }
}

/// Settings of a client library, by its own names. Their values may be secrets: `Debug` shows names only.
///
/// In a file a dotted name is a table in a table, and a value may be a number or a truth value.
#[derive(Clone, Default, PartialEq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Options(pub BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Options {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Options, D::Error> {
        fn flat<E: de::Error>(name: String, value: Value, out: &mut Options) -> std::result::Result<(), E> {
            let value = match value {
                Value::Object(inner) => {
                    return inner.into_iter().try_for_each(|(key, value)| flat(format!("{name}.{key}"), value, out));
                }
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(is) => is.to_string(),
                _ => return Err(E::custom(format!("{name} must be a string, a number or a truth value"))),
            };
            out.0.insert(name, value);
            Ok(())
        }
        let mut out = Options::default();
        for (name, value) in BTreeMap::<String, Value>::deserialize(d)? {
            flat(name, value, &mut out)?;
        }
        Ok(out)
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl FromStr for Options {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Options, String> {
        let pair = |pair: &str| match pair.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.trim().to_owned())),
            _ => Err(format!("{pair:?} is not NAME=VALUE")),
        };
        if text.trim().is_empty() {
            return Ok(Options::default());
        }
        text.split(',').map(pair).collect::<std::result::Result<_, _>>().map(Options)
    }
}
