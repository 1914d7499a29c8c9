//! The command line: turns arguments into a checked configuration, calls one function of `run`, and turns its result
//! into an exit code. Does no work itself.

mod arguments;
mod evaluating;
mod tuning;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Parser;
use shared::contract::client::listed;
use shared::machine::instruction_set;
use shared::machine::telemetry::{self, LogFormat, TelemetryError};
use tracing::warn;

use crate::config::{self, Config, ConfigError, Environment, LoadedConfig, OldName};
use crate::eval::Searches;
use crate::hub::{self, DataSetPath, HUB_SCHEME, HubSettings, ModelName};
use crate::policy::AdapterFolder;
use crate::report;
use crate::run::{
    self, ChatOptions, Collapsed, DescribeOptions, EvalOptions, Interrupted, LintOptions,
    NotWritten, SampleOptions, SuiteOptions,
};
use crate::track::LogWriter;

pub use tuning::restart_tuned;

pub use evaluating::{AuditArguments, CompareArguments, SeveralArguments};

pub use arguments::{
    Arguments, ChatArguments, Command, CommonArguments, ConfigArguments, ConvertArguments,
    DataCommand, DataConvertArguments, DataDescribeArguments, DataFetchArguments,
    DataSampleArguments, EvalArguments, ReplayArguments, ReportArguments, ServeArguments,
};

/// The command succeeded.
pub const EXIT_SUCCESS: u8 = 0;
/// The command failed.
pub const EXIT_FAILURE: u8 = 1;
/// The arguments or the configuration are wrong (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;
/// A file of the run could not be written, as on a full disk (`EX_IOERR`).
pub const EXIT_NOT_WRITTEN: u8 = 74;
/// The run collapsed more often than `guard.max_rollbacks` allows it to return (`EX_TEMPFAIL`).
pub const EXIT_COLLAPSED: u8 = 75;
/// The user interrupted the work (128 and the number of SIGINT).
pub const EXIT_INTERRUPTED: u8 = 130;

/// Runs one command line, program name first, and returns its exit code. Results go to `out`, error messages to
/// `errors`.
pub fn run_command_line<I, T>(
    arguments: I,
    environment: &Environment,
    out: &mut dyn Write,
    errors: &mut dyn Write,
) -> u8
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(message) => return show_usage(&message, out, errors),
    };
    if let Err(error) = instruction_set::check_limit() {
        let _ = writeln!(errors, "error: {error}");
        return EXIT_USAGE;
    }
    match execute(arguments.command, environment, out) {
        Ok(()) => EXIT_SUCCESS,
        Err(error) => {
            // If the error message cannot be written, there is nothing else to do.
            let _ = writeln!(errors, "error: {}", message(&error));
            exit_code(&error)
        }
    }
}

/// Joins the texts of an error and its causes. A cause whose text is already part of the message is not repeated:
/// many errors quote theirs.
fn message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if message.is_empty() {
            message = cause;
        } else if !message.contains(&cause) {
            message.push_str(": ");
            message.push_str(&cause);
        }
    }
    message
}

/// Prints clap's message: for `--help` and `--version` to `out`, with success; for a wrong command line to `errors`.
fn show_usage(message: &clap::Error, out: &mut dyn Write, errors: &mut dyn Write) -> u8 {
    if message.use_stderr() {
        let _ = write!(errors, "{}", message.render());
        EXIT_USAGE
    } else {
        let _ = write!(out, "{}", message.render());
        EXIT_SUCCESS
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.chain().any(<dyn std::error::Error>::is::<Interrupted>) {
        EXIT_INTERRUPTED
    } else if error.chain().any(<dyn std::error::Error>::is::<ConfigError>) {
        EXIT_USAGE
    } else if error.is::<NotWritten>() {
        EXIT_NOT_WRITTEN
    } else if error.is::<Collapsed>() {
        EXIT_COLLAPSED
    } else {
        EXIT_FAILURE
    }
}

fn execute(command: Command, environment: &Environment, out: &mut dyn Write) -> anyhow::Result<()> {
    let configure =
        |command: &str, common: &CommonArguments, model: Option<&Path>, keys: &[&str]| {
            let LoadedConfig { config, old_names } =
                configured(command, common, model, environment, keys)?;
            start_log(environment)?;
            warn_of_old_names(&old_names);
            for warning in config.warnings() {
                warn!("{warning}");
            }
            anyhow::Ok(config)
        };
    match command {
        Command::Sft(common) => {
            let config = configure("trainer sft", &common, None, &["model.path", "data.train"])?;
            run::sft(&with_inputs(config, environment)?, out)
        }
        Command::Train(common) => {
            let config = configure("trainer train", &common, None, &["model.path", "data.train"])?;
            run::train(&with_inputs(config, environment)?, out)
        }
        Command::Eval(arguments) => {
            let model = arguments.model.as_deref();
            let keys = keys_of_eval(&arguments);
            let config = configure("trainer eval", &arguments.common, model, keys)?;
            evaluate(config, arguments, environment, out)
        }
        Command::Compare(arguments) => {
            start_log(environment)?;
            run::compare(&arguments.into_options(), out)
        }
        Command::Audit(arguments) => {
            let (common, options) = arguments.split();
            let config = configure("trainer audit", &common, None, &["data.corpus"])?;
            run::audit(&config, &options, out)
        }
        Command::Chat(arguments) => {
            let model = arguments.model.as_deref();
            let config = configure("trainer chat", &arguments.common, model, &["model.path"])?;
            let options = ChatOptions { question: arguments.question };
            run::chat(&with_model(config, environment)?, &options, out)
        }
        Command::Serve(arguments) => {
            let model = arguments.model.as_deref();
            let mut config = configure("trainer serve", &arguments.common, model, &["model.path"])?;
            if let Some(addr) = arguments.addr {
                config.serve.addr = addr;
            }
            run::serve(&with_model(config, environment)?, out)
        }
        Command::Convert(arguments) => {
            start_log(environment)?;
            run::convert(&arguments.gguf, &arguments.folder, arguments.dtype, out)
        }
        Command::Data(command) => {
            start_log(environment)?;
            data_command(command, environment, out)
        }
        Command::Replay(arguments) => {
            start_log(environment)?;
            run::replay(&arguments.folder, out)
        }
        Command::Report(arguments) => {
            start_log(environment)?;
            report::write_report(&arguments.run_dir, arguments.title.as_deref(), out)?;
            Ok(())
        }
        Command::Lint(arguments) => {
            let options = LintOptions { as_json: arguments.json, searches: arguments.searches };
            lint(&arguments.common, options, environment, out)
        }
        Command::Config(arguments) if arguments.reference => {
            let text =
                if arguments.env { Config::reference_env() } else { Config::reference_markdown() };
            Ok(out.write_all(text.as_bytes())?)
        }
        Command::Config(arguments) => {
            let config = configure("trainer config", &arguments.common, None, &[])?;
            Ok(out.write_all(config.to_toml().as_bytes())?)
        }
    }
}

fn lint(
    common: &CommonArguments,
    options: LintOptions,
    environment: &Environment,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    // The report contains the warnings.
    let LoadedConfig { config, old_names } =
        configured("trainer lint", common, None, environment, &[])?;
    start_log(environment)?;
    warn_of_old_names(&old_names);
    run::lint(&config, options, out)
}

fn data_command(
    command: DataCommand,
    environment: &Environment,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let hub = HubSettings::from_environment(environment);
    match command {
        DataCommand::Convert(arguments) => {
            let input = local(arguments.input, &hub)?;
            run::convert_questions(&input, &arguments.output, out)
        }
        DataCommand::Describe(arguments) => {
            let input = local(arguments.input, &hub)?;
            let held_out = arguments.against.map(|path| local(path, &hub)).transpose()?;
            let options =
                DescribeOptions { held_out: held_out.as_deref(), as_json: arguments.json };
            run::describe_questions(&input, options, out)
        }
        DataCommand::Sample(DataSampleArguments { input, count, seed, prompt }) => {
            let options = SampleOptions { count, seed, prompts: prompt };
            run::sample_questions(&local(input, &hub)?, options, out)
        }
        DataCommand::Fetch(DataFetchArguments { names, sizes: true, .. }) => {
            run::print_sizes(&names, &hub, out)
        }
        DataCommand::Fetch(DataFetchArguments { names, to, model, .. }) => {
            run::fetch_data(&names, to.as_deref(), &hub, out)?;
            if let Some(name) = model.as_deref().and_then(ModelName::parse) {
                writeln!(out, "{}", hub::fetch(&name, &hub)?.display())?;
            }
            Ok(())
        }
    }
}

/// Returns the local path of a file or folder, after downloading what is named on the hub.
fn local(path: PathBuf, hub: &HubSettings) -> anyhow::Result<PathBuf> {
    match path.to_str().and_then(DataSetPath::parse) {
        Some(named) => Ok(hub::fetch_data_set(&named?, hub)?),
        None => Ok(path),
    }
}

/// Replaces the hub's names of the model and of all data by local paths.
fn with_inputs(config: Config, environment: &Environment) -> anyhow::Result<Config> {
    let mut config = with_model(config, environment)?;
    let hub = HubSettings::from_environment(environment);
    let data = &mut config.data;
    if let Some(train) = data.train.to_str().filter(|train| train.contains(HUB_SCHEME)) {
        let files = listed(train).map(|file| local(file.into(), &hub));
        let files: Vec<PathBuf> = files.collect::<anyhow::Result<_>>()?;
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        data.train = files.join(", ").into();
    }
    data.test = local(std::mem::take(&mut data.test), &hub)?;
    for path in [&mut data.corpus, &mut data.weights] {
        *path = path.take().map(|path| local(path, &hub)).transpose()?;
    }
    Ok(config)
}

/// Evaluates one set as it always was, or several, with turn limits and baselines.
fn evaluate(
    mut config: Config,
    arguments: EvalArguments,
    environment: &Environment,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let EvalArguments { several, audit, searches, name, out: file, .. } = arguments;
    config.eval.audit = audit.or(config.eval.audit);
    let name = name.unwrap_or_else(|| folder_name(&config.model.path));
    if !several.is_given() {
        let options = EvalOptions { name, searches, out: file };
        return run::eval(&with_inputs(config, environment)?, &options, out);
    }
    let SeveralArguments { questions: sets, turns, baselines, untrained } = several;
    let folder_of = |path| {
        let mut other = config.clone();
        other.model.path = path;
        anyhow::Ok(with_model(other, environment)?.model.path)
    };
    let untrained = untrained.map(folder_of).transpose()?;
    let options = SuiteOptions { name, sets, turns, baselines, untrained, searches };
    run::eval_suite(&with_inputs(config, environment)?, &options, out)
}

/// Returns the keys that an evaluation needs.
fn keys_of_eval(arguments: &EvalArguments) -> &'static [&'static str] {
    match (arguments.searches, arguments.several.questions.is_empty()) {
        (Searches::Random, true) => &["model.path", "data.test", "data.corpus"],
        (Searches::Random, false) => &["model.path", "data.corpus"],
        (Searches::Retriever | Searches::None, true) => &["model.path", "data.test"],
        (Searches::Retriever | Searches::None, false) => &["model.path"],
    }
}

/// Replaces the hub's names in `model.path` and `model.base` by folders: models are looked up in the cache and
/// downloaded if they are missing. Fills in the base of adapters that have one on the hub.
fn with_model(mut config: Config, environment: &Environment) -> anyhow::Result<Config> {
    let settings = HubSettings::from_environment(environment);
    if let Some(name) = ModelName::parse(&config.model.path) {
        config.model.path = hub::fetch(&name, &settings)?;
    }
    if config.model.base.is_none()
        && let Some(AdapterFolder { base: Some(base), .. }) =
            AdapterFolder::find(&config.model.path)?
    {
        let named =
            base.revision.map_or(base.name.clone(), |revision| format!("{}@{revision}", base.name));
        config.model.base = ModelName::parse(Path::new(&named)).map(|_| named.into());
    }
    if let Some(name) = config.model.base.as_deref().and_then(ModelName::parse) {
        config.model.base = Some(hub::fetch(&name, &settings)?);
    }
    Ok(config)
}

/// Returns the last part of a path, or the whole path if it has no such part.
fn folder_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Reads and checks the configuration. `--run-dir` and `--model` override every `--set`.
fn configured(
    command: &str,
    common: &CommonArguments,
    model: Option<&Path>,
    environment: &Environment,
    required: &[&str],
) -> Result<LoadedConfig, ConfigError> {
    let mut loaded = LoadedConfig::load(common.config.as_deref(), environment, &common.set)?;
    let config = &mut loaded.config;
    if let Some(run_dir) = &common.run_dir {
        config.run_dir.clone_from(run_dir);
    }
    if let Some(model) = model {
        model.clone_into(&mut config.model.path);
    }
    config.require(command, required)?;
    Ok(loaded)
}

fn warn_of_old_names(old_names: &[OldName]) {
    for old_name in old_names {
        warn!("{old_name}");
    }
}

/// Starts the log and warns about misspelt variables, which would otherwise be ignored silently.
fn start_log(environment: &Environment) -> anyhow::Result<()> {
    let filter = config::log_filter(environment)?;
    match telemetry::init(filter, LogFormat::Text, || LogWriter) {
        // A program that calls this function may have a log of its own.
        Ok(()) | Err(TelemetryError::AlreadySet) => {}
        Err(error) => return Err(error.into()),
    }
    for (name, nearest) in config::unknown_variables(environment) {
        if name == tuning::MARK {
            continue;
        }
        let hint = nearest.map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
        warn!("unknown variable {name} has no effect{hint}");
    }
    Ok(())
}
