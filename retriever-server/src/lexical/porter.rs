//! The Porter stemmer as in Lucene. It is Porter's own C program of 1980 with his two later
//! departures from the paper: `bli` becomes `ble` (not `abli`), and `logi` becomes `log`.
//!
//! Snowball's "english" stemmer is a different algorithm with different stems and cannot reproduce
//! published BM25 figures. Reference: M. F. Porter, "An algorithm for suffix stripping",
//! Program 14(3), 1980; the step names below are the paper's.

/// A suffix and its replacement.
type Rule = (&'static str, &'static str);

/// Step 2: double suffixes. Where one suffix is the end of another, the longer comes first.
const STEP_2: [Rule; 21] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("logi", "log"),
];

/// Step 3: `-ic-`, `-full`, `-ness`.
const STEP_3: [Rule; 7] = [
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

/// Step 4: suffixes to remove from a long stem. `ion` needs an `s` or `t` before it.
const STEP_4: [&str; 19] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou",
    "ism", "ate", "iti", "ous", "ive", "ize",
];

/// Replaces a lower-case word with its stem. Words of one or two letters do not change.
pub(crate) fn stem(word: &mut Vec<char>) {
    if word.len() <= 2 {
        return;
    }
    strip_plural(word);
    strip_past_and_gerund(word);
    if stem_before(word, "y").is_some_and(|length| has_vowel(&word[..length])) {
        replace_suffix(word, 1, "i");
    }
    apply_first(word, &STEP_2);
    apply_first(word, &STEP_3);
    strip_long(word);
    strip_final_e(word);
    if word.last() == Some(&'l') && ends_in_double_consonant(word) && measure(word) > 1 {
        word.pop();
    }
}

/// Step 1a: `caresses` → `caress`, `ponies` → `poni`, `cats` → `cat`.
fn strip_plural(word: &mut Vec<char>) {
    if word.last() != Some(&'s') {
        return;
    }
    if stem_before(word, "sses").is_some() || stem_before(word, "ies").is_some() {
        word.truncate(word.len() - 2);
    } else if word[word.len() - 2] != 's' {
        word.pop();
    }
}

/// Step 1b: `agreed` → `agree`, `plastered` → `plaster`, `motoring` → `motor`. It then repairs
/// stems: `conflat(ed)` → `conflate`, `hopp(ing)` → `hop`, `fil(ing)` → `file`.
fn strip_past_and_gerund(word: &mut Vec<char>) {
    if let Some(length) = stem_before(word, "eed") {
        if measure(&word[..length]) > 0 {
            word.pop();
        }
        return;
    }
    let Some(length) = stem_before(word, "ed").or_else(|| stem_before(word, "ing")) else {
        return;
    };
    if !has_vowel(&word[..length]) {
        return;
    }
    word.truncate(length);
    if ["at", "bl", "iz"].iter().any(|suffix| stem_before(word, suffix).is_some()) {
        word.push('e');
    } else if ends_in_double_consonant(word) {
        if !matches!(word.last(), Some('l' | 's' | 'z')) {
            word.pop();
        }
    } else if measure(word) == 1 && ends_in_short_syllable(word) {
        word.push('e');
    }
}

/// Applies the first rule whose suffix matches, but only if the stem before it has a measure above 0.
fn apply_first(word: &mut Vec<char>, rules: &[Rule]) {
    for (suffix, replacement) in rules {
        if let Some(length) = stem_before(word, suffix) {
            if measure(&word[..length]) > 0 {
                replace_suffix(word, suffix.len(), replacement);
            }
            return;
        }
    }
}

/// Step 4: removes the first matching suffix if the stem before it has a measure above 1.
fn strip_long(word: &mut Vec<char>) {
    for suffix in STEP_4 {
        let Some(length) = stem_before(word, suffix) else { continue };
        if suffix == "ion" && !matches!(word[..length].last(), Some('s' | 't')) {
            continue;
        }
        if measure(&word[..length]) > 1 {
            word.truncate(length);
        }
        return;
    }
}

/// Step 5a: `probate` → `probat`, while `rate` does not change.
fn strip_final_e(word: &mut Vec<char>) {
    if word.last() != Some(&'e') {
        return;
    }
    let measure = measure(word);
    if measure > 1 || (measure == 1 && !ends_in_short_syllable(&word[..word.len() - 1])) {
        word.pop();
    }
}

/// Returns the length of the stem before `suffix` if the word ends in it.
fn stem_before(word: &[char], suffix: &str) -> Option<usize> {
    let length = word.len().checked_sub(suffix.len())?;
    word[length..].iter().copied().eq(suffix.chars()).then_some(length)
}

fn replace_suffix(word: &mut Vec<char>, suffix_length: usize, replacement: &str) {
    word.truncate(word.len() - suffix_length);
    word.extend(replacement.chars());
}

/// Returns `true` for a consonant. `y` is one at the start of a word and after a vowel.
fn is_consonant(word: &[char], index: usize) -> bool {
    match word[index] {
        'a' | 'e' | 'i' | 'o' | 'u' => false,
        'y' => index == 0 || !is_consonant(word, index - 1),
        _ => true,
    }
}

fn has_vowel(word: &[char]) -> bool {
    (0..word.len()).any(|index| !is_consonant(word, index))
}

/// Returns the m of the paper: the number of times that a run of vowels precedes a run of consonants.
fn measure(word: &[char]) -> usize {
    let mut count = 0;
    let mut after_vowel = false;
    for index in 0..word.len() {
        let consonant = is_consonant(word, index);
        if consonant && after_vowel {
            count += 1;
        }
        after_vowel = !consonant;
    }
    count
}

fn ends_in_double_consonant(word: &[char]) -> bool {
    let length = word.len();
    length >= 2 && word[length - 1] == word[length - 2] && is_consonant(word, length - 1)
}

/// Returns `true` under the *o condition of the paper: the word ends in consonant, vowel,
/// consonant, and the last is not `w`, `x` or `y`.
fn ends_in_short_syllable(word: &[char]) -> bool {
    let length = word.len();
    length >= 3
        && is_consonant(word, length - 1)
        && !is_consonant(word, length - 2)
        && is_consonant(word, length - 3)
        && !matches!(word[length - 1], 'w' | 'x' | 'y')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(word: &str, expected: &str) {
        let mut letters: Vec<char> = word.chars().collect();
        stem(&mut letters);
        assert_eq!(letters.into_iter().collect::<String>(), expected, "stem of {word}");
    }

    /// The paper's examples, ordered by step. Each word goes through all steps.
    #[test]
    fn examples_of_the_paper() {
        for (word, expected) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("ties", "ti"),
            ("cats", "cat"),
            ("feed", "feed"),
            ("agreed", "agre"),
            ("plastered", "plaster"),
            ("bled", "bled"),
            ("motoring", "motor"),
            ("sing", "sing"),
            ("conflated", "conflat"),
            ("troubled", "troubl"),
            ("sized", "size"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("hissing", "hiss"),
            ("fizzed", "fizz"),
            ("filing", "file"),
            ("happy", "happi"),
            ("sky", "sky"),
            ("relational", "relat"),
            ("conditional", "condit"),
            ("rational", "ration"),
            ("digitizer", "digit"),
            ("operator", "oper"),
            ("feudalism", "feudal"),
            ("hopefulness", "hope"),
            ("formaliti", "formal"),
            ("triplicate", "triplic"),
            ("electrical", "electr"),
            ("goodness", "good"),
            ("revival", "reviv"),
            ("adoption", "adopt"),
            ("probate", "probat"),
            ("rate", "rate"),
            ("cease", "ceas"),
            ("controll", "control"),
            ("roll", "roll"),
        ] {
            check(word, expected);
        }
    }

    #[test]
    fn departures_that_lucene_shares() {
        check("possibly", "possibl");
        check("archaeology", "archaeolog");
        // `geo`, the stem before `logi`, has measure 0.
        check("geology", "geologi");
    }

    #[test]
    fn short_and_odd_words_survive() {
        for word in ["", "a", "is", "ing", "ion", "ss", "sss", "éé", "東京タワー"] {
            let mut letters: Vec<char> = word.chars().collect();
            stem(&mut letters);
        }
        check("is", "is");
        check("ion", "ion");
        check("naïve", "naïv");
    }
}
