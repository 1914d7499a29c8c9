//! Finds the action in the text of one turn.

/// The action that a turn requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnAction {
    /// A search, with its query trimmed; the query may be empty.
    Search(String),
    /// An answer, trimmed; it may be empty.
    Answer(String),
    /// A turn without a complete tag.
    Invalid,
}

const TAGS: [(&str, &str); 2] = [("<search>", "</search>"), ("<answer>", "</answer>")];

/// Returns the first `<search>…</search>` or `<answer>…</answer>` of `text`. Skips an opening tag
/// that is never closed, as the regular expression of the reference does.
pub fn parse_action(text: &str) -> TurnAction {
    for (start, _) in text.match_indices('<') {
        for (kind, (open, close)) in TAGS.iter().enumerate() {
            let Some(rest) = text[start..].strip_prefix(open) else { continue };
            let Some(end) = rest.find(close) else { continue };
            let content = strip(&rest[..end]).to_owned();
            return if kind == 0 {
                TurnAction::Search(content)
            } else {
                TurnAction::Answer(content)
            };
        }
    }
    TurnAction::Invalid
}

/// Trims white space at both ends by Python's definition: Unicode's and the four ASCII separators.
pub fn strip(text: &str) -> &str {
    text.trim_matches(shared::contract::answer::is_white_space)
}

/// Returns `true` for a prompt that ends in an open `<think>`, as some chat templates write it. The model then
/// continues the thought.
pub fn opens_thought(prompt: &str) -> bool {
    strip(prompt).ends_with("<think>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &TurnAction) {
        assert_eq!(&parse_action(text), expected, "{text:?}");
    }

    #[test]
    fn the_first_complete_tag_is_the_action() {
        let search = |query: &str| TurnAction::Search(query.to_owned());
        let answer = |text: &str| TurnAction::Answer(text.to_owned());
        check("<think>a</think><search> q </search>", &search("q"));
        check("<search></search>", &search(""));
        check("<search>\n \u{1f}</search>", &search(""));
        check("<answer>first</answer> then <search>s</search>", &answer("first"));
        check("<search>a\nb</search>", &search("a\nb"));
        check("<search>open <answer>x</answer>", &answer("x"));
        check("<answer>open <search>x</search>", &search("x"));
        check("<search>a <answer>b</answer></search>", &search("a <answer>b</answer>"));
        check("<search>a<search>b</search>", &search("a<search>b"));
        check("<answer>5 < 6</answer>", &answer("5 < 6"));
        check("< <answer>é</answer>", &answer("é"));
    }

    #[test]
    fn text_without_a_complete_tag_is_invalid() {
        for text in
            ["", "plain", "<search>q", "q</search>", "<Search>q</Search>", "<search>q</answer>"]
        {
            check(text, &TurnAction::Invalid);
        }
    }

    #[test]
    fn a_prompt_opens_a_thought_only_at_its_end() {
        for prompt in ["<think>", "assistant\n<think>\n", "a </think> b <think> \n\n"] {
            assert!(opens_thought(prompt), "{prompt:?}");
        }
        for prompt in
            ["", "<think>\n\n</think>\n\n", "inside <think> and </think>", "<think> I", "think>"]
        {
            assert!(!opens_thought(prompt), "{prompt:?}");
        }
    }
}
