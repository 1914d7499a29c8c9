//! The token ids that end a generation. As in transformers, generation_config.json decides alone, and config.json
//! only if that file is absent; the tokenizer's own `eos_token` ends nothing. It counts only in a folder that has
//! neither file.

use std::path::Path;

use serde_json::Value;

use super::TokenError;
use super::tokenizer_files::read_json;

const KEY: &str = "eos_token_id";

/// Reads the ids for the model of the folder `model`. `tokenizer_eos` is the id and text of the tokenizer's
/// `eos_token`. It comes first if it is among them.
pub(super) fn read(
    model: &Path,
    tokenizer_eos: Option<(u32, &str)>,
) -> Result<Vec<u32>, TokenError> {
    let (generation, config) = ("generation_config.json", "config.json");
    let (file, mut ids) = if let Some(values) = read_json(model, generation)? {
        (generation, ids(model, generation, values.get(KEY))?)
    } else if let Some(values) = read_json(model, config)? {
        let default = class_default(values.get("model_type")).map(Value::from);
        (config, ids(model, config, values.get(KEY).or(default.as_ref()))?)
    } else {
        ("", tokenizer_eos.iter().map(|(id, _)| *id).collect())
    };
    if ids.is_empty() {
        let reason = if file.is_empty() {
            "no end-of-sequence token: set eos_token in tokenizer_config.json or eos_token_id in \
             generation_config.json"
        } else {
            "no end-of-sequence token: eos_token_id is missing, so a generation would never end; set it in \
             generation_config.json"
        };
        return Err(TokenError::File { path: model.join(file), reason: reason.to_owned() });
    }
    if let Some((id, text)) = tokenizer_eos {
        if let Some(position) = ids.iter().position(|end| *end == id) {
            ids[..=position].rotate_right(1);
        } else {
            tracing::warn!(
                eos_token = text,
                file,
                ?ids,
                "the tokenizer's eos_token does not end a generation, because the file names other ids"
            );
        }
    }
    Ok(ids)
}

/// Returns the id that the configuration class of a family has without the key.
fn class_default(model_type: Option<&Value>) -> Option<u32> {
    match model_type.and_then(Value::as_str) {
        Some("llama" | "mistral") => Some(2),
        Some("smollm3") => Some(128_001),
        _ => None,
    }
}

fn ids(folder: &Path, file: &str, value: Option<&Value>) -> Result<Vec<u32>, TokenError> {
    let listed = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(listed)) => listed.as_slice(),
        Some(single) => std::slice::from_ref(single),
    };
    let mut ids = Vec::new();
    for id in listed {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
            let value = value.expect("a list or a single id");
            let reason = format!("{KEY} is {value}; a token id or a list of them is accepted");
            TokenError::File { path: folder.join(file), reason }
        })?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}
