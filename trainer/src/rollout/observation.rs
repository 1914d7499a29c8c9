//! Renders passages for the model, within a budget of tokens.
//!
//! Invariant: the frame is whole. However little room there is, `</information>` closes what
//! `<information>` opened; an observation is shortened passage by passage, never at its end.

use shared::client::Passage;

use super::parse::strip;
use crate::token::{TokenError, Tokenizer};

/// What the model is shown of one search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The frame with the passages in it.
    pub text: String,
    /// Token ids of `text`.
    pub token_ids: Vec<u32>,
    /// True if a passage was cut or left out to meet the budget.
    pub shortened: bool,
}

/// Limits of one observation, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservationBudget {
    /// Of the whole observation, frame included.
    pub max_tokens: usize,
    /// Of each passage, its heading included.
    pub max_passage_tokens: usize,
}

/// A passage of fewer tokens says nothing: it is left out instead.
const MIN_PASSAGE_TOKENS: usize = 8;

/// Renders `passages`, or returns `None` if the budget does not even hold the empty frame.
///
/// When all of them do not fit, every passage is cut to the same number of tokens, the largest with
/// which they do: passages that are shorter than that stay whole.
pub fn render(
    passages: &[Passage],
    budget: ObservationBudget,
    tokenizer: &Tokenizer,
) -> Result<Option<Observation>, TokenError> {
    let headed: Vec<String> =
        passages.iter().enumerate().map(|(at, passage)| with_heading(at, passage)).collect();
    for shown in (0..=headed.len()).rev() {
        let fitting = fit(&headed[..shown], budget, tokenizer)?;
        if let Some((text, token_ids, cut)) = fitting {
            let shortened = cut || shown < headed.len();
            return Ok(Some(Observation { text, token_ids, shortened }));
        }
    }
    Ok(None)
}

/// `Doc 1(Title: …) text`, the form of the reference: the first line of the contents is the title.
fn with_heading(index: usize, passage: &Passage) -> String {
    let (title, text) = passage.title_and_text();
    format!("Doc {}(Title: {title}) {text}\n", index + 1)
}

fn frame(passages: &str) -> String {
    format!("\n\n<information>{}</information>\n\n", strip(passages))
}

/// Text, token ids, and whether a passage was cut.
type Fitting = (String, Vec<u32>, bool);

/// The observation with as much of every passage as fits, or `None` if that is next to nothing.
fn fit(
    headed: &[String],
    budget: ObservationBudget,
    tokenizer: &Tokenizer,
) -> Result<Option<Fitting>, TokenError> {
    let attempt = |passage_tokens: usize| -> Result<Option<Fitting>, TokenError> {
        let mut body = String::new();
        let mut cut = false;
        for passage in headed {
            let kept = tokenizer.longest_prefix(passage, passage_tokens)?;
            body.push_str(kept);
            if kept.len() < passage.len() {
                cut = true;
                body.push('\n');
            }
        }
        let text = frame(&body);
        let token_ids = tokenizer.encode(&text)?;
        let fits = token_ids.len() <= budget.max_tokens;
        Ok(fits.then_some((text, token_ids, cut)))
    };
    let all = attempt(budget.max_passage_tokens)?;
    if all.is_some() || headed.is_empty() {
        return Ok(all);
    }
    // The largest share that fits lies in [fitting, too_many).
    let mut best = None;
    let mut fitting = MIN_PASSAGE_TOKENS;
    let mut too_many = budget.max_passage_tokens.min(budget.max_tokens.saturating_add(1));
    while fitting < too_many {
        let middle = fitting + (too_many - fitting) / 2;
        if let Some(found) = attempt(middle)? {
            best = Some(found);
            fitting = middle + 1;
        } else {
            too_many = middle;
        }
    }
    Ok(best)
}
