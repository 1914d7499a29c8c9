//! Checks a trajectory for the form `think (search information think)* answer`, with only white space between the
//! tags.
//!
//! Two readers share one automaton. The default reader takes segments, so it knows the author of each text and needs
//! no chat template. The other takes the decoded text, as the reference does.

use super::matching::contains_any;
use crate::rollout::parse::{opens_thought, strip};
use crate::rollout::trajectory::{Segment, SegmentKind};

/// The result of checking the form of a trajectory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatVerdict {
    /// `true` if all parts are in order and an answer ends the trajectory.
    pub is_well_formed: bool,
    /// `true` if a passage that was shown holds a golden answer.
    pub is_answer_retrieved: bool,
}

const TAGS: [&str; 4] = ["think", "search", "information", "answer"];

/// The mark at which the reference finds the start of the response: ChatML's assistant turn.
const REFERENCE_RESPONSE_MARK: &str = "<|im_start|>assistant";

/// The position in the expected order. `In` states may hold any text, the others only white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FormState {
    Start,
    In(&'static str),
    After(&'static str),
}

impl FormState {
    /// Returns the state after a tag, or `None` if the tag is not allowed.
    fn after_tag(self, name: &'static str, is_closing: bool) -> Option<Self> {
        if is_closing {
            return (self == Self::In(name)).then_some(Self::After(name));
        }
        let is_allowed = match name {
            "think" => matches!(self, Self::Start | Self::After("information")),
            "search" | "answer" => self == Self::After("think"),
            "information" => self == Self::After("search"),
            _ => false,
        };
        is_allowed.then_some(Self::In(name))
    }

    /// Returns the state after a text with tags, or `None` if a part of it is not allowed.
    fn read(self, text: &str) -> Option<Self> {
        let mut state = self;
        let mut rest = text;
        while !rest.is_empty() {
            let (before, tag) = split_at_tag(rest);
            if !strip(before).is_empty() && !matches!(state, Self::In(_)) {
                return None;
            }
            let Some((name, is_closing, after)) = tag else { break };
            state = state.after_tag(name, is_closing)?;
            rest = after;
        }
        Some(state)
    }
}

/// A tag's name, `true` if it is a closing tag, and the text after it.
type Tag<'t> = (&'static str, bool, &'t str);

/// Splits a text at its first known tag into the text before and the tag.
fn split_at_tag(text: &str) -> (&str, Option<Tag<'_>>) {
    for (start, _) in text.match_indices('<') {
        let inner = &text[start + 1..];
        let (is_closing, inner) =
            inner.strip_prefix('/').map_or((false, inner), |closing| (true, closing));
        for name in TAGS {
            if let Some(after) = inner.strip_prefix(name).and_then(|rest| rest.strip_prefix('>')) {
                return (&text[..start], Some((name, is_closing, after)));
            }
        }
    }
    (text, None)
}

/// Checks segments. Passages that the model made up spoil the form, and so does a turn that was answered by a message
/// about an invalid action. Tags inside real passages have no effect.
pub fn check_segments(segments: &[Segment], golden: &[String]) -> FormatVerdict {
    let mut state = Some(FormState::Start);
    let mut is_answer_retrieved = false;
    for segment in segments {
        match segment.kind {
            // A chat template may open the first thought itself.
            SegmentKind::Prompt => {
                if opens_thought(&segment.text) {
                    state = Some(FormState::In("think"));
                }
            }
            SegmentKind::Injected => state = None,
            SegmentKind::Observation => {
                is_answer_retrieved |= contains_any(&segment.text, golden);
                state = state
                    .filter(|state| *state == FormState::After("search"))
                    .map(|_| FormState::After("information"));
            }
            SegmentKind::Sampled => {
                let made_up = ["<information>", "</information>"]
                    .iter()
                    .any(|tag| segment.text.contains(tag));
                state = state.filter(|_| !made_up).and_then(|state| state.read(&segment.text));
            }
        }
    }
    let is_well_formed = state == Some(FormState::After("answer"));
    FormatVerdict { is_well_formed, is_answer_retrieved }
}

/// Checks prompt and response as one text, with the reference's faults. The response begins at ChatML's mark; without
/// the mark no text is well formed. Retrieval is checked only in a well-formed text, but then in the prompt too.
pub fn check_reference_text(text: &str, golden: &[String]) -> FormatVerdict {
    let response = text
        .split_once(REFERENCE_RESPONSE_MARK)
        .map(|(_, response)| response)
        .filter(|response| tags_balance(response));
    let state = response.and_then(|response| FormState::Start.read(strip(response)));
    let is_well_formed = state == Some(FormState::After("answer"));
    let is_answer_retrieved =
        is_well_formed && information_blocks(text).iter().any(|block| contains_any(block, golden));
    FormatVerdict { is_well_formed, is_answer_retrieved }
}

fn tags_balance(text: &str) -> bool {
    TAGS.iter().all(|name| {
        let opened = text.matches(&format!("<{name}>")).count();
        opened == text.matches(&format!("</{name}>")).count()
    })
}

fn information_blocks(text: &str) -> Vec<&str> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, inside)) = rest.split_once("<information>") {
        let Some((block, after)) = inside.split_once("</information>") else { break };
        blocks.push(strip(block));
        rest = after;
    }
    blocks
}
