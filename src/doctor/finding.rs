//! What a doctor says: findings with their severity, and the report that holds them.
//!
//! Owns the promise that nothing is passed in silence: a check ends as a finding that is `ok`, or says what is wrong, or
//! why it could not be made. The names of areas and checks are stable: programs read them.

use std::cmp::Reverse;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// All is well.
    Ok,
    /// It could not be checked.
    Skipped,
    /// It works, and may not for long, or not as well as it could.
    Warning,
    /// It does not work, or loses something.
    Error,
}

impl Severity {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Skipped => "skipped",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// Settings, and the files that they name.
    Config,
    /// Disk space, open files.
    Machine,
    /// The node that runs on the data directory.
    Node,
    /// Private keys.
    Keys,
    /// The object store.
    Store,
    /// The brokers of a log on Kafka.
    Brokers,
    /// The topics of a log on Kafka.
    Topics,
    /// What this user may do there.
    Rights,
    /// The log, and that the store belongs to it.
    Log,
    /// The consumer groups of a log on Kafka.
    Groups,
    /// This machine's clock against those of others.
    Clock,
}

impl Area {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Area::Config => "config",
            Area::Machine => "machine",
            Area::Node => "node",
            Area::Keys => "keys",
            Area::Store => "store",
            Area::Brokers => "brokers",
            Area::Topics => "topics",
            Area::Rights => "rights",
            Area::Log => "log",
            Area::Groups => "groups",
            Area::Clock => "clock",
        }
    }
}

/// The outcome of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at.
    pub area: Area,
    /// Which check of the area, such as `settings`.
    pub check: String,
    /// What was found.
    pub what: String,
    /// Why it matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    fn new(severity: Severity, area: Area, check: &str, what: impl Into<String>) -> Finding {
        Finding { severity, area, check: check.into(), what: what.into(), why: None, fix: None }
    }

    /// All is well.
    pub fn ok(area: Area, check: &str, what: impl Into<String>) -> Finding {
        Finding::new(Severity::Ok, area, check, what)
    }

    /// It could not be checked; `why` says what is in the way.
    pub fn skipped(area: Area, check: &str, why: impl Into<String>) -> Finding {
        Finding::new(Severity::Skipped, area, check, why)
    }

    /// See [`Severity::Warning`].
    pub fn warning(area: Area, check: &str, what: impl Into<String>) -> Finding {
        Finding::new(Severity::Warning, area, check, what)
    }

    /// See [`Severity::Error`].
    pub fn error(area: Area, check: &str, what: impl Into<String>) -> Finding {
        Finding::new(Severity::Error, area, check, what)
    }

    /// What an operation met. Its message says what to do where it can.
    pub fn of(area: Area, check: &str, e: &Error) -> Finding {
        Finding::error(area, check, e.to_string())
    }

    /// With why it matters.
    pub fn why(self, why: impl Into<String>) -> Finding {
        Finding { why: Some(why.into()), ..self }
    }

    /// With what to do.
    pub fn fix(self, fix: impl Into<String>) -> Finding {
        Finding { fix: Some(fix.into()), ..self }
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// How many findings are errors.
    pub errors: usize,
    /// How many are warnings.
    pub warnings: usize,
    /// How many checks could not be made.
    pub skipped: usize,
    /// How many checks found that all is well.
    pub ok: usize,
    /// The findings, in the order of the areas, of each area the worst first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The report of these findings.
    pub fn of(mut findings: Vec<Finding>) -> Report {
        findings.sort_by_key(|f| (f.area, Reverse(f.severity))); // stable: the rest is as it was found
        let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
        let counts = [Severity::Error, Severity::Warning, Severity::Skipped, Severity::Ok].map(count);
        let [errors, warnings, skipped, ok] = counts;
        Report { errors, warnings, skipped, ok, findings }
    }
}
