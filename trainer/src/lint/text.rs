//! The report as text: a heading for each part, one fact per line.

use std::fmt::Write as _;

use super::{
    Facts, Memory, ModelFacts, ModelSource, Part, RetrieverReply, memory, plan, tokens, warnings,
};
use crate::config::{Config, counted};
use crate::search::Passage;

/// Width of the column of headings.
const HEADING_CHARS: usize = 12;
/// Passages that are shown.
const SHOWN_PASSAGES: usize = 3;
/// Characters of a text that are shown.
const SHOWN_CHARS: usize = 70;

/// Returns the output of `trainer lint`.
pub fn report(config: &Config, facts: &Facts) -> String {
    let mut text = String::new();
    push_part(&mut text, "objective", &[config.objective_in_words()]);
    push_part(&mut text, "step", &step_lines(config));
    push_part(&mut text, "run", &run_lines(config, facts));
    push_part(&mut text, "rate", &rate_lines(config));
    push_part(&mut text, "sampling", &sampling_lines(config));
    push_part(&mut text, "lengths", &length_lines(config, facts));
    match &facts.model {
        ModelSource::Known(model) => {
            push_part(&mut text, "memory", &memory_lines(config, model));
            push_part(&mut text, "work", &work_lines(config, model));
        }
        ModelSource::Unknown(reason) => {
            push_part(&mut text, "memory", &[format!("not known: {reason}")]);
        }
    }
    push_part(&mut text, "retriever", &retriever_lines(&facts.retrievers));
    push_part(&mut text, "time", &[time_line(config, facts)]);
    let warnings = warnings(config, facts);
    let lines = if warnings.is_empty() { vec!["none".to_owned()] } else { warnings };
    push_part(&mut text, "warnings", &lines);
    text
}

fn push_part(text: &mut String, heading: &str, lines: &[String]) {
    for (index, line) in lines.iter().enumerate() {
        let shown = if index == 0 { heading } else { "" };
        let _ = writeln!(text, "{shown:HEADING_CHARS$}{line}");
    }
}

fn step_lines(config: &Config) -> Vec<String> {
    let plan = plan(config);
    let training = &config.training;
    let mut lines = vec![
        format!(
            "{} x {} = {}",
            counted(training.prompts_per_step as u64, "question"),
            training.group_size,
            trajectories(plan.step_trajectories)
        ),
        format!(
            "{} of {}, each used {}",
            counted(plan.step_updates, "update"),
            trajectories(plan.update_trajectories),
            times(training.epochs_per_step as u64)
        ),
        format!(
            "an episode searches at most {} and generates at most {}",
            times(plan.searches_most),
            times(plan.generations_most)
        ),
    ];
    if config.algorithm.dynamic_sampling {
        let rounds = counted(config.algorithm.sampling_rounds as u64, "rollout");
        lines.push(format!("at most {rounds} per step"));
    }
    lines
}

fn run_lines(config: &Config, facts: &Facts) -> Vec<String> {
    let plan = plan(config);
    let training = &config.training;
    let mut line = format!(
        "{}, {} of the policy",
        counted(training.steps as u64, "step"),
        counted(plan.updates, "update")
    );
    if plan.critic_updates > 0 {
        let _ = write!(line, ", {} of the critic", plan.critic_updates);
    }
    let asked = (training.steps as u64).saturating_mul(training.prompts_per_step as u64);
    let questions_asked = counted(asked, "question");
    let questions = match facts.questions {
        Some(count) => {
            let passes = asked as f64 / count as f64;
            format!("{questions_asked} asked: {passes:.2} passes over the {count} of data.train")
        }
        None => {
            format!("{questions_asked} asked; data.train does not exist, so its size is unknown")
        }
    };
    vec![line, questions]
}

fn rate_lines(config: &Config) -> Vec<String> {
    let plan = plan(config);
    let warmup = config.training.warmup_updates;
    let share = 100.0 * (warmup as f64 / plan.updates.max(1) as f64).min(1.0);
    let [first, warmed, last] = plan.rates.map(rounded);
    vec![
        format!(
            "warms up over {warmup} of {}, {share:.1} % of the run",
            counted(plan.updates, "update")
        ),
        format!("{first:e} at the first update, {warmed:e} after the warm-up, {last:e} at the end"),
    ]
}

fn sampling_lines(config: &Config) -> Vec<String> {
    let rollout = &config.rollout;
    let scope = if rollout.top_p < 1.0 {
        "biases probability ratios"
    } else {
        "samples from the whole distribution"
    };
    let correction = match config.algorithm.importance_most {
        most if most > 0.0 => {
            format!("importance weights of at most {most} correct for the sampler")
        }
        _ => "no correction for the sampler".to_owned(),
    };
    vec![
        format!(
            "temperature {}, for the trainer's log-probs as well; top_p {} {scope}",
            rollout.temperature, rollout.top_p
        ),
        correction,
    ]
}

fn length_lines(config: &Config, facts: &Facts) -> Vec<String> {
    let rollout = &config.rollout;
    let turns = rollout.max_turns;
    let most = config.episode_tokens_most();
    let limit = facts.model.known().map(|model| model.config.max_positions);
    let context = config.context_tokens(limit.unwrap_or(usize::MAX));
    let limit = match limit {
        Some(positions) => format!("the model allows {positions}"),
        None => "the model's limit is not known".to_owned(),
    };
    vec![
        format!(
            "prompt {} + {} turns x {} + {} x {} = {most} tokens at most",
            rollout.max_prompt_tokens,
            turns + 1,
            rollout.max_response_tokens,
            counted(turns as u64, "observation"),
            rollout.max_observation_tokens
        ),
        format!("context of {context} tokens; {limit}"),
        format!(
            "a longer question is refused, never cut; {} of up to {} tokens in an observation of {}",
            counted(config.retriever.top_k as u64, "passage"),
            rollout.max_passage_tokens,
            rollout.max_observation_tokens
        ),
    ]
}

fn memory_lines(config: &Config, model: &ModelFacts) -> Vec<String> {
    let memory = memory(config, model);
    let row = |part: &Part| format!("  {:14}{:>10}  {}", part.name, size(part.bytes), part.how);
    let held = Memory::total(&memory.held);
    let update = held.saturating_add(Memory::total(&memory.update));
    let checkpoint = Memory::total(&memory.checkpoint);
    let mut lines = vec![format!("rollout {}: held during the whole run", size(held))];
    lines.extend(memory.held.iter().map(row));
    if !memory.host.is_empty() {
        lines.push(format!("host {}: held in host memory", size(Memory::total(&memory.host))));
        lines.extend(memory.host.iter().map(row));
    }
    if !memory.scoring.is_empty() {
        let scoring = held.saturating_add(Memory::total(&memory.scoring));
        lines
            .push(format!("log-probs {}: with these, while log-probs are computed", size(scoring)));
        lines.extend(memory.scoring.iter().map(row));
    }
    lines.push(format!("update {}: with these, while a micro-batch is computed", size(update)));
    lines.extend(memory.update.iter().map(row));
    let checkpoints = plan(config).checkpoints;
    let all = checkpoint.saturating_mul(checkpoints);
    lines.push(format!(
        "on disk {} per checkpoint, {} for {checkpoints}; the model's files hold {}",
        size(checkpoint),
        size(all),
        size(model.stored_bytes)
    ));
    lines.extend(memory.checkpoint.iter().map(row));
    lines
}

fn work_lines(config: &Config, model: &ModelFacts) -> Vec<String> {
    let context = config.context_tokens(model.config.max_positions);
    let tokens = tokens(config, model.config.parameter_count(), context);
    let [rollout, scoring, update] =
        [tokens.rollout_operations, tokens.scoring_operations, tokens.update_operations]
            .map(|operations| operations / 1e12);
    vec![
        format!("at most {} tokens per step, if every episode fills its context", tokens.rollout),
        format!(
            "at most, in TFLOP per step: generation {rollout:.2}, log-probs {scoring:.2}, update {update:.2}"
        ),
    ]
}

fn retriever_lines(replies: &[RetrieverReply]) -> Vec<String> {
    if replies.is_empty() {
        return vec!["not asked".to_owned()];
    }
    let (mut lines, mut shown) = (Vec::new(), Vec::new());
    for reply in replies {
        match reply {
            RetrieverReply::Silent(reason)
            | RetrieverReply::Unusable(reason)
            | RetrieverReply::Mixed(reason) => lines.push(reason.clone()),
            RetrieverReply::Passages { url, question, passages, milliseconds } => {
                let found = counted(passages.len() as u64, "passage");
                lines.push(format!("{url}: {found} in {milliseconds} ms"));
                // All retrievers serve the same: the passages of one are enough.
                if shown.is_empty() {
                    shown = passage_lines(question, passages);
                }
            }
        }
    }
    lines.extend(shown);
    lines
}

fn passage_lines(question: &str, passages: &[Passage]) -> Vec<String> {
    let mut lines = vec![format!("for the question {}", shortened(question))];
    lines.extend(passages.iter().take(SHOWN_PASSAGES).enumerate().map(|(rank, passage)| {
        let (title, text) = passage.title_and_text();
        format!("  {} {title:.40} {}", rank + 1, shortened(text))
    }));
    if passages.len() > SHOWN_PASSAGES {
        lines.push("  …".to_owned());
    }
    lines
}

/// Returns the beginning of a text on one line.
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn time_line(config: &Config, facts: &Facts) -> String {
    let Some(measured) = facts.measured else {
        return "not known until a step has run".to_owned();
    };
    let left = (config.training.steps as u64).saturating_sub(measured.steps);
    format!(
        "{:.1} s per step (mean of the latest, after {}), {:.1} h for the remaining {left}; peak {} MiB",
        measured.step_seconds,
        counted(measured.steps, "step"),
        measured.step_seconds * left as f64 / 3600.0,
        measured.peak_mib
    )
}

/// Rounds to three significant digits.
fn rounded(rate: f64) -> f64 {
    format!("{rate:.2e}").parse().expect("a formatted number is a number")
}

/// Returns "once", "twice" or "N times".
fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        _ => format!("{count} times"),
    }
}

fn trajectories(count: u64) -> String {
    if count == 1 { "1 trajectory".to_owned() } else { format!("{count} trajectories") }
}

/// Returns a number of bytes in decimal units.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in UNITS {
        if value < 999.95 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}
