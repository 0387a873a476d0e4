//! This machine's clock, against whatever tells the time of others.
//!
//! Kafka answers no question for its time. Its newest record says when a broker took it, and that broker's clock has
//! gone on since: so a clock that is behind is found there, one that is ahead is not. An S3 server says its time.

use super::{Area, Finding};
use crate::clock::format_utc;
use crate::node::MAX_AHEAD_S;

const AREA: Area = Area::Clock;

/// How far a clock may be from another before that is worth a word, in seconds.
const NEAR_S: u64 = 30;

/// Who says what, in Unix seconds.
#[derive(Default)]
pub struct Times {
    /// This machine.
    pub now: u64,
    /// The repository: the time of its last Cut or Renew.
    pub repository: Option<u64>,
    /// The log, when it took its newest record.
    pub log: Option<u64>,
    /// Whether the log's clock is the brokers'.
    pub log_is_foreign: bool,
    /// The store's server, a moment ago.
    pub store: Option<u64>,
}

/// Compares them.
pub fn check(times: &Times, found: &mut Vec<Finding>) {
    let Times { now, .. } = *times;
    let set = "set this machine's clock right (chrony, systemd-timesyncd)";
    let whose = if times.log_is_foreign { "the brokers' clock" } else { "the log's own clock" };
    match times.log {
        Some(log) if log > now + NEAR_S => {
            let what =
                format!("this clock is {} s or more behind {whose} (newest record: {})", log - now, format_utc(log));
            let why =
                format!("a compactor that is more than {MAX_AHEAD_S} s behind makes no cuts: nothing is published");
            let found_here = match log > now + MAX_AHEAD_S {
                true => Finding::error(AREA, "log", what),
                false => Finding::warning(AREA, "log", what),
            };
            found.push(found_here.why(why).fix(set));
        }
        Some(log) => {
            let bound =
                if times.log_is_foreign { ": a lower bound, so one that is ahead is not seen by it" } else { "" };
            let what = format!("not behind {whose} at its newest record ({}{bound})", format_utc(log));
            found.push(Finding::ok(AREA, "log", what));
        }
        None => found.push(Finding::skipped(AREA, "log", format!("against {whose}: no record of the log was read"))),
    }
    match times.repository {
        Some(time) if time > now + MAX_AHEAD_S => {
            let what = format!("the repository's time is {} s ahead of this clock ({})", time - now, format_utc(time));
            let why = "expiry counts from there: what is published now expires late, and is renewed late";
            let fix = "set this machine's clock right; if it is right, another node's clock was wrong at the last cut";
            found.push(Finding::warning(AREA, "repository", what).why(why).fix(fix));
        }
        Some(time) => {
            found.push(Finding::ok(
                AREA,
                "repository",
                format!("not behind the repository's time ({})", format_utc(time)),
            ));
        }
        None => {}
    }
    let Some(store) = times.store else { return };
    let (apart, side) = (store.abs_diff(now), if store > now { "behind" } else { "ahead of" });
    match apart > NEAR_S {
        true => {
            let what = format!("this clock is {apart} s {side} that of the store's server ({})", format_utc(store));
            let why = "expiry counts from this node's clock, and S3 refuses requests that are 15 minutes off";
            found.push(Finding::warning(AREA, "store", what).why(why).fix(set));
        }
        false => found.push(Finding::ok(AREA, "store", format!("within {NEAR_S} s of that of the store's server"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    #[test]
    fn whose_clock_is_wrong_is_said() {
        let severities = |times: Times| {
            let mut found = Vec::new();
            check(&Times { now: 10_000, ..times }, &mut found);
            found.iter().map(|f| (f.check.clone(), f.severity)).collect::<Vec<_>>()
        };
        let one = |check: &str, severity| (check.to_owned(), severity);
        let times = |log, repository, store| Times { log, repository, store, ..Times::default() };
        assert_eq!(severities(times(Some(9_000), None, None)), [one("log", Severity::Ok)]);
        assert_eq!(severities(times(Some(10_100), None, None)), [one("log", Severity::Warning)]);
        assert_eq!(severities(times(Some(10_301), None, None)), [one("log", Severity::Error)]);
        let all = severities(times(None, Some(10_301), Some(9_900)));
        let wrong =
            [one("log", Severity::Skipped), one("repository", Severity::Warning), one("store", Severity::Warning)];
        assert_eq!(all, wrong);
        assert_eq!(
            severities(times(None, Some(10_300), Some(10_030)))[1..],
            [one("repository", Severity::Ok), one("store", Severity::Ok)]
        );
    }
}
