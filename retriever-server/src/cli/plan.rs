//! `retriever-server plan`: the disk and memory that an index needs, before anything is built or
//! loaded.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Args};
use shared::machine::atomic_file;

use super::flags::{Flags, Selection, argument, count, help};
use super::{EXIT_FAILURE, EXIT_SUCCESS, UsageError};
use crate::capacity::collection::{Collection, USUAL_PASSAGE_BYTES};
use crate::capacity::machine::Machine;
use crate::capacity::needs::{Needs, Request, VectorRequest};
use crate::capacity::report::Plan;
use crate::config::source::Layered;
use crate::config::variables::{self as var, Variable};
use crate::config::{ConfigError, PlanConfig, disk};
use crate::device::Device;
use crate::encode::settings::EncoderSettings;
use crate::encode::{Encoder, EncoderOptions};
use crate::index::IndexError;
use crate::vector::DIMENSION_MAX;

#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    /// Number of passages [default: that of --index or --corpus]
    #[arg(
        long,
        value_name = "N",
        value_parser = count::<u64>(1..=u64::from(u32::MAX)),
        allow_hyphen_values = true
    )]
    passages: Option<u64>,
    /// With --passages: mean size of a stored passage
    #[arg(
        long,
        value_name = "bytes",
        value_parser = count::<u64>(1..=1 << 24),
        allow_hyphen_values = true
    )]
    passage_bytes: Option<u64>,
    /// Dimension of the vectors [default: that of the index, else of --model]
    #[arg(
        long,
        value_name = "numbers",
        value_parser = count::<u64>(1..=DIMENSION_MAX as u64),
        allow_hyphen_values = true
    )]
    dimension: Option<u64>,
    /// Plan for compressed passages, as index --compact makes them
    #[arg(long)]
    compact: bool,
    /// Also write the figures as JSON
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    json: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags<Planned>,
}

/// The variables that `plan` shares with `index`.
#[derive(Debug)]
enum Planned {}

impl Selection for Planned {
    fn variables() -> Vec<Variable> {
        vec![
            var::BACKEND,
            var::VECTOR_FORMAT,
            var::ANN,
            var::INDEX,
            var::CORPUS,
            var::MODEL,
            var::ONNXRUNTIME,
            var::THREADS,
        ]
    }

    fn flag(variable: &Variable) -> Arg {
        if variable.name == var::BACKEND.name {
            argument(variable)
                .long("backends")
                .visible_alias("backend")
                .action(ArgAction::Append)
                .help(help(
                    variable,
                    "Back ends to plan for.",
                    "one or several of bm25, dense, ann and hybrid, with commas between them",
                ))
        } else if variable.name == var::INDEX.name {
            let meaning = "Folder of the index, which need not exist; disk space is measured there, \
                           else in the current folder.";
            argument(variable).help(help(variable, meaning, variable.accepts))
        } else if variable.name == var::CORPUS.name {
            let meaning = "Corpus to plan for, if there is no index.";
            argument(variable).help(help(variable, meaning, variable.accepts))
        } else {
            argument(variable)
        }
    }
}

/// Prints the plan. The exit code is 0 if the machine can hold the index.
pub(super) fn run(
    arguments: &PlanArguments,
    environment: BTreeMap<String, String>,
    out: &mut dyn Write,
) -> anyhow::Result<u8> {
    let config =
        PlanConfig::resolve(&Layered { flags: arguments.flags.values.clone(), environment })?;
    let collection = collection(arguments, &config)?;
    let request = request(arguments, &config, &collection)?;
    let needs = Needs::new(&collection, &request);
    let folder = config.index.as_deref().unwrap_or(Path::new("."));
    let plan = Plan::new(config.index.as_deref(), &collection, needs, Machine::query(folder));
    out.write_all(plan.table().as_bytes())?;
    if let Some(path) = &arguments.json {
        atomic_file::write(path, &serde_json::to_vec_pretty(&plan)?)?;
    }
    Ok(if plan.fits { EXIT_SUCCESS } else { EXIT_FAILURE })
}

/// Returns the collection of the flags, else that of the index if it exists, else that of the corpus.
fn collection(arguments: &PlanArguments, config: &PlanConfig) -> anyhow::Result<Collection> {
    if let Some(passages) = arguments.passages {
        let bytes = arguments.passage_bytes.unwrap_or(USUAL_PASSAGE_BYTES);
        return Ok(Collection::stated(passages, bytes));
    }
    match config.index.as_deref().map(Collection::from_index) {
        None | Some(Err(IndexError::Missing(_))) if !config.corpus.is_empty() => {
            if let Some(fault) = disk::unreadable(&config.corpus) {
                return Err(ConfigError { faults: vec![fault] }.into());
            }
            Ok(Collection::from_corpus(&config.corpus)?)
        }
        Some(Err(IndexError::NotAnIndex(path))) => {
            let message = format!(
                "--index is {:?}, which is not an index: expected a folder with one, or a new folder",
                path.display().to_string()
            );
            Err(UsageError(message).into())
        }
        None => {
            let message = "there is nothing to plan for: expected --passages, --corpus, or --index \
                           with an existing index";
            Err(UsageError(message.to_owned()).into())
        }
        Some(Err(IndexError::Missing(index))) => {
            let message = format!(
                "--index is {:?}, but there is no index: expected an existing one, or --corpus or \
                 --passages to plan a new one",
                index.display().to_string()
            );
            Err(UsageError(message).into())
        }
        Some(collection) => Ok(collection?),
    }
}

fn request(
    arguments: &PlanArguments,
    config: &PlanConfig,
    collection: &Collection,
) -> anyhow::Result<Request> {
    let vectors = if config.needs_vectors {
        let of_index = collection.vectors.as_ref().map(|vectors| vectors.dimension);
        let dimension = match (arguments.dimension.or(of_index), config.model.as_deref()) {
            (Some(dimension), _) => dimension,
            (None, Some(model)) => dimension(model, config)?,
            (None, None) => {
                let message = "--dimension is not set: expected the dimension of the vectors, such \
                               as 384 for MiniLM or 768 for e5-base, or --model, which has one";
                return Err(UsageError(message.to_owned()).into());
            }
        };
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

/// Returns the dimension of a model's vectors. The model is opened for it, because its files do not state the
/// dimension in one way.
fn dimension(folder: &Path, config: &PlanConfig) -> anyhow::Result<u64> {
    let options = EncoderOptions {
        device: Device::Cpu,
        threads: NonZeroUsize::new(config.threads),
        library: config.onnxruntime.clone(),
        ..EncoderOptions::default()
    };
    let encoder = Encoder::open(folder, &options).map_err(|error| {
        let unless = ", unless --dimension is set";
        UsageError(format!("{}{unless}", refused(folder, &error.to_string())))
    })?;
    Ok(encoder.dimension() as u64)
}

/// Returns the size of a model's files.
fn model_bytes(folder: &Path) -> anyhow::Result<u64> {
    let size = |path: &Path| fs::metadata(path).map(|metadata| metadata.len());
    let settings =
        EncoderSettings::load(folder).map_err(|error| refused(folder, &error.to_string()))?;
    let mut files = vec![settings.model.clone(), settings.tokenizer.path.clone()];
    files.extend(settings.other_files());
    let bytes = files.iter().try_fold(0, |sum, path| Ok::<u64, std::io::Error>(sum + size(path)?));
    Ok(bytes.map_err(|error| refused(folder, &error.to_string()))?)
}

fn refused(folder: &Path, reason: &str) -> UsageError {
    let accepts = var::MODEL.accepts;
    UsageError(format!(
        "--model is {:?}, but {reason}: expected {accepts}",
        folder.display().to_string()
    ))
}
