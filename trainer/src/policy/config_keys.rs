//! Checked reading of single keys of a `config.json`. A key with the value null counts as absent, as in Python.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// The reason why a `config.json` was refused.
#[derive(Debug, thiserror::Error)]
pub enum ModelConfigError {
    #[error(
        "cannot read {path}: {source} (a model folder holds config.json, model.safetensors and tokenizer.json)"
    )]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a model configuration: {source}")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("{path}: {key} is missing; accepted: {accepted}")]
    Missing { path: PathBuf, key: String, accepted: String },
    #[error("{path}: {key} = {value} is not supported; accepted: {accepted}")]
    Unsupported { path: PathBuf, key: String, value: String, accepted: String },
    #[error(
        "{path}: {key} = {value} is not a known key of this model type, so it may change what the model computes; \
         accepted: no such key, or null"
    )]
    Unknown { path: PathBuf, key: String, value: String },
}

const COUNT: &str = "a whole number of at least 1";
const POSITIVE: &str = "a number above 0";

/// The keys of one JSON object, named with their path in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys<'a> {
    path: &'a Path,
    /// `rope_scaling.` for the keys of that object, empty at the top level.
    prefix: &'static str,
    values: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    /// Creates the keys at the top level of the file `path`.
    pub(super) fn new(path: &'a Path, values: &'a Map<String, Value>) -> Self {
        Self { path, prefix: "", values }
    }

    /// Returns the keys whose values are not null.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.values.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.as_str())
    }

    /// Returns `true` if there are no keys at all.
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Returns `true` if the key exists, be it with the value null. Where a class of transformers has a default
    /// that is not null, null and absence differ.
    pub(super) fn contains(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Returns the raw value, unless it is null.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// Returns the keys of the object at `key`. `prefix` is `key` with a dot.
    pub(super) fn object(
        &self,
        key: &str,
        prefix: &'static str,
    ) -> Result<Option<Keys<'a>>, ModelConfigError> {
        let accepted = "null or an object";
        self.read(key, accepted, Value::as_object)
            .map(|object| object.map(|values| Keys { path: self.path, prefix, values }))
    }

    /// Reads a whole number of at least 1.
    pub(super) fn count(&self, key: &str) -> Result<i64, ModelConfigError> {
        self.optional_count(key)?.ok_or_else(|| self.missing(key, COUNT))
    }

    /// Reads a whole number of at least 1 from an optional key.
    pub(super) fn optional_count(&self, key: &str) -> Result<Option<i64>, ModelConfigError> {
        self.read(key, COUNT, |value| value.as_i64().filter(|&count| count >= 1))
    }

    /// Reads a whole number of at least 0 from an optional key.
    pub(super) fn optional_index(&self, key: &str) -> Result<Option<usize>, ModelConfigError> {
        self.read(key, "a whole number of at least 0", |value| {
            value.as_u64().and_then(|index| usize::try_from(index).ok())
        })
    }

    /// Reads a number above 0.
    pub(super) fn positive(&self, key: &str) -> Result<f64, ModelConfigError> {
        self.optional_positive(key)?.ok_or_else(|| self.missing(key, POSITIVE))
    }

    /// Reads a number above 0 from an optional key.
    pub(super) fn optional_positive(&self, key: &str) -> Result<Option<f64>, ModelConfigError> {
        let positive = |value: &Value| value.as_f64().filter(|&number| number > 0.0);
        self.read(key, POSITIVE, positive)
    }

    /// Reads true or false; an absent key means `default`.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, ModelConfigError> {
        Ok(self.read(key, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// Reads a text from an optional key.
    pub(super) fn optional_text(&self, key: &str) -> Result<Option<&'a str>, ModelConfigError> {
        self.read(key, "a text", Value::as_str)
    }

    /// Reads a text.
    pub(super) fn text(&self, key: &str) -> Result<&'a str, ModelConfigError> {
        self.optional_text(key)?.ok_or_else(|| self.missing(key, "a text"))
    }

    /// Reads a list from an optional key.
    pub(super) fn optional_list(
        &self,
        key: &str,
    ) -> Result<Option<&'a Vec<Value>>, ModelConfigError> {
        self.read(key, "a list", Value::as_array)
    }

    /// Creates the error that refuses the value of `key`.
    pub(super) fn refuse(&self, key: &str, accepted: &str) -> ModelConfigError {
        let value = self.values.get(key).map_or_else(|| "nothing".to_owned(), shown);
        ModelConfigError::Unsupported {
            path: self.path.to_owned(),
            key: format!("{}{key}", self.prefix),
            value,
            accepted: accepted.to_owned(),
        }
    }

    /// Creates the error that refuses a key that no list of `known_keys` has.
    pub(super) fn unknown(&self, key: &str) -> ModelConfigError {
        let value = self.values.get(key).map_or_else(|| "nothing".to_owned(), shown);
        ModelConfigError::Unknown { path: self.path.to_owned(), key: key.to_owned(), value }
    }

    fn missing(&self, key: &str, accepted: &str) -> ModelConfigError {
        ModelConfigError::Missing {
            path: self.path.to_owned(),
            key: format!("{}{key}", self.prefix),
            accepted: accepted.to_owned(),
        }
    }

    fn read<T>(
        &self,
        key: &str,
        accepted: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ModelConfigError> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => convert(value).map(Some).ok_or_else(|| self.refuse(key, accepted)),
        }
    }
}

/// Formats a text without quotes and everything else as JSON.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
