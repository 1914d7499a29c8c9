//! Judges whether a trajectory has the form
//! `think (search information think)* answer`, with nothing but white space between the tags.
//!
//! Two readers share one automaton. The default reads segments, so that it knows who wrote what and
//! needs no chat template; the other reads the decoded text as the reference does.

use super::matching::contains_any;
use crate::rollout::parse::strip;
use crate::rollout::trajectory::{Segment, SegmentKind};

/// What is found out about the form of a trajectory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatVerdict {
    /// True if everything is in its place and an answer ends it.
    pub is_well_formed: bool,
    /// True if a passage that was shown holds a golden answer.
    pub is_answer_retrieved: bool,
}

const TAGS: [&str; 4] = ["think", "search", "information", "answer"];

/// What the reference looks for to find the start of the response: ChatML's assistant turn.
const REFERENCE_RESPONSE_MARK: &str = "<|im_start|>assistant";

/// Position in the expected order. Each `In` state may hold any text; the others only white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Start,
    In(&'static str),
    After(&'static str),
}

impl Place {
    /// The place after a tag, or `None` where that tag is not allowed.
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

    /// Reads a text with tags, or `None` at the first thing that is out of place.
    fn read(self, text: &str) -> Option<Self> {
        let mut place = self;
        let mut rest = text;
        while !rest.is_empty() {
            let (before, tag) = split_at_tag(rest);
            if !strip(before).is_empty() && !matches!(place, Self::In(_)) {
                return None;
            }
            let Some((name, is_closing, after)) = tag else { break };
            place = place.after_tag(name, is_closing)?;
            rest = after;
        }
        Some(place)
    }
}

/// Name, whether it closes, and what follows.
type Tag<'t> = (&'static str, bool, &'t str);

/// The text before the first known tag, and that tag.
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

/// Reads segments. Passages that the model made up are out of place, and so is a turn that was
/// answered by a message about an invalid action. Tags inside real passages mean nothing.
pub fn of_segments(segments: &[Segment], golden: &[String]) -> FormatVerdict {
    let mut place = Some(Place::Start);
    let mut is_answer_retrieved = false;
    for segment in segments {
        match segment.kind {
            SegmentKind::Prompt => {}
            SegmentKind::Injected => place = None,
            SegmentKind::Observation => {
                is_answer_retrieved |= contains_any(&segment.text, golden);
                place = place
                    .filter(|place| *place == Place::After("search"))
                    .map(|_| Place::After("information"));
            }
            SegmentKind::Sampled => {
                let made_up = ["<information>", "</information>"]
                    .iter()
                    .any(|tag| segment.text.contains(tag));
                place = place.filter(|_| !made_up).and_then(|place| place.read(&segment.text));
            }
        }
    }
    FormatVerdict { is_well_formed: place == Some(Place::After("answer")), is_answer_retrieved }
}

/// Reads prompt and response as one text, fault for fault as the reference: the response begins at
/// ChatML's mark and without it nothing is well formed; retrieval is looked at only in a
/// well-formed text, but then in the prompt as well.
pub fn of_reference_text(text: &str, golden: &[String]) -> FormatVerdict {
    let response = text
        .split_once(REFERENCE_RESPONSE_MARK)
        .map(|(_, response)| response)
        .filter(|response| tags_balance(response));
    let place = response.and_then(|response| Place::Start.read(strip(response)));
    let is_well_formed = place == Some(Place::After("answer"));
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
