//! `tuflog status`: how the repository stands.

use clap::Args;

use super::ask::{self, AskArgs, Asked, Data};
use super::failure::Outcome;
use super::output::{Look, ago, bytes, count, duration, facts, look, plural, table, time};
use crate::clock::{Clock, SystemClock, format_utc};
use crate::compact::Published;
use crate::http::{LayoutStatus, LedgerStatus, PublishedStatus, QueueStatus, StatusAnswer};
use crate::query::ExpiryAnswer;

const EXAMPLES: &str = "\
Examples:
  tuflog status
  tuflog status --json
  tuflog status --data repo               # of a stopped node
  tuflog status --server https://tuf.example.org";

/// Show how the repository stands
#[derive(Debug, Args)]
#[command(long_about = "Show how the repository stands: what is committed, what is published, and until when clients \
believe it; how much comes in, and what waits. Exit code 0 whether the node takes writes or not: for that ask /readyz.")]
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
            let behind = data.query.behind(now.seq).await?;
            let Published { version, n: checkpoint, seq } = now;
            Some(PublishedStatus { version, checkpoint, seq, time, expires: t.expires, behind })
        }
    };
    let (expiries, unknown) = data.query.expiries().await;
    Ok(StatusAnswer {
        version: env!("CARGO_PKG_VERSION").into(),
        layout: LayoutStatus { bins: layout.bins(), partitions: layout.partitions() },
        ledger: LedgerStatus { next: data.query.ledger_end().await? },
        published,
        queue: QueueStatus { bytes: 0, limit: 0 },
        roles: vec![],
        expiries,
        warnings: unknown.into_iter().map(|e| e.message).collect(),
        rates: None,
        ready: false,
        reasons: vec!["the node does not run".into()],
        partitions: vec![],
        uptime_s: 0,
    })
}

fn people(s: &StatusAnswer) -> Outcome {
    let now = SystemClock.now();
    let state = if s.ready { look(Look::Good, "ready") } else { look(Look::Bad, "not ready") };
    let mut rows = vec![("state", state)];
    rows.extend(s.reasons.iter().map(|reason| ("", reason.clone())));
    rows.extend(s.warnings.iter().map(|warning| ("warning", look(Look::Bad, warning))));
    if !s.roles.is_empty() {
        rows.push(("roles", s.roles.join(", ")));
    }
    match &s.published {
        None => rows.push(("published", "nothing yet".into())),
        Some(p) => {
            rows.push(("published", format!("checkpoint {}, cut {}", count(p.checkpoint), time(p.time, now))));
            rows.push(("timestamp", format!("version {}", count(p.version))));
            let waits = match p.behind {
                0 => "nothing committed waits".to_owned(),
                seqs => look(Look::Fair, format!("{} behind the newest commit", plural(seqs, "seq", "seqs"))),
            };
            rows.push(("lag", waits));
        }
    }
    rows.push(("ledger", format!("{} records", count(s.ledger.next))));
    rows.push(("layout", format!("{} bins in {} partitions", count(s.layout.bins.into()), s.layout.partitions)));
    if s.uptime_s > 0 || !s.partitions.is_empty() {
        rows.push(("queue", format!("{} of {}", bytes(s.queue.bytes), bytes(s.queue.limit))));
        if let Some(r) = &s.rates {
            let (batches, changes) = (r.batches_per_s, r.changes_per_s);
            rows.push((
                "rates",
                format!(
                    "{changes:.1} changes/s in {batches:.1} batches/s, {:.1} checkpoints/s over {} s",
                    r.checkpoints_per_s, r.seconds
                ),
            ));
            if let (Some(p50), Some(p99)) = (r.visible_p50_ms, r.visible_p99_ms) {
                rows.push(("visible", format!("{p50:.1} ms after the POST, p99 {p99:.1} ms")));
            }
        }
        rows.push(("running", format!("tuflog {} for {}", s.version, duration(s.uptime_s))));
    }
    facts(&rows)?;
    if !s.expiries.is_empty() {
        super::output::line("")?;
        let row = |e: &ExpiryAnswer| {
            let when = ago(e.expires, now);
            let when = if e.expires <= now { look(Look::Bad, when) } else { when };
            vec![e.role.clone(), count(e.version), when, format_utc(e.expires)]
        };
        table(&["ROLE", "VERSION", "EXPIRES", "AT"], &[1], s.expiries.iter().map(row).collect())?;
    }
    if s.partitions.is_empty() {
        return Ok(());
    }
    let row = |p: &crate::http::PartitionStatus| vec![p.partition.to_string(), count(p.position), count(p.behind)];
    super::output::line("")?;
    table(&["PARTITION", "NEXT SEQ", "BEHIND"], &[0, 1, 2], s.partitions.iter().map(row).collect())
}
