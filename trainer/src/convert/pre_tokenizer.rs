//! The splitting of text before BPE, by the name in `tokenizer.ggml.pre`. Owns the names that convert.
//!
//! The expressions are those by which transformers 5.24 reads such files (`GGUF_PRE_TOKENIZER_SPLITS`), except for
//! SmolLM, whose digits its published tokenizer splits one by one. Words that are tokens of their own are taken whole
//! where llama.cpp and the published tokenizers do so (`ignore_merges`).

use serde_json::{Value as Json, json};

use super::error::GgufError;
use super::metadata::Metadata;

const KEY: &str = "tokenizer.ggml.pre";

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A way of splitting text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PreTokenizer {
    /// GPT-2's expression.
    Gpt2,
    /// GPT-2's expression after every digit is split off.
    SmolLm,
    /// Llama 3's expression; `whole_words` is `true` if words in the vocabulary are not merged.
    Llama3 {
        whole_words: bool,
    },
    Qwen2,
    Tekken,
}

/// The names of each way.
static NAMES: [(PreTokenizer, &[&str]); 6] = [
    (PreTokenizer::SmolLm, &["smollm"]),
    (
        PreTokenizer::Llama3 { whole_words: true },
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
    ),
    (PreTokenizer::Llama3 { whole_words: false }, &["smaug-bpe", "dbrx"]),
    (PreTokenizer::Qwen2, &["qwen2", "deepseek-r1-qwen", "megrez", "kormo"]),
    (PreTokenizer::Tekken, &["tekken"]),
    (PreTokenizer::Gpt2, &["gpt-2"]),
];

impl PreTokenizer {
    /// Reads the name. A file without one is refused: it may come from any tokenizer.
    pub(super) fn read(metadata: &Metadata<'_>) -> Result<Self, GgufError> {
        let names: Vec<&str> = NAMES.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let name = metadata.one_of(KEY, &names)?;
        let found = NAMES.iter().find(|(_, names)| names.contains(&name));
        Ok(found.expect("the name is one of the list").0)
    }

    /// Returns `normalizer` of tokenizer.json. The tokenizers of Qwen compose characters and their accents.
    pub(super) fn normalizer(self) -> Json {
        if self == Self::Qwen2 { json!({"type": "NFC"}) } else { Json::Null }
    }

    /// Returns `pre_tokenizer` of tokenizer.json.
    pub(super) fn pre_tokenizer(self) -> Json {
        let byte_level = |use_regex: bool| {
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                   "use_regex": use_regex})
        };
        let sequence = |first: Json, use_regex: bool| json!({"type": "Sequence", "pretokenizers": [first, byte_level(use_regex)]});
        let split = |expression: &str| {
            let split = json!({"type": "Split", "pattern": {"Regex": expression},
                               "behavior": "Isolated", "invert": false});
            sequence(split, false)
        };
        match self {
            Self::Gpt2 => byte_level(true),
            Self::SmolLm => sequence(json!({"type": "Digits", "individual_digits": true}), true),
            Self::Llama3 { .. } => split(LLAMA3),
            Self::Qwen2 => split(QWEN2),
            Self::Tekken => split(TEKKEN),
        }
    }

    /// Returns `true` if a word that is a token is taken whole, whatever the merges make of it.
    pub(super) fn takes_whole_words(self) -> bool {
        matches!(self, Self::Llama3 { whole_words: true } | Self::Tekken)
    }
}
