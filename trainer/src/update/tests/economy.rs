//! Economies that must not change an update: shared prompts, logits in chunks, recomputed layers.

use proptest::prelude::*;

use super::*;
use crate::policy::tests::BF16;
use crate::update::{AdamW, AdamWConfig, MomentsStorage};

const WITH_ALL_TERMS: PolicyUpdateConfig = PolicyUpdateConfig {
    kl_coefficient: 0.1,
    entropy_coefficient: 0.01,
    temperature: 0.8,
    ..CONFIG
};

/// A sample of a group. Its parts are sampled tokens, an observation, and sampled tokens again.
#[derive(Clone, Copy, Debug)]
struct Sample {
    group: usize,
    prompt: usize,
    parts: [usize; 3],
}

/// Creates samples with all inputs of a loss, all different. Samples of a group have the same prompt.
fn train_sequences(samples: &[Sample]) -> Vec<TrainSequence> {
    let sequence = |(index, sample): (usize, &Sample)| {
        let [first, observed, last] = sample.parts;
        let mask: Vec<bool> =
            [(sample.prompt, false), (first, true), (observed, false), (last, true)]
                .iter()
                .flat_map(|&(count, sampled)| vec![sampled; count])
                .collect();
        let token = |position: usize| {
            let from = if position < sample.prompt { 7 * sample.group } else { 31 * index + 3 };
            ((from + position * 13 + position * position) % 64) as u32
        };
        let mut sequence = TrainSequence {
            token_ids: (0..mask.len()).map(token).collect(),
            mask,
            advantages: Vec::new(),
            weight: 0.1 + 0.01 * index as f64,
            old_log_probs: None,
            reference_log_probs: None,
            sampler_log_probs: Vec::new(),
        };
        let wave = |around: f32| -> Vec<f32> {
            let value = |token: usize| around + ((token + index) as f32 * 1.3).sin();
            (0..sequence.trained_tokens()).map(value).collect()
        };
        let (advantages, old, reference) = (wave(0.2), wave(-4.0), wave(-4.2));
        sequence.advantages = advantages;
        sequence.sampler_log_probs.clone_from(&old);
        sequence.old_log_probs = Some(old);
        sequence.reference_log_probs = Some(reference);
        sequence
    };
    samples.iter().enumerate().map(sequence).collect()
}

/// Creates two groups of 3 samples with prompts of 9 and 6 tokens, and one sample alone. One sample has no sampled
/// token.
fn groups() -> Vec<TrainSequence> {
    let sample = |(group, prompt, parts)| Sample { group, prompt, parts };
    train_sequences(
        &[
            (0, 9, [3, 5, 2]),
            (1, 6, [4, 0, 0]),
            (0, 9, [1, 0, 0]),
            (2, 4, [2, 6, 3]),
            (1, 6, [2, 7, 1]),
            (0, 9, [5, 4, 0]),
            (1, 6, [0, 0, 0]),
        ]
        .map(sample),
    )
}

/// Compares passes of one sequence each, which share nothing, with passes of up to `tokens`.
fn check_cuts(policy: &Policy, decoder: &Decoder, sequences: &[TrainSequence], tokens: &[usize]) {
    let train = |tokens_per_micro_batch: usize| {
        let config = PolicyUpdateConfig { tokens_per_micro_batch, ..WITH_ALL_TERMS };
        gradients(policy, || policy_gradient(policy, decoder, sequences, &config))
    };
    let (alone, expected) = train(1);
    for &tokens in tokens {
        let (together, actual) = train(tokens);
        check_gradients(&actual, &expected, &format!("passes of {tokens}"));
        check_statistics(&together, &alone);
    }
}

#[test]
fn a_shared_prompt_gives_the_gradient_of_separate_ones() {
    for checkpoint in CHECKPOINTS {
        let (policy, mut decoder) = tiny(checkpoint, F32);
        for recomputes_layers in [false, true] {
            decoder.recomputes_layers = recomputes_layers;
            check_cuts(&policy, &decoder, &groups(), &[30, 1000]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn random_groups_give_the_gradient_of_separate_ones(
        samples in prop::collection::vec((0..3_usize, [0..6_usize, 0..6, 1..6]), 1..7),
        tokens in 10..90_usize,
        recomputes_layers: bool,
    ) {
        let sample = |&(group, parts)| Sample { group, prompt: [1, 5, 12][group], parts };
        let samples: Vec<Sample> = samples.iter().map(sample).collect();
        let (policy, mut decoder) = tiny("qwen2-tiny-window", F32);
        decoder.recomputes_layers = recomputes_layers;
        check_cuts(&policy, &decoder, &train_sequences(&samples), &[tokens, 1000]);
    }
}

/// One pass has more targets than logits exist at a time.
#[test]
fn logits_in_chunks_give_the_gradient_of_the_whole() {
    let (policy, decoder) = tiny(CHECKPOINTS[0], F32);
    let sample =
        |index: usize| Sample { group: index % 2, prompt: 4, parts: [20, 2, 8 + index % 3] };
    let samples: Vec<Sample> = (0..20).map(sample).collect();
    let sequences = train_sequences(&samples);
    assert!(sequences.iter().map(TrainSequence::trained_tokens).sum::<usize>() > 512);
    check_cuts(&policy, &decoder, &sequences, &[2000]);
}

/// Several updates in bf16, of several passes each. A recomputed layer must use the weights of its own update, not
/// a cast of older ones.
#[test]
fn recomputed_layers_train_as_kept_ones_do() {
    let train = |recomputes_layers: bool| {
        let (mut policy, mut decoder) = tiny("qwen3-tiny", BF16);
        decoder.recomputes_layers = recomputes_layers;
        let before: Vec<Tensor> =
            policy.parameters.values().map(|tensor| tensor.detach().copy()).collect();
        let settings = AdamWConfig { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.01 };
        let mut optimizer = AdamW::new(&policy.parameters, settings, MomentsStorage::default());
        let config = PolicyUpdateConfig { tokens_per_micro_batch: 30, ..WITH_ALL_TERMS };
        for _ in 0..4 {
            policy_gradient(&policy, &decoder, &groups(), &config);
            optimizer.step(&mut policy.parameters, 0.02);
        }
        (policy, before)
    };
    let ((kept, before), (again, _)) = (train(false), train(true));
    for ((name, kept), before) in kept.parameters.iter().zip(&before) {
        assert!(gap(kept, before) > 0.02, "{name} was trained");
        let gap = gap(kept, &again.parameters[name]);
        assert!(gap < 1e-5, "{name} is off by {gap}");
    }
}
