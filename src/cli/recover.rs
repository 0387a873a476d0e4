//! `tuflog recover`: what is missing after records of the log were lost, and going on without it.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::failure::{Code, Failure, Outcome};
use super::opened;
use super::output::{self, count, line, plural};
use crate::change::Change;
use crate::clock::SystemClock;
use crate::config::Settings;
use crate::data_dir::{self, DataDir};
use crate::error::Error;
use crate::log::embedded::EmbeddedLog;
use crate::log::kafka::inspect::Inspector;
use crate::log::kafka::{KafkaLog, KafkaSettings};
use crate::log::{Log, Offset};
use crate::pool::Pool;
use crate::recover::loss::{self, Report, Survey};
use crate::recover::repair;
use crate::store::{self, Store};

const EXAMPLES: &str = "\
Examples:
  tuflog recover --data repo                                    # what is missing; nothing is written
  tuflog recover --data repo --json
  tuflog recover --data repo --save lost.jsonl                  # batches to post again, one a line
  tuflog recover --data repo --accept-loss --save lost.jsonl
  TUFLOG_KAFKA_BROKERS=broker:9092 TUFLOG_KAFKA_REPO=tuflog TUFLOG_STORE_URL=s3://bucket/prefix \\
    tuflog recover --data worker                                # with no DIR/tuflog.toml

Exit codes: 0 when nothing is missing, or when it was left behind with --accept-loss; 3 when a process still works on \
the repository, or what was tried may not have happened: run it again; 4 when something is missing, and nothing was \
written.";

/// How many of a kind are listed for people.
const LISTED: usize = 20;

/// Say what is missing after the log lost records, and go on without it
#[derive(Debug, Args)]
#[command(long_about = "Say what is missing after the log lost records, and go on without it.

For when a disk or the Kafka cluster has lost records that it had acknowledged: the ledger ends before what is \
published, or segments are gone that the ledger names. Without --accept-loss it only reads, and says what is missing: \
seqs, segments, and each batch by its id. What can be put back from a backup should be; nothing else brings it back.

With --accept-loss the repository goes on from the last published checkpoint. A Recovery record in the ledger says so \
for ever; whatever was on its way before it is void. Batches that are there whole, and not published, are committed \
again under their ids. It can be cut off at any point: run it again. Every process that works on the repository must \
be stopped before; those that are started after it go on by themselves, and finish a recovery that was cut off.

Log and store are those of a worker that is started on DIR: what DIR/tuflog.toml (or --config) says, and before it the \
variables of serve, such as TUFLOG_KAFKA_BROKERS, TUFLOG_KAFKA_REPO and TUFLOG_STORE_URL.

With --save it writes what is left of batches whose Commit is lost to FILE, and what is committed again to FILE.again: \
a batch a line as POST /v1/batches takes it. Files that are there are never replaced. Nobody can tell whether those in \
FILE were ever acknowledged, nor whether they are whole; their producers can, and should post them from their own source \
under the original ids. What stands in FILE is the last resort, and so has other ids, that begin with \"salvaged:\"; a \
batch that evidently lacks changes is reported and not written.")]
#[command(after_long_help = EXAMPLES)]
pub struct RecoverArgs {
    /// The data directory of a stopped node, or of a worker on Kafka
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// The configuration file [default: DIR/tuflog.toml, if it is there]
    #[arg(long, env = "TUFLOG_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Go on from the last published checkpoint, without what is missing
    #[arg(long)]
    accept_loss: bool,

    /// Write the batches that nothing commits any more as JSON Lines, to be posted again
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    /// How many partitions there were: only where the whole ledger is gone and nothing else says it
    #[arg(long, value_name = "P")]
    partitions: Option<u16>,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// What was done.
#[derive(Serialize)]
struct Done {
    /// The seq of the Recovery.
    recovery: u64,
    /// The batches that were committed again, with their new seqs.
    committed_again: Vec<(String, u64)>,
}

/// Runs the command.
pub async fn run(args: RecoverArgs) -> Outcome {
    let files = args.save.as_deref().map(Files::new).transpose()?;
    let settings = opened::settings(&args.data, args.config.as_deref())?;
    let opened = open(&args, &settings).await?;
    let partitions = args.partitions.or(opened.partitions);
    let state = args.data.join("state");
    let state = Some(state.as_path()).filter(|_| opened.lock.is_some());
    let survey = loss::survey(&*opened.log, &*opened.store, state, partitions).await?;
    if let Some(files) = &files {
        save(files, &survey, &opened).await?;
    }
    if !survey.report.is_missing() || !args.accept_loss {
        return report(&args, &survey.report, None);
    }
    let (log, store) = (opened.log.clone(), &*opened.store);
    let (seq, recovery) = match survey.unfinished.clone() {
        Some(unfinished) => (unfinished.seq, unfinished.recovery),
        None => repair::recover(&*log, store, &survey.plan).await?,
    };
    let committed_again = repair::commit_again(log, store, Pool::Inline, (seq, &recovery)).await?;
    report(&args, &survey.report, Some(Done { recovery: seq, committed_again }))
}

/// A directory that another process holds: nobody else can be asked instead.
fn in_use(data: &Path, e: Error) -> Failure {
    if !data_dir::is_in_use(data) {
        return e.into();
    }
    let by = data_dir::running_addr(data).map_or("another tuflog process".into(), |addr| format!("the node at {addr}"));
    let what = format!("{} is in use by {by}", data.display());
    Failure::from(Error::unavailable(what)).hint("stop it first, then run recover again")
}

struct Opened {
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
    /// As the log itself says.
    partitions: Option<u16>,
    /// `None` if there is no directory.
    lock: Option<DataDir>,
}

/// Opens log and store, to write only with `--accept-loss`. Nobody else may be at work then.
async fn open(args: &RecoverArgs, settings: &Settings) -> Outcome<Opened> {
    let place = args.data.join("store");
    let store = match args.accept_loss {
        true => store::open(&settings.store, &place).await?,
        false => store::open_read_only(&settings.store, &place).await?,
    };
    let Some(kafka) = KafkaSettings::of(&settings.kafka)? else {
        let dir = DataDir::open(&args.data).map_err(|e| in_use(&args.data, e))?;
        let log: Arc<dyn Log> = match args.accept_loss {
            true => EmbeddedLog::open(&dir.log(), Arc::new(SystemClock))?,
            false => EmbeddedLog::open_read_only(&dir.log())?,
        };
        return Ok(Opened { log, store, partitions: None, lock: Some(dir) });
    };
    let lock = if args.data.is_dir() {
        Some(DataDir::open_worker(&args.data).map_err(|e| in_use(&args.data, e))?)
    } else {
        None
    };
    let log = Arc::new(KafkaLog::open(&kafka).await?);
    if args.accept_loss {
        let members = log.members().await?;
        if !members.is_empty() {
            let mut times: BTreeMap<String, u64> = BTreeMap::new();
            members.into_iter().for_each(|who| *times.entry(who).or_default() += 1);
            let who: Vec<String> = times.into_iter().map(|(who, n)| format!("{n} × {who}")).collect();
            let what = format!("the repository is at work: {}", who.join(", "));
            return Err(Failure::from(Error::unavailable(what)).hint(format!(
                "stop every process, and run it again; one that was killed stays in its groups for {} s",
                Inspector::SESSION_MS / 1_000
            )));
        }
    }
    let partitions = Some(log.partitions());
    Ok(Opened { log, store, partitions, lock })
}

/// Where batches are saved. They may be all that is left of them, so nothing there is ever replaced.
struct Files {
    lost: PathBuf,
    again: PathBuf,
}

impl Files {
    /// Refuses what is there already.
    fn new(lost: &Path) -> Outcome<Files> {
        let mut again = lost.as_os_str().to_owned();
        again.push(".again");
        let files = Files { lost: lost.to_owned(), again: again.into() };
        for file in [&files.lost, &files.again] {
            if fs::symlink_metadata(file).is_ok() {
                return Err(is_there(file));
            }
        }
        Ok(files)
    }
}

fn is_there(file: &Path) -> Failure {
    let what = format!("--save: {} is there already, and may be all that is left of its batches", file.display());
    Failure::usage(what).hint("name another file; nothing was written")
}

/// Writes the batches that can be posted again; when it answers they are there durably.
async fn save(files: &Files, survey: &Survey, opened: &Opened) -> Outcome {
    let mut out = Saving::new(&files.lost)?;
    for orphan in survey.orphans.iter().filter(|o| !o.incomplete) {
        out.batch(&orphan.salvage_id(), &orphan.changes)?;
    }
    let lost = out.done()?;
    let mut out = Saving::new(&files.again)?;
    let mut walk = survey.walk(&*opened.log, &*opened.store).await?;
    let again: HashSet<(Offset, &str)> = survey.report.again.iter().map(|a| (a.seq, a.id.as_str())).collect();
    let ids: HashSet<&str> = again.iter().map(|(_, id)| *id).collect();
    let wanted = |id: &str| ids.contains(id);
    while let Some((seq, batches)) = walk.next(&*opened.log, &*opened.store, wanted).await? {
        for b in batches.iter().filter(|b| again.contains(&(seq, b.id.as_str()))) {
            out.batch(&b.id, &b.changes)?;
        }
    }
    let again = out.done()?;
    lost.keep();
    again.keep();
    Ok(())
}

/// A file of batches that is removed again if it does not become whole.
struct Saving {
    file: PathBuf,
    out: BufWriter<File>,
    whole: bool,
}

impl Saving {
    fn new(file: &Path) -> Outcome<Saving> {
        match File::create_new(file) {
            Ok(out) => Ok(Saving { file: file.to_owned(), out: BufWriter::new(out), whole: false }),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(is_there(file)),
            Err(e) => Err(failed(file, &e)),
        }
    }

    fn batch(&mut self, id: &str, changes: &[Change]) -> Outcome {
        write_batch(&mut self.out, id, changes).map_err(|e| failed(&self.file, &e))
    }

    /// Makes it durable, and its name.
    fn done(mut self) -> Outcome<Saving> {
        let dir = self.file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced =
            self.out.flush().and_then(|()| self.out.get_ref().sync_all()).and_then(|()| data_dir::sync_dir(dir));
        synced.map_err(|e| failed(&self.file, &e))?;
        Ok(self)
    }

    fn keep(mut self) {
        self.whole = true;
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        if !self.whole {
            let _ = fs::remove_file(&self.file);
        }
    }
}

fn failed(file: &Path, e: &io::Error) -> Failure {
    Failure::new(Code::Failed, format!("{}: {e}", file.display()))
}

fn write_batch(out: &mut impl Write, id: &str, changes: &[Change]) -> std::io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        id: &'a str,
        changes: Vec<Box<RawValue>>,
    }
    let mut lines = Vec::with_capacity(changes.len());
    for change in changes {
        let mut line = Vec::new();
        change.write_line(&mut line);
        let text = String::from_utf8(line).map_err(std::io::Error::other)?;
        lines.push(RawValue::from_string(text.trim_end().to_owned())?);
    }
    serde_json::to_writer(&mut *out, &Line { id, changes: lines })?;
    out.write_all(b"\n")
}

/// Prints what was found and done; answers the exit code.
fn report(args: &RecoverArgs, report: &Report, done: Option<Done>) -> Outcome {
    if args.json {
        let mut value = serde_json::to_value(report).unwrap_or(Value::Null);
        value["missing"] = json!(report.is_missing());
        value["done"] = json!(done);
        output::json(&value)?;
    } else {
        print(report)?;
        match &done {
            None if !report.is_missing() => line("nothing is missing, and nothing was written")?,
            None if report.unfinished.is_some() => {
                line("nothing was written; --accept-loss finishes the recovery, and so does serve at its start")?
            }
            None => line("nothing was written; --accept-loss goes on from the checkpoint, without what is missing")?,
            Some(done) => {
                let again = plural(done.committed_again.len() as u64, "batch is", "batches are");
                line(format!("recovered    at seq {}; {again} committed again", count(done.recovery)))?;
                line("start serve: it publishes from there on")?;
            }
        }
    }
    match done.is_none() && report.is_missing() {
        true => Err(Failure::Quiet(Code::Corrupt)),
        false => Ok(()),
    }
}

fn print(r: &Report) -> Outcome {
    let (n, version) = (count(r.checkpoint), count(r.timestamp));
    line(format!("published    checkpoint {n} by timestamp {version}"))?;
    if let Some(seq) = r.unfinished {
        line(format!("unfinished   the recovery at seq {}: not everything is committed again", count(seq)))?;
    }
    match r.ledger_begins {
        Some(first) => {
            line(format!("ledger       from seq {first} on: its beginning is lost; ends before seq {}", r.ledger_end))?
        }
        None if r.lost_seqs.is_some() => line(format!("ledger       ends before seq {}", r.ledger_end))?,
        None => {
            let records = plural(r.ledger_end, "record", "records");
            line(format!("ledger       {records}, none of them missing"))?
        }
    }
    if let Some((from, to)) = r.lost_seqs {
        line(format!("lost seqs    {from} to {} at least", to - 1))?;
        r.evidence.iter().try_for_each(|what| line(format!("  for        {what}")))?;
    }
    if let Some((from, to)) = r.forgotten {
        line(format!(
            "lost ids     of seqs {from} to {}: batches of them may be published, and posted again apply again",
            to - 1
        ))?;
    }
    list("lost segments", &r.lost_segments, |s| {
        let what = if s.other { "another record is there" } else { "is gone" };
        format!("partition {}, offset {} of Commit {}: {what}", s.partition, s.offset, s.seq)
    })?;
    list("lost batches", &r.lost_batches, |b| {
        let what = if b.published { "published; only its history is lost" } else { "not published" };
        format!("{} of seq {}: {what}", b.id, b.seq)
    })?;
    list("whole, to be committed again", &r.again, |b| format!("{} of seq {}", b.id, b.seq))?;
    let title = "in no Commit (never acknowledged, or their Commit is lost), and perhaps incomplete";
    list(title, &r.uncommitted, |b| {
        let what = if b.published { "what is left of it is published" } else { "what is left of it is not published" };
        let gone = if b.incomplete { "; incomplete, records between are gone: not saved" } else { "" };
        format!("{}: {} left, {what}{gone}", b.id, plural(b.changes as u64, "change is", "changes are"))
    })
}

fn list<T>(title: &str, all: &[T], row: impl Fn(&T) -> String) -> Outcome {
    if all.is_empty() {
        return Ok(());
    }
    line(format!("{title}: {}", count(all.len() as u64)))?;
    all.iter().take(LISTED).try_for_each(|one| line(format!("  {}", row(one))))?;
    match all.len().saturating_sub(LISTED) {
        0 => Ok(()),
        more => line(format!("  and {} more: --json lists all", count(more as u64))),
    }
}
