//! Log-probs of every family, compared with libtorch's.

use tch::{Kind, Tensor};

use super::{Instructions, WARM, WeightFormat, choices, runner, scattered_blocks, tokens};
use crate::engine::Choice;
use crate::policy::tests::{BF16, CHECKPOINTS, F32, packed_logits, tiny};
use crate::policy::{Compute, Decoder, Policy};

/// Returns the largest and the mean difference of the choices' log-probs from those of the decoder.
fn differences(policy: &Policy, ids: &[u32], choices: &[[Choice; 4]]) -> (f64, f64) {
    let decoder = Decoder::new(&policy.config, super::POSITIONS, policy.compute.device);
    let logits = tch::no_grad(|| packed_logits(policy, &decoder, &[ids]).remove(0));
    let cold = logits.log_softmax(-1, Kind::Float);
    let warm = (logits / f64::from(WARM.temperature)).log_softmax(-1, Kind::Float);
    let expected = |log_probs: &Tensor, row: usize, choice: Choice| {
        log_probs.double_value(&[row as i64, i64::from(choice.token)])
    };
    let (mut largest, mut sum) = (0.0_f64, 0.0);
    for (row, choices) in choices.iter().enumerate() {
        for (sample, &choice) in choices.iter().enumerate() {
            let log_probs = if sample == 0 { &cold } else { &warm };
            let difference = f64::from(choice.log_prob) - expected(log_probs, row, choice);
            assert!(difference.is_finite());
            largest = largest.max(difference.abs());
            sum += difference.abs() / 4.0;
        }
    }
    (largest, sum / choices.len() as f64)
}

/// Returns the largest and the mean difference of a family over all instructions.
fn measure(name: &str, compute: Compute, format: WeightFormat, tokens_fed: usize) -> (f64, f64) {
    let (policy, _) = tiny(name, compute);
    let ids = tokens(&policy, tokens_fed, 11);
    let mut worst = (0.0_f64, 0.0_f64);
    for instructions in Instructions::available() {
        let mut runner = runner(&policy, format, instructions, 2);
        let actual = choices(&mut runner, &ids, &scattered_blocks(ids.len()), ids.len());
        let (largest, mean) = differences(&policy, &ids, &actual);
        worst = (worst.0.max(largest), worst.1.max(mean));
    }
    worst
}

/// The accepted differences. Log-probs of single tokens go down to -15. They differ by as much as those of
/// transformers in f32 differ from those in f64: at most 1.4e-5, and 1.3e-6 on average, on llama-tiny-tied.
const LARGEST: f64 = 3e-5;
const MEAN: f64 = 3e-6;

#[test]
fn every_family_in_f32_is_the_decoder_to_rounding() {
    for name in CHECKPOINTS {
        let (largest, mean) = measure(name, F32, WeightFormat::F32, 61);
        assert!(largest < LARGEST && mean < MEAN, "{name}: {largest}, {mean}");
    }
}

/// Contexts are longer than one chunk of scores, so windows skip whole chunks.
#[test]
fn long_sequences_in_f32_are_the_decoder_to_rounding() {
    for name in ["llama-tiny-tied", "mistral-tiny", "qwen2-tiny-window", "smollm3-tiny-listed"] {
        let (largest, mean) = measure(name, F32, WeightFormat::F32, 350);
        assert!(largest < LARGEST && mean < MEAN, "{name}: {largest}, {mean}");
    }
}

/// Both round to 8 bits of mantissa, but at different points of the computation.
#[test]
fn every_family_in_bf16_stays_near_the_decoder() {
    for name in CHECKPOINTS {
        let (largest, mean) = measure(name, BF16, WeightFormat::Bf16, 61);
        assert!(mean < 0.03 && largest < 0.5, "{name}: {mean}, {largest}");
        assert!(mean > 1e-5, "{name} was computed in f32");
    }
}

#[test]
fn every_family_in_8_bits_stays_near_the_decoder() {
    for name in CHECKPOINTS {
        let (largest, mean) = measure(name, F32, WeightFormat::Int8, 61);
        assert!(mean < 0.06 && largest < 0.6, "{name}: {mean}, {largest}");
        assert!(mean > 1e-4, "{name} was not rounded");
    }
}
