//! `tuflog doctor`: what a node stands on, checked before it runs or while it does; or a published repository.

mod repository;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::failure::{Code, Failure, Outcome};
use super::output;
use crate::clock::SystemClock;
use crate::config::Settings;
use crate::doctor::repository::Client;
use crate::doctor::{self, Finding, Report, Severity, Subject};

/// How long a repository may take, unless that is said.
const TIMEOUT: Duration = Duration::from_secs(600);

const EXAMPLES: &str = "\
Examples:
  tuflog doctor --data repo
  tuflog doctor --data w2 --kafka-brokers kafka:9092 --store-url s3://bucket/repo --roles fold
  tuflog doctor --config /srv/tuflog/tuflog.toml --json
  tuflog doctor http://127.0.0.1:8080/metadata/ --root root.json
  tuflog doctor ./public/metadata --client tough,php-tuf --quiet

A repository is judged for the clients of --client, or else for python-tuf, tuf-js, go-tuf and tough, without those \
that its form of delegation is not for: hash bins that tough cannot read are a note, not an error, until you name tough. \
Every client gets a line in the end; name one to learn why it cannot use the repository, and what to do.

Exit codes: 0 when all is well or only warnings were found, 1 with errors (a judged client refuses the repository, or \
misses targets), 2 when it was not called rightly, 3 when the server does not answer.";

/// Check what a node stands on, or any TUF repository for its clients
#[derive(Debug, Args)]
#[command(
    long_about = "Check what a node stands on, and say what is wrong, why it matters and what to do: its settings, \
keys, disk, clock and store, and the log. On Kafka also every broker, the settings and copies of every topic, what this \
user may do, and who is in the consumer groups.

Give it the options of `serve`. It goes on after a problem, so one run names them all; what could not be checked is \
said too. It changes nothing, but for trying the conditions of an S3 server on an object of its own, as every start \
does. It works beside a running node, and leaves out then what only the node itself can see.

With REPOSITORY it checks published metadata instead, tuflog's or not, for what real clients will refuse or choke on: \
signatures, keys, dates, sizes, forms of delegation, corners of canonical JSON, paths. It reads every role, no target \
files, and says for each client whether it can use the repository."
)]
#[command(after_long_help = EXAMPLES)]
pub struct DoctorArgs {
    /// A published repository to check instead of a node: the URL or folder of its metadata
    #[arg(value_name = "REPOSITORY", conflicts_with = "data")]
    repository: Option<String>,

    /// The root.json that the repository's clients trust [default: its own first root]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,

    /// The clients to judge a repository for, and to tell of
    #[arg(long = "client", value_name = "NAME", value_delimiter = ',')]
    clients: Vec<Client>,

    /// How long a repository may take, in seconds; then the report is of what was read [default: 600]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    timeout: Option<u64>,

    /// The data directory of the node [default: that of the configuration file]
    #[arg(long, value_name = "DIR", required_unless_present_any = ["config", "repository"])]
    data: Option<PathBuf>,

    /// The configuration file [default: DIR/tuflog.toml, if it is there]
    #[arg(long, env = "TUFLOG_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print the report as JSON, as schemas/doctor.json or doctor-repository.json describes it
    #[arg(long)]
    json: bool,

    /// Say only what is not well
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,

    #[command(flatten, next_help_heading = "Settings (as those of serve)")]
    settings: Settings,
}

/// Runs the command.
pub async fn run(args: DoctorArgs) -> Outcome {
    if let Some(repository) = args.repository {
        let timeout = args.timeout.map_or(TIMEOUT, Duration::from_secs);
        let subject = repository::Subject { repository, root: args.root, clients: args.clients, timeout };
        return repository::run(&subject, args.json, args.quiet).await;
    }
    if args.root.is_some() || !args.clients.is_empty() || args.timeout.is_some() {
        return Err(Failure::usage("--root, --client and --timeout are about a REPOSITORY: give its URL or folder"));
    }
    let near = || args.config.as_deref().and_then(Path::parent).filter(|dir| !dir.as_os_str().is_empty());
    let data = args.data.clone().unwrap_or_else(|| near().unwrap_or(Path::new(".")).to_owned());
    let subject = Subject { data, config: args.config, flags: args.settings };
    let report = doctor::check(subject, &SystemClock).await;
    if args.json {
        output::json(&report)?;
    } else {
        people(&report, args.quiet)?;
    }
    match report.errors {
        0 => Ok(()),
        _ => Err(Failure::Quiet(Code::Failed)),
    }
}

/// One line a finding; below those that have it in common, why it matters and what to do.
fn people(report: &Report, quiet: bool) -> Outcome {
    let width = report.findings.iter().map(|f| f.area.name().len()).max().unwrap_or(0);
    let shown: Vec<&Finding> = report.findings.iter().filter(|f| !quiet || f.severity != Severity::Ok).collect();
    let alike =
        |a: &&Finding, b: &&Finding| (a.severity, a.area, &a.why, &a.fix) == (b.severity, b.area, &b.why, &b.fix);
    for findings in shown.chunk_by(alike) {
        for Finding { severity, area, what, .. } in findings {
            let what = what.trim_end().replace('\n', "\n    ");
            output::line(format!("{:7}  {:width$}  {what}", severity.name(), area.name()))?;
        }
        for (name, text) in [("why", &findings[0].why), ("do", &findings[0].fix)] {
            if let Some(text) = text {
                output::line(format!("{:7}  {:width$}    {name:3}  {text}", "", ""))?;
            }
        }
    }
    let counts = [
        (report.errors, "error", "errors"),
        (report.warnings, "warning", "warnings"),
        (report.skipped, "not checked", "not checked"),
        (report.ok, "ok", "ok"),
    ];
    let counted = counts.iter().filter(|(n, _, _)| *n > 0).map(|(n, one, many)| output::plural(*n as u64, one, many));
    output::line(counted.collect::<Vec<_>>().join(", "))
}
