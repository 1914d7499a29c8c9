//! Tokenization of texts by `tokenizer.json`. The file's own truncation and padding are ignored, except
//! for their sides: that of all-MiniLM-L6-v2, for example, cuts every text at 128 tokens and pads it to as
//! many.

use tokenizers::normalizers::{BertNormalizer, Lowercase, NormalizerWrapper, Sequence};
use tokenizers::utils::padding::PaddingDirection;
use tokenizers::utils::truncation::{
    TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};
use tokenizers::{Encoding, PostProcessor, Tokenizer};

use super::EncodeError;
use super::settings::{BertNormalization, TokenizerSettings};

/// The number of bytes to read for each token to keep. Words are far shorter, so the rest of a text
/// matters only if there are few words in so many bytes.
const BYTES_PER_TOKEN: usize = 256;
/// The number of bytes to read of a text with few tokens. The rest of an endless text is ignored.
const MAX_TEXT_BYTES: usize = 1 << 20;

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
    /// The token to append to every text.
    append: Option<u32>,
    cut: TruncationDirection,
    pads_left: bool,
}

impl Tokens {
    /// Reads `tokenizer.json`, and changes it as the settings say.
    pub(super) fn open(settings: &TokenizerSettings) -> Result<Self, EncodeError> {
        let path = &settings.path;
        if !path.is_file() {
            return Err(EncodeError::NoFile { path: path.clone(), expected: "a tokenizer" });
        }
        let refused = |reason: String| EncodeError::Tokenizer { path: path.clone(), reason };
        let mut tokenizer =
            Tokenizer::from_file(path).map_err(|error| refused(error.to_string()))?;
        let stated = tokenizer.get_padding().map(|padding| padding.pad_id);
        let named = settings.padding.as_deref().into_iter().chain(["[PAD]", "<pad>"]);
        let named = named.into_iter().find_map(|name| tokenizer.token_to_id(name));
        let pads_left = tokenizer
            .get_padding()
            .is_some_and(|padding| matches!(padding.direction, PaddingDirection::Left));
        let cut = match (settings.cuts_left, tokenizer.get_truncation()) {
            (Some(true), _) => TruncationDirection::Left,
            (None, Some(truncation)) => truncation.direction,
            _ => TruncationDirection::Right,
        };
        let append = settings.append.as_deref().map(|name| {
            let id = tokenizer.token_to_id(name);
            id.ok_or_else(|| refused(format!("append_token = {name:?} is not one of its tokens")))
        });
        let append = append.transpose()?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).expect("only a new truncation is checked, not its removal");
        set_normalizer(&mut tokenizer, settings).map_err(|error| refused(error.to_string()))?;
        let special_count =
            tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        let special_count = special_count + usize::from(append.is_some());
        let padding = stated.or(named).unwrap_or_default();
        Ok(Self { tokenizer, special_count, padding, append, cut, pads_left })
    }

    /// Returns the id of the token that pads rows.
    pub(super) fn padding(&self) -> i64 {
        i64::from(self.padding)
    }

    /// Returns `true` if the tokenizer pads rows at their start.
    pub(super) fn pads_left(&self) -> bool {
        self.pads_left
    }

    /// Returns the token ids of each text with `prefix` before it, including special tokens. Each text
    /// gets at least one token and at most `max_tokens`.
    pub(super) fn encode(
        &self,
        prefix: &str,
        texts: &[&str],
        max_tokens: usize,
    ) -> Result<Vec<Vec<u32>>, EncodeError> {
        let max_bytes = max_tokens.saturating_mul(BYTES_PER_TOKEN);
        let inputs = texts.iter().map(|text| self.input(prefix, text, max_bytes));
        let encodings = if texts.len() < PARALLEL_TEXTS {
            inputs.map(|input| self.tokenizer.encode_fast(input, false)).collect()
        } else {
            self.tokenizer.encode_batch_fast(inputs.collect(), false)
        };
        let max_text_tokens = max_tokens.saturating_sub(self.special_count).max(1);
        let encodings: Vec<Encoding> = encodings.map_err(failed)?;
        let finished = encodings.into_iter().zip(texts).map(|(mut encoding, text)| {
            // Long white space or endless words: the rest of the text may still have tokens.
            if text.len() > max_bytes && encoding.len() < max_text_tokens {
                let input = self.input(prefix, text, max_bytes.max(MAX_TEXT_BYTES));
                encoding = self.tokenizer.encode_fast(input, false).map_err(failed)?;
            }
            encoding.truncate(max_text_tokens, 0, self.cut);
            Ok(self.finish(encoding)?.0)
        });
        finished.collect()
    }

    /// Returns the number of tokens at the start of a text that belong to a prefix: those of the prefix
    /// alone without the special tokens at its end, as sentence-transformers counts them.
    pub(super) fn prefix_tokens(&self, prefix: &str) -> Result<usize, EncodeError> {
        let encoding = self.tokenizer.encode(prefix, false).map_err(failed)?;
        let (ids, special) = self.finish(encoding)?;
        let added = self.tokenizer.get_added_tokens_decoder();
        let is_special = |position: usize| {
            special.get(position).is_none_or(|&mask| mask == 1)
                || added.get(&ids[position]).is_some_and(|token| token.special)
        };
        let ends = ids.len().checked_sub(1).is_some_and(is_special);
        Ok(ids.len() - usize::from(ends))
    }

    /// Returns the part of a text that is tokenized, with `prefix` before it.
    fn input(&self, prefix: &str, text: &str, max_bytes: usize) -> String {
        let text = match self.cut {
            TruncationDirection::Right => &text[..text.floor_char_boundary(max_bytes)],
            TruncationDirection::Left => {
                &text[text.ceil_char_boundary(text.len().saturating_sub(max_bytes))..]
            }
        };
        [prefix, text].concat()
    }

    /// Adds the special tokens. Returns the ids, and 1 for each of them that the tokenizer added.
    fn finish(&self, encoding: Encoding) -> Result<(Vec<u32>, Vec<u32>), EncodeError> {
        let encoding = self.tokenizer.post_process(encoding, None, true).map_err(failed)?;
        let mut ids = encoding.get_ids().to_vec();
        let special = encoding.get_special_tokens_mask().to_vec();
        ids.extend(self.append);
        if ids.is_empty() {
            // The tokenizer adds no special tokens, but the model needs at least one token.
            ids.push(self.padding);
        }
        Ok((ids, special))
    }

    /// Returns the tokens of a pair, at least one and at most `max_tokens`. If there are too many, the
    /// longer text is cut first, and then both equally once they have the same length.
    pub(super) fn encode_pair(
        &self,
        pair: Pair<'_>,
        max_tokens: usize,
    ) -> Result<PairTokens, EncodeError> {
        let max_bytes = max_tokens.saturating_mul(BYTES_PER_TOKEN);
        let encode = |text: &str| {
            let encode = |bytes: usize| {
                let input = self.input("", text, bytes);
                self.tokenizer.encode_fast(input, false).map_err(failed)
            };
            let encoding = encode(max_bytes)?;
            if text.len() > max_bytes && encoding.len() < max_tokens {
                return encode(max_bytes.max(MAX_TEXT_BYTES));
            }
            Ok(encoding)
        };
        let special_count =
            self.tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(true));
        let parameters = TruncationParams {
            direction: self.cut,
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

#[expect(clippy::needless_pass_by_value, reason = "it is passed to `map_err`")]
fn failed(error: tokenizers::Error) -> EncodeError {
    EncodeError::Tokenize(error.to_string())
}

/// Changes the normalizer as `transformers` does for a BERT, and as sentence-transformers does for
/// `do_lower_case`.
fn set_normalizer(
    tokenizer: &mut Tokenizer,
    settings: &TokenizerSettings,
) -> tokenizers::Result<()> {
    if let Some(BertNormalization { lowercase, strip_accents, chinese_words }) = settings.bert
        && let Some(NormalizerWrapper::BertNormalizer(_)) = tokenizer.get_normalizer()
    {
        let normalizer = BertNormalizer::new(true, chinese_words, strip_accents, lowercase);
        tokenizer.with_normalizer(Some(normalizer))?;
    }
    if !settings.lowercases {
        return Ok(());
    }
    let mut normalizers = match tokenizer.get_normalizer().cloned() {
        Some(NormalizerWrapper::Sequence(sequence)) => sequence.as_ref().to_vec(),
        Some(normalizer) => vec![normalizer],
        None => Vec::new(),
    };
    let lowercase =
        |normalizer: &NormalizerWrapper| matches!(normalizer, NormalizerWrapper::Lowercase(_));
    if !normalizers.iter().any(lowercase) {
        normalizers.insert(0, Lowercase.into());
        tokenizer.with_normalizer(Some(Sequence::new(normalizers)))?;
    }
    Ok(())
}
