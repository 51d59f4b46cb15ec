//! How far an import is: a bar on a terminal, a line for each stage elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use outpost_agent_core::memory::gib;
use outpost_runtime::import::Progress;

/// Columns that every terminal has.
const WIDTH: usize = 79;
/// Steps of the bar.
const STEPS: u64 = 20;
/// A bar that changes more often is not read.
const PAUSE: Duration = Duration::from_millis(100);

/// Shows progress on standard error.
#[derive(Debug)]
pub(super) struct ProgressBar {
    on_terminal: bool,
    /// When the present pass over the bytes began, and how many they are.
    pass: (Instant, u64),
    stage: String,
    drawn: Option<Instant>,
}

impl ProgressBar {
    pub(super) fn new() -> Self {
        Self {
            on_terminal: std::io::stderr().is_terminal(),
            pass: (Instant::now(), 0),
            stage: String::new(),
            drawn: None,
        }
    }

    /// Shows how far it is.
    pub(super) fn show(&mut self, progress: Progress<'_>) {
        let is_new = self.stage != progress.stage;
        if is_new {
            progress.stage.clone_into(&mut self.stage);
        }
        if !self.on_terminal {
            if is_new {
                super::say(progress.stage);
            }
            return;
        }
        let now = Instant::now();
        if self.pass.1 != progress.total {
            self.pass = (now, progress.total);
        }
        if self.drawn.is_none_or(|drawn| now - drawn >= PAUSE) {
            self.drawn = Some(now);
            draw(&line(progress, now - self.pass.0));
        }
    }

    /// Takes the bar away, so that what is said next has the line to itself.
    pub(super) fn clear(&self) {
        if self.on_terminal {
            draw("");
        }
    }
}

/// Writes over the present line. A terminal that is gone is no reason to end the work.
fn draw(line: &str) {
    let mut out = std::io::stderr().lock();
    let _ = write!(out, "\r\u{1b}[2K{line}").and_then(|()| out.flush());
}

/// Bar, bytes, rate and stage.
fn line(progress: Progress<'_>, elapsed: Duration) -> String {
    let Progress { stage, done, total } = progress;
    let filled = (done * STEPS).checked_div(total).unwrap_or(0).min(STEPS);
    let bar = "#".repeat(filled as usize) + &"-".repeat((STEPS - filled) as usize);
    let (unit, scale) = if gib(total) < 1.0 { ("MiB", 1024.0) } else { ("GiB", 1.0) };
    let rate = match elapsed.as_secs_f64() {
        seconds if seconds > 0.5 => format!("{:5.0} MiB/s", 1024.0 * gib(done) / seconds),
        _ => " ".repeat(11),
    };
    let line = format!(
        "[{bar}] {:.1}/{:.1} {unit} {rate}  {stage}",
        scale * gib(done),
        scale * gib(total)
    );
    line.chars().take(WIDTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_bytes_rate_and_stage_and_fits_a_terminal() {
        let progress = Progress { stage: "decoder: model.layers.7", done: 3 << 29, total: 3 << 30 };
        let shown = line(progress, Duration::from_mins(1));
        assert_eq!(
            shown,
            "[##########----------] 1.5/3.0 GiB    26 MiB/s  decoder: model.layers.7"
        );
        let long = "a stage with a name that no terminal has room for, whatever its width may be";
        for (done, total) in [(0, 0), (1, 1 << 20), (u64::MAX >> 8, u64::MAX >> 8)] {
            let shown = line(Progress { stage: long, done, total }, Duration::ZERO);
            assert!(shown.chars().count() <= WIDTH, "{shown}");
        }
    }
}
