//! Methods of texts. Positions count characters, as in Python.

use shared::contract::answer::is_white_space;

use crate::jinja::arguments::Given;
use crate::jinja::brace_format::{self, Lookup};
use crate::jinja::characters::{self, Property};
use crate::jinja::error::{Result, failed, unsupported};
use crate::jinja::value::{self, Value};

/// All methods that a text has here.
pub(super) const METHODS: [&str; 44] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];

/// Calls a method of `text`.
pub(super) fn call(text: &str, name: &str, given: Given) -> Result<Value> {
    match name {
        "capitalize" | "casefold" | "lower" | "swapcase" | "title" | "upper" => {
            given.bind(name, "")?;
            cased(text, name).map(Value::from)
        }
        "strip" | "lstrip" | "rstrip" => strip(text, name, given),
        "split" | "rsplit" => split(text, name == "rsplit", given),
        "find" | "rfind" | "index" | "rindex" | "count" => search(text, name, given),
        "startswith" | "endswith" => affix(text, name, given),
        "removeprefix" | "removesuffix" => {
            let affix = given.bind(name, "affix")?.take(0);
            let affix = affix.expect_text(name)?;
            let rest = if name == "removeprefix" {
                text.strip_prefix(affix)
            } else {
                text.strip_suffix(affix)
            };
            Ok(Value::from(rest.unwrap_or(text)))
        }
        "partition" | "rpartition" => partition(text, name, given),
        "replace" => replace(text, given),
        "join" => join(text, given),
        "splitlines" => {
            let keep_ends = given.bind(name, "/ keepends?")?.flag(0);
            Ok(Value::from(partial_lines(text, keep_ends)))
        }
        "format" => brace_format::formatted(text, &given, &Attributes).map(Value::from),
        "format_map" => {
            let Value::Dict(names) = given.bind(name, "mapping")?.take(0) else {
                return failed("format_map() requires a mapping");
            };
            let mut named = Vec::new();
            for (key, value) in names.pairs() {
                if let Some(key) = key.as_text() {
                    named.push((key.to_owned(), value.clone()));
                }
            }
            let given = Given { positional: Vec::new(), named };
            brace_format::formatted(text, &given, &Attributes).map(Value::from)
        }
        "center" | "ljust" | "rjust" | "zfill" | "expandtabs" => filled(text, name, given),
        _ => {
            given.bind(name, "")?;
            has_class(text, name).map(Value::Bool)
        }
    }
}

/// Looks values up in fields of `str.format`.
struct Attributes;

impl Lookup for Attributes {
    fn attribute(&self, value: &Value, name: &str) -> Result<Value> {
        let found = super::attribute_or_item(value, name)?;
        found.check_defined()?;
        Ok(found)
    }

    fn item(&self, value: &Value, key: &Value) -> Result<Value> {
        let found = super::item_or_attribute(value, key)?;
        found.check_defined()?;
        Ok(found)
    }
}

fn cased(text: &str, name: &str) -> Result<String> {
    Ok(match name {
        "capitalize" => characters::capitalized(text),
        "lower" => text.to_lowercase(),
        "upper" => text.to_uppercase(),
        "swapcase" => characters::swapped(text),
        "title" => characters::titled(text),
        _ if text.is_ascii() => text.to_ascii_lowercase(),
        _ => return unsupported("casefold of characters that are not ASCII"),
    })
}

fn has_class(text: &str, name: &str) -> Result<bool> {
    let property = match name {
        "isalnum" => Property::Alphanumeric,
        "isalpha" => Property::Alphabetic,
        "isdecimal" => Property::Decimal,
        "isdigit" => Property::Digit,
        "isnumeric" => Property::Numeric,
        "isascii" => return Ok(text.is_ascii()),
        "islower" => return Ok(characters::is_in_case(text, false)),
        "isupper" => return Ok(characters::is_in_case(text, true)),
        "istitle" => return Ok(characters::is_title(text)),
        "isspace" => return Ok(!text.is_empty() && text.chars().all(is_white_space)),
        "isprintable" => return Ok(text.chars().all(value::is_printable)),
        _ => {
            if !text.is_ascii() {
                return unsupported("isidentifier of characters that are not ASCII");
            }
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            let starts = text.starts_with(|first: char| is_name(first) && !first.is_ascii_digit());
            return Ok(starts && text.chars().all(is_name));
        }
    };
    characters::all_have(property, text)
}

fn strip(text: &str, name: &str, given: Given) -> Result<Value> {
    let chars = given.bind(name, "chars?")?.unless_none(0);
    let chars = match &chars {
        Some(chars) => Some(chars.expect_text(name)?),
        None => None,
    };
    let is_stripped =
        |letter: char| chars.map_or_else(|| is_white_space(letter), |set| set.contains(letter));
    Ok(Value::from(match name {
        "strip" => text.trim_matches(is_stripped),
        "lstrip" => text.trim_start_matches(is_stripped),
        _ => text.trim_end_matches(is_stripped),
    }))
}

fn split(text: &str, from_end: bool, given: Given) -> Result<Value> {
    let mut bound = given.bind(if from_end { "rsplit" } else { "split" }, "/ sep? maxsplit?")?;
    let separator = bound.unless_none(0);
    let most = bound.int(1, -1)?;
    let most = usize::try_from(most).map_or(usize::MAX, |most| most.saturating_add(1));
    let parts: Vec<&str> = match &separator {
        Some(separator) => {
            let separator = separator.expect_text("split")?;
            if separator.is_empty() {
                return failed("empty separator");
            }
            if from_end {
                let mut parts: Vec<&str> = text.rsplitn(most, separator).collect();
                parts.reverse();
                parts
            } else {
                text.splitn(most, separator).collect()
            }
        }
        None if from_end => words_from_end(text, most),
        None => words(text, most),
    };
    Ok(Value::from(parts.into_iter().map(Value::from).collect::<Vec<_>>()))
}

/// Splits at white space into at most `most` parts; the last keeps its white space.
fn words(text: &str, most: usize) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(is_white_space);
    while !rest.is_empty() {
        let end = rest.find(is_white_space).filter(|_| words.len() + 1 < most);
        let Some(end) = end else {
            // Without a limit, white space at the end is gone by now.
            words.push(rest);
            break;
        };
        words.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(is_white_space);
    }
    words
}

fn words_from_end(text: &str, most: usize) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_end_matches(is_white_space);
    while !rest.is_empty() {
        let start = rest.rfind(is_white_space).filter(|_| words.len() + 1 < most);
        let Some(start) = start else {
            words.push(rest);
            break;
        };
        let word = rest[start..].chars().next().map_or(start, |space| start + space.len_utf8());
        words.push(&rest[word..]);
        rest = rest[..start].trim_end_matches(is_white_space);
    }
    words.reverse();
    words
}

/// Returns the byte positions of the characters `start` and `end`.
fn byte_range(text: &str, start: usize, end: usize) -> (usize, usize) {
    let byte = |position: usize| text.char_indices().nth(position).map_or(text.len(), |(at, _)| at);
    (byte(start), byte(end))
}

fn search(text: &str, name: &str, given: Given) -> Result<Value> {
    let mut bound = given.bind(name, "sub start? end?")?;
    let wanted = bound.take(0);
    let wanted = wanted.expect_text(name)?;
    let length = text.chars().count();
    let between = super::bounds(bound.unless_none(1), bound.unless_none(2), length)?;
    let window = between.filter(|(start, _)| *start <= length).map(|(start, end)| {
        let (first, last) = byte_range(text, start, end);
        (first, &text[first..last])
    });
    if name == "count" {
        return Ok(Value::int(window.map_or(0, |(_, window)| window.matches(wanted).count())));
    }
    let found = window.and_then(|(first, window)| {
        let at = if name.starts_with('r') { window.rfind(wanted) } else { window.find(wanted) };
        at.map(|at| text[..first + at].chars().count())
    });
    match found {
        Some(at) => Ok(Value::int(at)),
        None if name.ends_with("find") => Ok(Value::Int(-1)),
        None => failed("substring not found"),
    }
}

fn affix(text: &str, name: &str, given: Given) -> Result<Value> {
    let mut bound = given.bind(name, "affix start? end?")?;
    let wanted = bound.take(0);
    let wanted = match &wanted {
        Value::Tuple(items) => items.to_vec(),
        _ => vec![wanted],
    };
    let length = text.chars().count();
    let between = super::bounds(bound.unless_none(1), bound.unless_none(2), length)?;
    let window = between.filter(|(start, _)| *start <= length).map(|(start, end)| {
        let (first, last) = byte_range(text, start, end);
        &text[first..last]
    });
    for item in &wanted {
        let affix = item.expect_text(name)?;
        let fits = window.is_some_and(|window| {
            if name == "startswith" { window.starts_with(affix) } else { window.ends_with(affix) }
        });
        if fits {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn partition(text: &str, name: &str, given: Given) -> Result<Value> {
    let separator = given.bind(name, "sep")?.take(0);
    let separator = separator.expect_text(name)?;
    if separator.is_empty() {
        return failed("empty separator");
    }
    let is_right = name == "rpartition";
    let split = if is_right { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match split {
        Some((before, after)) => [before, separator, after],
        None if is_right => ["", "", text],
        None => [text, "", ""],
    };
    Ok(Value::tuple(parts.into_iter().map(Value::from).collect()))
}

fn replace(text: &str, given: Given) -> Result<Value> {
    let mut bound = given.bind("replace", "old new count?")?;
    let (old, new) = (bound.take(0), bound.take(1));
    let (old, new) = (old.expect_text("replace")?, new.expect_text("replace")?);
    let count = bound.int(2, -1)?;
    replaced(text, old, new, count).map(Value::from)
}

/// Replaces the first `count` occurrences; all if it is negative.
pub(in crate::jinja) fn replaced(text: &str, old: &str, new: &str, count: i128) -> Result<String> {
    let occurrences = if old.is_empty() { text.len() + 1 } else { text.len() / old.len() };
    value::check_size(text.len().saturating_add(occurrences.saturating_mul(new.len())))?;
    Ok(match usize::try_from(count) {
        Ok(count) => text.replacen(old, new, count),
        Err(_) => text.replace(old, new),
    })
}

fn join(text: &str, given: Given) -> Result<Value> {
    let items = value::iterated(&given.bind("join", "iterable")?.take(0))?;
    let mut out = String::new();
    for (index, item) in items.iter().enumerate() {
        let Some(part) = item.as_text() else {
            let kind = item.type_name();
            return failed(format!("sequence item {index}: expected str instance, {kind} found"));
        };
        if index > 0 {
            out.push_str(text);
        }
        out.push_str(part);
        value::check_size(out.len())?;
    }
    Ok(Value::from(out))
}

/// Returns the lines of a text.
fn partial_lines(text: &str, keep_ends: bool) -> Vec<Value> {
    characters::lines(text, keep_ends).into_iter().map(Value::from).collect()
}

fn filled(text: &str, name: &str, given: Given) -> Result<Value> {
    if name == "expandtabs" {
        return expanded(text, given.bind(name, "/ tabsize?")?.int(0, 8)?).map(Value::from);
    }
    let mut bound = given.bind(name, if name == "zfill" { "width" } else { "width fillchar?" })?;
    let width = crate::jinja::arguments::int(&bound.take(0))?;
    let width = usize::try_from(width).unwrap_or(0);
    value::check_size(width)?;
    let fill = if name == "zfill" {
        '0'
    } else {
        let fill = bound.optional(1).unwrap_or_else(|| Value::from(" "));
        let mut letters = fill.expect_text(name)?.chars();
        match (letters.next(), letters.next()) {
            (Some(fill), None) => fill,
            _ => return failed("The fill character must be exactly one character long"),
        }
    };
    let missing = width.saturating_sub(text.chars().count());
    let padding = |count: usize| -> String { std::iter::repeat_n(fill, count).collect() };
    Ok(Value::from(match name {
        "center" => centered(text, width, fill),
        "ljust" => text.to_owned() + &padding(missing),
        "rjust" => padding(missing) + text,
        _ => {
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let sign = &text[..text.len() - digits.len()];
            format!("{sign}{}{digits}", padding(missing))
        }
    }))
}

/// Returns a text in the middle of a width; Python puts the odd character on the left of odd widths.
pub(in crate::jinja) fn centered(text: &str, width: usize, fill: char) -> String {
    let missing = width.saturating_sub(text.chars().count());
    let left = missing / 2 + (missing & width & 1);
    let padding = |count: usize| -> String { std::iter::repeat_n(fill, count).collect() };
    padding(left) + text + &padding(missing - left)
}

fn expanded(text: &str, width: i128) -> Result<String> {
    let width = usize::try_from(width).unwrap_or(0);
    value::check_size(text.matches('\t').count().saturating_mul(width))?;
    let mut out = String::new();
    let mut column = 0;
    for letter in text.chars() {
        match letter {
            '\t' if width > 0 => {
                let spaces = width - column % width;
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            '\t' => {}
            _ => {
                out.push(letter);
                column = if matches!(letter, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Ok(out)
}
