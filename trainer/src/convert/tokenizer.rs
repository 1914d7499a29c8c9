//! The byte-level BPE tokenizer of a GGUF file, written as `tokenizer.json` and
//! `tokenizer_config.json`. Owns the mapping of token kinds and the splitting of text before BPE.
//!
//! Token ids are the positions in the file's token list and never change.

use std::collections::BTreeMap;
use std::collections::HashSet;

use serde::Serialize;
use serde::Serializer;
use serde::ser::SerializeMap as _;
use serde_json::Value as Json;
use serde_json::json;

use super::architecture::Architecture;
use super::error::GgufError;
use super::metadata::Metadata;
use super::pre_tokenizer::PreTokenizer;

const TEMPLATE: &str = "tokenizer.chat_template";
/// Code of control tokens in `tokenizer.ggml.token_type`; 1 is an ordinary token.
const CONTROL: i64 = 3;
/// Code of tokens that the user defined.
const USER_DEFINED: i64 = 4;

/// The tokenizer of the file, checked for consistency.
#[derive(Debug)]
pub(super) struct Tokenizer<'a> {
    tokens: &'a [&'a str],
    merges: Vec<(&'a str, &'a str)>,
    added: Vec<AddedToken<'a>>,
    unknown: Option<&'a str>,
    bos: Option<&'a str>,
    eos: &'a str,
    pad: &'a str,
    adds_bos: bool,
    adds_eos: bool,
    /// The template without a name, and those with one.
    chat_template: Option<&'a str>,
    named_templates: Vec<(&'a str, &'a str)>,
    split: PreTokenizer,
    context_tokens: usize,
}

/// A token that is separated from the text before BPE.
#[expect(clippy::struct_excessive_bools, reason = "the file format has them")]
#[derive(Debug, Clone, Serialize)]
struct AddedToken<'a> {
    id: usize,
    content: &'a str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

/// Reads the tokenizer and loads it once with the `tokenizers` library. A tokenizer that cannot be loaded is
/// thus never written.
pub(super) fn read<'a>(
    metadata: &'a Metadata<'a>,
    architecture: &Architecture,
) -> Result<Tokenizer<'a>, GgufError> {
    metadata.one_of("tokenizer.ggml.model", &["gpt2"])?;
    let split = PreTokenizer::read(metadata)?;
    let flag = |key: &str| -> Result<bool, GgufError> {
        Ok(metadata.optional_bool(key)?.unwrap_or(false))
    };
    let prefix_key = "tokenizer.ggml.add_space_prefix";
    if flag(prefix_key)? {
        return Err(GgufError::metadata(prefix_key, "false", "true"));
    }
    let tokens = metadata.texts("tokenizer.ggml.tokens")?;
    let text_of = |id: u32| tokens[id as usize];
    let unknown_key = "tokenizer.ggml.unknown_token_id";
    let unknown = match metadata.optional_unsigned(unknown_key)? {
        None => None,
        Some(id) => Some(*tokens.get(id as usize).ok_or_else(|| {
            let expected = format!("a token id below {}", tokens.len());
            GgufError::metadata(unknown_key, expected, id.to_string())
        })?),
    };
    let eos = text_of(architecture.eos);
    let tokenizer = Tokenizer {
        tokens,
        merges: merges(metadata, tokens)?,
        added: added_tokens(metadata, tokens)?,
        unknown,
        bos: architecture.bos.map(text_of),
        eos,
        pad: architecture.pad.map_or(eos, text_of),
        adds_bos: architecture.bos.is_some() && flag("tokenizer.ggml.add_bos_token")?,
        adds_eos: flag("tokenizer.ggml.add_eos_token")?,
        chat_template: metadata.optional_text(TEMPLATE)?,
        named_templates: named_templates(metadata)?,
        split,
        context_tokens: architecture.context_tokens,
    };
    tokenizer.check_loads()?;
    Ok(tokenizer)
}

/// Reads the templates with a name: `tokenizer.chat_template.NAME`.
fn named_templates<'a>(metadata: &Metadata<'a>) -> Result<Vec<(&'a str, &'a str)>, GgufError> {
    let mut templates = Vec::new();
    for key in metadata.keys() {
        let name = key.strip_prefix(TEMPLATE).and_then(|rest| rest.strip_prefix('.'));
        if let Some(name) = name
            && let Some(source) = metadata.optional_text(key)?
        {
            templates.push((name, source));
        }
    }
    Ok(templates)
}

/// Splits each merge at its space and checks that both parts and their concatenation are tokens.
fn merges<'a>(
    metadata: &Metadata<'a>,
    tokens: &[&'a str],
) -> Result<Vec<(&'a str, &'a str)>, GgufError> {
    let known: HashSet<&str> = tokens.iter().copied().collect();
    if known.len() != tokens.len() {
        let count = tokens.len() - known.len();
        return Err(GgufError::Tokenizer(format!("the vocabulary has {count} duplicate tokens")));
    }
    let pairs = metadata.texts("tokenizer.ggml.merges")?;
    pairs
        .iter()
        .enumerate()
        .map(|(index, pair)| {
            pair.split_once(' ')
                .filter(|(left, right)| {
                    known.contains(left)
                        && known.contains(right)
                        && known.contains(format!("{left}{right}").as_str())
                })
                .ok_or_else(|| {
                    GgufError::Tokenizer(format!(
                        "merge {index}, {pair:?}, is not a pair of tokens that form a third"
                    ))
                })
        })
        .collect()
}

fn added_tokens<'a>(
    metadata: &Metadata<'a>,
    tokens: &[&'a str],
) -> Result<Vec<AddedToken<'a>>, GgufError> {
    let key = "tokenizer.ggml.token_type";
    let kinds = metadata.integers(key)?;
    if kinds.len() != tokens.len() {
        let expected = format!("one entry for each of {} tokens", tokens.len());
        return Err(GgufError::metadata(key, expected, kinds.len().to_string()));
    }
    let added = |(id, kind): (usize, &i64)| {
        let special = *kind == CONTROL;
        (special || *kind == USER_DEFINED).then(|| AddedToken {
            id,
            content: tokens[id],
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special,
        })
    };
    Ok(kinds.iter().enumerate().filter_map(added).collect())
}

/// The vocabulary in the order of the ids.
struct Vocabulary<'a>(&'a [&'a str]);

impl Serialize for Vocabulary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (id, token) in self.0.iter().enumerate() {
            map.serialize_entry(token, &id)?;
        }
        map.end()
    }
}

/// The fields of `tokenizer.json`, as the `tokenizers` library names them.
#[derive(Serialize)]
pub(super) struct File<'a> {
    version: &'static str,
    truncation: Option<()>,
    padding: Option<()>,
    added_tokens: &'a [AddedToken<'a>],
    normalizer: Json,
    pre_tokenizer: Json,
    post_processor: Json,
    decoder: Json,
    model: Model<'a>,
}

#[derive(Serialize)]
struct Model<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    dropout: Option<()>,
    unk_token: Option<()>,
    continuing_subword_prefix: Option<()>,
    end_of_word_suffix: Option<()>,
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: Vocabulary<'a>,
    merges: &'a [(&'a str, &'a str)],
}

/// The fields of `tokenizer_config.json`, as Hugging Face transformers names them.
#[derive(Serialize)]
pub(super) struct Config<'a> {
    add_prefix_space: bool,
    added_tokens_decoder: BTreeMap<usize, Json>,
    bos_token: Option<&'a str>,
    chat_template: Json,
    clean_up_tokenization_spaces: bool,
    eos_token: &'a str,
    model_max_length: usize,
    pad_token: &'a str,
    tokenizer_class: &'static str,
    unk_token: Option<&'a str>,
}

impl Tokenizer<'_> {
    /// Returns the content of `tokenizer.json`.
    pub(super) fn file(&self) -> File<'_> {
        File {
            version: "1.0",
            truncation: None,
            padding: None,
            added_tokens: &self.added,
            normalizer: self.split.normalizer(),
            pre_tokenizer: self.split.pre_tokenizer(),
            post_processor: self.post_processor(),
            decoder: json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                            "use_regex": true}),
            model: Model {
                kind: "BPE",
                dropout: None,
                unk_token: None,
                continuing_subword_prefix: None,
                end_of_word_suffix: None,
                fuse_unk: false,
                byte_fallback: false,
                ignore_merges: self.split.takes_whole_words(),
                vocab: Vocabulary(self.tokens),
                merges: &self.merges,
            },
        }
    }

    /// Returns the template that puts the first and the last token around a text, if the file says so. Prompts are
    /// encoded without it.
    fn post_processor(&self) -> Json {
        let token = |text: &str, kind: u32| json!({"SpecialToken": {"id": text, "type_id": kind}});
        let sequence = |name: &str, kind: u32| json!({"Sequence": {"id": name, "type_id": kind}});
        let bos = self.bos.filter(|_| self.adds_bos);
        let eos = Some(self.eos).filter(|_| self.adds_eos);
        if bos.is_none() && eos.is_none() {
            return Json::Null;
        }
        let around = |name: &str, kind: u32| -> Vec<Json> {
            let parts = [
                bos.map(|text| token(text, kind)),
                Some(sequence(name, kind)),
                eos.map(|text| token(text, kind)),
            ];
            parts.into_iter().flatten().collect()
        };
        let id = |text: &str| self.tokens.iter().position(|token| *token == text);
        let special: serde_json::Map<String, Json> = [bos, eos]
            .into_iter()
            .flatten()
            .map(|text| (text.to_owned(), json!({"id": text, "ids": [id(text)], "tokens": [text]})))
            .collect();
        let pair = [around("A", 0), around("B", 1)].concat();
        json!({"type": "TemplateProcessing", "single": around("A", 0), "pair": pair,
               "special_tokens": special})
    }

    /// Returns `chat_template`: a text, or a list if there are templates with a name.
    fn chat_template(&self) -> Json {
        if self.named_templates.is_empty() {
            return json!(self.chat_template);
        }
        let default = self.chat_template.map(|source| ("default", source));
        let all = default.iter().chain(&self.named_templates);
        all.map(|(name, source)| json!({"name": name, "template": source})).collect()
    }

    /// Returns the content of `tokenizer_config.json`.
    pub(super) fn config(&self) -> Config<'_> {
        let decoder = |token: &AddedToken<'_>| {
            let description = json!({
                "content": token.content,
                "lstrip": token.lstrip,
                "normalized": token.normalized,
                "rstrip": token.rstrip,
                "single_word": token.single_word,
                "special": token.special,
            });
            (token.id, description)
        };
        Config {
            add_prefix_space: false,
            added_tokens_decoder: self.added.iter().map(decoder).collect(),
            bos_token: self.bos,
            chat_template: self.chat_template(),
            clean_up_tokenization_spaces: false,
            eos_token: self.eos,
            model_max_length: self.context_tokens,
            pad_token: self.pad,
            tokenizer_class: "PreTrainedTokenizerFast",
            unk_token: self.unknown,
        }
    }

    fn check_loads(&self) -> Result<(), GgufError> {
        let wrong = |error: String| GgufError::Tokenizer(error);
        let bytes = serde_json::to_vec(&self.file()).map_err(|error| wrong(error.to_string()))?;
        let loaded = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|e| wrong(e.to_string()))?;
        let size = loaded.get_vocab_size(true);
        if size == self.tokens.len() {
            Ok(())
        } else {
            let expected = self.tokens.len();
            Err(wrong(format!("the loaded tokenizer has {size} tokens, expected {expected}")))
        }
    }
}
