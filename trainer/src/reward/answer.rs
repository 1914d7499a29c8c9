//! Finds the answer that is to be scored.

use crate::rollout::parse::strip;

const OPEN: &str = "<answer>";
const CLOSE: &str = "</answer>";

/// The last complete answer of the turns that the model wrote. Each turn is read by itself: tags
/// that are opened in one and closed in another frame what the model did not write.
pub fn last_in_turns(turns: &[&str]) -> Option<String> {
    turns.iter().rev().find_map(|turn| answers(turn).pop())
}

/// The last complete answer of a text whose first answer is the example in the prompt, as the
/// reference reads it: a text with only one has none.
pub fn after_example(text: &str) -> Option<String> {
    let mut found = answers(text);
    if found.len() < 2 { None } else { found.pop() }
}

/// The content of every `<answer>…</answer>`, white space around it removed. An opening tag within
/// an answer is part of it.
fn answers(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, from_content)) = rest.split_once(OPEN) {
        let Some((content, after)) = from_content.split_once(CLOSE) else { break };
        found.push(strip(content).to_owned());
        rest = after;
    }
    found
}
