//! Texts to token ids, by `tokenizer.json`. The file's own truncation and padding do not count:
//! those of all-MiniLM-L6-v2, for one, cut at 128 tokens and pad everything to as many.

use std::path::Path;

use tokenizers::utils::truncation::{
    TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};
use tokenizers::{PostProcessor, Tokenizer};

use super::EncodeError;

/// Bytes of text for each token that is kept; what follows is not looked at. Words are far
/// shorter, so that only the time for a text without end is bounded by it.
const BYTES_PER_TOKEN: usize = 256;

/// Texts from this number on are spread over threads.
const PARALLEL_TEXTS: usize = 64;

/// A query and a passage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<'a> {
    /// Asks.
    pub query: &'a str,
    /// May answer.
    pub passage: &'a str,
}

/// The tokens of a pair as one row.
#[derive(Debug)]
pub(super) struct PairTokens {
    /// Special tokens included.
    pub(super) ids: Vec<u32>,
    /// Of each token, 0 in the query and 1 in the passage, as the tokenizer has it.
    pub(super) types: Vec<u32>,
}

/// A tokenizer with what a batch needs beside it.
#[derive(Debug)]
pub(super) struct Tokens {
    tokenizer: Tokenizer,
    specials: usize,
    padding: u32,
}

impl Tokens {
    /// Reads `tokenizer.json`.
    pub(super) fn open(path: &Path) -> Result<Self, EncodeError> {
        if !path.is_file() {
            return Err(EncodeError::NoFile { path: path.to_owned(), what: "a tokenizer" });
        }
        let mut tokenizer = Tokenizer::from_file(path).map_err(|error| EncodeError::Tokenizer {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let stated = tokenizer.get_padding().map(|padding| padding.pad_id);
        let named = ["[PAD]", "<pad>"].iter().find_map(|name| tokenizer.token_to_id(name));
        tokenizer.with_padding(None);
        // Cannot fail: only a truncation that is set is checked.
        let _ = tokenizer.with_truncation(None);
        let specials =
            tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        Ok(Self { tokenizer, specials, padding: stated.or(named).unwrap_or_default() })
    }

    /// Id of the token that fills rows up.
    pub(super) fn padding(&self) -> i64 {
        i64::from(self.padding)
    }

    /// Ids of each text after `prefix`, special tokens included: at least one and at most
    /// `max_tokens`.
    pub(super) fn encode(
        &self,
        prefix: &str,
        texts: &[&str],
        max_tokens: usize,
    ) -> Result<Vec<Vec<u32>>, EncodeError> {
        let max_bytes = max_tokens * BYTES_PER_TOKEN;
        let inputs = texts.iter().map(|text| {
            let text = &text[..text.floor_char_boundary(max_bytes)];
            if prefix.is_empty() { text.to_owned() } else { [prefix, text].concat() }
        });
        let encodings = if texts.len() < PARALLEL_TEXTS {
            inputs.map(|input| self.tokenizer.encode_fast(input, false)).collect()
        } else {
            self.tokenizer.encode_batch_fast(inputs.collect(), false)
        };
        let failed = |error: tokenizers::Error| EncodeError::Tokenize(error.to_string());
        let max_text_tokens = max_tokens.saturating_sub(self.specials).max(1);
        encodings
            .map_err(failed)?
            .into_iter()
            .map(|mut encoding| {
                encoding.truncate(max_text_tokens, 0, TruncationDirection::Right);
                let encoding = self.tokenizer.post_process(encoding, None, true).map_err(failed)?;
                let mut ids = encoding.get_ids().to_vec();
                if ids.is_empty() {
                    // A tokenizer without special tokens; the model needs something to look at.
                    ids.push(self.padding);
                }
                Ok(ids)
            })
            .collect()
    }

    /// Tokens of a pair: at least one and at most `max_tokens`. Of what is too long the longer
    /// text is cut first, and both equally once they are of one length.
    pub(super) fn encode_pair(
        &self,
        pair: Pair<'_>,
        max_tokens: usize,
    ) -> Result<PairTokens, EncodeError> {
        let failed = |error: tokenizers::Error| EncodeError::Tokenize(error.to_string());
        let max_bytes = max_tokens * BYTES_PER_TOKEN;
        let encode = |text: &str| {
            let text = &text[..text.floor_char_boundary(max_bytes)];
            self.tokenizer.encode_fast(text, false).map_err(failed)
        };
        let specials =
            self.tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(true));
        let parameters = TruncationParams {
            direction: TruncationDirection::Right,
            max_length: max_tokens.saturating_sub(specials).max(1),
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        let (query, passage) = (encode(pair.query)?, encode(pair.passage)?);
        let (query, passage) =
            truncate_encodings(query, Some(passage), &parameters).map_err(failed)?;
        let encoding = self.tokenizer.post_process(query, passage, true).map_err(failed)?;
        let (mut ids, mut types) = (encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec());
        if ids.is_empty() {
            // A tokenizer without special tokens; the model needs something to look at.
            ids.push(self.padding);
            types.push(0);
        }
        Ok(PairTokens { ids, types })
    }
}
