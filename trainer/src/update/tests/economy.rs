//! What an update leaves out changes nothing: prompts that are there once, logits in chunks, layers that
//! are computed again.

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

/// A sample of a group: tokens of its prompt, sampled ones, an observation, and again sampled ones.
#[derive(Clone, Copy, Debug)]
struct Sample {
    group: usize,
    prompt: usize,
    parts: [usize; 3],
}

/// Samples with all that a loss reads, all different; samples of a group have the same prompt.
fn of_samples(samples: &[Sample]) -> Vec<TrainSequence> {
    let sequence = |(index, sample): (usize, &Sample)| {
        let [first, observed, last] = sample.parts;
        let mask: Vec<bool> =
            [(sample.prompt, false), (first, true), (observed, false), (last, true)]
                .iter()
                .flat_map(|&(count, sampled)| vec![sampled; count])
                .collect();
        let token = |place: usize| {
            let from = if place < sample.prompt { 7 * sample.group } else { 31 * index + 3 };
            ((from + place * 13 + place * place) % 64) as u32
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
            let at = |place: usize| around + ((place + index) as f32 * 1.3).sin();
            (0..sequence.trained_tokens()).map(at).collect()
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

/// Groups of 3 samples with prompts of 9 and 6 tokens, one alone, and one without a sampled token.
fn groups() -> Vec<TrainSequence> {
    let of = |(group, prompt, parts)| Sample { group, prompt, parts };
    of_samples(
        &[
            (0, 9, [3, 5, 2]),
            (1, 6, [4, 0, 0]),
            (0, 9, [1, 0, 0]),
            (2, 4, [2, 6, 3]),
            (1, 6, [2, 7, 1]),
            (0, 9, [5, 4, 0]),
            (1, 6, [0, 0, 0]),
        ]
        .map(of),
    )
}

/// The gradient of a pass a sequence, in which nothing can be shared, and of passes of `tokens`.
fn check_cuts(policy: &Policy, decoder: &Decoder, sequences: &[TrainSequence], tokens: &[usize]) {
    let of = |tokens_per_micro_batch: usize| {
        let config = PolicyUpdateConfig { tokens_per_micro_batch, ..WITH_ALL_TERMS };
        gradients(policy, || policy_gradient(policy, decoder, sequences, &config))
    };
    let (alone, expected) = of(1);
    for &tokens in tokens {
        let (together, found) = of(tokens);
        check_gradients(&found, &expected, &format!("passes of {tokens}"));
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
        let of = |&(group, parts)| Sample { group, prompt: [1, 5, 12][group], parts };
        let samples: Vec<Sample> = samples.iter().map(of).collect();
        let (policy, mut decoder) = tiny("qwen2-tiny-window", F32);
        decoder.recomputes_layers = recomputes_layers;
        check_cuts(&policy, &decoder, &of_samples(&samples), &[tokens, 1000]);
    }
}

/// More targets in a pass than logits exist at a time.
#[test]
fn logits_in_chunks_give_the_gradient_of_all_at_once() {
    let (policy, decoder) = tiny(CHECKPOINTS[0], F32);
    let sample =
        |index: usize| Sample { group: index % 2, prompt: 4, parts: [20, 2, 8 + index % 3] };
    let samples: Vec<Sample> = (0..20).map(sample).collect();
    let sequences = of_samples(&samples);
    assert!(sequences.iter().map(TrainSequence::trained_tokens).sum::<usize>() > 512);
    check_cuts(&policy, &decoder, &sequences, &[2000]);
}

/// Several updates in bf16, of several passes each: what a pass computes again on its way back has to come
/// from the weights of its own update, not from a cast of older ones.
#[test]
fn layers_computed_again_train_as_kept_ones_do() {
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
