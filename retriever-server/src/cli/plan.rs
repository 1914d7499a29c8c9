//! `retriever-server plan`: what an index needs of disk and memory, before anything is built or
//! loaded.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command as Clap, value_parser};
use shared::atomic_file;

use crate::capacity::collection::{Collection, USUAL_PASSAGE_BYTES};
use crate::capacity::machine::Machine;
use crate::capacity::needs::{Needs, Request, VectorRequest};
use crate::capacity::report::Plan;
use crate::cli::arguments::{argument, values};
use crate::cli::{EXIT_FAILURE, EXIT_SUCCESS, UsageError};
use crate::config::PlanConfig;
use crate::config::source::Layered;
use crate::config::variables::{self as var, Variable};
use crate::encode::settings::Settings;
use crate::index::IndexError;
use crate::vector::DIMENSION_MAX;

const VARIABLES: [Variable; 7] =
    [var::BACKEND, var::VECTOR_FORMAT, var::ANN, var::INDEX, var::CORPUS, var::MODEL, var::THREADS];

/// What `plan` is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlanArguments {
    /// Values by the name of their variable.
    flags: BTreeMap<String, String>,
    passages: Option<u64>,
    passage_bytes: u64,
    dimension: Option<u64>,
    compact: bool,
    json: Option<PathBuf>,
}

/// The definition of the command.
pub(crate) fn command() -> Clap {
    let flag = |name: &'static str, unit: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(unit).allow_hyphen_values(true).help(help)
    };
    Clap::new("plan")
        .about(
            "Print the disk and memory that an index needs, beside what the machine has; 1 if that \
             is too little",
        )
        .args([
            flag("passages", "N", "Size of the corpus [default: that of --index or --corpus]")
                .value_parser(value_parser!(u64).range(1..=u64::from(u32::MAX))),
            flag("passage-bytes", "bytes", "With --passages: mean size of a stored passage")
                .value_parser(value_parser!(u64).range(1..=1 << 24)),
            flag("dimension", "numbers", "Numbers a vector [default: that of the index]")
                .value_parser(value_parser!(u64).range(1..=DIMENSION_MAX as u64)),
            Arg::new("compact")
                .long("compact")
                .action(ArgAction::SetTrue)
                .help("Plan for compressed passages, as index --compact makes them"),
            flag("json", "FILE", "Also write the figures as JSON")
                .value_parser(value_parser!(PathBuf)),
        ])
        .args(VARIABLES.iter().map(argument))
        .mut_arg(var::BACKEND.name, |backend| {
            backend
                .long("backends")
                .visible_alias("backend")
                .action(ArgAction::Append)
                .help("Back ends to plan for, one or several with commas between them")
        })
}

impl PlanArguments {
    /// Takes the flags of [`command`].
    pub(crate) fn read(matches: &ArgMatches) -> Self {
        let number = |name| matches.get_one::<u64>(name).copied();
        Self {
            flags: values(matches, &VARIABLES),
            passages: number("passages"),
            passage_bytes: number("passage-bytes").unwrap_or(USUAL_PASSAGE_BYTES),
            dimension: number("dimension"),
            compact: matches.get_flag("compact"),
            json: matches.get_one::<PathBuf>("json").cloned(),
        }
    }
}

/// Prints the plan. The exit code tells whether it fits.
pub(crate) fn run(
    arguments: &PlanArguments,
    environment: BTreeMap<String, String>,
    out: &mut dyn Write,
) -> anyhow::Result<u8> {
    let config = PlanConfig::resolve(&Layered { flags: arguments.flags.clone(), environment })?;
    let collection = collection(arguments, &config)?;
    let request = request(arguments, &config, &collection)?;
    let needs = Needs::of(&collection, &request);
    let plan = Plan::new(&config.index, &collection, needs, Machine::of(&config.index));
    out.write_all(plan.table().as_bytes())?;
    if let Some(path) = &arguments.json {
        atomic_file::write(path, &serde_json::to_vec_pretty(&plan)?)?;
    }
    Ok(if plan.fits { EXIT_SUCCESS } else { EXIT_FAILURE })
}

/// As told; else of the index, if it is there; else of the corpus.
fn collection(arguments: &PlanArguments, config: &PlanConfig) -> anyhow::Result<Collection> {
    if let Some(passages) = arguments.passages {
        return Ok(Collection::told(passages, arguments.passage_bytes));
    }
    match Collection::of_index(&config.index) {
        Err(IndexError::Missing(_)) if !config.corpus.is_empty() => {
            Ok(Collection::of_corpus(&config.corpus)?)
        }
        Err(IndexError::Missing(index)) => {
            let message = format!(
                "--index is {:?}, but there is no index: expected one that is there, or --corpus \
                 or --passages, to plan one",
                index.display().to_string()
            );
            Err(UsageError(message).into())
        }
        found => Ok(found?),
    }
}

fn request(
    arguments: &PlanArguments,
    config: &PlanConfig,
    collection: &Collection,
) -> anyhow::Result<Request> {
    let vectors = if config.needs_vectors {
        let there = collection.vectors.as_ref().map(|vectors| vectors.dimension);
        let dimension = arguments.dimension.or(there).ok_or_else(|| {
            let message = "--dimension is not set: expected the numbers of a vector, such as 384 \
                           for MiniLM or 768 for e5-base";
            UsageError(message.to_owned())
        })?;
        let PlanConfig { vector_format: format, graph, reads_rows, .. } = *config;
        Some(VectorRequest { dimension, format, graph, reads_rows })
    } else {
        None
    };
    Ok(Request {
        vectors,
        model_bytes: config.model.as_deref().map(model_bytes).transpose()?,
        threads: config.threads as u64,
        compact: arguments.compact,
    })
}

/// Size of the files of a model.
fn model_bytes(folder: &Path) -> anyhow::Result<u64> {
    let size = |path: &Path| fs::metadata(path).map(|found| found.len());
    let settings = Settings::load(folder).map_err(|error| refused(folder, &error.to_string()))?;
    let bytes = size(&settings.model).and_then(|model| Ok(model + size(&settings.tokenizer)?));
    Ok(bytes.map_err(|error| refused(folder, &error.to_string()))?)
}

fn refused(folder: &Path, reason: &str) -> UsageError {
    let accepts = var::MODEL.accepts;
    UsageError(format!(
        "--model is {:?}, but {reason}: expected {accepts}",
        folder.display().to_string()
    ))
}
