//! A repository opened to read only: the data directory of a stopped node, or what a worker's settings name on Kafka.
//!
//! Log and store are those that `serve` would use, by its variables TUFLOG_… and configuration file. A directory that
//! holds its log is locked as long as this lives; a log on Kafka is shared, and reading it takes nothing from anybody.

use std::path::Path;
use std::sync::Arc;

use clap::{Args, Command, FromArgMatches};

use super::failure::{Failure, Outcome};
use super::serve;
use crate::config::Settings;
use crate::data_dir::DataDir;
use crate::log::Log;
use crate::log::embedded::EmbeddedLog;
use crate::log::kafka::{KafkaLog, KafkaSettings};
use crate::store::{self, Store};

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

/// Opens what belongs to a data directory.
pub async fn open(data: &Path) -> Outcome<Opened> {
    let settings = settings(data, None)?;
    let (log, lock): (Arc<dyn Log>, _) = match KafkaSettings::of(&settings.kafka)? {
        Some(kafka) => (Arc::new(KafkaLog::open(&kafka).await?), None),
        None => {
            let dir = DataDir::open(data)?;
            (EmbeddedLog::open_read_only(&dir.log())?, Some(dir))
        }
    };
    let store = store::open_read_only(&settings.store, &data.join("store")).await?;
    Ok(Opened { log, store, lock })
}

/// The settings that `serve` would have: by its variables, and the configuration file that is named here or by one.
pub fn settings(data: &Path, config: Option<&Path>) -> Outcome<Settings> {
    let named = std::env::var_os("TUFLOG_CONFIG");
    Ok(variables()?.or(serve::file(data, config.or(named.as_deref().map(Path::new)))?))
}

/// What the variables say: the flags of an empty command line.
fn variables() -> Outcome<Settings> {
    let command = Settings::augment_args(Command::new("tuflog"));
    let read = command.try_get_matches_from(["tuflog"]).and_then(|m| Settings::from_arg_matches(&m));
    read.map_err(|e| Failure::usage(e.to_string()))
}
