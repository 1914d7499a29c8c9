//! Scores of pairs of a query and a passage, by a cross-encoder in a folder: an ONNX file with the
//! output `logits`, `tokenizer.json`, and `reranker.toml` where a setting is not the usual one.
//!
//! Both texts go through the model as one, so that a score costs a run of its own. Sessions are
//! shared among callers as an encoder's are.

mod settings;

use std::fmt;
use std::path::Path;

use super::batches::{Batch, RunLimits, plan};
use super::opening::{self, Opened, Wanted};
use super::session::{Reading, Rows};
use super::sessions::Sessions;
use super::tokens::{Pair, PairTokens, Tokens};
use super::{EncodeError, EncoderOptions};
use crate::device::Provider;

pub use settings::{SETTINGS_FILE, Scale, Settings};

/// Pairs that are sorted by length and batched together on a CPU: what comes first is scored
/// first, and only within so many pairs the longest.
const WINDOW_PAIRS_CPU: usize = 32;
/// A GPU takes more at once.
const WINDOW_PAIRS_CUDA: usize = 256;

/// A model that is ready to score.
pub struct CrossEncoder {
    settings: Settings,
    tokens: Tokens,
    sessions: Sessions,
    provider: Provider,
}

impl fmt::Debug for CrossEncoder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CrossEncoder")
            .field("settings", &self.settings)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

impl CrossEncoder {
    /// Opens the model in `folder` as [`crate::encode::Encoder::open`] does.
    pub fn open(folder: &Path, options: &EncoderOptions) -> Result<Self, EncodeError> {
        let settings = Settings::load(folder)?;
        let tokens = Tokens::open(&settings.tokenizer)?;
        let wanted = Wanted {
            what: "re-ranker",
            path: &settings.model,
            reading: Reading::Scores,
            max_tokens: settings.max_tokens,
            padding: tokens.padding(),
        };
        let Opened { sessions, provider, .. } = opening::open(&wanted, options)?;
        Ok(Self { settings, tokens, sessions, provider })
    }

    /// Where the model runs.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// The score of each pair, higher is better; `None` for those that were left when `stop`,
    /// which is asked before every few batches, first said so. Pairs are scored in about their order.
    pub fn score(
        &self,
        pairs: &[Pair<'_>],
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Option<f32>>, EncodeError> {
        let window_pairs = match self.provider {
            Provider::Cpu => WINDOW_PAIRS_CPU,
            Provider::Cuda(_) => WINDOW_PAIRS_CUDA,
        };
        let mut scores = vec![None; pairs.len()];
        let windows = pairs.chunks(window_pairs);
        for (number, (window, place)) in windows.zip(scores.chunks_mut(window_pairs)).enumerate() {
            let done = self.score_window(window, place, stop).map_err(|error| match error {
                EncodeError::NotFinite { text, value } => {
                    EncodeError::NotFinite { text: number * window_pairs + text, value }
                }
                other => other,
            })?;
            if !done {
                break;
            }
        }
        Ok(scores)
    }

    /// Scores a window; false if it was stopped.
    fn score_window(
        &self,
        pairs: &[Pair<'_>],
        scores: &mut [Option<f32>],
        stop: &dyn Fn() -> bool,
    ) -> Result<bool, EncodeError> {
        if stop() {
            return Ok(false);
        }
        let rows = pairs
            .iter()
            .map(|pair| self.tokens.encode_pair(*pair, self.settings.max_tokens))
            .collect::<Result<Vec<_>, _>>()?;
        let lengths: Vec<usize> = rows.iter().map(|row| row.ids.len()).collect();
        let limits = RunLimits::of(self.provider, self.sessions.count(), &lengths);
        let batches = plan(&lengths, limits);
        // A budget of time ends soon: no session has more than one run before it is asked for.
        for batches in batches.chunks(self.sessions.count()) {
            if stop() {
                return Ok(false);
            }
            let padding = self.tokens.padding();
            let runs: Vec<Rows> =
                batches.iter().map(|batch| rows_of(batch, &rows, padding)).collect();
            let found = self.sessions.run(&runs).map_err(EncodeError::Run)?.concat();
            let texts = batches.iter().flat_map(|batch| &batch.texts);
            for (&text, &value) in texts.zip(&found) {
                if !value.is_finite() {
                    return Err(EncodeError::NotFinite { text, value });
                }
                scores[text] = Some(self.settings.scale.of(value));
            }
        }
        Ok(true)
    }
}

/// The pairs of a batch as rows of one length.
fn rows_of(batch: &Batch, pairs: &[PairTokens], padding: i64) -> Rows {
    let numbers = batch.texts.len() * batch.row_tokens;
    let (mut ids, mut types) = (vec![padding; numbers], vec![0i64; numbers]);
    let mut lengths = Vec::with_capacity(batch.texts.len());
    let places =
        ids.chunks_exact_mut(batch.row_tokens).zip(types.chunks_exact_mut(batch.row_tokens));
    for ((ids, types), &text) in places.zip(&batch.texts) {
        let pair = &pairs[text];
        for (place, &id) in ids.iter_mut().zip(&pair.ids) {
            *place = i64::from(id);
        }
        for (place, &kind) in types.iter_mut().zip(&pair.types) {
            *place = i64::from(kind);
        }
        lengths.push(pair.ids.len());
    }
    Rows { ids, lengths, row_tokens: batch.row_tokens, types: Some(types) }
}
