//! The command line: one file a command.
//!
//! ```text
//!   init serve                       make a repository, run a node
//!   add remove import                write.rs: options, receipts; client.rs: which server; ../client.rs: HTTP, retries
//!   status lag batch target route search bins checkpoints log history diff
//!                                    ask.rs: a server, or log and store read here (opened.rs)
//!   replay export                    history for other programs, and as it was published
//!   audit                            everything from the first record on
//!   doctor                           what a node stands on
//!   recover                          what to do after records were lost
//!   bench                            load and measure, and check meanwhile
//!   completions                      for shells, and man pages
//!   failure.rs  exit codes           output.rs  tables, units, JSON      logging.rs  log lines
//! ```
//!
//! A command returns; it never ends the process. What it returns becomes the exit code here.

mod add;
mod ask;
mod audit;
mod batch;
mod bench;
mod bins;
mod checkpoints;
mod client;
mod completions;
mod diff;
mod doctor;
mod export;
mod failure;
mod help;
mod history;
mod import;
mod init;
mod lag;
mod log;
mod logging;
mod opened;
mod output;
mod recover;
mod remove;
mod replay;
mod route;
mod search;
mod serve;
mod settings_file;
pub mod source;
mod status;
mod target;
mod write;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{FromArgMatches, Parser, Subcommand};

use failure::{Code, Failure, Outcome};

/// Event-sourced metadata store for TUF (The Update Framework)
#[derive(Debug, Parser)]
#[command(name = "tuflog", version, max_term_width = 100)]
struct Cli {
    /// Say more on stderr: what is tried again, what is left out; twice: every request
    #[arg(short, long, global = true, display_order = 900, action = clap::ArgAction::Count)]
    verbose: u8,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::InitArgs),
    Serve(Box<serve::ServeArgs>),
    Add(add::AddArgs),
    Remove(remove::RemoveArgs),
    Import(import::ImportArgs),
    Status(status::StatusArgs),
    Lag(lag::LagArgs),
    Batch(batch::BatchArgs),
    Target(target::TargetArgs),
    Route(route::RouteArgs),
    Search(search::SearchArgs),
    Bins(bins::BinsArgs),
    Bin(bins::BinArgs),
    Checkpoints(checkpoints::CheckpointsArgs),
    Checkpoint(checkpoints::CheckpointArgs),
    Log(log::LogArgs),
    History(history::HistoryArgs),
    Diff(diff::DiffArgs),
    Replay(replay::ReplayArgs),
    Export(export::ExportArgs),
    Audit(audit::AuditArgs),
    Doctor(Box<doctor::DoctorArgs>),
    Recover(recover::RecoverArgs),
    Bench(Box<bench::BenchArgs>),
    Completions(completions::CompletionsArgs),
    Man(completions::ManArgs),
}

/// Runs the command that `args` (the program's name first) spell.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = help::command().try_get_matches_from(args).and_then(|m| Cli::from_arg_matches(&m));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print(); // help goes to stdout, what is wrong to stderr; closed is closed
            return if e.use_stderr() { ExitCode::from(Code::Usage as u8) } else { ExitCode::SUCCESS };
        }
    };
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dispatch(cli: Cli) -> Outcome {
    let command = match cli.command {
        Command::Serve(args) => return serve::run(*args),
        other => other,
    };
    logging::start_for_command(cli.verbose)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Code::TryAgain, format!("cannot start: {e}")))?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Serve(_) => Ok(()), // above
            Command::Init(args) => init::run(args).await,
            Command::Add(args) => add::run(args).await,
            Command::Remove(args) => remove::run(args).await,
            Command::Import(args) => import::run(args).await,
            Command::Status(args) => status::run(args).await,
            Command::Lag(args) => lag::run(args).await,
            Command::Batch(args) => batch::run(args).await,
            Command::Target(args) => target::run(args).await,
            Command::Route(args) => route::run(args).await,
            Command::Search(args) => search::run(args).await,
            Command::Bins(args) => bins::all(args).await,
            Command::Bin(args) => bins::one(args).await,
            Command::Checkpoints(args) => checkpoints::run(args).await,
            Command::Checkpoint(args) => checkpoints::of(args).await,
            Command::Log(args) => log::run(args).await,
            Command::History(args) => history::run(args).await,
            Command::Diff(args) => diff::run(args).await,
            Command::Replay(args) => replay::run(args).await,
            Command::Export(args) => export::run(args).await,
            Command::Audit(args) => audit::run(args).await,
            Command::Doctor(args) => doctor::run(*args).await,
            Command::Recover(args) => recover::run(args).await,
            Command::Bench(args) => bench::run(*args).await,
            Command::Completions(args) => completions::run(&args),
            Command::Man(args) => completions::man(&args),
        }
    });
    runtime.shutdown_background(); // a name that is being resolved must not hold up the end
    outcome
}
