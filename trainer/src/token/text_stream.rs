//! Text of a growing list of tokens, for stop strings and for showing a generation as it runs.

use super::{TokenError, Tokenizer};

/// Replacement character: what a decoder gives for bytes that form no character (yet).
const REPLACEMENT: char = '\u{fffd}';

/// A character has at most four bytes, so that more pending tokens than this cannot become one.
const MAX_PENDING_TOKENS: usize = 4;

/// Decodes token by token. A character whose bytes lie in several tokens appears once, when its
/// last byte has come; a few tokens before the new ones are decoded with them, because some
/// tokenizers write a token differently at the start of a text (a leading space, for one).
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    ids: Vec<u32>,
    /// `ids[context..read]` are decoded again with what follows.
    context: usize,
    /// `ids[..read]` are in `text`.
    read: usize,
    text: String,
}

impl TextStream {
    /// An empty text.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a token and returns the text that became certain: nothing while a character is
    /// incomplete.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<&str, TokenError> {
        self.ids.push(id);
        let pending = self.ids.len() - self.read;
        self.advance(tokenizer, pending > MAX_PENDING_TOKENS)
    }

    /// Returns what is left, with U+FFFD for the bytes of an incomplete character.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<&str, TokenError> {
        self.advance(tokenizer, true)
    }

    /// All text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All tokens so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    fn advance(&mut self, tokenizer: &Tokenizer, even_if_broken: bool) -> Result<&str, TokenError> {
        let length_before = self.text.len();
        let known = tokenizer.decode(&self.ids[self.context..self.read])?;
        let window = tokenizer.decode(&self.ids[self.context..])?;
        let incomplete = window.ends_with(REPLACEMENT) && !even_if_broken;
        if !incomplete && let Some(new) = window.strip_prefix(known.as_str()) {
            self.text.push_str(new);
            self.context = self.read;
            self.read = self.ids.len();
        }
        Ok(&self.text[length_before..])
    }
}
