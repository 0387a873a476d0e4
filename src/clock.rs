//! Time, as Unix seconds. The only module that reads the wall clock.
//!
//! Time enters the repository in Cut and Renew records alone; everything published takes it from
//! there, never from here.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A source of the present time in Unix seconds.
pub trait Clock: Send + Sync {
    /// Now, in whole seconds since 1970-01-01T00:00:00Z.
    fn now(&self) -> u64;

    /// The same in milliseconds: for what is looked at, never for anything published.
    fn now_ms(&self) -> u64 {
        self.now() * 1_000
    }

    /// Milliseconds that never go back, from an arbitrary start: for pacing, never for anything published.
    fn ticks_ms(&self) -> u64;
}

/// The machine's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> u64 {
        self.now_ms() / 1_000
    }

    #[allow(clippy::disallowed_methods)] // the one place
    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }

    #[allow(clippy::disallowed_methods)] // the one place
    fn ticks_ms(&self) -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_millis() as u64
    }
}

/// Measures how long something took; for metrics and logs.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts it.
    #[allow(clippy::disallowed_methods)] // the one place
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// Seconds since it was started.
    pub fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// A clock that stands where a test puts it.
#[derive(Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that reads `now`.
    pub fn new(now: u64) -> ManualClock {
        ManualClock(AtomicU64::new(now))
    }

    /// Moves the clock to `now`, forwards or backwards.
    pub fn set(&self, now: u64) {
        self.0.store(now, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn ticks_ms(&self) -> u64 {
        self.now() * 1_000
    }
}

/// `YYYY-MM-DDTHH:MM:SSZ`, the only form of a date that every TUF client reads (years 1970 to 9998).
pub fn format_utc(unix: u64) -> String {
    let (days, secs) = ((unix / 86_400) as i64, unix % 86_400);
    // Civil-from-days: eras of 400 years that begin on 1 March.
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", secs / 3_600, secs / 60 % 60, secs % 60)
}

/// The inverse of [`format_utc`]: Unix seconds of `YYYY-MM-DDTHH:MM:SSZ`, or `None` for any other text.
pub fn parse_utc(text: &str) -> Option<u64> {
    let b = text.as_bytes();
    let num = |from: usize, to: usize| -> Option<u64> {
        b[from..to].iter().try_fold(0, |n, c| c.is_ascii_digit().then(|| n * 10 + u64::from(c - b'0')))
    };
    if b.len() != 20
        || ![(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')].iter().all(|(i, c)| b[*i] == *c)
    {
        return None;
    }
    let (year, month, day) = (num(0, 4)?, num(5, 7)?, num(8, 10)?);
    let (hour, minute, second) = (num(11, 13)?, num(14, 16)?, num(17, 19)?);
    if !(1970..=9998).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        (y / 400) * 146_097 + (y % 400) * 365 + (y % 400) / 4 - (y % 400) / 100 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let unix = days * 86_400 + hour * 3_600 + minute * 60 + second;
    (format_utc(unix) == text).then_some(unix) // refuses 30 February
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_go_there_and_back() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_597_218, "2026-11-25T09:00:18Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(format_utc(unix), text);
            assert_eq!(parse_utc(text), Some(unix));
        }
        for bad in ["2023-02-30T00:00:00Z", "2026-11-25T09:00:18+00:00", "2026-11-25 09:00:18Z", "", "éééééééééé"]
        {
            assert_eq!(parse_utc(bad), None, "{bad}");
        }
    }
}
