//! Text of a growing list of tokens, for stop strings and for showing a generation as it runs.

use super::{TokenError, Tokenizer};

/// Replacement character: what a decoder gives for bytes that form no character (yet).
const REPLACEMENT: char = '\u{fffd}';

/// A character has at most four bytes, so that at most three tokens can be the beginning of one.
const MAX_PENDING_TOKENS: usize = 3;

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
        let length_before = self.text.len();
        let end = self.ids.len();
        if !self.advance(tokenizer, end, false)? && end - self.read > MAX_PENDING_TOKENS {
            // Too many to be one incomplete character: the earlier ones will never be part of any.
            self.advance(tokenizer, end - MAX_PENDING_TOKENS, true)?;
        }
        Ok(&self.text[length_before..])
    }

    /// Returns what is left, with U+FFFD for the bytes of an incomplete character.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<&str, TokenError> {
        let length_before = self.text.len();
        self.advance(tokenizer, self.ids.len(), true)?;
        Ok(&self.text[length_before..])
    }

    /// All text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All tokens so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Reads on to `ids[..end]`, unless that ends within a character and `even_if_broken` is false;
    /// true if it did.
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
            // What was given out as broken has become a character after all: too late to take back.
            None => self.text.push_str(&tokenizer.decode(&self.ids[self.read..end])?),
        }
        self.context = self.read;
        self.read = end;
        Ok(true)
    }
}
