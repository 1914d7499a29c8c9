//! Properties and cases of characters, as Python's methods of texts have them.

use super::error::{Result, unsupported};

/// A property of characters that a method such as `isalpha` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Property {
    Alphabetic,
    Alphanumeric,
    Decimal,
    Digit,
    Numeric,
}

/// Returns `true` if a character has a property. Refuses the characters for which Rust's tables do not decide it.
pub(super) fn has(property: Property, letter: char) -> Result<bool> {
    if letter.is_ascii() {
        return Ok(match property {
            Property::Alphabetic => letter.is_ascii_alphabetic(),
            Property::Alphanumeric => letter.is_ascii_alphanumeric(),
            _ => letter.is_ascii_digit(),
        });
    }
    if !letter.is_alphanumeric() {
        return Ok(false);
    }
    let is_letter = letter.is_lowercase() || letter.is_uppercase() || is_common_letter(letter);
    if is_letter && !letter.is_numeric() && !('\u{2160}'..='\u{24ff}').contains(&letter) {
        return Ok(matches!(property, Property::Alphabetic | Property::Alphanumeric));
    }
    unsupported(format!("the class of the character {letter:?}"))
}

/// Returns `true` for letters without case of common scripts.
fn is_common_letter(letter: char) -> bool {
    matches!(letter,
        '\u{5d0}'..='\u{5ea}' | '\u{620}'..='\u{64a}' | '\u{904}'..='\u{939}' | '\u{e01}'..='\u{e30}'
        | '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}')
        // Some ideographs are also numbers.
        && !"一二三四五六七八九十百千万億兆零壱弐参亿两叁肆伍陆柒捌玖拾萬〇".contains(letter)
}

/// Returns `true` if every character has the property, and there is one.
pub(super) fn all_have(property: Property, text: &str) -> Result<bool> {
    for letter in text.chars() {
        if !has(property, letter)? {
            return Ok(false);
        }
    }
    Ok(!text.is_empty())
}

/// Returns `true` for a character with a case.
pub(super) fn is_cased(letter: char) -> bool {
    letter.is_lowercase() || letter.is_uppercase() || is_titlecase(letter)
}

fn is_titlecase(letter: char) -> bool {
    matches!(letter, '\u{1c5}' | '\u{1c8}' | '\u{1cb}' | '\u{1f2}')
}

/// Writes the titlecase of a character.
pub(super) fn push_title(out: &mut String, letter: char) {
    match letter {
        '\u{1c4}'..='\u{1c6}' => out.push('\u{1c5}'),
        '\u{1c7}'..='\u{1c9}' => out.push('\u{1c8}'),
        '\u{1ca}'..='\u{1cc}' => out.push('\u{1cb}'),
        '\u{1f1}'..='\u{1f3}' => out.push('\u{1f2}'),
        // Georgian letters have no titlecase.
        '\u{10d0}'..='\u{10ff}' => out.push(letter),
        _ => {
            let mut upper = letter.to_uppercase();
            out.extend(upper.next());
            out.extend(upper.flat_map(char::to_lowercase));
        }
    }
}

/// Returns a text with its first character in titlecase and the rest in lower case.
pub(super) fn capitalized(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    if let Some(first) = letters.next() {
        push_title(&mut out, first);
        // The whole text decides the form of a final sigma.
        let lower = text.to_lowercase();
        let first_lower = first.to_lowercase().map(char::len_utf8).sum();
        out.push_str(&lower[first_lower..]);
    }
    out
}

/// Returns a text in which every word begins with titlecase; words begin after characters without case.
pub(super) fn titled(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut follows_cased = false;
    for letter in text.chars() {
        if follows_cased {
            out.extend(letter.to_lowercase());
        } else {
            push_title(&mut out, letter);
        }
        follows_cased = is_cased(letter);
    }
    out
}

/// Returns a text with upper and lower case exchanged.
pub(super) fn swapped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_uppercase() {
            out.extend(letter.to_lowercase());
        } else {
            out.extend(letter.to_uppercase());
        }
    }
    out
}

/// Returns `true` for a text in titlecase.
pub(super) fn is_title(text: &str) -> bool {
    let (mut follows_cased, mut has_cased) = (false, false);
    for letter in text.chars() {
        if letter.is_uppercase() || is_titlecase(letter) {
            if follows_cased {
                return false;
            }
            (follows_cased, has_cased) = (true, true);
        } else if letter.is_lowercase() {
            if !follows_cased {
                return false;
            }
            has_cased = true;
        } else {
            follows_cased = false;
        }
    }
    has_cased
}

/// Returns `true` if all characters with case are in lower case (`upper`: in upper case), and there is one.
pub(super) fn is_in_case(text: &str, upper: bool) -> bool {
    let mut cased = text.chars().filter(|letter| is_cased(*letter)).peekable();
    cased.peek().is_some()
        && cased.all(|letter| if upper { letter.is_uppercase() } else { letter.is_lowercase() })
}

/// Returns the lines of a text, with their ends if `keep_ends`.
pub(super) fn lines(text: &str, keep_ends: bool) -> Vec<String> {
    let is_end = |letter: char| {
        matches!(
            letter,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some(end) = rest.find(is_end) else {
            lines.push(rest.to_owned());
            break;
        };
        let length = if rest[end..].starts_with("\r\n") {
            2
        } else {
            rest[end..].chars().next().map_or(0, char::len_utf8)
        };
        lines.push(rest[..if keep_ends { end + length } else { end }].to_owned());
        rest = &rest[end + length..];
    }
    lines
}

/// Adds a formatted text.
pub(super) fn push_formatted(out: &mut String, text: std::fmt::Arguments<'_>) {
    use std::fmt::Write;

    out.write_fmt(text).expect("writing to a String does not fail");
}
