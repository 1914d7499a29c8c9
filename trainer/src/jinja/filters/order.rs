//! Filters that order and group values.

use super::{Path, without_case};
use crate::jinja::arguments::Given;
use crate::jinja::error::{JinjaError, Result, failed};
use crate::jinja::value::{self, Value};

pub(super) fn apply(name: &str, value: &Value, given: Given) -> Result<Value> {
    match name {
        "sort" => sort(value, given),
        "dictsort" => dict_sort(value, given),
        "groupby" => group(value, given),
        "unique" => unique(value, given),
        _ => extreme(value, name == "max", given),
    }
}

/// Returns the positions of keys in ascending order. Equal keys keep their order.
pub(in crate::jinja) fn sorted_order(keys: &[Value]) -> Result<Vec<usize>> {
    let mut order: Vec<usize> = Vec::with_capacity(keys.len());
    for index in 0..keys.len() {
        let (mut low, mut high) = (0, order.len());
        while low < high {
            let middle = low.midpoint(high);
            if value::less(&keys[index], &keys[order[middle]])? {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        order.insert(low, index);
    }
    Ok(order)
}

fn sorted(items: Vec<Value>, keys: Vec<Value>, is_reversed: bool) -> Result<Vec<Value>> {
    let (mut items, mut keys) = (items, keys);
    // A reversed order keeps equal values in place too.
    if is_reversed {
        items.reverse();
        keys.reverse();
    }
    let mut sorted: Vec<Value> =
        sorted_order(&keys)?.into_iter().map(|index| items[index].clone()).collect();
    if is_reversed {
        sorted.reverse();
    }
    Ok(sorted)
}

fn sort(value: &Value, given: Given) -> Result<Value> {
    let mut bound = given.bind("sort", "/ reverse? case_sensitive? attribute?")?;
    let (is_reversed, is_case_sensitive) = (bound.flag(0), bound.flag(1));
    let attribute = bound.unless_none(2);
    let paths: Vec<Path> = match attribute.as_ref().and_then(Value::as_text) {
        Some(text) => text.split(',').map(|part| Path::new(Some(&Value::from(part)))).collect(),
        None => vec![Path::new(attribute.as_ref())],
    };
    let items = value::iterated(value)?;
    let mut keys = Vec::with_capacity(items.len());
    for item in &items {
        let mut key = Vec::with_capacity(paths.len());
        for path in &paths {
            let part = path.of(item, None)?;
            key.push(if is_case_sensitive { part } else { without_case(part) });
        }
        keys.push(Value::from(key));
    }
    sorted(items, keys, is_reversed).map(Value::from)
}

fn dict_sort(value: &Value, given: Given) -> Result<Value> {
    let mut bound = given.bind("dictsort", "/ case_sensitive? by? reverse?")?;
    let is_case_sensitive = bound.flag(0);
    let by = bound.optional(1).unwrap_or_else(|| Value::from("key"));
    let place = match by.as_text() {
        Some("key") => 0,
        Some("value") => 1,
        _ => return failed("You can only sort by either \"key\" or \"value\""),
    };
    let is_reversed = bound.flag(2);
    value.check_defined()?;
    let Value::Dict(dict) = value else {
        return failed(format!("'{}' object has no attribute 'items'", value.type_name()));
    };
    let mut items = Vec::new();
    let mut keys = Vec::new();
    for (key, value) in dict.pairs() {
        let by = if place == 0 { key.clone() } else { value.clone() };
        keys.push(if is_case_sensitive { by } else { without_case(by) });
        items.push(Value::tuple(vec![key.clone(), value.clone()]));
    }
    sorted(items, keys, is_reversed).map(Value::from)
}

fn group(value: &Value, given: Given) -> Result<Value> {
    let mut bound = given.bind("groupby", "/ attribute default? case_sensitive?")?;
    let attribute = bound.take(0);
    let path = Path::new(Some(&attribute));
    let default = bound.unless_none(1);
    let is_case_sensitive = bound.flag(2);
    let items = value::iterated(value)?;
    let mut keys = Vec::with_capacity(items.len());
    for item in &items {
        let key = path.of(item, default.as_ref())?;
        keys.push(if is_case_sensitive { key } else { without_case(key) });
    }
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for index in sorted_order(&keys)? {
        match groups.last_mut() {
            Some((key, members)) if value::equal(key, &keys[index]) => {
                members.push(items[index].clone());
            }
            _ => groups.push((keys[index].clone(), vec![items[index].clone()])),
        }
    }
    let mut pairs = Vec::with_capacity(groups.len());
    for (key, members) in groups {
        let shown = if is_case_sensitive { key } else { path.of(&members[0], default.as_ref())? };
        pairs.push(Value::Group(std::rc::Rc::new(vec![shown, Value::from(members)])));
    }
    Ok(Value::from(pairs))
}

fn unique(value: &Value, given: Given) -> Result<Value> {
    let mut bound = given.bind("unique", "/ case_sensitive? attribute?")?;
    let is_case_sensitive = bound.flag(0);
    let path = Path::new(bound.unless_none(1).as_ref());
    let mut kept = Vec::new();
    let mut seen: Vec<Value> = Vec::new();
    let mut add = |item: &Value| -> Result<()> {
        let key = path.of(item, None)?;
        let key = if is_case_sensitive { key } else { without_case(key) };
        value::check_hashable(&key)?;
        if !seen.iter().any(|known| value::equal(known, &key)) {
            seen.push(key);
            kept.push(item.clone());
        }
        Ok(())
    };
    let error = match value::iterated(value) {
        Ok(items) => items.iter().try_for_each(&mut add).err(),
        Err(error) => Some(error),
    };
    Ok(Value::iterator(kept, error))
}

fn extreme(value: &Value, is_max: bool, given: Given) -> Result<Value> {
    let mut bound = given.bind("min or max", "/ case_sensitive? attribute?")?;
    let is_case_sensitive = bound.flag(0);
    let path = Path::new(bound.unless_none(1).as_ref());
    let key = |item: &Value| -> Result<Value> {
        let key = path.of(item, None)?;
        Ok(if is_case_sensitive { key } else { without_case(key) })
    };
    let mut best: Option<(Value, Value)> = None;
    for item in value::iterated(value)? {
        let own = key(&item)?;
        let is_better = match &best {
            None => true,
            Some((_, known)) if is_max => value::less(known, &own)?,
            Some((_, known)) => value::less(&own, known)?,
        };
        if is_better {
            best = Some((item, own));
        }
    }
    let none = || Value::undefined("No aggregated item, sequence was empty.");
    Ok::<Value, JinjaError>(best.map_or_else(none, |(item, _)| item))
}
