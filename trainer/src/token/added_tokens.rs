//! Tokens that a tokenizer has besides its vocabulary, as the files of a folder name them: the added tokens of
//! tokenizer.json, and what tokenizer_config.json, special_tokens_map.json and added_tokens.json say.
//!
//! Owns the rules of transformers 5.24 (`_from_pretrained` and the initialisation of its tokenizers) for which tokens
//! are added, in which order and with which properties.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::TokenError;
use super::known_keys::refuse;
use super::tokenizer_class::TokenizerClass;

/// Keys for the tokens that every tokenizer may name, in the order in which they are added.
const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
const DECODER: &str = "added_tokens_decoder";
const EXTRA: &str = "extra_special_tokens";
const ADDITIONAL: &str = "additional_special_tokens";
const MODEL_SPECIFIC: &str = "model_specific_special_tokens";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// The files of a folder that describe its tokenizer. An absent file is an empty object.
#[derive(Debug)]
pub(super) struct TokenizerFiles {
    pub(super) tokenizer: Map<String, Value>,
    pub(super) config: Map<String, Value>,
    pub(super) special_tokens_map: Map<String, Value>,
    pub(super) added_tokens: Map<String, Value>,
}

/// A token as a file writes it.
#[derive(Clone, Debug, PartialEq)]
enum Written {
    /// A plain text, which becomes a special token.
    Text(String),
    Whole(AddedToken),
}

impl Written {
    fn content(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Whole(token) => &token.content,
        }
    }
}

/// All tokens that the files name.
#[derive(Debug, Default)]
pub(super) struct NamedTokens {
    /// Tokens with an id.
    numbered: BTreeMap<u64, AddedToken>,
    /// Tokens with a name, such as `eos_token`.
    named: Vec<(String, Written)>,
    extra: Vec<Written>,
}

impl NamedTokens {
    /// Collects the tokens of a folder.
    pub(super) fn collect(
        folder: &Path,
        files: &TokenizerFiles,
        class: TokenizerClass,
    ) -> Result<Self, TokenError> {
        let path = folder.join(TOKENIZER_CONFIG);
        let mut values = files.config.clone();
        if !values.get(EXTRA).is_some_and(is_filled)
            && let Some(additional) = values.remove(ADDITIONAL)
        {
            values.insert(EXTRA.to_owned(), additional);
        }
        let is_specific = |key: &str| key.ends_with("_token") && !NAMED.contains(&key);
        let mut specific = Map::new();
        for (key, value) in
            values.iter().filter(|(key, value)| is_specific(key) && value.is_string())
        {
            specific.insert(key.clone(), value.clone());
        }
        values.retain(|key, _| !specific.contains_key(key));
        if let Some(Value::Object(extra)) = values.get(EXTRA).cloned() {
            specific.extend(extra);
            values.remove(EXTRA);
        }
        let numbered = numbered(folder, files, &mut values, &mut specific)?;
        if let Some(Value::Object(more)) = values.get(MODEL_SPECIFIC) {
            specific.extend(more.clone());
        }
        for (key, value) in
            values.iter().filter(|(key, value)| is_specific(key) && value.is_string())
        {
            specific.entry(key.clone()).or_insert_with(|| value.clone());
        }
        let mut tokens = Self { numbered, ..Self::default() };
        for key in NAMED {
            let value = values.get(key).cloned().or_else(|| class_default(class, key, files));
            if let Some(value) = value.filter(|value| !value.is_null()) {
                let token = tokens.resolved(written(&path, key, &value)?);
                tokens.named.push((key.to_owned(), token));
            }
        }
        for (key, value) in &specific {
            tokens.named.push((key.clone(), written(&path, key, value)?));
        }
        match values.get(EXTRA) {
            None | Some(Value::Null) => {}
            Some(Value::Array(listed)) => {
                let listed = listed.iter().map(|value| written(&path, EXTRA, value));
                tokens.extra = listed.collect::<Result<_, _>>()?;
            }
            Some(other) => {
                return Err(refuse(&path, EXTRA, other, "a list of tokens, or an object"));
            }
        }
        Ok(tokens)
    }

    /// Returns the texts of the tokens with names, by name.
    pub(super) fn names(&self) -> BTreeMap<String, String> {
        let text = |(name, token): &(String, Written)| (name.clone(), token.content().to_owned());
        self.named.iter().map(text).collect()
    }

    /// Adds the tokens that `tokenizer` lacks, or has with other properties.
    pub(super) fn add_to(
        &self,
        tokenizer: &mut tokenizers::Tokenizer,
        class: TokenizerClass,
    ) -> Result<(), String> {
        let present = tokenizer.get_added_tokens_decoder();
        let mut encoder: Vec<&str> = present.values().map(|token| token.content.as_str()).collect();
        let numbered =
            self.numbered.values().filter(|token| !present.values().any(|p| p == *token));
        let mut adding: Vec<Written> = numbered.cloned().map(Written::Whole).collect();
        encoder.extend(self.numbered.values().map(|token| token.content.as_str()));
        let named = self.named.iter().map(|(_, token)| token);
        for token in named.chain(&self.extra) {
            if !encoder.contains(&token.content()) && !adding.contains(token) {
                adding.push(token.clone());
            }
        }
        let is_named = |text: &str| self.named.iter().any(|(_, token)| token.content() == text);
        let tokens = adding.into_iter().map(|token| match token {
            Written::Text(text) => AddedToken::from(text, true),
            Written::Whole(mut token) => {
                token.special |= is_named(&token.content);
                token
            }
        });
        let tokens: Vec<AddedToken> = tokens.collect();
        tokenizer.add_tokens(tokens).map_err(|error| error.to_string())?;
        if class == TokenizerClass::Qwen2 {
            let special = self.named.iter().map(|(_, token)| token).chain(&self.extra);
            let special: Vec<AddedToken> =
                special.map(|token| AddedToken::from(token.content().to_owned(), true)).collect();
            tokenizer.add_tokens(special).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Replaces a named token by the numbered one of the same text, which has its properties.
    fn resolved(&self, token: Written) -> Written {
        let found =
            self.numbered.values().rev().find(|numbered| numbered.content == token.content());
        found.map_or(token, |numbered| Written::Whole(numbered.clone()))
    }
}

/// Reads the tokens with ids. A list in tokenizer_config.json replaces those of all other files. Without it, the
/// older files also change the named tokens in `values` and `specific`.
fn numbered(
    folder: &Path,
    files: &TokenizerFiles,
    values: &mut Map<String, Value>,
    specific: &mut Map<String, Value>,
) -> Result<BTreeMap<u64, AddedToken>, TokenError> {
    let mut numbered = BTreeMap::new();
    if let Some(listed) = values.get(DECODER) {
        let path = folder.join(TOKENIZER_CONFIG);
        let wrong = || refuse(&path, DECODER, listed, "an object of tokens by id");
        for (id, value) in listed.as_object().ok_or_else(wrong)? {
            let id = id.parse().map_err(|_| wrong())?;
            numbered.insert(id, added_token(value).ok_or_else(wrong)?);
        }
        return Ok(numbered);
    }
    for (key, value) in &files.special_tokens_map {
        let mut value = value.clone();
        if let Value::Object(token) = &mut value
            && key != EXTRA
        {
            token.insert("special".to_owned(), Value::Bool(true));
        }
        if let (EXTRA, Value::Array(more)) = (key.as_str(), &value) {
            let mut all = values.get(EXTRA).and_then(Value::as_array).cloned().unwrap_or_default();
            all.extend(
                more.iter().filter(|token| !all.contains(token)).cloned().collect::<Vec<_>>(),
            );
            value = Value::Array(all);
        }
        values.insert(key.clone(), value);
    }
    if let Some(Value::Object(extra)) = values.get(EXTRA).cloned() {
        specific.extend(extra);
        values.remove(EXTRA);
    }
    if !values.contains_key(EXTRA)
        && let Some(additional) = values.remove(ADDITIONAL)
    {
        values.insert(EXTRA.to_owned(), additional);
    }
    let special = special_texts(values);
    for (content, id) in &files.added_tokens {
        let path = folder.join("added_tokens.json");
        let id = id.as_u64().ok_or_else(|| refuse(&path, content, id, "a token id"))?;
        numbered.insert(id, AddedToken::from(content.clone(), special.contains(content)));
    }
    for value in files.tokenizer.get("added_tokens").and_then(Value::as_array).into_iter().flatten()
    {
        // The library reports what is wrong with a token of its own file.
        if let (Some(id), Some(token)) = (value["id"].as_u64(), added_token(value)) {
            numbered.insert(id, token);
        }
    }
    Ok(numbered)
}

/// Returns the texts of all named and extra tokens.
fn special_texts(values: &Map<String, Value>) -> Vec<String> {
    let named = NAMED.iter().filter_map(|key| values.get(*key));
    let extra = values.get(EXTRA).and_then(Value::as_array).into_iter().flatten();
    let text =
        |value: &Value| value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned);
    named.chain(extra).filter_map(text).collect()
}

/// Returns the token that the class, or the padding in tokenizer.json, names if no other file does.
fn class_default(class: TokenizerClass, key: &str, files: &TokenizerFiles) -> Option<Value> {
    let padding = || files.tokenizer.get("padding")?.get("pad_token").cloned();
    let default = class.default_token(key).map(Value::from);
    default.or_else(|| if key == "pad_token" { padding() } else { None })
}

/// Reads a text, or an object with the text in `content`.
fn written(path: &Path, key: &str, value: &Value) -> Result<Written, TokenError> {
    match value {
        Value::String(text) => Ok(Written::Text(text.clone())),
        other => added_token(other).map(Written::Whole).ok_or_else(|| {
            refuse(path, key, value, "a text, or an object with the text in `content`")
        }),
    }
}

fn added_token(value: &Value) -> Option<AddedToken> {
    let flag = |key: &str| value.get(key).and_then(Value::as_bool);
    let special = flag("special").unwrap_or(false);
    Some(AddedToken {
        content: value.get("content")?.as_str()?.to_owned(),
        single_word: flag("single_word").unwrap_or(false),
        lstrip: flag("lstrip").unwrap_or(false),
        rstrip: flag("rstrip").unwrap_or(false),
        normalized: flag("normalized").unwrap_or(!special),
        special,
    })
}

fn is_filled(value: &Value) -> bool {
    match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
        _ => false,
    }
}
