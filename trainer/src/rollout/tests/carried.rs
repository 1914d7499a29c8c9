//! Episodes that a rollout does not wait for, and what becomes of them.

use super::scripted::{ScriptedEngine, ScriptedSearcher, Timing, config, documents, jobs};
use crate::rollout::trajectory::SegmentKind;
use crate::rollout::{CarriedEpisode, Rollout, RolloutConfig, RolloutWork, roll_out};
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
    let found = documents(&[("*", &["t\ntext"])]);
    let mut searcher = ScriptedSearcher::new(found, timing);
    let config = RolloutConfig { enough_prompts: enough, ..config(false) };
    let tokenizer = Tokenizer::characters();
    roll_out(engine, &mut searcher, &tokenizer, work, &config, &mut ()).unwrap()
}

fn turns_done(episode: &CarriedEpisode) -> usize {
    let sampled = |kind| kind == SegmentKind::Sampled;
    episode.trajectory().segments.iter().filter(|segment| sampled(segment.kind)).count()
}

/// The rollout is cut at every moment that the other episode's length can choose: in each turn, in each
/// search, before the first token.
#[test]
fn an_episode_that_is_carried_ends_as_if_it_had_been_waited_for() {
    let prompts = ["short", "slow"];
    let whole = {
        let mut engine = ScriptedEngine::of(&[&["<answer>a</answer>"], &SLOW]);
        play(&mut engine, Timing::Immediate, jobs(&prompts).into(), None)
    };
    assert!(whole.carried.is_empty());
    let mut cut_after_turns = [0; 3];
    for timing in [Timing::Immediate, Timing::LateAndReversed] {
        for length in 0..130 {
            let says = format!("{}<answer>a</answer>", "x".repeat(length));
            let mut engine = ScriptedEngine::of(&[&[says.as_str()], &SLOW]);
            let first = play(&mut engine, timing, jobs(&prompts).into(), Some(1));
            if first.carried.is_empty() {
                // Both were over at once, or the slow one first and the other was carried.
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
            let mut engine = ScriptedEngine::of(&[&SLOW[done..]]);
            let carried = first.carried.into_iter().map(|one| one.with_prompt(7)).collect();
            let work = RolloutWork { carried, jobs: Vec::new() };
            let second = play(&mut engine, timing, work, None);
            let [found] = &second.trajectories[..] else { panic!("{second:?}") };
            let expected = &whole.trajectories[1];
            assert_eq!(found.prompt, 7);
            assert_eq!(found.segments, expected.segments, "{timing:?} {length}");
            assert_eq!(found.searches, expected.searches);
            assert_eq!((found.turns, found.end), (expected.turns, expected.end));
        }
    }
    assert!(cut_after_turns.iter().all(|&cuts| cuts > 10), "{cut_after_turns:?}");
}

#[test]
fn enough_prompts_are_those_whose_episodes_are_all_over() {
    let answer = ["<answer>a</answer>"];
    let mut engine = ScriptedEngine::of(&[&answer, &SLOW, &answer, &answer, &SLOW]);
    let mut jobs = jobs(&["p", "p", "q", "q", "r"]);
    for (job, prompt) in jobs.iter_mut().zip([0, 0, 1, 1, 2]) {
        job.prompt = prompt;
    }
    let rollout = play(&mut engine, Timing::Immediate, jobs.into(), Some(1));
    let finished: Vec<usize> = rollout.trajectories.iter().map(|one| one.prompt).collect();
    let carried: Vec<usize> = rollout.carried.iter().map(CarriedEpisode::prompt).collect();
    assert_eq!((finished, carried), (vec![0, 1, 1], vec![0, 2]));
    // What is handed back is in the engine no more.
    assert_eq!(engine.released.len(), 5);
}
