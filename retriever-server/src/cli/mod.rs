//! The command line: arguments to configuration, configuration to work, outcome to exit code.
//!
//! In reading order: what commands share (`flags`, `progress`), the parts of commands that need a
//! file of their own, and the command line itself (`arguments`).

mod flags;
mod progress;
mod derived;
mod loaded;
mod health;
mod plan;
mod evaluate;
mod bench;
mod arguments;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Parser;
use shared::machine::instruction_set;
use shared::machine::shutdown::{self, Hangups};
use shared::machine::telemetry::{self, TelemetryError};
use shared::machine::traces::Traces;
use thiserror::Error;
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::access::Access;
use crate::app::{Drained, Listeners, Reloader, Server};
use crate::config::disk::{CheckedIndex, CheckedServe, IndexPlan};
use crate::config::source::{self, Layered};
use crate::config::{ConfigError, EncoderConfig, IndexConfig, LogConfig, shown, variables};
use crate::corpus::store::PassageStore;
use crate::encode::{Encoder, Goal, calls};
use crate::index::build::{self, BuildOutcome, BuildRequest};
use crate::index::dense::{self, VectorSource};
use crate::index::manifest::Manifest;
use crate::loading::{self, ServeError};
use crate::state::AppState;
use arguments::{Arguments, Command, IndexArguments};
use progress::ProgressPrinter;

/// The work was done.
pub const EXIT_SUCCESS: u8 = 0;
/// The work failed.
pub const EXIT_FAILURE: u8 = 1;
/// The command line or the configuration is bad: `EX_USAGE` of sysexits.
pub const EXIT_USAGE: u8 = 64;

/// The number of async threads, which only move bytes. Searches have threads of their own.
const ASYNC_THREADS: usize = 2;

/// The longest wait for a library before the process exits. A batch takes seconds on a slow machine.
const LIBRARY_TIME_LIMIT: Duration = Duration::from_secs(10);

/// The streams that a command writes to. Logs and progress go to standard error directly.
pub struct Streams<'a> {
    /// Receives results.
    pub out: &'a mut dyn Write,
    /// Receives the error that ended the command.
    pub err: &'a mut dyn Write,
}

impl std::fmt::Debug for Streams<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Streams").finish_non_exhaustive()
    }
}

/// A flag with a well-formed value that cannot be used. The text names the flag, the value and what
/// is accepted.
#[derive(Debug, Error)]
#[error("{0}")]
struct UsageError(String);

/// Runs the program and returns its exit code. Output to a closed stream is lost; the exit code is
/// the same.
pub fn run(arguments: impl IntoIterator<Item = OsString>, streams: &mut Streams<'_>) -> u8 {
    let command = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments.command,
        Err(error) if error.use_stderr() => {
            let _ = write!(streams.err, "{error}");
            return EXIT_USAGE;
        }
        // Help and version are not errors.
        Err(help) => {
            let _ = write!(streams.out, "{help}");
            return EXIT_SUCCESS;
        }
    };
    if let Err(error) = instruction_set::check_limit() {
        let _ = writeln!(streams.err, "error: {error}");
        return EXIT_USAGE;
    }
    execute(command, streams.out).unwrap_or_else(|error| {
        let _ = writeln!(streams.err, "error: {error:#}");
        let is_usage = error.is::<ConfigError>() || error.is::<UsageError>();
        if is_usage { EXIT_USAGE } else { EXIT_FAILURE }
    })
}

/// Makes the process ready to exit: waits for what libraries compute, a short time at most.
pub fn end() {
    // What is still running has been given up, so nobody waits for its result.
    let _ = calls::end(LIBRARY_TIME_LIMIT);
}

fn execute(command: Command, out: &mut dyn Write) -> anyhow::Result<u8> {
    let environment = source::environment();
    match command {
        Command::Serve(flags) => serve(&Layered { flags: flags.values, environment }),
        Command::Check(flags) => check(&Layered { flags: flags.values, environment }, out),
        Command::Index(arguments) => index(arguments, environment, out),
        Command::Health(arguments) => {
            health::check(arguments.url, &environment)?;
            writeln!(out, "ok")?;
            Ok(EXIT_SUCCESS)
        }
        Command::Bench(arguments) => bench::run(&arguments, &environment, out),
        Command::Plan(arguments) => plan::run(&arguments, environment, out),
        Command::Eval(arguments) => evaluate::run(&arguments, &environment, out),
        Command::Variables(arguments) => {
            let text = if arguments.env { variables::env_example() } else { variables::markdown() };
            out.write_all(text.as_bytes())?;
            Ok(EXIT_SUCCESS)
        }
    }
}

/// Checks the configuration for `serve` and `check`, so that both report the same.
fn configure(
    source: &Layered,
    start_log: impl FnOnce(&LogConfig) -> anyhow::Result<()>,
) -> anyhow::Result<CheckedServe> {
    let checked = CheckedServe::resolve(source)?;
    start_log(&checked.log)?;
    warn_of_unknown(source);
    Ok(checked)
}

fn start_log(log: &LogConfig) -> anyhow::Result<()> {
    match telemetry::init(&log.filter, log.format, std::io::stderr) {
        // A program that runs commands in process has its own log.
        Ok(()) | Err(TelemetryError::AlreadySet) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn serve(source: &Layered) -> anyhow::Result<u8> {
    // It writes the last lines when this function ends.
    let mut log_thread = None;
    let start_log = |log: &LogConfig| match telemetry::init_threaded(&log.filter, log.format) {
        Ok(thread) => {
            log_thread = Some(thread);
            Ok(())
        }
        Err(TelemetryError::AlreadySet) => Ok(()),
        Err(error) => Err(error.into()),
    };
    let config = configure(source, start_log)?.serve;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(ASYNC_THREADS)
        .enable_all()
        .build()?;
    let drained = runtime.block_on(async {
        let shutdown = shutdown::listen()?;
        let addr = config.addr;
        let listener = bind(addr).await?;
        info!(addr = %listener.local_addr()?, "listening");
        let operators = match config.service.admin_addr {
            Some(addr) => Some(bind(addr).await?),
            None => None,
        };
        if let Some(operators) = &operators {
            info!(addr = %operators.local_addr()?, "listening for operators");
        }
        let server = Server::new(config)?;
        tokio::spawn(reload_on_signal(server.reloader(), shutdown::hangups()?));
        let shutdown = async move {
            let signal = shutdown.await;
            info!(?signal, "asked to end");
        };
        server.run(Listeners { clients: listener, operators }, shutdown).await.map_err(unwrapped)
    })?;
    // Work that outlasted the grace period is not waited for again.
    runtime.shutdown_background();
    Ok(match drained {
        Drained::Complete => EXIT_SUCCESS,
        Drained::OutOfTime => EXIT_FAILURE,
    })
}

async fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(addr).await;
    listener.map_err(|error| anyhow::anyhow!("cannot listen on {addr}: {error}"))
}

/// Loads the index again at each SIGHUP. Signals that come meanwhile are one.
async fn reload_on_signal(reloader: Reloader, mut hangups: Hangups) {
    while hangups.next().await {
        // The outcome is logged.
        let _ = reloader.reload().await;
    }
}

/// Opens what `serve` opens, and says what it would build first.
fn check(source: &Layered, out: &mut dyn Write) -> anyhow::Result<u8> {
    let CheckedServe { serve: config, plan, .. } = configure(source, start_log)?;
    let backend = config.backend.kind.name();
    let index = shown(config.index.as_slice());
    let corpus = shown(&config.corpus);
    let access = Access::load(&config.service.files)?;
    let state = AppState::new(config, access, Traces::off())?;
    let unbuilt = loading::check(&state).map_err(unwrapped)?;
    match plan {
        IndexPlan::Open { passage_count } => {
            writeln!(out, "ok: {backend}, the index {index} has {passage_count} passages")?;
        }
        IndexPlan::Build => {
            writeln!(out, "ok: {backend}, the index {index} will be built from {corpus}")?;
        }
        IndexPlan::Remote => writeln!(out, "ok: {backend}")?,
    }
    if !unbuilt.is_empty() {
        writeln!(out, "serve builds first, before it answers: {}", unbuilt.join(", "))?;
    }
    Ok(EXIT_SUCCESS)
}

/// Returns the error of a start. A bad configuration exits with 64 even if loading found it.
fn unwrapped(error: ServeError) -> anyhow::Error {
    match error {
        ServeError::Config(error) => error.into(),
        error => error.into(),
    }
}

/// Warns of misspelt variables, which have no effect. They cannot be errors, because a Kubernetes
/// service called `retriever` also sets variables with this prefix.
fn warn_of_unknown(source: &Layered) {
    for name in source.environment.keys() {
        let known = variables::VARIABLES.iter().any(|variable| variable.name == name);
        if !known && !name.contains("_SERVICE_") && !name.contains("_PORT") {
            warn!(variable = name, "this variable is unknown and has no effect");
        }
    }
}

fn index(
    arguments: IndexArguments,
    environment: BTreeMap<String, String>,
    out: &mut dyn Write,
) -> anyhow::Result<u8> {
    let IndexArguments { flags, force, to, compact } = arguments;
    let source = Layered { flags: flags.values, environment };
    let CheckedIndex { index, log } = CheckedIndex::resolve(&source, force, to)?;
    start_log(&log)?;
    let IndexConfig { engine, encoder, index, corpus, threads } = index;
    let request = BuildRequest { corpus, index, force, threads, compact };
    // A model that cannot be used must not show only after hours of building.
    let opened = encoder
        .as_ref()
        .map(|config| loading::open_encoder(config, threads, Goal::Throughput))
        .transpose()?;
    let started = Instant::now();
    let mut printer = ProgressPrinter::start();
    let outcome = build::build(&request, &mut |progress| printer.report(progress))?;
    printer.finish();
    let folder = request.index.display();
    match outcome {
        BuildOutcome::Built(manifest) => writeln!(
            out,
            "indexed {} passages, {} tokens in {:.1} s: {folder}",
            manifest.passage_count,
            manifest.token_count,
            started.elapsed().as_secs_f64()
        )?,
        BuildOutcome::Compressed(manifest) => writeln!(
            out,
            "compressed {} passages in {:.1} s: {folder}",
            manifest.passage_count,
            started.elapsed().as_secs_f64()
        )?,
        BuildOutcome::UpToDate(manifest) => {
            writeln!(out, "up to date, {} passages: {folder}", manifest.passage_count)?;
        }
    }
    if let Some((config, encoder)) = encoder.as_ref().zip(opened.as_ref()) {
        index_vectors(config, encoder, &request, out)?;
    }
    if let Some(engine) = engine {
        loaded::load(&engine, &request, opened.as_ref(), out)?;
    }
    Ok(EXIT_SUCCESS)
}

/// Adds the vectors of an encoder to the index of `request`, and the files derived from them.
fn index_vectors(
    config: &EncoderConfig,
    encoder: &Encoder,
    request: &BuildRequest,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let manifest = Manifest::load(&request.index)?;
    let passages = PassageStore::open(&request.index)?;
    let source = VectorSource::new(&manifest, encoder)?;
    let folder = request.index.display();
    if dense::build::exist(&request.index, &source)? {
        dense::build::remove_leftovers(&request.index)?;
        writeln!(out, "up to date, {} vectors: {folder}", source.passage_count)?;
        return derived::index(config, request, &source, out);
    }
    let mut printer = ProgressPrinter::start();
    let mut report = |progress| printer.report(progress);
    dense::build::build(&request.index, &source, &config.model, &passages, encoder, &mut report)?;
    printer.finish();
    writeln!(
        out,
        "encoded {} passages into vectors of {} numbers in {:.1} s: {folder}",
        source.passage_count,
        source.dimension,
        started.elapsed().as_secs_f64()
    )?;
    derived::index(config, request, &source, out)
}
