//! `tuflog status`: how the repository stands.

use clap::Args;

use super::ask::{self, AskArgs, Asked, Data};
use super::failure::Outcome;
use super::output::{bytes, count, duration, facts, table, time};
use crate::clock::{Clock, SystemClock};
use crate::http::{LayoutStatus, LedgerStatus, PublishedStatus, QueueStatus, StatusAnswer};

const EXAMPLES: &str = "\
Examples:
  tuflog status
  tuflog status --json
  tuflog status --data repo               # of a stopped node
  tuflog status --server https://tuf.example.org";

/// Show how the repository stands
#[derive(Debug, Args)]
#[command(long_about = "Show how the repository stands: what is committed, what is published, and until when clients \
believe it. Exit code 0 whether the node takes writes or not: for that ask /readyz.")]
#[command(after_long_help = EXAMPLES)]
pub struct StatusArgs {
    #[command(flatten)]
    ask: AskArgs,
}

/// Runs the command.
pub async fn run(args: StatusArgs) -> Outcome {
    let answer: StatusAnswer = match args.ask.open().await? {
        Asked::Server(client) => ask::read(client.get("v1/status", &[]).await?)?,
        Asked::Data(data) => stopped(&data).await?,
    };
    args.ask.print(&answer, people)
}

/// The answer of a node that does not run.
async fn stopped(data: &Data) -> Outcome<StatusAnswer> {
    let layout = data.query.layout().await?;
    let published = match data.query.timestamp().await? {
        None => None,
        Some(t) => {
            let now = data.query.published().await?;
            let time = data.query.cut_time(now.seq).await?;
            Some(PublishedStatus { version: now.version, checkpoint: now.n, seq: now.seq, time, expires: t.expires })
        }
    };
    Ok(StatusAnswer {
        version: env!("CARGO_PKG_VERSION").into(),
        layout: LayoutStatus { bins: layout.bins(), partitions: layout.partitions() },
        ledger: LedgerStatus { next: data.query.ledger_end().await? },
        published,
        queue: QueueStatus { bytes: 0 },
        ready: false,
        reasons: vec!["the node does not run".into()],
        partitions: vec![],
        uptime_s: 0,
    })
}

fn people(s: &StatusAnswer) -> Outcome {
    let now = SystemClock.now();
    let mut rows = vec![("state", if s.ready { "ready".to_owned() } else { "not ready".to_owned() })];
    rows.extend(s.reasons.iter().map(|reason| ("", reason.clone())));
    match &s.published {
        None => rows.push(("published", "nothing yet".into())),
        Some(p) => {
            rows.push(("published", format!("checkpoint {}, cut {}", count(p.checkpoint), time(p.time, now))));
            rows.push(("timestamp", format!("version {}, expires {}", count(p.version), time(p.expires, now))));
        }
    }
    rows.push(("ledger", format!("{} records", count(s.ledger.next))));
    rows.push(("layout", format!("{} bins in {} partitions", count(s.layout.bins.into()), s.layout.partitions)));
    if s.uptime_s > 0 || !s.partitions.is_empty() {
        rows.push(("queue", bytes(s.queue.bytes)));
        rows.push(("running", format!("tuflog {} for {}", s.version, duration(s.uptime_s))));
    }
    facts(&rows)?;
    if s.partitions.is_empty() {
        return Ok(());
    }
    let row = |p: &crate::http::PartitionStatus| vec![p.partition.to_string(), count(p.position), count(p.behind)];
    super::output::line("")?;
    table(&["PARTITION", "NEXT SEQ", "BEHIND"], &[0, 1, 2], s.partitions.iter().map(row).collect())
}
