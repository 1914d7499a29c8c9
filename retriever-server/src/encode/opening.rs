//! Opens a model where its device wants it, and runs it once before it is used.

use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;

use ort::environment::Environment;
use tracing::info;

use super::session::{Goal, Reading, Rows, Source, is_built_with_cuda};
use super::sessions::Sessions;
use super::{EncodeError, EncoderOptions, Products, library};
use crate::device::{Device, Provider};

/// A model to open.
pub(super) struct Wanted<'a> {
    /// Its name in the log.
    pub(super) what: &'static str,
    /// The ONNX file.
    pub(super) path: &'a Path,
    /// What is made of its output.
    pub(super) reading: Reading,
    /// Most tokens that it will get.
    pub(super) max_tokens: usize,
    /// Token that fills rows up.
    pub(super) padding: i64,
}

/// A model one of whose sessions has run.
pub(super) struct Opened {
    pub(super) sessions: Sessions,
    /// Where it runs.
    pub(super) provider: Provider,
    /// Numbers that it gives for a text.
    pub(super) dimension: usize,
}

/// Opens the model; a log line says where it runs, and why.
pub(super) fn open(wanted: &Wanted<'_>, options: &EncoderOptions) -> Result<Opened, EncodeError> {
    if !wanted.path.is_file() {
        let path = wanted.path.to_owned();
        return Err(EncodeError::NoFile { path, what: "an ONNX model" });
    }
    let (library, environment) = library::load(options.library.as_deref())?;
    let threads = options
        .threads
        .or_else(|| thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN);
    let opening =
        Opening { wanted, environment, threads, goal: options.goal, products: options.products };
    let (provider, reason, (sessions, dimension)) = opening.choose(options.device)?;
    info!(
        %provider,
        reason,
        threads = threads.get(),
        products = sessions.products(),
        model = %wanted.path.display(),
        library = %library.display(),
        "the {} is ready",
        wanted.what
    );
    Ok(Opened { sessions, provider, dimension })
}

/// What it takes to open a model on one device or another.
struct Opening<'a> {
    wanted: &'a Wanted<'a>,
    environment: Environment,
    threads: NonZeroUsize,
    goal: Goal,
    products: Products,
}

impl Opening<'_> {
    /// Opens the model where `device` wants it. Returns where that is, why, and the model with
    /// its dimension.
    fn choose(&self, device: Device) -> Result<(Provider, String, (Sessions, usize)), EncodeError> {
        let path = self.wanted.path;
        let failed =
            |provider| move |reason| EncodeError::Model { path: path.to_owned(), provider, reason };
        let stated = || format!("device is {device}");
        match device {
            Device::Cpu => {
                let opened = self.open(Provider::Cpu).map_err(failed(Provider::Cpu))?;
                Ok((Provider::Cpu, stated(), opened))
            }
            Device::Cuda(_) | Device::EveryCuda => {
                let provider = Provider::Cuda(device.first_cuda());
                Ok((provider, stated(), self.open(provider).map_err(failed(provider))?))
            }
            Device::Auto => match self.open(Provider::Cuda(0)) {
                Ok(opened) => Ok((Provider::Cuda(0), stated(), opened)),
                Err(reason) => {
                    let opened = self.open(Provider::Cpu).map_err(failed(Provider::Cpu))?;
                    Ok((Provider::Cpu, format!("no CUDA: {reason}"), opened))
                }
            },
        }
    }

    /// Opens the model and runs it once: where there is a driver and no device, only that fails.
    fn open(&self, provider: Provider) -> Result<(Sessions, usize), String> {
        if provider != Provider::Cpu && !is_built_with_cuda() {
            return Err("this ONNX Runtime is built without it".to_owned());
        }
        let &Wanted { path, reading, max_tokens: row_tokens, padding, .. } = self.wanted;
        let &Self { ref environment, threads, goal, products, .. } = self;
        let source = Source { environment, path, reading, threads, goal, products };
        let sessions = Sessions::open(source, provider)?;
        let ids = vec![padding; row_tokens];
        let vectors = sessions
            .run(&[Rows { ids, lengths: vec![row_tokens], row_tokens, types: None }])
            .map_err(|reason| format!("with {row_tokens} tokens: {reason}"))?;
        Ok((sessions, vectors.iter().map(Vec::len).sum()))
    }
}
