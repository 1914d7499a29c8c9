//! Python's `%` formatting of texts.

use super::error::{Result, failed, unsupported};
use super::number_format::Specification;
use super::value::{self, Dict, Value};

/// The values for a format: one by one, or by name.
struct Given<'v> {
    values: &'v [Value],
    used: usize,
    names: Option<&'v Dict>,
    has_used_names: bool,
}

impl Given<'_> {
    fn next(&mut self) -> Result<Value> {
        let Some(value) = self.values.get(self.used) else {
            return failed("not enough arguments for format string");
        };
        self.used += 1;
        Ok(value.clone())
    }

    /// Returns a width or precision that `*` takes from the values.
    fn star(&mut self) -> Result<i128> {
        match self.next()? {
            Value::Int(number) => Ok(number),
            _ => failed("* wants int"),
        }
    }
}

/// Returns `format % value`.
pub(super) fn formatted(format: &str, value: &Value) -> Result<String> {
    let single = [value.clone()];
    let (values, names) = match value {
        Value::Tuple(items) | Value::Group(items) => (items.as_slice(), None),
        Value::Dict(dict) => (single.as_slice(), Some(dict.as_ref())),
        _ => (single.as_slice(), None),
    };
    let mut given = Given { values, used: 0, names, has_used_names: false };
    let mut out = String::with_capacity(format.len());
    let mut rest = format;
    while let Some(start) = rest.find('%') {
        out.push_str(&rest[..start]);
        rest = directive(&rest[start + 1..], &mut given, &mut out)?;
        value::check_size(out.len())?;
    }
    out.push_str(rest);
    // A dictionary, a list and other values with keys may stay unused.
    let may_stay = matches!(value, Value::Dict(_) | Value::List(_) | Value::Range(_));
    if given.used < values.len() && !given.has_used_names && !may_stay {
        return failed("not all arguments converted during string formatting");
    }
    Ok(out)
}

/// Writes one directive and returns the text after it.
fn directive<'f>(format: &'f str, given: &mut Given<'_>, out: &mut String) -> Result<&'f str> {
    let mut rest = format;
    let mut named = None;
    if let Some(inner) = rest.strip_prefix('(') {
        let Some(names) = given.names else { return failed("format requires a mapping") };
        let Some(end) = closing(inner) else { return failed("incomplete format key") };
        let key = &inner[..end];
        let Some(value) = names.get_text(key) else { return failed(format!("'{key}'")) };
        named = Some(value.clone());
        given.has_used_names = true;
        rest = &inner[end + 1..];
    }
    let mut specification = Specification::default();
    let after = rest.trim_start_matches(['-', '+', ' ', '#', '0']);
    let flags = &rest[..rest.len() - after.len()];
    rest = after;
    let mut width = number(&mut rest, given)?.unwrap_or(0);
    let mut is_left = flags.contains('-');
    if width < 0 {
        is_left = true;
        width = -width;
    }
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        let precision = number(&mut rest, given)?.unwrap_or(0).max(0);
        specification.precision = Some(bounded(precision)?);
    }
    specification.width = bounded(width)?;
    rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
    let Some(kind) = rest.chars().next() else { return failed("incomplete format") };
    rest = &rest[kind.len_utf8()..];
    if kind == '%' {
        out.push('%');
        return Ok(rest);
    }
    let value = named.map_or_else(|| given.next(), Ok)?;
    specification.align = Some(if is_left { '<' } else { '>' });
    specification.is_alternate = flags.contains('#');
    if flags.contains('+') {
        specification.sign = '+';
    } else if flags.contains(' ') {
        specification.sign = ' ';
    }
    let zeros = flags.contains('0') && !is_left;
    out.push_str(&converted(kind, &value, specification, zeros)?);
    Ok(rest)
}

/// Returns the position of the bracket that closes a key.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

fn number(rest: &mut &str, given: &mut Given<'_>) -> Result<Option<i128>> {
    if let Some(after) = rest.strip_prefix('*') {
        *rest = after;
        return given.star().map(Some);
    }
    let after = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let digits = &rest[..rest.len() - after.len()];
    *rest = after;
    if digits.is_empty() {
        return Ok(None);
    }
    digits.parse().map_or_else(|_| unsupported("such a wide format"), |number| Ok(Some(number)))
}

fn bounded(number: i128) -> Result<usize> {
    match usize::try_from(number) {
        Ok(number) if number <= value::SIZE_MAX => Ok(number),
        _ => unsupported(format!("a width or precision of {number}")),
    }
}

fn converted(
    kind: char,
    value: &Value,
    mut specification: Specification,
    zeros: bool,
) -> Result<String> {
    let is_number = "diouxXeEfFgG".contains(kind);
    if zeros && is_number {
        specification.fill = '0';
        specification.align = Some('=');
    }
    match kind {
        's' | 'r' | 'a' => {
            if kind == 'a' {
                return unsupported("the format %a");
            }
            let text = if kind == 's' { value::text(value)? } else { value::repr(value)? };
            let cut: String =
                text.chars().take(specification.precision.unwrap_or(usize::MAX)).collect();
            Ok(specification.padded(&cut, '>'))
        }
        'c' => match value {
            Value::Text(text) if text.chars().count() == 1 => Ok(specification.padded(text, '>')),
            Value::Int(code) => match u32::try_from(*code).ok().and_then(char::from_u32) {
                Some(letter) => Ok(specification.padded(&letter.to_string(), '>')),
                None => failed("%c arg not in range(0x110000)"),
            },
            _ => failed("%c requires int or char"),
        },
        'd' | 'i' | 'u' | 'o' | 'x' | 'X' => whole(kind, value, specification),
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let Some(number) = value.as_float() else {
                value.check_defined()?;
                return failed(format!("must be real number, not {}", value.type_name()));
            };
            specification.kind = Some(kind);
            if !number.is_finite() && zeros {
                specification.fill = ' ';
                specification.align = Some('>');
            }
            specification.float(number)
        }
        _ => failed(format!("unsupported format character '{kind}'")),
    }
}

fn whole(kind: char, value: &Value, mut specification: Specification) -> Result<String> {
    let number = match value {
        Value::Float(number) if "diu".contains(kind) => {
            if !number.is_finite() {
                return failed("cannot convert a float that is not finite to integer");
            }
            if number.abs() > 1e38 {
                return unsupported("whole numbers that exceed 128 bits");
            }
            number.trunc() as i128
        }
        _ => {
            if let Some(number) = value.as_int() {
                number
            } else {
                value.check_defined()?;
                let name = value.type_name();
                return failed(format!("%{kind} format: a real number is required, not {name}"));
            }
        }
    };
    specification.kind = Some(if "iu".contains(kind) { 'd' } else { kind });
    if let Some(precision) = specification.precision.take() {
        // The least number of digits.
        if kind != 'd' || specification.is_alternate {
            return unsupported("a precision of whole numbers that are not decimal");
        }
        let digits = format!("{:0>precision$}", number.unsigned_abs());
        let sign = match (number < 0, specification.sign) {
            (true, _) => "-",
            (false, '-') => "",
            (false, '+') => "+",
            _ => " ",
        };
        return Ok(specification.padded(&format!("{sign}{digits}"), '>'));
    }
    specification.whole(number)
}
