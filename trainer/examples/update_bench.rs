//! Measures the time and memory of one update: `update_bench MODEL TRAJECTORIES DTYPE UPDATES
//! [TOKENS_PER_MICRO_BATCH [layers]]`.
//!
//! An update is the policy's gradient, clipping and AdamW over all trajectories; `layers` sets
//! `update.checkpoint_activations`. TRAJECTORIES contains one JSON object per line: `ids`, `mask` (1 at trained tokens)
//! and `advantage`. The program prints one JSON object; `peak_mib` is the peak resident memory (`VmHWM`).

#![expect(clippy::print_stdout, reason = "the program prints its measurements")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use trainer::algo::{Aggregation, ClipRange, KlEstimator, Objective, token_weights};
use trainer::policy::{Decoder, Policy, select_compute};
use trainer::stop::StopFlag;
use trainer::update::{
    AdamW, AdamWConfig, MomentsStorage, PolicyUpdateConfig, TrainSequence, clip_gradients,
    policy_gradient,
};

const LEARNING_RATE: f64 = 1e-6;
const MAX_NORM: f64 = 1.0;
const OPTIMIZER: AdamWConfig =
    AdamWConfig { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };

/// A trajectory, one line of the file.
#[derive(Debug, Deserialize)]
struct Line {
    ids: Vec<u32>,
    mask: Vec<u8>,
    advantage: f32,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |name: &str| arguments.next().with_context(|| format!("{name} is missing"));
    let (model, file) = (PathBuf::from(next("MODEL")?), PathBuf::from(next("TRAJECTORIES")?));
    let dtype = next("DTYPE")?;
    let updates = number("UPDATES", &next("UPDATES")?)?;
    let micro_batch = match arguments.next() {
        Some(text) => number("TOKENS_PER_MICRO_BATCH", &text)?,
        None => 8192,
    };
    let recomputes_layers = match arguments.next().as_deref() {
        None => false,
        Some("layers") => true,
        Some(other) => bail!("the last argument is {other:?}, expected \"layers\" or nothing"),
    };
    ensure!(updates > 0, "UPDATES is 0, expected at least 1");

    let compute = select_compute("auto", &dtype)?;
    let mut policy = Policy::load(&model, compute)?;
    let mut decoder = Decoder::new(&policy.config, policy.config.max_positions, compute.device);
    decoder.recomputes_layers = recomputes_layers;
    let sequences = read(&file)?;
    let tokens: usize = sequences.iter().map(|sequence| sequence.token_ids.len()).sum();
    let config = PolicyUpdateConfig {
        objective: Objective::Clipped { clip: ClipRange { low: 0.2, high: 0.2 }, dual: None },
        kl_coefficient: 0.0,
        kl_estimator: KlEstimator::K3,
        entropy_coefficient: 0.0,
        importance_most: None,
        likelihood: None,
        temperature: 1.0,
        tokens_per_micro_batch: micro_batch,
    };
    let mut optimizer = AdamW::new(&policy.parameters, OPTIMIZER, MomentsStorage::default());
    let (mut seconds, mut norms, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    let mut gradient_seconds = Vec::new();
    for _ in 0..updates {
        let begun = Instant::now();
        let update = policy_gradient(&policy, &decoder, &sequences, &config, &StopFlag::never())?;
        gradient_seconds.push(begun.elapsed().as_secs_f64());
        norms.push(clip_gradients(&policy.parameters, MAX_NORM));
        optimizer.step(&mut policy.parameters, LEARNING_RATE);
        seconds.push(begun.elapsed().as_secs_f64());
        losses.push(update.policy_loss);
    }
    let figures = serde_json::json!({
        "tokens": tokens,
        "seconds": seconds,
        "gradient_seconds": gradient_seconds,
        "loss": losses,
        "gradient_norm": norms,
        "parameters": policy.parameter_count(),
        "peak_mib": peak_kib()? / 1024.0,
    });
    println!("{figures}");
    Ok(())
}

fn number(name: &str, text: &str) -> Result<usize> {
    text.parse().with_context(|| format!("{name} is {text:?}, expected a number"))
}

fn read(file: &Path) -> Result<Vec<TrainSequence>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut sequences = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let location = || format!("{}, line {}", file.display(), index + 1);
        let line: Line = serde_json::from_str(line).with_context(location)?;
        let (ids, mask) = (line.ids.len(), line.mask.len());
        ensure!(
            ids == mask,
            "{}: has {ids} ids and {mask} numbers in the mask, expected as many of both",
            location()
        );
        let mask: Vec<bool> = line.mask.iter().map(|&trained| trained != 0).collect();
        let mut sequence = TrainSequence {
            token_ids: line.ids,
            mask,
            advantages: Vec::new(),
            weight: 0.0,
            old_log_probs: None,
            reference_log_probs: None,
            sampler_log_probs: Vec::new(),
        };
        sequence.advantages = vec![line.advantage; sequence.trained_tokens()];
        sequences.push(sequence);
    }
    let trained: Vec<usize> = sequences.iter().map(TrainSequence::trained_tokens).collect();
    let weights = token_weights(Aggregation::TokenMean, 0, &trained);
    for (sequence, weight) in sequences.iter_mut().zip(weights) {
        sequence.weight = weight;
    }
    Ok(sequences)
}

/// Returns the peak resident memory so far, in KiB.
fn peak_kib() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let line = line.context("/proc/self/status contains no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
