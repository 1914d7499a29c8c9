//! Escapes in text literals.

use super::characters::push_formatted;

/// A text literal that cannot be read.
pub(super) enum Escape {
    Invalid(String),
    Unsupported(String),
}

/// Reads the escapes of a text as Python's `unicode-escape`, after other characters became escapes themselves.
pub(super) fn unescaped(text: &str) -> std::result::Result<String, Escape> {
    if !text.contains('\\') {
        return Ok(text.to_owned());
    }
    let mut ascii = String::with_capacity(text.len());
    for letter in text.chars() {
        match u32::from(letter) {
            0..=0x7f => ascii.push(letter),
            code @ ..=0xff => push_formatted(&mut ascii, format_args!("\\x{code:02x}")),
            code @ ..=0xffff => push_formatted(&mut ascii, format_args!("\\u{code:04x}")),
            code => push_formatted(&mut ascii, format_args!("\\U{code:08x}")),
        }
    }
    let mut text = String::with_capacity(ascii.len());
    let mut letters = ascii.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('\n') => {}
            Some(same @ ('\\' | '\'' | '"')) => text.push(same),
            Some('a') => text.push('\u{7}'),
            Some('b') => text.push('\u{8}'),
            Some('f') => text.push('\u{c}'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('t') => text.push('\t'),
            Some('v') => text.push('\u{b}'),
            Some(first @ '0'..='7') => {
                let following = letters.as_str().bytes().take(2);
                let count = following.take_while(|byte| (b'0'..=b'7').contains(byte)).count();
                let digits = format!("{first}{}", &letters.as_str()[..count]);
                letters = letters.as_str()[count..].chars();
                text.extend(u32::from_str_radix(&digits, 8).ok().and_then(char::from_u32));
            }
            Some(kind @ ('x' | 'u' | 'U')) => {
                let count = [('x', 2), ('u', 4), ('U', 8)]
                    .iter()
                    .find_map(|(name, count)| (*name == kind).then_some(*count))
                    .unwrap_or_default();
                let digits = letters.as_str().get(..count);
                let digits =
                    digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
                let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
                let Some(code) = code.filter(|code| *code <= 0x10_ffff) else {
                    return Err(Escape::Invalid(format!("truncated \\{kind} escape in a text")));
                };
                letters = letters.as_str()[count..].chars();
                let Some(letter) = char::from_u32(code) else {
                    let reason = format!("the surrogate \\u{code:04x} in a text");
                    return Err(Escape::Unsupported(reason));
                };
                text.push(letter);
            }
            Some('N') => {
                return Err(Escape::Unsupported("\\N{…} in a text".to_owned()));
            }
            Some(other) => text.extend(['\\', other]),
            None => return Err(Escape::Invalid("\\ at the end of a text".to_owned())),
        }
    }
    Ok(text)
}
