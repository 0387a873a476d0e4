//! `tuflog --help`: the commands in groups, and what holds for all of them.

use clap::CommandFactory;

use super::Cli;

/// The commands, as they are listed.
const GROUPS: [(&str, &[&str]); 6] = [
    ("Run a repository", &["init", "serve"]),
    ("Publish", &["add", "remove", "import"]),
    ("Ask", &["status", "lag", "batch", "target", "route", "search", "bins", "bin", "checkpoints", "checkpoint"]),
    ("Look back", &["log", "history", "diff", "replay", "export"]),
    ("Check and recover", &["audit", "doctor", "recover", "bench"]),
    ("Install", &["completions", "man"]),
];

const ABOUT: &str = "\
tuflog is a metadata store for TUF (https://theupdateframework.io), for registries that publish all day. Producers send \
changes (this path now has this length and hash); tuflog orders them in a log, folds them into hash bins, and publishes \
signed bins, snapshots and timestamps that stock TUF clients accept. Everything published follows from the log.";

const MANUAL: &str = "\
Examples:
  tuflog init --data repo
  tuflog serve --data repo
  tuflog add hello.txt --file hello.txt --wait published
  tuflog import --format debian '/var/lib/apt/lists/*_Packages*'
  tuflog status
  tuflog audit --data repo               # when the server is stopped
  tuflog doctor --data repo              # before it starts, or while it runs

A batch of changes is all or nothing, and goes accepted → committed → folded → published. Sent again under the same \
id it is the same batch: the commands choose the id first, and try again by themselves while the server is away.

Exit codes:
  0  good
  1  a finding (nothing there, the audit differs, the doctor names an error) or a failure
  2  usage: the command line or the configuration is wrong
  3  try again: nothing happened, or it may have and the same batch id makes it safe
  4  corrupt: what is stored cannot be true; nothing was repaired

Environment:
  TUFLOG_SERVER     the server that commands talk to [default: http://127.0.0.1:8080]
  TUFLOG_TOKEN      the bearer token they send
  TUFLOG_RETRY_FOR  how many seconds they try again [default: 60; 2 while the server has never answered]
  TUFLOG_CONFIG     the configuration file of serve, whose every setting is a variable too
  TUFLOG_LOG        what serve logs, such as info or tuflog=debug";

/// The command line, with its help.
pub fn command() -> clap::Command {
    let command = Cli::command();
    let width = GROUPS.iter().flat_map(|(_, names)| names.iter()).map(|n| n.len()).max().unwrap_or(0);
    let mut list = String::new();
    for (heading, names) in GROUPS {
        list.push_str(&format!("{heading}:\n"));
        for name in names {
            let about = command.find_subcommand(name).and_then(|c| c.get_about()).map(ToString::to_string);
            list.push_str(&format!("  {name:width$}  {}\n", about.unwrap_or_default()));
        }
        list.push('\n');
    }
    let template =
        format!("{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{list}Options:\n{{options}}{{after-help}}");
    command
        .help_template(template)
        .long_about(ABOUT)
        .after_help("`tuflog help COMMAND` is the manual of a command; `tuflog --help` has the exit codes.")
        .after_long_help(MANUAL)
        .subcommand_required(true)
        .arg_required_else_help(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_command_stands_in_one_group_and_has_examples() {
        let mut listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let mut command = command();
        let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
        assert_eq!(names, listed);
        listed.sort_unstable();
        listed.dedup();
        assert_eq!(listed.len(), names.len());
        for name in names {
            let sub = command.find_subcommand_mut(&name).unwrap();
            let help = sub.render_long_help().to_string();
            assert!(help.contains(&format!("Examples:\n  tuflog {name}")), "{help}");
            assert!(sub.get_about().is_some_and(|a| a.to_string().len() < 70), "{name}");
        }
    }
}
