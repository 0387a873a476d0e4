//! What a run of the load tool is asked to do.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::client::Wait;

/// A run. Everything that is random follows from `seed`.
#[derive(Clone)]
pub struct Options {
    /// URLs of nodes of one repository; at least one.
    pub servers: Vec<String>,
    /// The bearer token.
    pub token: Option<String>,
    /// See [`crate::client::Settings::retry_for_ms`].
    pub retry_for_ms: Option<u64>,
    /// Names the load, and the paths: `bench/SEED/…`.
    pub seed: u64,
    /// How many producers, each with one batch on its way at a time.
    pub producers: u32,
    /// Further producers of single changes that wait until they are visible.
    pub probes: u32,
    /// How many changes a batch has.
    pub batch_size: usize,
    /// How many changes are sent a second in all; as many as go without it.
    pub rate: Option<f64>,
    /// When to stop.
    pub until: Until,
    /// What the changes do.
    pub mix: Mix,
    /// Where they fall.
    pub skew: Skew,
    /// How many targets are added before anything is measured.
    pub targets: u64,
    /// What a producer waits for before its next batch.
    pub wait: Wait,
    /// How many clients read and verify.
    pub readers: u32,
    /// How long each pauses between two looks, in milliseconds.
    pub read_every_ms: u64,
    /// The root to begin with, instead of the server's first.
    pub root: Option<Bytes>,
    /// The server's processes, instead of those found by the address.
    pub pids: Vec<u32>,
    /// Ends the load early; what is under way is still checked.
    pub stop: CancellationToken,
}

/// When a load ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Until {
    /// After so many seconds.
    Seconds(f64),
    /// After so many changes, those of the probes not counted.
    Changes(u64),
}

/// Shares of a hundred, or of whatever they add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Of changes that add a target that was never there.
    pub add: u32,
    /// Of changes that replace one.
    pub replace: u32,
    /// Of changes that remove one.
    pub remove: u32,
}

impl Mix {
    /// What the shares add up to.
    pub fn total(&self) -> u32 {
        self.add + self.replace + self.remove
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Mix, String> {
        let parts: Vec<u32> = text.split(':').map(str::parse).collect::<Result<_, _>>().unwrap_or_default();
        match parts[..] {
            [add, replace, remove] if parts.iter().all(|p| *p <= 1_000_000) && add + replace + remove > 0 => {
                Ok(Mix { add, replace, remove })
            }
            _ => Err("expected three shares, ADD:REPLACE:REMOVE, such as 70:25:5".into()),
        }
    }
}

/// Which bins the changes fall into.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Skew {
    /// All alike.
    Uniform,
    /// The n-th hottest bin in proportion to n to the power of minus this exponent.
    Zipf(f64),
    /// Some bins have this share of all changes.
    Hot {
        /// How many.
        bins: u32,
        /// Of a hundred.
        percent: u32,
    },
}

impl FromStr for Skew {
    type Err = String;

    fn from_str(text: &str) -> Result<Skew, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let skew = match parts[..] {
            ["uniform"] => Some(Skew::Uniform),
            ["zipf"] => Some(Skew::Zipf(1.0)),
            ["zipf", s] => s.parse().ok().filter(|s| (0.0..=4.0).contains(s)).map(Skew::Zipf),
            ["hot", bins, percent] => match (bins.parse(), percent.parse()) {
                (Ok(bins @ 1..), Ok(percent @ 1..=100)) => Some(Skew::Hot { bins, percent }),
                _ => None,
            },
            _ => None,
        };
        skew.ok_or_else(|| "expected uniform, zipf[:EXPONENT up to 4] or hot:BINS:PERCENT, such as hot:16:80".into())
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Skew::Uniform => f.write_str("uniform"),
            Skew::Zipf(s) => write!(f, "zipf:{s}"),
            Skew::Hot { bins, percent } => write!(f, "hot:{bins}:{percent}"),
        }
    }
}
