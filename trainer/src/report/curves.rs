//! The training curves of the report and their titles.

use std::fmt::Write as _;

use super::chart::{Chart, Series, Size, window};
use super::markup::escape;
use crate::track::StepMetrics;

const WIDE: Size = Size { width: 880.0, height: 300.0 };
const NARROW: Size = Size { width: 400.0, height: 250.0 };
const SMALL: Size = Size { width: 300.0, height: 160.0 };

/// A function that reads one figure of a step.
type Figure = fn(&StepMetrics) -> f64;

/// The small charts: title, figure, and `true` if the y axis includes 0.
const SMALL_CHARTS: [(&str, Figure, bool); 9] = [
    ("Searches per question", |row| row.searches_per_question, true),
    ("KL to the starting model (nats)", |row| row.kl, true),
    ("Entropy per token (nats)", |row| row.entropy, true),
    ("Sampled tokens per trajectory", |row| row.response_tokens, true),
    (
        "Invalid actions per trajectory",
        |row| row.invalid_actions as f64 / row.trajectories as f64,
        true,
    ),
    ("Gradient norm", |row| row.grad_norm, true),
    ("Share of clipped tokens", |row| row.clip_fraction, true),
    ("Log-prob gap of sampler and trainer", |row| row.log_prob_gap, true),
    ("Sampled tokens per second", |row| row.tokens_per_second, true),
];

/// Charts of figures that only some algorithms have: title, figure, `true` if the y axis includes 0, and the
/// neutral value, which the figure has in runs of other algorithms.
const ALGORITHM_CHARTS: [(&str, Figure, bool, f64); 7] = [
    ("KL weight", |row| row.algorithm.kl_coefficient, true, 0.0),
    (
        "Log-prob of tokens with a positive advantage",
        |row| row.algorithm.positive_log_prob,
        false,
        0.0,
    ),
    ("Likelihood loss", |row| row.algorithm.likelihood_loss, true, 0.0),
    ("Value loss of the critic", |row| row.algorithm.value_loss, true, 0.0),
    ("Share of clipped values", |row| row.algorithm.value_clip_fraction, true, 0.0),
    ("Gradient norm of the critic", |row| row.algorithm.critic_grad_norm, true, 0.0),
    ("Correction weight for the sampler", |row| row.algorithm.importance, false, 1.0),
];

/// Returns `true` if a figure differs from its neutral value in some step. Rows of older versions, without
/// the figure, hold 0.
fn has(metrics: &[StepMetrics], figure: Figure, neutral: f64) -> bool {
    let is_own = |value: f64| value != 0.0 && (value - neutral).abs() > f64::EPSILON;
    metrics.iter().any(|row| is_own(figure(row)))
}

fn series(metrics: &[StepMetrics], name: &str, class: &'static str, figure: Figure) -> Series {
    let points = metrics.iter().map(|row| (row.step as f64, figure(row))).collect();
    Series { name: name.to_owned(), class, points }
}

/// Returns the section with all curves; empty without steps.
pub(super) fn section(metrics: &[StepMetrics]) -> String {
    if metrics.is_empty() {
        return String::new();
    }
    let mut html = String::from("<section><h2>Training, step by step</h2>");
    let _ = write!(html, "<p class=lead>{}</p>", lead(metrics));
    html.push_str(&main_chart(metrics));
    html.push_str("<div class=charts>");
    let own = ALGORITHM_CHARTS
        .into_iter()
        .filter(|&(_, figure, _, neutral)| has(metrics, figure, neutral))
        .map(|(title, figure, from_zero, _)| (title, figure, from_zero));
    for (title, figure, from_zero) in SMALL_CHARTS.into_iter().chain(own) {
        let chart = Chart {
            title: title.to_owned(),
            series: vec![series(metrics, title, "a", figure)],
            from_zero,
        };
        let _ = write!(
            html,
            "<figure><figcaption>{}</figcaption>{}</figure>",
            escape(title),
            chart.to_svg(SMALL)
        );
    }
    html.push_str("</div></section>");
    html
}

fn lead(metrics: &[StepMetrics]) -> String {
    let smoothing = match window(metrics.len()) {
        1 => String::new(),
        steps => {
            format!(" The faint line shows each step, the strong one the mean over {steps} steps.")
        }
    };
    let dropped: u64 = metrics.iter().map(|row| row.dropped_trajectories).sum();
    let trajectories: u64 = metrics.iter().map(|row| row.trajectories).sum();
    let lost = if dropped == 0 {
        "none was dropped for a failed search".to_owned()
    } else {
        let verb = if dropped == 1 { "was" } else { "were" };
        format!("{dropped} {verb} dropped for a failed search")
    };
    format!("{} steps, {trajectories} trajectories; {lost}.{smoothing}", metrics.len())
}

fn main_chart(metrics: &[StepMetrics]) -> String {
    let reward = series(metrics, "reward", "a", |row| row.reward_mean);
    let em = series(metrics, "EM", "b", |row| row.em);
    // With the plain EM reward, both lines are the same.
    let same = reward
        .points
        .iter()
        .zip(&em.points)
        .all(|((_, reward), (_, em))| (reward - em).abs() < 1e-9);
    let (title, series) = if same {
        ("Mean reward per step (equal to EM)", vec![reward])
    } else {
        ("Mean reward and EM per step", vec![reward, em])
    };
    let legend = if same {
        String::new()
    } else {
        "<span class=key><i class=a></i>reward</span><span class=key><i class=b></i>EM</span>"
            .to_owned()
    };
    let chart = Chart { title: title.to_owned(), series, from_zero: true };
    // The style sheet shows one of the two drawings. The wide one would be illegible on a phone.
    format!(
        "<figure class=main><figcaption>{title}{legend}</figcaption><div class=wide>{}</div><div \
         class=narrow>{}</div></figure>",
        chart.to_svg(WIDE),
        chart.to_svg(NARROW)
    )
}
