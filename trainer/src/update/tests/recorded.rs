//! Gradients of whole updates, through the model, against PyTorch's autograd (`updates-tiny`).

use std::collections::BTreeMap;

use safetensors::SafeTensors;
use serde::Deserialize;
use tch::{Kind, Tensor};

use super::{gradients, policy_gradient};
use crate::algo::{Aggregation, ClipRange, KlEstimator, LikelihoodGate, Objective, token_weights};
use crate::critic::{
    Critic, CriticSequence, CriticUpdateConfig, HEAD_BIAS, HEAD_WEIGHT, critic_gradient,
};
use crate::golden;
use crate::policy::tests::adapters::adapted;
use crate::policy::tests::{F32, gap, tiny};
use crate::policy::{Decoder, Policy};
use crate::stop::StopFlag;
use crate::update::{LikelihoodTerm, PolicyUpdateConfig, TrainSequence};

/// Largest error of a gradient, in units of the parameter's largest one.
const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Recording {
    checkpoint: String,
    temperature: f64,
    value_clip: f64,
    losses: BTreeMap<String, f64>,
    batch: Batch,
}

/// A recorded batch. Numbers are those of the sampled tokens of each sequence.
#[derive(Deserialize)]
struct Batch {
    sequences: Vec<Vec<u32>>,
    masks: Vec<Vec<bool>>,
    old: Vec<Vec<f32>>,
    reference: Vec<Vec<f32>>,
    sampler: Vec<Vec<f32>>,
    advantages: Vec<Vec<f32>>,
    token_advantages: Vec<Vec<f32>>,
    old_values: Vec<Vec<f32>>,
    returns: Vec<Vec<f32>>,
}

fn recording() -> (Recording, BTreeMap<String, Tensor>) {
    let bytes = std::fs::read(golden::path("updates-tiny/gradients.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
            (name, Tensor::from_data_size(view.data(), &shape, Kind::Float))
        })
        .collect();
    (golden::read("updates-tiny/batch.json"), tensors)
}

impl Batch {
    fn sequences(&self, advantages: &[Vec<f32>], aggregation: Aggregation) -> Vec<TrainSequence> {
        let trained: Vec<usize> = self.old.iter().map(Vec::len).collect();
        let weights = token_weights(aggregation, 0, &trained);
        (0..self.sequences.len())
            .map(|index| TrainSequence {
                token_ids: self.sequences[index].clone(),
                mask: self.masks[index].clone(),
                advantages: advantages[index].clone(),
                weight: weights[index],
                old_log_probs: Some(self.old[index].clone()),
                reference_log_probs: Some(self.reference[index].clone()),
                sampler_log_probs: self.sampler[index].clone(),
            })
            .collect()
    }
}

#[track_caller]
fn check(actual: &BTreeMap<String, Tensor>, expected: &BTreeMap<String, Tensor>, case: &str) {
    let start = format!("{case}.");
    let recorded: BTreeMap<&str, &Tensor> = expected
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(&start)?, tensor)))
        .collect();
    assert!(actual.keys().map(String::as_str).eq(recorded.keys().copied()), "{case}");
    for (name, gradient) in actual {
        let scale = recorded[name.as_str()].abs().max().double_value(&[]);
        assert!(scale > 1e-7, "{case}: {name} has no gradient");
        let error = gap(gradient, recorded[name.as_str()]) / scale;
        assert!(error <= TOLERANCE, "{case}: {name} is off by {error}");
    }
}

const TOKEN_MEAN: Aggregation = Aggregation::TokenMean;
const SEQUENCE_MEAN: Aggregation = Aggregation::SequenceMeanTokenMean;

fn clip(low: f64, high: f64) -> ClipRange {
    ClipRange { low, high }
}

/// Returns the cases of the recording script.
fn cases(temperature: f64) -> Vec<(&'static str, Aggregation, PolicyUpdateConfig)> {
    let plain = |objective| PolicyUpdateConfig {
        objective,
        kl_coefficient: 0.0,
        kl_estimator: KlEstimator::K3,
        entropy_coefficient: 0.0,
        importance_most: None,
        likelihood: None,
        temperature,
        tokens_per_micro_batch: 1000,
    };
    let ppo_clip = Objective::Clipped { clip: clip(0.2, 0.2), dual: None };
    let grpo =
        PolicyUpdateConfig { kl_coefficient: 0.05, entropy_coefficient: 0.01, ..plain(ppo_clip) };
    let ppo = plain(Objective::Clipped { clip: clip(0.2, 0.28), dual: Some(1.5) });
    let gspo = plain(Objective::SequenceRatio { clip: clip(0.1, 0.15) });
    let cispo = PolicyUpdateConfig {
        importance_most: Some(1.2),
        ..plain(Objective::ClippedWeight { clip: clip(0.2, 0.3) })
    };
    let sapo = plain(Objective::SoftGate { positive: 1.0, negative: 1.05 });
    let gmpo = plain(Objective::GeometricMean { clip: clip(0.2, 0.2) });
    let term = LikelihoodTerm { coefficient: 0.5, gate: LikelihoodGate::Action };
    let llds = PolicyUpdateConfig { likelihood: Some(term), ..plain(ppo_clip) };
    vec![
        ("grpo", TOKEN_MEAN, grpo),
        ("ppo", TOKEN_MEAN, ppo),
        ("gspo", SEQUENCE_MEAN, gspo),
        ("cispo", TOKEN_MEAN, cispo),
        ("sapo", SEQUENCE_MEAN, sapo),
        ("gmpo", SEQUENCE_MEAN, gmpo),
        ("llds", SEQUENCE_MEAN, llds),
    ]
}

/// Compares every update over the recorded batch, whole and in micro-batches: its loss with `losses`, and its
/// gradients with the `tensors` whose names begin with `prefix` and the update's name.
fn check_updates(
    recorded: &Recording,
    policy: &Policy,
    decoder: &Decoder,
    losses: &BTreeMap<String, f64>,
    tensors: &BTreeMap<String, Tensor>,
    prefix: &str,
) {
    for (name, aggregation, config) in cases(recorded.temperature) {
        let batch = &recorded.batch;
        let advantages = if name == "ppo" { &batch.token_advantages } else { &batch.advantages };
        let sequences = batch.sequences(advantages, aggregation);
        for tokens_per_micro_batch in [1000, 30] {
            let config = PolicyUpdateConfig { tokens_per_micro_batch, ..config };
            let update = || policy_gradient(policy, decoder, &sequences, &config);
            let (statistics, actual) = gradients(policy, update);
            let gap = (statistics.policy_loss - losses[name]).abs();
            assert!(gap < 1e-5, "{name}: {statistics:?}");
            check(&actual, tensors, &format!("{prefix}{name}"));
        }
    }
}

#[test]
fn policy_updates_have_the_gradients_of_autograd() {
    let (recorded, tensors) = recording();
    let (policy, decoder) = tiny(&recorded.checkpoint, F32);
    assert_eq!(cases(recorded.temperature).len() + 1, recorded.losses.len());
    check_updates(&recorded, &policy, &decoder, &recorded.losses, &tensors, "");
}

/// Checks the same updates with adapters over frozen weights, recorded over the same batch.
#[test]
fn updates_of_adapters_have_the_gradients_of_autograd() {
    let (recorded, _) = recording();
    let (policy, decoder, adapters) = adapted("lora-tiny-llama", F32);
    assert_eq!(adapters.checkpoint, recorded.checkpoint);
    let (losses, tensors) = (&adapters.losses, &adapters.tensors);
    check_updates(&recorded, &policy, &decoder, losses, tensors, "update.");
    assert!(policy.parameters.values().all(|frozen| !frozen.grad().defined()));
}

#[test]
fn a_critic_update_has_the_gradients_of_autograd() {
    let (recorded, tensors) = recording();
    let (policy, decoder) = tiny(&recorded.checkpoint, F32);
    let mut critic = Critic::of_policy(&policy, 0);
    for (name, recorded) in [(HEAD_WEIGHT, "head.weight"), (HEAD_BIAS, "head.bias")] {
        let head = tensors[recorded].copy().set_requires_grad(true);
        critic.network.parameters.insert(name.to_owned(), head);
    }
    let batch = &recorded.batch;
    let sequences: Vec<CriticSequence> = (0..batch.sequences.len())
        .map(|index| CriticSequence {
            token_ids: batch.sequences[index].clone(),
            mask: batch.masks[index].clone(),
            old_values: batch.old_values[index].clone(),
            returns: batch.returns[index].clone(),
        })
        .collect();
    let config = CriticUpdateConfig { clip: recorded.value_clip, tokens_per_micro_batch: 30 };
    let update =
        || critic_gradient(&critic, &decoder, &sequences, &config, &StopFlag::never()).unwrap();
    let (statistics, actual) = gradients(&critic.network, update);
    assert!((statistics.value_loss - recorded.losses["critic"]).abs() < 1e-5, "{statistics:?}");
    check(&actual, &tensors, "critic");
}
