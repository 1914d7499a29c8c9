//! The report as text: a heading a part, one fact a line.

use std::fmt::Write as _;

use super::{Facts, Memory, ModelFacts, ModelSource, Part, memory, plan, tokens, warnings};
use crate::config::Config;

/// Width of the headings' column.
const HEADING: usize = 12;

/// All that `trainer lint` prints.
pub fn report(config: &Config, facts: &Facts) -> String {
    let mut text = String::new();
    put(&mut text, "objective", &[config.objective_in_words()]);
    put(&mut text, "step", &step_lines(config));
    put(&mut text, "run", &run_lines(config, facts));
    put(&mut text, "rate", &rate_lines(config));
    put(&mut text, "sampling", &sampling_lines(config));
    put(&mut text, "lengths", &length_lines(config, facts));
    match &facts.model {
        ModelSource::Known(model) => {
            put(&mut text, "memory", &memory_lines(config, model));
            put(&mut text, "work", &work_lines(config, model));
        }
        ModelSource::Unknown(reason) => {
            put(&mut text, "memory", &[format!("not known: {reason}")]);
        }
    }
    put(&mut text, "time", &[time_line(config, facts)]);
    let warnings = warnings(config, facts);
    let count = match warnings.len() {
        0 => vec!["none".to_owned()],
        _ => warnings,
    };
    put(&mut text, "warnings", &count);
    text
}

fn put(text: &mut String, heading: &str, lines: &[String]) {
    for (index, line) in lines.iter().enumerate() {
        let shown = if index == 0 { heading } else { "" };
        let _ = writeln!(text, "{shown:HEADING$}{line}");
    }
}

fn step_lines(config: &Config) -> Vec<String> {
    let plan = plan(config);
    let training = &config.training;
    let mut lines = vec![
        format!(
            "{} questions x {} = {} trajectories",
            training.prompts_per_step, training.group_size, plan.step_trajectories
        ),
        format!(
            "{} updates of {} trajectories, each trained on {} times",
            plan.step_updates, plan.update_trajectories, training.epochs_per_step
        ),
        format!(
            "an episode searches {} times and generates {} times at most",
            plan.searches_most, plan.generations_most
        ),
    ];
    if config.algorithm.dynamic_sampling {
        lines.push(format!("up to {} rollouts a step", config.algorithm.sampling_rounds));
    }
    lines
}

fn run_lines(config: &Config, facts: &Facts) -> Vec<String> {
    let plan = plan(config);
    let training = &config.training;
    let mut line = format!("{} steps, {} updates of the policy", training.steps, plan.updates);
    if plan.critic_updates > 0 {
        let _ = write!(line, ", {} of the critic", plan.critic_updates);
    }
    let asked = training.steps as f64 * training.prompts_per_step as f64;
    let questions = match facts.questions {
        Some(count) => {
            format!(
                "{asked} questions asked, {:.2} times all {count} there are",
                asked / count as f64
            )
        }
        None => format!("{asked} questions asked; data.train is not there to be counted"),
    };
    vec![line, questions]
}

fn rate_lines(config: &Config) -> Vec<String> {
    let plan = plan(config);
    let warmup = config.training.warmup_updates;
    let share = 100.0 * (warmup as f64 / plan.updates.max(1) as f64).min(1.0);
    let [first, warmed, last] = plan.rates.map(rounded);
    vec![
        format!("warms up over {warmup} of {} updates, {share:.1} % of the run", plan.updates),
        format!("{first:e} at the first update, {warmed:e} after the warm-up, {last:e} at the end"),
    ]
}

fn sampling_lines(config: &Config) -> Vec<String> {
    let rollout = &config.rollout;
    let bias = if rollout.top_p < 1.0 { "biases ratios" } else { "all of the mass" };
    let correction = match config.algorithm.importance_most {
        most if most > 0.0 => format!("corrected for the sampler by at most {most}"),
        _ => "not corrected for the sampler".to_owned(),
    };
    vec![
        format!(
            "temperature {}, by which the trainer divides logits as well; top_p {}: {bias}",
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
    let positions = limit.map_or_else(|| "not known".to_owned(), |positions| positions.to_string());
    vec![
        format!(
            "prompt {} + {} turns x {} + {turns} observations x {} = {most} tokens at most",
            rollout.max_prompt_tokens,
            turns + 1,
            rollout.max_response_tokens,
            rollout.max_observation_tokens
        ),
        format!("context {context}, positions of the model {positions}"),
        format!(
            "a longer question is refused, never cut; {} passages x {} tokens in an observation of {}",
            config.retriever.top_k, rollout.max_passage_tokens, rollout.max_observation_tokens
        ),
    ]
}

fn memory_lines(config: &Config, model: &ModelFacts) -> Vec<String> {
    let memory = memory(config, model);
    let row = |part: &Part| format!("  {:14}{:>10}  {}", part.name, size(part.bytes), part.how);
    let held = Memory::total(&memory.held);
    let update = held.saturating_add(Memory::total(&memory.update));
    let checkpoint = Memory::total(&memory.checkpoint);
    let mut lines = vec![format!("rollout {}: held throughout", size(held))];
    lines.extend(memory.held.iter().map(row));
    if !memory.host.is_empty() {
        lines.push(format!(
            "host {}: held in the memory of the host",
            size(Memory::total(&memory.host))
        ));
        lines.extend(memory.host.iter().map(row));
    }
    if !memory.scoring.is_empty() {
        let scoring = held.saturating_add(Memory::total(&memory.scoring));
        lines.push(format!("log-probs {}: this and, while they are computed,", size(scoring)));
        lines.extend(memory.scoring.iter().map(row));
    }
    lines.push(format!(
        "update {}: what is held and, while a micro-batch is computed,",
        size(update)
    ));
    lines.extend(memory.update.iter().map(row));
    let checkpoints = plan(config).checkpoints;
    let all = checkpoint.saturating_mul(checkpoints);
    lines.push(format!(
        "on disk {} a checkpoint, {} for {checkpoints}; the model is read from {}",
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
        format!("{} tokens a step at most, if every episode fills its context", tokens.rollout),
        format!(
            "TFLOP a step at most: generation {rollout:.2}, log-probs {scoring:.2}, update {update:.2}"
        ),
    ]
}

fn time_line(config: &Config, facts: &Facts) -> String {
    let Some(measured) = facts.measured else {
        return "not known until a step has run".to_owned();
    };
    let left = (config.training.steps as u64).saturating_sub(measured.steps);
    format!(
        "{:.1} s a step by the latest of {}, {:.1} h for the {left} left; peak {} MiB",
        measured.step_seconds,
        measured.steps,
        measured.step_seconds * left as f64 / 3600.0,
        measured.peak_mib
    )
}

/// The three digits that matter.
fn rounded(rate: f64) -> f64 {
    format!("{rate:.2e}").parse().unwrap_or(rate)
}

/// Bytes in decimal units.
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
