//! How `.env.example` shows a variable, so that both services' parts of it look alike.

use std::fmt::Write as _;

/// Longest line of a comment, in characters.
const LINE_CHARS: usize = 100;

/// One variable of `.env.example`.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Name in the environment.
    pub name: &'a str,
    /// What it is for, in whole sentences.
    pub meaning: &'a str,
    /// Unit of the value, empty where it has none.
    pub unit: &'a str,
    /// What is accepted, in words.
    pub accepts: &'a str,
    /// As it would be written; empty where there is none.
    pub default: &'a str,
}

/// The meaning, unit and accepted values as comment lines, and the assignment of the default
/// commented out.
pub fn entry(entry: &Entry<'_>) -> String {
    let Entry { name, meaning, unit, accepts, default } = entry;
    let unit = if unit.is_empty() { String::new() } else { format!("{unit}; ") };
    let mut text = comment(&format!("{meaning} [{unit}{accepts}]"));
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# {name}={default}");
    text
}

/// Words as comment lines.
pub fn comment(words: &str) -> String {
    let mut text = String::new();
    let mut line = String::from("#");
    for word in words.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > LINE_CHARS {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_comment_throughout() {
        let shown = entry(&Entry {
            name: "RETRIEVER_TOP_K",
            meaning: "Passages per query when the request names no number.",
            unit: "passages",
            accepts: "an integer from 1 to 16777216",
            default: "3",
        });
        assert_eq!(
            shown,
            "# Passages per query when the request names no number. [passages; an integer from 1 \
             to 16777216]\n\
             # RETRIEVER_TOP_K=3\n"
        );
    }

    #[test]
    fn long_comments_keep_every_word_and_the_width() {
        let words: Vec<String> = (0..200).map(|number| "w".repeat(number % 17 + 1)).collect();
        let text = comment(&words.join(" "));
        assert!(text.lines().all(|line| line.starts_with("# ") && line.len() <= LINE_CHARS));
        let found: Vec<&str> = text.lines().flat_map(|line| line[1..].split_whitespace()).collect();
        assert_eq!(found, words);
    }
}
