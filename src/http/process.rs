//! What a process takes, as `/proc` shows it.

use std::fs;
use std::path::Path;

/// Ticks of `/proc/PID/stat` in a second: USER_HZ, which Linux keeps at 100 for programs.
const TICKS_PER_S: f64 = 100.0;

/// What processes have taken since they started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU-seconds, of all threads.
    pub cpu_s: f64,
    /// Memory in use.
    pub rss_bytes: u64,
    /// Bytes sent to block devices; `None` if only others may know.
    pub disk_bytes: Option<u64>,
}

/// The usage of a process, given its folder in `/proc`; `None` if it cannot be seen.
pub fn usage_of(proc: &Path) -> Option<Usage> {
    let stat = fs::read_to_string(proc.join("stat")).ok()?;
    // The name, in parentheses, may hold anything; utime and stime are the 14th and 15th field.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    let number = |file: &str, name: &str| -> Option<u64> {
        let text = fs::read_to_string(proc.join(file)).ok()?;
        text.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    Some(Usage {
        cpu_s: ticks as f64 / TICKS_PER_S,
        rss_bytes: number("status", "VmRSS:")? << 10,
        disk_bytes: number("io", "write_bytes:"),
    })
}

/// How many files this process has open, and how many it may have.
pub fn open_files() -> (u64, u64) {
    let open = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    (open, limit.current.unwrap_or(u64::MAX))
}
