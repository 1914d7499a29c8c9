//! Reads JSON as Python's `json.loads` does, which the servers of other projects use: in UTF-8, UTF-16 or
//! UTF-32, with or without a byte order mark, with halves of surrogate pairs, NaN and infinite numbers.
//!
//! A half of a surrogate pair becomes U+FFFD. A number that is not finite becomes null.

use std::borrow::Cow;

use serde_json::Value;

/// The character in place of one that is none.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;
/// The number of hexadecimal digits after `\u`.
const HEX_DIGITS: usize = 4;

/// Reads a value. The error says what is wrong with the body.
pub(super) fn read(body: &[u8]) -> Result<Value, String> {
    let text = decode(body)?;
    if text.trim_ascii().is_empty() {
        return Err("the body is empty, expected a JSON object".to_owned());
    }
    let text = with_whole_characters(&text);
    serde_json::from_str(&text)
        .or_else(|error| serde_json::from_str(&with_finite_numbers(&text)).map_err(|_| error))
        .map_err(|error| format!("the body is not JSON: {error}"))
}

/// An encoding of Unicode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Utf16 { is_big: bool },
    Utf32 { is_big: bool },
}

/// Returns the encoding of a body and the length of its byte order mark. JSON begins with an ASCII
/// character, so the zeros of the first bytes tell the encoding without a mark (RFC 4627, section 3).
fn encoding(body: &[u8]) -> (Encoding, usize) {
    const UTF_32: [(&[u8], bool); 2] = [(&[0, 0, 0xfe, 0xff], true), (&[0xff, 0xfe, 0, 0], false)];
    const UTF_16: [(&[u8], bool); 2] = [(&[0xfe, 0xff], true), (&[0xff, 0xfe], false)];
    let begins = |&(mark, _): &(&[u8], bool)| body.starts_with(mark);
    if let Some((mark, is_big)) = UTF_32.into_iter().find(begins) {
        return (Encoding::Utf32 { is_big }, mark.len());
    }
    if let Some((mark, is_big)) = UTF_16.into_iter().find(begins) {
        return (Encoding::Utf16 { is_big }, mark.len());
    }
    if body.starts_with(b"\xef\xbb\xbf") {
        return (Encoding::Utf8, 3);
    }
    let encoding = match *body {
        [0, 0, _, _, ..] => Encoding::Utf32 { is_big: true },
        [0, _, ..] => Encoding::Utf16 { is_big: true },
        [_, 0, 0, 0, ..] => Encoding::Utf32 { is_big: false },
        [_, 0, ..] => Encoding::Utf16 { is_big: false },
        _ => Encoding::Utf8,
    };
    (encoding, 0)
}

/// Decodes a body.
fn decode(body: &[u8]) -> Result<Cow<'_, str>, String> {
    let (encoding, mark) = encoding(body);
    let bytes = &body[mark..];
    match encoding {
        Encoding::Utf8 => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(_) => decode_utf8(bytes)
                .map(Cow::Owned)
                .map_err(|at| format!("the body is not UTF-8: invalid at byte {}", mark + at)),
        },
        Encoding::Utf16 { is_big } => {
            let (units, rest) = bytes.as_chunks();
            let order = if is_big { u16::from_be_bytes } else { u16::from_le_bytes };
            let units = units.iter().map(|unit| order(*unit));
            let text = char::decode_utf16(units).map(|unit| unit.unwrap_or(REPLACEMENT)).collect();
            whole(rest, "UTF-16").map(|()| Cow::Owned(text))
        }
        Encoding::Utf32 { is_big } => {
            let (units, rest) = bytes.as_chunks();
            let order = if is_big { u32::from_be_bytes } else { u32::from_le_bytes };
            let units = units.iter().map(|unit| order(*unit));
            let text = units.map(|unit| char::from_u32(unit).unwrap_or(REPLACEMENT)).collect();
            whole(rest, "UTF-32").map(|()| Cow::Owned(text))
        }
    }
}

/// Refuses a body that ends within a character.
fn whole(rest: &[u8], encoding: &str) -> Result<(), String> {
    if rest.is_empty() {
        return Ok(());
    }
    Err(format!("the body is not {encoding}: it ends within a character"))
}

/// Decodes UTF-8 in which halves of surrogate pairs are encoded like characters. The error is the first byte
/// that is invalid.
fn decode_utf8(bytes: &[u8]) -> Result<String, usize> {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                return Ok(text);
            }
            Err(error) => {
                let (valid, invalid) = rest.split_at(error.valid_up_to());
                text.push_str(std::str::from_utf8(valid).expect("it is valid up to here"));
                let [0xed, 0xa0..=0xbf, 0x80..=0xbf, after @ ..] = invalid else {
                    return Err(bytes.len() - invalid.len());
                };
                text.push(REPLACEMENT);
                rest = after;
            }
        }
    }
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

/// Replaces numbers that are not finite by null.
fn with_finite_numbers(text: &str) -> String {
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
        replaced.push_str(if is_named || is_number && is_infinite() { "null" } else { token });
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
    fn halves_of_surrogate_pairs_are_replaced_and_pairs_kept() {
        for (body, expected) in [
            (r#"["\ud83d\ude00"]"#, "\u{1f600}"),
            (r#"["a\uD83Db"]"#, "a\u{fffd}b"),
            (r#"["\ude00\ud83d"]"#, "\u{fffd}\u{fffd}"),
            (r#"["\ud83d\ud83d\ude00"]"#, "\u{fffd}\u{1f600}"),
            (r#"["\ud83d\n"]"#, "\u{fffd}\n"),
            (r#"["\\ud83d"]"#, "\\ud83d"),
            (r#"["\\\ud83d"]"#, "\\\u{fffd}"),
            (r#"["\u00e9\udead"]"#, "\u{e9}\u{fffd}"),
        ] {
            assert_eq!(read(body.as_bytes()).unwrap(), json!([expected]), "{body}");
        }
        // Encoded as if they were characters.
        assert_eq!(read(b"[\"\xed\xa0\x80\xed\xb0\x80\"]").unwrap(), json!(["\u{fffd}\u{fffd}"]));
    }

    #[test]
    fn incomplete_escapes_stay_errors() {
        for body in [r#"["\ud8"#, r#"["\ud83d\u"]"#, r#"["\udzzz"]"#, r#"["\"#, r#"["\ud83é0"]"#] {
            let error = read(body.as_bytes()).unwrap_err();
            assert!(error.starts_with("the body is not JSON: "), "{error}");
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_null() {
        let body =
            br#"{"a":NaN,"b":[-Infinity,Infinity],"c":"NaN \" Infinity","d":-1e999,"e":1e9}"#;
        let expected = json!({"a": null, "b": [null, null], "c": "NaN \" Infinity", "d": null,
                              "e": 1e9});
        assert_eq!(read(body).unwrap(), expected);
        for body in ["[Nan]", "[+Infinity]", "[1e]", "[01]", "[NaN", "[--1e999]"] {
            assert!(read(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn bodies_that_end_within_a_character_are_refused() {
        for body in [&b"\xff\xfe[\0]"[..], b"\xff\xfe\0\0[\0\0\0]\0"] {
            let error = read(body).unwrap_err();
            assert!(error.ends_with("it ends within a character"), "{error}");
        }
    }
}
