//! Demonstrations for the warm start: scripted turns played through the real loop.
//!
//! Each is an ordinary episode whose turns are written here instead of sampled, so that prompt,
//! passages, masks and token boundaries are those of a rollout.

use std::collections::{BTreeMap, VecDeque};

use crate::data::Example;
use crate::engine::{Engine, EngineError, GenerateRequest, Generation, SequenceId, StopReason};
use crate::token::{TokenError, Tokenizer};

/// What a demonstration shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// Look the question up, then answer.
    Search,
    /// Answer at once.
    Direct,
}

const SEARCH_THOUGHTS: [&str; 3] =
    ["I should look this up.", "I need to search for this.", "Let me search for the answer."];
const READ_THOUGHTS: [&str; 3] =
    ["The passage says it.", "I found it in the passage.", "This is what I was looking for."];
const DIRECT_THOUGHTS: [&str; 3] =
    ["I know this.", "I can answer this at once.", "This needs no search."];

/// The turns of one demonstration; `number` varies the wording.
pub(super) fn demonstration_turns(example: &Example, habit: Habit, number: usize) -> Vec<String> {
    let pick = |thoughts: [&'static str; 3]| thoughts[number % thoughts.len()];
    let answer = example.golden_answers.first().map_or("", String::as_str);
    match habit {
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
    }
}

/// An engine that says what it was given, turn by turn.
#[derive(Debug)]
pub(super) struct DemonstrationEngine {
    turns: BTreeMap<SequenceId, VecDeque<Vec<u32>>>,
    ready: Vec<SequenceId>,
}

impl DemonstrationEngine {
    /// `scripts[n]` are the turns of sequence `n`.
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
            let token_ids = turn.ok_or_else(|| {
                EngineError::Other(format!("demonstration {sequence} has no further turn"))
            })?;
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
