//! `tuflog init`: keys, the first root, and the records that a ledger begins with.
//!
//! Owns the rule that a repository is made once, and completely: the file DIR/init marks the time in between. A run that
//! was cut off is gone on with by the next, which reads in the ledger what is there; a key is never made twice for the
//! same place once a root names it. What is no repository of ours is refused and left alone.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::failure::{Code, Failure, Outcome};
use super::{output, settings_file};
use crate::bins::Layout;
use crate::clock::{Clock, SystemClock, format_utc};
use crate::config;
use crate::data_dir::{self, DataDir};
use crate::error::{Error, Result};
use crate::ledger::record::{Format, RootRecord, Settings, SettingsRecord};
use crate::ledger::state::SignedRoot;
use crate::ledger::{EPOCH, Follower, Record, State};
use crate::log::embedded::EmbeddedLog;
use crate::log::kafka::{KafkaLog, KafkaSettings};
use crate::log::{Log, Partition};
use crate::tuf::key_file;
use crate::tuf::root::{RoleKeys, Root};
use crate::tuf::{PublicKey, Signer};

/// How long the first root is valid, in seconds.
const ROOT_EXPIRY_S: u64 = 365 * 86_400;

const EXAMPLES: &str = "\
Examples:
  tuflog init --data repo
  tuflog init --data repo --bins 1024 --partitions 8          # a million targets and more
  tuflog init --data repo --root-keys 3 --root-threshold 2    # two of three people sign a new root

How many bins: a client downloads one bin for each lookup, and a change renders one. About 1,000 targets a bin is a \
good measure; neither number can be changed later.

What it makes:
  DIR/keys/root-1.pem …   the root keys: needed for key changes only, move them offline
  DIR/keys/online.pem     signs targets, bins, snapshots and timestamps; `serve` needs it
  DIR/root.json           the first root: ship it with your clients
  DIR/tuflog.toml         the settings of `serve`, all commented out
  DIR/log/                the truth; back it up";

/// Make a repository: keys, the first root, an empty log
#[derive(Debug, Args)]
#[command(long_about = "Make a repository: keys, the first root, an empty log.

The directory must be empty or absent. A run that was cut off is completed by running it again with the same options; \
a repository that is complete is left as it is (exit code 1, or 0 with --if-absent).")]
#[command(after_long_help = EXAMPLES)]
pub struct InitArgs {
    /// The data directory to make
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// How many hash bins, a power of two from 2 to 65,536
    #[arg(long, value_name = "N", default_value_t = 256)]
    bins: u32,

    /// How many partitions, a power of two, at most as many as bins: how many folds can work side by side
    #[arg(long, value_name = "N", default_value_t = 4)]
    partitions: u32,

    /// How many root keys
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    root_keys: u32,

    /// How many of them must sign a new root
    #[arg(long, value_name = "M", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    root_threshold: u32,

    /// Succeed, and change nothing, if the directory holds a repository already: for scripts that run at each start
    #[arg(long)]
    if_absent: bool,

    /// How many brokers keep each record
    #[arg(long, value_name = "N", default_value_t = 3, requires = "brokers", value_parser = clap::value_parser!(u16).range(1..))]
    kafka_replication: u16,

    /// How many of them must have it before it counts
    #[arg(long, value_name = "N", default_value_t = 2, requires = "brokers", value_parser = clap::value_parser!(u16).range(1..))]
    kafka_min_insync: u16,

    #[command(flatten, next_help_heading = "The log on Kafka, instead of DIR/log")]
    kafka: config::Kafka,
}

/// What stands in the directory.
#[derive(Debug, PartialEq)]
enum Found {
    Nothing,
    Unfinished,
    Repository,
    Something(String),
}

/// Runs the command.
pub async fn run(args: InitArgs) -> Outcome {
    let layout = Layout::new(args.bins, args.partitions)
        .map_err(|e| Failure::usage(format!("--{}: {}", e.field.unwrap_or_default(), e.message)))?;
    if args.root_threshold > args.root_keys {
        let (m, n) = (args.root_threshold, args.root_keys);
        return Err(Failure::usage(format!("--root-threshold: {m} of {n} keys can never sign")));
    }
    let kafka = KafkaSettings::of(&args.kafka)?;
    if args.if_absent && look(&args.data).map_err(|e| at(&args.data, &e))? == Found::Repository {
        return output::line(format!("{} is a repository already; nothing was changed", args.data.display()));
    }
    refuse(&args.data)?; // before the lock file is made in it
    let dir = DataDir::create(&args.data)?;
    let resumed = refuse(&args.data)? == Found::Unfinished;
    let marker = mark(&args);
    if resumed {
        let was = fs::read_to_string(dir.init_marker()).map_err(|e| at(&dir.init_marker(), &e))?;
        if was != marker {
            return Err(Failure::usage(format!("{}: an init with other options did not finish", args.data.display()))
                .hint(format!(
                    "run tuflog init --data {} {} or remove the directory",
                    args.data.display(),
                    was.trim()
                )));
        }
    } else {
        dir.write("init", marker.as_bytes())?;
    }
    let log = kafka.is_none().then(|| dir.log());
    let others = [dir.state(), dir.store()].into_iter().chain(log).map(|path| (path, 0o755));
    for (path, mode) in others.chain([(dir.keys(), 0o700)]) {
        DirBuilder::new().recursive(true).mode(mode).create(&path).map_err(|e| at(&path, &e))?;
    }
    let log: Arc<dyn Log> = match &kafka {
        None => EmbeddedLog::open(&dir.log(), Arc::new(SystemClock))?,
        Some(kafka) => on_kafka(&args, kafka, resumed).await.inspect_err(|_| take_back(&dir, resumed))?,
    };
    let root = begin_ledger(&args, layout, &dir, &*log).await?;
    dir.write("root.json", root.document.as_bytes())?;
    if !dir.config().exists() {
        let text = settings_file::template() + &settings_file::of_kafka(&args.kafka);
        dir.write("tuflog.toml", text.as_bytes())?;
    }
    finish(&dir).map_err(|e| at(dir.path(), &e))?;
    report(&args, &dir, &root.root)
}

/// What is in the directory, unless it is none of init's business.
fn refuse(data: &Path) -> Outcome<Found> {
    let shown = data.display();
    match look(data).map_err(|e| at(data, &e))? {
        Found::Repository => {
            Err(Failure::new(Code::Failed, format!("{shown} is a repository already; nothing was changed"))
                .hint(format!("start it: tuflog serve --data {shown}")))
        }
        Found::Something(name) => Err(Failure::usage(format!("--data: {shown} is not empty (it holds {name})"))
            .hint("name a directory that is empty or absent")),
        found => Ok(found),
    }
}

fn look(data: &Path) -> io::Result<Found> {
    let entries = match fs::read_dir(data) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let has = |name: &str| names.iter().any(|n| n == name);
    Ok(match names.iter().find(|n| !["lock", ".init.new"].contains(&n.as_str())) {
        None => Found::Nothing,
        _ if has("init") => Found::Unfinished,
        _ if has("log") || has("root.json") => Found::Repository,
        Some(name) => Found::Something(name.clone()),
    })
}

/// The options, as they stand in DIR/init.
fn mark(args: &InitArgs) -> String {
    let InitArgs { bins, partitions, root_keys, root_threshold, .. } = args;
    let config::Kafka { brokers, repo, .. } = &args.kafka;
    let kafka = brokers.as_ref().map(|brokers| {
        let repo = repo.as_deref().unwrap_or(config::defaults::KAFKA_REPO);
        format!(" --kafka-brokers {brokers} --kafka-repo {repo}")
    });
    format!(
        "--bins {bins} --partitions {partitions} --root-keys {root_keys} --root-threshold {root_threshold}{}\n",
        kafka.unwrap_or_default()
    )
}

/// Appends what the ledger does not have yet: Format, Settings, the first root; in this order.
async fn begin_ledger(args: &InitArgs, layout: Layout, dir: &DataDir, log: &dyn Log) -> Result<Arc<SignedRoot>> {
    let mut follower = Follower::new(log, State::default()).await?;
    loop {
        while follower.next().await?.is_some() {}
        let state = &follower.state;
        let record = if state.layout.is_none() {
            Record::Format(Format { epoch: EPOCH, bins: layout.bins(), partitions: layout.partitions().into() })
        } else if state.settings_revision == 0 {
            Record::Settings(SettingsRecord { revision: 1, settings: Settings::default() })
        } else if let Some(root) = &state.root {
            return own_root(root, layout, state, &dir.keys()).map(|()| root.clone());
        } else {
            Record::Root(RootRecord { document: first_root(args, &dir.keys())? })
        };
        let seq = log.append(Partition::Ledger, record.encode()).await?;
        // It has taken effect when it was read back, and not void.
        while follower.state.next <= seq {
            follower.ready().await?;
            if let Some(entry) = follower.next().await?
                && entry.seq == seq
                && entry.event != crate::ledger::Event::Changed
            {
                return Err(Error::corrupt(format!("the ledger does not take its own beginning (seq {seq})")));
            }
        }
    }
}

/// Creates the topics, or finds those of a run that was cut off.
async fn on_kafka(args: &InitArgs, kafka: &KafkaSettings, resumed: bool) -> Outcome<Arc<dyn Log>> {
    let partitions = u16::try_from(args.partitions)
        .map_err(|_| Failure::usage(format!("--partitions: a topic has at most {}", u16::MAX)))?;
    let (copies, insync) = (args.kafka_replication, args.kafka_min_insync);
    KafkaLog::create_topics(kafka, partitions, copies, insync).await.map_err(|e| {
        let hint = "--kafka-replication and --kafka-min-insync say how many copies: not more than there are brokers";
        match e.message.contains("InvalidReplicationFactor") {
            true => Failure::from(e).hint(hint),
            false => Failure::from(e),
        }
    })?;
    let log = KafkaLog::open(kafka).await?;
    if !resumed && log.end(Partition::Ledger).await? > 0 {
        let repo = &kafka.repo;
        return Err(Failure::new(Code::Failed, format!("{repo} on {} is a repository already", kafka.brokers)).hint(
            "a further worker needs no init: give it the settings kafka.* and the online key (--keys), and serve; \
             another repository needs another --kafka-repo",
        ));
    }
    Ok(Arc::new(log))
}

/// Leaves nothing of an init that has not begun anything.
fn take_back(dir: &DataDir, resumed: bool) {
    if resumed {
        return;
    }
    for path in [dir.keys(), dir.state(), dir.store()] {
        let _ = fs::remove_dir(path); // empty, unless something is wrong
    }
    let _ = fs::remove_file(dir.init_marker());
}

/// Where others can reach the ledger too, what begins it may be another's.
fn own_root(root: &SignedRoot, layout: Layout, state: &State, keys: &Path) -> Result<()> {
    let online = keys.join("online.pem");
    let own = online.exists() && {
        let id = *key_file::load(&online)?.public().key_id();
        root.root.targets.key_ids.contains(&id)
    };
    match own && state.layout()? == layout {
        true => Ok(()),
        false => Err(Error::conflict("another init has made this repository meanwhile, with other keys")),
    }
}

/// The first root, signed by all root keys; makes the keys.
fn first_root(args: &InitArgs, keys: &Path) -> Result<String> {
    let online = key(&keys.join("online.pem"))?;
    let root_keys: Vec<Arc<Signer>> =
        (1..=args.root_keys).map(|n| key(&keys.join(format!("root-{n}.pem")))).collect::<Result<_>>()?;
    let by_id = |key: &PublicKey| (*key.key_id(), key.clone());
    let online_role = RoleKeys::new(vec![*online.public().key_id()], 1);
    let root = Root {
        version: 1,
        expires: SystemClock.now() + ROOT_EXPIRY_S,
        keys: root_keys.iter().chain([&online]).map(|s| by_id(s.public())).collect(),
        root: RoleKeys::new(root_keys.iter().map(|s| *s.public().key_id()).collect(), args.root_threshold),
        targets: online_role.clone(),
        snapshot: online_role.clone(),
        timestamp: online_role,
    };
    let bytes = root.render(&root_keys)?;
    String::from_utf8(bytes).map_err(|_| Error::corrupt("a root is text"))
}

/// The key in a file, or a new one. No root names it yet: what a run that was cut off left half written is made anew.
fn key(path: &Path) -> Result<Arc<Signer>> {
    if path.exists() {
        match key_file::load(path) {
            Ok(signer) => return Ok(Arc::new(signer)),
            Err(_) => fs::remove_file(path).map_err(|e| at(path, &e))?,
        }
    }
    let signer = Signer::generate()?;
    key_file::save(&signer, path)?;
    Ok(Arc::new(signer))
}

/// Takes the marker away, durably.
fn finish(dir: &DataDir) -> io::Result<()> {
    data_dir::sync_dir(dir.path())?;
    fs::remove_file(dir.init_marker())?;
    data_dir::sync_dir(dir.path())?;
    match dir.path().parent() {
        Some(parent) if !parent.as_os_str().is_empty() => data_dir::sync_dir(parent),
        _ => Ok(()),
    }
}

fn report(args: &InitArgs, dir: &DataDir, root: &Root) -> Outcome {
    let data = args.data.display();
    let (m, n) = (root.root.threshold, root.root.key_ids.len());
    output::line(format!("made a TUF repository in {data}"))?;
    output::facts(&[
        ("  layout", format!("{} bins in {} partitions", args.bins, args.partitions)),
        ("  root", format!("version 1, {m} of {n} keys sign the next one; expires {}", format_utc(root.expires))),
        ("  root keys", format!("{data}/keys/root-1.pem … root-{n}.pem: for key changes only")),
        ("  online key", format!("{}: serve signs with it", dir.keys().join("online.pem").display())),
        ("  trusted root", format!("{}: ship it with your clients", dir.root().display())),
        ("  settings", dir.config().display().to_string()),
    ])?;
    output::line("next:")?;
    output::line(format!(
        "  move {data}/keys/root-*.pem offline, to several places: whoever has them owns the repository"
    ))?;
    output::line(format!("  tuflog serve --data {data}"))
}

fn at(path: &Path, e: &io::Error) -> Error {
    Error::unavailable(format!("{}: {e}", path.display()))
}
