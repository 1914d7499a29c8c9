//! Normalisation of answers, so that the reward of the trainer and the evaluation of the retriever
//! mean the same by an answer that is found.

const ARTICLES: [&str; 3] = ["a", "an", "the"];

/// SQuAD's normalisation (Rajpurkar et al. 2016) in the reference's order: lower case, ASCII
/// punctuation removed, articles removed, white space collapsed. Other punctuation stays: curly
/// quotes and dashes are not ASCII.
pub fn normalize(text: &str) -> String {
    let unpunctuated: String =
        text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    without_articles(&unpunctuated)
        .split(is_white_space)
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// White space by Python's definition, which adds the four ASCII separators to Unicode's.
pub fn is_white_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Replaces whole articles by a space. A word is a run of letters, digits and underscores: the
/// article of "the-end" stands alone only if the dash is not ASCII, because others are gone by now.
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
    fn articles_punctuation_and_case_do_not_count() {
        // The trainer compares with more texts, which Search-R1 recorded.
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
