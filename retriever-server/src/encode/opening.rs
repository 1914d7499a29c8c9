//! Opens a model on the configured device and runs it once before its first use.

use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;

use ort::environment::Environment;
use tracing::{info, warn};

use super::batches::GraphLimits;
use super::graph::GraphFacts;
use super::outputs::Reading;
use super::session::{Goal, SessionSpec, TokenRows, is_built_with_cuda};
use super::sessions::Sessions;
use super::{EncodeError, EncoderOptions, Products, library};
use crate::device::{Device, Provider};

/// A model to open.
pub(super) struct ModelSpec<'a> {
    /// The name of its kind in the log.
    pub(super) label: &'static str,
    /// The ONNX file.
    pub(super) path: &'a Path,
    /// The interpretation of its output.
    pub(super) reading: &'a Reading,
    /// The number of tokens of the first run, of which a model with fewer positions fails.
    pub(super) first_tokens: usize,
    /// The position of the first token.
    pub(super) first_position: i64,
    /// The token that pads rows.
    pub(super) padding: i64,
}

/// An open model that has run once.
pub(super) struct OpenModel {
    pub(super) sessions: Sessions,
    /// The provider that runs it.
    pub(super) provider: Provider,
    /// The count of numbers that it returns for a text.
    pub(super) dimension: usize,
    /// The limits of its runs.
    pub(super) limits: GraphLimits,
}

/// Opens the model and logs the chosen provider with the reason.
pub(super) fn open(
    spec: &ModelSpec<'_>,
    options: &EncoderOptions,
) -> Result<OpenModel, EncodeError> {
    if !spec.path.is_file() {
        let path = spec.path.to_owned();
        return Err(EncodeError::NoFile { path, expected: "an ONNX model" });
    }
    let (library, environment) = library::load(options.library.as_deref())?;
    let threads = options
        .threads
        .or_else(|| thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN);
    let (goal, products) = (options.goal, options.products);
    let facts = GraphFacts::read(spec.path);
    if let Some(missing) = facts.external_files.iter().find(|path| !path.is_file()) {
        let expected = "a file with weights of the ONNX model";
        return Err(EncodeError::NoFile { path: missing.clone(), expected });
    }
    let opening = ModelOpening { spec, facts, environment, threads, goal, products };
    let (reason, model) = opening.choose(options.device)?;
    let OpenModel { sessions, provider, .. } = &model;
    info!(
        %provider,
        reason,
        threads = threads.get(),
        products = sessions.products(),
        model = %spec.path.display(),
        library = %library.display(),
        "the {} is ready",
        spec.label
    );
    if let Some(operator) = opening.facts.dynamic_operator {
        warn!(
            model = %spec.path.display(),
            operator,
            "the {} quantises while it runs, so the texts of a run would change each other's results: \
             it gets one text at a time, which is slower",
            spec.label
        );
    }
    Ok(model)
}

/// The parameters of opening a model that do not depend on the provider.
struct ModelOpening<'a> {
    spec: &'a ModelSpec<'a>,
    facts: GraphFacts,
    environment: Environment,
    threads: NonZeroUsize,
    goal: Goal,
    products: Products,
}

impl ModelOpening<'_> {
    /// Opens the model on `device`. Returns the reason for its provider, and the model.
    fn choose(&self, device: Device) -> Result<(String, OpenModel), EncodeError> {
        let open = |provider| {
            self.open(provider).map_err(|reason| {
                let path = self.spec.path.to_owned();
                EncodeError::Model { path, provider, reason }
            })
        };
        let stated = format!("device is {device}");
        match device {
            Device::Cpu => Ok((stated, open(Provider::Cpu)?)),
            Device::Cuda(_) | Device::EveryCuda => {
                Ok((stated, open(Provider::Cuda(device.first_cuda()))?))
            }
            Device::Auto => match self.open(Provider::Cuda(0)) {
                Ok(model) => Ok((stated, model)),
                Err(reason) => Ok((format!("no CUDA: {reason}"), open(Provider::Cpu)?)),
            },
        }
    }

    /// Opens the model and runs it once. If there is a driver but no device, only the run fails.
    fn open(&self, provider: Provider) -> Result<OpenModel, String> {
        if provider != Provider::Cpu && !is_built_with_cuda() {
            return Err("this ONNX Runtime is built without CUDA".to_owned());
        }
        let &ModelSpec { path, reading, first_tokens, first_position, padding, .. } = self.spec;
        let &Self { ref environment, threads, goal, products, .. } = self;
        let source =
            SessionSpec { environment, path, reading, first_position, threads, goal, products };
        let sessions = Sessions::open(source, provider)?;
        let shape = sessions.shape();
        let row_tokens = shape.tokens.unwrap_or(first_tokens);
        let rows = TokenRows {
            ids: vec![padding; row_tokens],
            lengths: vec![row_tokens],
            row_tokens,
            ..TokenRows::default()
        };
        let vectors = sessions
            .run(&[rows])
            .map_err(|reason| format!("with {row_tokens} tokens: {reason}"))?;
        let dimension = vectors.iter().map(Vec::len).sum();
        let limits = GraphLimits::new(shape, self.facts.dynamic_operator.is_some());
        Ok(OpenModel { sessions, provider, dimension, limits })
    }
}
