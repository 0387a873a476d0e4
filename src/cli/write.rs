//! What the writing commands share: the options of a write, its receipt, and waiting until it is published.

use std::time::Duration;

use clap::Args;

use super::client::{Client, ServerArgs};
use super::failure::{Code, Failure, Outcome};
use super::output;
use crate::change::{self, BatchRequest, ChangeRequest};
use crate::client;
pub use crate::client::Wait;
use crate::config::defaults;
use crate::query::BatchAnswer;

/// How long to wait.
#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    /// When to come back
    #[arg(long, value_enum, default_value = "committed")]
    pub wait: Wait,

    /// How long `--wait published` waits, in seconds; then the exit code is 3
    #[arg(long, value_name = "S", default_value_t = 300)]
    pub timeout: u64,
}

/// The options of a write of one batch.
#[derive(Clone, Debug, Args)]
pub struct WriteArgs {
    /// The batch's id, [A-Za-z0-9._:-]{1,128}; sent again with the same changes it is the same batch [default: random]
    #[arg(long, value_name = "ID")]
    batch_id: Option<String>,

    #[command(flatten)]
    wait: WaitArgs,

    /// Print the receipt as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

/// True if the batch was there before it was sent: the answer's basis is then the newest seq read, otherwise it is the
/// one at which its id was looked up and not found.
pub fn was_known(receipt: &BatchAnswer) -> bool {
    receipt.seq <= receipt.basis
}

/// Sends one batch, waits as the options say, and prints the receipt.
pub async fn send(args: &WriteArgs, changes: Vec<ChangeRequest>) -> Outcome {
    let id = match &args.batch_id {
        Some(id) => id.clone(),
        None => random_id()?,
    };
    change::check_id(&id).map_err(|e| Failure::usage(format!("--batch-id: {}", e.message)))?;
    for change in &changes {
        change.clone().validate_known().map_err(|e| match e.field.as_deref() {
            Some("path") => Failure::usage(format!("PATH: {}", e.message)),
            _ => Failure::usage(e.to_string()),
        })?;
    }
    let client = args.server.client()?;
    let request = BatchRequest { id: Some(id.clone()), basis: None, changes };
    let body = |basis| serde_json::to_vec(&BatchRequest { basis, ..request.clone() }).unwrap_or_default();
    // A server waits half a minute for a checkpoint: who gives it less asks again and looks at the clock.
    let wait = if args.wait.timeout < defaults::WAIT_S { Wait::Committed } else { args.wait.wait };
    let posted = client.post(&id, wait, None, body).await;
    let mut receipt = posted.map_err(|f| say_id(f.into(), &id))?.receipt;
    if args.wait.wait == Wait::Published {
        receipt = published(&client, receipt, args.wait.timeout, body).await?;
    }
    if args.json {
        return output::json(&receipt);
    }
    output::line(sentence(&receipt))?;
    for path in &receipt.not_found {
        output::line(format!("  nothing to remove at {path}"))?;
    }
    Ok(())
}

/// Waits until a committed batch is published.
pub async fn published(
    client: &Client,
    receipt: BatchAnswer,
    timeout_s: u64,
    body: impl Fn(Option<u64>) -> Vec<u8>,
) -> Outcome<BatchAnswer> {
    let (id, seq) = (receipt.batch.clone(), receipt.seq);
    let not_yet = |why: String| {
        let message = format!("batch {id} is committed (seq {seq}) and cannot be lost, but {why}");
        Failure::new(Code::TryAgain, message).hint(format!("look again: tuflog batch {id}"))
    };
    match tokio::time::timeout(Duration::from_secs(timeout_s), client.published(receipt, body)).await {
        Ok(Err(client::Failure::InDoubt(last))) => {
            Err(not_yet(format!("whether it is published is not known: {last}")))
        }
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(not_yet(format!("is not published after {timeout_s} s"))),
    }
}

/// One line about a batch.
pub fn sentence(receipt: &BatchAnswer) -> String {
    let at = match receipt.checkpoint {
        Some(n) => format!(" in checkpoint {n}"),
        None => String::new(),
    };
    format!("batch {} is {}{at} (seq {})", receipt.batch, receipt.state.name(), receipt.seq)
}

/// A failure that may leave the batch behind says under which id to send it again.
fn say_id(failure: Failure, id: &str) -> Failure {
    match failure {
        Failure::Said { code: Code::TryAgain, message, hint } => {
            let again = format!("run it again with --batch-id {id}, so that it cannot happen twice");
            let hint = Some(hint.map_or(again.clone(), |h| format!("{h}; {again}")));
            Failure::Said { code: Code::TryAgain, message, hint }
        }
        other => other,
    }
}

fn random_id() -> Outcome<String> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes)
        .map_err(|e| Failure::new(Code::TryAgain, format!("the system has no randomness for a batch id: {e}")))?;
    Ok(format!("cli-{}", hex::encode(bytes)))
}
