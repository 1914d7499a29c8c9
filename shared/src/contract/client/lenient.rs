//! JSON as Python's `json` writes it, which is not always JSON: `NaN` and infinities as numbers, halves of surrogate
//! pairs in texts, a byte order mark. The parser of this crate refuses a whole body for one of them.

use serde_json::{Error, Value};

/// Names that Python writes for numbers without a form in JSON.
const NUMBERS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// Parses JSON. Numbers without a form in JSON become texts of the same name, such as `"NaN"`; a half of a surrogate
/// pair becomes U+FFFD.
///
/// # Errors
/// A body that is not JSON in this sense either; the error is the strict parser's.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, Error> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    serde_json::from_slice(bytes)
        .or_else(|error| serde_json::from_slice(&repaired(bytes)).map_err(|_| error))
}

fn repaired(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    let mut in_text = false;
    while let Some(&first) = rest.first() {
        let length = match (in_text, first) {
            (_, b'"') => {
                in_text = !in_text;
                1
            }
            (true, b'\\') => match unpaired_half(rest) {
                Some(length) => {
                    out.extend_from_slice(b"\\ufffd");
                    rest = &rest[length..];
                    continue;
                }
                None => escape_length(rest),
            },
            (false, b'N' | b'I' | b'-') => match NUMBERS.iter().find(|name| rest.starts_with(name))
            {
                Some(name) => {
                    out.push(b'"');
                    out.extend_from_slice(name);
                    out.push(b'"');
                    rest = &rest[name.len()..];
                    continue;
                }
                None => 1,
            },
            _ => 1,
        };
        let (copied, after) = rest.split_at(length.min(rest.len()));
        out.extend_from_slice(copied);
        rest = after;
    }
    out
}

/// Returns the code unit of an escape `\uXXXX` at the start of `text`.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// Returns the length of the escape at the start of `text`: a pair of surrogates is one escape.
fn escape_length(text: &[u8]) -> usize {
    match unit(text) {
        Some(0xd800..=0xdbff) => 12,
        Some(_) => 6,
        None => 2,
    }
}

/// Returns the length of the escape at the start of `text` if it is half of a surrogate pair, and the other half does
/// not follow.
fn unpaired_half(text: &[u8]) -> Option<usize> {
    let is_low = |text: &[u8]| matches!(unit(text), Some(0xdc00..=0xdfff));
    match unit(text)? {
        0xd800..=0xdbff => (!text.get(6..).is_some_and(is_low)).then_some(6),
        0xdc00..=0xdfff => Some(6),
        _ => None,
    }
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
            "\u{feff}",
            r#"{"a": [NaN, Infinity, -Infinity, -1.5], "NaN": "Infinity \" NaN \\", "h": "\ud83d x", "#,
            r#""l": "\ude00", "p": "\ud83d\ude00", "t": "\ud83d\ud83d\ude00"}"#
        );
        let expected = json!({
            "a": ["NaN", "Infinity", "-Infinity", -1.5], "NaN": "Infinity \" NaN \\", "h": "\u{fffd} x",
            "l": "\u{fffd}", "p": "😀", "t": "\u{fffd}😀",
        });
        assert_eq!(parse(text.as_bytes()).unwrap(), expected);
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
        ] {
            let strict = serde_json::from_str::<Value>(text).unwrap_err().to_string();
            assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), strict, "{text}");
        }
    }
}
