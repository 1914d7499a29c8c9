//! Attributes and methods of values.

mod container;
mod text;

use super::arguments::Given;
use super::error::{JinjaError, Result, failed, unsupported};
use super::value::{self, Value};

pub(super) use self::text::{centered, replaced};

/// Methods that change a value, which the sandbox forbids.
const CHANGING: [&str; 12] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "add",
];

/// Methods and attributes of Python's types that are not here; using one is refused.
const ONLY_PYTHON: [(&str, &[&str]); 8] = [
    ("str", &["encode", "maketrans", "translate"]),
    ("Markup", &["encode", "maketrans", "translate", "unescape", "striptags", "escape"]),
    ("dict", &["fromkeys"]),
    ("int", &["as_integer_ratio", "bit_count", "conjugate", "from_bytes", "to_bytes"]),
    ("bool", &["as_integer_ratio", "bit_count", "conjugate", "from_bytes", "to_bytes"]),
    ("float", &["as_integer_ratio", "conjugate", "fromhex", "hex"]),
    ("generator", &["send", "throw", "close"]),
    ("dict_keys", &["isdisjoint", "mapping"]),
];

/// Returns `value.name`: an attribute, or else the item of that name.
pub(super) fn attribute_or_item(value: &Value, name: &str) -> Result<Value> {
    value.check_defined()?;
    if let Some(found) = attribute(value, name)? {
        return Ok(found);
    }
    Ok(value::item(value, &Value::from(name))?.unwrap_or_else(|| missing(value, name)))
}

/// Returns `value[key]`: an item, or else the attribute of that name.
pub(super) fn item_or_attribute(value: &Value, key: &Value) -> Result<Value> {
    if let Some(found) = value::item(value, key)? {
        return Ok(found);
    }
    if let Some(name) = key.as_text() {
        return Ok(attribute(value, name)?.unwrap_or_else(|| missing(value, name)));
    }
    let key = value::repr(key).unwrap_or_else(|_| key.type_name().to_owned());
    Ok(Value::undefined(format!("{} object has no element {key}", value.type_name())))
}

/// Returns the attribute `name` alone, as the filter `attr` does.
pub(super) fn attribute_only(value: &Value, name: &str) -> Result<Value> {
    value.check_defined()?;
    Ok(attribute(value, name)?.unwrap_or_else(|| missing(value, name)))
}

fn missing(value: &Value, name: &str) -> Value {
    Value::undefined(format!("'{} object' has no attribute '{name}'", value.type_name()))
}

fn attribute(value: &Value, name: &str) -> Result<Option<Value>> {
    let unsafe_value = || {
        Value::undefined(format!(
            "access to attribute '{name}' of '{}' object is unsafe",
            value.type_name()
        ))
    };
    if name.starts_with('_') {
        let is_stored = matches!(value, Value::Dict(dict) if dict.get_text(name).is_some());
        return Ok((name.starts_with("__") && !is_stored).then(unsafe_value));
    }
    if let Value::List(_) | Value::Dict(_) = value
        && CHANGING.contains(&name)
    {
        let is_own = match value {
            Value::List(_) => !["popitem", "setdefault", "update", "add"].contains(&name),
            _ => ["clear", "pop", "popitem", "setdefault", "update"].contains(&name),
        };
        if is_own {
            return Ok(Some(unsafe_value()));
        }
    }
    let kind = value.type_name();
    if ONLY_PYTHON.iter().any(|(owner, names)| *owner == kind && names.contains(&name)) {
        return unsupported(format!("'{name}' of '{kind}'"));
    }
    if let Some(found) = plain_attribute(value, name)? {
        return Ok(Some(found));
    }
    let methods: &[&'static str] = match value {
        Value::Text(_) | Value::Markup(_) => &text::METHODS,
        Value::List(_) => &["copy", "count", "index"],
        Value::Tuple(_) | Value::Group(_) | Value::Range(_) => &["count", "index"],
        Value::Dict(_) => &["copy", "get", "items", "keys", "values"],
        Value::Float(_) => &["is_integer"],
        Value::Int(_) | Value::Bool(_) => &["bit_length"],
        Value::Cycler(_) => &["next", "reset"],
        Value::Loop(_) => &["cycle", "changed"],
        _ => &[],
    };
    let method = methods.iter().find(|known| **known == name);
    Ok(method.map(|method| Value::Method(std::rc::Rc::new((value.clone(), method)))))
}

/// Returns attributes that are not methods.
fn plain_attribute(value: &Value, name: &str) -> Result<Option<Value>> {
    Ok(match (value, name) {
        (Value::Namespace(names), _) => names.borrow().get_text(name).cloned(),
        (Value::Group(pair), "grouper") => pair.first().cloned(),
        (Value::Group(pair), "list") => pair.get(1).cloned(),
        (Value::Int(_) | Value::Bool(_), "real" | "numerator") => value.as_int().map(Value::Int),
        (Value::Int(_) | Value::Bool(_), "imag") => Some(Value::Int(0)),
        (Value::Int(_) | Value::Bool(_), "denominator") => Some(Value::Int(1)),
        (Value::Float(number), "real") => Some(Value::Float(*number)),
        (Value::Float(_), "imag") => Some(Value::Float(0.0)),
        (Value::Range(range), "start") => Some(Value::Int(range.start)),
        (Value::Range(range), "stop") => Some(Value::Int(range.stop)),
        (Value::Range(range), "step") => Some(Value::Int(range.step)),
        (Value::Cycler(cycler), "current") => cycler.items.get(cycler.position.get()).cloned(),
        (Value::Macro(definition), "name") => Some(Value::from(definition.name())),
        (Value::Loop(state), _) => state.attribute(name),
        (Value::Function("dict"), "fromkeys") => return unsupported("dict.fromkeys"),
        _ => None,
    })
}

/// Calls the method `name` of `value`.
pub(super) fn call(value: &Value, name: &'static str, given: Given) -> Result<Value> {
    match value {
        Value::Text(text) => text::call(text, name, given),
        Value::Markup(text) => markup(text, name, given),
        Value::List(_) | Value::Tuple(_) | Value::Group(_) | Value::Range(_) => {
            container::call_sequence(value, name, given)
        }
        Value::Dict(dict) => container::call_dict(dict, name, given),
        Value::Cycler(cycler) => {
            given.bind(name, "")?;
            let length = cycler.items.len();
            let position = cycler.position.get();
            if name == "reset" {
                cycler.position.set(0);
                return Ok(Value::None);
            }
            cycler.position.set((position + 1) % length);
            Ok(cycler.items[position].clone())
        }
        Value::Loop(state) => state.call(name, given),
        Value::Float(number) => {
            given.bind(name, "")?;
            Ok(Value::Bool(number.is_finite() && number.fract() == 0.0))
        }
        _ => {
            given.bind(name, "")?;
            let bits =
                value.as_int().map_or(0, |number| 128 - number.unsigned_abs().leading_zeros());
            Ok(Value::Int(bits.into()))
        }
    }
}

/// Calls a method of a text marked as safe. Its results are safe texts too; arguments are escaped, so those that
/// escaping would change are refused.
fn markup(text: &str, name: &'static str, given: Given) -> Result<Value> {
    let changes = |value: &Value| {
        value.as_text().is_none_or(|text| text.contains(['&', '<', '>', '"', '\'']))
            && !matches!(value, Value::Int(_) | Value::None | Value::Bool(_))
    };
    if given.positional.iter().any(changes) || !given.named.is_empty() {
        return unsupported(format!("'{name}' of a text marked as safe with these arguments"));
    }
    Ok(marked(text::call(text, name, given)?))
}

/// Marks a text, and the texts in a list, as safe.
pub(super) fn marked(value: Value) -> Value {
    match value {
        Value::Text(text) => Value::Markup(text),
        Value::List(items) => Value::from(items.iter().cloned().map(marked).collect::<Vec<_>>()),
        Value::Tuple(items) => Value::tuple(items.iter().cloned().map(marked).collect()),
        other => other,
    }
}

/// Returns the positions that `start` and `end` of a method limit, or `None` if nothing is between them.
fn bounds(
    start: Option<Value>,
    end: Option<Value>,
    length: usize,
) -> Result<Option<(usize, usize)>> {
    let position = |bound: Option<Value>, default: usize| -> Result<i128> {
        let Some(bound) = bound else { return Ok(default as i128) };
        match bound.as_int() {
            Some(number) if number < 0 => Ok((number + length as i128).max(0)),
            Some(number) => Ok(number),
            None => failed("slice indices must be integers or None or have an __index__ method"),
        }
    };
    let (start, end) = (position(start, 0)?, position(end, length)?.min(length as i128));
    Ok((start <= end).then_some((start as usize, end as usize)))
}

impl Value {
    /// Returns a text argument, or the error of a method that requires one.
    fn expect_text(&self, method: &str) -> Result<&str> {
        self.check_defined()?;
        self.as_text().ok_or_else(|| {
            JinjaError::Failed(format!("{method}() argument must be str, not {}", self.type_name()))
        })
    }
}
