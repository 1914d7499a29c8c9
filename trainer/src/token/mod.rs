//! Text to token ids (prompts, observations) and back (parsing, display).

/// A Hugging Face tokenizer with its special tokens.
#[derive(Debug)]
pub struct Tokenizer;
