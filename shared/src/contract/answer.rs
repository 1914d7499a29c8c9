//! Normalisation of answers. The trainer's reward and the retriever's evaluation share it, so both agree on which
//! text contains an answer.

const ARTICLES: [&str; 3] = ["a", "an", "the"];

/// Applies SQuAD's normalisation (Rajpurkar et al. 2016) in the reference's order: converts to lower case, removes
/// ASCII punctuation, removes articles, collapses white space. Punctuation outside ASCII, such as curly quotes and
/// dashes, stays.
pub fn normalize(text: &str) -> String {
    let unpunctuated: String =
        text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    without_articles(&unpunctuated)
        .split(is_white_space)
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Returns `true` for white space in Python's definition: Unicode's, and the four ASCII separators.
pub fn is_white_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Replaces whole articles by a space. A word is a run of letters, digits and underscores. ASCII dashes are already
/// removed, so the article in "the-end" is a word only if the dash is not ASCII.
fn without_articles(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut word = String::new();
    for character in text.chars() {
        if character.is_alphanumeric() || character == '_' {
            word.push(character);
        } else {
            push_word(&mut kept, &word);
            word.clear();
            kept.push(character);
        }
    }
    push_word(&mut kept, &word);
    kept
}

fn push_word(kept: &mut String, word: &str) {
    kept.push_str(if ARTICLES.contains(&word) { " " } else { word });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_punctuation_and_case_are_ignored() {
        // The trainer's tests compare more texts, recorded from Search-R1.
        for (text, expected) in [
            ("The  Beatles", "beatles"),
            ("An apple, a day; the doctor!", "apple day doctor"),
            ("thea the a", "thea"),
            ("\u{1c}İstanbul\u{a0}", "i\u{307}stanbul"),
            ("the", ""),
        ] {
            assert_eq!(normalize(text), expected, "{text:?}");
        }
    }
}
