//! Reads the numbers and truth values of a request as pydantic 2 does by default, with which Search-R1's own
//! server reads them: text that is a whole number is one, and 1, "yes" and "on" are true.

use serde_json::{Map, Value};
use shared::contract::rows::kind_of;
use shared::contract::wire::ValidationError;

use super::fault;
use crate::config::RequestLimits;

/// The most characters of a wrong text that a message repeats.
const SHOWN_CHARS: usize = 40;

/// The number of passages of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) struct TopK {
    /// The number to answer with.
    pub(in crate::http) passages: usize,
    /// `true` if the request wants more than the limit, which is the number then.
    pub(in crate::http) is_limited: bool,
}

/// Reads the number of passages. Absent, null and 0 mean the default, as in Search-R1's own server. A fault is
/// added to `faults`, here and below.
pub(in crate::http) fn top_k(
    fields: &Map<String, Value>,
    key: &str,
    limits: &RequestLimits,
    faults: &mut Vec<ValidationError>,
) -> TopK {
    let default = TopK { passages: limits.default_top_k, is_limited: false };
    let value = match fields.get(key) {
        None | Some(Value::Null) => return default,
        Some(value) => value,
    };
    let accepted = "expected an integer of at least 0";
    match whole_number(value) {
        Some(0.0) => default,
        Some(number) if number > 0.0 => {
            let is_limited = number > limits.max_top_k as f64;
            TopK {
                passages: if is_limited { limits.max_top_k } else { number as usize },
                is_limited,
            }
        }
        Some(_) => {
            let message = format!("is {}, {accepted}", shown(value));
            faults.push(fault(&[key], None, &message, "out_of_range"));
            default
        }
        None => {
            let message = format!("is {}, {accepted}", shown(value));
            faults.push(fault(&[key], None, &message, "int_type"));
            default
        }
    }
}

/// Reads a truth value; absent and null are false.
pub(in crate::http) fn is_true(
    fields: &Map<String, Value>,
    key: &str,
    faults: &mut Vec<ValidationError>,
) -> bool {
    let value = match fields.get(key) {
        None | Some(Value::Null) => return false,
        Some(value) => value,
    };
    truth(value).unwrap_or_else(|| {
        let message = format!("is {}, expected true or false", shown(value));
        faults.push(fault(&[key], None, &message, "bool_type"));
        false
    })
}

/// Returns the whole number that a value means. Above 2^53 it is rounded, which is above every limit.
fn whole_number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::Number(number) => number.as_f64().filter(|number| number.fract() == 0.0),
        Value::String(text) => whole_number_of(text.trim()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Parses a whole number, which may have single underscores between its digits and a fraction of zeros.
fn whole_number_of(text: &str) -> Option<f64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1.0, digits),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = match digits.split_once('.') {
        Some((whole, zeros)) => {
            Some(whole).filter(|_| !zeros.is_empty() && zeros.bytes().all(|zero| zero == b'0'))?
        }
        None => digits,
    };
    let is_digits =
        |part: &str| !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit());
    if !digits.split('_').all(is_digits) {
        return None;
    }
    digits.replace('_', "").parse::<f64>().ok().map(|number| sign * number)
}

fn truth(value: &Value) -> Option<bool> {
    const TRUE: [&str; 6] = ["1", "on", "t", "true", "y", "yes"];
    const FALSE: [&str; 6] = ["0", "off", "f", "false", "n", "no"];
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Number(number) => match number.as_f64()? {
            1.0 => Some(true),
            0.0 => Some(false),
            _ => None,
        },
        Value::String(text) => {
            let is = |word: &&str| text.eq_ignore_ascii_case(word);
            let is_true = TRUE.iter().any(is);
            (is_true || FALSE.iter().any(is)).then_some(is_true)
        }
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Returns a wrong value for a message: a number or the beginning of a text itself, else its kind.
fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.chars().count() <= SHOWN_CHARS => format!("{text:?}"),
        Value::String(text) => {
            format!("{:?} and more", text.chars().take(SHOWN_CHARS).collect::<String>())
        }
        other => kind_of(other).to_owned(),
    }
}
