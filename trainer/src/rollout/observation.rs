//! Renders passages for the model within a token budget.
//!
//! Invariant: the frame is whole. Passages are shortened one by one; the closing `</information>`
//! is never cut off, however small the budget is.

use shared::contract::client::Passage;

use super::parse::strip;
use crate::token::{TokenError, Tokenizer};

/// The passages of one search, rendered for the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The frame with the passages in it.
    pub text: String,
    /// Token ids of `text`.
    pub token_ids: Vec<u32>,
    /// `true` if a passage was cut or left out to meet the budget.
    pub shortened: bool,
}

/// Limits of one observation, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ObservationBudget {
    /// Limit of the whole observation, frame included.
    pub max_tokens: usize,
    /// Limit of each passage, its heading included.
    pub max_passage_tokens: usize,
}

/// Shortest excerpt worth showing: a passage that would be cut below this is left out.
const MIN_PASSAGE_TOKENS: usize = 8;

/// Renders `passages`, or returns `None` if even the empty frame exceeds the budget.
///
/// If the passages do not fit together, each is cut to the same number of tokens: the largest number
/// at which they fit. Shorter passages stay whole.
pub fn render(
    passages: &[Passage],
    budget: ObservationBudget,
    tokenizer: &Tokenizer,
) -> Result<Option<Observation>, TokenError> {
    let headed: Vec<String> =
        passages.iter().enumerate().map(|(rank, passage)| with_heading(rank, passage)).collect();
    for shown in (0..=headed.len()).rev() {
        if let Some(mut observation) = fit(&headed[..shown], budget, tokenizer)? {
            observation.shortened |= shown < headed.len();
            return Ok(Some(observation));
        }
    }
    Ok(None)
}

/// Formats a passage as `Doc 1(Title: …) text`, as the reference does. The title is the first line of
/// the contents.
fn with_heading(rank: usize, passage: &Passage) -> String {
    let (title, text) = passage.title_and_text();
    format!("Doc {}(Title: {title}) {text}\n", rank + 1)
}

fn frame(passages: &str) -> String {
    format!("\n\n<information>{}</information>\n\n", strip(passages))
}

/// Returns the observation with as much of every passage as fits, or `None` if less than
/// `MIN_PASSAGE_TOKENS` of each would fit.
fn fit(
    headed: &[String],
    budget: ObservationBudget,
    tokenizer: &Tokenizer,
) -> Result<Option<Observation>, TokenError> {
    let attempt = |passage_tokens: usize| -> Result<Option<Observation>, TokenError> {
        let mut body = String::new();
        let mut shortened = false;
        for passage in headed {
            let kept = tokenizer.longest_prefix(passage, passage_tokens)?;
            body.push_str(kept);
            if kept.len() < passage.len() {
                shortened = true;
                body.push('\n');
            }
        }
        let text = frame(&body);
        let token_ids = tokenizer.encode(&text)?;
        let fits = token_ids.len() <= budget.max_tokens;
        Ok(fits.then_some(Observation { text, token_ids, shortened }))
    };
    let all = attempt(budget.max_passage_tokens)?;
    if all.is_some() || headed.is_empty() {
        return Ok(all);
    }
    // Bisection: the largest number of tokens that fits is in [fitting, too_many).
    let mut best = None;
    let mut fitting = MIN_PASSAGE_TOKENS;
    let mut too_many = budget.max_passage_tokens.min(budget.max_tokens.saturating_add(1));
    while fitting < too_many {
        let middle = fitting + (too_many - fitting) / 2;
        if let Some(observation) = attempt(middle)? {
            best = Some(observation);
            fitting = middle + 1;
        } else {
            too_many = middle;
        }
    }
    Ok(best)
}
