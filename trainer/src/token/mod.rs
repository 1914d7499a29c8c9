//! Converts text to token ids (prompts, observations) and token ids to text (parsing, display).
//!
//! Owns the tokenizer of a model folder, its end-of-sequence ids and its chat template. It never
//! encodes decoded text again: sampled ids stay as they are, and their text is for reading only.

mod known_keys;
mod tokenizer_class;
mod added_tokens;
mod tokenizer_files;
mod end_ids;
mod chat_template;
mod template_files;
#[cfg(test)]
mod folder_tests;
#[cfg(test)]
mod tests;
mod text_stream;

use std::path::{Path, PathBuf};

use crate::jinja::JinjaError;

pub use self::chat_template::{ChatDate, ChatMessage, ChatTemplate, NotADate};
pub use self::text_stream::TextStream;

/// End-of-sequence id of [`Tokenizer::characters`]: the first number above all characters.
pub const CHARACTERS_END_ID: u32 = 0x11_0000;

/// The text of [`CHARACTERS_END_ID`].
const CHARACTERS_END_TEXT: &str = "<|end|>";

/// A tokenizer with its end-of-sequence ids and chat template.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    end_ids: Vec<u32>,
    chat_template: Option<ChatTemplate>,
    /// Number of tokens that the model knows, from its config.json.
    embeddings: Option<u64>,
    /// Names of templates that are not the default.
    further_templates: Vec<String>,
}

/// The mapping between text and ids.
#[derive(Debug)]
enum Vocabulary {
    HuggingFace(Box<HuggingFace>),
    /// One token per character; its id is the Unicode scalar value.
    Characters,
}

/// One tokenizer.json, loaded twice: the treatment of special tokens in text is a setting of the whole
/// tokenizer and cannot change from call to call.
struct HuggingFace {
    /// Reads names such as `<|im_end|>` as ordinary characters.
    for_text: tokenizers::Tokenizer,
    /// Reads them as the special tokens that they name.
    for_templates: tokenizers::Tokenizer,
}

impl std::fmt::Debug for HuggingFace {
    // The derived form would print the whole vocabulary.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("HuggingFace")
            .field("vocabulary", &self.for_text.get_vocab_size(true))
            .finish_non_exhaustive()
    }
}

/// An error in converting between text and token ids.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A file of the model folder cannot be used.
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    /// The tokenizer refused a text.
    #[error("cannot encode {excerpt:?}: {reason}")]
    Encode { excerpt: String, reason: String },
    /// The tokenizer refused token ids.
    #[error("cannot decode {count} token ids: {reason}")]
    Decode { count: usize, reason: String },
    /// A chat prompt was requested from a model without a template.
    #[error(
        "the model folder has no chat template (chat_template in tokenizer_config.json, or \
         chat_template.jinja); use the plain prompt style"
    )]
    NoChatTemplate,
    /// A chat prompt was requested from a model whose templates all have other names.
    #[error(
        "the model folder has chat templates with names, but none named \"default\": {names}; copy the one to use to \
         chat_template.jinja, or set data.chat = false"
    )]
    NoDefaultTemplate { names: String },
    /// The template is invalid or rejected the conversation.
    #[error("chat template: {0}")]
    ChatTemplate(#[from] JinjaError),
}

impl Tokenizer {
    /// Reads a Hugging Face model folder: tokenizer.json and the files that describe it, the chat template, and the
    /// end-of-sequence ids in generation_config.json or config.json.
    pub fn from_folder(folder: &Path) -> Result<Self, TokenError> {
        Self::from_folders(folder, folder, ChatDate::default())
    }

    /// Reads the tokenizer of `folder` for the model of the folder `model`, which may be the same. The
    /// chat template uses `today` as the current day.
    pub fn from_folders(folder: &Path, model: &Path, today: ChatDate) -> Result<Self, TokenError> {
        let read = tokenizer_files::read(folder, model)?;
        let (chat_template, further_templates) =
            template_files::chat_template(folder, &read, today)?;
        let eos = read.named.names().remove("eos_token");
        let eos_id = eos.as_deref().and_then(|text| read.tokenizer.token_to_id(text));
        let end_ids = end_ids::read(model, eos_id.zip(eos.as_deref()))?;
        let model_config = tokenizer_files::read_json(model, "config.json")?.unwrap_or_default();
        let embeddings = model_config.get("vocab_size").and_then(serde_json::Value::as_u64);
        if let Some(count) =
            embeddings.filter(|count| end_ids.iter().all(|id| u64::from(*id) >= *count))
        {
            let reason = format!(
                "eos_token_id is {end_ids:?}, but the model has {count} embeddings (vocab_size), so a generation would \
                 never end; set it in generation_config.json"
            );
            return Err(TokenError::File { path: model.to_owned(), reason });
        }
        Ok(Self {
            embeddings,
            further_templates,
            ..Self::new(read.tokenizer, end_ids, chat_template)
        })
    }

    /// Creates a tokenizer with one token per character, for recorded rollouts and tests of the loop.
    pub fn characters() -> Self {
        Self {
            vocabulary: Vocabulary::Characters,
            end_ids: vec![CHARACTERS_END_ID],
            chat_template: None,
            embeddings: None,
            further_templates: Vec::new(),
        }
    }

    fn new(
        for_templates: tokenizers::Tokenizer,
        end_ids: Vec<u32>,
        chat_template: Option<ChatTemplate>,
    ) -> Self {
        let mut for_text = for_templates.clone();
        for_text.set_encode_special_tokens(true);
        let vocabulary = Vocabulary::HuggingFace(Box::new(HuggingFace { for_text, for_templates }));
        Self { vocabulary, end_ids, chat_template, embeddings: None, further_templates: Vec::new() }
    }

    /// Returns the ids of plain text without any added tokens. The name of a special token in the text,
    /// such as `<|im_end|>` in a passage, is encoded as ordinary characters.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenError> {
        match &self.vocabulary {
            Vocabulary::HuggingFace(both) => self.known_ids(&encode(&both.for_text, text)?, text),
            Vocabulary::Characters => Ok(text.chars().map(u32::from).collect()),
        }
    }

    /// Returns the ids of a rendered template, in which names of special tokens stand for those tokens.
    pub fn encode_template(&self, text: &str) -> Result<Vec<u32>, TokenError> {
        match &self.vocabulary {
            Vocabulary::HuggingFace(both) => {
                self.known_ids(&encode(&both.for_templates, text)?, text)
            }
            Vocabulary::Characters => self.encode(text),
        }
    }

    /// Returns the ids of an encoded text, all of which the model must know. A folder may name tokens that its model
    /// has no embedding for.
    fn known_ids(
        &self,
        encoding: &tokenizers::Encoding,
        text: &str,
    ) -> Result<Vec<u32>, TokenError> {
        let ids = encoding.get_ids();
        let limit = self.embeddings.unwrap_or(u64::MAX);
        match ids.iter().position(|id| u64::from(*id) >= limit) {
            None => Ok(ids.to_vec()),
            Some(position) => Err(TokenError::Encode {
                excerpt: text.chars().take(80).collect(),
                reason: format!(
                    "token {:?} has the id {}, but the model has {limit} embeddings (vocab_size)",
                    encoding.get_tokens()[position],
                    ids[position],
                ),
            }),
        }
    }

    /// Returns the text of `ids`, including special tokens. Invalid bytes become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenError> {
        match &self.vocabulary {
            Vocabulary::HuggingFace(both) => both.for_text.decode(ids, false).map_err(|error| {
                TokenError::Decode { count: ids.len(), reason: error.to_string() }
            }),
            Vocabulary::Characters => decode_characters(ids),
        }
    }

    /// Returns the longest prefix of `text` that encodes to at most `max_tokens` tokens and ends at a
    /// character boundary.
    pub fn longest_prefix<'t>(
        &self,
        text: &'t str,
        max_tokens: usize,
    ) -> Result<&'t str, TokenError> {
        match &self.vocabulary {
            Vocabulary::HuggingFace(both) => longest_prefix(&both.for_text, text, max_tokens),
            Vocabulary::Characters => {
                let cut = text.char_indices().nth(max_tokens);
                Ok(&text[..cut.map_or(text.len(), |(end, _)| end)])
            }
        }
    }

    /// Returns the ids that end a generation; never empty.
    pub fn end_ids(&self) -> &[u32] {
        &self.end_ids
    }

    /// Returns `true` for an id that ends a generation.
    pub fn is_end(&self, id: u32) -> bool {
        self.end_ids.contains(&id)
    }

    /// Returns the text of a turn without its closing end-of-sequence tokens. Those are part of the
    /// trajectory but not of the text.
    pub fn decode_turn(&self, ids: &[u32]) -> Result<String, TokenError> {
        let closing = ids.iter().rev().take_while(|id| self.is_end(**id)).count();
        self.decode(&ids[..ids.len() - closing])
    }

    /// Returns `true` if the model has a chat template; base models have none.
    ///
    /// # Errors
    /// Several templates without a default: nothing says which one to use.
    pub fn has_chat_template(&self) -> Result<bool, TokenError> {
        if self.chat_template.is_none() && !self.further_templates.is_empty() {
            return Err(TokenError::NoDefaultTemplate { names: self.further_templates.join(", ") });
        }
        Ok(self.chat_template.is_some())
    }

    /// Renders `messages` in the model's chat template, up to the beginning of the assistant's turn.
    pub fn render_chat(&self, messages: &[ChatMessage]) -> Result<String, TokenError> {
        self.chat_template.as_ref().ok_or(TokenError::NoChatTemplate)?.render(messages)
    }
}

fn encode(
    tokenizer: &tokenizers::Tokenizer,
    text: &str,
) -> Result<tokenizers::Encoding, TokenError> {
    tokenizer.encode(text, false).map_err(|error| TokenError::Encode {
        excerpt: text.chars().take(80).collect(),
        reason: error.to_string(),
    })
}

fn decode_characters(ids: &[u32]) -> Result<String, TokenError> {
    let mut text = String::with_capacity(ids.len());
    for &id in ids {
        match char::from_u32(id) {
            Some(character) => text.push(character),
            None if id == CHARACTERS_END_ID => text.push_str(CHARACTERS_END_TEXT),
            None => {
                let reason = format!("id {id} is not a Unicode scalar value");
                return Err(TokenError::Decode { count: ids.len(), reason });
            }
        }
    }
    Ok(text)
}

fn longest_prefix<'t>(
    tokenizer: &tokenizers::Tokenizer,
    text: &'t str,
    max_tokens: usize,
) -> Result<&'t str, TokenError> {
    let encoding = encode(tokenizer, text)?;
    let offsets = encoding.get_offsets();
    if offsets.len() <= max_tokens {
        return Ok(text);
    }
    // A token may end inside a character, and the cut may change the tokens of the last word. So each
    // candidate is encoded again; one or two tokens less are usually enough.
    for kept in (1..=max_tokens).rev() {
        let prefix = &text[..text.floor_char_boundary(offsets[kept - 1].1)];
        if encode(tokenizer, prefix)?.len() <= max_tokens {
            return Ok(prefix);
        }
    }
    Ok("")
}
