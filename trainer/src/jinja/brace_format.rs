//! Python's `str.format`.

use super::arguments::Given;
use super::error::{Result, failed, unsupported};
use super::number_format::Specification;
use super::value::{self, Value};

/// The numbering of fields: automatic (`{}`) or written (`{0}`), never both.
#[derive(Default)]
struct Numbering {
    next: usize,
    is_automatic: bool,
    is_written: bool,
}

/// Reads attributes and items of a value in a field.
pub(super) trait Lookup {
    fn attribute(&self, value: &Value, name: &str) -> Result<Value>;
    fn item(&self, value: &Value, key: &Value) -> Result<Value>;
}

/// Returns `format.format(*positional, **named)`.
pub(super) fn formatted(format: &str, given: &Given, lookup: &dyn Lookup) -> Result<String> {
    let mut out = String::new();
    write(format, given, lookup, &mut Numbering::default(), &mut out)?;
    Ok(out)
}

fn write(
    format: &str,
    given: &Given,
    lookup: &dyn Lookup,
    numbering: &mut Numbering,
    out: &mut String,
) -> Result<()> {
    let mut rest = format;
    while let Some(start) = rest.find(['{', '}']) {
        out.push_str(&rest[..start]);
        let mark = &rest[start..=start];
        rest = &rest[start + 1..];
        if let Some(after) = rest.strip_prefix(mark) {
            out.push_str(mark);
            rest = after;
            continue;
        }
        if mark == "}" {
            return failed("Single '}' encountered in format string");
        }
        let Some(end) = field_end(rest) else {
            return failed("expected '}' before end of string");
        };
        out.push_str(&field(&rest[..end], given, lookup, numbering)?);
        value::check_size(out.len())?;
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Ok(())
}

fn field_end(text: &str) -> Option<usize> {
    let mut depth = 1;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

fn field(
    field: &str,
    given: &Given,
    lookup: &dyn Lookup,
    numbering: &mut Numbering,
) -> Result<String> {
    let split = field.find([':', '!', '[']).map(|at| {
        // A bracket may contain the other marks.
        if field[at..].starts_with('[') {
            let close = field[at..].find(']').map_or(field.len(), |close| at + close);
            field[close..].find([':', '!']).map_or(field.len(), |mark| close + mark)
        } else {
            at
        }
    });
    let (name, tail) = field.split_at(split.unwrap_or(field.len()));
    let (conversion, format) = match tail.strip_prefix('!') {
        Some(after) => {
            let mut letters = after.chars();
            let conversion = letters.next();
            match letters.as_str().strip_prefix(':') {
                Some(format) => (conversion, format),
                None if letters.as_str().is_empty() => (conversion, ""),
                None => return failed("expected ':' after conversion specifier"),
            }
        }
        None => (None, tail.strip_prefix(':').unwrap_or(tail)),
    };
    let mut value = named(name, given, lookup, numbering)?;
    match conversion {
        None => {}
        Some('s') => value = Value::from(value::text(&value)?),
        Some('r') => value = Value::from(value::repr(&value)?),
        Some('a') => return unsupported("the conversion !a"),
        Some(other) => return failed(format!("Unknown conversion specifier '{other}'")),
    }
    let mut specification = String::new();
    write(format, given, lookup, numbering, &mut specification)?;
    let text = value::text(&value)?;
    Specification::parse(&specification)?.value(&value, &text, specification.is_empty())
}

/// Returns the value that a field names, such as `0`, `name`, `name.attribute` or `name[key]`.
fn named(
    name: &str,
    given: &Given,
    lookup: &dyn Lookup,
    numbering: &mut Numbering,
) -> Result<Value> {
    let end = name.find(['.', '[']).unwrap_or(name.len());
    let (first, mut rest) = name.split_at(end);
    let index = if first.is_empty() {
        numbering.is_automatic = true;
        numbering.next += 1;
        Some(numbering.next - 1)
    } else if first.bytes().all(|byte| byte.is_ascii_digit()) {
        numbering.is_written = true;
        first.parse().ok()
    } else {
        None
    };
    if numbering.is_automatic && numbering.is_written {
        return failed("cannot switch between automatic and manual field numbering");
    }
    let found = match index {
        Some(index) => given.positional.get(index).cloned(),
        None => given.named.iter().find(|(key, _)| key == first).map(|(_, value)| value.clone()),
    };
    let Some(mut value) = found else {
        return failed(format!("no argument for the field {{{first}}} of the format"));
    };
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            value = lookup.attribute(&value, &after[..end])?;
            rest = &after[end..];
        } else {
            let Some(end) = rest.find(']') else { return failed("Missing ']' in format string") };
            let key = &rest[1..end];
            let key = match key.parse() {
                Ok(index) if key.bytes().all(|byte| byte.is_ascii_digit()) => Value::Int(index),
                _ => Value::from(key),
            };
            value = lookup.item(&value, &key)?;
            rest = &rest[end + 1..];
        }
    }
    Ok(value)
}
