//! A few whole episodes. Every segment shows its writer, and if it is trained on or masked.

use std::fmt::Write as _;

use super::markup::escape;
use super::{AFTER, AFTER_RANDOM, BEFORE, RunRecord};
use crate::eval::{EvalResult, EvalRow};
use crate::rollout::{EndReason, Segment, SegmentKind, Trajectory};

/// The tags of the protocol, which are highlighted in the text.
const TAGS: [&str; 8] = [
    "<think>",
    "</think>",
    "<search>",
    "</search>",
    "<answer>",
    "</answer>",
    "<information>",
    "</information>",
];

/// An episode to show, with the reason.
struct Pick<'a> {
    reason: &'static str,
    row: &'a EvalRow,
    trajectory: &'a Trajectory,
}

/// A reason to show an episode, with a test for it.
type Criterion<'a> = (&'static str, &'a dyn Fn(&EvalRow) -> bool);

/// Returns the section with the episodes; empty if no evaluation kept any.
pub(super) fn section(record: &RunRecord) -> String {
    let picks = pick(record);
    if picks.is_empty() {
        return String::new();
    }
    let mut html = String::from(
        "<section><h2>Whole trajectories</h2><p class=lead>Training uses only the text that the \
         model wrote. The prompt, the passages and the messages of the loop are masked: the model \
         reads them, but they do not enter the loss.</p><p class=legend><span class=\"chip sampled\">model · trained \
         on</span><span class=\"chip masked\">prompt, passages, loop · masked</span></p>",
    );
    for pick in &picks {
        let _ = write!(
            html,
            "<article><p class=reason>{}</p><h3>{}</h3>{}",
            pick.reason,
            escape(&pick.row.question),
            verdict(pick.row)
        );
        html.push_str(&segments(pick.trajectory));
        for (name, label) in [(BEFORE, "before GRPO"), (AFTER_RANDOM, "with random passages")] {
            let other = record.evaluation(name).and_then(|other| find(other, &pick.row.example_id));
            // Without an evaluation after GRPO, the episode itself may be from one of these.
            let other = other.filter(|other| !std::ptr::eq(*other, pick.row));
            html.push_str(&counterpart(other, label));
        }
        html.push_str("</article>");
    }
    html.push_str("</section>");
    html
}

/// Selects episodes that show different things; the same ones for the same files.
fn pick(record: &RunRecord) -> Vec<Pick<'_>> {
    let kept = |result: &&EvalResult| result.rows.iter().any(|row| row.trajectory.is_some());
    let source = record
        .evaluation(AFTER)
        .filter(kept)
        .or_else(|| record.evaluations.iter().map(|(_, result)| result).find(kept));
    let Some(source) = source else { return Vec::new() };
    let wrong_before = |row: &EvalRow| {
        let before = record.evaluation(BEFORE).and_then(|before| find(before, &row.example_id));
        before.is_some_and(|before| !before.em)
    };
    let injected = |row: &EvalRow| {
        let trajectory = row.trajectory.as_ref();
        trajectory.is_some_and(|episode| {
            episode.segments.iter().any(|segment| segment.kind == SegmentKind::Injected)
        })
    };
    let criteria: [Criterion<'_>; 5] = [
        ("Wrong before training, right after it, with several searches", &|row| {
            row.em && row.searches > 1 && wrong_before(row)
        }),
        ("Wrong before training, right after it", &|row| row.em && wrong_before(row)),
        ("Right", &|row| row.em && row.searches > 0),
        ("Wrong", &|row| !row.em && row.prediction.is_some()),
        ("With an invalid action", &injected),
    ];
    let mut picks: Vec<Pick<'_>> = Vec::new();
    for (reason, matches) in criteria {
        let mut matching = source.rows.iter().filter(|row| {
            matches(row) && picks.iter().all(|pick| pick.row.example_id != row.example_id)
        });
        let first = matching.find_map(|row| Some((row, row.trajectory.as_ref()?)));
        if let Some((row, trajectory)) = first {
            picks.push(Pick { reason, row, trajectory });
        }
    }
    picks
}

fn find<'a>(result: &'a EvalResult, example_id: &str) -> Option<&'a EvalRow> {
    result.rows.iter().find(|row| row.example_id == example_id)
}

/// Returns the same question in another evaluation, folded.
fn counterpart(row: Option<&EvalRow>, label: &str) -> String {
    let kept = row.and_then(|row| Some((row, row.trajectory.as_ref()?)));
    let Some((row, trajectory)) = kept else { return String::new() };
    format!(
        "<details><summary>The same question {label}: {}</summary>{}{}</details>",
        if row.em { "right" } else { "wrong" },
        verdict(row),
        segments(trajectory)
    )
}

fn verdict(row: &EvalRow) -> String {
    let (class, mark) = if row.em { ("right", "✓ right") } else { ("wrong", "✗ wrong") };
    let answer = match (&row.prediction, row.end) {
        (Some(answer), _) => format!("answered “{}”", escape(answer)),
        (None, EndReason::Answered) => "gave no readable answer".to_owned(),
        (None, EndReason::TurnLimit) => "ran out of turns".to_owned(),
        (None, EndReason::ContextLimit) => "ran out of context".to_owned(),
        (None, EndReason::SearchFailed) => "stopped at a failed search".to_owned(),
    };
    let golden: Vec<String> =
        row.golden_answers.iter().map(|golden| format!("“{}”", escape(golden))).collect();
    let searches = if row.searches == 1 { "search" } else { "searches" };
    format!(
        "<p class=verdict><span class=\"badge {class}\">{mark}</span> {answer}; golden: {}; {} \
         {searches}</p>",
        golden.join(" or "),
        row.searches
    )
}

fn segments(trajectory: &Trajectory) -> String {
    let mut html = String::from("<div class=episode>");
    for segment in &trajectory.segments {
        html.push_str(&segment_html(segment));
    }
    html.push_str("</div>");
    html
}

fn segment_html(segment: &Segment) -> String {
    let (class, writer) = match segment.kind {
        SegmentKind::Prompt => ("masked", "prompt"),
        SegmentKind::Sampled => ("sampled", "model"),
        SegmentKind::Observation => ("masked", "passages"),
        SegmentKind::Injected => ("masked injected", "loop"),
    };
    let tokens = segment.token_ids.len();
    let noun = if tokens == 1 { "token" } else { "tokens" };
    format!(
        "<div class=\"segment {class}\"><span class=who>{writer}<small>{tokens} {noun}</small>\
         </span><div class=text>{}</div></div>",
        with_tags(segment.text.trim_matches('\n'))
    )
}

/// Escapes the text and highlights the tags of the protocol.
fn with_tags(text: &str) -> String {
    let mut html = escape(text);
    for tag in TAGS {
        let tag = escape(tag);
        html = html.replace(&tag, &format!("<b>{tag}</b>"));
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_highlighted_and_everything_else_is_escaped() {
        let html = with_tags("<search>a & b</search> <img src=x onerror=alert(1)>");
        assert_eq!(
            html,
            "<b>&lt;search&gt;</b>a &amp; b<b>&lt;/search&gt;</b> &lt;img src=x \
             onerror=alert(1)&gt;"
        );
    }
}
