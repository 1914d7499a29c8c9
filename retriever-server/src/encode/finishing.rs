//! The part of a vector's path behind the model: the steps that its graph leaves to this program, and the
//! lengths that it fixes.

use std::path::Path;

use tracing::warn;

use super::EncodeError;
use super::modules::Module;
use super::settings::{EncoderSettings, ModuleSettings, TokenLimit};

/// Opens the steps for vectors of `pooled` numbers, and returns them with the dimension of their result.
///
/// A graph whose output is finished computes the steps itself, so that the dimension of its output is that
/// of their result. If it is not, but the steps take it, the graph only pools.
pub(super) fn steps(
    settings: &EncoderSettings,
    pooled: usize,
    is_finished: bool,
) -> Result<(Vec<Module>, usize), EncodeError> {
    let modules =
        settings.modules.iter().map(Module::open).collect::<Result<Vec<_>, EncodeError>>()?;
    let result = modules.iter().rev().find_map(Module::dimensions).map(|[_, outputs]| outputs);
    if is_finished && result.is_none_or(|result| result == pooled) {
        // Scaling to length 1 once more changes nothing.
        let ends = settings.modules.last() == Some(&ModuleSettings::Normalize);
        return Ok((ends.then_some(Module::Normalize).into_iter().collect(), pooled));
    }
    let mut dimension = pooled;
    for (module, settings_of_module) in modules.iter().zip(&settings.modules) {
        let Some([expected, outputs]) = module.dimensions() else { continue };
        if expected != dimension {
            let weights = settings_of_module.weights().unwrap_or(Path::new(""));
            let (step, path) = (weights.display().to_string(), settings.model.clone());
            return Err(EncodeError::Dimension { step, path, found: dimension, expected });
        }
        dimension = outputs;
    }
    Ok((modules, dimension))
}

/// Returns the number of components to keep of `full`.
pub(super) fn kept(settings: &EncoderSettings, full: usize) -> usize {
    let kept = settings.dimension.unwrap_or(full);
    if kept > full {
        warn!("the dimension {kept} has no effect, as vectors have {full} numbers");
    }
    kept.min(full)
}

/// Returns the most tokens of a text for a graph with rows of `row_tokens`, if it fixes them. A length
/// that the user states must not be over them; another is lowered.
pub(super) fn fixed_length(
    key: &'static str,
    limit: TokenLimit,
    row_tokens: Option<usize>,
    model: &Path,
) -> Result<usize, EncodeError> {
    let TokenLimit { tokens, is_stated } = limit;
    match row_tokens {
        Some(limit) if tokens > limit && is_stated => {
            Err(EncodeError::FixedLength { key, tokens, limit, path: model.to_owned() })
        }
        Some(limit) if tokens > limit => {
            warn!(
                model = %model.display(),
                "texts are cut at {limit} tokens, the fixed length of the graph, instead of {tokens}"
            );
            Ok(limit)
        }
        _ => Ok(tokens),
    }
}
