//! JSON as Python's `json` writes and reads it, which is not always JSON: `NaN` and infinities as numbers, and halves of
//! surrogate pairs in texts. The parser of this crate refuses a whole document for one of them.

use std::borrow::Cow;

use serde_json::{Error, Value};

/// The number of hexadecimal digits after `\u`.
const HEX_DIGITS: usize = 4;

/// The value in place of a number that is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFinite {
    /// null.
    Null,
    /// A text with the number's name, such as `"NaN"`.
    Text,
}

/// Parses JSON in which half of a surrogate pair becomes U+FFFD, and a number without a form in JSON what `infinite`
/// says.
///
/// # Errors
/// A text that is not JSON in this sense either; the error is the strict parser's.
pub fn parse(text: &str, infinite: NotFinite) -> Result<Value, Error> {
    serde_json::from_str(text).or_else(|error| {
        let text = with_finite_numbers(&with_whole_characters(text), infinite);
        serde_json::from_str(&text).map_err(|_| error)
    })
}

/// Replaces escapes that are halves of surrogate pairs. A backslash occurs only within strings.
fn with_whole_characters(text: &str) -> Cow<'_, str> {
    if !text.contains("\\ud") && !text.contains("\\uD") {
        return Cow::Borrowed(text);
    }
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        replaced.push_str(before);
        let length = match escaped_unit(escape) {
            Some(0xd800..=0xdbff) => {
                let one = 2 + HEX_DIGITS;
                let next = escape.get(one..).and_then(escaped_unit);
                if matches!(next, Some(0xdc00..=0xdfff)) { Some(2 * one) } else { None }
            }
            Some(0xdc00..=0xdfff) => None,
            Some(_) => Some(2 + HEX_DIGITS),
            // The character after a backslash belongs to it, even if it is another backslash.
            None => Some(1 + escape[1..].chars().next().map_or(0, char::len_utf8)),
        };
        let end = length.unwrap_or(2 + HEX_DIGITS);
        replaced.push_str(if length.is_some() { &escape[..end] } else { "\\ufffd" });
        rest = &escape[end..];
    }
    replaced.push_str(rest);
    Cow::Owned(replaced)
}

/// Returns the unit of UTF-16 that a text begins with as `\uXXXX`.
fn escaped_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..HEX_DIGITS)?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

/// Replaces numbers that are not finite.
fn with_finite_numbers(text: &str, infinite: NotFinite) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => string_length(rest),
            '-' | '0'..='9' | 'N' | 'I' => {
                let is_part = |character: char| {
                    character.is_ascii_alphanumeric() || matches!(character, '-' | '+' | '.')
                };
                rest.find(|character| !is_part(character)).unwrap_or(rest.len())
            }
            other => other.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        let is_number = token.trim_start_matches('-').starts_with(|at: char| at.is_ascii_digit());
        let is_infinite = || token.parse().is_ok_and(f64::is_infinite);
        let is_named = matches!(token, "NaN" | "Infinity" | "-Infinity");
        let is_finite = !(is_named || is_number && is_infinite());
        match infinite {
            _ if is_finite => replaced.push_str(token),
            NotFinite::Null => replaced.push_str("null"),
            NotFinite::Text => replaced.extend(["\"", token, "\""]),
        }
        rest = after;
    }
    replaced
}

/// Returns the length of the string that a text begins with, quotes included.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_python_writes_is_read() {
        // json.dumps of Python 3.11: {"a": [nan, inf, -inf, -1.5], "NaN": "Infinity \" NaN \\", "h": "\ud83d x",
        // "l": "\ude00", "p": "😀", "t": "\ud83d\ud83d\ude00"}
        let text = concat!(
            r#"{"a": [NaN, Infinity, -Infinity, -1.5], "NaN": "Infinity \" NaN \\", "h": "\ud83d x", "#,
            r#""l": "\ude00", "p": "\ud83d\ude00", "t": "\ud83d\ud83d\ude00"}"#
        );
        let expected = |a: Value| {
            json!({
                "a": a, "NaN": "Infinity \" NaN \\", "h": "\u{fffd} x", "l": "\u{fffd}", "p": "😀",
                "t": "\u{fffd}😀",
            })
        };
        let named = json!(["NaN", "Infinity", "-Infinity", -1.5]);
        assert_eq!(parse(text, NotFinite::Text).unwrap(), expected(named));
        let null = json!([null, null, null, -1.5]);
        assert_eq!(parse(text, NotFinite::Null).unwrap(), expected(null));
    }

    #[test]
    fn halves_of_surrogate_pairs_are_replaced_and_pairs_kept() {
        for (text, expected) in [
            (r#"["\ud83d\ude00"]"#, "\u{1f600}"),
            (r#"["a\uD83Db"]"#, "a\u{fffd}b"),
            (r#"["\ude00\ud83d"]"#, "\u{fffd}\u{fffd}"),
            (r#"["\ud83d\n"]"#, "\u{fffd}\n"),
            (r#"["\\ud83d"]"#, "\\ud83d"),
            (r#"["\\\ud83d"]"#, "\\\u{fffd}"),
            (r#"["\u00e9\udead"]"#, "\u{e9}\u{fffd}"),
        ] {
            assert_eq!(parse(text, NotFinite::Null).unwrap(), json!([expected]), "{text}");
        }
    }

    #[test]
    fn numbers_beyond_a_double_are_not_finite() {
        let text = r#"{"a": -1e999, "b": 1e9}"#;
        assert_eq!(parse(text, NotFinite::Null).unwrap(), json!({"a": null, "b": 1e9}));
    }

    #[test]
    fn what_is_not_json_stays_an_error() {
        for text in [
            "",
            "<html>",
            "{\"a\": Nan}",
            "{\"a\": \"\\",
            "{\"a\": \"\\ud83",
            "{\"a\": NaN",
            "[NaN]]",
            "[+Infinity]",
            "[1e]",
            "[01]",
            "[--1e999]",
            r#"["\ud83d\u"]"#,
            r#"["\udzzz"]"#,
            r#"["\ud83é0"]"#,
        ] {
            let strict = serde_json::from_str::<Value>(text).unwrap_err().to_string();
            assert_eq!(parse(text, NotFinite::Text).unwrap_err().to_string(), strict, "{text}");
        }
    }
}
