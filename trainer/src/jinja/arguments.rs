//! Arguments of calls, bound to parameters as Python binds them.

use super::error::{Result, failed};
use super::value::{Dict, Value, text};

/// The evaluated arguments of a call.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(String, Value)>,
}

/// The arguments of one call by parameter; `None` where an optional one is not given.
pub(super) struct Bound(Vec<Option<Value>>);

impl Given {
    /// Binds the arguments to the parameters of `function`, which are separated by spaces. A `?` ends an optional
    /// one; those after `/` are given by name too.
    pub(super) fn bind(self, function: &str, parameters: &str) -> Result<Bound> {
        let mut names = Vec::new();
        let mut named_from = usize::MAX;
        for word in parameters.split_whitespace() {
            if word == "/" {
                named_from = names.len();
            } else {
                names.push((word.trim_end_matches('?'), word.ends_with('?')));
            }
        }
        if self.positional.len() > names.len() {
            return failed(format!(
                "{function}() takes at most {} arguments ({} given)",
                names.len(),
                self.positional.len()
            ));
        }
        let mut values: Vec<Option<Value>> = self.positional.into_iter().map(Some).collect();
        values.resize(names.len(), None);
        for (name, value) in self.named {
            let place = names.iter().position(|(known, _)| *known == name);
            match place.filter(|place| *place >= named_from) {
                Some(place) if values[place].is_none() => values[place] = Some(value),
                Some(_) => {
                    return failed(format!(
                        "{function}() got multiple values for argument '{name}'"
                    ));
                }
                None => {
                    return failed(format!(
                        "{function}() got an unexpected keyword argument '{name}'"
                    ));
                }
            }
        }
        for ((name, is_optional), value) in names.iter().zip(&values) {
            if value.is_none() && !is_optional {
                return failed(format!("{function}() missing required argument '{name}'"));
            }
        }
        Ok(Bound(values))
    }

    /// Returns named arguments as a dictionary.
    pub(super) fn names(self) -> Dict {
        Dict::from_texts(self.named)
    }
}

impl Bound {
    /// Returns the argument of a required parameter.
    pub(super) fn take(&mut self, index: usize) -> Value {
        self.0[index].take().unwrap_or(Value::None)
    }

    /// Returns the argument of an optional parameter.
    pub(super) fn optional(&mut self, index: usize) -> Option<Value> {
        self.0[index].take()
    }

    /// Returns the argument of an optional parameter; none counts as not given.
    pub(super) fn unless_none(&mut self, index: usize) -> Option<Value> {
        self.optional(index).filter(|value| !matches!(value, Value::None))
    }

    /// Returns `true` if an argument is given and true.
    pub(super) fn flag(&mut self, index: usize) -> bool {
        self.optional(index).is_some_and(|value| value.is_true())
    }

    /// Returns a whole number, or `default` if it is not given.
    pub(super) fn int(&mut self, index: usize, default: i128) -> Result<i128> {
        match self.optional(index) {
            None => Ok(default),
            Some(value) => int(&value),
        }
    }

    /// Returns `str` of an argument.
    pub(super) fn string(&mut self, index: usize) -> Result<String> {
        text(&self.take(index))
    }
}

/// Returns a whole number, as functions of Python require one.
pub(super) fn int(value: &Value) -> Result<i128> {
    value.check_defined()?;
    match value.as_int() {
        Some(number) => Ok(number),
        None => {
            failed(format!("'{}' object cannot be interpreted as an integer", value.type_name()))
        }
    }
}
