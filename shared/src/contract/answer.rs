//! Normalisation of answers. The trainer's reward and the retriever's evaluation share it, so both agree on which
//! text contains an answer.

const ARTICLES: [&str; 3] = ["a", "an", "the"];

/// Applies SQuAD's normalisation (Rajpurkar et al. 2016) in the reference's order: converts to lower case, removes
/// ASCII punctuation, removes articles, collapses white space. Punctuation outside ASCII, such as curly quotes and
/// dashes, stays.
pub fn normalize(text: &str) -> String {
    let mut normalized = String::with_capacity(text.len());
    normalize_into(text, &mut normalized);
    normalized
}

/// Appends what [`normalize`] makes of `text` to `out`, in one pass. What is already in `out` stays as it is.
pub fn normalize_into(text: &str, out: &mut String) {
    let mut writer = Writer { start: out.len(), word: out.len(), is_apart: false, out };
    // Only the lower case of the capital sigma depends on the letters around it.
    if text.contains('\u{3a3}') {
        text.to_lowercase().chars().for_each(|character| writer.take(character));
    } else {
        for character in text.chars() {
            if character.is_ascii() {
                writer.take(character.to_ascii_lowercase());
            } else {
                character.to_lowercase().for_each(|character| writer.take(character));
            }
        }
    }
    writer.end_word();
}

/// The text so far, and the word at its end.
struct Writer<'o> {
    out: &'o mut String,
    /// The beginning of this text in `out`.
    start: usize,
    /// The beginning of the word at the end of `out`.
    word: usize,
    /// `true` if white space came since the last character.
    is_apart: bool,
}

impl Writer<'_> {
    /// Takes a character in lower case.
    fn take(&mut self, character: char) {
        if character.is_ascii_punctuation() {
            return;
        }
        if character.is_ascii_alphanumeric() || character.is_alphanumeric() {
            if self.is_apart {
                self.part();
            }
            self.out.push(character);
        } else {
            self.end_word();
            if is_white_space(character) {
                self.is_apart = true;
            } else {
                self.part();
                self.out.push(character);
                self.word = self.out.len();
            }
        }
    }

    /// Ends a word, which is a run of letters and digits. An article becomes white space. ASCII dashes are removed
    /// before, so the article in "the-end" is a word only if the dash is not ASCII.
    fn end_word(&mut self) {
        if ARTICLES.contains(&&self.out[self.word..]) {
            self.out.truncate(self.word);
            // The space before the article counts again before the next character.
            if self.out.len() > self.start && self.out.ends_with(' ') {
                self.out.pop();
            }
            self.is_apart = true;
        }
        self.word = self.out.len();
    }

    /// Writes the white space that came before a character.
    fn part(&mut self) {
        if self.is_apart && self.out.len() > self.start {
            self.out.push(' ');
        }
        self.is_apart = false;
        self.word = self.out.len();
    }
}

/// Returns `true` for white space in Python's definition: Unicode's, and the four ASCII separators.
pub fn is_white_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::splitmix;

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

    /// The four steps one after the other, as the reference has them.
    fn step_by_step(text: &str) -> String {
        let plain: String =
            text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
        let (mut kept, mut word) = (String::new(), String::new());
        for character in plain.chars().chain(['\n']) {
            if character.is_alphanumeric() {
                word.push(character);
                continue;
            }
            kept.push_str(if ARTICLES.contains(&word.as_str()) { " " } else { &word });
            word.clear();
            kept.push(character);
        }
        let words = kept.split(is_white_space).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn one_pass_equals_the_four_steps() {
        let parts = [
            "a", "an", "the", "The", "AN", "tea", " ", "  ", "\n", "\u{a0}", "\u{1d}", "-", "'",
            "_", "—", "’", "é", "É", "İ", "Σ", "ΑΣ", "ß", "½", "ǅ", "x", "9", ".", "\u{301}",
            "\u{2126}", "北京",
        ];
        let mut state = 7;
        let mut kept = String::from("the kept ");
        for _ in 0..20_000 {
            let count = splitmix::next(&mut state) % 12;
            let text: String = (0..count)
                .map(|_| parts[(splitmix::next(&mut state) % parts.len() as u64) as usize])
                .collect();
            assert_eq!(normalize(&text), step_by_step(&text), "{text:?}");
            let before = kept.len();
            normalize_into(&text, &mut kept);
            assert_eq!(&kept[before..], step_by_step(&text), "{text:?}");
            assert!(kept.starts_with("the kept "));
        }
    }
}
