//! English analysis, equal to Anserini's `DefaultEnglishAnalyzer`: it splits words by UAX #29,
//! removes the possessive `'s`, lowers case, drops Lucene's 33 stop words and applies Porter's
//! stemmer. Passages and queries go through the same function. There is no query syntax, so text
//! that a model wrote is nothing but words.

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};
use unicode_segmentation::UnicodeSegmentation;

use super::porter;

/// The name of this analysis in index manifests. Change it whenever the tokens of any text change.
pub const ANALYZER: &str = "anserini-english-1";

/// The longest token. Lucene's `StandardTokenizer` cuts longer words into pieces.
const MAX_TOKEN_CHARS: usize = 255;

/// Lucene's `EnglishAnalyzer.ENGLISH_STOP_WORDS_SET`, sorted.
const STOP_WORDS: [&str; 33] = [
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it",
    "no", "not", "of", "on", "or", "such", "that", "the", "their", "then", "there", "these",
    "they", "this", "to", "was", "will", "with",
];

/// Returns the index terms of a text in order, including repetitions.
pub fn terms(text: &str) -> Vec<String> {
    let mut terms = Vec::new();
    for_each_word(text, |word| {
        if word.chars().count() <= MAX_TOKEN_CHARS {
            terms.extend(term(word));
        } else {
            let letters: Vec<char> = word.chars().collect();
            for piece in letters.chunks(MAX_TOKEN_CHARS) {
                terms.extend(term(&piece.iter().collect::<String>()));
            }
        }
    });
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
    porter::stem(&mut letters);
    (!letters.is_empty()).then(|| letters.into_iter().collect())
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

/// Calls `emit` with every part of `text` that Lucene's `StandardTokenizer` treats as a token.
fn for_each_word(text: &str, mut emit: impl FnMut(&str)) {
    // Thai, Lao, Khmer and Burmese are written without spaces: a run of their letters is one token.
    let mut run: Option<std::ops::Range<usize>> = None;
    for (start, segment) in text.split_word_bound_indices() {
        let end = start + segment.len();
        if segment.chars().next().is_some_and(is_south_east_asian) {
            run = Some(run.map_or(start, |run| run.start)..end);
            continue;
        }
        if let Some(run) = run.take() {
            emit(&text[run]);
        }
        if is_word(segment) {
            emit(segment);
        } else if let Some(offset) = segment.find(is_south_east_asian) {
            // A vowel sign whose base character is a punctuation mark.
            run = Some(start + offset..end);
        }
    }
    if let Some(run) = run {
        emit(&text[run]);
    }
}

fn is_word(segment: &str) -> bool {
    if segment.is_ascii() {
        return segment.bytes().any(|byte| byte.is_ascii_alphanumeric());
    }
    segment.chars().any(|letter| is_letter(letter) || is_digit(letter)) || is_emoji(segment)
}

/// Returns `true` for a letter of any script, except for marks that only ever follow a letter.
fn is_letter(letter: char) -> bool {
    // Most text is Latin, and all marks have higher code points: the cheap test comes first.
    letter.is_alphabetic() && (letter < '\u{300}' || !joins('"', letter))
}

/// Returns `true` for a decimal digit of any script. `²`, `½` and `①` are numeric too, but they
/// break words, so Lucene treats them as punctuation. The word rules distinguish the two.
fn is_digit(letter: char) -> bool {
    letter.is_ascii_digit() || (!letter.is_ascii() && letter.is_numeric() && joins('1', letter))
}

/// Returns `true` if the word rules keep the two characters together.
fn joins(before: char, letter: char) -> bool {
    String::from_iter([before, letter]).split_word_bounds().count() == 1
}

fn is_south_east_asian(letter: char) -> bool {
    matches!(letter,
        '\u{0E01}'..='\u{0E3A}' | '\u{0E40}'..='\u{0E4E}' | '\u{0E81}'..='\u{0ECD}'
        | '\u{0EDC}'..='\u{0EDF}' | '\u{1000}'..='\u{103F}' | '\u{1050}'..='\u{108F}' | '\u{109A}'..='\u{109F}'
        | '\u{1780}'..='\u{17D3}' | '\u{1950}'..='\u{19DF}' | '\u{1A20}'..='\u{1AAD}'
        | '\u{A9E0}'..='\u{A9EF}' | '\u{AA60}'..='\u{AADF}')
}

/// Returns `true` if a segment begins with a pictograph, or is a flag or a keycap. Lucene makes a
/// token of every `Extended_Pictographic` character of Unicode, which include musical and chess signs.
fn is_emoji(segment: &str) -> bool {
    let mut letters = segment.chars();
    let Some(first) = letters.next() else { return false };
    if is_regional_indicator(first) {
        return letters.any(is_regional_indicator);
    }
    let code = u32::from(first);
    let range = PICTOGRAPHS.partition_point(|&(_, last)| last < code);
    PICTOGRAPHS.get(range).is_some_and(|&(start, _)| start <= code)
        || (matches!(first, '#' | '*') && letters.any(|letter| letter == KEYCAP))
}

/// Returns `true` for half of a flag.
fn is_regional_indicator(letter: char) -> bool {
    ('\u{1F1E6}'..='\u{1F1FF}').contains(&letter)
}

/// The combining enclosing keycap, which turns the character before it into a pictograph.
const KEYCAP: char = '\u{20E3}';

/// The ranges of `Extended_Pictographic` in Unicode's emoji-data.txt.
#[rustfmt::skip]
const PICTOGRAPHS: [(u32, u32); 64] = [
    (0xA9, 0xA9), (0xAE, 0xAE), (0x203C, 0x203C), (0x2049, 0x2049), (0x2122, 0x2122),
    (0x2139, 0x2139), (0x2194, 0x2199), (0x21A9, 0x21AA), (0x231A, 0x231B), (0x2328, 0x2328),
    (0x2388, 0x2388), (0x23CF, 0x23CF), (0x23E9, 0x23F3), (0x23F8, 0x23FA), (0x24C2, 0x24C2),
    (0x25AA, 0x25AB), (0x25B6, 0x25B6), (0x25C0, 0x25C0), (0x25FB, 0x25FE), (0x2600, 0x2605),
    (0x2607, 0x2612), (0x2614, 0x2685), (0x2690, 0x2705), (0x2708, 0x2712), (0x2714, 0x2714),
    (0x2716, 0x2716), (0x271D, 0x271D), (0x2721, 0x2721), (0x2728, 0x2728), (0x2733, 0x2734),
    (0x2744, 0x2744), (0x2747, 0x2747), (0x274C, 0x274C), (0x274E, 0x274E), (0x2753, 0x2755),
    (0x2757, 0x2757), (0x2763, 0x2767), (0x2795, 0x2797), (0x27A1, 0x27A1), (0x27B0, 0x27B0),
    (0x27BF, 0x27BF), (0x2934, 0x2935), (0x2B05, 0x2B07), (0x2B1B, 0x2B1C), (0x2B50, 0x2B50),
    (0x2B55, 0x2B55), (0x3030, 0x3030), (0x303D, 0x303D), (0x3297, 0x3297), (0x3299, 0x3299),
    (0x1F000, 0x1F0FF), (0x1F10D, 0x1F10F), (0x1F12F, 0x1F12F), (0x1F16C, 0x1F171),
    (0x1F17E, 0x1F17F), (0x1F18E, 0x1F18E), (0x1F191, 0x1F19A), (0x1F1AD, 0x1F1E5),
    (0x1F201, 0x1F20F), (0x1F21A, 0x1F21A), (0x1F22F, 0x1F22F), (0x1F232, 0x1F23A),
    (0x1F23C, 0x1F3FA), (0x1F400, 0x1FAFF),
];

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
    fn tables_are_sorted_for_the_search() {
        assert!(STOP_WORDS.is_sorted());
        assert!(PICTOGRAPHS.is_sorted());
    }
}
