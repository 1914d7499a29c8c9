//! The runner on CPUs: the whole forward pass over packed weights. Memory bandwidth bounds its speed.
//!
//! Owns: packed weights, the KV cache, the threads that share the work. Refuses to know about
//! sequences, turns and stops: its caller states which rows go through the model and which blocks hold
//! their keys and values.
//!
//! Invariant: the result for a row depends on the weights and its sequence alone, to the last bit. It
//! does not depend on the other rows, on how the prompt was cut into chunks, or on the number of threads.

mod kernel;
mod workers;

mod buffer;
mod pack;
mod shape;
mod weights;

mod activations;
mod attention;
mod cache;
mod head;
mod layer;

mod passes;
#[cfg(test)]
mod tests;

pub use kernel::Instructions;

use kernel::Bf16;
use passes::PassRunner;

use super::sample::Choice;
use super::{Draw, EngineError, Pass, Runner};
use crate::policy::{Decoder, Weights};

/// The number format of stored weights and of the activations that they are multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightFormat {
    /// Everything in f32. Log-probs equal those of a policy that computes in f32, except for rounding.
    F32,
    /// Weights, activations, keys and values in bfloat16; sums, norms and softmax in f32.
    Bf16,
    /// Like bfloat16, but weights are integers of 8 bits with a scale for each output.
    Int8,
}

/// The settings of a native runner.
#[derive(Clone, Copy, Debug)]
pub struct NativeConfig {
    pub format: WeightFormat,
    /// Blocks of the KV cache.
    pub blocks: usize,
    /// Threads that compute, including the calling one.
    pub threads: usize,
    pub instructions: Instructions,
}

/// Runs passes on the CPU without libtorch.
#[derive(Debug)]
pub struct NativeRunner(RunnerByNumber);

/// A runner for each type of activations, keys and values.
#[derive(Debug)]
enum RunnerByNumber {
    F32(PassRunner<f32>),
    Bf16(PassRunner<Bf16>),
}

impl NativeRunner {
    /// Creates a runner for the model and the positions of `decoder`.
    ///
    /// # Errors
    /// The system refuses to start threads.
    pub fn new(
        decoder: &Decoder,
        weights: &Weights,
        config: NativeConfig,
    ) -> Result<Self, EngineError> {
        let mut runner = Self(match config.format {
            WeightFormat::F32 => RunnerByNumber::F32(PassRunner::new(decoder, config)?),
            WeightFormat::Bf16 | WeightFormat::Int8 => {
                RunnerByNumber::Bf16(PassRunner::new(decoder, config)?)
            }
        });
        runner.pack(weights);
        Ok(runner)
    }

    /// Copies the values of `weights`, which may be dropped afterwards.
    fn pack(&mut self, weights: &Weights) {
        match &mut self.0 {
            RunnerByNumber::F32(runner) => runner.pack(weights),
            RunnerByNumber::Bf16(runner) => runner.pack(weights),
        }
    }
}

impl Runner for NativeRunner {
    fn run(&mut self, pass: &Pass<'_>, draws: &[Draw]) -> Result<Vec<Choice>, EngineError> {
        match &mut self.0 {
            RunnerByNumber::F32(runner) => runner.run(pass, draws),
            RunnerByNumber::Bf16(runner) => runner.run(pass, draws),
        }
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        match &mut self.0 {
            RunnerByNumber::F32(runner) => runner.copy_block(from, to),
            RunnerByNumber::Bf16(runner) => runner.copy_block(from, to),
        }
    }

    fn set_weights(&mut self, weights: Weights) {
        self.pack(&weights);
    }
}
