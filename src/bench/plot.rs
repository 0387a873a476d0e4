//! A report as a page: one HTML file with curves as SVG, readable in light and dark, that loads nothing.

use std::fmt::Write;

use super::report::{Latency, Report};

mod chart;

use chart::{Chart, Line, Scale};

/// What stands before the figures. Colours of the curves are told apart by those who do not see red and green, too.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--dim:#5b6570;--grid:#dfe3e8;--page:#fff;--a:#0b62c4;--b:#d2600a;--c:#0b8a6b;--bad:#c0182b}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--dim:#98a2ae;--grid:#30363d;--page:#14171b;--a:#5aa9ff;--b:#ff9e4f;--c:#4fd1ae;--bad:#ff6b7a}}
body{margin:2rem auto;max-width:60rem;padding:0 1rem;background:var(--page);color:var(--ink);font:15px/1.45 system-ui,sans-serif}
h1{font-size:1.35rem;margin:0 0 .2rem}h2{font-size:1rem;margin:2rem 0 .3rem}p{margin:.2rem 0;color:var(--dim)}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.8rem;margin:1.2rem 0}
dt{color:var(--dim);font-size:.85rem}dd{margin:0;font-size:1.25rem;font-variant-numeric:tabular-nums}
svg{width:100%;height:auto;display:block}svg text{fill:var(--dim);font:11px system-ui,sans-serif}
.grid{stroke:var(--grid)}.line{fill:none;stroke-width:1.8;stroke-linejoin:round}.dash{stroke-dasharray:5 3}
.a{stroke:var(--a)}.b{stroke:var(--b)}.c{stroke:var(--c)}svg text.key{font-size:12px;fill:var(--ink)}
.bad{color:var(--bad)}li{margin:.2rem 0}";

/// The page.
pub fn page(r: &Report) -> String {
    let mut out = String::new();
    let title = format!("tuflog bench: {} bins, seed {}", r.load.bins, r.load.seed);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    let [add, replace, remove] = r.load.mix;
    let _ = writeln!(
        out,
        "<p>{} producers, batches of {}, {add}:{replace}:{remove} add, replace, remove, {}, {} targets there; tuflog {}</p>",
        r.load.producers,
        count(r.load.batch_size as f64),
        escaped(&r.load.skew),
        count(r.load.targets as f64),
        escaped(&r.tuflog),
    );
    facts(r, &mut out);
    findings(r, &mut out);
    let seconds = |of: fn(&super::report::Second) -> Option<f64>| -> Vec<(f64, f64)> {
        // The last one is not a whole one.
        let whole = r.seconds.len().saturating_sub(1).max(1);
        let points = r.seconds.iter().take(whole).enumerate().filter_map(|(i, s)| Some((i as f64 + 1.0, of(s)?)));
        points.filter(|(_, y)| y.is_finite()).collect()
    };
    let line = |name, class, points| Line { name, class, points };
    let over_time = |title, y_scale, lines| Chart { title, x: "seconds", y_scale, x_scale: Scale::Linear, lines };
    let throughput = vec![
        line("committed", "a", seconds(|s| Some(s.committed as f64))),
        line("visible", "b", seconds(|s| Some(s.published as f64))),
    ];
    let latency = vec![
        line("committed, p50", "a", seconds(|s| s.committed_p50_ms)),
        line("p99", "a dash", seconds(|s| s.committed_p99_ms)),
        line("visible, p50", "b", seconds(|s| s.visible_p50_ms)),
        line("p99", "b dash", seconds(|s| s.visible_p99_ms)),
    ];
    let curve = |l: &Option<Latency>| l.as_ref().map(|l| percentiles(&l.curve)).unwrap_or_default();
    let by_percentile = Chart {
        title: "Latency by percentile, in milliseconds",
        x: "percentile",
        y_scale: Scale::Log,
        x_scale: Scale::Percentile,
        lines: vec![
            line("POST to committed", "a", curve(&r.committed)),
            line("POST to visible", "b", curve(&r.visible)),
        ],
    };
    let cpu =
        vec![line("server", "b", seconds(|s| s.server_cpu_s)), line("this client", "c", seconds(|s| s.client_cpu_s))];
    for chart in [
        over_time("Changes per second", Scale::Linear, throughput),
        over_time("Latency over time, in milliseconds", Scale::Log, latency),
        by_percentile,
        over_time("Cores in use", Scale::Linear, cpu),
    ] {
        chart.draw(&mut out);
    }
    out.push_str("</body>\n</html>\n");
    out
}

/// The share `q` that a percentile stands at, as a number that grows by 1 for each further nine.
fn percentiles(curve: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let nines = |q: f64| -(1.0 - q).log10();
    curve.iter().filter(|(q, _)| (0.0..1.0).contains(q)).map(|(q, ms)| (nines(*q), *ms)).collect()
}

fn facts(r: &Report, out: &mut String) {
    let ms = |l: &Option<Latency>, of: fn(&Latency) -> f64| l.as_ref().map(|l| format!("{} ms", short(of(l))));
    let each = |n: Option<u64>| n.map(|n| format!("{} B", count((n / r.changes.max(1)) as f64)));
    let cpu = |p: &Option<super::report::Process>| p.as_ref().map(|p| format!("{:.1} s", p.cpu_s));
    let all = [
        ("changes", Some(count(r.changes as f64))),
        ("visible", Some(format!("{}/s", count(r.published_per_s)))),
        ("to committed, p50", ms(&r.committed, |l| l.p50_ms)),
        ("to committed, p99", ms(&r.committed, |l| l.p99_ms)),
        ("to visible, p50", ms(&r.visible, |l| l.p50_ms)),
        ("to visible, p99", ms(&r.visible, |l| l.p99_ms)),
        ("checkpoints", Some(count(r.checkpoints as f64))),
        ("stored a change", each(r.written.store_bytes)),
        ("to disk a change", each(r.written.disk_bytes)),
        ("server CPU", cpu(&r.server)),
        ("server memory", r.server.as_ref().map(|p| format!("{} MiB", count((p.peak_rss_bytes >> 20) as f64)))),
        ("client CPU", cpu(&r.client)),
    ];
    out.push_str("<dl>\n");
    for (name, value) in all {
        if let Some(value) = value {
            let _ = writeln!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
        }
    }
    out.push_str("</dl>\n");
}

fn findings(r: &Report, out: &mut String) {
    if r.findings_total == 0 {
        let (batches, targets) = (count(r.checked.batches as f64), count(r.checked.targets as f64));
        let _ =
            writeln!(out, "<p>{batches} batches and {targets} targets were as acknowledged; nothing was wrong.</p>");
        return;
    }
    let _ = writeln!(out, "<h2 class=\"bad\">{} findings</h2>\n<ul>", count(r.findings_total as f64));
    for f in &r.findings {
        let _ = writeln!(out, "<li><b class=\"bad\">{}</b> {}</li>", f.kind.name(), escaped(&f.message));
    }
    out.push_str("</ul>\n");
}

/// Text as it may stand in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// `1234567.0` → `1 234 567`, with narrow spaces that do not break.
fn count(n: f64) -> String {
    let digits = format!("{:.0}", n.max(0.0));
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A number with as many digits as say something.
fn short(n: f64) -> String {
    match n {
        n if n >= 100.0 => count(n),
        n if n >= 10.0 => format!("{n:.1}"),
        n => format!("{n:.2}"),
    }
}
