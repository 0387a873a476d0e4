//! How far an import has come: a bar on a terminal, a line now and then elsewhere. All of it on stderr.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::flight::Tally;
use crate::cli::output::{count, note, plural};
use crate::cli::source::Progress;
use crate::clock::{Clock, SystemClock};

/// How often the bar moves.
pub const TICK: Duration = Duration::from_millis(100);
/// How often a line is written where there is no terminal, in milliseconds.
const LINE_MS: u64 = 5_000;

/// Shows how far an import has come.
pub struct Display {
    read: Arc<Progress>,
    bar: Option<ProgressBar>,
    started_ms: u64,
    line_ms: AtomicU64,
}

impl Display {
    /// Starts to show.
    pub fn new(read: Arc<Progress>) -> Display {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = match read.total() {
                Some(total) => ProgressBar::new(total)
                    .with_style(style("[{bar:30}] {percent:>3} %  {bytes} of {total_bytes} read, {msg}, {eta} to go")),
                None => ProgressBar::no_length().with_style(style("{spinner} {bytes} read, {msg}")),
            };
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            bar
        });
        Display { read, bar, started_ms: SystemClock.ticks_ms(), line_ms: AtomicU64::new(LINE_MS) }
    }

    /// Time has passed.
    pub fn tick(&self, tally: &Tally) {
        let elapsed = self.elapsed_ms();
        let rate = tally.changes * 1_000 / elapsed.max(1);
        let text = format!("{} sent, {}/s", plural(tally.changes, "change", "changes"), count(rate));
        if let Some(bar) = &self.bar {
            bar.set_position(self.read.read());
            bar.set_message(text);
        } else if elapsed >= self.line_ms.load(Ordering::Relaxed) {
            self.line_ms.store(elapsed + LINE_MS, Ordering::Relaxed);
            let share = match self.read.total() {
                Some(total) if total > 0 => format!(", {} % of the input read", self.read.read() * 100 / total),
                _ => String::new(),
            };
            note(format!("import: {text}, {} batches there already{share}", count(tally.known)));
        }
    }

    /// Everything is committed.
    pub fn waiting(&self) {
        if let Some(bar) = &self.bar {
            bar.set_style(style("{spinner} all is committed; waiting until clients see it"));
            bar.enable_steady_tick(TICK);
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Since the start.
    pub fn elapsed_ms(&self) -> u64 {
        SystemClock.ticks_ms() - self.started_ms
    }

    /// Links and special files that were left out.
    pub fn skipped(&self) -> u64 {
        self.read.skipped()
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_sound() {
        for template in [
            "[{bar:30}] {percent:>3} %  {bytes} of {total_bytes} read, {msg}, {eta} to go",
            "{spinner} {bytes} read, {msg}",
        ] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
