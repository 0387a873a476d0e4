//! A chart as inline SVG: lines over axes.

use std::fmt::Write;

use super::{count, short};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 34.0;

/// How a value becomes a place.
#[derive(Clone, Copy, PartialEq)]
pub enum Scale {
    /// From 0 on.
    Linear,
    /// By factors of ten.
    Log,
    /// Of nines: 1 is 90 %, 2 is 99 %.
    Percentile,
}

/// A curve.
pub struct Line {
    /// What it shows.
    pub name: &'static str,
    /// Its classes: `a`, `b` or `c`, and `dash`.
    pub class: &'static str,
    /// Rising in x.
    pub points: Vec<(f64, f64)>,
}

/// See the module.
pub struct Chart {
    /// What stands above it, with the unit of y.
    pub title: &'static str,
    /// The unit of x.
    pub x: &'static str,
    /// Of x.
    pub x_scale: Scale,
    /// Of y.
    pub y_scale: Scale,
    /// Those without points are left out.
    pub lines: Vec<Line>,
}

/// An axis: its two ends, and what is written where.
struct Axis {
    from: f64,
    to: f64,
    ticks: Vec<(f64, String)>,
}

impl Chart {
    /// Appends the chart; nothing if there is nothing to show.
    pub fn draw(&self, out: &mut String) {
        let lines: Vec<&Line> = self.lines.iter().filter(|l| !l.points.is_empty()).collect();
        let points = || lines.iter().flat_map(|l| l.points.iter());
        if points().next().is_none() {
            return;
        }
        let x = axis(self.x_scale, points().map(|p| p.0));
        let y = axis(self.y_scale, points().map(|p| p.1));
        let at_x = |v: f64| LEFT + x.share(self.x_scale, v) * (WIDTH - LEFT - RIGHT);
        let at_y = |v: f64| HEIGHT - BOTTOM - y.share(self.y_scale, v) * (HEIGHT - TOP - BOTTOM);
        let title = self.title;
        let _ = writeln!(out, "<h2>{title}</h2>");
        let _ = writeln!(out, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
        for (value, text) in &y.ticks {
            let y = at_y(*value);
            let (to, left, below) = (WIDTH - RIGHT, LEFT - 6.0, y + 4.0);
            let _ = writeln!(out, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{to}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
            let _ = writeln!(out, "<text x=\"{left}\" y=\"{below:.1}\" text-anchor=\"end\">{text}</text>");
        }
        for (value, text) in &x.ticks {
            let below = HEIGHT - BOTTOM + 16.0;
            let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{below}\" text-anchor=\"middle\">{text}</text>", at_x(*value));
        }
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - 4.0);
        let _ = writeln!(out, "<text x=\"{right}\" y=\"{bottom}\" text-anchor=\"end\">{}</text>", self.x);
        let mut key = LEFT;
        for line in lines {
            let mut path = String::new();
            for (i, (x, y)) in line.points.iter().enumerate() {
                let _ = write!(path, "{}{:.1} {:.1}", if i == 0 { "M" } else { "L" }, at_x(*x), at_y(*y));
            }
            if let [(x, _)] = line.points[..] {
                let _ = write!(path, "L{:.1} {:.1}", at_x(x) + 3.0, at_y(line.points[0].1)); // a point is no line
            }
            let (class, name, text) = (line.class, line.name, key + 24.0);
            let _ = writeln!(out, "<path class=\"line {class}\" d=\"{path}\"><title>{name}</title></path>");
            let (to, y, low) = (key + 18.0, HEIGHT - 8.0, HEIGHT - 4.0);
            let _ = writeln!(out, "<path class=\"line {class}\" d=\"M{key} {y}L{to} {y}\"/>");
            let _ = writeln!(out, "<text class=\"key\" x=\"{text}\" y=\"{low}\">{name}</text>");
            key += 44.0 + 7.0 * name.len() as f64;
        }
        out.push_str("</svg>\n");
    }
}

impl Axis {
    /// Where a value stands, 0 to 1.
    fn share(&self, scale: Scale, value: f64) -> f64 {
        let place = |v: f64| if scale == Scale::Log { v.max(1e-3).log10() } else { v };
        let (from, to) = (place(self.from), place(self.to));
        if to > from { ((place(value) - from) / (to - from)).clamp(0.0, 1.0) } else { 0.0 }
    }
}

fn axis(scale: Scale, values: impl Iterator<Item = f64> + Clone) -> Axis {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let most = values.fold(0.0, f64::max);
    match scale {
        Scale::Linear => {
            let step = step(most.max(1e-3) / 5.0);
            let n = (most / step).ceil().max(1.0) as u32;
            let text = |v: f64| if step < 1.0 { short(v) } else { count(v) };
            let ticks = (0..=n).map(|i| (f64::from(i) * step, text(f64::from(i) * step))).collect();
            Axis { from: 0.0, to: f64::from(n) * step, ticks }
        }
        Scale::Log => {
            let from = least.max(1e-3).log10().floor() as i32;
            let to = (most.max(1e-3).log10().ceil() as i32).max(from + 1);
            let text = |e: i32| {
                if e < 0 { format!("{:.*}", e.unsigned_abs() as usize, 10f64.powi(e)) } else { count(10f64.powi(e)) }
            };
            let ticks = (from..=to).map(|e| (10f64.powi(e), text(e))).collect();
            Axis { from: 10f64.powi(from), to: 10f64.powi(to), ticks }
        }
        Scale::Percentile => {
            let names = ["0", "90", "99", "99.9", "99.99", "99.999", "99.9999"];
            let to = most.ceil().clamp(1.0, (names.len() - 1) as f64);
            let half = (0.5f64.log10().abs(), "50".to_owned());
            let nines = names.iter().enumerate().map(|(i, name)| (i as f64, (*name).to_owned()));
            let ticks = nines.take_while(|(i, _)| *i <= to).chain([half]).collect();
            Axis { from: 0.0, to, ticks }
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least `n`.
fn step(n: f64) -> f64 {
    let power = 10f64.powf(n.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|f| f * power).find(|s| *s >= n * 0.999).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_what_is_shown_on_them() {
        for values in [vec![0.0], vec![3.0, 17.0], vec![0.004, 950_000.0]] {
            for scale in [Scale::Linear, Scale::Log] {
                let axis = axis(scale, values.iter().copied());
                assert!(values.iter().all(|v| *v <= axis.to) && axis.from < axis.to, "{values:?}");
                assert!((2..=12).contains(&axis.ticks.len()), "{:?}", axis.ticks);
            }
        }
        assert_eq!([0.3, 1.0, 7.0, 23.0].map(step), [0.5, 1.0, 10.0, 50.0]);
    }
}
