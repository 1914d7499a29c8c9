//! Text to token ids (prompts, observations) and back (parsing, display).
//!
//! Owns the tokenizer of a model folder, its end-of-sequence ids and its chat template. It never
//! turns sampled tokens into text and back: sampled ids stay as they are, and the text that is
//! decoded from them is for reading only.

mod chat_template;
mod special_tokens;
#[cfg(test)]
mod tests;
mod text_stream;

use std::path::{Path, PathBuf};

pub use self::chat_template::{ChatDate, ChatMessage, ChatTemplate, NotADate};
pub use self::text_stream::TextStream;

/// End-of-sequence id of [`Tokenizer::characters`]: the first number that is no character.
pub const CHARACTERS_END_ID: u32 = 0x11_0000;

/// How [`CHARACTERS_END_ID`] is shown.
const CHARACTERS_END_TEXT: &str = "<|end|>";

/// A tokenizer with its end-of-sequence ids and chat template.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    end_ids: Vec<u32>,
    chat_template: Option<ChatTemplate>,
}

/// Where ids come from.
#[derive(Debug)]
enum Vocabulary {
    HuggingFace(Box<HuggingFace>),
    /// One token per character, its id the Unicode scalar value.
    Characters,
}

/// One tokenizer.json, set up twice: the setting that tells special tokens from plain text belongs
/// to the whole tokenizer and cannot be changed from call to call.
struct HuggingFace {
    /// Reads `<|im_end|>` and its like as ordinary characters.
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

/// Why text and token ids could not be turned into each other.
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
    /// A chat prompt was asked of a model without a template.
    #[error(
        "the model folder has no chat template (chat_template in tokenizer_config.json, or \
         chat_template.jinja); use the plain prompt style"
    )]
    NoChatTemplate,
    /// The template is wrong or refused the conversation.
    #[error("chat template: {0}")]
    ChatTemplate(String),
}

impl Tokenizer {
    /// Reads tokenizer.json of a Hugging Face model folder, the end-of-sequence ids that
    /// tokenizer_config.json, generation_config.json and config.json name, and the chat template.
    pub fn from_folder(folder: &Path) -> Result<Self, TokenError> {
        Self::from_folders(folder, folder, ChatDate::default())
    }

    /// The tokenizer of `folder` for the model of another folder, which may be the same; its chat
    /// template takes `today` for the day on which it is rendered.
    pub fn from_folders(folder: &Path, model: &Path, today: ChatDate) -> Result<Self, TokenError> {
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|error| TokenError::File {
            path: path.clone(),
            reason: format!("{error}; a model folder holds tokenizer.json beside config.json"),
        })?;
        let for_templates = tokenizers::Tokenizer::from_bytes(&bytes)
            .map_err(|error| TokenError::File { path, reason: error.to_string() })?;
        let special = special_tokens::read(folder, model, &for_templates, today)?;
        Ok(Self::new(for_templates, special.end_ids, special.chat_template))
    }

    /// One token per character, for replaying recorded rollouts and for tests of the loop.
    pub fn characters() -> Self {
        Self {
            vocabulary: Vocabulary::Characters,
            end_ids: vec![CHARACTERS_END_ID],
            chat_template: None,
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
        Self { vocabulary, end_ids, chat_template }
    }

    /// Ids of plain text, nothing added. The name of a special token in it (a passage may hold
    /// `<|im_end|>`) is encoded as the characters it is written with.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenError> {
        match &self.vocabulary {
            Vocabulary::HuggingFace(both) => Ok(encode(&both.for_text, text)?.get_ids().to_vec()),
            Vocabulary::Characters => Ok(text.chars().map(u32::from).collect()),
        }
    }

    /// Ids of text in which the names of special tokens mean those tokens: a rendered template.
    pub fn encode_template(&self, text: &str) -> Result<Vec<u32>, TokenError> {
        match &self.vocabulary {
            Vocabulary::HuggingFace(both) => {
                Ok(encode(&both.for_templates, text)?.get_ids().to_vec())
            }
            Vocabulary::Characters => self.encode(text),
        }
    }

    /// Text of `ids`, special tokens included. Bytes that form no character become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenError> {
        match &self.vocabulary {
            Vocabulary::HuggingFace(both) => both.for_text.decode(ids, false).map_err(|error| {
                TokenError::Decode { count: ids.len(), reason: error.to_string() }
            }),
            Vocabulary::Characters => decode_characters(ids),
        }
    }

    /// The longest beginning of `text` that encodes to at most `max_tokens` tokens and ends between
    /// two characters.
    pub fn longest_prefix<'t>(
        &self,
        text: &'t str,
        max_tokens: usize,
    ) -> Result<&'t str, TokenError> {
        match &self.vocabulary {
            Vocabulary::HuggingFace(both) => longest_prefix(&both.for_text, text, max_tokens),
            Vocabulary::Characters => {
                let end = text.char_indices().nth(max_tokens).map_or(text.len(), |(at, _)| at);
                Ok(&text[..end])
            }
        }
    }

    /// The ids that end a generation; never empty.
    pub fn end_ids(&self) -> &[u32] {
        &self.end_ids
    }

    /// True for an id that ends a generation.
    pub fn is_end(&self, id: u32) -> bool {
        self.end_ids.contains(&id)
    }

    /// Text of what a turn sampled, without the end-of-sequence tokens that close it: they are part
    /// of the trajectory, but not of what the model says.
    pub fn decode_turn(&self, ids: &[u32]) -> Result<String, TokenError> {
        let closing = ids.iter().rev().take_while(|id| self.is_end(**id)).count();
        self.decode(&ids[..ids.len() - closing])
    }

    /// Number of ids, added tokens included.
    pub fn vocabulary_size(&self) -> usize {
        match &self.vocabulary {
            Vocabulary::HuggingFace(both) => both.for_text.get_vocab_size(true),
            Vocabulary::Characters => CHARACTERS_END_ID as usize + 1,
        }
    }

    /// True for a model with a chat template; a base model has none.
    pub fn has_chat_template(&self) -> bool {
        self.chat_template.is_some()
    }

    /// `messages` in the model's chat template, ending where the assistant's turn begins.
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
                let reason = format!("id {id} is no Unicode scalar value");
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
    // A token may hold part of a character, and the cut may change how the last word is split:
    // both are found by encoding what is left, and give way by a token or two.
    for kept in (1..=max_tokens).rev() {
        let prefix = &text[..text.floor_char_boundary(offsets[kept - 1].1)];
        if encode(tokenizer, prefix)?.len() <= max_tokens {
            return Ok(prefix);
        }
    }
    Ok("")
}
