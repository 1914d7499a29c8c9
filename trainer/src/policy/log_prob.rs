//! Log-probs and entropies of chosen tokens. Logits exist only where a token was sampled.

use tch::{Kind, Tensor};

use super::attention::PackedCausalAttention;
use super::decoder::{Decoder, Weights};

/// Per-token results for the target tokens of a packed batch, in packing order.
#[derive(Debug)]
pub struct TokenStatistics {
    /// Log-prob of each target, `[targets]`, f32, differentiable.
    pub log_probs: Tensor,
    /// Entropy of each target's distribution in nats, `[targets]`, f32.
    pub entropies: Tensor,
}

/// What the decoder knew before each target token of packed sequences.
pub(crate) struct PredictingStates {
    /// Hidden state of the token before each target, `[targets, hidden]`, in the compute type.
    pub(crate) hidden: Tensor,
    /// Ids of the targets, in packing order.
    pub(crate) targets: Vec<i64>,
}

/// One forward pass over packed sequences; targets as in [`token_statistics`].
pub(crate) fn predicting_states(
    decoder: &Decoder,
    weights: &Weights,
    sequences: &[(&[u32], &[bool])],
) -> PredictingStates {
    let mut ids = Vec::new();
    let mut positions = Vec::new();
    let mut predictors = Vec::new();
    let mut targets = Vec::new();
    let mut lengths = Vec::new();
    for (tokens, mask) in sequences {
        let start = ids.len() as i64;
        for (position, &token) in tokens.iter().enumerate() {
            if position > 0 && mask[position] {
                predictors.push(start + position as i64 - 1);
                targets.push(i64::from(token));
            }
            ids.push(i64::from(token));
            positions.push(position as i64);
        }
        lengths.push(tokens.len() as i64);
    }
    let tensor = |values: &[i64]| Tensor::from_slice(values).to_device(weights.device());
    let mut attention = PackedCausalAttention { lengths };
    let hidden = decoder.hidden_states(weights, &tensor(&ids), &tensor(&positions), &mut attention);
    PredictingStates { hidden: hidden.index_select(0, &tensor(&predictors)), targets }
}

/// Scores the tokens of packed sequences at which `targets` is true (a sequence's first token has
/// no context and cannot be a target), with logits divided by `temperature` as in sampling.
pub fn token_statistics(
    decoder: &Decoder,
    weights: &Weights,
    sequences: &[(&[u32], &[bool])],
    temperature: f64,
    entropy_gradient: bool,
) -> TokenStatistics {
    let PredictingStates { hidden, targets } = predicting_states(decoder, weights, sequences);
    let targets = Tensor::from_slice(&targets).to_device(weights.device());
    let logits = Decoder::logits(weights, &hidden);
    let logits =
        if (temperature - 1.0).abs() > f64::EPSILON { logits / temperature } else { logits };
    let all = logits.log_softmax(-1, Kind::Float);
    let log_probs = all.gather(1, &targets.unsqueeze(1), false).squeeze_dim(1);
    let entropy =
        |all: &Tensor| -(all.exp() * all).sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float);
    let entropies =
        if entropy_gradient { entropy(&all) } else { tch::no_grad(|| entropy(&all.detach())) };
    TokenStatistics { log_probs, entropies }
}
