//! The treatment of every key of tokenizer_config.json and of tokenizer.json. A key is read, or changes nothing, or
//! must have a neutral value. A key in none of the lists is refused: it may make other tokens.
//!
//! The lists describe the tokenizers of transformers 5.24, called as `apply_chat_template` calls them: without added
//! special tokens, padding and truncation.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::TokenError;

/// Keys of tokenizer_config.json that are read, besides those that end with `_token`.
const READ: &[&str] = &[
    "add_prefix_space",
    "added_tokens_decoder",
    "additional_special_tokens",
    "chat_template",
    "extra_special_tokens",
    "legacy",
    "model_specific_special_tokens",
    "tokenizer_class",
];

/// Keys of tokenizer_config.json that change nothing, after the reason.
const IGNORED: &[(&str, &[&str])] = &[
    (
        "the post-processor of tokenizer.json decides, and prompts are encoded without it",
        &["add_bos_token", "add_eos_token"],
    ),
    (
        "they are for batches that are padded or cut; prompts are not",
        &[
            "max_len",
            "max_length",
            "model_input_names",
            "model_max_length",
            "pad_to_multiple_of",
            "pad_token_type_id",
            "padding",
            "padding_side",
            "return_attention_mask",
            "return_token_type_ids",
            "stride",
            "truncation",
            "truncation_side",
            "truncation_strategy",
        ],
    ),
    (
        "they say where files come from, or how they were loaded",
        &[
            "_commit_hash",
            "_from_auto",
            "added_tokens_file",
            "backend",
            "device_map",
            "dtype",
            "fast",
            "files_loaded",
            "from_slow",
            "is_local",
            "local_files_only",
            "merges_file",
            "name_or_path",
            "processor_class",
            "revision",
            "special_tokens_map_file",
            "tokenizer_file",
            "torch_dtype",
            "transformers_version",
            "trust_remote_code",
            "unsloth_version",
            "use_fast",
            "verbose",
            "vocab_file",
            "vocab_size",
        ],
    ),
    (
        "only tokenizers without tokenizer.json read them",
        &[
            "do_lower_case",
            "errors",
            "sp_model_kwargs",
            "spaces_between_special_tokens",
            "strip_accents",
            "tokenize_chinese_chars",
            "trim_offsets",
            "use_default_system_prompt",
        ],
    ),
    (
        "ids are looked up by the tokens' texts",
        &["bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id"],
    ),
    (
        "they describe answers, or contents that are sanitised on request",
        &["chat_control_tokens", "response_schema", "response_template"],
    ),
];

/// Keys at the top level of tokenizer.json. `truncation`, `padding` and `post_processor` are not applied to prompts.
const FILE_KEYS: &[&str] = &[
    "added_tokens",
    "decoder",
    "model",
    "normalizer",
    "padding",
    "post_processor",
    "pre_tokenizer",
    "truncation",
    "version",
];

/// Keys of `model` in tokenizer.json, of all kinds of models.
const MODEL_KEYS: &[&str] = &[
    "byte_fallback",
    "continuing_subword_prefix",
    "dropout",
    "end_of_word_suffix",
    "fuse_unk",
    "ignore_merges",
    "max_input_chars_per_word",
    "merges",
    "type",
    "unk_id",
    "unk_token",
    "vocab",
];

/// Refuses a tokenizer_config.json with a key that may change the tokens. `is_bpe` tells if the model of
/// tokenizer.json is BPE.
pub(super) fn check_config(
    path: &Path,
    config: &Map<String, Value>,
    is_bpe: bool,
) -> Result<(), TokenError> {
    for (key, value) in config.iter().filter(|(_, value)| !value.is_null()) {
        let is_ignored = IGNORED.iter().any(|(_, keys)| keys.contains(&key.as_str()));
        if READ.contains(&key.as_str()) || is_ignored || key.ends_with("_token") {
            continue;
        }
        match neutral(key, value, is_bpe) {
            Some((true, _)) => {}
            Some((false, accepted)) => return Err(refuse(path, key, value, accepted)),
            None => {
                return Err(refuse(
                    path,
                    key,
                    value,
                    "no such key (it may change the tokens), or null",
                ));
            }
        }
    }
    Ok(())
}

/// Compares the value of a key with the neutral one, which is also returned as text. Returns `None` for a key that
/// must not exist.
fn neutral(key: &str, value: &Value, is_bpe: bool) -> Option<(bool, &'static str)> {
    Some(match key {
        "auto_map" => {
            let names_class = value.is_array() || value.get("AutoTokenizer").is_some();
            (!names_class, "no AutoTokenizer (the repository's own code is not run)")
        }
        "clean_up_tokenization_spaces" => {
            (is_bpe || value == &json!(false), "false (for models other than BPE)")
        }
        "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
        | "fix_mistral_regex"
        | "split_special_tokens" => (value == &json!(false), "false"),
        "init_inputs" => (value == &json!([]), "[]"),
        _ => return None,
    })
}

/// Refuses a tokenizer.json with a key that the library would skip, or whose encoding is random.
pub(super) fn check_file(path: &Path, file: &Map<String, Value>) -> Result<(), TokenError> {
    let unknown = file.iter().find(|(key, _)| !FILE_KEYS.contains(&key.as_str()));
    if let Some((key, value)) = unknown {
        return Err(refuse(path, key, value, &FILE_KEYS.join(", ")));
    }
    let Some(model) = file.get("model").and_then(Value::as_object) else { return Ok(()) };
    let unknown = model.iter().find(|(key, _)| !MODEL_KEYS.contains(&key.as_str()));
    if let Some((key, value)) = unknown {
        return Err(refuse(path, &format!("model.{key}"), value, &MODEL_KEYS.join(", ")));
    }
    match model.get("dropout") {
        None | Some(Value::Null) => Ok(()),
        Some(value) if value.as_f64() == Some(0.0) => Ok(()),
        Some(value) => Err(refuse(path, "model.dropout", value, "null (tokens would be random)")),
    }
}

/// Creates the error that refuses the value of a key.
pub(super) fn refuse(path: &Path, key: &str, value: &Value, accepted: &str) -> TokenError {
    const SHOWN_CHARS_MAX: usize = 80;
    let mut shown: String = value.to_string();
    if let Some((cut, _)) = shown.char_indices().nth(SHOWN_CHARS_MAX) {
        shown.truncate(cut);
        shown.push('…');
    }
    let reason = format!("{key} = {shown} is not supported; accepted: {accepted}");
    TokenError::File { path: path.to_path_buf(), reason }
}

/// Returns `true` if a key of tokenizer_config.json is in one of the lists.
#[cfg(test)]
pub(super) fn is_known(key: &str) -> bool {
    READ.contains(&key)
        || key.ends_with("_token")
        || IGNORED.iter().any(|(_, keys)| keys.contains(&key))
        || neutral(key, &Value::Null, true).is_some()
}
