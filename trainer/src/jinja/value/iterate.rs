//! Iteration, length, subscripts and slices.

use super::{Value, View};
use crate::jinja::error::{Result, failed};

/// Returns the items of a value; empties an iterator.
pub(in crate::jinja) fn iterated(value: &Value) -> Result<Vec<Value>> {
    match value {
        Value::Undefined(_) => Ok(Vec::new()),
        Value::Text(text) | Value::Markup(text) => {
            Ok(text.chars().map(|letter| Value::from(letter.to_string())).collect())
        }
        Value::List(items) | Value::Tuple(items) | Value::Group(items) => Ok(items.to_vec()),
        Value::Dict(dict) | Value::View(View::Keys, dict) => {
            Ok(dict.pairs().iter().map(|(key, _)| key.clone()).collect())
        }
        Value::View(View::Values, dict) => {
            Ok(dict.pairs().iter().map(|(_, value)| value.clone()).collect())
        }
        Value::View(View::Items, dict) => {
            let pair =
                |(key, value): &(Value, Value)| Value::tuple(vec![key.clone(), value.clone()]);
            Ok(dict.pairs().iter().map(pair).collect())
        }
        Value::Range(range) => Ok(range.values()),
        Value::Iterator(iterator) => {
            let mut rest = std::mem::take(&mut *iterator.rest.borrow_mut());
            rest.reverse();
            match iterator.error.take() {
                Some(error) => Err(error),
                None => Ok(rest),
            }
        }
        Value::Loop(_) => crate::jinja::error::unsupported("iteration over 'loop'"),
        _ => failed(format!("'{}' object is not iterable", value.type_name())),
    }
}

/// Returns the number of items.
pub(in crate::jinja) fn length(value: &Value) -> Result<usize> {
    match value {
        Value::Undefined(_) => Ok(0),
        Value::Text(text) | Value::Markup(text) => Ok(text.chars().count()),
        Value::List(items) | Value::Tuple(items) | Value::Group(items) => Ok(items.len()),
        Value::Dict(dict) | Value::View(_, dict) => Ok(dict.len()),
        Value::Range(range) => Ok(range.length() as usize),
        Value::Loop(_) => crate::jinja::error::unsupported("the length of 'loop' by a filter"),
        _ => failed(format!("object of type '{}' has no len()", value.type_name())),
    }
}

/// Returns `value[key]`, or `None` where Python raises an error that a template treats as undefined.
pub(in crate::jinja) fn item(value: &Value, key: &Value) -> Result<Option<Value>> {
    match value {
        Value::Undefined(_) => {
            value.check_defined()?;
            Ok(None)
        }
        Value::Dict(dict) => {
            // A key that is not hashable is a TypeError, which is undefined too.
            Ok(check_key(key).then(|| dict.get(key).cloned()).flatten())
        }
        Value::List(items) | Value::Tuple(items) | Value::Group(items) => {
            Ok(index(key, items.len()).map(|index| items[index].clone()))
        }
        Value::Text(text) | Value::Markup(text) => {
            let found = index(key, text.chars().count()).and_then(|at| text.chars().nth(at));
            Ok(found.map(|letter| Value::from(letter.to_string())))
        }
        Value::Range(range) => {
            let found = index(key, range.length() as usize);
            Ok(found.map(|index| Value::Int(range.start + index as i128 * range.step)))
        }
        _ => Ok(None),
    }
}

fn check_key(key: &Value) -> bool {
    super::check_hashable(key).is_ok()
}

/// Returns the position that an index names; a negative one counts from the end.
fn index(key: &Value, length: usize) -> Option<usize> {
    let index = key.as_int()?;
    let index = if index < 0 { index + length as i128 } else { index };
    usize::try_from(index).ok().filter(|index| *index < length)
}

/// Returns `value[start:stop:step]`.
pub(in crate::jinja) fn slice(value: &Value, parts: &[Value; 3]) -> Result<Value> {
    value.check_defined()?;
    let length = match value {
        Value::Text(_)
        | Value::Markup(_)
        | Value::List(_)
        | Value::Tuple(_)
        | Value::Group(_)
        | Value::Range(_) => length(value)? as i128,
        Value::Dict(_) => return failed("unhashable type: 'slice'"),
        _ => return failed(format!("'{}' object is not subscriptable", value.type_name())),
    };
    let part = |part: &Value| match part {
        Value::None => Ok(None),
        _ => match part.as_int() {
            Some(number) => Ok(Some(number)),
            None => failed("slice indices must be integers or None"),
        },
    };
    let step = part(&parts[2])?.unwrap_or(1);
    if step == 0 {
        return failed("slice step cannot be zero");
    }
    // The least and greatest position that a bound is limited to.
    let (low, high) = if step < 0 { (-1, length - 1) } else { (0, length) };
    let bound = |bound: Option<i128>, default: i128| match bound {
        None => default,
        Some(bound) if bound < 0 => bound.saturating_add(length).max(low),
        Some(bound) => bound.min(high),
    };
    let start = bound(part(&parts[0])?, if step < 0 { high } else { low });
    let stop = bound(part(&parts[1])?, if step < 0 { low } else { high });
    let range = super::Range { start, stop, step: step.clamp(-length - 1, length + 1) };
    let positions = (0..range.length()).map(|index| (start + index * range.step) as usize);
    Ok(match value {
        Value::Text(text) | Value::Markup(text) => {
            let letters: Vec<char> = text.chars().collect();
            let chosen: String = positions.map(|at| letters[at]).collect();
            if matches!(value, Value::Markup(_)) {
                Value::Markup(chosen.into())
            } else {
                Value::from(chosen)
            }
        }
        Value::List(items) => {
            Value::from(positions.map(|at| items[at].clone()).collect::<Vec<_>>())
        }
        Value::Range(whole) => Value::Range(super::Range {
            start: whole.start + start * whole.step,
            stop: whole.start + stop * whole.step,
            step: whole.step.saturating_mul(range.step),
        }),
        Value::Tuple(items) | Value::Group(items) => {
            Value::tuple(positions.map(|at| items[at].clone()).collect())
        }
        _ => Value::None,
    })
}
