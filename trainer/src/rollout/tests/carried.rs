//! Episodes that one rollout leaves unfinished and the next one completes.

use super::scripted::{ScriptedEngine, ScriptedSearcher, Timing, documents, jobs, settings};
use crate::rollout::trajectory::SegmentKind;
use crate::rollout::{CarriedEpisode, Rollout, RolloutSettings, RolloutWork, roll_out};
use crate::token::Tokenizer;

const SLOW: [&str; 3] = [
    "<think>which one</think><search>first</search>",
    "<think>and then</think><search>second</search>",
    "<answer>both</answer>",
];

fn play(
    engine: &mut ScriptedEngine,
    timing: Timing,
    work: RolloutWork,
    enough: Option<usize>,
) -> Rollout {
    let mut searcher = ScriptedSearcher::new(documents(&[("*", &["t\ntext"])]), timing);
    let settings = RolloutSettings { enough_prompts: enough, ..settings(false) };
    let tokenizer = Tokenizer::characters();
    roll_out(engine, &mut searcher, &tokenizer, work, &settings, &mut ()).unwrap()
}

fn turns_done(episode: &CarriedEpisode) -> usize {
    let sampled = |kind| kind == SegmentKind::Sampled;
    episode.trajectory().segments.iter().filter(|segment| sampled(segment.kind)).count()
}

/// The length of the other episode decides where the rollout is cut: in each turn, in each search, and
/// before the first token.
#[test]
fn a_carried_episode_ends_as_an_uninterrupted_one() {
    let prompts = ["short", "slow"];
    let whole = {
        let mut engine = ScriptedEngine::from_texts(&[&["<answer>a</answer>"], &SLOW]);
        play(&mut engine, Timing::Immediate, jobs(&prompts).into(), None)
    };
    assert!(whole.carried.is_empty());
    let mut cut_after_turns = [0; 3];
    for timing in [Timing::Immediate, Timing::LateAndReversed] {
        for length in 0..130 {
            let says = format!("{}<answer>a</answer>", "x".repeat(length));
            let mut engine = ScriptedEngine::from_texts(&[&[says.as_str()], &SLOW]);
            let first = play(&mut engine, timing, jobs(&prompts).into(), Some(1));
            if first.carried.is_empty() {
                // Both ended in the same step.
                assert_eq!(first.trajectories.len(), 2, "{timing:?} {length}");
                continue;
            }
            assert_eq!((first.trajectories.len(), first.carried.len()), (1, 1));
            if first.carried[0].prompt() == 0 {
                assert_eq!(first.trajectories[0].segments, whole.trajectories[1].segments);
                continue;
            }
            let done = turns_done(&first.carried[0]);
            cut_after_turns[done] += 1;
            let mut engine = ScriptedEngine::from_texts(&[&SLOW[done..]]);
            let carried = first.carried.into_iter().map(|episode| episode.with_prompt(7)).collect();
            let work = RolloutWork { carried, jobs: Vec::new() };
            let second = play(&mut engine, timing, work, None);
            let [resumed] = &second.trajectories[..] else { panic!("{second:?}") };
            let expected = &whole.trajectories[1];
            assert_eq!(resumed.prompt, 7);
            assert_eq!(resumed.segments, expected.segments, "{timing:?} {length}");
            assert_eq!(resumed.searches, expected.searches);
            assert_eq!((resumed.turns, resumed.end), (expected.turns, expected.end));
        }
    }
    assert!(cut_after_turns.iter().all(|&cuts| cuts > 10), "{cut_after_turns:?}");
}

#[test]
fn a_prompt_counts_as_done_once_all_of_its_episodes_have_ended() {
    let answer = ["<answer>a</answer>"];
    let mut engine = ScriptedEngine::from_texts(&[&answer, &SLOW, &answer, &answer, &SLOW]);
    let mut jobs = jobs(&["p", "p", "q", "q", "r"]);
    for (job, prompt) in jobs.iter_mut().zip([0, 0, 1, 1, 2]) {
        job.prompt = prompt;
    }
    let rollout = play(&mut engine, Timing::Immediate, jobs.into(), Some(1));
    let finished: Vec<usize> = rollout.trajectories.iter().map(|done| done.prompt).collect();
    let carried: Vec<usize> = rollout.carried.iter().map(CarriedEpisode::prompt).collect();
    assert_eq!((finished, carried), (vec![0, 1, 1], vec![0, 2]));
    // The engine no longer holds the episodes that were handed back.
    assert_eq!(engine.released.len(), 5);
}
