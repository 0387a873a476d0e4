//! Time travel: which checkpoint is meant by a number, a seq or a time.

use std::fmt;

use super::Query;
use super::timeline::{Goal, Placed};
use crate::clock::{format_utc, parse_utc};
use crate::error::{Error, Result};
use crate::log::Offset;

/// A point in the history of what is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// This checkpoint.
    Checkpoint(u64),
    /// The last checkpoint whose Cut does not stand behind this seq.
    Seq(Offset),
    /// The last checkpoint that was cut by this time, in Unix seconds.
    Time(u64),
}

/// What an [`At`] may be written as.
pub const FORMS: &str = "a checkpoint (7), a ledger position (seq:1234), a time (2026-11-27T10:30:00Z, 2026-11-27) or how \
                         long ago (90s, 5min, 2h, 3d)";

/// By how much a client's clock may be ahead of the one that reads its times, in seconds.
const CLOCKS_DIFFER_S: u64 = 3_600;

impl At {
    /// Reads what [`FORMS`] says; `now` is what is counted back from, in Unix seconds.
    ///
    /// # Errors
    /// `Invalid`, of field `at`, for everything else.
    pub fn parse(text: &str, now: u64) -> Result<At> {
        let wrong = || Error::invalid("at", format!("must be {FORMS}, not {text:?}"));
        let number = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse::<u64>().ok(),
            false => None,
        };
        if let Some(n) = number(text) {
            return Ok(At::Checkpoint(n));
        }
        if let Some((name, digits)) = text.split_once(':')
            && let Some(n) = number(digits)
        {
            match name {
                "checkpoint" => return Ok(At::Checkpoint(n)),
                "seq" => return Ok(At::Seq(n)),
                _ => {}
            }
        }
        let date = if text.len() == "2026-11-27".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
        if let Some(time) = parse_utc(&date) {
            return match time > now.saturating_add(CLOCKS_DIFFER_S) {
                true => Err(Error::invalid("at", format!("{text} is yet to come"))),
                false => Ok(At::Time(time)),
            };
        }
        let ago = text.strip_suffix("ago").unwrap_or(text).trim();
        let unit = ago.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let seconds = match ago[unit..].trim() {
            "s" => 1,
            "min" | "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(wrong()),
        };
        let ago = number(&ago[..unit]).and_then(|n| n.checked_mul(seconds)).ok_or_else(wrong)?;
        Ok(At::Time(now.saturating_sub(ago)))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Checkpoint(n) => write!(f, "checkpoint:{n}"),
            At::Seq(seq) => write!(f, "seq:{seq}"),
            At::Time(time) => f.write_str(&format_utc(*time)),
        }
    }
}

impl Query {
    /// The published checkpoint that is meant; `Invalid` if there was none.
    pub(super) async fn checkpoint_at(&self, at: At) -> Result<Placed> {
        let newest = self.timestamp().await?.map_or(0, |t| t.snapshot.version);
        let none = |what: String| Error::invalid("at", what);
        if newest == 0 {
            return Err(none("nothing is published yet".into()));
        }
        if let At::Seq(seq) = at {
            let end = self.ledger_end().await?;
            if seq >= end {
                return Err(none(format!("the ledger ends at seq {}, {seq} is beyond it", end.saturating_sub(1))));
            }
        }
        let found = match at {
            At::Checkpoint(n) => match (1..=newest).contains(&n) {
                true => self.find_checkpoint(n).await?,
                false => None,
            },
            At::Seq(seq) => self.search(Goal::Behind(self.seq_or_recovery(seq).await?)).await?.0,
            At::Time(time) => self.search(Goal::After(time)).await?.0,
        };
        match found {
            Some(found) if found.checkpoint.n <= newest => Ok(found),
            Some(_) => self.published_checkpoint(newest).await,
            None => {
                // timestamp.json leads to one, so there is a first.
                let first =
                    self.next_checkpoint(0).await?.ok_or_else(|| none("no checkpoint is in the ledger".into()))?;
                let (n, first_time) = (first.checkpoint.n, self.cut_time(first.checkpoint.seq).await?);
                Err(none(match at {
                    At::Checkpoint(other) => format!("there is no checkpoint {other}: there are {n} to {newest}"),
                    At::Seq(seq) => format!("nothing was published at seq {seq}: checkpoint {n} is the first"),
                    At::Time(time) => {
                        let (then, since) = (format_utc(time), format_utc(first_time));
                        format!("nothing was published at {then}: checkpoint {n}, the first, is of {since}")
                    }
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_in_history_is_a_number_a_seq_or_a_time() {
        let now = 1_000_000;
        let parse = |text: &str| At::parse(text, now);
        assert_eq!(parse("7"), Ok(At::Checkpoint(7)));
        assert_eq!(parse("checkpoint:7"), Ok(At::Checkpoint(7)));
        assert_eq!(parse("seq:12"), Ok(At::Seq(12)));
        assert_eq!(parse("1970-01-02"), Ok(At::Time(86_400)));
        assert_eq!(parse("1970-01-01T00:01:30Z"), Ok(At::Time(90)));
        assert_eq!(parse("90s"), Ok(At::Time(now - 90)));
        assert_eq!(parse("2 h ago"), Ok(At::Time(now - 7_200)));
        assert_eq!(parse("1000d"), Ok(At::Time(0)));
        assert!(At::parse("1970-03-01", now).unwrap_err().message.contains("yet to come"));
        for bad in [
            "",
            "x",
            "-1",
            "seq:",
            "seq:x",
            "epoch:1",
            "1y",
            "h",
            "99999999999999999999",
            "1970-13-01",
            "9999999999999999999d",
        ] {
            assert_eq!(parse(bad).unwrap_err().field.as_deref(), Some("at"), "{bad}");
        }
        for at in [At::Checkpoint(3), At::Seq(9), At::Time(1_700_000_000)] {
            assert_eq!(At::parse(&at.to_string(), 1_700_000_000), Ok(at));
        }
    }
}
