//! The runner of CUDA devices: matrix products by libtorch, all between them by kernels of our own
//! (`kernels/rollout.cu`), and one copy to the device and one back a pass.
//!
//! Longer spans (prompts, passages) attend by libtorch over their gathered blocks, whose kernels use matrix
//! units; spans of one row, which are nearly all, attend where their blocks lie.
//!
//! CUDA graphs are not used: tch binds no way to capture one, and the legacy default stream, which its
//! operations run on, cannot be captured by the driver (CUDA Driver API, `cuStreamBeginCapture`).
//!
//! **Invariant:** tests run the kernels' own text on the processor, under this same runner, against
//! libtorch's decoder. On a device, [`FusedRunner::check`] does so before anything is sampled.

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

/// The runner of a CUDA device over `weights` with a pool of `blocks`; that of tensor operations, with a
/// warning, where the kernels cannot run or do not find what libtorch finds, unless they are `required`.
///
/// # Errors
/// They are required, and why they cannot be had.
pub(super) fn fused_or_eager_runner(
    decoder: Decoder,
    weights: Weights,
    blocks: usize,
    required: bool,
) -> Result<Box<dyn Runner>, EngineError> {
    let opened = match weights.device() {
        Device::Cuda(device) => KernelShape::of(&decoder.config, weights.kind())
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
        return Err(EngineError::Other(format!(
            "`rollout.runner` = \"fused\" cannot run: {reason}; \"auto\" takes what can"
        )));
    }
    tracing::warn!(reason, "rollouts run on tensor operations, not on CUDA kernels");
    Ok(eager_runner(decoder, weights, blocks))
}
