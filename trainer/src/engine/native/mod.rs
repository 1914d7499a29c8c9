//! The runner on CPUs: the whole forward pass over packed weights, bound by how fast memory gives
//! them.
//!
//! Owns: packed weights, the pool of cached keys and values, the threads that share the work. Refuses
//! to know about sequences, turns and stops: it is told which rows go through the model and where
//! their keys and values lie.
//!
//! Invariant: what comes out for a row depends on the weights and its sequence alone, to the last
//! bit: not on the rows beside it, on how its prompt was cut, nor on the number of threads.

mod kernel;
mod pool;

mod buffer;
mod pack;
mod shape;
mod weights;

mod attention;
mod cache;
mod head;
mod layer;
mod state;

mod passes;
#[cfg(test)]
mod tests;

pub use kernel::Instructions;

use kernel::Bf16;
use passes::Passes;

use super::sample::Choice;
use super::{Draw, EngineError, Pass, Runner};
use crate::policy::{Decoder, Weights};

/// What weights are stored as, and activations multiplied as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightFormat {
    /// All in f32: log-probs equal those of a policy that computes in f32 but for rounding.
    F32,
    /// Weights, activations, keys and values in bfloat16; sums, norms and softmax in f32.
    Bf16,
    /// As bfloat16, but weights are whole numbers of 8 bits with a scale for each output.
    Int8,
}

/// What a runner is made for.
#[derive(Clone, Copy, Debug)]
pub struct NativeConfig {
    pub format: WeightFormat,
    /// Blocks of the pool.
    pub blocks: usize,
    /// Threads that compute, the calling one among them.
    pub threads: usize,
    pub instructions: Instructions,
}

/// Runs passes on the CPU without libtorch.
#[derive(Debug)]
pub struct NativeRunner(Typed);

/// By the type of activations, keys and values.
#[derive(Debug)]
enum Typed {
    F32(Passes<f32>),
    Bf16(Passes<Bf16>),
}

impl NativeRunner {
    /// A runner for the model and the positions of `decoder`.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn new(
        decoder: &Decoder,
        weights: &Weights,
        config: NativeConfig,
    ) -> Result<Self, EngineError> {
        let mut runner = Self(match config.format {
            WeightFormat::F32 => Typed::F32(Passes::new(decoder, config)?),
            WeightFormat::Bf16 | WeightFormat::Int8 => Typed::Bf16(Passes::new(decoder, config)?),
        });
        runner.pack(weights);
        Ok(runner)
    }

    /// Takes over the values of `weights`, which are not needed any more afterwards.
    fn pack(&mut self, weights: &Weights) {
        match &mut self.0 {
            Typed::F32(passes) => passes.pack(weights),
            Typed::Bf16(passes) => passes.pack(weights),
        }
    }
}

impl Runner for NativeRunner {
    fn run(&mut self, pass: &Pass<'_>, draws: &[Draw]) -> Result<Vec<Choice>, EngineError> {
        match &mut self.0 {
            Typed::F32(passes) => passes.run(pass, draws),
            Typed::Bf16(passes) => passes.run(pass, draws),
        }
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        match &mut self.0 {
            Typed::F32(passes) => passes.copy_block(from, to),
            Typed::Bf16(passes) => passes.copy_block(from, to),
        }
    }

    fn set_weights(&mut self, weights: Weights) {
        self.pack(&weights);
    }
}
