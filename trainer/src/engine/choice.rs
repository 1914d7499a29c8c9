//! Which runner computes: kernels of our own on a CPU that has the instructions for them and on CUDA
//! devices, else tensor operations.

use tch::{Device, Kind};

use super::EngineError;
use super::cuda::fused_or_eager_runner;
use super::eager::eager_runner;
use super::native::{Instructions, NativeConfig, NativeRunner, WeightFormat};
use super::runner::Runner;
use crate::policy::{Decoder, Weights, threads};

/// What computes the passes of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunnerKind {
    /// The fastest that works.
    Auto,
    /// Kernels of our own, on the CPU.
    Native,
    /// Kernels of our own between libtorch's matrix products, on a CUDA device.
    Fused,
    /// Tensor operations, on any device.
    Eager,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunnerChoice {
    pub kind: RunnerKind,
    /// What the native runner stores weights as; the type that the model computes in if there is none.
    pub format: Option<WeightFormat>,
}

impl RunnerChoice {
    /// The native runner's format on this device and for this compute type; none for tensor operations.
    ///
    /// # Errors
    /// What was asked for does not go together.
    pub fn native_format(
        self,
        device: Device,
        kind: Kind,
    ) -> Result<Option<WeightFormat>, EngineError> {
        let on_cpu = device == Device::Cpu;
        // Portable code is slower than tensor operations are.
        let is_faster = on_cpu && Instructions::available().len() > 1;
        let native = match self.kind {
            RunnerKind::Auto => is_faster || (on_cpu && self.format.is_some()),
            RunnerKind::Native => true,
            RunnerKind::Fused | RunnerKind::Eager => false,
        };
        if self.kind == RunnerKind::Fused && !device.is_cuda() {
            return Err(EngineError::Other(format!(
                "`rollout.runner` = \"fused\" computes on a CUDA device, the model is on {device:?}; \
                 it takes \"auto\", \"native\" or \"eager\" there"
            )));
        }
        if native && !on_cpu {
            return Err(EngineError::Other(format!(
                "`rollout.runner` = \"native\" computes on the CPU, the model is on {device:?}; it \
                 takes \"auto\", \"fused\" or \"eager\" there"
            )));
        }
        if !native && self.format.is_some() {
            return Err(EngineError::Other(
                "`rollout.weights` is for `rollout.runner` = \"native\", which computes on the CPU \
                 alone; it takes \"auto\" elsewhere"
                    .to_owned(),
            ));
        }
        let computed = if kind == Kind::Float { WeightFormat::F32 } else { WeightFormat::Bf16 };
        Ok(native.then(|| self.format.unwrap_or(computed)))
    }
}

/// The chosen runner over `weights`, with a pool of `blocks`.
///
/// # Errors
/// What was asked for does not go together or cannot be had, or the system gives no threads.
pub fn runner(
    decoder: Decoder,
    weights: Weights,
    blocks: usize,
    choice: RunnerChoice,
) -> Result<Box<dyn Runner>, EngineError> {
    let Some(format) = choice.native_format(weights.device(), weights.kind())? else {
        let required = choice.kind == RunnerKind::Fused;
        return if weights.device().is_cuda() && choice.kind != RunnerKind::Eager {
            fused_or_eager_runner(decoder, weights, blocks, required)
        } else {
            Ok(eager_runner(decoder, weights, blocks))
        };
    };
    let instructions = Instructions::detect();
    let config = NativeConfig { format, blocks, threads: threads(), instructions };
    tracing::info!(?format, instructions = instructions.name(), "rollouts run on kernels");
    Ok(Box::new(NativeRunner::new(&decoder, &weights, config)?))
}

/// Bytes of a number in the pool of keys and values.
pub fn cached_number_bytes(format: Option<WeightFormat>, kind: Kind) -> u64 {
    match format {
        Some(WeightFormat::F32) => 4,
        Some(WeightFormat::Bf16 | WeightFormat::Int8) => 2,
        None => kind.elt_size_in_bytes() as u64,
    }
}
