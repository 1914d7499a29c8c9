//! Shows the progress of a build on standard error: on a terminal as a bar with the rate and the time
//! left, elsewhere as a line from time to time.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::index::progress::Progress;

/// The time between two lines if there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// A display of the progress of a build.
pub(crate) struct ProgressPrinter {
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Instant,
    /// The number of items that an earlier build had done, once this build has begun to encode or convert.
    done_before: Option<u64>,
}

impl ProgressPrinter {
    /// Starts a display: a bar if standard error is a terminal.
    pub(crate) fn start() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            style(&bar, "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left");
            bar
        });
        let now = Instant::now();
        Self { bar, started: now, last_line: now, done_before: None }
    }

    /// Shows one report.
    pub(crate) fn report(&mut self, progress: Progress) {
        let text = match progress {
            Progress::Reading { passages, .. } => format!("{passages} passages"),
            Progress::Merging => "merging".to_owned(),
            Progress::Compressing => "compressing".to_owned(),
            Progress::Encoding { passages, .. } => format!("{passages} passages encoded"),
            Progress::Rows { action, rows, .. } => format!("{rows} vectors {action}"),
            Progress::Sealing => "syncing".to_owned(),
            Progress::Settling => "waiting for the engine to index".to_owned(),
        };
        let position = match progress {
            Progress::Reading { bytes_read, bytes_total, .. } => Some((bytes_read, bytes_total)),
            Progress::Encoding { passages, total, .. } => Some((passages, total)),
            Progress::Rows { rows, total, .. } => Some((rows, total)),
            Progress::Merging | Progress::Compressing | Progress::Sealing | Progress::Settling => {
                None
            }
        };
        if let (Progress::Encoding { done_before, .. } | Progress::Rows { done_before, .. }, None) =
            (progress, self.done_before)
        {
            self.start_encoding(done_before);
        }
        match &self.bar {
            Some(bar) => {
                if let Some((done, total)) = position {
                    bar.set_length(total);
                    bar.set_position(done);
                }
                bar.set_message(text);
            }
            None => self.print_line(&text, position),
        }
    }

    /// Measures the rate again from here, because encoding has its own rate and may resume an earlier
    /// build.
    fn start_encoding(&mut self, done_before: u64) {
        self.done_before = Some(done_before);
        self.started = Instant::now();
        if let Some(bar) = &self.bar {
            style(bar, "{msg} [{wide_bar}] {pos}/{len} {per_sec} {eta} left");
            bar.set_position(done_before);
            bar.reset_eta();
        }
    }

    fn print_line(&mut self, text: &str, position: Option<(u64, u64)>) {
        if position.is_some() && self.last_line.elapsed() < LINE_INTERVAL {
            return;
        }
        self.last_line = Instant::now();
        let seconds = self.started.elapsed().as_secs_f64();
        // An error of the display must not stop the build.
        let _ = match position {
            Some((done, total)) => {
                let share = done as f64 / total.max(1) as f64;
                let done_here = done - self.done_before.unwrap_or(0).min(done);
                let left = seconds * (total - done) as f64 / done_here.max(1) as f64;
                let rate = done_here as f64 / seconds.max(f64::MIN_POSITIVE);
                let rate = match self.done_before {
                    Some(_) => format!("{rate:.1} passages/s"),
                    None => format!("{:.1} MB/s", rate / 1e6),
                };
                writeln!(
                    io::stderr(),
                    "{text}, {:.0} % after {seconds:.0} s, {rate}, about {left:.0} s left",
                    share * 100.0
                )
            }
            None => writeln!(io::stderr(), "{text} after {seconds:.1} s"),
        };
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Sets the style of a bar.
fn style(bar: &ProgressBar, template: &str) {
    bar.set_style(
        ProgressStyle::with_template(template).expect("the templates of this file parse"),
    );
}
