//! The whole page: heading, headline figures, table, and the sections in order.

use std::fmt::Write as _;

use super::comparison::{Comparison, Headline};
use super::markup::{escape, signed};
use super::{RunRecord, curves, episodes, facts};
use crate::eval::{EvalResult, Proportion};

pub(super) const STYLE: &str = include_str!("style.css");

/// Width of the drawing of an interval, in its own units.
const TRACK: f64 = 200.0;

pub(super) fn page(record: &RunRecord) -> String {
    let title = escape(&record.title);
    let mut html = format!(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport \
         content=\"width=device-width, initial-scale=1\"><meta name=color-scheme content=\"light \
         dark\"><title>{title}</title><style>{STYLE}</style></head><body><main><header>\
         <h1>{title}</h1>{}</header>",
        summary(record)
    );
    html.push_str(&headline(record));
    html.push_str(&evaluations(record));
    html.push_str(&curves::section(&record.metrics));
    html.push_str(&episodes::section(record));
    html.push_str(&facts::section(record));
    html.push_str("</main></body></html>\n");
    // Keep the percent sign on the line of its number.
    html.replace("95 %", "95\u{a0}%")
}

fn summary(record: &RunRecord) -> String {
    let mut parts = Vec::new();
    if let Some(last) = record.metrics.last() {
        parts.push(format!("{} training steps against a live retriever", last.step));
    }
    if let Some(questions) = record.evaluations.iter().map(|(_, result)| result.rows.len()).max() {
        parts.push(format!("evaluated on {questions} held-out questions"));
    }
    format!("<p class=lead>{}.</p>", parts.join(", "))
}

/// Returns the two main figures of the run.
fn headline(record: &RunRecord) -> String {
    let headline = Headline::from_record(record);
    let mut tiles = String::new();
    if let Some(training) = &headline.training {
        tiles.push_str(&tile("Gain from training", training));
    }
    if let Some(control) = &headline.control {
        tiles.push_str(&tile("Loss with random passages", control));
    }
    if tiles.is_empty() { tiles } else { format!("<div class=tiles>{tiles}</div>") }
}

fn tile(title: &str, comparison: &Comparison<'_>) -> String {
    let interval = comparison.difference_interval();
    let class = if comparison.intervals_overlap() { "unsure" } else { "sure" };
    format!(
        "<div class=tile><h2>{title}</h2><p class=big>{}<small> EM</small></p><p>{} → {}</p><p \
         class=note>95 % interval of the difference: {} to {}</p><p class=\"note {class}\">EM of \
         “{}” and “{}”: {}.</p></div>",
        signed(comparison.difference()),
        figure(comparison.from.em()),
        figure(comparison.to.em()),
        signed(interval.low),
        signed(interval.high),
        escape(&comparison.from.name),
        escape(&comparison.to.name),
        comparison.verdict(),
    )
}

fn figure(share: Proportion) -> String {
    format!("{:.3}", share.value())
}

/// Returns the table of all evaluations. A plot shows every EM on the same scale.
fn evaluations(record: &RunRecord) -> String {
    if record.evaluations.is_empty() {
        return String::new();
    }
    let results = || record.evaluations.iter().map(|(_, result)| result);
    let top = results().map(|result| result.em().interval().high).fold(0.0, f64::max);
    // The scale ends at the next tenth above the highest interval.
    let scale = ((top * 10.0).ceil() / 10.0).clamp(0.1, 1.0);
    let mut html = String::from(
        "<section><h2>Exact match on held-out questions</h2><div class=scroll><table class=evals>\
         <thead><tr><th scope=col>Model<th scope=col>Passages<th scope=col class=n>EM<th scope=col \
         class=n>95 % interval",
    );
    let _ = write!(
        html,
        "<th scope=col class=plot>{}<th scope=col class=\"n more\">F1<th scope=col class=\"n \
         more\">Contains<th scope=col class=\"n more\">Searches<th scope=col class=\"n \
         more\">Answered</tr></thead><tbody>",
        scale_ends(scale)
    );
    for result in results() {
        html.push_str(&evaluation_row(result, scale));
    }
    html.push_str(
        "</tbody></table></div><p class=note>EM: the answer equals a golden answer after \
         normalisation. Intervals: Wilson. “Contains”: the answer contains a golden answer. \
         Searches: mean per question. Decoding is greedy unless the configuration says \
         otherwise.</p></section>",
    );
    html
}

fn scale_ends(scale: f64) -> String {
    format!("<span class=ends><span>0</span><span>{scale:.1}</span></span>")
}

fn evaluation_row(result: &EvalResult, scale: f64) -> String {
    let interval = result.em().interval();
    let passages = match result.searches {
        crate::eval::Searches::Retriever => "retrieved",
        crate::eval::Searches::Random => "random",
        crate::eval::Searches::None => "none",
    };
    format!(
        "<tr><th scope=row>{}<small>{} questions{}</small><td>{passages}<td class=\"n strong\">{}<td class=n>{:.3}–{:.3}<td \
         class=plot>{}<td class=\"n more\">{:.3}<td class=\"n more\">{}<td class=\"n \
         more\">{:.2}<td class=\"n more\">{}</tr>",
        escape(&result.name),
        result.rows.len(),
        ceiling(result),
        figure(result.em()),
        interval.low,
        interval.high,
        interval_drawing(result.em(), scale),
        result.f1().value,
        figure(result.sub_em()),
        result.searches_per_question(),
        figure(result.answered()),
    )
}

/// Returns the limits that belong to the score: the turns, and the ceiling of the corpus.
fn ceiling(result: &EvalResult) -> String {
    let turns = result.max_turns.map(|turns| format!(", at most {turns} turns"));
    let ceiling = result
        .ceiling
        .as_ref()
        .map(|ceiling| format!(", ceiling of the corpus {:.3}", ceiling.share().value()));
    format!("{}{}", turns.unwrap_or_default(), ceiling.unwrap_or_default())
}

fn interval_drawing(share: Proportion, scale: f64) -> String {
    let interval = share.interval();
    let x = |value: f64| (value / scale).clamp(0.0, 1.0) * (TRACK - 12.0) + 6.0;
    if share.total == 0 {
        return String::new();
    }
    format!(
        "<svg viewBox=\"0 0 {TRACK} 22\" aria-hidden=true><path class=track d=\"M6 11H{:.1}\"/>\
         <path class=interval d=\"M{:.1} 11H{:.1}\"/><circle class=dot cx={:.1} cy=11 r=5 /></svg>",
        TRACK - 6.0,
        x(interval.low),
        x(interval.high),
        x(share.value())
    )
}
