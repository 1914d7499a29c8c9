//! Opens a model on the configured device and runs it once before its first use.

use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;

use ort::environment::Environment;
use tracing::info;

use super::session::{Goal, Reading, SessionSpec, TokenRows, is_built_with_cuda};
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
    pub(super) reading: Reading,
    /// The most tokens that a text will have.
    pub(super) max_tokens: usize,
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
    let opening =
        ModelOpening { spec, environment, threads, goal: options.goal, products: options.products };
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
    Ok(model)
}

/// The parameters of opening a model that do not depend on the provider.
struct ModelOpening<'a> {
    spec: &'a ModelSpec<'a>,
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
        let &ModelSpec { path, reading, max_tokens: row_tokens, padding, .. } = self.spec;
        let &Self { ref environment, threads, goal, products, .. } = self;
        let source = SessionSpec { environment, path, reading, threads, goal, products };
        let sessions = Sessions::open(source, provider)?;
        let ids = vec![padding; row_tokens];
        let vectors = sessions
            .run(&[TokenRows { ids, lengths: vec![row_tokens], row_tokens, types: None }])
            .map_err(|reason| format!("with {row_tokens} tokens: {reason}"))?;
        let dimension = vectors.iter().map(Vec::len).sum();
        Ok(OpenModel { sessions, provider, dimension })
    }
}
