//! How a run of `tuflog bench` reads: a line that moves while it runs, and what it came to.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::bench::report::{Latency, LoadReport, Process, Report};
use crate::bench::{Options, Progress, Until};
use crate::cli::failure::Outcome;
use crate::cli::output::{bytes, count, facts, line, plural, table};

/// Shows how far a run is, on a terminal.
pub struct Display(Option<ProgressBar>);

impl Display {
    /// Starts to show.
    pub fn new() -> Display {
        let style =
            || ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        Display(io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_style(style());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        }))
    }

    /// A run has come so far.
    pub fn show(&self, options: &Options, progress: Progress) {
        let Some(bar) = &self.0 else { return };
        bar.set_message(match progress {
            Progress::Filling(done, all) => format!("adding targets: {} of {}", count(done), count(all)),
            Progress::Loading { elapsed_s, changes, per_s: (committed, published), findings } => {
                let wrong = if findings > 0 { format!(", {} WRONG", count(findings)) } else { String::new() };
                let of = match options.until {
                    Until::Seconds(s) => format!("{elapsed_s:.0} of {s:.0} s, {} changes", count(changes)),
                    Until::Changes(n) => format!("{elapsed_s:.0} s, {} of {} changes", count(changes), count(n)),
                };
                let rates = format!("committed {}/s, visible {}/s", count(committed), count(published));
                format!("{of}, {rates}{wrong}")
            }
            Progress::Settling => "waiting until everything is visible".into(),
            Progress::LookingUp(done, all) => format!("looking up batches: {} of {}", count(done), count(all)),
            Progress::Comparing(done, all) => format!("comparing bins: {} of {}", count(done), count(all)),
        });
    }

    /// So many targets are removed, of so many.
    pub fn cleaning(&self, done: u64, all: u64) {
        if let Some(bar) = &self.0 {
            bar.set_message(format!("removing targets: {} of {}", count(done), count(all)));
        }
    }

    /// Takes the line away.
    pub fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// How to remove what a run has written.
pub fn again(options: &Options) -> String {
    let servers: String = match &options.servers[..] {
        [one] if one == super::DEFAULT_SERVER => String::new(),
        all => all.iter().map(|s| format!(" --server {s}")).collect(),
    };
    format!("to remove its targets: tuflog bench --clean --seed {}{servers}", options.seed)
}

/// What a run came to.
pub fn report(r: &Report) -> Outcome {
    line(title(r))?;
    line("")?;
    let mut rows = vec![("load", load(&r.load))];
    let of = format!("{} in {}", plural(r.changes, "change", "changes"), plural(r.batches, "batch", "batches"));
    let tried = if r.retries > 0 { format!(", {} tries again", count(r.retries)) } else { String::new() };
    rows.push((
        "committed",
        format!("{of} in {:.1} s: {} changes/s{tried}", r.load_s, count(r.committed_per_s as u64)),
    ));
    let (per_s, later) = (count(r.published_per_s as u64), r.settle_s);
    rows.push(("visible", format!("{per_s} changes/s; everything {later:.2} s after the last answer")));
    let gap = r.longest_gap_s.map(|s| format!(", at most {s:.2} s apart")).unwrap_or_default();
    rows.push(("checkpoints", count(r.checkpoints) + &gap));
    rows.extend(written(r).map(|text| ("written", text)));
    rows.push(("server", r.server.as_ref().map_or("not seen from here (--pid)".into(), |p| process(p, r))));
    rows.extend(r.client.as_ref().map(|p| ("this client", process(p, r))));
    facts(&rows)?;
    line("")?;
    latencies(r)?;
    line("")?;
    checks(r)
}

fn title(r: &Report) -> String {
    let l = &r.load;
    let layout = format!("{} bins in {}", count(l.bins.into()), plural(l.partitions.into(), "partition", "partitions"));
    format!("tuflog bench of {}: {layout}, seed {}", l.servers.join(", "), l.seed)
}

/// What was sent, in words.
fn load(l: &LoadReport) -> String {
    let [add, replace, remove] = l.mix;
    let batches =
        if l.batch_size == 1 { "single changes".into() } else { format!("batches of {}", count(l.batch_size)) };
    let rate = l.rate.map_or("at full speed".into(), |r| format!("{} changes/s", count(r as u64)));
    let producers = plural(l.producers.into(), "producer", "producers");
    let probes =
        if l.probes > 0 { format!(" and {}", plural(l.probes.into(), "probe", "probes")) } else { String::new() };
    let there = if l.targets > 0 { format!("; {} targets there", count(l.targets)) } else { String::new() };
    let skew = if l.skew == "uniform" { String::new() } else { format!(", {}", l.skew) };
    let wait = if l.wait == "published" { ", each waits until visible" } else { "" };
    format!("{producers}{probes}, {batches}, {rate}{wait}; {add}:{replace}:{remove} add, replace, remove{skew}{there}")
}

fn written(r: &Report) -> Option<String> {
    let each = |n: u64| bytes(n / r.changes.max(1));
    let disk = r.written.disk_bytes.map(|n| format!("{} a change to disk in all", each(n)));
    let store = r.written.store_bytes.map(|n| format!("{} a change to the store ({})", each(n), bytes(n)));
    let parts: Vec<String> = store.into_iter().chain(disk).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn process(p: &Process, r: &Report) -> String {
    let each = p.cpu_s * 1e6 / r.changes.max(1) as f64;
    let took = (r.load_s + r.settle_s).max(0.001);
    let (cores, rss) = (p.cpu_s / took, bytes(p.peak_rss_bytes));
    format!("{:.1} CPU-s ({each:.0} µs a change, {cores:.2} cores), {rss} at most", p.cpu_s)
}

fn latencies(r: &Report) -> Outcome {
    let row = |name: &str, l: &Latency| {
        let times = [l.p50_ms, l.p90_ms, l.p99_ms, l.p999_ms, l.max_ms];
        [vec![name.to_owned()], times.map(millis).to_vec(), vec![count(l.batches)]].concat()
    };
    let all = [("POST to committed", &r.committed), ("POST to visible", &r.visible)];
    let rows = all.iter().filter_map(|(name, l)| l.as_ref().map(|l| row(name, l))).collect();
    table(&["MS", "P50", "P90", "P99", "P99.9", "MAX", "BATCHES"], &[1, 2, 3, 4, 5, 6], rows)
}

/// Three digits that count.
fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2}"),
        ms if ms < 100.0 => format!("{ms:.1}"),
        ms => count(ms.round() as u64),
    }
}

fn checks(r: &Report) -> Outcome {
    let (read, checked) = (&r.readers, &r.checked);
    if read.looks > 0 {
        line(format!(
            "{} looked {} times, at {} snapshots: {} files ({}), {} whole or not there",
            plural(read.readers.into(), "reader", "readers"),
            count(read.looks),
            count(read.snapshots),
            count(read.files),
            bytes(read.bytes),
            plural(read.batches, "batch", "batches"),
        ))?;
    }
    if checked.unchecked > 0 {
        line(format!(
            "not checked: {} that the server does not remember; its history may have them (GET /v1/batches/ID?history=full)",
            plural(checked.unchecked, "batch", "batches"),
        ))?;
    }
    line(format!(
        "in the end {} looked up, and {} in {} bins compared with what was acknowledged",
        plural(checked.batches, "batch", "batches"),
        plural(checked.targets, "target", "targets"),
        count(checked.bins),
    ))?;
    match r.findings_total {
        0 => line("nothing was wrong"),
        n => {
            line("")?;
            line(format!("WRONG: {}", plural(n, "finding", "findings")))?;
            let rows = r.findings.iter().map(|f| vec![f.kind.name().to_owned(), f.message.clone()]).collect();
            table(&["KIND", "WHAT"], &[], rows)
        }
    }
}
