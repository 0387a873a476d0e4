//! `tuflog lag`: how far what is published is behind the log.

use clap::Args;

use super::ask::{self, AskArgs, Asked};
use super::failure::Outcome;
use super::output::{count, line, table};
use crate::query::{InboxLag, LagAnswer, PartitionLag};

const EXAMPLES: &str = "\
Examples:
  tuflog lag
  tuflog lag --json
  kafka-consumer-groups --describe --group REPO.folds     # the same numbers, by Kafka's own tool";

/// Show how far what is published is behind the log
#[derive(Debug, Args)]
#[command(
    long_about = "Show how far what is published is behind the log, for each partition: the end of its segments, \
and how far the newest published checkpoint goes. On Kafka these are the offsets of the consumer group REPO.folds,
and the inbox is shown too, by those of the group REPO.inbox.

A segment that no Commit names (an intake died in between) counts until the next one behind it is published.

With --data, log and store are those of serve on DIR: what DIR/tuflog.toml says, or the file in TUFLOG_CONFIG, and \
before it the variables of serve, such as TUFLOG_KAFKA_BROKERS, TUFLOG_KAFKA_REPO and TUFLOG_STORE_URL."
)]
#[command(after_long_help = EXAMPLES)]
pub struct LagArgs {
    #[command(flatten)]
    ask: AskArgs,
}

/// Runs the command.
pub async fn run(args: LagArgs) -> Outcome {
    let answer: LagAnswer = match args.ask.open().await? {
        Asked::Server(client) => ask::read(client.get("v1/lag", &[]).await?)?,
        Asked::Data(data) => data.query.lag().await?,
    };
    args.ask.print(&answer, |a| {
        let row = |p: &PartitionLag| vec![p.partition.to_string(), count(p.published), count(p.end), count(p.lag)];
        line(format!("checkpoint {}, {} records behind", count(a.checkpoint), count(a.lag)))?;
        line("")?;
        table(&["PARTITION", "PUBLISHED", "END", "LAG"], &[0, 1, 2, 3], a.partitions.iter().map(row).collect())?;
        if a.inbox.is_empty() {
            return Ok(());
        }
        let row = |p: &InboxLag| vec![p.partition.to_string(), count(p.decided), count(p.end), count(p.lag)];
        line("")?;
        table(&["INBOX", "DECIDED", "END", "LAG"], &[0, 1, 2, 3], a.inbox.iter().map(row).collect())
    })
}
