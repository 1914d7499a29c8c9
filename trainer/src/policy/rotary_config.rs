//! The keys of `config.json` for rotary embeddings: `rope_parameters` in transformers 5, `rope_theta` and
//! `rope_scaling` in earlier versions.

use super::config_keys::{Keys, ModelConfigError};
use super::rotary::{Rope, RopeScaling};

const TYPES: [&str; 4] = ["default", "linear", "llama3", "yarn"];
/// Default numbers of turns at which YaRN's ramp ends and begins (arXiv 2309.00071, section 3.2).
const YARN_BETA_FAST: f64 = 32.0;
const YARN_BETA_SLOW: f64 = 1.0;

/// Keys of the dictionary that transformers reads for some type. It ignores those of other types than its own.
const DESCRIBED: [&str; 14] = [
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "factor",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
];

/// Reads the rotary embeddings. Missing keys default to the family's base `theta` and the model's longest context
/// `positions`.
pub(super) fn read(keys: &Keys<'_>, theta: f64, positions: f64) -> Result<Rope, ModelConfigError> {
    let theta = keys.optional_positive("rope_theta")?.unwrap_or(theta);
    // The older key replaces the newer one, unless it is empty.
    let older = keys.object("rope_scaling", "rope_scaling.")?;
    let described = match older.filter(|described| !described.is_empty()) {
        Some(described) => Some(described),
        None => keys.object("rope_parameters", "rope_parameters.")?,
    };
    let Some(described) = described else {
        return Ok(Rope { theta, scaling: RopeScaling::Default });
    };
    // The oldest files call the key `type`.
    let key = if described.value("rope_type").is_some() { "rope_type" } else { "type" };
    let kind = described.optional_text(key)?.unwrap_or("default");
    // Another type has other keys, so the type is named first.
    if !TYPES.contains(&kind) {
        return Err(described.refuse(key, "default, linear, llama3 or yarn"));
    }
    if let Some(unknown) = described.names().find(|name| !DESCRIBED.contains(name)) {
        return Err(described.refuse(unknown, &DESCRIBED.join(", ")));
    }
    let theta = described.optional_positive("rope_theta")?.unwrap_or(theta);
    let partial = "partial_rotary_factor";
    if described.value(partial).is_some_and(|value| value.as_f64() != Some(1.0)) {
        return Err(described.refuse(partial, "1"));
    }
    // A length at the top level overrides the dictionary's.
    let length = "original_max_position_embeddings";
    let original = match keys.optional_positive(length)? {
        Some(original) => original,
        None => described.optional_positive(length)?.unwrap_or(positions),
    };
    let scaling = match kind {
        "linear" => RopeScaling::Linear { factor: described.positive("factor")? },
        "llama3" => llama3(&described, original)?,
        "yarn" => yarn(&described, original, positions)?,
        _ => RopeScaling::Default,
    };
    Ok(Rope { theta, scaling })
}

fn llama3(keys: &Keys<'_>, original: f64) -> Result<RopeScaling, ModelConfigError> {
    let low_frequency_factor = keys.positive("low_freq_factor")?;
    let high_frequency_factor = keys.positive("high_freq_factor")?;
    if high_frequency_factor <= low_frequency_factor {
        return Err(keys.refuse("high_freq_factor", "a number above low_freq_factor"));
    }
    Ok(RopeScaling::Llama3 {
        factor: keys.positive("factor")?,
        low_frequency_factor,
        high_frequency_factor,
        original_positions: original,
    })
}

fn yarn(keys: &Keys<'_>, original: f64, positions: f64) -> Result<RopeScaling, ModelConfigError> {
    let factor = match keys.optional_positive("factor")? {
        Some(factor) => factor,
        // A factor of null is computed from the lengths; without the key, transformers refuses the file.
        None if keys.contains("factor") => positions / original,
        None => keys.positive("factor")?,
    };
    // Section 3.4 of the paper: queries and keys grow by 0.1 ln(factor) + 1.
    let growth = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    let scales = (keys.optional_positive("mscale")?, keys.optional_positive("mscale_all_dim")?);
    let attention_factor = match (keys.optional_positive("attention_factor")?, scales) {
        (Some(given), _) => given,
        (None, (Some(scale), Some(all_dim))) => growth(scale) / growth(all_dim),
        (None, _) => growth(1.0),
    };
    let beta_fast = keys.optional_positive("beta_fast")?.unwrap_or(YARN_BETA_FAST);
    let beta_slow = keys.optional_positive("beta_slow")?.unwrap_or(YARN_BETA_SLOW);
    if beta_fast < beta_slow {
        return Err(keys.refuse("beta_fast", "a number of at least beta_slow"));
    }
    Ok(RopeScaling::Yarn {
        factor,
        attention_factor,
        beta_fast,
        beta_slow,
        original_positions: original,
        truncate: keys.flag("truncate", true)?,
    })
}
