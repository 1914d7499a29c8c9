//! Equality, order and membership, as Python defines them.

use std::rc::Rc;

use super::{Value, View, iterated};
use crate::jinja::error::{Result, failed};
use crate::jinja::syntax::Comparison;

/// Returns `true` for equal values. Values of different kinds are unequal, except for numbers.
#[expect(clippy::float_cmp, reason = "Python's equality of floats is exact")]
pub(in crate::jinja) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Int(left), Value::Int(right)) => left == right,
        (Value::List(left), Value::List(right)) => all_equal(left, right),
        (Value::Tuple(left) | Value::Group(left), Value::Tuple(right) | Value::Group(right)) => {
            all_equal(left, right)
        }
        (Value::Dict(left), Value::Dict(right)) => {
            left.len() == right.len()
                && left
                    .pairs()
                    .iter()
                    .all(|(key, value)| right.get(key).is_some_and(|other| equal(value, other)))
        }
        (Value::Range(left), Value::Range(right)) => {
            let length = left.length();
            length == right.length()
                && (length == 0
                    || (left.start == right.start && (length == 1 || left.step == right.step)))
        }
        (Value::Function(left), Value::Function(right)) => left == right,
        (Value::Method(left), Value::Method(right)) => {
            left.1 == right.1 && is_same(&left.0, &right.0)
        }
        _ => match (left.as_text(), right.as_text()) {
            (Some(left), Some(right)) => left == right,
            (None, None) => match (left.as_float(), right.as_float()) {
                (Some(left), Some(right)) => left == right,
                _ => is_same(left, right),
            },
            _ => false,
        },
    }
}

fn all_equal(left: &[Value], right: &[Value]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
}

/// Returns `true` for one and the same object, for the kinds that have an identity.
pub(in crate::jinja) fn is_same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::List(left), Value::List(right))
        | (Value::Tuple(left), Value::Tuple(right))
        | (Value::Group(left), Value::Group(right)) => Rc::ptr_eq(left, right),
        (Value::Dict(left), Value::Dict(right)) => Rc::ptr_eq(left, right),
        (Value::Iterator(left), Value::Iterator(right)) => Rc::ptr_eq(left, right),
        (Value::Namespace(left), Value::Namespace(right)) => Rc::ptr_eq(left, right),
        (Value::Macro(left), Value::Macro(right)) => Rc::ptr_eq(left, right),
        (Value::Loop(left), Value::Loop(right)) => Rc::ptr_eq(left, right),
        (Value::Cycler(left), Value::Cycler(right)) => Rc::ptr_eq(left, right),
        (Value::Joiner(left), Value::Joiner(right)) => Rc::ptr_eq(left, right),
        _ => false,
    }
}

/// Returns `true` if `left < right`.
pub(in crate::jinja) fn less(left: &Value, right: &Value) -> Result<bool> {
    ordered(left, right, Comparison::Less)
}

fn ordered(left: &Value, right: &Value, comparison: Comparison) -> Result<bool> {
    left.check_defined()?;
    right.check_defined()?;
    let holds = |order: Option<std::cmp::Ordering>| match comparison {
        Comparison::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Comparison::LessEqual => order.is_some_and(std::cmp::Ordering::is_le),
        Comparison::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        _ => order.is_some_and(std::cmp::Ordering::is_ge),
    };
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => return Ok(holds(Some(left.cmp(right)))),
        (Value::List(left), Value::List(right))
        | (Value::Tuple(left) | Value::Group(left), Value::Tuple(right) | Value::Group(right)) => {
            let different = left.iter().zip(right.iter()).find(|(left, right)| !equal(left, right));
            return match different {
                Some((left, right)) => ordered(left, right, comparison),
                None => Ok(holds(Some(left.len().cmp(&right.len())))),
            };
        }
        _ => {}
    }
    if let (Some(left), Some(right)) = (left.as_text(), right.as_text()) {
        return Ok(holds(Some(left.cmp(right))));
    }
    if let (Some(left), Some(right)) = (left.as_float(), right.as_float()) {
        return Ok(holds(left.partial_cmp(&right)));
    }
    if let (Value::View(..), Value::View(..)) = (left, right) {
        return crate::jinja::error::unsupported("the order of views of dictionaries");
    }
    let mark = match comparison {
        Comparison::Less => "<",
        Comparison::LessEqual => "<=",
        Comparison::Greater => ">",
        _ => ">=",
    };
    failed(format!(
        "'{mark}' not supported between instances of '{}' and '{}'",
        left.type_name(),
        right.type_name()
    ))
}

/// Computes one comparison.
pub(in crate::jinja) fn compare(
    comparison: Comparison,
    left: &Value,
    right: &Value,
) -> Result<bool> {
    match comparison {
        Comparison::Equal => view_equal(left, right),
        Comparison::Unequal => Ok(!view_equal(left, right)?),
        Comparison::In => contains(right, left),
        Comparison::NotIn => Ok(!contains(right, left)?),
        _ => ordered(left, right, comparison),
    }
}

fn view_equal(left: &Value, right: &Value) -> Result<bool> {
    if let (Value::View(..), Value::View(..)) = (left, right) {
        return crate::jinja::error::unsupported("equality of views of dictionaries");
    }
    Ok(equal(left, right))
}

/// Returns `true` if `container` contains `value`.
pub(in crate::jinja) fn contains(container: &Value, value: &Value) -> Result<bool> {
    if let Some(text) = container.as_text() {
        return match value.as_text() {
            Some(part) => Ok(text.contains(part)),
            None => failed(format!(
                "'in <string>' requires string as left operand, not {}",
                value.type_name()
            )),
        };
    }
    match container {
        Value::Dict(dict) | Value::View(View::Keys, dict) => {
            check_hashable(value)?;
            Ok(dict.get(value).is_some())
        }
        Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
            failed(format!("argument of type '{}' is not iterable", container.type_name()))
        }
        _ => Ok(iterated(container)?.iter().any(|item| equal(item, value))),
    }
}

/// Fails for a value that cannot be a key.
pub(in crate::jinja) fn check_hashable(value: &Value) -> Result<()> {
    match value {
        Value::List(_) | Value::Dict(_) => {
            failed(format!("unhashable type: '{}'", value.type_name()))
        }
        Value::Tuple(items) | Value::Group(items) => items.iter().try_for_each(check_hashable),
        _ => Ok(()),
    }
}
