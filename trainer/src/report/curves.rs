//! Which curves of a run are shown, and how each is called.

use std::fmt::Write as _;

use super::chart::{Chart, Series, Size, window};
use super::markup::escape;
use crate::track::StepMetrics;

const WIDE: Size = Size { width: 880.0, height: 300.0 };
const NARROW: Size = Size { width: 400.0, height: 250.0 };
const SMALL: Size = Size { width: 300.0, height: 160.0 };

/// Reads one figure of a step.
type Figure = fn(&StepMetrics) -> f64;

/// The small charts: title, what it is, whether 0 stays in view.
const SMALL_CHARTS: [(&str, Figure, bool); 9] = [
    ("Searches per question", |row| row.searches_per_question, true),
    ("KL to the starting model (nats)", |row| row.kl, true),
    ("Entropy of a token (nats)", |row| row.entropy, true),
    ("Sampled tokens per trajectory", |row| row.response_tokens, true),
    (
        "Invalid actions per trajectory",
        |row| row.invalid_actions as f64 / row.trajectories as f64,
        true,
    ),
    ("Gradient norm", |row| row.grad_norm, true),
    ("Share of clipped tokens", |row| row.clip_fraction, true),
    ("Log-prob gap, sampler to trainer", |row| row.log_prob_gap, true),
    ("Sampled tokens per second", |row| row.tokens_per_second, true),
];

/// Charts of figures that only some algorithms have: title, figure, whether 0 stays in view, and what the
/// figure is in every step of a run without it.
const ALGORITHM_CHARTS: [(&str, Figure, bool, f64); 7] = [
    ("Weight of the KL", |row| row.algorithm.kl_coefficient, true, 0.0),
    ("Log-prob of tokens of positive advantage", |row| row.algorithm.positive_log_prob, false, 0.0),
    ("Loss of kept likelihoods", |row| row.algorithm.likelihood_loss, true, 0.0),
    ("Value loss of the critic", |row| row.algorithm.value_loss, true, 0.0),
    ("Share of clipped values", |row| row.algorithm.value_clip_fraction, true, 0.0),
    ("Gradient norm of the critic", |row| row.algorithm.critic_grad_norm, true, 0.0),
    ("Weight that corrects for the sampler", |row| row.algorithm.importance, false, 1.0),
];

/// Whether a run has a figure that is `elsewhere` in runs of other algorithms. Rows that were written
/// before there was such a figure hold 0.
fn has(metrics: &[StepMetrics], figure: Figure, elsewhere: f64) -> bool {
    let is_own = |value: f64| value != 0.0 && (value - elsewhere).abs() > f64::EPSILON;
    metrics.iter().any(|row| is_own(figure(row)))
}

fn series(metrics: &[StepMetrics], name: &str, class: &'static str, figure: Figure) -> Series {
    let points = metrics.iter().map(|row| (row.step as f64, figure(row))).collect();
    Series { name: name.to_owned(), class, points }
}

/// The section with all curves; empty without steps.
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
        .filter(|&(_, figure, _, elsewhere)| has(metrics, figure, elsewhere))
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
            format!(" The strong line is the mean over {steps} steps, the faint one each step.")
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
    // With the plain EM reward both are one line.
    let same = reward
        .points
        .iter()
        .zip(&em.points)
        .all(|((_, one), (_, other))| (one - other).abs() < 1e-9);
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
    // Two drawings, of which the style sheet shows one: scaled down to a phone, the wide one would
    // be too small to read.
    format!(
        "<figure class=main><figcaption>{title}{legend}</figcaption><div class=wide>{}</div><div \
         class=narrow>{}</div></figure>",
        chart.to_svg(WIDE),
        chart.to_svg(NARROW)
    )
}
