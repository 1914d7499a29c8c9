//! Rotary position embeddings (arXiv 2104.09864), and their scaling to longer contexts.

use std::f64::consts::TAU;

use tch::{Device, Tensor};

/// The rotation of queries and keys by position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the wavelengths.
    pub theta: f64,
    /// Change of the plain frequencies.
    pub scaling: RopeScaling,
}

/// Changes of the plain frequencies, named as in configurations. `factor` is the ratio of the new context length
/// to the old one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// `default`: unchanged frequencies.
    Default,
    /// `linear`: all frequencies are divided by the factor.
    Linear { factor: f64 },
    /// `llama3`: frequencies of long wavelengths are divided by the factor, those of short ones are kept, and
    /// those between are blended (`apply_scaling` in meta-llama/llama-models).
    Llama3 {
        factor: f64,
        low_frequency_factor: f64,
        high_frequency_factor: f64,
        /// Context length of the original training.
        original_positions: f64,
    },
    /// `yarn` (arXiv 2309.00071, section 3.2): a ramp over the dimensions between those that turn `beta_slow`
    /// and `beta_fast` times in the original context. Queries and keys are scaled by `attention_factor`.
    Yarn {
        factor: f64,
        attention_factor: f64,
        beta_fast: f64,
        beta_slow: f64,
        original_positions: f64,
        /// `true` if the ramp begins and ends at whole dimensions.
        truncate: bool,
    },
}

impl Rope {
    /// Returns the angle per position of each pair of dimensions: `head_dim / 2` numbers in radians.
    pub(super) fn frequencies(&self, head_dim: i64) -> Vec<f64> {
        let width = head_dim as f64;
        let plain = (0..head_dim / 2).map(|pair| self.theta.powf(-2.0 * pair as f64 / width));
        match self.scaling {
            RopeScaling::Default => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|frequency| frequency / factor).collect(),
            RopeScaling::Llama3 {
                factor,
                low_frequency_factor: low,
                high_frequency_factor: high,
                original_positions,
            } => plain
                .map(|frequency| {
                    let turns = original_positions * frequency / TAU;
                    if turns > high {
                        frequency
                    } else if turns < low {
                        frequency / factor
                    } else {
                        let kept = (turns - low) / (high - low);
                        (1.0 - kept) * frequency / factor + kept * frequency
                    }
                })
                .collect(),
            RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                original_positions,
                truncate,
                ..
            } => {
                let pair_of_turns = |turns: f64| {
                    width * (original_positions / (turns * TAU)).ln() / (2.0 * self.theta.ln())
                };
                let (first, last) = (pair_of_turns(beta_fast), pair_of_turns(beta_slow));
                let (first, last) = bounded_ramp(first, last, truncate, width);
                plain
                    .enumerate()
                    .map(|(pair, frequency)| {
                        let divided = ((pair as f64 - first) / (last - first)).clamp(0.0, 1.0);
                        divided * frequency / factor + (1.0 - divided) * frequency
                    })
                    .collect()
            }
        }
    }

    /// Returns the factor of cosines and sines.
    fn amplitude(&self) -> f64 {
        match self.scaling {
            RopeScaling::Yarn { attention_factor, .. } => attention_factor,
            _ => 1.0,
        }
    }
}

/// Returns the pairs of dimensions between which YaRN's ramp rises, within the `width` of a head.
fn bounded_ramp(first: f64, last: f64, truncate: bool, width: f64) -> (f64, f64) {
    let (first, last) = if truncate { (first.floor(), last.ceil()) } else { (first, last) };
    let (first, last) = (first.max(0.0), last.min(width - 1.0));
    // A ramp of no length would divide by zero. One that falls is computed as it is.
    if (last - first).abs() < f64::EPSILON { (first, first + 0.001) } else { (first, last) }
}

/// Cosines and sines of every position, `[positions, head_dim]`, f32 (both halves equal).
#[derive(Debug)]
pub(crate) struct RotaryTables {
    cos: Tensor,
    sin: Tensor,
}

impl RotaryTables {
    pub(super) fn new(rope: &Rope, head_dim: i64, positions: usize, device: Device) -> Self {
        // Frequencies and products are f32, so angles are rounded as in transformers.
        let frequencies: Vec<f32> =
            rope.frequencies(head_dim).into_iter().map(|frequency| frequency as f32).collect();
        let frequencies = Tensor::from_slice(&frequencies).to_device(device);
        let positions = Tensor::arange(positions as i64, (tch::Kind::Float, device));
        let angles = positions.outer(&frequencies);
        let angles = Tensor::cat(&[&angles, &angles], 1);
        let amplitude = rope.amplitude();
        Self { cos: angles.cos() * amplitude, sin: angles.sin() * amplitude }
    }

    /// Returns cosines and sines, `[positions, head_dim]`.
    pub(crate) fn tables(&self) -> [&Tensor; 2] {
        [&self.cos, &self.sin]
    }

    /// Selects the rows of `positions`, `[tokens]`.
    pub(super) fn at(&self, positions: &Tensor) -> Rotation {
        let rows = |table: &Tensor| table.index_select(0, positions).unsqueeze(1);
        Rotation { cos: rows(&self.cos), sin: rows(&self.sin) }
    }
}

/// The rotation of the heads of some tokens: `[tokens, 1, head_dim]`, f32.
#[derive(Debug)]
pub(super) struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    /// Rotates `[tokens, heads, head_dim]` over halves, as in the Hugging Face layout:
    /// `x cos + rotate_half(x) sin`. The result is f32.
    pub(super) fn apply(&self, input: &Tensor) -> Tensor {
        let halves = input.chunk(2, -1);
        let rotated = Tensor::cat(&[&-&halves[1], &halves[0]], -1);
        input * &self.cos + rotated * &self.sin
    }
}
