//! Every recorded rollout of the reference, in lock step and with independent episodes.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::scripted::{self, ScriptedEngine, ScriptedSearcher, Timing, jobs, settings};
use crate::golden;
use crate::rollout::scheduler::reference_stop_rule;
use crate::rollout::{EndReason, RolloutSettings, SegmentKind, Trajectory, roll_out};
use crate::token::Tokenizer;

#[derive(Deserialize)]
struct Case {
    name: String,
    max_turns: usize,
    top_k: usize,
    max_observation_tokens: usize,
    documents: BTreeMap<String, Vec<String>>,
    search_batches: Vec<Vec<String>>,
    trajectories: Vec<Recorded>,
}

#[derive(Deserialize)]
struct Recorded {
    prompt: String,
    script: Vec<String>,
    response: String,
    model_token_mask: String,
    turns: usize,
    finished: bool,
    valid_actions: usize,
    valid_searches: usize,
    generate_inputs: Vec<String>,
}

#[test]
fn rollout_vectors_pass_in_lock_step() {
    check_all(true, Timing::Immediate, 64);
}

#[test]
fn rollout_vectors_pass_with_episodes_apart() {
    check_all(false, Timing::Immediate, 64);
}

#[test]
fn rollout_vectors_pass_whatever_order_searches_come_back_in() {
    check_all(true, Timing::LateAndReversed, 64);
    check_all(false, Timing::LateAndReversed, 64);
}

#[test]
fn rollout_vectors_pass_with_few_episodes_at_a_time() {
    check_all(false, Timing::LateAndReversed, 2);
    check_all(true, Timing::Immediate, 1);
}

fn check_all(deterministic: bool, timing: Timing, max_running_episodes: usize) {
    let cases: Vec<Case> = golden::read("rollouts.json");
    assert!(!cases.is_empty());
    for case in &cases {
        let mut settings = RolloutSettings {
            max_turns: case.max_turns,
            top_k: case.top_k,
            max_running_episodes,
            stop: reference_stop_rule(),
            ..settings(deterministic)
        };
        settings.observation.max_tokens = case.max_observation_tokens;
        check_case(case, &settings, timing);
    }
}

fn check_case(case: &Case, settings: &RolloutSettings, timing: Timing) {
    let scripts = case.trajectories.iter().map(|recorded| recorded.script.clone()).collect();
    let mut engine = ScriptedEngine::new(scripts);
    let mut searcher = ScriptedSearcher::new(case.documents.clone(), timing);
    let prompts: Vec<&str> = case.trajectories.iter().map(|r| r.prompt.as_str()).collect();
    let tokenizer = Tokenizer::characters();
    let rollout =
        roll_out(&mut engine, &mut searcher, &tokenizer, jobs(&prompts), settings, &mut ())
            .unwrap();
    assert_eq!(rollout.trajectories.len(), case.trajectories.len());
    for (index, recorded) in case.trajectories.iter().enumerate() {
        let name = format!("{} trajectory {index}", case.name);
        let trajectory = &rollout.trajectories[index];
        check_trajectory(&name, trajectory, recorded);
        assert_eq!(engine.sequences[&(index as u64)].inputs, recorded.generate_inputs, "{name}");
        assert!(engine.released.contains(&(index as u64)), "{name}");
    }
    check_searches(case, &rollout.trajectories);
    let all_at_once = settings.max_running_episodes >= case.trajectories.len();
    if settings.deterministic && all_at_once {
        check_batches(case, &searcher);
    }
}

fn check_trajectory(name: &str, trajectory: &Trajectory, recorded: &Recorded) {
    let response = &trajectory.segments[1..];
    assert_eq!(trajectory.segments[0].kind, SegmentKind::Prompt, "{name}");
    assert_eq!(trajectory.segments[0].text, recorded.prompt, "{name}");
    let text: String = response.iter().map(|segment| segment.text.as_str()).collect();
    assert_eq!(text, recorded.response, "{name}");
    let skipped = trajectory.segments[0].token_ids.len();
    let ids = Tokenizer::characters().decode(&trajectory.token_ids()[skipped..]).unwrap();
    assert_eq!(ids, recorded.response, "{name}");
    let mask: String = trajectory.sampled_mask()[skipped..]
        .iter()
        .map(|sampled| if *sampled { '1' } else { '0' })
        .collect();
    assert_eq!(mask, recorded.model_token_mask, "{name}");
    assert_eq!(trajectory.turns, recorded.turns, "{name}");
    assert_eq!(trajectory.end == EndReason::Answered, recorded.finished, "{name}");
    assert_eq!(trajectory.valid_actions, recorded.valid_actions, "{name}");
    assert_eq!(trajectory.valid_searches, recorded.valid_searches, "{name}");
    let generations = response.iter().filter(|s| s.kind == SegmentKind::Sampled).count();
    assert_eq!(
        trajectory.invalid_actions,
        generations - recorded.valid_actions,
        "every generation is either a valid or an invalid action: {name}"
    );
    let sampled_at = trajectory.sampled_mask().iter().enumerate().filter(|(_, s)| **s).fold(
        Vec::new(),
        |mut log_probs, (position, _)| {
            log_probs.push(scripted::log_prob(position));
            log_probs
        },
    );
    assert_eq!(trajectory.sampled_log_probs(), sampled_at, "{name}");
}

/// Checks the queries of each turn over all episodes. The reference sends them in one batch.
fn check_searches(case: &Case, trajectories: &[Trajectory]) {
    let mut queries_of_turn: Vec<Vec<&str>> = vec![Vec::new(); case.max_turns + 1];
    for trajectory in trajectories {
        let mut queries = trajectory.searches.iter().map(|search| search.query.as_str());
        let mut turn = 0;
        for segment in &trajectory.segments {
            match segment.kind {
                SegmentKind::Sampled => turn += 1,
                SegmentKind::Observation => queries_of_turn[turn - 1].push(queries.next().unwrap()),
                SegmentKind::Prompt | SegmentKind::Injected => {}
            }
        }
        assert_eq!(queries.next(), None, "{}", case.name);
    }
    for (turn, queries) in queries_of_turn.iter_mut().enumerate() {
        let mut recorded: Vec<&str> =
            case.search_batches.get(turn).into_iter().flatten().map(String::as_str).collect();
        recorded.sort_unstable();
        queries.sort_unstable();
        assert_eq!(*queries, recorded, "{} turn {turn}", case.name);
    }
}

/// Checks the batches of a rollout in lock step: those of the reference without its empty ones.
fn check_batches(case: &Case, searcher: &ScriptedSearcher) {
    let sent: Vec<Vec<&str>> = searcher
        .batches
        .iter()
        .map(|batch| batch.iter().map(|request| request.query.as_str()).collect())
        .collect();
    let recorded: Vec<Vec<&str>> = case
        .search_batches
        .iter()
        .filter(|batch| !batch.is_empty())
        .map(|batch| batch.iter().map(String::as_str).collect())
        .collect();
    let sorted = |mut batches: Vec<Vec<&str>>| -> Vec<Vec<String>> {
        for batch in &mut batches {
            batch.sort_unstable();
        }
        batches.into_iter().map(|batch| batch.into_iter().map(str::to_owned).collect()).collect()
    };
    assert_eq!(sorted(sent), sorted(recorded), "{}", case.name);
}
