//! Values as Python's `str` and `repr` write them.

use super::{Value, View};
use crate::jinja::characters::push_formatted;
use crate::jinja::error::{Result, unsupported};

/// Most levels of nested containers that are printed.
const NESTING_MAX: usize = 100;

/// Returns `str(value)`.
pub(in crate::jinja) fn text(value: &Value) -> Result<String> {
    match value {
        Value::Undefined(_) => Ok(String::new()),
        Value::Text(text) | Value::Markup(text) => Ok(text.to_string()),
        _ => repr(value),
    }
}

/// Returns `repr(value)`.
pub(in crate::jinja) fn repr(value: &Value) -> Result<String> {
    let mut out = String::new();
    write_repr(&mut out, value, 0)?;
    Ok(out)
}

fn write_repr(out: &mut String, value: &Value, depth: usize) -> Result<()> {
    if depth > NESTING_MAX {
        return unsupported(format!("printing more than {NESTING_MAX} nested lists"));
    }
    if out.len() > super::SIZE_MAX {
        return unsupported("a text of more than 32 MiB");
    }
    match value {
        Value::Undefined(_) => out.push_str("Undefined"),
        Value::None => out.push_str("None"),
        Value::Bool(value) => out.push_str(if *value { "True" } else { "False" }),
        Value::Int(number) => out.push_str(&number.to_string()),
        Value::Float(number) => out.push_str(&float_text(*number)),
        Value::Text(text) => out.push_str(&quoted(text)),
        Value::Markup(text) => push_formatted(out, format_args!("Markup({})", quoted(text))),
        Value::List(items) => write_items(out, "[", "]", items, depth)?,
        Value::Tuple(items) | Value::Group(items) => {
            let close = if items.len() == 1 { ",)" } else { ")" };
            write_items(out, "(", close, items, depth)?;
        }
        Value::Dict(dict) => write_dict(out, dict.pairs(), depth)?,
        Value::View(kind, _) => {
            let name = match kind {
                View::Keys => "dict_keys([",
                View::Values => "dict_values([",
                View::Items => "dict_items([",
            };
            write_items(out, name, "])", &super::iterated(value)?, depth)?;
        }
        Value::Range(range) => {
            push_formatted(out, format_args!("range({}, {}", range.start, range.stop));
            if range.step != 1 {
                push_formatted(out, format_args!(", {}", range.step));
            }
            out.push(')');
        }
        Value::Namespace(names) => {
            out.push_str("<Namespace ");
            write_dict(out, names.borrow().pairs(), depth)?;
            out.push('>');
        }
        Value::Macro(definition) => {
            push_formatted(out, format_args!("<Macro {}>", quoted(definition.name())));
        }
        Value::Loop(state) => out.push_str(&state.description()),
        Value::Iterator(_)
        | Value::Function(_)
        | Value::Method(_)
        | Value::Cycler(_)
        | Value::Joiner(_) => {
            return unsupported(format!("printing an object of type '{}'", value.type_name()));
        }
    }
    Ok(())
}

fn write_items(
    out: &mut String,
    open: &str,
    close: &str,
    items: &[Value],
    depth: usize,
) -> Result<()> {
    out.push_str(open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_repr(out, item, depth + 1)?;
    }
    out.push_str(close);
    Ok(())
}

fn write_dict(out: &mut String, pairs: &[(Value, Value)], depth: usize) -> Result<()> {
    out.push('{');
    for (index, (key, value)) in pairs.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_repr(out, key, depth + 1)?;
        out.push_str(": ");
        write_repr(out, value, depth + 1)?;
    }
    out.push('}');
    Ok(())
}

/// Returns the shortest text that reads back as the number, in Python's form.
pub(in crate::jinja) fn float_text(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        let plain = format!("{number}");
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Returns a text in quotes, with Python's escapes.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if letter == quote => out.extend(['\\', letter]),
            _ if is_printable(letter) => out.push(letter),
            _ => match u32::from(letter) {
                code @ ..=0xff => push_formatted(&mut out, format_args!("\\x{code:02x}")),
                code @ ..=0xffff => push_formatted(&mut out, format_args!("\\u{code:04x}")),
                code => push_formatted(&mut out, format_args!("\\U{code:08x}")),
            },
        }
    }
    out.push(quote);
    out
}

/// Returns `true` for characters that Python prints as they are.
pub(in crate::jinja) fn is_printable(letter: char) -> bool {
    if letter.is_ascii() {
        return !letter.is_ascii_control();
    }
    // After another character, Rust escapes exactly what is not printable.
    let pair: String = ['a', letter].iter().collect();
    !pair.escape_debug().any(|shown| shown == '\\')
}
