//! What a configuration means, from the configuration and a few facts about model, data and run:
//! functions of values that read nothing themselves.

mod json;
mod memory;
mod plan;
mod text;
mod warnings;

#[cfg(test)]
mod tests;

pub use json::report_json;
pub use memory::{Memory, Part, memory};
pub use plan::{Plan, Tokens, plan, tokens};
pub use text::report;
pub use warnings::{problems, warnings};

use crate::engine::WeightFormat;
use crate::policy::ModelConfig;

/// What is known beside the configuration.
#[derive(Clone, Debug)]
pub struct Facts {
    pub model: ModelSource,
    /// Questions of `data.train` that are trained on; none where the file is not there.
    pub questions: Option<usize>,
    /// What the run directory tells of steps that are done.
    pub measured: Option<Measured>,
    /// Warnings that are known already.
    pub warnings: Vec<String>,
}

/// The model, or why it is not known.
#[derive(Clone, Debug)]
pub enum ModelSource {
    Known(Box<ModelFacts>),
    Unknown(String),
}

impl ModelSource {
    /// The model, if it is known.
    pub fn known(&self) -> Option<&ModelFacts> {
        match self {
            Self::Known(facts) => Some(facts),
            Self::Unknown(_) => None,
        }
    }
}

/// A model folder, without its weights.
#[derive(Clone, Debug)]
pub struct ModelFacts {
    pub config: ModelConfig,
    /// Bytes of the tensors as they are stored.
    pub stored_bytes: u64,
    /// Bytes of a number in the compute type: 4 or 2.
    pub compute_bytes: u64,
    /// What the native kernels of rollouts keep weights as; none where others sample.
    pub packed: Option<WeightFormat>,
    /// The model computes in the host's memory.
    pub on_host: bool,
}

/// What earlier steps of the run have taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Steps done.
    pub steps: u64,
    /// Mean of the latest steps.
    pub step_seconds: f64,
    /// Most memory that the process had held, in MiB.
    pub peak_mib: u64,
}
