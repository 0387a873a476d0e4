//! Output for people and for programs: aligned tables, units, UTC; or JSON, one document or one a line.
//!
//! Colour is for terminals alone, and not where NO_COLOR says so: what is styled here loses it on its way out.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::failure::Outcome;
use crate::clock::format_utc;

/// Prints a line. A closed stdout ends the command as if all was said.
pub fn line(text: impl Display) -> Outcome {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}", tame(&text.to_string()))?;
    Ok(())
}

/// Text of others without what steers a terminal or turns its letters round: such characters are shown as `\u{9b}`.
/// Those below U+0020 stand in nothing that is shown but by [`look`].
fn tame(text: &str) -> Cow<'_, str> {
    let steers = |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if steers(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Prints one JSON document as a line.
pub fn json_line<T: Serialize>(value: &T) -> Outcome {
    let mut text = serde_json::to_vec(value).map_err(io::Error::from)?;
    text.push(b'\n');
    io::stdout().lock().write_all(&text)?;
    Ok(())
}

/// What a piece of text is, and so how it looks on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The head of a table, the name of a fact.
    Name,
    /// All is well; something came.
    Good,
    /// It needs a look; something changed.
    Fair,
    /// It is wrong; something went.
    Bad,
    /// Beside the point.
    Faint,
}

/// Text as it looks on a terminal.
pub fn look(look: Look, text: impl Display) -> String {
    let style = match look {
        Look::Name => Style::new().bold(),
        Look::Good => AnsiColor::Green.on_default(),
        Look::Fair => AnsiColor::Yellow.on_default(),
        Look::Bad => AnsiColor::Red.on_default(),
        Look::Faint => Style::new().dimmed(),
    };
    format!("{style}{text}{style:#}")
}

/// Prints one JSON document, indented.
pub fn json<T: Serialize>(value: &T) -> Outcome {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Says something beside the result, on stderr.
pub fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{}", tame(&text.to_string())); // nobody is left to tell
}

/// Lines of name and value, aligned.
pub fn facts(rows: &[(&str, String)]) -> Outcome {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows {
        let name = look(Look::Name, format!("{name:width$}"));
        line(format!("{name}  {value}").trim_end())?;
    }
    Ok(())
}

/// A table with a header; the columns whose index is in `right` are aligned to the right.
pub fn table(header: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> Outcome {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    table.add_rows(rows);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for (i, row) in table.lines().enumerate() {
        let row = row.trim_end();
        if i == 0 { line(look(Look::Name, row))? } else { line(row)? }
    }
    Ok(())
}

/// `1234567` → `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 batch`, `2 batches`.
pub fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// `1536` → `1.5 KiB`.
pub fn bytes(n: u64) -> String {
    let (mut value, mut unit) = (n as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") }
}

/// `90` → `1 min 30 s`; at most two units.
pub fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let Some(first) = units.iter().position(|(size, _)| seconds >= *size) else { return "0 s".into() };
    let (size, name) = units[first];
    let rest = units.get(first + 1).map(|(next, name)| (seconds % size / next, name)).filter(|(n, _)| *n > 0);
    let head = format!("{} {name}", seconds / size);
    rest.map_or(head.clone(), |(n, name)| format!("{head} {n} {name}"))
}

/// How far a time is from `now`.
pub fn ago(unix: u64, now: u64) -> String {
    match unix.checked_sub(now) {
        Some(0) => "now".to_owned(),
        Some(ahead) => format!("in {}", duration(ahead)),
        None => format!("{} ago", duration(now - unix)),
    }
}

/// A time as UTC, with how far it is from `now`.
pub fn time(unix: u64, now: u64) -> String {
    format!("{} ({})", format_utc(unix), ago(unix, now))
}

/// `4200` → `4.2 s`: milliseconds as people read them.
pub fn milliseconds(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ms as f64 / 1e3),
        _ => duration(ms / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_does_not_steer_a_terminal() {
        assert_eq!(tame("a/ä 漢\u{1b}[1m"), "a/ä 漢\u{1b}[1m");
        assert_eq!(tame("x\u{9b}2J\u{202e}y"), "x\\u{9b}2J\\u{202e}y");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_000, 66_498, 1_234_567].map(count), ["0", "999", "1,000", "66,498", "1,234,567"]);
        assert_eq!([0, 1023, 1536, 3 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]);
        let times = [0, 59, 60, 90, 3_600, 90_000, 86_400 * 7];
        assert_eq!(times.map(duration), ["0 s", "59 s", "1 min", "1 min 30 s", "1 h", "1 d 1 h", "7 d"]);
        assert_eq!(time(90, 0), "1970-01-01T00:01:30Z (in 1 min 30 s)");
        assert_eq!(time(0, 60), "1970-01-01T00:00:00Z (1 min ago)");
        assert_eq!(
            (plural(1, "batch", "batches"), plural(2, "batch", "batches")),
            ("1 batch".into(), "2 batches".into())
        );
    }
}
