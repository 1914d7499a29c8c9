//! English analysis, equal to Anserini's `DefaultEnglishAnalyzer`: it finds words as Lucene does,
//! removes the possessive `'s`, lowers case, drops Lucene's 33 stop words and applies Porter's
//! stemmer. Passages and queries go through the same function. There is no query syntax, so text
//! that a model wrote is nothing but words.

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

use super::{porter, words};

/// The name of this analysis in index manifests. Change it whenever the tokens of any text change.
pub const ANALYZER: &str = "anserini-english-2";

/// Lucene's `EnglishAnalyzer.ENGLISH_STOP_WORDS_SET`, sorted.
const STOP_WORDS: [&str; 33] = [
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it",
    "no", "not", "of", "on", "or", "such", "that", "the", "their", "then", "there", "these",
    "they", "this", "to", "was", "will", "with",
];

/// Returns the index terms of a text in order, including repetitions.
pub fn terms(text: &str) -> Vec<String> {
    let mut terms = Vec::new();
    words::for_each_word(text, |word| terms.extend(term(word)));
    terms
}

/// Normalises one word; returns `None` for a stop word.
fn term(word: &str) -> Option<String> {
    let mut letters: Vec<char> = word.chars().collect();
    if let [.., '\'' | '\u{2019}' | '\u{FF07}', 's' | 'S'] = letters[..] {
        letters.truncate(letters.len() - 2);
    }
    for letter in &mut letters {
        *letter = lower_case(*letter);
    }
    let lowered: String = letters.iter().collect();
    if STOP_WORDS.binary_search(&lowered.as_str()).is_ok() {
        return None;
    }
    if letters.iter().all(|letter| letter.len_utf16() == 1) {
        porter::stem(&mut letters);
    } else {
        stem_units(&mut letters);
    }
    (!letters.is_empty()).then(|| letters.into_iter().collect())
}

/// Stems a word with characters of two UTF-16 units, which the stemmer in Java takes for two letters.
fn stem_units(letters: &mut Vec<char>) {
    /// The first of the private characters that stand for half a character.
    const HALVES: u32 = 0xF_0000;
    let word: String = letters.iter().collect();
    let half = |unit: u16| char::from_u32(HALVES + u32::from(unit)).expect("is in plane 15");
    let as_letter = |unit: u16| char::from_u32(u32::from(unit)).unwrap_or_else(|| half(unit));
    *letters = word.encode_utf16().map(as_letter).collect();
    porter::stem(letters);
    // A surrogate is in the low 16 bits of its private character.
    let units = letters.iter().map(|letter| u32::from(*letter) as u16);
    *letters = char::decode_utf16(units).map(|letter| letter.unwrap_or('\u{FFFD}')).collect();
}

/// Maps one character to one character, like Java's `Character.toLowerCase`: a final sigma has no
/// special rule, and the dotted capital I loses its dot.
fn lower_case(letter: char) -> char {
    if letter.is_ascii() {
        letter.to_ascii_lowercase()
    } else {
        letter.to_lowercase().next().unwrap_or(letter)
    }
}

/// The adapter through which tantivy gets the terms of a text while it indexes.
#[derive(Clone, Debug, Default)]
pub(crate) struct EnglishTokenizer;

/// The stream of the terms of one text.
#[derive(Debug)]
pub(crate) struct TermStream {
    terms: std::vec::IntoIter<String>,
    token: Token,
}

impl Tokenizer for EnglishTokenizer {
    type TokenStream<'a> = TermStream;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> TermStream {
        TermStream { terms: terms(text).into_iter(), token: Token::default() }
    }
}

impl TokenStream for TermStream {
    fn advance(&mut self) -> bool {
        let Some(term) = self.terms.next() else { return false };
        self.token.position = self.token.position.wrapping_add(1);
        self.token.text = term;
        true
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        assert_eq!(terms(text), expected, "terms of {text:?}");
    }

    #[test]
    fn english_is_lowered_stopped_and_stemmed() {
        check("The Beatles' songs, and the Beatles's", &["beatl", "song", "beatl"]);
        check("It\u{2019}s the capital of NORWAY!", &["capit", "norwai"]);
        check("the of and", &[]);
        check("", &[]);
    }

    #[test]
    fn query_syntax_means_nothing() {
        check("C++: what (is) \"a\" pointer AND -NOT *", &["c", "what", "pointer"]);
        check("/regex/ field~2 [a TO b] \\", &["regex", "field", "2", "b"]);
        check("\0\u{1}\u{FFFF}", &[]);
    }

    #[test]
    fn numbers_and_joined_words_stay_whole() {
        check("10,000.5 U.S.A. foo_bar __ a-b", &["10,000.5", "u.s.a", "foo_bar", "b"]);
        check("x² ½ ① ٣", &["x", "٣"]);
    }

    #[test]
    fn other_scripts() {
        check("café naïve İstanbul 東京", &["café", "naïv", "istanbul", "東", "京"]);
        check("ภาษาไทย และ", &["ภาษาไทย", "และ"]);
        check("ΟΔΟΣ", &["οδοσ"]);
        check("B♭ 😀 ❤\u{FE0F} → 🇳🇴", &["b", "♭", "😀", "❤\u{FE0F}", "🇳🇴"]);
        // Half a flag, a mark without a letter, a currency sign under a keycap.
        check("🇳 \u{5B4} ₱\u{20E3}", &[]);
    }

    #[test]
    fn endless_words_are_cut() {
        let lengths: Vec<usize> = terms(&"x".repeat(600)).iter().map(String::len).collect();
        assert_eq!(lengths, [255, 255, 90]);
    }

    #[test]
    fn the_stop_words_are_sorted_for_the_search() {
        assert!(STOP_WORDS.is_sorted());
    }

    /// The surroundings of a code point, as in scripts/golden/record_analyzer.py; `@` stands for it.
    const SURROUNDINGS: [&str; 34] = [
        "@",
        "@@",
        "a@b",
        "1@2",
        "a@1",
        "1@a",
        "\u{5d0}@\u{5d1}",
        "\u{5d0}'@",
        "@'1",
        "\u{5d0}\"@",
        "@\"\u{5d1}",
        "\u{30a2}@\u{30a4}",
        "_@_",
        "\u{e01}@\u{e02}",
        "\u{4e2d}@\u{6587}",
        "\u{3042}@\u{3044}",
        "\u{d55c}@\u{ad6d}",
        "😀@",
        "😀\u{200d}@",
        "@\u{200d}😀",
        "@\u{fe0f}",
        "@\u{20e3}",
        "@\u{301}",
        "\u{1f1f3}@",
        "@\u{1f3fd}",
        "@s",
        "a@ing",
        "@@ed",
        "1.@",
        "a.@",
        "a:@",
        "1,@",
        "b'@",
        "@'s",
    ];

    #[derive(serde::Deserialize)]
    struct Recorded {
        /// Digests of the terms of 256 code points, by the first of them in hexadecimal.
        blocks: std::collections::BTreeMap<String, String>,
        texts: Vec<(String, Vec<String>)>,
    }

    fn recorded() -> Recorded {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/analyzer.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn every_code_point_is_analysed_as_anserini_does() {
        let blocks = recorded().blocks;
        assert!(blocks.len() > 600, "{}", blocks.len());
        let all = SURROUNDINGS.join(" ");
        let differing: Vec<&str> = blocks
            .iter()
            .filter(|(block, digest)| {
                let start = u32::from_str_radix(block, 16).unwrap();
                let mut lines = String::new();
                for code in start..start + 256 {
                    let letter = char::from_u32(code).unwrap();
                    let text = all.replace('@', letter.encode_utf8(&mut [0; 4]));
                    lines += &(terms(&text).join("\n") + "\n\n");
                }
                let found = shared::contract::digest::Digest::of_bytes(lines.as_bytes());
                !found.to_string().starts_with(*digest)
            })
            .map(|(block, _)| block.as_str())
            .collect();
        assert!(differing.is_empty(), "blocks {differing:?}");
    }

    #[test]
    fn random_texts_are_analysed_as_anserini_does() {
        let texts = recorded().texts;
        assert_eq!(texts.len(), 400);
        for (text, expected) in texts {
            assert_eq!(terms(&text), expected, "{text:?}");
        }
    }
}
