//! `tuflog log`: the ledger, decoded.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::ask::{self, AskArgs, Asked};
use super::failure::{Code, Failure, Outcome};
use super::output::{self, Look, ago, bytes, count, facts, line, look, plural, table};
use crate::clock::{Clock, SystemClock, format_utc};
use crate::log::Offset;
use crate::query::{KINDS, RecordAnswer, RecordsAnswer, Stretch, Verdict, VerdictKind};

/// How often a server is asked for what is new.
const FOLLOW: Duration = Duration::from_millis(500);
/// How many records are asked for at a time.
const PAGE: usize = 1_000;

const EXAMPLES: &str = "\
Examples:
  tuflog log                              # the newest records
  tuflog log 1234                         # one of them in full, with its segments
  tuflog log --from 0 --limit 100
  tuflog log --kind commit,cut --follow
  tuflog log --data repo --json           # of a stopped node

Kinds: format settings root commit cut checkpoint renew recovery. A record that does not follow from its predecessor \
is void: it changes nothing.";

/// Show the ledger, decoded, or one record in full
#[derive(Debug, Args)]
#[command(
    long_about = "Show the ledger, the total order of everything that happens to the repository: what each record \
says and what it did. One record is shown in full, a Commit with the segments that it names and their changes. With \
--json --follow one JSON document a line."
)]
#[command(after_long_help = EXAMPLES)]
pub struct LogArgs {
    /// Only this record, in full
    #[arg(value_name = "SEQ", conflicts_with_all = ["from", "to", "follow", "kind", "limit"])]
    seq: Option<Offset>,

    /// From this seq on [default: the newest records]
    #[arg(long, value_name = "SEQ")]
    from: Option<Offset>,

    /// Up to this seq
    #[arg(long, value_name = "SEQ")]
    to: Option<Offset>,

    /// Only these kinds
    #[arg(long, value_name = "KINDS", value_delimiter = ',', value_parser = KINDS)]
    kind: Vec<String>,

    /// How many at most [default: 20; all of them with --from and --to]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// Go on with what comes
    #[arg(long, conflicts_with = "to")]
    follow: bool,

    #[command(flatten)]
    ask: AskArgs,
}

/// Runs the command.
pub async fn run(args: LogArgs) -> Outcome {
    let asked = args.ask.open().await?;
    if let Some(seq) = args.seq {
        return one(&args, &asked, seq).await;
    }
    if args.follow
        && let Asked::Data(data) = &asked
    {
        data.followed()?;
    }
    let usual = if args.from.is_some() && args.to.is_some() { usize::MAX } else { 20 };
    let mut left = args.limit.map_or(usual, |n| n as usize);
    let (mut headed, mut whole) = (false, Vec::new());
    let mut page = match args.from {
        Some(from) => stretch_of(&asked, &args, Some(from), args.to, left).await?,
        None => newest(&asked, &args, left).await?,
    };
    let from = page.from;
    loop {
        let RecordsAnswer { records, next, end, .. } = page;
        left = left.saturating_sub(records.len());
        match (args.ask.json, args.follow) {
            (true, true) => records.iter().try_for_each(output::json_line)?,
            (true, false) => whole.extend(records),
            (false, _) => {
                if !std::mem::replace(&mut headed, true) {
                    line(look(Look::Name, format!("{:>10}  {:10}  {:20}  WHAT", "SEQ", "KIND", "WHEN")))?;
                }
                records.iter().try_for_each(|record| brief(record, args.follow))?;
            }
        }
        let at_end = next >= end;
        if args.follow {
            left = usize::MAX;
            if at_end {
                tokio::time::sleep(FOLLOW).await;
            }
        } else if left == 0 || at_end || args.to.is_some_and(|to| next > to) {
            return match args.ask.json {
                true => output::json(&RecordsAnswer { records: whole, from, next, end }),
                false => Ok(()),
            };
        }
        page = stretch_of(&asked, &args, Some(next), args.to, left).await?;
    }
}

/// The newest records: page by page further back, until there are `limit` or there is no more.
async fn newest(asked: &Asked, args: &LogArgs, limit: usize) -> Outcome<RecordsAnswer> {
    let mut all = stretch_of(asked, args, None, args.to, limit).await?;
    while all.records.len() < limit && all.from > 0 {
        let mut page = stretch_of(asked, args, None, Some(all.from - 1), limit - all.records.len()).await?;
        all.from = page.from;
        page.records.append(&mut all.records);
        all.records = page.records;
    }
    Ok(all)
}

async fn stretch_of(
    asked: &Asked,
    args: &LogArgs,
    from: Option<Offset>,
    to: Option<Offset>,
    limit: usize,
) -> Outcome<RecordsAnswer> {
    let stretch = Stretch { from, to, kinds: args.kind.clone(), limit: limit.min(PAGE) };
    match asked {
        Asked::Data(data) => Ok(data.query.records(&stretch).await?),
        Asked::Server(client) => {
            let mut query = vec![("limit", stretch.limit.to_string())];
            query.extend(stretch.from.map(|from| ("from", from.to_string())));
            query.extend(stretch.to.map(|to| ("to", to.to_string())));
            if !stretch.kinds.is_empty() {
                query.push(("kind", stretch.kinds.join(",")));
            }
            ask::read(client.get("v1/log", &query).await?)
        }
    }
}

async fn one(args: &LogArgs, asked: &Asked, seq: Offset) -> Outcome {
    let answer: Option<RecordAnswer> = match asked {
        Asked::Server(client) => client.find(&format!("v1/log/{seq}"), &[]).await?.map(ask::read).transpose()?,
        Asked::Data(data) => data.query.record(seq).await?,
    };
    let Some(answer) = answer else {
        return Err(Failure::new(Code::Failed, format!("nothing stands at seq {seq} of the ledger")));
    };
    args.ask.print(&answer, full)
}

/// A record in one line; with its time where lines stay while time goes on.
fn brief(r: &RecordAnswer, follow: bool) -> Outcome {
    let time = r.time_ms / 1_000;
    let when = if follow { format_utc(time) } else { ago(time, SystemClock.now()) };
    let kind = if r.valid { r.kind.clone() } else { look(Look::Faint, &r.kind) };
    let pad = " ".repeat(10usize.saturating_sub(r.kind.len()));
    line(format!("{:>10}  {kind}{pad}  {when:20}  {}", count(r.seq), what(r)).trim_end())
}

/// What a record says, in a few words.
fn what(r: &RecordAnswer) -> String {
    let number = |name: &str| r.record.get(name).and_then(Value::as_u64).map_or("?".into(), count);
    let said = match r.kind.as_str() {
        "commit" => {
            let one = |v: &Verdict| {
                let what = format!("{} {}", v.batch, plural(v.changes, "change", "changes"));
                match v.verdict {
                    VerdictKind::Valid => what,
                    other => look(Look::Fair, format!("{what} {}", told(other, v.first))),
                }
            };
            let shown: Vec<String> = r.verdicts.iter().take(3).map(one).collect();
            let more = r.verdicts.len().saturating_sub(3);
            let rest = if more > 0 {
                format!(", and {}", plural(more as u64, "more batch", "more batches"))
            } else {
                String::new()
            };
            format!("{}{rest}", shown.join(", "))
        }
        "cut" => number("n"),
        "checkpoint" => format!("{} of the cut at seq {}", number("n"), number("seq")),
        "renew" => format!("timestamp {} again", number("after")),
        "format" => {
            format!("{} bins in {} partitions, epoch {}", number("bins"), number("partitions"), number("epoch"))
        }
        "settings" => format!("revision {}", number("revision")),
        "recovery" => format!("from checkpoint {}; void from seq {} on", number("n"), number("kept")),
        _ => String::new(),
    };
    match r.valid {
        true => said,
        false => format!("{said} {}", look(Look::Fair, "(void)")),
    }
}

fn told(verdict: VerdictKind, first: Option<Offset>) -> String {
    match first {
        Some(first) => format!("({} of seq {})", verdict.name(), count(first)),
        None => format!("({})", verdict.name()),
    }
}

/// A record in full.
fn full(r: &RecordAnswer) -> Outcome {
    let (when, now) = (r.time_ms / 1_000, SystemClock.now());
    facts(&[
        ("seq", count(r.seq)),
        ("kind", r.kind.clone()),
        (
            "written",
            format!("{}.{:03} ({})", format_utc(when).trim_end_matches('Z'), r.time_ms % 1_000, ago(when, now)),
        ),
        ("takes effect", if r.valid { "yes".into() } else { "no: it is void".to_owned() }),
        ("length", bytes(r.length)),
        ("sha256", r.sha256.clone()),
    ])?;
    if r.verdicts.is_empty() {
        line("")?;
        let pretty = serde_json::to_string_pretty(&r.record).unwrap_or_default();
        return line(pretty);
    }
    line("")?;
    let row = |v: &Verdict| {
        let verdict = told(v.verdict, v.first);
        let verdict = verdict.trim_matches(['(', ')']).to_owned();
        vec![v.batch.clone(), count(v.changes), verdict]
    };
    table(&["BATCH", "CHANGES", "VERDICT"], &[1], r.verdicts.iter().map(row).collect())?;
    for segment in &r.segments {
        line("")?;
        let state = match segment.state.as_str() {
            "ok" => look(Look::Good, "ok"),
            other => look(Look::Bad, other),
        };
        line(format!(
            "segment {} of partition {}: {state}, sha256 {}",
            segment.offset, segment.partition, segment.sha256
        ))?;
        for change in &segment.changes {
            let of = |name: &str| change.change.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let length = change.change.get("length").and_then(Value::as_u64).map_or(String::new(), bytes);
            line(
                format!("  {:6} {}  {}  {}", of("op"), of("path"), length, look(Look::Faint, &change.batch)).trim_end(),
            )?;
        }
        match segment.count.saturating_sub(segment.changes.len() as u64) {
            0 => {}
            more => line(look(
                Look::Faint,
                format!("  and {}: tuflog replay --from {seq} --to {seq}", plural(more, "more", "more"), seq = r.seq),
            ))?,
        }
    }
    Ok(())
}
