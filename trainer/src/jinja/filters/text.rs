//! Filters of texts.

use shared::contract::answer::is_white_space;

use super::changed;
use crate::jinja::arguments::Given;
use crate::jinja::characters::{self, Property};
use crate::jinja::error::{Result, failed, unsupported};
use crate::jinja::methods;
use crate::jinja::percent;
use crate::jinja::value::{self, Value};

pub(super) fn apply(name: &str, value: &Value, given: Given) -> Result<Value> {
    match name {
        "format" => return format(value, given),
        "replace" => return replace(value, given),
        "indent" => return indent(value, given),
        "truncate" => return truncate(value, given),
        "trim" => {
            let chars = given.bind(name, "/ chars?")?.unless_none(0);
            let Some(chars) = chars else {
                return changed(value, |text| text.trim_matches(is_white_space).to_owned());
            };
            let Some(set) = chars.as_text() else { return failed("strip arg must be None or str") };
            return changed(value, |text| {
                text.trim_matches(|letter| set.contains(letter)).to_owned()
            });
        }
        "center" => {
            let width = usize::try_from(given.bind(name, "/ width?")?.int(0, 80)?).unwrap_or(0);
            value::check_size(width)?;
            return changed(value, |text| methods::centered(text, width, ' '));
        }
        _ => {
            given.bind(name, "")?;
        }
    }
    match name {
        "upper" => changed(value, str::to_uppercase),
        "lower" => changed(value, str::to_lowercase),
        "capitalize" => changed(value, characters::capitalized),
        "title" => Ok(Value::from(title(&value::text(value)?))),
        "string" => changed(value, str::to_owned),
        _ => word_count(&value::text(value)?),
    }
}

fn format(value: &Value, given: Given) -> Result<Value> {
    let text = value::text(value)?;
    if matches!(value, Value::Markup(_)) {
        return unsupported("'format' of a text marked as safe");
    }
    let is_named = !given.named.is_empty();
    if is_named && !given.positional.is_empty() {
        return failed("can't handle positional and keyword arguments at the same time");
    }
    let values = if is_named { Value::from(given.names()) } else { Value::tuple(given.positional) };
    percent::formatted(&text, &values).map(Value::from)
}

fn replace(value: &Value, given: Given) -> Result<Value> {
    let mut bound = given.bind("replace", "/ old new count?")?;
    let (old, new) = (bound.string(0)?, bound.string(1)?);
    let count = match bound.unless_none(2) {
        Some(count) => crate::jinja::arguments::int(&count)?,
        None => -1,
    };
    methods::replaced(&value::text(value)?, &old, &new, count).map(Value::from)
}

fn indent(value: &Value, given: Given) -> Result<Value> {
    let mut bound = given.bind("indent", "/ width? first? blank?")?;
    let indentation = match bound.optional(0) {
        None => " ".repeat(4),
        Some(width) => {
            if let Some(text) = width.as_text() {
                text.to_owned()
            } else {
                let width = usize::try_from(crate::jinja::arguments::int(&width)?).unwrap_or(0);
                value::check_size(width)?;
                " ".repeat(width)
            }
        }
    };
    let (first, blank) = (bound.flag(1), bound.flag(2));
    value.check_defined()?;
    let Some(text) = value.as_text() else {
        return failed(format!("indent: unsupported operand: '{}' and 'str'", value.type_name()));
    };
    let lines = characters::lines(&format!("{text}\n"), false);
    value::check_size(text.len().saturating_add(lines.len().saturating_mul(indentation.len())))?;
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            out.push('\n');
            if blank || !line.is_empty() {
                out.push_str(&indentation);
            }
        }
        out.push_str(line);
    }
    let out = Value::from(if first { indentation + &out } else { out });
    Ok(if matches!(value, Value::Markup(_)) { methods::marked(out) } else { out })
}

fn truncate(value: &Value, given: Given) -> Result<Value> {
    let mut bound = given.bind("truncate", "/ length? killwords? end? leeway?")?;
    let length = bound.int(0, 255)?;
    let kills_words = bound.flag(1);
    let end = bound.optional(2).unwrap_or_else(|| Value::from("..."));
    let leeway = match bound.unless_none(3) {
        Some(leeway) => crate::jinja::arguments::int(&leeway)?,
        None => 5,
    };
    let Some(end) = end.as_text() else { return failed("the end of truncate must be a text") };
    let end_length = end.chars().count() as i128;
    if length < end_length {
        return failed(format!("expected length >= {end_length}, got {length}"));
    }
    if leeway < 0 {
        return failed(format!("expected leeway >= 0, got {leeway}"));
    }
    if value::length(value)? as i128 <= length + leeway {
        return Ok(value.clone());
    }
    let Value::Text(text) = value else {
        return unsupported(format!("'truncate' of a value of type '{}'", value.type_name()));
    };
    let kept: String = text.chars().take((length - end_length) as usize).collect();
    let kept = match kept.rsplit_once(' ') {
        Some((whole, _)) if !kills_words => whole,
        _ => kept.as_str(),
    };
    Ok(Value::from(format!("{kept}{end}")))
}

/// Capitalises the parts between white space, dashes and opening brackets.
fn title(text: &str) -> String {
    let is_break = |letter: char| is_white_space(letter) || "-({[<".contains(letter);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let breaks = is_break(first);
        let end = rest.find(|letter| is_break(letter) != breaks).unwrap_or(rest.len());
        let part = &rest[..end];
        out.extend(first.to_uppercase());
        out.push_str(&part[first.len_utf8()..].to_lowercase());
        rest = &rest[end..];
    }
    out
}

fn word_count(text: &str) -> Result<Value> {
    let mut count = 0;
    let mut is_inside = false;
    for letter in text.chars() {
        let is_word = letter == '_' || characters::has(Property::Alphanumeric, letter)?;
        count += usize::from(is_word && !is_inside);
        is_inside = is_word;
    }
    Ok(Value::int(count))
}
