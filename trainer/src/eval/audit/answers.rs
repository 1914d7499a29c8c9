//! The accepted answers of many questions, and the search for all of them in a text at once.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, MatchKind};
use shared::contract::answer::{normalize, normalize_into};

/// The normalised answers of a list of questions, each once.
#[derive(Debug)]
pub struct AnswerSet {
    automaton: AhoCorasick,
    /// For each answer, whether its first and its last character are letters or digits.
    edges: Vec<(bool, bool)>,
    /// For each question its answers, as numbers. Empty if normalisation leaves nothing of any.
    of_question: Vec<Vec<u32>>,
}

/// The memory that a search works in, for one thread.
#[derive(Debug, Default)]
pub struct MatchScratch {
    normalized: String,
}

impl AnswerSet {
    /// Makes the automaton (A. V. Aho and M. J. Corasick, Communications of the ACM 18, 1975). `questions` are lists of
    /// accepted answers.
    ///
    /// # Errors
    /// More answers than an automaton can hold: 2^31 bytes.
    pub fn new<'a>(questions: impl IntoIterator<Item = &'a [String]>) -> Result<Self, BuildError> {
        let mut numbers: HashMap<String, u32> = HashMap::new();
        let mut answers: Vec<String> = Vec::new();
        let of_question = questions
            .into_iter()
            .map(|accepted| {
                let mut own: Vec<u32> = Vec::with_capacity(accepted.len());
                for answer in accepted.iter().map(|answer| normalize(answer)) {
                    if answer.is_empty() {
                        continue;
                    }
                    let next = answers.len() as u32;
                    let number = *numbers.entry(answer).or_insert_with_key(|answer| {
                        answers.push(answer.clone());
                        next
                    });
                    own.push(number);
                }
                own.sort_unstable();
                own.dedup();
                own
            })
            .collect();
        let automaton = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .match_kind(MatchKind::Standard)
            .prefilter(false)
            .build(&answers)?;
        let is_letter = |character: Option<char>| character.is_some_and(char::is_alphanumeric);
        let edges = answers
            .iter()
            .map(|answer| (is_letter(answer.chars().next()), is_letter(answer.chars().next_back())))
            .collect();
        Ok(Self { automaton, edges, of_question })
    }

    /// Returns the number of different answers.
    pub fn len(&self) -> usize {
        self.edges.len()
    }

    /// Returns `true` if there is no answer to search for.
    pub fn is_empty(&self) -> bool {
        self.edges.is_empty()
    }

    /// Returns the answers of a question, as numbers below [`Self::len`]; empty if no text can match.
    pub fn of_question(&self, question: usize) -> &[u32] {
        &self.of_question[question]
    }

    /// Calls `found` with each answer that stands in `text`, as often as it stands there.
    ///
    /// An answer stands in a text if it is a part of it after normalisation and neither begins nor ends within a word,
    /// where a word is a run of letters and digits.
    pub fn search(&self, text: &str, scratch: &mut MatchScratch, mut found: impl FnMut(usize)) {
        let MatchScratch { normalized } = scratch;
        normalized.clear();
        normalize_into(text, normalized);
        let text = normalized.as_str();
        for hit in self.automaton.find_overlapping_iter(text) {
            let number = hit.pattern().as_usize();
            let (begins_word, ends_word) = self.edges[number];
            let is_inside = |character: Option<char>| character.is_some_and(char::is_alphanumeric);
            if begins_word && is_inside(text[..hit.start()].chars().next_back()) {
                continue;
            }
            if ends_word && is_inside(text[hit.end()..].chars().next()) {
                continue;
            }
            found(number);
        }
    }

    /// Returns the position, from 1, of the first of `passages` with an answer to `question`.
    pub fn first_rank<'p>(
        &self,
        question: usize,
        passages: impl IntoIterator<Item = &'p str>,
        scratch: &mut MatchScratch,
    ) -> Option<usize> {
        let accepted = self.of_question(question);
        let position = passages.into_iter().position(|passage| {
            let mut is_there = false;
            self.search(passage, scratch, |answer| {
                is_there |= accepted.binary_search(&(answer as u32)).is_ok();
            });
            is_there
        });
        position.map(|position| position + 1)
    }
}
