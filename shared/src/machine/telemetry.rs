//! Logging of both services: one subscriber that writes to standard error, because standard output is for the results
//! of commands. It does not read the environment; the caller passes the filter.

use std::io::IsTerminal;

use thiserror::Error;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// The reason why logging could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter is invalid.
    #[error("log filter {filter:?} is invalid: {reason}")]
    Filter {
        /// The given filter.
        filter: String,
        /// The reason why it is invalid.
        reason: String,
    },
    /// A subscriber is installed already.
    #[error("logging was set up twice")]
    AlreadySet,
}

/// Checks a filter such as `info` or `info,retriever_server=debug` without installing it.
pub fn check_filter(filter: &str) -> Result<(), TelemetryError> {
    parse(filter).map(|_| ())
}

/// Most lines that wait to be written.
const MAX_WAITING_LINES: usize = 65_536;

/// The thread that writes the log of a server. Dropping it writes what still waits.
#[derive(Debug)]
pub struct LogThread {
    _guard: WorkerGuard,
}

/// Installs the logger of a server, as [`init`] does, with a thread that writes to standard error. Whoever logs never
/// waits for the terminal, the pipe or the disk behind it; lines are lost if more than 65,536 of them wait.
pub fn init_threaded(filter: &str, format: LogFormat) -> Result<LogThread, TelemetryError> {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(MAX_WAITING_LINES)
        .thread_name("log")
        .finish(std::io::stderr());
    init(filter, format, writer)?;
    Ok(LogThread { _guard: guard })
}

/// Installs the logger of the process; call it once. `writer` writes to standard error, directly or around other
/// output such as a progress bar.
pub fn init<W>(filter: &str, format: LogFormat, writer: W) -> Result<(), TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parse(filter)?)
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let installed = match format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    };
    installed.map_err(|_| TelemetryError::AlreadySet)
}

fn parse(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder().parse(filter).map_err(|error| TelemetryError::Filter {
        filter: filter.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        check_filter("info,retriever_server=debug").unwrap();
        let error = check_filter("retriever=loudly").unwrap_err();
        assert!(error.to_string().contains("retriever=loudly"), "{error}");
    }
}
