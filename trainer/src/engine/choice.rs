//! The choice of a runner: native kernels on a CPU that supports their instructions, fused kernels on CUDA
//! devices, otherwise tensor operations.

use tch::{Device, Kind};

use super::EngineError;
use super::cuda::fused_or_eager_runner;
use super::eager::eager_runner;
use super::native::{Instructions, NativeConfig, NativeRunner, WeightFormat};
use super::runner::Runner;
use crate::policy::{Decoder, Weights, threads};

/// The kinds of runners that compute the passes of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunnerKind {
    /// The fastest runner that works.
    Auto,
    /// Our own kernels on the CPU.
    Native,
    /// Our own kernels between libtorch's matrix products, on a CUDA device.
    Fused,
    /// Tensor operations on any device.
    Eager,
}

/// The configured runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunnerChoice {
    pub kind: RunnerKind,
    /// The format in which the native runner stores weights; `None` for the model's compute type.
    pub format: Option<WeightFormat>,
}

impl RunnerChoice {
    /// Returns the native runner's format on this device and for this compute type, or `None` if another
    /// runner computes.
    ///
    /// # Errors
    /// The runner cannot compute on this device, or a format is set for a runner that has none.
    pub fn native_format(
        self,
        device: Device,
        kind: Kind,
    ) -> Result<Option<WeightFormat>, EngineError> {
        let on_cpu = device == Device::Cpu;
        // The portable kernels are slower than tensor operations.
        let is_faster = on_cpu && Instructions::available().len() > 1;
        let native = match self.kind {
            RunnerKind::Auto => is_faster || (on_cpu && self.format.is_some()),
            RunnerKind::Native => true,
            RunnerKind::Fused | RunnerKind::Eager => false,
        };
        if self.kind == RunnerKind::Fused && !device.is_cuda() {
            return Err(EngineError::WrongDevice {
                runner: "fused",
                computes_on: "a CUDA device",
                device,
                accepted: "\"auto\", \"native\" or \"eager\"",
            });
        }
        if native && !on_cpu {
            return Err(EngineError::WrongDevice {
                runner: "native",
                computes_on: "the CPU",
                device,
                accepted: "\"auto\", \"fused\" or \"eager\"",
            });
        }
        if !native && self.format.is_some() {
            return Err(EngineError::WeightsWithoutNativeRunner);
        }
        let computed = if kind == Kind::Float { WeightFormat::F32 } else { WeightFormat::Bf16 };
        Ok(native.then(|| self.format.unwrap_or(computed)))
    }
}

/// Opens the chosen runner over `weights`, with a cache of `blocks`.
///
/// # Errors
/// The runner cannot compute on this device or is unavailable, or the system refuses to start threads.
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
    tracing::info!(?format, instructions = instructions.name(), "rollouts run on native kernels");
    Ok(Box::new(NativeRunner::new(&decoder, &weights, config)?))
}

/// Returns the bytes of one number in the KV cache.
pub fn cached_number_bytes(format: Option<WeightFormat>, kind: Kind) -> u64 {
    match format {
        Some(WeightFormat::F32) => 4,
        Some(WeightFormat::Bf16 | WeightFormat::Int8) => 2,
        None => kind.elt_size_in_bytes() as u64,
    }
}
