//! What the writing commands share: the options of a write, its receipt, and waiting until it is published.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::ask;
use super::client::{Client, ServerArgs};
use super::failure::{Code, Failure, Outcome};
use super::output;
use crate::change::{self, BatchRequest, ChangeRequest};
use crate::clock::{Clock, SystemClock};
use crate::query::{BatchAnswer, BatchState};

/// The shortest and the longest pause between two looks at a batch, in milliseconds.
const LOOK_MS: (u64, u64) = (25, 1_000);

/// When a write is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wait {
    /// It can not be lost any more
    Committed,
    /// Clients see it
    Published,
}

impl Wait {
    /// As the API has it.
    pub fn name(self) -> &'static str {
        match self {
            Wait::Committed => "committed",
            Wait::Published => "published",
        }
    }
}

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

/// How a batch's state reads.
pub fn state_name(state: BatchState) -> &'static str {
    match state {
        BatchState::Committed => "committed",
        BatchState::Folded => "folded",
        BatchState::Published => "published",
    }
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
    let client = Client::new(&args.server)?;
    let request = BatchRequest { id: Some(id.clone()), basis: None, changes };
    let body = |basis| serde_json::to_vec(&BatchRequest { basis, ..request.clone() }).unwrap_or_default();
    let mut receipt = client.post(args.wait.wait.name(), body).await.map_err(|f| say_id(f, &id))?.receipt;
    if args.wait.wait == Wait::Published && receipt.state != BatchState::Published {
        receipt = published(&client, &id, args.wait.timeout).await?;
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

/// Looks at a committed batch until it is published.
pub async fn published(client: &Client, id: &str, timeout_s: u64) -> Outcome<BatchAnswer> {
    let (started, mut pause) = (SystemClock.ticks_ms(), LOOK_MS.0);
    loop {
        let receipt: BatchAnswer = ask::read(client.get(&format!("v1/batches/{id}"), &[]).await?)?;
        if receipt.state == BatchState::Published {
            return Ok(receipt);
        }
        if SystemClock.ticks_ms() - started > timeout_s.saturating_mul(1_000) {
            let message = format!(
                "batch {id} is {} (seq {}) and cannot be lost, but is not published after {timeout_s} s",
                state_name(receipt.state),
                receipt.seq
            );
            return Err(Failure::new(Code::TryAgain, message).hint(format!("look again: tuflog batch {id}")));
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
        pause = (pause * 2).min(LOOK_MS.1);
    }
}

/// One line about a batch.
pub fn sentence(receipt: &BatchAnswer) -> String {
    let at = match receipt.checkpoint {
        Some(n) => format!(" in checkpoint {n}"),
        None => String::new(),
    };
    format!("batch {} is {}{at} (seq {})", receipt.batch, state_name(receipt.state), receipt.seq)
}

/// A failure that may leave the batch behind says under which id to send it again.
fn say_id(failure: Failure, id: &str) -> Failure {
    match failure {
        Failure::Said { code: Code::TryAgain, message, hint } => {
            let again = format!("the same command with --batch-id {id} cannot do it twice");
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
