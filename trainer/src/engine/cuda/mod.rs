//! The runner of CUDA devices: libtorch computes the matrix products, our own kernels
//! (`kernels/rollout.cu`) everything between them. A pass makes one copy to the device and one back.
//!
//! Longer spans (prompts, passages) attend by libtorch over their gathered blocks, because its kernels use
//! matrix units. Spans of one row, which are nearly all, attend to their blocks in place.
//!
//! CUDA graphs are not used. tch has no binding to capture one, and the driver cannot capture the legacy
//! default stream, on which tch's operations run (CUDA Driver API, `cuStreamBeginCapture`).
//!
//! **Invariant:** tests run the kernels' own text on the processor, under this same runner, and compare it
//! with libtorch's decoder. On a device, [`FusedRunner::check`] makes this comparison before anything is
//! sampled.

mod arguments;
mod check;
mod device;
#[cfg(test)]
mod emulated;
mod runner;
mod shape;
#[cfg(test)]
mod tests;
mod upload;

use tch::Device;

use super::EngineError;
use super::eager::eager_runner;
use super::runner::Runner;
use crate::policy::{Decoder, Weights};
use device::CudaLauncher;
use runner::FusedRunner;
use shape::KernelShape;

/// Opens the runner of a CUDA device over `weights` with a cache of `blocks`. If the kernels cannot run or their
/// results differ from libtorch's, it logs a warning and returns the runner of tensor operations.
///
/// # Errors
/// The kernels cannot be used, but they are `required`.
pub(super) fn fused_or_eager_runner(
    decoder: Decoder,
    weights: Weights,
    blocks: usize,
    required: bool,
) -> Result<Box<dyn Runner>, EngineError> {
    let opened = match weights.device() {
        Device::Cuda(device) => KernelShape::new(&decoder.config, weights.kind())
            .and_then(|shape| CudaLauncher::open(device, shape)),
        other => Err(format!("the model is on {other:?}")),
    };
    let (reason, decoder, weights) = match opened {
        Ok(launcher) => {
            let mut runner = FusedRunner::new(decoder, weights, blocks, launcher);
            match runner.check() {
                Ok(gap) => {
                    tracing::info!(log_prob_gap = gap, "rollouts run on CUDA kernels");
                    return Ok(Box::new(runner));
                }
                Err(reason) => {
                    let (decoder, weights) = runner.into_parts();
                    (reason, decoder, weights)
                }
            }
        }
        Err(reason) => (reason, decoder, weights),
    };
    if required {
        return Err(EngineError::FusedUnavailable(reason));
    }
    tracing::warn!(reason, "rollouts run on tensor operations, not on CUDA kernels");
    Ok(eager_runner(decoder, weights, blocks))
}
