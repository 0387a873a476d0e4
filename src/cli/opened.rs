//! A repository opened to read only: the data directory of a stopped node, or the log on Kafka and the store that
//! options or a worker's settings name.
//!
//! Log and store are those that `serve` would use, by its variables TUFLOG_… and configuration file. A directory that
//! holds its log is locked as long as this lives; a log on Kafka is shared, and reading it takes nothing from anybody.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Command, FromArgMatches};

use super::failure::{Failure, Outcome};
use super::serve;
use crate::config::{Kafka, Settings, Store as StoreSettings};
use crate::data_dir::DataDir;
use crate::log::Log;
use crate::log::embedded::EmbeddedLog;
use crate::log::kafka::{KafkaLog, KafkaSettings};
use crate::store::{self, Store};

/// Which log and store.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Log and store, without a server")]
pub struct SourceArgs {
    /// The data directory of a stopped node, or of a worker
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// The configuration file that says where log and store are [default: DIR/tuflog.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Some of the brokers, HOST:PORT,…, if the log is on Kafka
    #[arg(long, value_name = "BROKERS")]
    kafka_brokers: Option<String>,

    /// What the names of the repository's topics begin with [default: tuflog]
    #[arg(long, value_name = "NAME")]
    kafka_repo: Option<String>,

    /// The store: s3://BUCKET[/PREFIX], or file:///DIR [default: DIR/store]
    #[arg(long, value_name = "URL")]
    store_url: Option<String>,
}

impl SourceArgs {
    /// Whether log and store are named here.
    pub fn is_given(&self) -> bool {
        let SourceArgs { data, config, kafka_brokers, kafka_repo, store_url } = self;
        data.is_some() || config.is_some() || [kafka_brokers, kafka_repo, store_url].iter().any(|v| v.is_some())
    }

    /// What the options say, then the variables, then the configuration file.
    pub fn settings(&self) -> Outcome<Settings> {
        let kafka = Kafka { brokers: self.kafka_brokers.clone(), repo: self.kafka_repo.clone(), ..Kafka::default() };
        let store = StoreSettings { url: self.store_url.clone(), ..StoreSettings::default() };
        let near = self.data.as_deref().unwrap_or(Path::new("."));
        let named = std::env::var_os("TUFLOG_CONFIG");
        let config = self.config.as_deref().or(named.as_deref().map(Path::new));
        let file = match (config, &self.data) {
            (None, None) => Settings::default(),
            _ => serve::file(near, config)?,
        };
        Ok(Settings { kafka, store, ..Settings::default() }.or(variables()?).or(file))
    }

    /// Opens log and store.
    pub async fn open(&self) -> Outcome<Opened> {
        if !self.is_given() {
            let lacks = Failure::usage("this reads log and store, not a server: say where they are");
            return Err(lacks.hint("--data DIR of a stopped node, or --kafka-brokers and --store-url"));
        }
        let settings = self.settings()?;
        let lacks = |what: &str| Failure::usage(what).hint("`--data DIR` names both log and store of a stopped node");
        let (log, lock): (Arc<dyn Log>, _) = match (KafkaSettings::of(&settings.kafka)?, &self.data) {
            (Some(kafka), _) => (Arc::new(KafkaLog::open(&kafka).await?), None),
            (None, Some(data)) => {
                let dir = DataDir::open(data)?;
                (EmbeddedLog::open_read_only(&dir.log())?, Some(dir))
            }
            (None, None) => return Err(lacks("the settings name no log on Kafka (--kafka-brokers)")),
        };
        if self.data.is_none() && settings.store.url.is_none() {
            return Err(lacks("say where the store is: --store-url URL"));
        }
        let near = self.data.as_deref().unwrap_or(Path::new("."));
        let store = store::open_read_only(&settings.store, &near.join("store")).await?;
        Ok(Opened { log, store, lock })
    }
}

/// See the module.
pub struct Opened {
    pub log: Arc<dyn Log>,
    pub store: Arc<dyn Store>,
    lock: Option<DataDir>,
}

impl Opened {
    /// True if the directory holds the log.
    pub fn is_own(&self) -> bool {
        self.lock.is_some()
    }
}

/// The settings that `serve` on a directory would have: by its variables, and its configuration file.
pub fn settings(data: &Path, config: Option<&Path>) -> Outcome<Settings> {
    let (data, config) = (Some(data.to_owned()), config.map(Path::to_owned));
    SourceArgs { data, config, ..SourceArgs::default() }.settings()
}

/// What the variables say: the flags of an empty command line.
fn variables() -> Outcome<Settings> {
    let command = Settings::augment_args(Command::new("tuflog"));
    let read = command.try_get_matches_from(["tuflog"]).and_then(|m| Settings::from_arg_matches(&m));
    read.map_err(|e| Failure::usage(e.to_string()))
}
