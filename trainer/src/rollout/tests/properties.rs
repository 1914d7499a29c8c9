//! Properties that hold for any text of a model.

use proptest::prelude::*;

use super::scripted::{ScriptedEngine, ScriptedSearcher, Timing, documents, jobs, settings};
use crate::rollout::observation::ObservationBudget;
use crate::rollout::scheduler::{default_stop_rule, reference_stop_rule};
use crate::rollout::{RolloutSettings, SegmentKind, Trajectory, roll_out};
use crate::token::Tokenizer;

/// Generates turns: usual text of models, and text that would confuse a loop working on text instead of
/// tokens.
fn turn() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<search>"),
        Just("</search>"),
        Just("<answer>"),
        Just("</answer>"),
        Just("<information>"),
        Just("</information>"),
        Just("<think>"),
        Just("</think>"),
        Just("who is king"),
        Just(" "),
        Just("\n"),
        Just("é🙂"),
        Just("<"),
        Just("Doc 1(Title: x) y"),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn scripts() -> impl Strategy<Value = Vec<Vec<String>>> {
    prop::collection::vec(prop::collection::vec(turn(), 1..5), 1..5)
}

fn configuration() -> impl Strategy<Value = RolloutSettings> {
    let sizes = (0_usize..4, 1_usize..60, 0_usize..120, 1_usize..5, 30_usize..900);
    (sizes, any::<bool>(), any::<bool>()).prop_map(|(sizes, deterministic, reference)| {
        let (max_turns, max_turn_tokens, max_tokens, max_running_episodes, max_context_tokens) =
            sizes;
        RolloutSettings {
            max_turns,
            max_turn_tokens,
            max_running_episodes,
            max_context_tokens,
            observation: ObservationBudget { max_tokens, max_passage_tokens: 40 },
            stop: if reference { reference_stop_rule() } else { default_stop_rule() },
            ..settings(deterministic)
        }
    })
}

/// Checks that a token is marked as sampled if and only if the engine sampled it, and that the engine saw
/// the tokens of the trajectory.
fn check(trajectory: &Trajectory, engine: &ScriptedEngine, job: usize) {
    let marked: Vec<(u32, bool)> =
        trajectory.token_ids().into_iter().zip(trajectory.sampled_mask()).collect();
    let seen = engine.sequences.get(&(job as u64)).map_or(&[][..], |sequence| &sequence.context);
    assert_eq!(&marked[..seen.len()], seen);
    assert!(marked[seen.len()..].iter().all(|(_, sampled)| !sampled));
    for segment in &trajectory.segments {
        let is_sampled = segment.kind == SegmentKind::Sampled;
        let log_probs = if is_sampled { segment.token_ids.len() } else { 0 };
        assert_eq!(segment.log_probs.len(), log_probs);
        assert_eq!(Tokenizer::characters().decode_turn(&segment.token_ids).unwrap(), segment.text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_mask_is_one_exactly_where_a_token_was_sampled(
        scripts in scripts(),
        settings in configuration(),
        says_end in any::<bool>(),
        is_late in any::<bool>(),
    ) {
        let prompts = vec!["<answer>a question</answer>"; scripts.len()];
        let passages = ["t\nwords <answer>in a passage</answer> </information>", "u\nmore"];
        let timing = if is_late { Timing::LateAndReversed } else { Timing::Immediate };
        let mut searcher = ScriptedSearcher::new(documents(&[("who is king", &passages)]), timing);
        let mut engine = ScriptedEngine::new(scripts);
        engine.says_end = says_end;
        let tokenizer = Tokenizer::characters();
        let jobs = jobs(&prompts);
        let rollout = roll_out(&mut engine, &mut searcher, &tokenizer, jobs, &settings, &mut ()).unwrap();
        prop_assert_eq!(rollout.trajectories.len(), prompts.len());
        for (job, trajectory) in rollout.trajectories.iter().enumerate() {
            prop_assert_eq!(trajectory.prompt, job);
            check(trajectory, &engine, job);
            let tokens = trajectory.token_ids().len();
            prop_assert!(tokens <= settings.max_context_tokens.max(prompts[job].len()));
            prop_assert!(trajectory.searches.len() <= settings.max_turns);
        }
    }

    /// Neither the timing of searches nor the scheduling changes a trajectory.
    #[test]
    fn episodes_do_not_depend_on_each_other(scripts in scripts(), settings in configuration()) {
        let prompts = vec!["p"; scripts.len()];
        let mut all = Vec::new();
        for (deterministic, timing) in [
            (true, Timing::Immediate),
            (false, Timing::Immediate),
            (false, Timing::LateAndReversed),
        ] {
            let settings = RolloutSettings { deterministic, ..settings.clone() };
            let mut searcher = ScriptedSearcher::new(documents(&[("*", &["t\nx"])]), timing);
            let mut engine = ScriptedEngine::new(scripts.clone());
            let tokenizer = Tokenizer::characters();
            let jobs = jobs(&prompts);
            let rollout =
                roll_out(&mut engine, &mut searcher, &tokenizer, jobs, &settings, &mut ()).unwrap();
            all.push(rollout.trajectories);
        }
        prop_assert_eq!(&all[0], &all[1]);
        prop_assert_eq!(&all[0], &all[2]);
    }
}
