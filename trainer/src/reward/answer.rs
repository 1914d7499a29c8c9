//! Extraction of the answer to score.

use crate::rollout::parse::strip;

const OPEN: &str = "<answer>";
const CLOSE: &str = "</answer>";

/// Returns the last complete answer in the turns that the model wrote. Each turn is read alone, because a tag opened
/// in one turn and closed in another would enclose text that the model did not write.
pub fn last_in_turns(turns: &[&str]) -> Option<String> {
    turns.iter().rev().find_map(|turn| answers(turn).pop())
}

/// Returns the last complete answer of a text whose first answer is the example in the prompt. A text with only one
/// answer therefore has none, as in the reference.
pub fn after_example(text: &str) -> Option<String> {
    let mut answers = answers(text);
    if answers.len() < 2 { None } else { answers.pop() }
}

/// Returns the content of every `<answer>…</answer>`, trimmed. An opening tag within an answer is part of the
/// answer.
fn answers(text: &str) -> Vec<String> {
    let mut answers = Vec::new();
    let mut rest = text;
    while let Some((_, from_content)) = rest.split_once(OPEN) {
        let Some((content, after)) = from_content.split_once(CLOSE) else { break };
        answers.push(strip(content).to_owned());
        rest = after;
    }
    answers
}
