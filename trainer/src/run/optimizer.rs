//! The optimizer of the policy, of the critic and of the warm start, with its learning rate and its limit.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::update::{AdamW, AdamWConfig, MomentsStorage, UpdateError, clip_gradients, warmed_up};

/// A learning rate that rises to its peak and stays there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LearningRate {
    pub(crate) peak: f64,
    pub(crate) warmup_updates: usize,
}

impl LearningRate {
    /// Returns the rate of an update, which counts from 0.
    pub(crate) fn at(self, update: u64) -> f64 {
        warmed_up(self.peak, self.warmup_updates, update)
    }
}

/// AdamW and the limit of the gradient.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OptimizerSettings {
    pub(crate) constants: AdamWConfig,
    pub(crate) moments: MomentsStorage,
    pub(crate) max_grad_norm: f64,
}

impl OptimizerSettings {
    /// Returns the optimizer of `parameters` before its first update.
    pub(crate) fn start(&self, parameters: &BTreeMap<String, Tensor>) -> AdamW {
        AdamW::new(parameters, self.constants, self.moments)
    }

    /// Clips and applies the accumulated gradient; returns its norm before clipping.
    ///
    /// # Errors
    /// A norm that is not finite; the weights are then left as they were.
    pub(crate) fn apply(
        &self,
        parameters: &mut BTreeMap<String, Tensor>,
        optimizer: &mut AdamW,
        rate: LearningRate,
    ) -> Result<Applied, UpdateError> {
        let update = optimizer.updates;
        let grad_norm = clip_gradients(parameters, self.max_grad_norm);
        if !grad_norm.is_finite() {
            return Err(UpdateError::NotFinite {
                quantity: "gradient norm",
                update,
                value: grad_norm,
            });
        }
        let learning_rate = rate.at(update);
        optimizer.step(parameters, learning_rate);
        Ok(Applied { grad_norm, learning_rate })
    }
}

/// A gradient that was applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applied {
    /// The norm before clipping.
    pub(crate) grad_norm: f64,
    pub(crate) learning_rate: f64,
}
