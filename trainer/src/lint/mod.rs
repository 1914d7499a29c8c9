//! The meaning of a configuration, computed from it and a few facts about model, data and run. All functions
//! are pure: they read no file.

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
use crate::search::Passage;

/// Facts that the configuration does not hold.
#[derive(Clone, Debug)]
pub struct Facts {
    pub model: ModelSource,
    /// Number of training questions; `None` if the file `data.train` does not exist.
    pub questions: Option<usize>,
    /// The answer of each retriever to one question; empty if nobody asked.
    pub retrievers: Vec<RetrieverReply>,
    /// Measurements of finished steps in the run folder.
    pub measured: Option<Measured>,
    /// Warnings from outside this module.
    pub warnings: Vec<String>,
}

/// A retriever's answer to one question.
#[derive(Clone, Debug)]
pub enum RetrieverReply {
    /// It answered.
    Passages {
        /// The address, without secrets.
        url: String,
        question: String,
        /// Best first; empty if it found nothing.
        passages: Vec<Passage>,
        milliseconds: u128,
    },
    /// It gave no answer now. It may not run yet, so the configuration may be right.
    Silent(String),
    /// It gave an answer that no search can use.
    Unusable(String),
    /// It serves something else than another one.
    Mixed(String),
}

/// The model, or the reason why it is unknown.
#[derive(Clone, Debug)]
pub enum ModelSource {
    Known(Box<ModelFacts>),
    Unknown(String),
}

impl ModelSource {
    /// Returns the model, if it is known.
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
    /// Bytes of the stored tensors.
    pub stored_bytes: u64,
    /// Bytes of a number in the compute type: 4 or 2.
    pub compute_bytes: u64,
    /// Format of the weights in the native kernels of rollouts; `None` if something else samples.
    pub packed: Option<WeightFormat>,
    /// `true` if the model computes in host memory.
    pub on_host: bool,
}

/// Time and memory of earlier steps of the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Number of finished steps.
    pub steps: u64,
    /// Mean duration of the latest steps.
    pub step_seconds: f64,
    /// Peak memory of the process, in MiB.
    pub peak_mib: u64,
}
