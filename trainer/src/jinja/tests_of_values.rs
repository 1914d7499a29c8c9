//! The tests after `is`.

use super::arguments::Given;
use super::characters;
use super::error::{Result, failed, unsupported};
use super::filters;
use super::syntax::{Comparison, Operator};
use super::value::{self, Value};

const NAMES: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

/// Returns `true` for the name of a test.
pub(super) fn is_test(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Applies the test `name` to `value`.
pub(super) fn apply(name: &str, value: &Value, given: Given) -> Result<bool> {
    if !is_test(name) {
        return failed(format!("no test named '{name}'"));
    }
    if let Some(comparison) = comparison(name) {
        let other = given.bind(name, "other")?.take(0);
        return if name == "in" {
            value::compare(Comparison::In, value, &other)
        } else {
            value::compare(comparison, value, &other)
        };
    }
    match name {
        "divisibleby" => {
            let number = given.bind(name, "/ num")?.take(0);
            let rest = value::binary(Operator::Modulo, value, &number)?;
            return Ok(value::equal(&rest, &Value::Int(0)));
        }
        "sameas" => return same(value, &given.bind(name, "/ other")?.take(0)),
        _ => {
            given.bind(name, "")?;
        }
    }
    Ok(match name {
        "odd" | "even" => {
            let rest = value::binary(Operator::Modulo, value, &Value::Int(2))?;
            value::equal(&rest, &Value::Int(i128::from(name == "odd")))
        }
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "filter" | "test" => {
            value::check_hashable(value)?;
            let known = if name == "filter" { filters::is_filter } else { is_test };
            value.as_text().is_some_and(known)
        }
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "false" => matches!(value, Value::Bool(false)),
        "true" => matches!(value, Value::Bool(true)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "lower" => characters::is_in_case(&value::text(value)?, false),
        "upper" => characters::is_in_case(&value::text(value)?, true),
        "string" => value.as_text().is_some(),
        "mapping" => matches!(value, Value::Dict(_)),
        "number" => value.as_float().is_some(),
        "sequence" => is_sequence(value),
        "iterable" => is_iterable(value),
        "callable" => matches!(
            value,
            Value::Undefined(_)
                | Value::Function(_)
                | Value::Method(_)
                | Value::Macro(_)
                | Value::Loop(_)
                | Value::Joiner(_)
        ),
        _ => matches!(value, Value::Markup(_)),
    })
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        "in" => Comparison::In,
        "==" | "eq" | "equalto" => Comparison::Equal,
        "!=" | "ne" => Comparison::Unequal,
        ">" | "gt" | "greaterthan" => Comparison::Greater,
        ">=" | "ge" => Comparison::GreaterEqual,
        "<" | "lt" | "lessthan" => Comparison::Less,
        "<=" | "le" => Comparison::LessEqual,
        _ => return None,
    })
}

/// Returns `true` for values with a length and items by key.
fn is_sequence(value: &Value) -> bool {
    matches!(
        value,
        Value::Undefined(_)
            | Value::Text(_)
            | Value::Markup(_)
            | Value::List(_)
            | Value::Tuple(_)
            | Value::Group(_)
            | Value::Dict(_)
            | Value::Range(_)
    )
}

fn is_iterable(value: &Value) -> bool {
    is_sequence(value) || matches!(value, Value::View(..) | Value::Iterator(_) | Value::Loop(_))
}

/// Returns `true` for the same object. Python shares objects for none, true, false and small numbers; for other
/// numbers and for texts it does not say.
fn same(left: &Value, right: &Value) -> Result<bool> {
    match (left, right) {
        (Value::None, Value::None) => Ok(true),
        (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
        (Value::Int(left), Value::Int(right)) => {
            if left == right && !(-5..=256).contains(left) {
                return unsupported("'sameas' of large numbers");
            }
            Ok(left == right)
        }
        (Value::Float(_), Value::Float(_))
        | (Value::Text(_), Value::Text(_))
        | (Value::Markup(_), Value::Markup(_))
        | (Value::Tuple(_), Value::Tuple(_))
        | (Value::Undefined(_), Value::Undefined(_))
            if value::equal(left, right) =>
        {
            unsupported(format!("'sameas' of two values of type '{}'", left.type_name()))
        }
        _ => Ok(value::is_same(left, right)),
    }
}
