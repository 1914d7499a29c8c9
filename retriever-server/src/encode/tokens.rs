//! Tokenization of texts by `tokenizer.json`. The file's own truncation and padding are ignored: that
//! of all-MiniLM-L6-v2, for example, cuts every text at 128 tokens and pads it to as many.

use std::path::Path;

use tokenizers::utils::truncation::{
    TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};
use tokenizers::{PostProcessor, Tokenizer};

use super::EncodeError;

/// The number of bytes to read for each token to keep. The rest of the text is ignored. Words are far
/// shorter, so this only bounds the time for endless texts.
const BYTES_PER_TOKEN: usize = 256;

/// The number of texts from which tokenization uses several threads.
const PARALLEL_TEXTS: usize = 64;

/// A query and a passage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<'a> {
    /// The query.
    pub query: &'a str,
    /// The passage, which may answer the query.
    pub passage: &'a str,
}

/// The tokens of a pair as one row.
#[derive(Debug)]
pub(super) struct PairTokens {
    /// The token ids, including special tokens.
    pub(super) ids: Vec<u32>,
    /// The type of each token as the tokenizer assigns it: 0 in the query, 1 in the passage.
    pub(super) types: Vec<u32>,
}

/// A tokenizer, with its number of special tokens and its padding token.
#[derive(Debug)]
pub(super) struct Tokens {
    tokenizer: Tokenizer,
    special_count: usize,
    padding: u32,
}

impl Tokens {
    /// Reads `tokenizer.json`.
    pub(super) fn open(path: &Path) -> Result<Self, EncodeError> {
        if !path.is_file() {
            return Err(EncodeError::NoFile { path: path.to_owned(), expected: "a tokenizer" });
        }
        let mut tokenizer = Tokenizer::from_file(path).map_err(|error| EncodeError::Tokenizer {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let stated = tokenizer.get_padding().map(|padding| padding.pad_id);
        let named = ["[PAD]", "<pad>"].iter().find_map(|name| tokenizer.token_to_id(name));
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).expect("only a new truncation is checked, not its removal");
        let special_count =
            tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        Ok(Self { tokenizer, special_count, padding: stated.or(named).unwrap_or_default() })
    }

    /// Returns the id of the token that pads rows.
    pub(super) fn padding(&self) -> i64 {
        i64::from(self.padding)
    }

    /// Returns the token ids of each text with `prefix` before it, including special tokens. Each text
    /// gets at least one token and at most `max_tokens`.
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
        let max_text_tokens = max_tokens.saturating_sub(self.special_count).max(1);
        encodings
            .map_err(failed)?
            .into_iter()
            .map(|mut encoding| {
                encoding.truncate(max_text_tokens, 0, TruncationDirection::Right);
                let encoding = self.tokenizer.post_process(encoding, None, true).map_err(failed)?;
                let mut ids = encoding.get_ids().to_vec();
                if ids.is_empty() {
                    // The tokenizer adds no special tokens, but the model needs at least one token.
                    ids.push(self.padding);
                }
                Ok(ids)
            })
            .collect()
    }

    /// Returns the tokens of a pair, at least one and at most `max_tokens`. If there are too many, the
    /// longer text is cut first, and then both equally once they have the same length.
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
        let special_count =
            self.tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(true));
        let parameters = TruncationParams {
            direction: TruncationDirection::Right,
            max_length: max_tokens.saturating_sub(special_count).max(1),
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        let (query, passage) = (encode(pair.query)?, encode(pair.passage)?);
        let (query, passage) =
            truncate_encodings(query, Some(passage), &parameters).map_err(failed)?;
        let encoding = self.tokenizer.post_process(query, passage, true).map_err(failed)?;
        let (mut ids, mut types) = (encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec());
        if ids.is_empty() {
            // The tokenizer adds no special tokens, but the model needs at least one token.
            ids.push(self.padding);
            types.push(0);
        }
        Ok(PairTokens { ids, types })
    }
}
