//! The choice between the protocols of vLLM and SGLang. Values only: nothing here sends anything.

use serde_json::Value;

use super::protocol::{Call, SampledTurn, ServedModel, TurnEnding, TurnRequest, WeightUpdate};
use super::{sglang, vllm};

/// The protocol of an engine's servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Vllm,
    Sglang,
}

impl Dialect {
    /// Returns the request that samples one turn.
    pub(super) fn generate(self, turn: &TurnRequest, model: &str) -> Call {
        match self {
            Self::Vllm => vllm::generate(turn, model),
            Self::Sglang => sglang::generate(turn),
        }
    }

    /// Reads the answer to [`Self::generate`].
    ///
    /// # Errors
    /// The answer is invalid; the text names the field.
    pub(super) fn read(self, answer: &Value) -> Result<SampledTurn, String> {
        let sampled = match self {
            Self::Vllm => vllm::read(answer),
            Self::Sglang => sglang::read(answer),
        }?;
        let (tokens, log_probs) = (sampled.token_ids.len(), sampled.log_probs.len());
        if tokens != log_probs {
            return Err(format!("{tokens} token ids came with {log_probs} log-probs"));
        }
        if tokens == 0 && sampled.ending != TurnEnding::Aborted {
            return Err("no token was sampled".to_owned());
        }
        Ok(sampled)
    }

    /// Returns the request for the served model.
    pub(super) fn ask_served(self) -> Call {
        match self {
            Self::Vllm => vllm::ask_served(),
            Self::Sglang => sglang::ask_served(),
        }
    }

    /// Reads the answer to [`Self::ask_served`].
    pub(super) fn read_served(self, answer: &Value) -> Result<ServedModel, String> {
        match self {
            Self::Vllm => vllm::read_served(answer),
            Self::Sglang => sglang::read_served(answer),
        }
    }

    /// Returns the requests that load the weights of `folder` and name them `name`.
    pub(super) fn update(self, folder: &str, name: &str) -> WeightUpdate {
        match self {
            Self::Vllm => vllm::update(folder, name),
            Self::Sglang => sglang::update(folder, name),
        }
    }

    /// Returns the reason if a server refused a request of [`Self::update`] in an answer with status 200.
    pub(super) fn refusal(self, answer: &Value) -> Option<String> {
        match self {
            Self::Vllm => None,
            Self::Sglang => sglang::refusal(answer),
        }
    }

    /// Returns the request for the name of the weights.
    pub(super) fn ask_weights(self) -> Call {
        match self {
            Self::Vllm => vllm::ask_weights(),
            Self::Sglang => sglang::ask_served(),
        }
    }
}
