//! What an audit says: verdict, figures, notes and findings, for people and as JSON, described by `schemas/audit.json`.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::finding::{Finding, RecoveryReport};

/// The version of this document: it rises when a field changes its meaning or goes away.
pub const VERSION: u32 = 1;

/// What an audit comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that it covers was looked at, and nothing is wrong.
    Whole,
    /// Something is wrong: see the findings. There may be more behind the last of them if it is not complete.
    Damaged,
    /// It was cut off before it found anything wrong.
    #[default]
    Incomplete,
}

/// Which part of the history an audit is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Covered {
    /// The checkpoint that it begins with, taken as it was signed; absent if it begins with the first record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// The last checkpoint that was rebuilt and compared, or that it begins with; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// Ledger records from this seq on were replayed.
    pub first_seq: u64,
    /// Ledger records below this seq were replayed.
    pub end_seq: u64,
    /// The checkpoints at which an audit that had been cut off went on, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resumed_at: Vec<u64>,
    /// What it does not cover, beyond what no audit does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_covered: Vec<String>,
}

/// The result of an audit. Counters are of what it covers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Of this document.
    pub v: u32,
    /// Of the program.
    pub tuflog: String,
    /// What it comes to.
    pub verdict: Verdict,
    /// What it is about.
    pub covered: Covered,
    /// Ledger records read.
    pub records: u64,
    /// Commits among them.
    pub commits: u64,
    /// Batches that apply.
    pub batches_valid: u64,
    /// Batches that were there before.
    pub batches_duplicate: u64,
    /// Batches whose id stands for other content.
    pub batches_conflict: u64,
    /// Batches that came too late or were malformed.
    pub batches_void: u64,
    /// Valid batches whose content digest was computed again.
    pub batch_digests: u64,
    /// Segments that a Commit names, read and decoded.
    pub segments: u64,
    /// Changes of the valid batches.
    pub changes: u64,
    /// Targets at the last cut.
    pub targets: u64,
    /// Valid Cuts.
    pub cuts: u64,
    /// Bins rebuilt at them.
    pub bins: u64,
    /// Valid Checkpoints.
    pub checkpoints: u64,
    /// Valid Renews.
    pub renews: u64,
    /// Versions of root.
    pub roots: u64,
    /// Records of topic `folds` compared.
    pub reports: u64,
    /// Stored objects compared, the pointer too.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Signatures verified.
    pub signatures: u64,
    /// How long it took, over all its runs.
    pub seconds: f64,
    /// How much of that went into rebuilding and comparing what the cuts make; the rest into reading and applying.
    pub rebuilding_seconds: f64,
    /// And how much into verifying and loading the checkpoint that it begins with.
    pub loading_seconds: f64,
    /// True if every record and object that it covers was looked at; false if it stopped before.
    pub complete: bool,
    /// Where records of the log were lost, and the repository went on from a checkpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recoveries: Vec<RecoveryReport>,
    /// What is legal and worth knowing.
    pub notes: Vec<String>,
    /// What is wrong, in the order of the ledger.
    pub findings: Vec<Finding>,
}

impl Report {
    /// True if everything that it covers was looked at and nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.verdict == Verdict::Whole
    }

    /// Says what it comes to, once it has ended.
    pub(super) fn judge(&mut self) {
        (self.v, self.tuflog) = (VERSION, env!("CARGO_PKG_VERSION").into());
        self.verdict = match (self.findings.is_empty(), self.complete) {
            (false, _) => Verdict::Damaged,
            (true, true) => Verdict::Whole,
            (true, false) => Verdict::Incomplete,
        };
    }

    /// What is said of the verdict.
    fn said(&self) -> String {
        let findings = match self.findings.len() {
            1 => "1 finding".to_owned(),
            n => format!("{n} findings"),
        };
        match (self.verdict, self.complete) {
            (Verdict::Whole, _) if !self.recoveries.is_empty() => {
                "whole: every stored byte follows from what is left of the ledger".into()
            }
            (Verdict::Whole, _) if self.covered.not_covered.is_empty() => {
                "whole: every stored byte follows from the ledger".into()
            }
            (Verdict::Whole, _) => "whole: every stored byte of this part follows from the ledger".into(),
            (Verdict::Damaged, true) => format!("damaged: {findings}"),
            (Verdict::Damaged, false) => format!("damaged: {findings}; stopped there"),
            (Verdict::Incomplete, _) => "incomplete: nothing wrong so far".into(),
        }
    }

    /// How many a second; 0 of what took no time.
    fn rate(count: u64, seconds: f64) -> u64 {
        if seconds > 0.0 { (count as f64 / seconds) as u64 } else { 0 }
    }
}

impl fmt::Display for Covered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = match self.from {
            Some(n) => format!("from checkpoint {n} as it was signed"),
            None => "from the first record".into(),
        };
        let to = self.to.map_or("before the first checkpoint".into(), |n| format!("checkpoint {n}"));
        write!(f, "{from} to {to}, seqs {} to {}", self.first_seq, self.end_seq.saturating_sub(1))?;
        let resumed: Vec<String> = self.resumed_at.iter().map(u64::to_string).collect();
        if resumed.is_empty() { Ok(()) } else { write!(f, "; resumed at checkpoint {}", resumed.join(", ")) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let r = self;
        let mb = r.bytes as f64 / 1e6;
        writeln!(f, "covered    {}", r.covered)?;
        writeln!(f, "ledger     {} records, {} cuts, {} renewals, {} roots", r.records, r.cuts, r.renews, r.roots)?;
        writeln!(
            f,
            "batches    {} valid, {} duplicate, {} conflict, {} void in {} commits and {} segments",
            r.batches_valid, r.batches_duplicate, r.batches_conflict, r.batches_void, r.commits, r.segments
        )?;
        writeln!(f, "targets    {} now, after {} changes", r.targets, r.changes)?;
        writeln!(
            f,
            "objects    {} rebuilt and compared ({mb:.1} MB), {} signatures verified, {} checkpoints, {} fold reports",
            r.objects, r.signatures, r.checkpoints, r.reports
        )?;
        let applying = (r.seconds - r.rebuilding_seconds - r.loading_seconds).max(0.0);
        writeln!(
            f,
            "speed      {} changes/s read and applied ({applying:.1} s), {} bins/s rebuilt and compared ({:.1} s)",
            Report::rate(r.changes, applying),
            Report::rate(r.bins, r.rebuilding_seconds),
            r.rebuilding_seconds
        )?;
        if r.loading_seconds > 0.0 {
            writeln!(f, "began      with a checkpoint that was verified and loaded in {:.1} s", r.loading_seconds)?;
        }
        r.covered.not_covered.iter().try_for_each(|what| writeln!(f, "left out   {what}"))?;
        r.recoveries.iter().try_for_each(|recovery| writeln!(f, "recovery   {recovery}"))?;
        r.notes.iter().try_for_each(|note| writeln!(f, "note       {note}"))?;
        r.findings.iter().try_for_each(|finding| writeln!(f, "finding    {}: {finding}", finding.damage.name()))?;
        write!(f, "audit      {}, in {:.1} s", r.said(), r.seconds)
    }
}
