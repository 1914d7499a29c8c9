//! Logging of both services: one subscriber, to standard error, so that standard output stays for
//! what a command prints. Nothing here reads the environment; the caller passes what it found.

use std::io::IsTerminal;

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Logging could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter is not one that tracing understands.
    #[error("log filter {filter:?} is not understood: {reason}")]
    Filter {
        /// What was given.
        filter: String,
        /// Why it was refused.
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

/// Installs the process-wide logger. Call once. `writer` leads to standard error, directly or past
/// what else is shown there.
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
