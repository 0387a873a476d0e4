//! The store of a stopped node: the one that `serve` would use, by its variables TUFLOG_STORE_… and configuration file.

use std::path::Path;
use std::sync::Arc;

use clap::{Args, Command, FromArgMatches};

use super::failure::{Failure, Outcome};
use super::serve;
use crate::config;
use crate::data_dir::DataDir;
use crate::store::{self, Store};

/// Opens it to read only.
pub async fn open(dir: &DataDir) -> Outcome<Arc<dyn Store>> {
    let named = std::env::var_os("TUFLOG_CONFIG");
    let file = serve::file(dir.path(), named.as_deref().map(Path::new))?;
    let settings = variables()?.or(file.store);
    Ok(store::open_read_only(&settings, &dir.store()).await?)
}

/// What the variables say: the flags of an empty command line.
fn variables() -> Outcome<config::Store> {
    let command = config::Store::augment_args(Command::new("tuflog"));
    let read = command.try_get_matches_from(["tuflog"]).and_then(|m| config::Store::from_arg_matches(&m));
    read.map_err(|e| Failure::usage(e.to_string()))
}
