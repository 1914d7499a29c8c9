//! Reads the files next to tokenizer.json: end-of-sequence ids and chat template.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::{ChatDate, ChatTemplate, TokenError};

/// End-of-sequence ids and chat template of a model folder.
pub(super) struct SpecialTokens {
    pub(super) end_ids: Vec<u32>,
    pub(super) chat_template: Option<ChatTemplate>,
}

const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Keys of that file for the tokens that templates may name.
const TOKEN_KEYS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Reads the special tokens of `folder`. The end ids are the union over three files: instruction-tuned models
/// often name the end-of-turn token in one of them and the end-of-text token in another. From `model`, the
/// folder of the weights, only generation_config.json and config.json are read.
pub(super) fn read(
    folder: &Path,
    model: &Path,
    tokenizer: &tokenizers::Tokenizer,
    today: ChatDate,
) -> Result<SpecialTokens, TokenError> {
    let tokenizer_config = read_json(folder, TOKENIZER_CONFIG)?;
    let mut end_ids = Vec::new();
    let end_text = token_text(&tokenizer_config, "eos_token");
    if let Some(text) = &end_text {
        let id = tokenizer.token_to_id(text).ok_or_else(|| TokenError::File {
            path: folder.join(TOKENIZER_CONFIG),
            reason: format!("eos_token {text:?} is not in the vocabulary of tokenizer.json"),
        })?;
        end_ids.push(id);
    }
    for folder in [folder, model] {
        for file in ["generation_config.json", "config.json"] {
            let config = read_json(folder, file)?;
            for id in ids(folder, file, &config["eos_token_id"])? {
                if !end_ids.contains(&id) {
                    end_ids.push(id);
                }
            }
        }
    }
    if end_ids.is_empty() {
        return Err(TokenError::File {
            path: folder.to_path_buf(),
            reason: "no end-of-sequence token: set eos_token in tokenizer_config.json or \
                     eos_token_id in generation_config.json"
                .to_owned(),
        });
    }
    let chat_template = match template_source(folder, &tokenizer_config)? {
        Some(source) => {
            let named = |key: &str| Some((key.to_owned(), token_text(&tokenizer_config, key)?));
            let tokens: BTreeMap<String, String> =
                TOKEN_KEYS.into_iter().filter_map(named).collect();
            Some(ChatTemplate::new(&source, tokens, today)?)
        }
        None => None,
    };
    Ok(SpecialTokens { end_ids, chat_template })
}

/// Reads a JSON file. Returns `Value::Null` if it is absent: all of these files are optional.
fn read_json(folder: &Path, file: &str) -> Result<Value, TokenError> {
    let path = folder.join(file);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| TokenError::File { path, reason: error.to_string() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(error) => Err(TokenError::File { path, reason: error.to_string() }),
    }
}

/// Returns the text of a token, which is a string or an object with the string in `content`.
fn token_text(config: &Value, key: &str) -> Option<String> {
    let token = &config[key];
    token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
}

fn ids(folder: &Path, file: &str, value: &Value) -> Result<Vec<u32>, TokenError> {
    let listed = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(listed) => listed.as_slice(),
        single => std::slice::from_ref(single),
    };
    listed
        .iter()
        .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()))
        .collect::<Option<Vec<u32>>>()
        .ok_or_else(|| TokenError::File {
            path: folder.join(file),
            reason: format!("eos_token_id is {value}; a token id or a list of them is accepted"),
        })
}

/// Returns the source of the template: a string, an entry in a list of named templates, or, in newer
/// folders, a file.
fn template_source(folder: &Path, tokenizer_config: &Value) -> Result<Option<String>, TokenError> {
    let path = folder.join("chat_template.jinja");
    match std::fs::read_to_string(&path) {
        Ok(source) => return Ok(Some(source)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(TokenError::File { path, reason: error.to_string() }),
    }
    let written = &tokenizer_config["chat_template"];
    let named = || {
        let list = written.as_array()?;
        list.iter().find(|entry| entry["name"] == "default")?["template"].as_str()
    };
    Ok(written.as_str().or_else(named).map(str::to_owned))
}
