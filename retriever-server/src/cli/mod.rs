//! The command line: arguments to configuration, configuration to work, outcome to exit code.

mod arguments;
mod health;
mod progress;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use shared::{shutdown, telemetry};
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::app::{Drained, Server};
use crate::cli::arguments::Command;
use crate::cli::progress::ProgressPrinter;
use crate::config::source::{self, Layered, Source};
use crate::config::{ConfigError, IndexConfig, LogConfig, ServeConfig, variables};
use crate::index::build::{self, BuildRequest, Outcome};

/// `EX_USAGE` of sysexits: the command line or the configuration is bad.
const EXIT_USAGE: u8 = 64;
/// The work failed.
const EXIT_FAILURE: u8 = 1;

/// Threads that move bytes; searching has its own.
const ASYNC_THREADS: usize = 2;

/// Runs the program: results go to `out`, logs and progress to standard error.
pub fn run(arguments: impl IntoIterator<Item = OsString>, out: &mut dyn Write) -> ExitCode {
    let command = match arguments::parse(arguments) {
        Ok(command) => command,
        Err(error) => {
            // Help and version are no errors, and clap knows which stream each belongs on.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match execute(command, out) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            let usage = error.downcast_ref::<ConfigError>().is_some();
            ExitCode::from(if usage { EXIT_USAGE } else { EXIT_FAILURE })
        }
    }
}

fn execute(command: Command, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let layered = |flags: BTreeMap<String, String>| {
        let environment = source::environment();
        Layered { flags, environment }
    };
    match command {
        Command::Serve { flags } => serve(&layered(flags)),
        Command::Index { flags, force } => index(&layered(flags), force, out),
        Command::Health { url } => Ok(match health::check(url, &source::environment()) {
            Ok(()) => {
                writeln!(out, "ok")?;
                ExitCode::SUCCESS
            }
            Err(reason) => {
                writeln!(io::stderr(), "error: {reason}")?;
                ExitCode::from(EXIT_FAILURE)
            }
        }),
        Command::Variables => {
            out.write_all(variables::markdown().as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn start_log(source: &dyn Source) -> anyhow::Result<()> {
    let log = LogConfig::resolve(source)?;
    Ok(telemetry::init(&log.filter, log.format)?)
}

fn serve(source: &Layered) -> anyhow::Result<ExitCode> {
    let config = ServeConfig::resolve(source)?;
    start_log(source)?;
    warn_of_unknown(source);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(ASYNC_THREADS)
        .enable_all()
        .build()?;
    let drained = runtime.block_on(async {
        let shutdown = shutdown::listen()?;
        let addr = config.addr;
        let listener = TcpListener::bind(addr)
            .await
            .map_err(|error| anyhow::anyhow!("cannot listen on {addr}: {error}"))?;
        info!(addr = %listener.local_addr()?, "listening");
        let server = Server::new(config)?;
        let shutdown = async move {
            let signal = shutdown.await;
            info!(?signal, "asked to end");
        };
        anyhow::Ok(server.run(listener, shutdown).await?)
    })?;
    // What outlasted the grace period is not waited for a second time.
    runtime.shutdown_background();
    Ok(match drained {
        Drained::Complete => ExitCode::SUCCESS,
        Drained::OutOfTime => ExitCode::from(EXIT_FAILURE),
    })
}

/// A misspelt variable changes nothing, which its author should hear. It cannot be an error: a
/// Kubernetes service called `retriever` sets variables of this prefix too.
fn warn_of_unknown(source: &Layered) {
    for name in source.environment.keys() {
        let known = variables::VARIABLES.iter().any(|variable| variable.name == name);
        if !known && !name.contains("_SERVICE_") && !name.contains("_PORT") {
            warn!(variable = name, "this variable is not known and has no effect");
        }
    }
}

fn index(source: &Layered, force: bool, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let IndexConfig { index, corpus, threads } = IndexConfig::resolve(source)?;
    start_log(source)?;
    let request = BuildRequest { corpus, index, force, threads };
    let started = Instant::now();
    let mut printer = ProgressPrinter::start();
    let outcome = build::build(&request, &mut |progress| printer.report(progress))?;
    printer.finish();
    let folder = request.index.display();
    match outcome {
        Outcome::Built(manifest) => writeln!(
            out,
            "indexed {} passages, {} tokens in {:.1} s: {folder}",
            manifest.passage_count,
            manifest.token_count,
            started.elapsed().as_secs_f64()
        )?,
        Outcome::UpToDate(manifest) => {
            writeln!(out, "up to date, {} passages: {folder}", manifest.passage_count)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
