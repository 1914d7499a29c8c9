//! Methods of lists, tuples, ranges and dictionaries.

use std::rc::Rc;

use crate::jinja::arguments::Given;
use crate::jinja::error::{Result, failed};
use crate::jinja::value::{self, Dict, Value, View};

/// Calls `copy`, `count` or `index`.
pub(super) fn call_sequence(value: &Value, name: &str, given: Given) -> Result<Value> {
    let items = value::iterated(value)?;
    match name {
        "copy" => {
            given.bind(name, "")?;
            Ok(Value::from(items))
        }
        "count" => {
            let wanted = given.bind(name, "value")?.take(0);
            Ok(Value::int(items.iter().filter(|item| value::equal(item, &wanted)).count()))
        }
        _ => {
            let mut bound = given.bind(name, "value start? stop?")?;
            let wanted = bound.take(0);
            let between = super::bounds(bound.optional(1), bound.optional(2), items.len())?;
            let found = between.and_then(|(start, end)| {
                items[start..end]
                    .iter()
                    .position(|item| value::equal(item, &wanted))
                    .map(|at| start + at)
            });
            match found {
                Some(at) => Ok(Value::int(at)),
                None => failed(format!("the value is not in the {}", value.type_name())),
            }
        }
    }
}

/// Calls a method of a dictionary.
pub(super) fn call_dict(dict: &Rc<Dict>, name: &str, given: Given) -> Result<Value> {
    if name == "get" {
        let mut bound = given.bind(name, "key default?")?;
        let key = bound.take(0);
        value::check_hashable(&key)?;
        let default = bound.optional(1).unwrap_or(Value::None);
        return Ok(dict.get(&key).cloned().unwrap_or(default));
    }
    given.bind(name, "")?;
    Ok(match name {
        "items" => Value::View(View::Items, Rc::clone(dict)),
        "keys" => Value::View(View::Keys, Rc::clone(dict)),
        "values" => Value::View(View::Values, Rc::clone(dict)),
        _ => Value::Dict(Rc::new((**dict).clone())),
    })
}
