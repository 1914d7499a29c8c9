//! `map`, `select` and their kin. Python computes their items when they are read, so an error waits until then.

use super::Path;
use crate::jinja::arguments::Given;
use crate::jinja::error::{JinjaError, Result, failed};
use crate::jinja::tests_of_values;
use crate::jinja::value::{self, Value};

pub(super) fn apply(name: &str, value: &Value, given: Given) -> Value {
    let mut kept = Vec::new();
    // A value that is false has no items, whatever its type.
    let error = value.is_true().then(|| choose(name, value, given, &mut kept).err()).flatten();
    Value::iterator(kept, error)
}

fn choose(name: &str, value: &Value, given: Given, kept: &mut Vec<Value>) -> Result<()> {
    if name == "map" {
        return map(value, given, kept);
    }
    let mut positional = given.positional.into_iter();
    let path = if name.ends_with("attr") {
        match positional.next() {
            Some(attribute) => Path::new(Some(&attribute)),
            None => return failed("Missing parameter for attribute name"),
        }
    } else {
        Path::default()
    };
    let test = positional.next();
    let rest = Given { positional: positional.collect(), named: given.named };
    for item in value::iterated(value)? {
        let tested = path.of(&item, None)?;
        let holds = match &test {
            Some(test) => match test.as_text() {
                Some(test) => tests_of_values::apply(test, &tested, rest.clone())?,
                None => return failed(format!("no test named {}", value::repr(test)?)),
            },
            None => tested.is_true(),
        };
        if holds != name.starts_with("reject") {
            kept.push(item);
        }
    }
    Ok(())
}

fn map(value: &Value, given: Given, kept: &mut Vec<Value>) -> Result<()> {
    if given.positional.is_empty() && given.named.iter().any(|(name, _)| name == "attribute") {
        let mut path = Path::default();
        let mut default = None;
        for (name, value) in given.named {
            match name.as_str() {
                "attribute" => path = Path::new(Some(&value)),
                "default" => default = Some(value).filter(|value| !matches!(value, Value::None)),
                _ => return failed(format!("Unexpected keyword argument '{name}'")),
            }
        }
        for item in value::iterated(value)? {
            kept.push(path.of(&item, default.as_ref())?);
        }
        return Ok(());
    }
    let mut positional = given.positional.into_iter();
    let Some(filter) = positional.next() else {
        return failed("map requires a filter argument");
    };
    let rest = Given { positional: positional.collect(), named: given.named };
    for item in value::iterated(value)? {
        let Some(name) = filter.as_text() else {
            return Err(JinjaError::Failed(format!("no filter named {}", value::repr(&filter)?)));
        };
        kept.push(super::apply(name, &item, rest.clone())?);
    }
    Ok(())
}
