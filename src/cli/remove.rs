//! `tuflog remove`: one batch of removals.

use std::collections::BTreeSet;

use clap::Args;

use super::failure::Outcome;
use super::write::{self, WriteArgs};
use crate::change::{ChangeRequest, Op};

const EXAMPLES: &str = "\
Examples:
  tuflog remove hello.txt --wait published
  tuflog remove app/1.1.tar.gz app/1.2.tar.gz --batch-id yank-1";

/// Remove targets, all in one batch
#[derive(Debug, Args)]
#[command(long_about = "Remove targets, all in one batch: clients see all of them go at once.

A path at which nothing is published is no error; the receipt of a published batch names it.")]
#[command(after_long_help = EXAMPLES)]
pub struct RemoveArgs {
    /// The targets' paths
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,

    #[command(flatten)]
    write: WriteArgs,
}

/// Runs the command.
pub async fn run(args: RemoveArgs) -> Outcome {
    let remove = |path| ChangeRequest { op: Op::Remove, path, length: None, hashes: None, custom: None };
    // The second removal of a path would be told as one that found nothing.
    let mut seen = BTreeSet::new();
    let paths = args.paths.into_iter().filter(|path| seen.insert(path.clone()));
    write::send(&args.write, paths.map(remove).collect()).await
}
