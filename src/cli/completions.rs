//! `tuflog completions` and `tuflog man`: what shells and `man` know of the commands, from the command line itself.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;
use clap_mangen::Man;

use super::failure::{Failure, Outcome};
use super::help;
use super::output::{line, plural};

const SHELL_EXAMPLES: &str = "\
Examples:
  tuflog completions bash > /etc/bash_completion.d/tuflog
  tuflog completions zsh > \"${fpath[1]}/_tuflog\"
  tuflog completions fish > ~/.config/fish/completions/tuflog.fish";

/// Print the completions of a shell
#[derive(Debug, Args)]
#[command(after_long_help = SHELL_EXAMPLES)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs `tuflog completions`.
pub fn run(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut help::command(), "tuflog", &mut script);
    Ok(io::stdout().lock().write_all(&script)?)
}

const MAN_EXAMPLES: &str = "\
Examples:
  tuflog man /usr/local/share/man/man1    # then: man tuflog, man tuflog-status
  tuflog man . && man ./tuflog.1";

/// Write the man pages
#[derive(Debug, Args)]
#[command(long_about = "Write the man pages to a directory: tuflog.1, and one for each command.")]
#[command(after_long_help = MAN_EXAMPLES)]
pub struct ManArgs {
    /// The directory; made if need be
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Runs `tuflog man`.
pub fn man(args: &ManArgs) -> Outcome {
    let failed = |e: io::Error| Failure::usage(format!("{}: {e}", args.dir.display()));
    std::fs::create_dir_all(&args.dir).map_err(failed)?;
    let command = help::command();
    let mut pages = vec![("tuflog".to_owned(), command.clone())];
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let name = format!("tuflog-{}", sub.get_name());
        pages.push((name.clone(), sub.clone().name(name)));
    }
    for (name, command) in &pages {
        let mut page = Vec::new();
        Man::new(command.clone()).render(&mut page)?;
        std::fs::write(args.dir.join(format!("{name}.1")), page).map_err(failed)?;
    }
    line(format!("{} in {}", plural(pages.len() as u64, "page", "pages"), args.dir.display()))
}
