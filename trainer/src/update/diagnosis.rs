//! A search for the origin of a number that is not finite. It computes the parts of an update in the order of
//! their dependencies, up to the first such number.

use std::fmt;

use tch::{Kind, Tensor};

use super::policy_update::{PackedTokens, PolicyUpdateConfig};
use super::sequence::TrainSequence;
use crate::policy::{
    Attention, Decoder, LayerSpan, PackedCausalAttention, Policy, Weights, token_statistics,
};

/// The first number that is not finite.
#[derive(Clone, Debug, PartialEq)]
pub struct NotFiniteAt {
    /// A description of the number and its position.
    pub location: String,
    pub value: f64,
}

impl fmt::Display for NotFiniteAt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} is {}", self.location, self.value)
    }
}

/// Finds the first number of `tensor` that is not finite, with its index in the flattened tensor.
pub fn first_in(tensor: &Tensor) -> Option<(usize, f64)> {
    tch::no_grad(|| {
        let flat = tensor.detach().to_kind(Kind::Float).reshape([-1]);
        let indices = flat.isfinite().logical_not().nonzero();
        if indices.numel() == 0 {
            return None;
        }
        let index = indices.int64_value(&[0, 0]);
        Some((index as usize, flat.double_value(&[index])))
    })
}

/// Finds the first number in the parameters of a model that is not finite.
pub fn first_in_parameters(policy: &Policy) -> Option<NotFiniteAt> {
    let adapters = policy.lora.iter().flat_map(|lora| &lora.parameters);
    policy.parameters.iter().chain(adapters).find_map(|(name, tensor)| {
        let (index, value) = first_in(tensor)?;
        Some(NotFiniteAt { location: format!("number {index} of parameter {name}"), value })
    })
}

/// Finds the first number in the gradients of a model that is not finite.
pub fn first_in_gradients(policy: &Policy) -> Option<NotFiniteAt> {
    policy.trained().iter().find_map(|(name, tensor)| {
        let gradient = tensor.grad();
        let (index, value) = gradient.defined().then(|| first_in(&gradient)).flatten()?;
        Some(NotFiniteAt { location: format!("number {index} of the gradient of {name}"), value })
    })
}

/// Finds a gradient whose numbers are finite but too large for the norm over all gradients.
pub fn largest_gradient(policy: &Policy) -> Option<NotFiniteAt> {
    let largest = policy.trained().iter().filter_map(|(name, tensor)| {
        let gradient = tensor.grad();
        let largest =
            gradient.defined().then(|| gradient.detach().abs().max().double_value(&[]))?;
        Some((name, largest))
    });
    let (name, largest) = largest.max_by(|(_, left), (_, right)| left.total_cmp(right))?;
    // The norm is a sum of squares in f32.
    let value = f64::from((largest * largest) as f32);
    let location = format!("the square of {largest:e}, the largest gradient (parameter {name}),");
    (!value.is_finite()).then_some(NotFiniteAt { location, value })
}

/// Finds the first number of a policy update that is not finite. Looks at the parameters, the recorded data of the
/// trajectories, the model's layers, the log-probs, the parts of the loss, and the gradients, in this order.
pub fn first_not_finite(
    policy: &Policy,
    decoder: &Decoder,
    sequences: &[TrainSequence],
    config: &PolicyUpdateConfig,
) -> Option<NotFiniteAt> {
    let recorded = |(index, sequence): (usize, &TrainSequence)| in_recorded(index, sequence);
    let before_the_model =
        first_in_parameters(policy).or_else(|| sequences.iter().enumerate().find_map(recorded));
    if before_the_model.is_some() {
        return before_the_model;
    }
    let update_tokens = sequences.iter().map(TrainSequence::trained_tokens).sum();
    for (index, sequence) in sequences.iter().enumerate() {
        if sequence.trained_tokens() == 0 {
            continue;
        }
        let weights = tch::no_grad(|| policy.weights());
        let in_forward_pass = in_model(&weights, decoder, index, &sequence.token_ids)
            .or_else(|| in_log_probs(&weights, decoder, index, sequence, config.temperature));
        if in_forward_pass.is_some() {
            return in_forward_pass;
        }
        let members = [sequence];
        let packed = PackedTokens::new(&members, policy.compute.device);
        let weights = policy.weights();
        let terms = packed.loss(&weights, decoder, config, update_tokens);
        if let Some((term, value)) = terms.statistics.not_finite() {
            let location = format!("the {term} of trajectory {index}");
            return Some(NotFiniteAt { location, value });
        }
        terms.backward();
        if let Some(gradient) = first_in_gradients(policy) {
            let location = format!("{}, after adding trajectory {index},", gradient.location);
            return Some(NotFiniteAt { location, ..gradient });
        }
    }
    largest_gradient(policy)
}

fn in_recorded(index: usize, sequence: &TrainSequence) -> Option<NotFiniteAt> {
    let none = Vec::new();
    [
        ("advantage", &sequence.advantages),
        ("old log-prob", sequence.old_log_probs.as_ref().unwrap_or(&none)),
        ("reference's log-prob", sequence.reference_log_probs.as_ref().unwrap_or(&none)),
        ("sampler's log-prob", &sequence.sampler_log_probs),
    ]
    .into_iter()
    .find_map(|(quantity, values)| {
        let token = values.iter().position(|value| !value.is_finite())?;
        let value = f64::from(values[token]);
        let location = format!("the {quantity} of trained token {token} of trajectory {index}");
        Some(NotFiniteAt { location, value })
    })
}

/// An attention that checks the inputs and outputs of each layer.
struct CheckedAttention {
    inner: PackedCausalAttention,
    first: Option<LayerFinding>,
}

/// A number in a layer's attention that is not finite.
struct LayerFinding {
    layer: usize,
    quantity: &'static str,
    token: usize,
    value: f64,
}

impl Attention for CheckedAttention {
    fn attend(&mut self, layer: LayerSpan, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
        let mixed = self.inner.attend(layer, query, key, value);
        for (quantity, tensor) in
            [("query", query), ("key", key), ("value", value), ("attention's output", &mixed)]
        {
            if self.first.is_none()
                && let Some((index, value)) = first_in(tensor)
            {
                let token = index / (tensor.numel() / tensor.size()[0] as usize).max(1);
                self.first = Some(LayerFinding { layer: layer.index, quantity, token, value });
            }
        }
        mixed
    }
}

fn in_model(
    weights: &Weights,
    decoder: &Decoder,
    index: usize,
    token_ids: &[u32],
) -> Option<NotFiniteAt> {
    tch::no_grad(|| {
        let ids: Vec<i64> = token_ids.iter().map(|&id| i64::from(id)).collect();
        let tensor = |values: &[i64]| Tensor::from_slice(values).to_device(weights.device());
        let positions: Vec<i64> = (0..ids.len() as i64).collect();
        let inner = PackedCausalAttention::of_lengths(&[ids.len() as i64]);
        let mut attention = CheckedAttention { inner, first: None };
        let hidden =
            decoder.hidden_states(weights, &tensor(&ids), &tensor(&positions), &mut attention);
        if let Some(LayerFinding { layer, quantity, token, value }) = attention.first {
            let location =
                format!("the {quantity} of layer {layer} at token {token} of trajectory {index}");
            return Some(NotFiniteAt { location, value });
        }
        let (number, value) = first_in(&hidden)?;
        let token = number / (hidden.numel() / ids.len()).max(1);
        let location = format!("the last hidden state at token {token} of trajectory {index}");
        Some(NotFiniteAt { location, value })
    })
}

fn in_log_probs(
    weights: &Weights,
    decoder: &Decoder,
    index: usize,
    sequence: &TrainSequence,
    temperature: f64,
) -> Option<NotFiniteAt> {
    let scored = token_statistics(decoder, weights, &[sequence.packed()], temperature);
    let (token, value) = first_in(&scored.log_probs)?;
    let location = format!("the log-prob of trained token {token} of trajectory {index}");
    Some(NotFiniteAt { location, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{CHECKPOINTS, F32, tiny};
    use crate::update::tests::CONFIG;

    fn sequence() -> TrainSequence {
        TrainSequence {
            token_ids: vec![3, 1, 4, 1, 5, 9],
            mask: vec![false, false, true, true, false, true],
            advantages: vec![1.0; 3],
            weight: 0.3,
            old_log_probs: None,
            reference_log_probs: None,
            sampler_log_probs: vec![-2.0; 3],
        }
    }

    /// Applies `spoil` to an update and returns the description of the first bad number.
    fn diagnosis(spoil: impl Fn(&mut Policy, &mut TrainSequence)) -> Option<String> {
        let config = PolicyUpdateConfig { tokens_per_micro_batch: 100, ..CONFIG };
        let (mut policy, decoder) = tiny(CHECKPOINTS[1], F32);
        let mut second = sequence();
        spoil(&mut policy, &mut second);
        let first = first_not_finite(&policy, &decoder, &[sequence(), second], &config)?;
        assert!(!first.value.is_finite());
        Some(first.to_string())
    }

    fn set(policy: &Policy, name: &str, index: i64, value: f64) {
        tch::no_grad(|| {
            let _ = policy.parameters[name].view([-1]).get(index).fill_(value);
        });
    }

    #[test]
    fn the_first_number_is_named_by_where_it_arises() {
        assert_eq!(diagnosis(|_, _| {}), None);
        let name = "model.layers.1.mlp.up_proj.weight";
        let parameter = diagnosis(|policy, _| set(policy, name, 7, f64::NAN)).unwrap();
        assert_eq!(parameter, format!("number 7 of parameter {name} is NaN"));
        let advantage = diagnosis(|_, sequence| sequence.advantages[2] = f32::INFINITY).unwrap();
        assert_eq!(advantage, "the advantage of trained token 2 of trajectory 1 is inf");
        let spoiled = Some(vec![-1.0, f32::NAN, -1.0]);
        let old = diagnosis(|_, sequence| sequence.old_log_probs.clone_from(&spoiled)).unwrap();
        assert_eq!(old, "the old log-prob of trained token 1 of trajectory 1 is NaN");
        // One row of the second layer's value projection, so large that its products overflow.
        let projection = "model.layers.1.self_attn.v_proj.weight";
        let layer = diagnosis(|policy, _| {
            for index in 0..24 {
                set(policy, projection, index, 3e38);
            }
        });
        let layer = layer.unwrap();
        assert!(
            layer.starts_with("the value of layer 1 at token 0 of trajectory 0 is "),
            "{layer}"
        );
    }
}
