//! Where a number that is not finite comes from: the parts of an update are computed one after the
//! other, in the order in which they depend on each other, until one is found.

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
    /// What it is and where it stands.
    pub place: String,
    pub value: f64,
}

impl fmt::Display for NotFiniteAt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} is {}", self.place, self.value)
    }
}

/// The first number of `tensor` that is not finite, with its place in the flattened tensor.
pub fn first_in(tensor: &Tensor) -> Option<(usize, f64)> {
    tch::no_grad(|| {
        let flat = tensor.detach().to_kind(Kind::Float).reshape([-1]);
        let places = flat.isfinite().logical_not().nonzero();
        if places.numel() == 0 {
            return None;
        }
        let place = places.int64_value(&[0, 0]);
        Some((place as usize, flat.double_value(&[place])))
    })
}

/// The first parameter of a model that holds a number that is not finite.
pub fn first_in_parameters(policy: &Policy) -> Option<NotFiniteAt> {
    let adapters = policy.lora.iter().flat_map(|lora| &lora.parameters);
    policy.parameters.iter().chain(adapters).find_map(|(name, tensor)| {
        let (place, value) = first_in(tensor)?;
        Some(NotFiniteAt { place: format!("number {place} of parameter {name}"), value })
    })
}

/// The first gradient, by its parameter's name, that is not finite.
pub fn first_in_gradients(policy: &Policy) -> Option<NotFiniteAt> {
    policy.trained().iter().find_map(|(name, tensor)| {
        let gradient = tensor.grad();
        let (place, value) = gradient.defined().then(|| first_in(&gradient)).flatten()?;
        Some(NotFiniteAt { place: format!("number {place} of the gradient of {name}"), value })
    })
}

/// A gradient whose numbers are finite, but too large for the norm over all of them.
pub fn largest_gradient(policy: &Policy) -> Option<NotFiniteAt> {
    let largest = policy.trained().iter().filter_map(|(name, tensor)| {
        let gradient = tensor.grad();
        let largest =
            gradient.defined().then(|| gradient.detach().abs().max().double_value(&[]))?;
        Some((name, largest))
    });
    let (name, largest) = largest.max_by(|one, other| one.1.total_cmp(&other.1))?;
    // The norm is a sum of squares in f32.
    let value = f64::from((largest * largest) as f32);
    let place =
        format!("the square of {largest:e}, the largest gradient, which is that of {name},");
    (!value.is_finite()).then_some(NotFiniteAt { place, value })
}

/// The first number of a policy update that is not finite: in the parameters, in what was recorded of
/// the trajectories, within the model, in the log-probs, in the parts of the loss, in the gradients.
pub fn first_not_finite(
    policy: &Policy,
    decoder: &Decoder,
    sequences: &[TrainSequence],
    config: &PolicyUpdateConfig,
) -> Option<NotFiniteAt> {
    if let Some(found) = first_in_parameters(policy) {
        return Some(found);
    }
    let recorded = |(index, sequence): (usize, &TrainSequence)| in_recorded(index, sequence);
    if let Some(found) = sequences.iter().enumerate().find_map(recorded) {
        return Some(found);
    }
    let update_tokens = sequences.iter().map(TrainSequence::trained_tokens).sum();
    for (index, sequence) in sequences.iter().enumerate() {
        if sequence.trained_tokens() == 0 {
            continue;
        }
        let weights = tch::no_grad(|| policy.weights());
        let found = in_model(&weights, decoder, index, &sequence.token_ids)
            .or_else(|| in_log_probs(&weights, decoder, index, sequence, config.temperature));
        if found.is_some() {
            return found;
        }
        let members = [sequence];
        let packed = PackedTokens::of(&members, policy.compute.device);
        let weights = policy.weights();
        let terms = packed.loss(&weights, decoder, config, update_tokens);
        if let Some((term, value)) = terms.statistics.not_finite() {
            return Some(NotFiniteAt { place: format!("the {term} of trajectory {index}"), value });
        }
        terms.backward();
        if let Some(found) = first_in_gradients(policy) {
            let place = format!("{}, once trajectory {index} is added,", found.place);
            return Some(NotFiniteAt { place, ..found });
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
    .find_map(|(what, values)| {
        let place = values.iter().position(|value| !value.is_finite())?;
        let value = f64::from(values[place]);
        let place = format!("the {what} of trained token {place} of trajectory {index}");
        Some(NotFiniteAt { place, value })
    })
}

/// Looks at what each layer gives to its attention and gets from it.
struct Watched {
    inner: PackedCausalAttention,
    first: Option<(usize, &'static str, usize, f64)>,
}

impl Attention for Watched {
    fn attend(&mut self, layer: LayerSpan, query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
        let mixed = self.inner.attend(layer, query, key, value);
        for (what, tensor) in
            [("query", query), ("key", key), ("value", value), ("attention's output", &mixed)]
        {
            if self.first.is_none()
                && let Some((place, number)) = first_in(tensor)
            {
                let token = place / (tensor.numel() / tensor.size()[0] as usize).max(1);
                self.first = Some((layer.index, what, token, number));
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
        let mut watched = Watched { inner, first: None };
        let hidden =
            decoder.hidden_states(weights, &tensor(&ids), &tensor(&positions), &mut watched);
        if let Some((layer, what, token, value)) = watched.first {
            let place =
                format!("the {what} of layer {layer} at token {token} of trajectory {index}");
            return Some(NotFiniteAt { place, value });
        }
        let (place, value) = first_in(&hidden)?;
        let token = place / (hidden.numel() / ids.len()).max(1);
        let place = format!("the last hidden state at token {token} of trajectory {index}");
        Some(NotFiniteAt { place, value })
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
    let place = format!("the log-prob of trained token {token} of trajectory {index}");
    Some(NotFiniteAt { place, value })
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

    /// What is found after `spoil` has been at work.
    fn found(spoil: impl Fn(&mut Policy, &mut TrainSequence)) -> Option<String> {
        let config = PolicyUpdateConfig { tokens_per_micro_batch: 100, ..CONFIG };
        let (mut policy, decoder) = tiny(CHECKPOINTS[1], F32);
        let mut second = sequence();
        spoil(&mut policy, &mut second);
        let found = first_not_finite(&policy, &decoder, &[sequence(), second], &config)?;
        assert!(!found.value.is_finite());
        Some(found.to_string())
    }

    fn set(policy: &Policy, name: &str, place: i64, value: f64) {
        tch::no_grad(|| {
            let _ = policy.parameters[name].view([-1]).get(place).fill_(value);
        });
    }

    #[test]
    fn the_first_number_is_named_by_where_it_arises() {
        assert_eq!(found(|_, _| {}), None);
        let name = "model.layers.1.mlp.up_proj.weight";
        let parameter = found(|policy, _| set(policy, name, 7, f64::NAN)).unwrap();
        assert_eq!(parameter, format!("number 7 of parameter {name} is NaN"));
        let advantage = found(|_, sequence| sequence.advantages[2] = f32::INFINITY).unwrap();
        assert_eq!(advantage, "the advantage of trained token 2 of trajectory 1 is inf");
        let old = found(|_, one| one.old_log_probs = Some(vec![-1.0, f32::NAN, -1.0])).unwrap();
        assert_eq!(old, "the old log-prob of trained token 1 of trajectory 1 is NaN");
        // The first query of the second layer, from token 9 alone: the last of each trajectory.
        let query = "model.layers.1.self_attn.v_proj.weight";
        let layer = found(|policy, _| {
            for place in 0..24 {
                set(policy, query, place, 3e38);
            }
        });
        let layer = layer.unwrap();
        assert!(
            layer.starts_with("the value of layer 1 at token 0 of trajectory 0 is "),
            "{layer}"
        );
    }
}
