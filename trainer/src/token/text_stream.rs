//! The text of a growing list of tokens, for stop strings and for showing a running generation.

use super::{TokenError, Tokenizer};

/// The character that a decoder returns for invalid or incomplete bytes.
const REPLACEMENT: char = '\u{fffd}';

/// Most tokens of an incomplete character: a character has at most four bytes.
const MAX_PENDING_TOKENS: usize = 3;

/// Decodes token by token. A character whose bytes are in several tokens appears once, with its last
/// byte. A few earlier tokens are decoded together with the new ones, because some tokenizers write a
/// token differently at the start of a text, for example without its leading space.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    ids: Vec<u32>,
    /// Start of the tokens `ids[context..read]`, which are decoded again with the next ones.
    context: usize,
    /// Number of tokens whose text is in `text`.
    read: usize,
    text: String,
}

impl TextStream {
    /// Creates an empty stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a token and returns the text that became certain; empty while a character is incomplete.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<&str, TokenError> {
        self.ids.push(id);
        let length_before = self.text.len();
        let end = self.ids.len();
        if !self.advance(tokenizer, end, false)? && end - self.read > MAX_PENDING_TOKENS {
            // Too many tokens for one incomplete character: the earlier ones are invalid bytes.
            self.advance(tokenizer, end - MAX_PENDING_TOKENS, true)?;
        }
        Ok(&self.text[length_before..])
    }

    /// Returns the rest of the text, with U+FFFD for an incomplete character.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<&str, TokenError> {
        let length_before = self.text.len();
        self.advance(tokenizer, self.ids.len(), true)?;
        Ok(&self.text[length_before..])
    }

    /// Returns the text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the tokens so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Decodes up to `ids[..end]` and returns `true`. If that ends inside a character and `even_if_broken`
    /// is `false`, does nothing and returns `false`.
    fn advance(
        &mut self,
        tokenizer: &Tokenizer,
        end: usize,
        even_if_broken: bool,
    ) -> Result<bool, TokenError> {
        let window = tokenizer.decode(&self.ids[self.context..end])?;
        if window.ends_with(REPLACEMENT) && !even_if_broken {
            return Ok(false);
        }
        let known = tokenizer.decode(&self.ids[self.context..self.read])?;
        match window.strip_prefix(known.as_str()) {
            Some(new) => self.text.push_str(new),
            // Bytes already returned as broken have become a character: they cannot be taken back.
            None => self.text.push_str(&tokenizer.decode(&self.ids[self.read..end])?),
        }
        self.context = self.read;
        self.read = end;
        Ok(true)
    }
}
