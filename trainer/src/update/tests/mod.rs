//! Gradients of updates: they do not depend on the micro-batches, and come from sampled tokens only.

mod economy;
mod recorded;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shared::machine::shutdown::Shutdown;
use tch::{Kind, Tensor};

use super::{LikelihoodTerm, PolicyUpdateConfig, PolicyUpdateStatistics, TrainSequence};
use crate::algo::{Aggregation, ClipRange, KlEstimator, LikelihoodGate, Objective, token_weights};
use crate::policy::tests::{CHECKPOINTS, F32, gap, packed_logits, tiny};
use crate::policy::{Decoder, Policy, Weights};
use crate::stop::{StopFlag, Stopped};

const CLIP: ClipRange = ClipRange { low: 0.2, high: 0.2 };

pub(super) const CONFIG: PolicyUpdateConfig = PolicyUpdateConfig {
    objective: Objective::Clipped { clip: CLIP, dual: None },
    kl_coefficient: 0.0,
    kl_estimator: KlEstimator::K3,
    entropy_coefficient: 0.0,
    importance_most: None,
    likelihood: None,
    temperature: 1.0,
    tokens_per_micro_batch: 1000,
};

/// Token budgets for micro-batches of one sequence each, of some sequences, and of all.
const MICRO_BATCHES: [usize; 4] = [1, 25, 40, 1000];

/// Calls [`super::policy_gradient`] without a stop.
fn policy_gradient(
    policy: &Policy,
    decoder: &Decoder,
    sequences: &[TrainSequence],
    config: &PolicyUpdateConfig,
) -> PolicyUpdateStatistics {
    super::policy_gradient(policy, decoder, sequences, config, &StopFlag::never()).unwrap()
}

/// Calls [`super::supervised_gradient`] without a stop.
fn supervised_gradient(
    policy: &Policy,
    decoder: &Decoder,
    sequences: &[TrainSequence],
    tokens: usize,
) -> f64 {
    super::supervised_gradient(policy, decoder, sequences, tokens, &StopFlag::never()).unwrap()
}

/// Calls [`super::sequence_log_probs`] without a stop.
fn sequence_log_probs(
    decoder: &Decoder,
    weights: &Weights,
    sequences: &[TrainSequence],
    temperature: f64,
    tokens: usize,
) -> Vec<Vec<f32>> {
    let never = &StopFlag::never();
    super::sequence_log_probs(decoder, weights, sequences, temperature, tokens, never).unwrap()
}

/// Creates sequences of many lengths: prompt, sampled tokens, an observation, and sampled tokens again. One has
/// nothing to train on, and another ends with an observation.
fn sequences() -> Vec<TrainSequence> {
    let sequence = |index: usize| {
        let parts = [(3 + index, false), (2 * index % 5, true), (index % 4, false), (index, true)];
        let mask: Vec<bool> =
            parts.iter().flat_map(|&(count, sampled)| vec![sampled; count]).collect();
        let token =
            |position: usize| ((index * 29 + position * 13 + position * position) % 64) as u32;
        TrainSequence {
            token_ids: (0..mask.len()).map(token).collect(),
            sampler_log_probs: vec![-1.0; mask.iter().filter(|&&sampled| sampled).count()],
            mask,
            advantages: Vec::new(),
            weight: 0.0,
            old_log_probs: None,
            reference_log_probs: None,
        }
    };
    let mut sequences: Vec<TrainSequence> = (0..7).map(sequence).collect();
    sequences[4].mask[12..].fill(false);
    let sampled = sequences[4].trained_tokens();
    sequences[4].sampler_log_probs.truncate(sampled);
    assert_eq!(sequences[0].trained_tokens(), 0);
    sequences
}

/// Adds advantages, weights, and log-probs of an older policy and of a reference, all different.
fn prepared(policy: &Policy, decoder: &Decoder) -> Vec<TrainSequence> {
    let mut sequences = sequences();
    let own = sequence_log_probs(decoder, &policy.detached_weights(), &sequences, 1.0, 1000);
    let trained: Vec<usize> = sequences.iter().map(TrainSequence::trained_tokens).collect();
    let weights = token_weights(Aggregation::SequenceMeanTokenMean, 0, &trained);
    for (index, (sequence, own)) in sequences.iter_mut().zip(own).enumerate() {
        let moved = |size: f32| -> Vec<f32> {
            own.iter()
                .enumerate()
                .map(|(index, value)| value + size * (index as f32 * 1.7).sin())
                .collect()
        };
        sequence.advantages = vec![[1.5, -0.5, 0.75][index % 3]; own.len()];
        sequence.weight = weights[index];
        sequence.old_log_probs = Some(moved(0.3));
        sequence.reference_log_probs = Some(moved(-0.8));
    }
    sequences
}

/// Returns the gradient that `compute` adds to each parameter.
fn gradients<T>(policy: &Policy, compute: impl FnOnce() -> T) -> (T, BTreeMap<String, Tensor>) {
    for parameter in policy.trained().values() {
        let mut gradient = parameter.grad();
        if gradient.defined() {
            let _ = gradient.zero_();
        }
    }
    let result = compute();
    let copy = |(name, parameter): (&String, &Tensor)| {
        let gradient = parameter.grad();
        let gradient = if gradient.defined() { gradient.copy() } else { parameter.zeros_like() };
        (name.clone(), gradient.detach())
    };
    (result, policy.trained().iter().map(copy).collect())
}

/// Measures differences in units of a parameter's largest gradient.
#[track_caller]
fn check_gradients(
    actual: &BTreeMap<String, Tensor>,
    expected: &BTreeMap<String, Tensor>,
    case: &str,
) {
    assert!(actual.keys().eq(expected.keys()));
    for (name, expected) in expected {
        let scale = expected.abs().max().double_value(&[]);
        assert!(scale > 1e-6, "{case}: {name} has no gradient");
        let gap = gap(&actual[name], expected) / scale;
        assert!(gap < 1e-4, "{case}: {name} is off by {gap}");
    }
}

#[track_caller]
fn check_statistics(actual: &PolicyUpdateStatistics, expected: &PolicyUpdateStatistics) {
    let close = |left: f64, right: f64| (left - right).abs() < 1e-5;
    assert!(close(actual.policy_loss, expected.policy_loss), "{actual:?} {expected:?}");
    assert!(close(actual.kl, expected.kl), "{actual:?} {expected:?}");
    assert!(close(actual.entropy, expected.entropy), "{actual:?} {expected:?}");
    assert!(close(actual.clip_fraction, expected.clip_fraction), "{actual:?} {expected:?}");
    assert!(close(actual.log_prob_gap, expected.log_prob_gap), "{actual:?} {expected:?}");
    assert!(close(actual.importance, expected.importance), "{actual:?} {expected:?}");
    assert!(close(actual.likelihood_loss, expected.likelihood_loss), "{actual:?} {expected:?}");
    assert!(close(actual.positive_log_prob, expected.positive_log_prob), "{actual:?}");
    assert_eq!(actual.trained_tokens, expected.trained_tokens);
    assert_eq!(actual.tokens, expected.tokens);
}

#[test]
fn an_update_does_not_depend_on_its_micro_batches() {
    for checkpoint in CHECKPOINTS {
        let (policy, decoder) = tiny(checkpoint, F32);
        let sequences = prepared(&policy, &decoder);
        let config = PolicyUpdateConfig {
            kl_coefficient: 0.1,
            entropy_coefficient: 0.01,
            temperature: 0.8,
            ..CONFIG
        };
        let train = |tokens_per_micro_batch: usize| {
            let config = PolicyUpdateConfig { tokens_per_micro_batch, ..config };
            gradients(&policy, || policy_gradient(&policy, &decoder, &sequences, &config))
        };
        let (whole, expected) = train(1000);
        assert!(whole.kl > 0.0 && whole.clip_fraction > 0.0 && whole.entropy > 0.0, "{whole:?}");
        for tokens in MICRO_BATCHES {
            let (statistics, actual) = train(tokens);
            check_gradients(&actual, &expected, &format!("{checkpoint}, {tokens}"));
            check_statistics(&statistics, &whole);
        }
    }
}

/// Covers every loss, including those of whole sequences and of actions.
#[test]
fn no_objective_depends_on_its_micro_batches() {
    let (policy, decoder) = tiny(CHECKPOINTS[1], F32);
    let sequences = prepared(&policy, &decoder);
    let likelihood = |gate| Some(LikelihoodTerm { coefficient: 0.5, gate });
    let cases = [
        (Objective::Clipped { clip: CLIP, dual: Some(3.0) }, likelihood(LikelihoodGate::Action)),
        (Objective::SequenceRatio { clip: CLIP }, likelihood(LikelihoodGate::Response)),
        (Objective::ClippedWeight { clip: CLIP }, None),
        (Objective::SoftGate { positive: 1.0, negative: 1.05 }, None),
        (Objective::GeometricMean { clip: CLIP }, None),
        (Objective::Plain, None),
    ];
    for (objective, likelihood) in cases {
        let train = |tokens_per_micro_batch: usize| {
            let config = PolicyUpdateConfig {
                objective,
                likelihood,
                importance_most: Some(2.0),
                tokens_per_micro_batch,
                ..CONFIG
            };
            gradients(&policy, || policy_gradient(&policy, &decoder, &sequences, &config))
        };
        let (whole, expected) = train(1000);
        assert!(whole.importance > 0.0 && whole.importance < 2.0, "{whole:?}");
        assert_eq!(likelihood.is_some(), whole.likelihood_loss > 0.0, "{whole:?}");
        for tokens in MICRO_BATCHES {
            let (statistics, actual) = train(tokens);
            check_gradients(&actual, &expected, &format!("{objective:?}, {tokens}"));
            check_statistics(&statistics, &whole);
        }
    }
}

/// A number that is not finite is reported with its part of the loss.
#[test]
fn a_loss_that_is_not_finite_is_named() {
    let (policy, decoder) = tiny(CHECKPOINTS[1], F32);
    let sequences = prepared(&policy, &decoder);
    let config = PolicyUpdateConfig { kl_coefficient: 0.1, ..CONFIG };
    assert_eq!(policy_gradient(&policy, &decoder, &sequences, &config).not_finite(), None);
    let mut poisoned = sequences.clone();
    poisoned[3].advantages[0] = f32::NAN;
    let statistics = policy_gradient(&policy, &decoder, &poisoned, &config);
    assert_eq!(statistics.not_finite().unwrap().0, "policy loss");
    let mut poisoned = sequences;
    poisoned[3].reference_log_probs.as_mut().unwrap()[0] = f32::NAN;
    let statistics = policy_gradient(&policy, &decoder, &poisoned, &config);
    assert_eq!(statistics.not_finite().unwrap().0, "divergence from the reference");
}

#[test]
fn scores_do_not_depend_on_their_micro_batches() {
    let (policy, decoder) = tiny(CHECKPOINTS[1], F32);
    let sequences = sequences();
    let weights = policy.detached_weights();
    let scores = |tokens| sequence_log_probs(&decoder, &weights, &sequences, 0.8, tokens);
    let expected = scores(1000);
    for (sequence, values) in sequences.iter().zip(&expected) {
        assert_eq!(sequence.trained_tokens(), values.len());
    }
    for tokens in MICRO_BATCHES {
        for (score, expected) in scores(tokens).iter().flatten().zip(expected.iter().flatten()) {
            assert!((score - expected).abs() < 1e-5, "{score} {expected}");
        }
    }
}

#[test]
fn without_an_advantage_there_is_nothing_to_learn() {
    let (policy, decoder) = tiny(CHECKPOINTS[0], F32);
    let mut sequences = prepared(&policy, &decoder);
    for sequence in &mut sequences {
        sequence.advantages.fill(0.0);
    }
    let size = |config: &PolicyUpdateConfig, sequences: &[TrainSequence]| {
        let compute = || policy_gradient(&policy, &decoder, sequences, config);
        let (_, gradients) = gradients(&policy, compute);
        gradients.values().map(|gradient| gradient.abs().max().double_value(&[])).sum::<f64>()
    };
    assert!(size(&CONFIG, &sequences).abs() < f64::EPSILON);
    // A divergence can still be reduced.
    assert!(size(&PolicyUpdateConfig { kl_coefficient: 0.1, ..CONFIG }, &sequences) > 1e-3);
    sequences[3].advantages.fill(1.0);
    assert!(size(&CONFIG, &sequences) > 1e-3);
}

/// The supervised gradient increases the log-probs of sampled tokens. With all advantages at 1 and the policy that
/// sampled, an update has the same gradient.
#[test]
fn equal_advantages_give_the_supervised_gradient() {
    let (policy, decoder) = tiny(CHECKPOINTS[1], F32);
    let mut sequences = sequences();
    let trained: Vec<usize> = sequences.iter().map(TrainSequence::trained_tokens).collect();
    let weights = token_weights(Aggregation::TokenMean, 0, &trained);
    for (sequence, weight) in sequences.iter_mut().zip(weights) {
        sequence.advantages = vec![1.0; sequence.trained_tokens()];
        sequence.weight = weight;
    }
    let update = || policy_gradient(&policy, &decoder, &sequences, &CONFIG);
    let (statistics, actual) = gradients(&policy, update);
    assert!((statistics.policy_loss + 1.0).abs() < 1e-5, "{statistics:?}");
    assert!(statistics.clip_fraction.abs() < f64::EPSILON);
    let supervised = || supervised_gradient(&policy, &decoder, &sequences, 25);
    check_gradients(&actual, &gradients(&policy, supervised).1, "advantages of 1");
}

/// Computes the loss by hand: from the logits of each sequence alone, and only at tokens of the mask.
#[test]
fn the_supervised_gradient_is_that_of_sampled_tokens() {
    for checkpoint in CHECKPOINTS {
        let (policy, decoder) = tiny(checkpoint, F32);
        let sequences = sequences();
        let by_hand = || {
            let mut terms = Vec::new();
            for sequence in &sequences {
                let logits = &packed_logits(&policy, &decoder, &[&sequence.token_ids])[0];
                for position in 1..sequence.token_ids.len() {
                    if sequence.mask[position] {
                        let row = logits.get(position as i64 - 1);
                        let token = i64::from(sequence.token_ids[position]);
                        terms.push(row.logsumexp(0, false) - row.get(token));
                    }
                }
            }
            let loss = Tensor::stack(&terms, 0).mean(Kind::Float);
            loss.backward();
            loss.double_value(&[])
        };
        let (expected_loss, expected) = gradients(&policy, by_hand);
        for tokens in MICRO_BATCHES {
            let supervised = || supervised_gradient(&policy, &decoder, &sequences, tokens);
            let (loss, actual) = gradients(&policy, supervised);
            assert!((loss - expected_loss).abs() < 1e-5, "{checkpoint}: {loss} {expected_loss}");
            check_gradients(&actual, &expected, &format!("{checkpoint}, {tokens}"));
        }
    }
}

/// Tokens after the last sampled one change nothing.
#[test]
fn tokens_after_the_last_sampled_one_carry_no_loss() {
    let (policy, decoder) = tiny(CHECKPOINTS[1], F32);
    let mut sequences = sequences();
    let train = |sequences: &[TrainSequence]| {
        gradients(&policy, || supervised_gradient(&policy, &decoder, sequences, 1000))
    };
    let (expected_loss, expected) = train(&sequences);
    let tail = sequences[4].mask.iter().rposition(|&sampled| sampled).unwrap() + 1;
    assert!(tail < sequences[4].mask.len());
    sequences[4].token_ids[tail..].fill(63);
    let (loss, actual) = train(&sequences);
    assert!((loss - expected_loss).abs() < 1e-6);
    check_gradients(&actual, &expected, "other tail");
    sequences[4].token_ids[tail - 1] ^= 1;
    let (loss, _) = train(&sequences);
    assert!((loss - expected_loss).abs() > 1e-4, "a sampled token does count");
}

#[test]
fn a_batch_without_sampled_tokens_is_no_update() {
    let (policy, decoder) = tiny(CHECKPOINTS[0], F32);
    let nothing = &sequences()[..1];
    assert!(supervised_gradient(&policy, &decoder, nothing, 10).abs() < f64::EPSILON);
    let statistics = policy_gradient(&policy, &decoder, nothing, &CONFIG);
    assert_eq!((statistics.trained_tokens, statistics.tokens), (0, 3));
    for (name, parameter) in &policy.parameters {
        assert!(!parameter.grad().defined(), "{name}");
    }
    assert!(supervised_gradient(&policy, &decoder, &[], 10).abs() < f64::EPSILON);
}

/// Work that runs one pass per micro-batch.
type StoppablePass<'a> = &'a dyn Fn(&StopFlag) -> Result<(), Stopped>;

/// A stop waits at most for the pass of one sequence.
#[test]
fn a_stop_comes_between_two_micro_batches() {
    let (policy, decoder) = tiny(CHECKPOINTS[1], F32);
    let sequences = prepared(&policy, &decoder);
    let weights = policy.detached_weights();
    let config = PolicyUpdateConfig { tokens_per_micro_batch: 1, ..CONFIG };
    let passes: [(usize, StoppablePass<'_>); 3] = [
        // The sequence without anything to train on takes no pass.
        (sequences.len() - 1, &|stop| {
            super::policy_gradient(&policy, &decoder, &sequences, &config, stop).map(|_| ())
        }),
        (sequences.len(), &|stop| {
            super::supervised_gradient(&policy, &decoder, &sequences, 1, stop).map(|_| ())
        }),
        (sequences.len(), &|stop| {
            super::sequence_log_probs(&decoder, &weights, &sequences, 1.0, 1, stop).map(|_| ())
        }),
    ];
    for (checks, pass) in passes {
        for allowed in 0..=checks {
            let seen = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&seen);
            let stop = StopFlag::asking(move || {
                let before = counter.fetch_add(1, Ordering::Relaxed);
                (before >= allowed).then_some(Shutdown::Terminate)
            });
            let expected = if allowed < checks { Err(Stopped) } else { Ok(()) };
            assert_eq!(pass(&stop), expected, "after {allowed} of {checks}");
            assert_eq!(seen.load(Ordering::Relaxed), checks.min(allowed + 1));
        }
    }
}
