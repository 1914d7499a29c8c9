//! Rotary embeddings of a GGUF file, written as `rope_scaling` of `config.json`. Owns the meaning of the keys
//! `ARCHITECTURE.rope.scaling.*` and of the tensor `rope_freqs.weight`, as llama.cpp reads them.
//!
//! The tensor holds one divisor for each pair of dimensions. Llama 3's files have it. It is expressed by the parameters
//! from which it was computed, or refused.

use std::f64::consts::TAU;

use serde_json::{Value as Json, json};

use super::error::GgufError;
use super::gguf::Gguf;
use super::metadata::Metadata;

pub(super) const FACTORS: &str = "rope_freqs.weight";
const POSITIONS_MAX: usize = 1_073_741_824;
/// Largest relative difference between a divisor of the file, an f32, and the one of the parameters.
const TOLERANCE: f64 = 1e-5;
/// `high_freq_factor` and `low_freq_factor` of all published models.
const HIGH: f64 = 4.0;
const LOW: f64 = 1.0;

/// Reads `rope_scaling`, or null. `head_size` is the number of rotated dimensions of a head, `base` that of the
/// wavelengths, and `context_tokens` the longest context.
pub(super) fn scaling(
    gguf: &Gguf<'_>,
    architecture: &str,
    head_size: usize,
    base: f64,
    context_tokens: usize,
) -> Result<Json, GgufError> {
    let metadata = &gguf.metadata;
    let key = |name: &str| format!("{architecture}.rope.scaling.{name}");
    let described = described(metadata, architecture, context_tokens)?;
    let Some(tensor) = gguf.tensors.get(FACTORS) else { return Ok(described) };
    let expected = format!("shape [{}]", head_size / 2);
    if tensor.shape != [head_size / 2] {
        return Err(GgufError::tensor(FACTORS, expected, format!("shape {:?}", tensor.shape)));
    }
    let factors: Vec<f64> =
        tensor.block_type.dequantize(tensor.data).into_iter().map(f64::from).collect();
    if factors.iter().all(|factor| is_one(*factor)) {
        return Ok(described);
    }
    match Llama3::of_factors(&factors, base) {
        None => {
            let expected = "divisors of the form that Llama 3 has";
            Err(GgufError::tensor(FACTORS, expected, format!("{factors:?}")))
        }
        Some(parameters) if described.is_null() => Ok(parameters.json()),
        Some(_) => {
            let expected = "none beside rope_freqs.weight";
            Err(GgufError::metadata(key("type"), expected, described.to_string()))
        }
    }
}

/// Reads the keys of metadata. Without a type, a factor is that of linear scaling.
fn described(
    metadata: &Metadata<'_>,
    architecture: &str,
    context_tokens: usize,
) -> Result<Json, GgufError> {
    let key = |name: &str| format!("{architecture}.rope.scaling.{name}");
    let number = |name: &str| metadata.optional_positive(&key(name));
    let oldest = metadata.optional_positive(&format!("{architecture}.rope.scale_linear"))?;
    let factor = number("factor")?.or(oldest);
    let type_key = key("type");
    let scaling = match metadata.optional_text(&type_key)? {
        Some("none") => return Ok(Json::Null),
        // llama.cpp's default.
        None | Some("linear") => match factor.filter(|factor| !is_one(*factor)) {
            None => Json::Null,
            Some(factor) => json!({"rope_type": "linear", "factor": decimal(factor)}),
        },
        Some("yarn") => {
            let factor = factor.ok_or_else(|| {
                GgufError::metadata(key("factor"), "a finite number above 0", "nothing")
            })?;
            let length = metadata.optional_size(&key("original_context_length"), POSITIONS_MAX)?;
            let mut scaling = json!({"rope_type": "yarn", "factor": decimal(factor),
                "original_max_position_embeddings": length.unwrap_or(context_tokens)});
            if let Some(attention) = number("attn_factor")?.or(number("yarn_attn_factor")?)
                && !is_one(attention)
            {
                let growth = if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 };
                scaling["attention_factor"] = json!(decimal(attention) * growth);
            }
            for (name, written) in
                [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")]
            {
                if let Some(turns) = number(name)? {
                    scaling[written] = json!(decimal(turns));
                }
            }
            scaling
        }
        Some(other) => return Err(GgufError::metadata(type_key, "none, linear or yarn", other)),
    };
    Ok(scaling)
}

fn is_one(number: f64) -> bool {
    (number - 1.0).abs() < f64::EPSILON
}

/// Returns the shortest decimal that a 32-bit number represents.
fn decimal(value: f64) -> f64 {
    (value as f32).to_string().parse().expect("the text of a number is a number")
}

/// Parameters of Llama 3's scaling. See `RopeScaling::Llama3` of the policy.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Llama3 {
    factor: f64,
    low: f64,
    high: f64,
    original: f64,
}

impl Llama3 {
    /// Finds parameters that reproduce the divisors.
    fn of_factors(factors: &[f64], base: f64) -> Option<Self> {
        let width = 2.0 * factors.len() as f64;
        let wavelengths: Vec<f64> =
            (0..factors.len()).map(|pair| TAU * base.powf(2.0 * pair as f64 / width)).collect();
        let factor = factors.iter().copied().fold(1.0, f64::max);
        // The divisor between both ends is 1 / ((1 - s) / factor + s) with s = (original / wavelength - low) /
        // (high - low), so each such pair gives one linear equation in `original`.
        let between: Vec<(f64, f64)> = factors
            .iter()
            .zip(&wavelengths)
            .filter(|(divisor, _)| **divisor > 1.0 && **divisor < factor)
            .map(|(divisor, wavelength)| {
                ((1.0 / divisor - 1.0 / factor) / (1.0 - 1.0 / factor), *wavelength)
            })
            .collect();
        let mut candidates = Vec::new();
        if let Some((kept, wavelength)) = between.last() {
            candidates.push((HIGH, wavelength * (kept * (HIGH - LOW) + LOW)));
        }
        if let [(kept, wavelength), .., (last_kept, last_wavelength)] = between[..] {
            // Two equations, in the original length and the width of the ramp.
            let ramp =
                (last_wavelength - wavelength) / (kept * wavelength - last_kept * last_wavelength);
            candidates.push((LOW + ramp, wavelength * (kept * ramp + LOW)));
        }
        if between.is_empty() {
            candidates.extend((0..31).map(|power| (HIGH, f64::from(1_u32 << power))));
        }
        let rounded = |(high, original): (f64, f64)| Self {
            factor,
            low: LOW,
            high: (high * 1e3).round() / 1e3,
            original: original.round(),
        };
        let reproduces = |parameters: &Self| {
            parameters.high > parameters.low
                && parameters.original >= 1.0
                && factors.iter().zip(&wavelengths).all(|(divisor, wavelength)| {
                    (parameters.divisor(*wavelength) / divisor - 1.0).abs() < TOLERANCE
                })
        };
        candidates.into_iter().map(rounded).find(reproduces)
    }

    /// Computes the divisor of a frequency.
    fn divisor(&self, wavelength: f64) -> f64 {
        let turns = self.original / wavelength;
        if turns > self.high {
            1.0
        } else if turns < self.low {
            self.factor
        } else {
            let kept = (turns - self.low) / (self.high - self.low);
            1.0 / ((1.0 - kept) / self.factor + kept)
        }
    }

    fn json(&self) -> Json {
        json!({
            "rope_type": "llama3", "factor": self.factor, "low_freq_factor": self.low,
            "high_freq_factor": self.high, "original_max_position_embeddings": self.original as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divisors(parameters: Llama3, base: f64, pairs: usize) -> Vec<f64> {
        let width = 2.0 * pairs as f64;
        let wavelength = |pair: usize| TAU * base.powf(2.0 * pair as f64 / width);
        (0..pairs).map(|pair| f64::from(parameters.divisor(wavelength(pair)) as f32)).collect()
    }

    #[test]
    fn parameters_are_found_from_divisors() {
        // Llama 3.1, 3.2, a tiny model, and other ends of the ramp.
        for (factor, high, original, base, pairs) in [
            (8.0, 4.0, 8192.0, 500_000.0, 64),
            (32.0, 4.0, 8192.0, 500_000.0, 32),
            (8.0, 4.0, 32.0, 500.0, 8),
            (2.0, 4.0, 131_072.0, 500_000.0, 64),
            (16.0, 6.5, 4096.0, 10_000.0, 64),
            (8.0, 4.0, 64.0, 1e6, 4),
        ] {
            let parameters = Llama3 { factor, low: 1.0, high, original };
            let divisors = divisors(parameters, base, pairs);
            let found = Llama3::of_factors(&divisors, base).unwrap();
            for (pair, divisor) in divisors.iter().enumerate() {
                let wavelength = TAU * base.powf(pair as f64 / pairs as f64);
                assert!(
                    (found.divisor(wavelength) / divisor - 1.0).abs() < 1e-6,
                    "{parameters:?}, {found:?}"
                );
            }
            if pairs > 8 {
                assert_eq!(found, parameters);
            }
        }
        // LongRoPE's divisors grow in another way.
        assert_eq!(Llama3::of_factors(&[1.0, 1.1, 5.0, 1.2, 30.0], 1e4), None);
    }
}
