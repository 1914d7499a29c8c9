//! Demonstrations for the warm start: scripted turns played through the real loop.
//!
//! Each is an ordinary episode whose turns are written here instead of sampled. Prompt, passages, masks and token
//! boundaries are therefore those of a rollout.

use std::collections::{BTreeMap, VecDeque};

use crate::data::Example;
use crate::engine::{Engine, EngineError, GenerateRequest, Generation, SequenceId, StopReason};
use crate::rollout::parse::opens_thought;
use crate::token::{TokenError, Tokenizer};

/// The habit that a demonstration shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// Looks the question up, then answers.
    Search,
    /// Answers without a search.
    Direct,
}

const SEARCH_THOUGHTS: [&str; 3] =
    ["I should look this up.", "I need to search for this.", "Let me search for the answer."];
const READ_THOUGHTS: [&str; 3] =
    ["The passage says it.", "I found it in the passage.", "This is what I was looking for."];
const DIRECT_THOUGHTS: [&str; 3] =
    ["I know this.", "I can answer this at once.", "This needs no search."];

/// Returns the turns of one demonstration; `number` varies the wording.
pub(super) fn demonstration_turns(example: &Example, habit: Habit, number: usize) -> Vec<String> {
    let pick = |thoughts: [&'static str; 3]| thoughts[number % thoughts.len()];
    let answer = example.golden_answers.first().map_or("", String::as_str);
    let mut turns = match habit {
        Habit::Search => {
            let query = example.question.trim().trim_end_matches('?');
            vec![
                format!("<think>{}</think>\n<search>{query}</search>", pick(SEARCH_THOUGHTS)),
                format!("<think>{}</think>\n<answer>{answer}</answer>", pick(READ_THOUGHTS)),
            ]
        }
        Habit::Direct => {
            vec![format!("<think>{}</think>\n<answer>{answer}</answer>", pick(DIRECT_THOUGHTS))]
        }
    };
    // The prompt has opened the first thought already.
    if opens_thought(&example.prompt_text) {
        turns[0].replace_range(.."<think>".len(), "");
    }
    turns
}

/// An engine that "samples" the turns it was given.
#[derive(Debug)]
pub(super) struct DemonstrationEngine {
    turns: BTreeMap<SequenceId, VecDeque<Vec<u32>>>,
    ready: Vec<SequenceId>,
}

impl DemonstrationEngine {
    /// Takes the turns of each sequence `n` from `scripts[n]`.
    ///
    /// # Errors
    /// The tokenizer's.
    pub(super) fn new(scripts: &[Vec<String>], tokenizer: &Tokenizer) -> Result<Self, TokenError> {
        let mut turns = BTreeMap::new();
        for (sequence, script) in scripts.iter().enumerate() {
            let encoded: Result<VecDeque<Vec<u32>>, TokenError> =
                script.iter().map(|turn| tokenizer.encode(turn)).collect();
            turns.insert(sequence as SequenceId, encoded?);
        }
        Ok(Self { turns, ready: Vec::new() })
    }
}

impl Engine for DemonstrationEngine {
    fn submit(&mut self, request: GenerateRequest) -> Result<(), EngineError> {
        self.ready.push(request.sequence);
        Ok(())
    }

    fn step(&mut self, _tokenizer: &Tokenizer) -> Result<Vec<Generation>, EngineError> {
        let next_turn = |sequence: SequenceId| {
            let turn = self.turns.get_mut(&sequence).and_then(VecDeque::pop_front);
            let token_ids = turn.ok_or(EngineError::NoFurtherTurn(sequence))?;
            let log_probs = vec![0.0; token_ids.len()];
            let stop = StopReason::Length;
            Ok(Generation { sequence, token_ids, log_probs, stop, policy_version: 0 })
        };
        self.ready.drain(..).map(next_turn).collect()
    }

    fn release(&mut self, sequence: SequenceId) {
        self.turns.remove(&sequence);
    }

    fn is_idle(&self) -> bool {
        self.ready.is_empty()
    }

    fn max_context_tokens(&self) -> usize {
        usize::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::data::{PromptMaker, PromptStyle, PromptTemplate, example};
    use crate::rollout::scheduler::roll_out;
    use crate::rollout::trajectory::{SegmentKind, Trajectory};
    use crate::run::question_order::episode_jobs;
    use crate::run::settings::rollout::{GREEDY, episodes};
    use crate::search::random::RandomPassages;
    use crate::stop::StopFlag;
    use crate::update::TrainSequence;

    /// Plays one demonstration, with a token a character.
    fn play(habit: Habit) -> Trajectory {
        let tokenizer = Tokenizer::characters();
        let record = shared::contract::dataset::QaRecord {
            id: "q".to_owned(),
            question: "Who wrote it?".to_owned(),
            golden_answers: vec!["Ada".to_owned()],
            prompt: None,
            extra: serde_json::Map::new(),
        };
        let template = PromptTemplate::new("Q: {question}\n", PromptStyle::Plain).unwrap();
        let example = example(&record, &PromptMaker::Template(template), &tokenizer, 100).unwrap();
        let script = demonstration_turns(&example, habit, 0);
        let mut engine = DemonstrationEngine::new(&[script], &tokenizer).unwrap();
        let config = episodes(&Config::default(), GREEDY, 1, &StopFlag::never());
        let jobs = episode_jobs(0, &[&example], 1, 0, 0);
        let searcher = &mut RandomPassages::none();
        let played = roll_out(&mut engine, searcher, &tokenizer, jobs, &config, &mut ()).unwrap();
        played.trajectories.into_iter().next().unwrap()
    }

    /// Returns the part of a demonstration that is trained on.
    fn trained_text(trajectory: &Trajectory) -> String {
        let sequence = TrainSequence::from(trajectory);
        let (ids, mask) = sequence.packed();
        let trained: Vec<u32> =
            ids.iter().zip(mask).filter(|(_, sampled)| **sampled).map(|(id, _)| *id).collect();
        Tokenizer::characters().decode(&trained).unwrap()
    }

    #[test]
    fn only_what_the_model_would_write_is_trained_on() {
        let searching = play(Habit::Search);
        let kinds: Vec<SegmentKind> =
            searching.segments.iter().map(|segment| segment.kind).collect();
        let expected = [
            SegmentKind::Prompt,
            SegmentKind::Sampled,
            SegmentKind::Observation,
            SegmentKind::Sampled,
        ];
        assert_eq!(kinds, expected);
        assert_eq!(
            trained_text(&searching),
            "<think>I should look this up.</think>\n<search>Who wrote it</search>\
             <think>The passage says it.</think>\n<answer>Ada</answer>"
        );
        assert_eq!(
            trained_text(&play(Habit::Direct)),
            "<think>I know this.</think>\n<answer>Ada</answer>"
        );
    }

    #[test]
    fn a_thought_that_the_prompt_opens_is_not_opened_again() {
        let example = |prompt_text: &str| Example {
            id: "1".to_owned(),
            question: "Who wrote it?".to_owned(),
            golden_answers: vec!["Ada".to_owned()],
            prompt_text: prompt_text.to_owned(),
            prompt_ids: vec![1],
        };
        let turns = |prompt: &str| demonstration_turns(&example(prompt), Habit::Search, 0);
        let (opened, plain) = (turns("assistant\n<think>\n"), turns("assistant\n"));
        assert_eq!(format!("<think>{}", opened[0]), plain[0]);
        assert_eq!(opened[1], plain[1]);
    }
}
