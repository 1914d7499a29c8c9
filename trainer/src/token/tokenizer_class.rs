//! The tokenizer class of transformers that a folder means, and what it makes of tokenizer.json. Most classes use the
//! file as it is. Three take only vocabulary, merges and added tokens from it and split text in their own way.
//!
//! Owns the rules of `AutoTokenizer` of transformers 5.24 for the supported families.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::TokenError;
use super::known_keys::refuse;

/// A class, by its effect on tokenizer.json.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenizerClass {
    /// `TokenizersBackend`, formerly `PreTrainedTokenizerFast`: the file as it is.
    File,
    Gpt2,
    Llama,
    Qwen2,
}

/// The expression by which Qwen2's class splits text.
pub(crate) const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const CLASS_KEY: &str = "tokenizer_class";

impl TokenizerClass {
    /// Finds the class for a model of type `model_type` with the class that tokenizer_config.json, or else config.json,
    /// names. `is_byte_level` tells if tokenizer.json has a part of that name.
    pub(super) fn find(
        path: &Path,
        model_type: Option<&str>,
        named: Option<&Value>,
        is_byte_level: bool,
    ) -> Result<Self, TokenError> {
        // For these two, the type of the model decides.
        match model_type {
            Some("mistral") => return Ok(Self::File),
            Some("qwen2") => return Ok(Self::Qwen2),
            _ => {}
        }
        let Some(named) = named.filter(|named| !named.is_null()) else {
            return Ok(if model_type == Some("qwen3") { Self::Qwen2 } else { Self::File });
        };
        let name = named.as_str().unwrap_or_default();
        match name.strip_suffix("Fast").unwrap_or(name) {
            "PreTrainedTokenizer" | "PythonBackend" | "TokenizersBackend" => Ok(Self::File),
            "GPT2Tokenizer" => Ok(Self::Gpt2),
            "LlamaTokenizer" if is_byte_level => Ok(Self::File),
            "LlamaTokenizer" => Ok(Self::Llama),
            "Qwen2Tokenizer" => Ok(Self::Qwen2),
            _ => Err(refuse(
                path,
                CLASS_KEY,
                named,
                "PreTrainedTokenizerFast, TokenizersBackend, GPT2Tokenizer, LlamaTokenizer or Qwen2Tokenizer",
            )),
        }
    }

    /// Returns the text of a special token that the class has although no file names it.
    pub(super) fn default_token(self, key: &str) -> Option<&'static str> {
        match (self, key) {
            (Self::Gpt2, "bos_token" | "eos_token" | "unk_token")
            | (Self::Qwen2, "eos_token" | "pad_token" | "unk_token") => Some("<|endoftext|>"),
            (Self::Llama, "bos_token") => Some("<s>"),
            (Self::Llama, "eos_token") => Some("</s>"),
            (Self::Llama, "unk_token") => Some("<unk>"),
            _ => None,
        }
    }

    /// Returns tokenizer.json as the class builds it, without added tokens. `config` is tokenizer_config.json.
    pub(super) fn rebuild(
        self,
        path: &Path,
        file: &Map<String, Value>,
        config: &Map<String, Value>,
    ) -> Result<Value, TokenError> {
        let model = &file.get("model").cloned().unwrap_or_default();
        if !is_bpe(file) {
            let kind = &model["type"];
            return Err(refuse(path, "model.type", kind, "BPE (the tokenizer class requires it)"));
        }
        let flag = |key: &str| config.get(key).filter(|value| !value.is_null()).map(truthy);
        let prefix_space = flag("add_prefix_space");
        let byte_level = |prefix: bool, expression: bool| {
            json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true,
                   "use_regex": expression})
        };
        let (normalizer, pre_tokenizer, decoder) = match self {
            Self::File => return Ok(Value::Object(file.clone())),
            Self::Gpt2 => (
                Value::Null,
                byte_level(prefix_space.unwrap_or(false), true),
                byte_level(true, true),
            ),
            Self::Qwen2 => (
                json!({"type": "NFC"}),
                json!({"type": "Sequence", "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": QWEN2_SPLIT}, "behavior": "Isolated",
                     "invert": false},
                    byte_level(prefix_space.unwrap_or(false), false),
                ]}),
                byte_level(true, true),
            ),
            Self::Llama => llama(prefix_space.unwrap_or(true), flag("legacy").unwrap_or(false)),
        };
        let is_llama = self == Self::Llama;
        Ok(json!({
            "version": "1.0",
            "added_tokens": [],
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer,
            "decoder": decoder,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": is_llama,
                "byte_fallback": is_llama, "ignore_merges": false,
                "vocab": model["vocab"], "merges": model["merges"],
            },
        }))
    }
}

/// Returns the normalizer, the pre-tokenizer and the decoder of Llama 2.
fn llama(prefix_space: bool, legacy: bool) -> (Value, Value, Value) {
    let scheme = match (prefix_space, legacy) {
        (false, _) => "never",
        (true, true) => "always",
        (true, false) => "first",
    };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix_space {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let pre_tokenizer = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme,
                               "split": false});
    (Value::Null, pre_tokenizer, json!({"type": "Sequence", "decoders": decoders}))
}

/// Returns `true` if the model of tokenizer.json is BPE. The oldest files do not name the type.
pub(super) fn is_bpe(file: &Map<String, Value>) -> bool {
    let model = file.get("model");
    match model.and_then(|model| model.get("type")).and_then(Value::as_str) {
        Some(kind) => kind == "BPE",
        None => model.is_some_and(|model| model.get("merges").is_some()),
    }
}

/// Returns Python's truth of a value.
fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
    }
}
