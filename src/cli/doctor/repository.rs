//! `tuflog doctor REPOSITORY`: how a report on a published repository is printed.

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::output;
use crate::clock::SystemClock;
pub use crate::doctor::repository::Subject;
use crate::doctor::repository::report::{Finding, Judged, Level, Report, Verdict};
use crate::doctor::repository::{self, Client, Seen};
use crate::error::Kind;

/// Where the text of a finding begins.
const INDENT: usize = 9;

/// Checks a repository and prints what was found.
pub async fn run(subject: &Subject, json: bool, quiet: bool) -> Outcome {
    let bar = bar();
    let watch = |seen: &Seen| {
        bar.set_message(so_far(seen));
        bar.tick();
    };
    let report = repository::check(subject, &SystemClock, &watch).await;
    bar.finish_and_clear();
    let report = report.map_err(|e| match e.kind {
        Kind::Invalid => Failure::usage(e.message),
        _ => Failure::from(e),
    })?;
    if json {
        output::json(&report)?;
    } else {
        people(&report, quiet)?;
    }
    match report.errors {
        0 => Ok(()),
        _ => Err(Failure::Quiet(Code::Failed)),
    }
}

/// A line on standard error, where that is a terminal.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

/// How far it is, in a few words.
fn so_far(seen: &Seen) -> String {
    let files = output::plural(seen.files, "file", "files");
    format!("{files} read, {}, {}", output::bytes(seen.bytes), output::plural(seen.targets, "target", "targets"))
}

fn people(report: &Report, quiet: bool) -> Outcome {
    if !quiet {
        output::line(looked_at(report))?;
    }
    let shown = report.findings.iter().filter(|f| !quiet || f.level > Level::Note);
    let mut last = None;
    for finding in shown {
        // Notes are a line each and stand together; everything else is a paragraph.
        if (last, finding.level) != (Some(Level::Note), Level::Note) && !(quiet && last.is_none()) {
            output::line("")?;
        }
        last = Some(finding.level);
        match finding.level {
            Level::Note => note(finding)?,
            _ => paragraph(finding)?,
        }
    }
    let verdicts = report.clients.iter().filter(|c| !quiet || (c.judged && c.verdict != Verdict::CanUse));
    let verdicts: Vec<&Judged> = verdicts.collect();
    if !verdicts.is_empty() {
        output::line("")?;
    }
    for judged in verdicts {
        output::line(verdict(judged))?;
    }
    if quiet {
        return Ok(());
    }
    let counts =
        [(report.errors, "error", "errors"), (report.warnings, "warning", "warnings"), (report.notes, "note", "notes")];
    let counted = counts.iter().filter(|(n, _, _)| *n > 0).map(|(n, one, many)| output::plural(*n as u64, one, many));
    let counted: Vec<String> = counted.collect();
    let counted = if counted.is_empty() { "nothing found".to_owned() } else { counted.join(", ") };
    let judged: Vec<&str> = report.clients.iter().filter(|c| c.judged).map(|c| c.client.name()).collect();
    output::line("")?;
    output::line(format!("{counted}; judged for {}", judged.join(", ")))
}

/// What was looked at, in a line.
fn looked_at(report: &Report) -> String {
    let seen = &report.seen;
    let roles = [("root", seen.root), ("timestamp", seen.timestamp), ("snapshot", seen.snapshot)];
    let mut parts: Vec<String> =
        roles.iter().filter(|(_, v)| *v > 0).map(|(role, version)| format!("{role} {version}")).collect();
    if seen.delegated > 0 {
        parts.push(output::plural(seen.delegated, "delegated role", "delegated roles"));
    }
    parts.push(output::plural(seen.targets, "target", "targets"));
    let files = output::plural(seen.files, "file", "files");
    format!("{}: {} ({files}, {})", seen.repository, parts.join(", "), output::bytes(seen.bytes))
}

/// What the clients do that a finding concerns.
fn who(finding: &Finding) -> String {
    let names = |clients: &[Client]| match clients.len() {
        n if n == Client::ALL.len() => "every client".to_owned(),
        _ => clients.iter().map(|c| c.name()).collect::<Vec<_>>().join(", "),
    };
    let verbs = [
        (&finding.refuse, "refuses the repository", "refuse the repository"),
        (&finding.miss, "misses targets", "miss targets"),
        (&finding.struggle, "can use it with trouble", "can use it with trouble"),
    ];
    let one = |clients: &[Client]| clients.len() == 1 || clients.len() == Client::ALL.len();
    let said = verbs.iter().filter(|(clients, _, _)| !clients.is_empty());
    let said = said.map(|(c, singular, plural)| format!("{} {}", names(c), if one(c) { singular } else { plural }));
    said.collect::<Vec<_>>().join("; ")
}

/// A line; what concerns no client in particular says at once what to do, the rest when a client is named.
fn note(finding: &Finding) -> Outcome {
    let Finding { name, what, fix, .. } = finding;
    let who = who(finding);
    if who.is_empty() {
        output::line(format!("{:INDENT$}{name}: {what}", "note"))?;
        return output::line(format!("{:INDENT$}{:4} {fix}", "", "do"));
    }
    output::line(format!("{:INDENT$}{name}: {what} ({who})", "note"))
}

fn paragraph(finding: &Finding) -> Outcome {
    output::line(format!("{:INDENT$}{}: {}", finding.level.name(), finding.name, finding.what))?;
    let below = |name: &str, text: &str| output::line(format!("{:INDENT$}{name:4} {text}", ""));
    below("who", &who(finding))?;
    for (i, spot) in finding.spots.iter().enumerate() {
        let field = if spot.field.is_empty() { String::new() } else { format!(" {}", spot.field) };
        below(if i == 0 { "at" } else { "" }, &format!("{}{field}: {}", spot.file, spot.is))?;
    }
    let more = finding.count - finding.spots.len() as u64;
    if more > 0 {
        below("", &format!("and {} more", output::count(more)))?;
    }
    below("why", &finding.why)?;
    below("do", &finding.fix)
}

fn verdict(judged: &Judged) -> String {
    let verdict = match judged.verdict {
        Verdict::CanUse => "can use it",
        Verdict::WithWarnings => "can use it, with warnings",
        Verdict::MissesTargets => "misses targets",
        Verdict::CannotUse => "cannot use it",
    };
    let because = if judged.because.is_empty() { String::new() } else { format!(": {}", judged.because.join(", ")) };
    let width = Client::ALL.map(|c| c.name().len()).into_iter().max().unwrap_or(0);
    format!("{:width$}  {verdict}{because}", judged.client.name())
}
