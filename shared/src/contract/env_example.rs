//! The format of a variable in `.env.example`, which both services' parts have in common.

use std::fmt::Write as _;

/// Maximum length of a comment line, in characters.
const LINE_CHARS: usize = 100;

/// A variable of `.env.example`.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Name in the environment.
    pub name: &'a str,
    /// Purpose, in whole sentences.
    pub meaning: &'a str,
    /// Unit of the value; empty if it has none.
    pub unit: &'a str,
    /// Accepted values, in words.
    pub accepts: &'a str,
    /// Default, as a user would write it; empty if there is none.
    pub default: &'a str,
}

/// Returns meaning, unit and accepted values as comment lines, followed by the commented-out assignment of the
/// default.
pub fn entry(entry: &Entry<'_>) -> String {
    let Entry { name, meaning, unit, accepts, default } = entry;
    let unit = if unit.is_empty() { String::new() } else { format!("{unit}; ") };
    let mut text = comment(&format!("{meaning} [{unit}{accepts}]"));
    writeln!(text, "# {name}={default}").expect("a string accepts all text");
    text
}

/// Returns words as comment lines.
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
    fn an_entry_consists_of_comments() {
        let shown = entry(&Entry {
            name: "RETRIEVER_TOP_K",
            meaning: "Passages per query if the request has no number.",
            unit: "passages",
            accepts: "an integer from 1 to 16777216",
            default: "3",
        });
        assert_eq!(
            shown,
            "# Passages per query if the request has no number. [passages; an integer from 1 to \
             16777216]\n\
             # RETRIEVER_TOP_K=3\n"
        );
    }

    #[test]
    fn long_comments_keep_every_word_and_the_width() {
        let words: Vec<String> = (0..200).map(|number| "w".repeat(number % 17 + 1)).collect();
        let text = comment(&words.join(" "));
        assert!(text.lines().all(|line| line.starts_with("# ") && line.len() <= LINE_CHARS));
        let kept: Vec<&str> = text.lines().flat_map(|line| line[1..].split_whitespace()).collect();
        assert_eq!(kept, words);
    }
}
