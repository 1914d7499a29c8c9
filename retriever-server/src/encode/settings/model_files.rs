//! The facts that `config.json` and `tokenizer_config.json` state about a model: the number of its
//! positions, the length to which its texts are cut, and the sides of padding and truncation.

use std::path::Path;

use serde_json::Value;

use super::json::JsonObject;

/// Models whose positions start behind the position of the padding token, as in RoBERTa.
const OFFSET_MODELS: [&str; 12] = [
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "roberta-prelayernorm",
    "mpnet",
    "longformer",
    "data2vec-text",
    "ibert",
    "luke",
    "xmod",
    "phobert",
];
/// Models whose `config.json` calls the number of positions `n_positions`.
const N_POSITIONS_MODELS: [&str; 5] = ["gpt2", "gptj", "openai-gpt", "codegen", "nomic_bert"];
/// Models that know only the distance of tokens, so they have no last position.
const RELATIVE_MODELS: [&str; 2] = ["deberta", "deberta-v2"];
/// Tokenizers that `transformers` builds from the vocabulary and from the flags in
/// `tokenizer_config.json`, whatever normalizer `tokenizer.json` has.
const BERT_TOKENIZERS: [&str; 6] =
    ["Bert", "DistilBert", "Electra", "MobileBert", "MPNet", "LayoutLM"];
/// From this value on, `model_max_length` stands for no limit. `transformers` writes 1e30.
const NO_LIMIT: f64 = 1e9;

/// The number of tokens that a model has positions for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    /// The most tokens of a text.
    pub usable: usize,
    /// The number in `config.json`.
    pub stated: usize,
}

impl Positions {
    /// Returns the position of the first token.
    pub(in crate::encode) fn first(self) -> i64 {
        (self.stated - self.usable) as i64
    }
}

/// The flags of a BERT tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BertNormalization {
    /// `true` to change letters to lower case.
    pub lowercase: bool,
    /// `true` to remove accents; `None` to do so with lower case only.
    pub strip_accents: Option<bool>,
    /// `true` to treat each Chinese character as a word.
    pub chinese_words: bool,
}

/// The facts of the two files. A missing file states nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::encode) struct ModelFiles {
    pub(in crate::encode) positions: Option<Positions>,
    /// The most tokens of a text according to the tokenizer.
    pub(in crate::encode) max_tokens: Option<usize>,
    pub(in crate::encode) pads_left: Option<bool>,
    pub(in crate::encode) cuts_left: Option<bool>,
    pub(in crate::encode) padding: Option<String>,
    pub(in crate::encode) bert: Option<BertNormalization>,
    /// `true` if the file asks for a token at the end of each text.
    pub(in crate::encode) adds_end: bool,
}

impl ModelFiles {
    /// Reads the files in `folder`.
    pub(in crate::encode) fn read(folder: &Path, faults: &mut Vec<String>) -> Self {
        let mut files = Self::default();
        if let Some(mut config) = JsonObject::read(folder, "config.json", faults) {
            files.positions = positions(&mut config);
        }
        if let Some(mut config) = JsonObject::read(folder, "tokenizer_config.json", faults) {
            files.read_tokenizer(&mut config);
        }
        files
    }

    fn read_tokenizer(&mut self, config: &mut JsonObject<'_>) {
        let limit = config.take("model_max_length", "a positive number", |value| {
            value.as_f64().filter(|&limit| limit >= 1.0)
        });
        self.max_tokens = limit.filter(|&limit| limit < NO_LIMIT).map(|limit| limit as usize);
        self.pads_left = is_left(config, "padding_side");
        self.cuts_left = is_left(config, "truncation_side");
        self.padding = token(config, "pad_token");
        self.adds_end = config.get("add_eos_token").and_then(Value::as_bool).unwrap_or(false);
        let class = config.text("tokenizer_class").unwrap_or_default();
        let name = class.strip_suffix("Fast").unwrap_or(&class).strip_suffix("Tokenizer");
        if name.is_some_and(|name| BERT_TOKENIZERS.contains(&name)) {
            self.bert = Some(BertNormalization {
                lowercase: config.flag("do_lower_case").unwrap_or(true),
                strip_accents: config.flag("strip_accents"),
                chinese_words: config.flag("tokenize_chinese_chars").unwrap_or(true),
            });
        }
    }
}

/// Reads the number of positions from `config.json`.
fn positions(config: &mut JsonObject<'_>) -> Option<Positions> {
    let kind = config.text("model_type").unwrap_or_default();
    let is_of = |kinds: &[&str]| kinds.contains(&kind.as_str());
    let is_absolute = config.get("position_biased_input").and_then(Value::as_bool);
    if is_of(&RELATIVE_MODELS) && is_absolute == Some(false) {
        return None;
    }
    let key = if is_of(&N_POSITIONS_MODELS) && !config.has("max_position_embeddings") {
        "n_positions"
    } else {
        "max_position_embeddings"
    };
    // XLNet has no last position and states -1.
    let stated = config.take(key, "an integer", Value::as_i64)?;
    let stated = usize::try_from(stated).ok().filter(|&stated| stated > 0)?;
    let offset = if is_of(&OFFSET_MODELS) {
        let padding = config.get("pad_token_id").and_then(Value::as_u64).unwrap_or(1);
        usize::try_from(padding).map_or(usize::MAX, |padding| padding.saturating_add(1))
    } else {
        0
    };
    Some(Positions { usable: stated.saturating_sub(offset).max(1), stated })
}

fn is_left(config: &mut JsonObject<'_>, key: &str) -> Option<bool> {
    config.take(key, r#""left" or "right""#, |value| match value.as_str()? {
        "left" => Some(true),
        "right" => Some(false),
        _ => None,
    })
}

/// Reads a token, which the file states as text or as an object with its text as `content`.
fn token(config: &mut JsonObject<'_>, key: &str) -> Option<String> {
    config.take(key, "a token", |value| {
        value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
    })
}
