//! Arithmetic as Python computes it.

use super::{SIZE_MAX, Value};
use crate::jinja::error::{JinjaError, Result, failed, unsupported};
use crate::jinja::syntax::Operator;
use crate::jinja::{filters, percent};

/// Computes a binary operator.
pub(in crate::jinja) fn binary(operator: Operator, left: &Value, right: &Value) -> Result<Value> {
    if operator == Operator::Modulo
        && let Some(format) = left.as_text()
    {
        if matches!(left, Value::Markup(_)) {
            return unsupported("'%' of a text marked as safe");
        }
        return percent::formatted(format, right).map(Value::from);
    }
    left.check_defined()?;
    right.check_defined()?;
    if let (Some(first), Some(second)) = (left.as_int(), right.as_int()) {
        return whole(operator, first, second);
    }
    if let (Some(first), Some(second)) = (left.as_float(), right.as_float()) {
        return float(operator, first, second);
    }
    let joined = match operator {
        Operator::Add => added(left, right)?,
        Operator::Multiply => match (left.as_int(), right.as_int()) {
            (None, Some(count)) => repeated(left, count)?,
            (Some(count), None) => repeated(right, count)?,
            _ => None,
        },
        _ => None,
    };
    joined.map_or_else(|| refused(operator, left, right), Ok)
}

fn refused(operator: Operator, left: &Value, right: &Value) -> Result<Value> {
    let (left, right) = (left.type_name(), right.type_name());
    let mark = match operator {
        Operator::Add if left == "str" => {
            return failed(format!("can only concatenate str (not \"{right}\") to str"));
        }
        Operator::Add => "+",
        Operator::Subtract => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::FloorDivide => "//",
        Operator::Modulo => "%",
        Operator::Power => "** or pow()",
    };
    failed(format!("unsupported operand type(s) for {mark}: '{left}' and '{right}'"))
}

fn overflow<T>() -> Result<T> {
    unsupported("whole numbers that exceed 128 bits")
}

fn whole(operator: Operator, left: i128, right: i128) -> Result<Value> {
    let is_zero = right == 0;
    let result = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide | Operator::FloorDivide | Operator::Modulo if is_zero => {
            return failed("division by zero");
        }
        Operator::Divide => return Ok(Value::Float(left as f64 / right as f64)),
        Operator::FloorDivide => {
            let quotient = left.checked_div(right);
            let is_inexact = left.checked_rem(right).is_some_and(|rest| rest != 0);
            quotient
                .map(|quotient| quotient - i128::from(is_inexact && ((left < 0) != (right < 0))))
        }
        Operator::Modulo => left
            .checked_rem(right)
            .map(|rest| if rest != 0 && ((rest < 0) != (right < 0)) { rest + right } else { rest }),
        Operator::Power if right < 0 => return float(operator, left as f64, right as f64),
        Operator::Power => match u32::try_from(right) {
            Ok(exponent) => left.checked_pow(exponent),
            Err(_) => None,
        },
    };
    result.map_or_else(overflow, |number| Ok(Value::Int(number)))
}

fn float(operator: Operator, left: f64, right: f64) -> Result<Value> {
    let divides = matches!(operator, Operator::Divide | Operator::FloorDivide | Operator::Modulo);
    if divides && right == 0.0 {
        return failed("float division by zero");
    }
    let modulo = |left: f64, right: f64| {
        let rest = left % right;
        if rest != 0.0 && ((rest < 0.0) != (right < 0.0)) {
            rest + right
        } else if rest == 0.0 {
            0.0_f64.copysign(right)
        } else {
            rest
        }
    };
    Ok(Value::Float(match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        Operator::Modulo => modulo(left, right),
        Operator::FloorDivide => {
            // As Python: the quotient of what remains without the rest, then rounded.
            let quotient = (left - modulo(left, right)) / right;
            if quotient == 0.0 {
                0.0_f64.copysign(left / right)
            } else {
                let floor = quotient.floor();
                if quotient - floor > 0.5 { floor + 1.0 } else { floor }
            }
        }
        Operator::Power => {
            if left == 0.0 && right < 0.0 {
                return failed("0.0 cannot be raised to a negative power");
            }
            if left < 0.0 && right.fract() != 0.0 && right.is_finite() {
                return unsupported("complex numbers");
            }
            let power = left.powf(right);
            if power.is_infinite() && left.is_finite() && right.is_finite() {
                return failed("(34, 'Numerical result out of range')");
            }
            power
        }
    }))
}

fn added(left: &Value, right: &Value) -> Result<Option<Value>> {
    Ok(match (left, right) {
        (Value::Text(first), Value::Text(second)) => Some(Value::from(format!("{first}{second}"))),
        (Value::Markup(_), other) | (other, Value::Markup(_)) if other.as_text().is_some() => {
            let joined = filters::escaped(left)? + &filters::escaped(right)?;
            Some(Value::Markup(joined.into()))
        }
        (Value::List(first), Value::List(second)) => {
            check_size(first.len() + second.len())?;
            Some(Value::from([first.as_slice(), second.as_slice()].concat()))
        }
        (
            Value::Tuple(first) | Value::Group(first),
            Value::Tuple(second) | Value::Group(second),
        ) => {
            check_size(first.len() + second.len())?;
            Some(Value::tuple([first.as_slice(), second.as_slice()].concat()))
        }
        _ => None,
    })
}

fn repeated(value: &Value, count: i128) -> Result<Option<Value>> {
    let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    let check = |length: usize| check_size(length.saturating_mul(count));
    Ok(match value {
        Value::Text(text) => {
            check(text.len())?;
            Some(Value::from(text.repeat(if text.is_empty() { 0 } else { count })))
        }
        Value::Markup(text) => {
            check(text.len())?;
            Some(Value::Markup(text.repeat(if text.is_empty() { 0 } else { count }).into()))
        }
        Value::List(items) => {
            check(items.len())?;
            let count = if items.is_empty() { 0 } else { count };
            Some(Value::from(items.as_slice().repeat_cloned(count)))
        }
        Value::Tuple(items) | Value::Group(items) => {
            check(items.len())?;
            let count = if items.is_empty() { 0 } else { count };
            Some(Value::tuple(items.as_slice().repeat_cloned(count)))
        }
        _ => None,
    })
}

/// Repeats a slice whose items are not `Copy`.
trait RepeatCloned {
    fn repeat_cloned(&self, count: usize) -> Vec<Value>;
}

impl RepeatCloned for [Value] {
    fn repeat_cloned(&self, count: usize) -> Vec<Value> {
        (0..count).flat_map(|_| self.iter().cloned()).collect()
    }
}

/// Fails for a result that is too large.
pub(in crate::jinja) fn check_size(size: usize) -> Result<()> {
    if size <= SIZE_MAX {
        return Ok(());
    }
    Err(JinjaError::Unsupported(format!("a text or list of {size} bytes or items")))
}

/// Computes `-value`.
pub(in crate::jinja) fn negative(value: &Value) -> Result<Value> {
    value.check_defined()?;
    match value {
        Value::Float(number) => Ok(Value::Float(-number)),
        _ => match value.as_int() {
            Some(number) => {
                number.checked_neg().map_or_else(overflow, |number| Ok(Value::Int(number)))
            }
            None => failed(format!("bad operand type for unary -: '{}'", value.type_name())),
        },
    }
}

/// Computes `+value`.
pub(in crate::jinja) fn positive(value: &Value) -> Result<Value> {
    value.check_defined()?;
    match value {
        Value::Float(_) => Ok(value.clone()),
        _ => match value.as_int() {
            Some(number) => Ok(Value::Int(number)),
            None => failed(format!("bad operand type for unary +: '{}'", value.type_name())),
        },
    }
}
