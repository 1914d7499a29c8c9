//! Reads JSON as Python's `json.loads` does, which the servers of other projects use: in UTF-8, UTF-16 or
//! UTF-32, with or without a byte order mark, with halves of surrogate pairs, NaN and infinite numbers.
//!
//! A half of a surrogate pair becomes U+FFFD. A number that is not finite becomes null
//! ([`shared::contract::python_json`]).

use std::borrow::Cow;

use serde_json::Value;
use shared::contract::python_json::{self, NotFinite};

/// The character in place of one that is none.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Reads a value. The error says what is wrong with the body.
pub(super) fn read(body: &[u8]) -> Result<Value, String> {
    let text = decode(body)?;
    if text.trim_ascii().is_empty() {
        return Err("the body is empty, expected a JSON object".to_owned());
    }
    python_json::parse(&text, NotFinite::Null)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn halves_of_surrogate_pairs_may_be_encoded_like_characters() {
        assert_eq!(read(b"[\"\xed\xa0\x80\xed\xb0\x80\"]").unwrap(), json!(["\u{fffd}\u{fffd}"]));
    }

    #[test]
    fn bodies_that_end_within_a_character_are_refused() {
        for body in [&b"\xff\xfe[\0]"[..], b"\xff\xfe\0\0[\0\0\0]\0"] {
            let error = read(body).unwrap_err();
            assert!(error.ends_with("it ends within a character"), "{error}");
        }
    }
}
