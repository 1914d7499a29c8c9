//! Filters of numbers.

use crate::jinja::arguments::{self, Given};
use crate::jinja::error::{Result, failed, unsupported};
use crate::jinja::value::{self, Value};

pub(super) fn apply(name: &str, value: &Value, given: Given) -> Result<Value> {
    match name {
        "abs" => {
            given.bind(name, "")?;
            value.check_defined()?;
            match (value, value.as_int()) {
                (Value::Float(number), _) => Ok(Value::Float(number.abs())),
                (_, Some(number)) => Ok(Value::Int(number.saturating_abs())),
                _ => failed(format!("bad operand type for abs(): '{}'", value.type_name())),
            }
        }
        "int" => {
            let mut bound = given.bind(name, "/ default? base?")?;
            let default = bound.optional(0).unwrap_or(Value::Int(0));
            let base = bound.int(1, 10)?;
            Ok(int(value, base)?.unwrap_or(default))
        }
        "float" => {
            let default = given.bind(name, "/ default?")?.optional(0).unwrap_or(Value::Float(0.0));
            Ok(float(value)?.map_or(default, Value::Float))
        }
        "round" => round(value, given),
        _ => file_size(value, given),
    }
}

/// Returns the whole number of a value, or `None` if it has none.
fn int(value: &Value, base: i128) -> Result<Option<Value>> {
    value.check_defined()?;
    if let Some(text) = value.as_text() {
        if let Some(number) = parsed(text, base)? {
            return Ok(Some(Value::Int(number)));
        }
        return match float(value)? {
            Some(number) if number.is_finite() => truncated(number).map(Some),
            _ => Ok(None),
        };
    }
    match value {
        Value::Float(number) if number.is_nan() => Ok(None),
        Value::Float(number) if number.is_infinite() => {
            failed("cannot convert float infinity to integer")
        }
        Value::Float(number) => truncated(*number).map(Some),
        _ => Ok(value.as_int().map(Value::Int)),
    }
}

fn truncated(number: f64) -> Result<Value> {
    if number.abs() > 1e38 {
        return unsupported("whole numbers that exceed 128 bits");
    }
    Ok(Value::Int(number.trunc() as i128))
}

/// Reads a whole number as Python's `int(text, base)`.
fn parsed(text: &str, base: i128) -> Result<Option<i128>> {
    if base != 0 && !(2..=36).contains(&base) {
        return Ok(None);
    }
    let text = text.trim_matches(shared::contract::answer::is_white_space);
    if !text.is_ascii() {
        return unsupported("numbers with digits that are not ASCII");
    }
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let mut radix = base as u32;
    let mut digits = lower.as_str();
    let mut has_prefix = false;
    for (prefix, of_prefix) in [("0b", 2), ("0o", 8), ("0x", 16)] {
        if let Some(rest) = digits.strip_prefix(prefix)
            && (base == 0 || radix == of_prefix)
        {
            (radix, digits, has_prefix) = (of_prefix, rest, true);
            break;
        }
    }
    if radix == 0 {
        radix = 10;
        let is_zero = digits.bytes().all(|byte| byte == b'0' || byte == b'_');
        if digits.starts_with('0') && !is_zero {
            return Ok(None);
        }
    }
    if has_prefix {
        digits = digits.strip_prefix('_').unwrap_or(digits);
    }
    let is_well_formed = !digits.is_empty()
        && !digits.starts_with('_')
        && !digits.ends_with('_')
        && !digits.contains("__")
        && digits.chars().all(|digit| digit == '_' || digit.is_digit(radix));
    if !is_well_formed {
        return Ok(None);
    }
    match i128::from_str_radix(&digits.replace('_', ""), radix) {
        Ok(number) => Ok(Some(if is_negative { -number } else { number })),
        Err(_) => unsupported("whole numbers that exceed 128 bits"),
    }
}

/// Returns the float of a value, or `None` if it has none.
fn float(value: &Value) -> Result<Option<f64>> {
    value.check_defined()?;
    let Some(text) = value.as_text() else { return Ok(value.as_float()) };
    let text = text.trim_matches(shared::contract::answer::is_white_space);
    if !text.is_ascii() {
        return unsupported("numbers with characters that are not ASCII");
    }
    let lower = text.to_ascii_lowercase();
    let bytes = lower.as_bytes();
    // An underscore stands between two digits.
    let is_misplaced = |at: usize| {
        let digit =
            |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
        bytes[at] == b'_' && !(digit(at.checked_sub(1)) && digit(Some(at + 1)))
    };
    if (0..bytes.len()).any(is_misplaced) {
        return Ok(None);
    }
    Ok(lower.replace('_', "").parse().ok())
}

fn round(value: &Value, given: Given) -> Result<Value> {
    let mut bound = given.bind("round", "/ precision? method?")?;
    let precision = bound.optional(0).unwrap_or(Value::Int(0));
    let method = bound.optional(1).unwrap_or_else(|| Value::from("common"));
    let method = method.as_text().unwrap_or_default();
    if !["common", "ceil", "floor"].contains(&method) {
        return failed("method must be common, ceil or floor");
    }
    value.check_defined()?;
    if method == "common" {
        if matches!(precision, Value::None) {
            return unsupported("'round' without a precision");
        }
        let precision = arguments::int(&precision)?;
        return match (value, value.as_int()) {
            (Value::Float(number), _) => Ok(Value::Float(rounded(*number, precision))),
            (_, Some(number)) => Ok(Value::Int(rounded_int(number, precision))),
            _ => failed(format!("type {} doesn't define __round__ method", value.type_name())),
        };
    }
    let precision = arguments::int(&precision)?;
    let (Some(number), Ok(power)) = (value.as_float(), i32::try_from(precision)) else {
        return failed(format!("must be real number, not {}", value.type_name()));
    };
    let factor = 10_f64.powi(power);
    let scaled = number * factor;
    if !scaled.is_finite() || scaled.abs() > 9e15 || !(-15..=15).contains(&power) {
        return unsupported("rounding of a number so large");
    }
    let whole = if method == "ceil" { scaled.ceil() } else { scaled.floor() };
    // Python's ceiling is a whole number, which has no negative zero.
    Ok(Value::Float((whole + 0.0) / factor))
}

/// Rounds half to even on the exact value, as Python does.
fn rounded(number: f64, precision: i128) -> f64 {
    if !number.is_finite() || precision > 330 {
        return number;
    }
    if precision < -310 {
        return 0.0_f64.copysign(number);
    }
    if let Ok(decimals) = usize::try_from(precision) {
        let text = format!("{number:.decimals$}");
        return text.parse().unwrap_or(number);
    }
    // Digits of the scientific form that stay in front of the rounded place.
    let text = format!("{:e}", number.abs());
    let exponent: i128 =
        text.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or_default();
    let digits = exponent + precision;
    let magnitude = if let Ok(digits) = usize::try_from(digits) {
        format!("{:.digits$e}", number.abs()).parse().unwrap_or(number)
    } else {
        let unit = 10_f64.powi(-precision as i32);
        if digits == -1 && number.abs() > unit / 2.0 { unit } else { 0.0 }
    };
    f64::copysign(magnitude, number)
}

fn rounded_int(number: i128, precision: i128) -> i128 {
    if precision >= 0 {
        return number;
    }
    let Some(unit) = u32::try_from(-precision).ok().and_then(|power| 10_i128.checked_pow(power))
    else {
        return 0;
    };
    let rest = number.rem_euclid(unit);
    let floor = number - rest;
    let is_up = match (rest * 2).cmp(&unit) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Greater => true,
        std::cmp::Ordering::Equal => (floor / unit) % 2 != 0,
    };
    if is_up { floor + unit } else { floor }
}

fn file_size(value: &Value, given: Given) -> Result<Value> {
    let is_binary = given.bind("filesizeformat", "/ binary?")?.flag(0);
    let Some(bytes) = float(value)? else {
        return failed(format!("could not convert to float: '{}'", value::text(value)?));
    };
    let base: f64 = if is_binary { 1024.0 } else { 1000.0 };
    let letters = if is_binary { "KMGTPEZY" } else { "kMGTPEZY" };
    let suffix = if is_binary { "iB" } else { "B" };
    #[expect(clippy::float_cmp, reason = "one byte is exactly 1")]
    if bytes == 1.0 {
        return Ok(Value::from("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::from(format!("{} Bytes", value::text(&truncated(bytes)?)?)));
    }
    let mut unit = base;
    let mut prefix = 'k';
    for letter in letters.chars() {
        unit *= base;
        prefix = letter;
        if bytes < unit {
            break;
        }
    }
    Ok(Value::from(format!("{:.1} {prefix}{suffix}", base * bytes / unit)))
}
