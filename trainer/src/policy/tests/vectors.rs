//! Logits, gradients and entropies against recorded values.

use std::collections::BTreeMap;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde::Deserialize;
use tch::{Kind, Tensor};

use super::{BF16, CHECKPOINTS, F32, gap, packed_logits, tiny};
use crate::golden;
use crate::policy::ScoredPass;
use crate::policy::log_prob::statistics_of_logits;

const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Expected {
    sequences: Vec<Vec<u32>>,
    mean_nll: f64,
    #[serde(skip)]
    tensors: BTreeMap<String, Tensor>,
}

fn expected(checkpoint: &str) -> Expected {
    let mut expected: Expected = golden::read(&format!("{checkpoint}/expected.json"));
    let bytes = std::fs::read(golden::path(&format!("{checkpoint}/expected.safetensors"))).unwrap();
    let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
        (name, Tensor::from_data_size(view.data(), &shape, Kind::Float))
    };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    expected.tensors = file.tensors().into_iter().map(tensor).collect();
    assert_eq!(expected.sequences.len(), 2);
    expected
}

#[test]
fn logit_vectors_pass_alone_and_packed() {
    for checkpoint in CHECKPOINTS {
        let (policy, decoder) = tiny(checkpoint, F32);
        let expected = expected(checkpoint);
        let (long, short) = (&expected.sequences[0][..], &expected.sequences[1][..]);
        let recorded = |index: usize| &expected.tensors[&format!("logits.{index}")];
        for (sequences, indices) in [
            (vec![long], vec![0]),
            (vec![short], vec![1]),
            (vec![short, long, short], vec![1, 0, 1]),
        ] {
            let logits = packed_logits(&policy, &decoder, &sequences);
            assert_eq!(logits.len(), indices.len());
            for (logits, &index) in logits.iter().zip(&indices) {
                let gap = gap(logits, recorded(index));
                assert!(gap < TOLERANCE, "{checkpoint}, sequence {index} of {indices:?}: {gap}");
            }
        }
    }
}

/// Measures differences in units of a parameter's largest gradient.
#[test]
fn gradient_vectors_pass_for_every_parameter() {
    for checkpoint in CHECKPOINTS {
        let (policy, decoder) = tiny(checkpoint, F32);
        let expected = expected(checkpoint);
        let masks: Vec<Vec<bool>> =
            expected.sequences.iter().map(|ids| vec![true; ids.len()]).collect();
        let packed: Vec<(&[u32], &[bool])> = expected
            .sequences
            .iter()
            .zip(&masks)
            .map(|(ids, mask)| (ids.as_slice(), mask.as_slice()))
            .collect();
        let weights = policy.weights();
        let scored = ScoredPass::new(&decoder, &weights, &packed, 1.0);
        let loss = -scored.statistics.log_probs.mean(Kind::Float);
        let mean_nll = loss.double_value(&[]);
        assert!((mean_nll - expected.mean_nll).abs() < 1e-5, "{checkpoint}: {mean_nll}");
        scored.backward(&loss);
        let mut recorded = expected.tensors.keys().filter(|name| name.starts_with("gradient."));
        assert_eq!(recorded.by_ref().count(), policy.parameters.len(), "{checkpoint}");
        for (name, parameter) in &policy.parameters {
            let gradient = &expected.tensors[&format!("gradient.{name}")];
            let scale = gradient.abs().max().double_value(&[]);
            assert!(scale > 1e-4, "{checkpoint}: {name} has a gradient");
            let gap = gap(&parameter.grad(), gradient) / scale;
            assert!(gap < TOLERANCE, "{checkpoint}: {name} is off by {gap}");
        }
    }
}

/// Rounding to 8 bits of mantissa changes these logits, of a magnitude of about 5, by hundredths.
#[test]
fn bf16_stays_near_the_logit_vectors() {
    for checkpoint in CHECKPOINTS {
        let (policy, decoder) = tiny(checkpoint, BF16);
        let expected = expected(checkpoint);
        let sequences: Vec<&[u32]> = expected.sequences.iter().map(Vec::as_slice).collect();
        let logits = packed_logits(&policy, &decoder, &sequences);
        for (index, logits) in logits.iter().enumerate() {
            assert_eq!(logits.kind(), Kind::Float, "logits are f32 in every compute type");
            let recorded = &expected.tensors[&format!("logits.{index}")];
            let largest = gap(logits, recorded);
            let mean = (logits - recorded).abs().mean(Kind::Float).double_value(&[]);
            assert!(mean < 0.05 && largest < 0.5, "{checkpoint}: {mean}, {largest}");
            assert!(mean > 1e-5, "{checkpoint} was computed in f32");
        }
    }
}

/// The entropies that Search-R1 recorded, `[sequences][tokens][vocab]` logits each.
#[derive(Deserialize)]
struct EntropyRecording {
    entropy: Vec<EntropyCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntropyCase {
    logits: Vec<Vec<Vec<f32>>>,
    mask: Vec<Vec<f32>>,
    loss: f64,
}

#[test]
fn entropy_vectors_pass() {
    let cases = golden::read::<EntropyRecording>("algorithms.json").entropy;
    assert!(!cases.is_empty());
    for (index, case) in cases.iter().enumerate() {
        let logits = Tensor::from_slice2(&case.logits.concat());
        let targets = Tensor::zeros([logits.size()[0]], (Kind::Int64, logits.device()));
        let entropies = statistics_of_logits(&logits, &targets).entropies;
        let mask = Tensor::from_slice(&case.mask.concat());
        let mean = (entropies * &mask).sum(Kind::Float) / mask.sum(Kind::Float);
        let mean = mean.double_value(&[]);
        assert!((mean - case.loss).abs() < 1e-5, "case {index}: {mean} is not {}", case.loss);
    }
}
