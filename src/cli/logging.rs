//! Where log lines go: stderr, pretty for people or JSON for machines.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::failure::{Failure, Outcome};
use crate::config::LogFormat;

/// Starts logging with a filter such as `info` or `tuflog=debug`.
///
/// # Errors
/// Usage, if the filter cannot be read.
pub fn start(filter: &str, format: LogFormat) -> Outcome {
    let parsed = EnvFilter::try_new(filter).map_err(|e| {
        Failure::usage(format!("log: {filter:?} is not a filter: {e}")).hint("try info or tuflog=debug")
    })?;
    let terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(io::stderr);
    // It fails only if logging was started before: then that one stands.
    let _ = match format {
        LogFormat::Pretty => builder.with_ansi(terminal).with_target(false).try_init(),
        LogFormat::Auto if terminal => builder.with_ansi(true).with_target(false).try_init(),
        LogFormat::Json | LogFormat::Auto => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    Ok(())
}

/// Logging of a command that is no server: warnings of our own code, more with `-v`.
pub fn start_for_command(verbose: u8) -> Outcome {
    let filter = match verbose {
        0 => return Ok(()),
        1 => "tuflog=debug",
        _ => "tuflog=trace,reqwest=debug,hyper_util=debug",
    };
    start(filter, LogFormat::Pretty)
}
