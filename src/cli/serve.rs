//! `tuflog serve`: a node, until it is told to stop.

use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::{Code, Failure, Outcome};
use super::logging;
use crate::config::{LogFormat, Settings};
use crate::error::Kind;
use crate::node;

const EXAMPLES: &str = "\
Examples:
  tuflog serve --data repo
  tuflog serve --data repo --listen 127.0.0.1:0 --targets /srv/targets
  tuflog serve --data repo --listen 0.0.0.0:8080 --auth-tokens-file /etc/tuflog/tokens
  tuflog serve --data repo --store-url s3://bucket/prefix --store-region eu-central-1
  tuflog serve --data w2 --keys /etc/tuflog/keys --kafka-brokers kafka:9092 --store-url s3://bucket/repo --roles fold
  TUFLOG_LOG=tuflog=debug tuflog serve --data repo

What it serves:
  /metadata/…     timestamp.json, N.snapshot.json, …: the base URL of TUF clients
  /targets/…      the files in --targets, if given
  /v1/…           the API: batches, targets, checkpoints, status
  /healthz        200 while the process is alive      /readyz   200 while it takes writes
  /metrics        for Prometheus

Signals: SIGTERM and SIGINT stop it cleanly. It takes no more batches, publishes what is committed, exits with 0. \
SIGHUP reads the tokens file again; one that cannot be taken changes nothing.";

/// Serve a repository: take batches, publish checkpoints
#[derive(Debug, Args)]
#[command(long_about = "Serve a repository: take batches, publish checkpoints.

On a log in the data directory that `tuflog init` made, one process does everything and holds the directory's lock; \
a second one is refused. On Kafka (kafka.brokers) any number share a repository, each with a directory of its own and \
the --roles it is given. The address it answers at stands in DIR/http.addr while it runs. Everything that expires is \
renewed before, for as long as one runs.

A setting comes from its flag, else from its variable, else from the configuration file, else it has its default. \
The file is DIR/tuflog.toml if that is there; relative paths in it are taken from its directory.")]
#[command(after_long_help = EXAMPLES)]
pub struct ServeArgs {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// The configuration file [default: DIR/tuflog.toml, if it is there]
    #[arg(long, env = "TUFLOG_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten, next_help_heading = "Settings (each also a key of tuflog.toml)")]
    settings: Settings,
}

/// Runs the command.
pub fn run(args: ServeArgs) -> Outcome {
    let settings = args.settings.or(file(&args.data, args.config.as_deref())?);
    logging::start(settings.log.as_deref().unwrap_or("info"), settings.log_format.unwrap_or(LogFormat::Auto))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Code::TryAgain, format!("cannot start: {e}")))?;
    runtime.block_on(node::run(args.data, settings)).map_err(|e| match e.kind {
        Kind::Invalid => Failure::usage(e.to_string()), // data directory, keys, settings
        _ => Failure::from(e),
    })
}

/// The settings of the configuration file, if there is one.
pub(super) fn file(data: &Path, named: Option<&Path>) -> Outcome<Settings> {
    let usual = data.join("tuflog.toml");
    let path = match named {
        Some(path) => path,
        None if usual.exists() => &usual,
        None => return Ok(Settings::default()),
    };
    let settings = Settings::read(path)
        .map_err(|e| Failure::usage(e.to_string()).hint("`tuflog serve --help` explains every setting"))?;
    Ok(settings.relative_to(path.parent().unwrap_or(Path::new("."))))
}
