//! Filters of sequences.

use super::Path;
use crate::jinja::arguments::{self, Given};
use crate::jinja::error::{Result, failed};
use crate::jinja::syntax::Operator;
use crate::jinja::value::{self, Value};

pub(super) fn apply(name: &str, value: &Value, given: Given) -> Result<Value> {
    match name {
        "batch" => return batch(value, given),
        "slice" => return slices(value, given),
        "join" => return join(value, given),
        "sum" => return sum(value, given),
        _ => {
            given.bind(name, "")?;
        }
    }
    match name {
        "first" => first(value),
        "last" => last(value),
        "list" => value::iterated(value).map(Value::from),
        "items" => match value {
            Value::Undefined(_) => Ok(Value::iterator(Vec::new(), None)),
            Value::Dict(dict) => {
                let pair =
                    |(key, value): &(Value, Value)| Value::tuple(vec![key.clone(), value.clone()]);
                Ok(Value::iterator(dict.pairs().iter().map(pair).collect(), None))
            }
            _ => {
                let error = failed::<Value>("Can only get item pairs from a mapping.").err();
                Ok(Value::iterator(Vec::new(), error))
            }
        },
        "reverse" => reverse(value),
        _ => value::length(value).map(Value::int),
    }
}

fn first(value: &Value) -> Result<Value> {
    let found = match value {
        // The rest of an iterator stays.
        Value::Iterator(iterator) => {
            let next = iterator.rest.borrow_mut().pop();
            match (next, iterator.error.borrow().clone()) {
                (None, Some(error)) => return Err(error),
                (next, _) => next,
            }
        }
        _ => value::iterated(value)?.into_iter().next(),
    };
    Ok(found.unwrap_or_else(|| Value::undefined("No first item, sequence was empty.")))
}

fn last(value: &Value) -> Result<Value> {
    if let Value::Iterator(_) = value {
        return failed("'generator' object is not reversible");
    }
    let found = value::iterated(value)?.pop();
    Ok(found.unwrap_or_else(|| Value::undefined("No last item, sequence was empty.")))
}

fn reverse(value: &Value) -> Result<Value> {
    if let Value::Text(text) | Value::Markup(text) = value {
        let reversed = Value::from(text.chars().rev().collect::<String>());
        let is_marked = matches!(value, Value::Markup(_));
        return Ok(if is_marked { crate::jinja::methods::marked(reversed) } else { reversed });
    }
    let mut items = value::iterated(value)?;
    items.reverse();
    // What cannot be read from its end becomes a list.
    Ok(match value {
        Value::Iterator(_) => Value::from(items),
        _ => Value::iterator(items, None),
    })
}

fn join(value: &Value, given: Given) -> Result<Value> {
    let mut bound = given.bind("join", "/ d? attribute?")?;
    let separator = match bound.optional(0) {
        Some(separator) => value::text(&separator)?,
        None => String::new(),
    };
    let path = Path::new(bound.unless_none(1).as_ref());
    let mut out = String::new();
    for (index, item) in value::iterated(value)?.iter().enumerate() {
        if index > 0 {
            out.push_str(&separator);
        }
        out.push_str(&value::text(&path.of(item, None)?)?);
        value::check_size(out.len())?;
    }
    Ok(Value::from(out))
}

fn sum(value: &Value, given: Given) -> Result<Value> {
    let mut bound = given.bind("sum", "/ attribute? start?")?;
    let path = Path::new(bound.unless_none(0).as_ref());
    let mut total = bound.optional(1).unwrap_or(Value::Int(0));
    if total.as_text().is_some() {
        return failed("sum() can't sum strings [use ''.join(seq) instead]");
    }
    for item in value::iterated(value)? {
        total = value::binary(Operator::Add, &total, &path.of(&item, None)?)?;
    }
    Ok(total)
}

fn batch(value: &Value, given: Given) -> Result<Value> {
    let mut bound = given.bind("batch", "/ linecount fill_with?")?;
    let count = bound.take(0);
    let fill = bound.unless_none(1);
    let items = match value::iterated(value) {
        Ok(items) => items,
        Err(error) => return Ok(Value::iterator(Vec::new(), Some(error))),
    };
    let size = count.as_float().unwrap_or(f64::NAN);
    let mut rows: Vec<Vec<Value>> = Vec::new();
    for item in items {
        match rows.last_mut() {
            #[expect(clippy::float_cmp, reason = "a length equals a count or does not")]
            Some(row) if row.len() as f64 != size => row.push(item),
            _ => rows.push(vec![item]),
        }
    }
    if let (Some(fill), Some(row)) = (fill, rows.last_mut()) {
        let width = usize::try_from(arguments::int(&count)?).unwrap_or(0);
        value::check_size(width)?;
        while row.len() < width {
            row.push(fill.clone());
        }
    }
    Ok(Value::iterator(rows.into_iter().map(Value::from).collect(), None))
}

fn slices(value: &Value, given: Given) -> Result<Value> {
    let mut bound = given.bind("slice", "/ slices fill_with?")?;
    let count = bound.take(0);
    let fill = bound.unless_none(1);
    let divided = || -> Result<Vec<Value>> {
        let items = value::iterated(value)?;
        let count = arguments::int(&count)?;
        if count == 0 {
            return failed("integer division or modulo by zero");
        }
        let count = usize::try_from(count).unwrap_or(0);
        value::check_size(count)?;
        // A negative count gives no rows.
        let each = items.len().checked_div(count).unwrap_or(0);
        let extra = items.len().checked_rem(count).unwrap_or(0);
        let mut rows = Vec::new();
        let mut start = 0;
        for index in 0..count {
            let end = start + each + usize::from(index < extra);
            let mut row = items[start..end].to_vec();
            if index >= extra {
                row.extend(fill.clone());
            }
            rows.push(Value::from(row));
            start = end;
        }
        Ok(rows)
    };
    Ok(match divided() {
        Ok(rows) => Value::iterator(rows, None),
        Err(error) => Value::iterator(Vec::new(), Some(error)),
    })
}
