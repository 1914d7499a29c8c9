//! Reads the files of a tokenizer and makes of them the tokenizer that transformers makes.

use std::path::Path;

use serde_json::{Map, Value};

use super::TokenError;
use super::added_tokens::{NamedTokens, TokenizerFiles};
use super::known_keys;
use super::tokenizer_class::{TokenizerClass, is_bpe};

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// A tokenizer with the tokens that its files name.
pub(super) struct ReadTokenizer {
    pub(super) tokenizer: tokenizers::Tokenizer,
    pub(super) named: NamedTokens,
    pub(super) files: TokenizerFiles,
}

/// Reads the tokenizer of `folder` for the model of the folder `model`. Text is neither cut nor padded, whatever
/// tokenizer.json says: transformers does both only on request.
pub(super) fn read(folder: &Path, model: &Path) -> Result<ReadTokenizer, TokenError> {
    let path = folder.join(TOKENIZER);
    let wrong = |reason: String| TokenError::File { path: path.clone(), reason };
    let bytes = std::fs::read(&path).map_err(|error| {
        wrong(format!("{error}; a model folder has {TOKENIZER} next to config.json"))
    })?;
    let tokenizer: Map<String, Value> =
        serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    let object = |file: &str| read_json(folder, file).map(Option::unwrap_or_default);
    let files = TokenizerFiles {
        tokenizer,
        config: object(TOKENIZER_CONFIG)?,
        special_tokens_map: object("special_tokens_map.json")?,
        added_tokens: object("added_tokens.json")?,
    };
    known_keys::check_file(&path, &files.tokenizer)?;
    let config_path = folder.join(TOKENIZER_CONFIG);
    known_keys::check_config(&config_path, &files.config, is_bpe(&files.tokenizer))?;

    // An adapter's folder has no config.json of its own.
    let model_config = match read_json(folder, "config.json")? {
        Some(config) => config,
        None => read_json(model, "config.json")?.unwrap_or_default(),
    };
    let named_class = [&files.config, &model_config]
        .into_iter()
        .find_map(|values| values.get("tokenizer_class").filter(|class| !class.is_null()));
    let model_type = model_config.get("model_type").and_then(Value::as_str);
    let is_byte_level = bytes.windows(11).any(|window| window == b"\"ByteLevel\"");
    let class = TokenizerClass::find(&config_path, model_type, named_class, is_byte_level)?;

    let built = if class == TokenizerClass::File {
        tokenizers::Tokenizer::from_bytes(&bytes)
    } else {
        let rebuilt = class.rebuild(&path, &files.tokenizer, &files.config)?;
        tokenizers::Tokenizer::from_bytes(rebuilt.to_string().as_bytes())
    };
    let mut tokenizer = built.map_err(|error| wrong(error.to_string()))?;
    tokenizer.with_truncation(None).map_err(|error| wrong(error.to_string()))?;
    tokenizer.with_padding(None);
    let named = NamedTokens::collect(folder, &files, class)?;
    named.add_to(&mut tokenizer, class).map_err(wrong)?;
    Ok(ReadTokenizer { tokenizer, named, files })
}

/// Reads a JSON object. Returns `None` if the file is absent: all files but tokenizer.json are optional.
pub(super) fn read_json(
    folder: &Path,
    file: &str,
) -> Result<Option<Map<String, Value>>, TokenError> {
    let path = folder.join(file);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| TokenError::File { path, reason: error.to_string() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TokenError::File { path, reason: error.to_string() }),
    }
}
