//! Counters, limits and endings of single episodes.

use super::scripted::{ScriptedEngine, ScriptedSearcher, Timing, documents, jobs, settings};
use crate::engine::{Generation, StopReason};
use crate::rollout::episode::{Action, Episode, Event, INVALID_ACTION_TEXT};
use crate::rollout::observation::ObservationBudget;
use crate::rollout::{
    EndReason, EpisodeLimits, RolloutSettings, SegmentKind, Trajectory, roll_out,
};
use crate::token::{CHARACTERS_END_ID, Tokenizer};

fn run(engine: &mut ScriptedEngine, prompt: &str, settings: &RolloutSettings) -> Trajectory {
    let passage = "Title\nwords of a passage that is much longer than a little budget";
    let mut searcher =
        ScriptedSearcher::new(documents(&[("*", &[passage, passage])]), Timing::Immediate);
    let tokenizer = Tokenizer::characters();
    let jobs = jobs(&[prompt]);
    let rollout = roll_out(engine, &mut searcher, &tokenizer, jobs, settings, &mut ()).unwrap();
    rollout.trajectories.into_iter().next().unwrap()
}

#[test]
fn by_default_a_turn_ends_at_the_action_that_is_completed_first() {
    let mut engine = ScriptedEngine::from_texts(&[&["<answer>x</answer><search>y</search>"]]);
    let trajectory = run(&mut engine, "p", &settings(false));
    assert_eq!(trajectory.end, EndReason::Answered);
    assert_eq!(trajectory.segments[1].text, "<answer>x</answer>");
}

#[test]
fn an_empty_query_is_a_search() {
    let mut engine = ScriptedEngine::from_texts(&[&["<search> </search>", "<answer>x</answer>"]]);
    let trajectory = run(&mut engine, "p", &settings(false));
    assert_eq!(trajectory.searches[0].query, "");
    assert_eq!((trajectory.valid_searches, trajectory.valid_actions), (1, 2));
}

#[test]
fn a_search_in_the_last_turn_is_not_sent() {
    let search: &[&str] = &["<search>q</search>"; 9];
    for max_turns in [0, 1, 3] {
        let mut engine = ScriptedEngine::from_texts(&[search]);
        let settings = RolloutSettings { max_turns, ..settings(false) };
        let trajectory = run(&mut engine, "p", &settings);
        assert_eq!(trajectory.end, EndReason::TurnLimit);
        assert_eq!(trajectory.searches.len(), max_turns);
        assert_eq!(trajectory.valid_searches, max_turns + 1, "counted though not sent");
        assert_eq!(engine.sequences[&0].inputs.len(), max_turns + 1);
        assert_eq!(trajectory.segments.last().unwrap().kind, SegmentKind::Sampled);
    }
}

#[test]
fn a_turn_that_ends_without_an_action_is_answered_by_the_message() {
    let mut engine = ScriptedEngine::from_texts(&[&["only thoughts", "<answer>x</answer>"]]);
    engine.says_end = true;
    let trajectory = run(&mut engine, "p", &settings(false));
    let [_, thoughts, message, answer] = &trajectory.segments[..] else { panic!("four segments") };
    assert_eq!(thoughts.text, "only thoughts", "the end token is not text");
    assert_eq!(thoughts.token_ids.last(), Some(&CHARACTERS_END_ID), "but it was sampled");
    assert_eq!(message.kind, SegmentKind::Injected);
    assert_eq!(message.text, INVALID_ACTION_TEXT);
    assert_eq!(answer.text, "<answer>x</answer>");
    assert_eq!((trajectory.invalid_actions, trajectory.turns), (1, 2));
    assert_eq!(answer.policy_version, 3);
}

#[test]
fn a_turn_is_cut_at_its_token_limit() {
    let mut engine = ScriptedEngine::from_texts(&[&["0123456789abc", "<answer>x</answer>"]]);
    let settings = RolloutSettings { max_turn_tokens: 10, max_turns: 1, ..settings(false) };
    let trajectory = run(&mut engine, "p", &settings);
    assert_eq!(trajectory.segments[1].text, "0123456789");
    assert_eq!((trajectory.length_stops, trajectory.end), (2, EndReason::TurnLimit));
}

#[test]
fn the_question_stays_whole_and_the_context_within_its_limit() {
    let script: &[&str] = &["<search>q</search>"; 9];
    let mut ends = Vec::new();
    for limit in 0..1000 {
        let mut engine = ScriptedEngine::from_texts(&[script]);
        engine.max_context_tokens = limit;
        let settings = RolloutSettings { min_turn_tokens: 20, ..settings(false) };
        let trajectory = run(&mut engine, "a question", &settings);
        assert_eq!(trajectory.segments[0].text, "a question");
        assert!(trajectory.token_ids().len() <= limit.max("a question".len()), "{limit}");
        let text: String = trajectory.segments.iter().map(|s| s.text.as_str()).collect();
        assert_eq!(text.matches("<information>").count(), text.matches("</information>").count());
        if trajectory.end == EndReason::TurnLimit {
            assert_eq!(trajectory.searches.len(), 4);
        } else {
            assert_eq!(trajectory.end, EndReason::ContextLimit);
        }
        ends.push((trajectory.end, trajectory.shortened_observations > 0));
    }
    for seen in [
        (EndReason::ContextLimit, false),
        (EndReason::ContextLimit, true),
        (EndReason::TurnLimit, true),
        (EndReason::TurnLimit, false),
    ] {
        assert!(ends.contains(&seen), "{seen:?} did not happen");
    }
}

#[test]
fn the_configured_context_limit_holds_below_the_engines() {
    let mut engine = ScriptedEngine::from_texts(&[&["0123456789"; 9]]);
    let settings = RolloutSettings { max_context_tokens: 300, ..settings(false) };
    let trajectory = run(&mut engine, "p", &settings);
    assert_eq!(trajectory.end, EndReason::ContextLimit);
    assert!(trajectory.token_ids().len() <= 300);
}

fn limits() -> EpisodeLimits {
    EpisodeLimits {
        max_turns: 1,
        max_turn_tokens: 50,
        min_turn_tokens: 1,
        observation: ObservationBudget { max_tokens: 100, max_passage_tokens: 100 },
        max_context_tokens: 1000,
        max_sampled_tokens: usize::MAX,
    }
}

fn generation(text: &str) -> Generation {
    let token_ids = Tokenizer::characters().encode(text).unwrap();
    let log_probs = vec![0.0; token_ids.len()];
    let stop = StopReason::EndOfSequence;
    Generation { sequence: 0, token_ids, log_probs, stop, policy_version: 0 }
}

#[test]
fn events_out_of_order_are_errors() {
    let tokenizer = Tokenizer::characters();
    let mut episode = Episode::new(jobs(&["p"]).remove(0), limits());
    let early = episode.step(Event::Found(Vec::new()), &tokenizer).unwrap_err().to_string();
    assert_eq!(early, "an episode received passages while it was not started");
    let action = episode.step(Event::Started, &tokenizer).unwrap();
    assert_eq!(action, Action::Generate { append: vec![u32::from('p')], max_new_tokens: 50 });
    assert!(episode.step(Event::SearchFailed, &tokenizer).is_err());
    let answer = Event::Generated(generation("<answer>x</answer>"));
    assert_eq!(episode.step(answer.clone(), &tokenizer).unwrap(), Action::Finish);
    assert!(episode.step(answer, &tokenizer).is_err(), "an episode ends once");
}

#[test]
fn a_generation_without_its_log_probs_is_an_error() {
    let tokenizer = Tokenizer::characters();
    let mut episode = Episode::new(jobs(&["p"]).remove(0), limits());
    episode.step(Event::Started, &tokenizer).unwrap();
    let mut broken = generation("abc");
    broken.log_probs.pop();
    assert!(episode.step(Event::Generated(broken), &tokenizer).is_err());
}
