//! Filters: what follows `|`.

mod choice;
mod markup;
mod number;
mod order;
mod sequence;
mod text;

use super::arguments::Given;
use super::error::{Result, failed, unsupported};
use super::json;
use super::value::{self, Value};

pub(super) use self::markup::escaped;
pub(super) use self::order::sorted_order;

const NAMES: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
];

/// Returns `true` for the name of a filter.
pub(super) fn is_filter(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Applies the filter `name` to `value`.
pub(super) fn apply(name: &str, value: &Value, given: Given) -> Result<Value> {
    match name {
        "upper" | "lower" | "capitalize" | "title" | "trim" | "center" | "format" | "replace"
        | "string" | "indent" | "truncate" | "wordcount" => text::apply(name, value, given),
        "abs" | "int" | "float" | "round" | "filesizeformat" => number::apply(name, value, given),
        "e" | "escape" | "forceescape" | "safe" | "urlencode" | "xmlattr" => {
            markup::apply(name, value, given)
        }
        "sort" | "dictsort" | "groupby" | "unique" | "min" | "max" => {
            order::apply(name, value, given)
        }
        "map" | "select" | "reject" | "selectattr" | "rejectattr" => {
            Ok(choice::apply(name, value, given))
        }
        "batch" | "count" | "first" | "items" | "join" | "last" | "length" | "list" | "reverse"
        | "slice" | "sum" => sequence::apply(name, value, given),
        "attr" => {
            let attribute = given.bind(name, "/ name")?.take(0);
            match attribute.as_text() {
                Some(attribute) => super::methods::attribute_only(value, attribute),
                None => failed("attribute name must be string"),
            }
        }
        "d" | "default" => {
            let mut bound = given.bind(name, "/ default_value? boolean?")?;
            let default = bound.optional(0).unwrap_or_else(|| Value::from(""));
            let is_missing = value.is_undefined() || (bound.flag(1) && !value.is_true());
            Ok(if is_missing { default } else { value.clone() })
        }
        "tojson" => json::to_json(value, given),
        _ if is_filter(name) => unsupported(format!("the filter '{name}'")),
        _ => failed(format!("no filter named '{name}'")),
    }
}

/// An attribute such as `a.b.0`, as its parts.
#[derive(Clone, Debug, Default)]
struct Path(Vec<Value>);

impl Path {
    /// Reads the argument `attribute` of a filter; none is the value itself.
    fn new(attribute: Option<&Value>) -> Self {
        let part = |part: &str| {
            let is_index = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            match part.parse() {
                Ok(index) if is_index => Value::Int(index),
                _ => Value::from(part),
            }
        };
        Self(match attribute {
            None | Some(Value::None) => Vec::new(),
            Some(attribute) => match attribute.as_text() {
                Some(text) => text.split('.').map(part).collect(),
                None => vec![attribute.clone()],
            },
        })
    }

    /// Returns the value of the attribute; `default` replaces an undefined one.
    fn of(&self, value: &Value, default: Option<&Value>) -> Result<Value> {
        let mut value = value.clone();
        for part in &self.0 {
            value = super::methods::item_or_attribute(&value, part)?;
            if let (true, Some(default)) = (value.is_undefined(), default) {
                value = default.clone();
            }
        }
        Ok(value)
    }
}

/// Returns a text in lower case, and other values as they are.
fn without_case(value: Value) -> Value {
    match &value {
        Value::Text(text) | Value::Markup(text) => Value::from(text.to_lowercase()),
        _ => value,
    }
}

/// Returns `str(value)` with its mark: a function makes the text of the result.
fn changed(value: &Value, change: impl FnOnce(&str) -> String) -> Result<Value> {
    let result = Value::from(change(&value::text(value)?));
    Ok(if matches!(value, Value::Markup(_)) { super::methods::marked(result) } else { result })
}
