//! Progress of long work. On a terminal: a bar with rate and remaining time. Elsewhere: a plain line now
//! and then, which shows in a log that the work progresses.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Shortest time between two plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Returns the bars on the terminal. The process has one set, which logging can suspend.
fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(MultiProgress::new)
}

/// Standard error for log lines. Suspends the bars while it writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bars().suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The progress of one piece of work, shown on standard error until it is finished or dropped.
#[derive(Debug)]
pub struct Progress {
    view: View,
}

#[derive(Debug)]
enum View {
    Bar(ProgressBar),
    Plain { lines: PlainProgress, start: Instant },
}

impl Progress {
    /// Starts the work `label` of `total` units; `unit` is a plural noun such as `questions`.
    pub fn start(label: &str, total: u64, unit: &str) -> Self {
        if io::stderr().is_terminal() {
            return Self { view: View::Bar(bar(label, total, unit)) };
        }
        let lines = PlainProgress::new(label, total, unit);
        Self { view: View::Plain { lines, start: Instant::now() } }
    }

    /// Counts `done` units that were done before the start, as in a resumed run. They count towards the
    /// total but not towards the rate.
    pub fn skip(&mut self, done: u64) {
        match &mut self.view {
            View::Bar(bar) => {
                bar.set_position(done);
                bar.reset_eta();
            }
            View::Plain { lines, .. } => {
                lines.done = done;
                lines.skipped = done;
            }
        }
    }

    /// Adds `count` units to those done.
    pub fn advance(&mut self, count: u64) {
        let done = match &self.view {
            View::Bar(bar) => bar.position() + count,
            View::Plain { lines, .. } => lines.done + count,
        };
        self.set(done);
    }

    /// Sets the number of units done.
    pub fn set(&mut self, done: u64) {
        match &mut self.view {
            View::Bar(bar) => bar.set_position(done),
            View::Plain { lines, start } => {
                lines.done = done;
                if let Some(line) = lines.line_if_due(start.elapsed()) {
                    write_line(&line);
                }
            }
        }
    }

    /// Sets a short note next to the count, such as `reward 0.31`.
    pub fn note(&mut self, note: &str) {
        match &mut self.view {
            View::Bar(bar) => bar.set_message(note.to_owned()),
            View::Plain { lines, .. } => note.clone_into(&mut lines.note),
        }
    }

    /// Ends the work. Replaces the bar by one line with the duration.
    pub fn finish(self) {
        match self.view {
            View::Bar(bar) => {
                let total = bar.length().expect("a bar starts with a length");
                let mut lines = PlainProgress::new(&bar.prefix(), total, "");
                lines.done = bar.position();
                lines.note = bar.message();
                let line = lines.last_line(bar.elapsed());
                bar.finish_and_clear();
                bars().suspend(|| write_line(&line));
            }
            View::Plain { lines, start } => write_line(&lines.last_line(start.elapsed())),
        }
    }
}

fn bar(label: &str, total: u64, unit: &str) -> ProgressBar {
    let template = format!(
        "{{prefix}} {{wide_bar}} {{pos}}/{{len}} {unit} · {{per_sec}} · {{eta}} left  {{msg}}"
    );
    let style = ProgressStyle::with_template(&template).expect("the template of the bar is valid");
    let bar = bars().add(ProgressBar::new(total).with_style(style.progress_chars("━╸─")));
    bar.set_prefix(label.to_owned());
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// Writes a line. Ignores errors: they are not worth stopping the work for.
fn write_line(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Progress as lines of text. The caller supplies the time.
#[derive(Debug)]
struct PlainProgress {
    label: String,
    unit: String,
    total: u64,
    done: u64,
    /// The part of `done` that was done before the start.
    skipped: u64,
    note: String,
    last_line_at: Option<Duration>,
}

impl PlainProgress {
    fn new(label: &str, total: u64, unit: &str) -> Self {
        Self {
            label: label.to_owned(),
            unit: unit.to_owned(),
            total,
            done: 0,
            skipped: 0,
            note: String::new(),
            last_line_at: None,
        }
    }

    /// Returns the next line, unless the last one is too recent. The first unit always gets a line, which
    /// shows the speed of the work.
    fn line_if_due(&mut self, elapsed: Duration) -> Option<String> {
        let due = match self.last_line_at {
            None => self.done > self.skipped,
            Some(last) => elapsed >= last + PLAIN_INTERVAL,
        };
        if !due {
            return None;
        }
        self.last_line_at = Some(elapsed);
        Some(self.line(elapsed))
    }

    fn line(&self, elapsed: Duration) -> String {
        let worked = self.done.saturating_sub(self.skipped);
        let rate = worked as f64 / elapsed.as_secs_f64().max(1e-3);
        let mut line = format!("{}: {}/{}", self.label, self.done, self.total);
        if !self.unit.is_empty() {
            line = format!("{line} {}", self.unit);
        }
        line = format!("{line}, {}", shown_rate(rate));
        if worked > 0 && self.done < self.total {
            let left = (self.total - self.done) as f64 / rate;
            line = format!("{line}, {} left", shown_time(left));
        }
        if !self.note.is_empty() {
            line = format!("{line}, {}", self.note);
        }
        line
    }

    fn last_line(&self, elapsed: Duration) -> String {
        let note = if self.note.is_empty() { String::new() } else { format!(", {}", self.note) };
        let unit = if self.unit.is_empty() { String::new() } else { format!(" {}", self.unit) };
        let time = shown_time(elapsed.as_secs_f64());
        format!("{}: done, {}/{}{unit} in {time}{note}", self.label, self.done, self.total)
    }
}

/// Formats a rate with about three digits, per second or, if slow, per minute.
fn shown_rate(per_second: f64) -> String {
    if per_second >= 100.0 {
        format!("{per_second:.0}/s")
    } else if per_second >= 1.0 {
        format!("{per_second:.1}/s")
    } else {
        format!("{:.1}/min", per_second * 60.0)
    }
}

/// Formats seconds as `42s`, `3m05s` or `1h02m`.
fn shown_time(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_are_limited_by_time_and_say_rate_and_time_left() {
        let mut lines = PlainProgress::new("evaluation", 100, "questions");
        assert_eq!(lines.line_if_due(Duration::from_mins(1)), None, "a line before the first unit");
        let mut shown = Vec::new();
        for second in 1..=50 {
            lines.done = second;
            shown.extend(lines.line_if_due(Duration::from_secs(second)));
        }
        assert_eq!(shown.len(), 5, "{shown:?}");
        assert_eq!(shown[0], "evaluation: 1/100 questions, 1.0/s, 1m39s left");
        lines.note = "em 0.50".to_owned();
        lines.done = 80;
        let line = lines.line_if_due(Duration::from_secs(160)).unwrap();
        assert_eq!(line, "evaluation: 80/100 questions, 30.0/min, 40s left, em 0.50");
        lines.done = 100;
        let line = lines.last_line(Duration::from_secs(200));
        assert_eq!(line, "evaluation: done, 100/100 questions in 3m20s, em 0.50");
    }

    #[test]
    fn work_done_before_does_not_count_towards_the_rate() {
        let mut lines = PlainProgress::new("train", 60, "steps");
        (lines.done, lines.skipped) = (50, 50);
        assert_eq!(lines.line_if_due(Duration::from_secs(30)), None);
        lines.done = 52;
        let line = lines.line_if_due(Duration::from_secs(40)).unwrap();
        assert_eq!(line, "train: 52/60 steps, 3.0/min, 2m40s left");
    }

    #[test]
    fn rates_and_times_read_well_at_every_size() {
        assert_eq!(shown_rate(1234.4), "1234/s");
        assert_eq!(shown_rate(12.34), "12.3/s");
        assert_eq!(shown_rate(0.05), "3.0/min");
        assert_eq!(shown_time(59.4), "59s");
        assert_eq!(shown_time(59.6), "1m00s");
        assert_eq!(shown_time(7380.0), "2h03m");
    }

    #[test]
    fn work_without_units_or_total_does_not_divide_by_zero() {
        let mut lines = PlainProgress::new("conversion", 0, "");
        lines.done = 0;
        assert_eq!(lines.line(Duration::ZERO), "conversion: 0/0, 0.0/min");
        assert_eq!(lines.last_line(Duration::ZERO), "conversion: done, 0/0 in 0s");
    }
}
