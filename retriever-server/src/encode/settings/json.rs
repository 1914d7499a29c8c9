//! The JSON files of a model's folder. A fault names the file, the key, its value and the accepted values.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

/// The longest value that a fault quotes in full.
const QUOTED_BYTES_MAX: usize = 80;

/// An object in a JSON file, with the faults found in it.
pub(super) struct JsonObject<'a> {
    /// The path of the file relative to the model's folder.
    name: String,
    keys: Map<String, Value>,
    faults: &'a mut Vec<String>,
}

impl<'a> JsonObject<'a> {
    /// Reads the file `name` in `folder`. Returns `None` if there is none. A file that is no JSON object
    /// is a fault, and counts as empty.
    pub(super) fn read(
        folder: &Path,
        name: impl Into<String>,
        faults: &'a mut Vec<String>,
    ) -> Option<Self> {
        let name = name.into();
        let keys = match read(&folder.join(&name)) {
            Ok(None) => return None,
            Ok(Some(Value::Object(keys))) => keys,
            Ok(Some(value)) => {
                faults.push(format!("{name}: is {}, expected an object", quoted(&value)));
                Map::new()
            }
            Err(reason) => {
                faults.push(format!("{name}: {reason}"));
                Map::new()
            }
        };
        Some(Self { name, keys, faults })
    }

    /// Reads a file that a folder must have.
    pub(super) fn required(
        folder: &Path,
        name: impl Into<String>,
        faults: &'a mut Vec<String>,
    ) -> Option<Self> {
        let name = name.into();
        if folder.join(&name).is_file() {
            return Self::read(folder, name, faults);
        }
        faults.push(format!("{name}: does not exist"));
        None
    }

    /// Returns `true` if a key is set, even to null.
    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// Returns the value of a key that is set and not null.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    /// Returns the value of a key as `parse` converts it. If `parse` returns `None`, that is a fault,
    /// whose text names the `accepted` values.
    pub(super) fn take<T>(
        &mut self,
        key: &str,
        accepted: &str,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.keys.get(key).filter(|value| !value.is_null())?;
        let parsed = parse(value);
        if parsed.is_none() {
            self.faults.push(format!(
                "{}: {key} = {}: expected {accepted}",
                self.name,
                quoted(value)
            ));
        }
        parsed
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.take(key, "a string", |value| value.as_str().map(str::to_owned))
    }

    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        self.take(key, "true or false", Value::as_bool)
    }

    /// Returns a count of at least one.
    pub(super) fn count(&mut self, key: &str) -> Option<usize> {
        self.take(key, "a positive integer", |value| {
            value.as_u64().and_then(|count| usize::try_from(count).ok()).filter(|&count| count > 0)
        })
    }

    /// Refuses a key that is set to anything other than null or an empty object.
    pub(super) fn refuse_if_set(&mut self, key: &str, accepted: &str) {
        self.take(key, accepted, |value| match value {
            Value::Object(keys) if keys.is_empty() => Some(()),
            _ => None,
        });
    }

    /// Refuses keys that are not in `known`.
    pub(super) fn refuse_unknown(&mut self, known: &[&str]) {
        for (key, value) in self.keys.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            let known = known.join(", ");
            let value = quoted(value);
            self.faults
                .push(format!("{}: {key} = {value}: unknown key, expected {known}", self.name));
        }
    }
}

/// Reads a JSON file. Returns `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Value>, String> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot be read: {error}")),
    };
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    serde_json::from_slice(bytes).map(Some).map_err(|error| format!("is not JSON: {error}"))
}

/// Returns a value as JSON, shortened if it is long.
pub(super) fn quoted(value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= QUOTED_BYTES_MAX {
        return text;
    }
    format!("{}…", &text[..text.floor_char_boundary(QUOTED_BYTES_MAX)])
}
