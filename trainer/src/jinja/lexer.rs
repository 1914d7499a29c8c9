//! Splits a template into tokens, with jinja2's rules for white space around tags.

use shared::contract::answer::is_white_space;

use super::error::{JinjaError, Result};
use super::escapes::{Escape, unescaped};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Text between tags.
    Data(String),
    VariableBegin,
    VariableEnd,
    BlockBegin,
    BlockEnd,
    Name(String),
    Text(String),
    Int(i128),
    Float(f64),
    Operator(&'static str),
    End,
}

/// A token and its line.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) line: usize,
}

/// Operators, longest first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",", ";",
];

struct Lexer<'s> {
    source: &'s str,
    position: usize,
    tokens: Vec<Placed>,
    /// `true` if the text before the position ends a line, or is empty.
    line_starting: bool,
}

/// Returns the tokens of a template; the last is [`Token::End`].
pub(super) fn tokens(source: &str) -> Result<Vec<Placed>> {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    // jinja2 drops one line break at the end.
    if source.ends_with('\n') {
        source.pop();
    }
    let mut lexer = Lexer { source: &source, position: 0, tokens: Vec::new(), line_starting: true };
    while lexer.position < source.len() {
        lexer.root()?;
    }
    lexer.push(Token::End);
    Ok(lexer.tokens)
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.position..]
    }

    fn line(&self) -> usize {
        1 + self.source[..self.position].matches('\n').count()
    }

    fn push(&mut self, token: Token) {
        let line = self.line();
        self.tokens.push(Placed { token, line });
    }

    fn fail<T>(&self, reason: impl Into<String>) -> Result<T> {
        Err(JinjaError::Syntax { line: self.line(), reason: reason.into() })
    }

    fn advance(&mut self, length: usize) {
        let passed = &self.source[self.position..self.position + length];
        self.line_starting = passed.ends_with('\n');
        self.position += length;
    }

    /// Skips white space after a tag that ends in `-`.
    fn skip_space(&mut self) {
        let rest = self.rest();
        let length = rest.len() - rest.trim_start_matches(is_white_space).len();
        if length > 0 {
            self.advance(length);
        }
    }

    /// Reads text up to the next tag, and the tag.
    fn root(&mut self) -> Result<()> {
        let rest = self.rest();
        let Some(start) = ["{%", "{{", "{#"].iter().filter_map(|open| rest.find(open)).min() else {
            self.push(Token::Data(rest.to_owned()));
            self.advance(rest.len());
            return Ok(());
        };
        let opened = &rest[start..start + 2];
        let after = &rest[start + 2..];
        let sign = after.chars().next().filter(|mark| ['-', '+'].contains(mark));
        let text = self.text_before(&rest[..start], sign, opened == "{{");
        if !text.is_empty() {
            self.push(Token::Data(text.to_owned()));
        }
        let raw = (opened == "{%").then(|| raw_tag(after)).flatten();
        match (opened, raw) {
            (_, Some(length)) => {
                self.advance(start + 2 + length);
                self.raw()
            }
            ("{#", None) => {
                self.advance(start + 2 + usize::from(sign.is_some()));
                self.comment()
            }
            (_, None) => {
                let is_block = opened == "{%";
                self.advance(start);
                self.push(if is_block { Token::BlockBegin } else { Token::VariableBegin });
                self.advance(2 + usize::from(sign.is_some()));
                self.tag(is_block)
            }
        }
    }

    /// Returns the text before a tag without the white space that the tag removes.
    fn text_before<'t>(&self, text: &'t str, sign: Option<char>, is_variable: bool) -> &'t str {
        if sign == Some('-') {
            return text.trim_end_matches(is_white_space);
        }
        if sign == Some('+') || is_variable {
            return text;
        }
        let line_start = text.rfind('\n').map_or(0, |at| at + 1);
        let is_blank = text[line_start..].chars().all(is_white_space);
        if (line_start > 0 || self.line_starting) && is_blank { &text[..line_start] } else { text }
    }

    fn comment(&mut self) -> Result<()> {
        let Some(end) = self.rest().find("#}") else {
            return self.fail("missing end of comment tag");
        };
        let before = self.rest()[..end].chars().next_back();
        self.advance(end + 2);
        self.after_block_end(before == Some('-'), before == Some('+'));
        Ok(())
    }

    /// Removes what the end of a block removes: all white space, or one line break.
    fn after_block_end(&mut self, strips: bool, keeps: bool) {
        if strips {
            self.skip_space();
        } else if !keeps && self.rest().starts_with('\n') {
            self.advance(1);
        }
    }

    /// Reads the text of a raw block up to its end.
    fn raw(&mut self) -> Result<()> {
        let rest = self.rest();
        for (start, _) in rest.match_indices("{%") {
            let inner = &rest[start + 2..];
            let sign = inner.chars().next().filter(|mark| ['-', '+'].contains(mark));
            let name = inner[usize::from(sign.is_some())..].trim_start_matches(is_white_space);
            let Some(after) = name.strip_prefix("endraw") else { continue };
            let after = after.trim_start_matches(is_white_space);
            let mark = after.chars().next().filter(|mark| ['-', '+'].contains(mark));
            if !after[usize::from(mark.is_some())..].starts_with("%}") {
                continue;
            }
            let text = self.text_before(&rest[..start], sign, false);
            if !text.is_empty() {
                self.push(Token::Data(text.to_owned()));
            }
            let end = rest.len() - after.len() + usize::from(mark.is_some()) + 2;
            self.advance(end);
            self.after_block_end(mark == Some('-'), mark == Some('+'));
            return Ok(());
        }
        self.fail("missing end of raw directive")
    }

    /// Reads the inside of a tag, up to its end.
    fn tag(&mut self, is_block: bool) -> Result<()> {
        let mut open = Vec::new();
        loop {
            let rest = self.rest();
            if rest.is_empty() {
                return Ok(());
            }
            if open.is_empty() && self.tag_end(is_block) {
                return Ok(());
            }
            let space = rest.len() - rest.trim_start_matches(is_white_space).len();
            if space > 0 {
                self.advance(space);
                continue;
            }
            if let Some((token, length)) = self.number()? {
                self.push(token);
                self.advance(length);
            } else if let Some(length) = name_length(rest) {
                self.name(&rest[..length])?;
            } else if rest.starts_with(['\'', '"']) {
                self.text()?;
            } else if let Some(operator) = OPERATORS.iter().find(|mark| rest.starts_with(**mark)) {
                self.balance(operator, &mut open)?;
                self.push(Token::Operator(operator));
                self.advance(operator.len());
            } else {
                let character = rest.chars().next().unwrap_or_default();
                return self.fail(format!("unexpected character {character:?}"));
            }
        }
    }

    /// Reads the end of a tag, if it is next.
    fn tag_end(&mut self, is_block: bool) -> bool {
        let rest = self.rest();
        let close = if is_block { "%}" } else { "}}" };
        let sign = rest.chars().next().filter(|mark| *mark == '-' || (*mark == '+' && is_block));
        if !rest[usize::from(sign.is_some())..].starts_with(close) {
            return false;
        }
        self.push(if is_block { Token::BlockEnd } else { Token::VariableEnd });
        self.advance(2 + usize::from(sign.is_some()));
        if is_block {
            self.after_block_end(sign == Some('-'), sign == Some('+'));
        } else if sign == Some('-') {
            self.skip_space();
        }
        true
    }

    fn name(&mut self, name: &str) -> Result<()> {
        let starts = name.chars().next().is_some_and(|first| first.is_alphabetic() || first == '_');
        if !starts {
            return self.fail("invalid character in identifier");
        }
        self.push(Token::Name(name.to_owned()));
        self.advance(name.len());
        Ok(())
    }

    fn balance(&self, operator: &str, open: &mut Vec<&'static str>) -> Result<()> {
        match operator {
            "{" => open.push("}"),
            "(" => open.push(")"),
            "[" => open.push("]"),
            "}" | ")" | "]" => match open.pop() {
                Some(expected) if expected == operator => {}
                Some(expected) => {
                    return self.fail(format!("unexpected '{operator}', expected '{expected}'"));
                }
                None => return self.fail(format!("unexpected '{operator}'")),
            },
            _ => {}
        }
        Ok(())
    }

    fn number(&self) -> Result<Option<(Token, usize)>> {
        let rest = self.rest();
        if !rest.starts_with(|first: char| first.is_ascii_digit()) {
            return Ok(None);
        }
        if !self.source[..self.position].ends_with('.')
            && let Some(length) = float_length(rest)
        {
            let digits = rest[..length].replace('_', "");
            return match digits.parse() {
                Ok(number) => Ok(Some((Token::Float(number), length))),
                Err(_) => self.fail(format!("{digits} is not a number")),
            };
        }
        let (radix, length) = integer_length(rest);
        let digits = rest[..length].replace('_', "");
        let digits = if radix == 10 { digits.as_str() } else { &digits[2..] };
        match i128::from_str_radix(digits, radix) {
            Ok(number) => Ok(Some((Token::Int(number), length))),
            Err(_) => Err(JinjaError::Unsupported(format!(
                "the number {digits} (line {}), which exceeds 128 bits",
                self.line()
            ))),
        }
    }

    fn text(&mut self) -> Result<()> {
        let rest = self.rest();
        let quote = rest.chars().next().unwrap_or_default();
        let mut escaped = false;
        for (at, letter) in rest.char_indices().skip(1) {
            if escaped {
                escaped = false;
            } else if letter == '\\' {
                escaped = true;
            } else if letter == quote {
                let text = match unescaped(&rest[1..at]) {
                    Ok(text) => text,
                    Err(Escape::Invalid(reason)) => return self.fail(reason),
                    Err(Escape::Unsupported(reason)) => {
                        return Err(JinjaError::Unsupported(reason).at(self.line()));
                    }
                };
                self.push(Token::Text(text));
                self.advance(at + 1);
                return Ok(());
            }
        }
        self.fail(format!("unexpected character {quote:?}"))
    }
}

/// Returns the length of `raw %}` after `{%`.
fn raw_tag(after: &str) -> Option<usize> {
    let unsigned = after.strip_prefix(['-', '+']).unwrap_or(after);
    let rest = unsigned.trim_start_matches(is_white_space).strip_prefix("raw")?;
    let rest = rest.trim_start_matches(is_white_space);
    let rest = match rest.strip_prefix("-%}") {
        Some(rest) => rest.trim_start_matches(is_white_space),
        None => rest.strip_prefix("%}")?,
    };
    Some(after.len() - rest.len())
}

fn name_length(rest: &str) -> Option<usize> {
    let length = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
    Some(length.unwrap_or(rest.len())).filter(|length| *length > 0)
}

/// Returns the length of digits that single underscores may separate.
fn digits_length(text: &str, is_digit: impl Fn(u8) -> bool) -> usize {
    let bytes = text.as_bytes();
    let mut length = 0;
    while length < bytes.len() {
        let underscore = length > 0 && bytes[length] == b'_';
        let next = length + usize::from(underscore);
        if !bytes.get(next).is_some_and(|byte| is_digit(*byte)) {
            break;
        }
        length = next + 1;
    }
    length
}

fn float_length(rest: &str) -> Option<usize> {
    let decimal = |text: &str| digits_length(text, |byte| byte.is_ascii_digit());
    let whole = decimal(rest);
    let fraction = rest[whole..].strip_prefix('.').map_or(0, |after| match decimal(after) {
        0 => 0,
        digits => digits + 1,
    });
    let end = whole + fraction;
    let exponent = rest[end..].strip_prefix(['e', 'E']).map_or(0, |after| {
        let sign = usize::from(after.starts_with(['+', '-']));
        match decimal(&after[sign..]) {
            0 => 0,
            digits => 1 + sign + digits,
        }
    });
    (fraction + exponent > 0).then_some(end + exponent)
}

/// Returns the radix of a whole number and its length.
fn integer_length(rest: &str) -> (u32, usize) {
    let lower: String = rest.chars().take(2).collect::<String>().to_ascii_lowercase();
    for (prefix, radix) in [("0b", 2), ("0o", 8), ("0x", 16)] {
        if lower == prefix {
            // An underscore may follow the prefix.
            let after = &rest[2..];
            let skipped = usize::from(after.starts_with('_'));
            let digits = digits_length(&after[skipped..], |byte| char::from(byte).is_digit(radix));
            if digits > 0 {
                return (radix, 2 + skipped + digits);
            }
        }
    }
    if rest.starts_with('0') {
        return (10, digits_length(rest, |byte| byte == b'0'));
    }
    (10, digits_length(rest, |byte| byte.is_ascii_digit()))
}
