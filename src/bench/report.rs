//! What a run came to: the JSON of `tuflog bench --json`, described by `schemas/bench.json`.
//!
//! Times are seconds or milliseconds as the names say, `…_s` and `…_ms`. What could not be measured is absent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of this document: it rises when a field changes its meaning or goes away.
pub const VERSION: u32 = 1;

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Of this document.
    pub v: u32,
    /// Of the program.
    pub tuflog: String,
    /// What was asked for.
    pub load: LoadReport,
    /// From the first POST of the load to the last answer.
    pub load_s: f64,
    /// From there until everything was visible.
    pub settle_s: f64,
    /// Changes acknowledged during the load.
    pub changes: u64,
    /// Batches acknowledged during the load.
    pub batches: u64,
    /// Changes by the time from the first POST until everything was visible.
    pub published_per_s: f64,
    /// Changes by the time of the load.
    pub committed_per_s: f64,
    /// Tries beyond a batch's first, after a 503 or without an answer.
    pub retries: u64,
    /// From a POST (with a rate, from when it was due) to its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<Latency>,
    /// From a POST (with a rate, from when it was due) to the first moment that a producer, or the server's status,
    /// tells of a checkpoint that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible: Option<Latency>,
    /// Checkpoints published from the first POST until everything was visible.
    pub checkpoints: u64,
    /// The longest time in which nothing new became visible though something waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_gap_s: Option<f64>,
    /// What was written meanwhile.
    pub written: Written,
    /// What the server's processes took meanwhile; absent if they are not known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Process>,
    /// The same of this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Process>,
    /// What the readers did.
    pub readers: Readers,
    /// What was checked at the end.
    pub checked: Checked,
    /// Second by second, from the first POST until everything was visible.
    pub seconds: Vec<Second>,
    /// What was wrong; at most 20 of them.
    pub findings: Vec<Finding>,
    /// How many there were.
    pub findings_total: u64,
}

/// See [`Report::load`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadReport {
    /// The servers.
    pub servers: Vec<String>,
    /// Bins of the repository.
    pub bins: u32,
    /// Partitions of the repository.
    pub partitions: u16,
    /// The paths are `bench/SEED/…`.
    pub seed: u64,
    /// The ids of its batches are `bench-SEED-RUN-…`.
    pub run: String,
    /// Producers that had one batch each on the way.
    pub producers: u32,
    /// Producers of single changes beside them, which waited until those were visible.
    pub probes: u32,
    /// Changes in a batch.
    pub batch_size: u64,
    /// Changes a second that were asked for; absent at full speed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Shares of changes that add, replace and remove.
    pub mix: [u32; 3],
    /// `uniform`, `zipf:EXPONENT` or `hot:BINS:PERCENT`.
    pub skew: String,
    /// `committed` or `published`: what a producer waited for.
    pub wait: String,
    /// Targets that were added before.
    pub targets: u64,
}

/// A distribution of times, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Batches measured.
    pub batches: u64,
    /// The mean.
    pub mean_ms: f64,
    /// Half are shorter.
    pub p50_ms: f64,
    /// Nine of ten are shorter.
    pub p90_ms: f64,
    /// All but one of a hundred are shorter.
    pub p99_ms: f64,
    /// All but one of a thousand are shorter.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// Points of the curve: a share of all, 0 to 1, and the time in milliseconds in which they were done.
    pub curve: Vec<(f64, f64)>,
}

/// See [`Report::written`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// Bytes of objects created in the store, from /metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_bytes: Option<u64>,
    /// Bytes that the server's processes sent to block devices: log, state and, if it is a directory, the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
}

/// See [`Report::server`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Which.
    pub pids: Vec<u32>,
    /// CPU-seconds.
    pub cpu_s: f64,
    /// The most memory in use at once, of all those looked at together.
    pub peak_rss_bytes: u64,
}

/// See [`Report::readers`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Readers {
    /// How many there were.
    pub readers: u32,
    /// How often one followed the timestamp.
    pub looks: u64,
    /// How often that brought another snapshot.
    pub snapshots: u64,
    /// Files verified.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Looks at a batch in a snapshot that were sure: it was there as a whole, or not at all.
    pub batches: u64,
    /// Files that the server could not give at the moment: no finding.
    pub unavailable: u64,
}

/// See [`Report::checked`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Checked {
    /// Acknowledged batches that were looked up by their ids, and are as their receipts say.
    pub batches: u64,
    /// Those that the server does not remember, and that were too many to be looked for in its whole history.
    #[serde(default)]
    pub unchecked: u64,
    /// Targets that were compared with what was written last.
    pub targets: u64,
    /// Bins that were read for that.
    pub bins: u64,
    /// How long that took, in seconds.
    pub check_s: f64,
}

/// A second of the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Second {
    /// Changes acknowledged in it.
    pub committed: u64,
    /// Changes that became visible in it.
    pub published: u64,
    /// New checkpoints told of in it.
    pub checkpoints: u64,
    /// Of the batches acknowledged in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_p50_ms: Option<f64>,
    /// Of the batches acknowledged in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_p99_ms: Option<f64>,
    /// Of the batches that became visible in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible_p50_ms: Option<f64>,
    /// Of the batches that became visible in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible_p99_ms: Option<f64>,
    /// CPU-seconds of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_cpu_s: Option<f64>,
    /// CPU-seconds of this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cpu_s: Option<f64>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// What kind of thing.
    pub kind: Kind,
    /// What was found where, and what was expected.
    pub message: String,
}

/// The kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A file is not what its signatures, length or hash say, or cannot be read.
    Altered,
    /// A file that another one names is not there.
    Missing,
    /// A version went back, or an entry left the snapshot.
    WentBack,
    /// A file has another version, or other content under the same version, than it must have.
    Inconsistent,
    /// A file has expired.
    Expired,
    /// A batch is visible in part.
    Split,
    /// A batch that is published, as its receipt says, is not in the snapshot read after that.
    NotVisible,
    /// An acknowledged batch is not known by its id, or not with its seq.
    Lost,
    /// A target is not as its last acknowledged change left it.
    WrongTarget,
    /// A receipt contradicts an earlier one, or what was sent.
    WrongReceipt,
    /// A batch that must be taken was refused, or could not be brought to an end.
    Refused,
}

impl Finding {
    /// One of a kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Finding {
        Finding { kind, message: message.into() }
    }
}

impl Kind {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Altered => "altered",
            Kind::Missing => "missing",
            Kind::WentBack => "went-back",
            Kind::Inconsistent => "inconsistent",
            Kind::Expired => "expired",
            Kind::Split => "split",
            Kind::NotVisible => "not-visible",
            Kind::Lost => "lost",
            Kind::WrongTarget => "wrong-target",
            Kind::WrongReceipt => "wrong-receipt",
            Kind::Refused => "refused",
        }
    }
}
