//! Reading of a file of settings in TOML. All faults of a file are collected.

use std::fs;
use std::path::Path;

use toml::{Table, Value};

use crate::encode::EncodeError;

/// The accepted limits for the tokens of a text, including special tokens. Fewer would leave no space
/// for words, and no model accepts more.
const TOKENS_RANGE: std::ops::RangeInclusive<usize> = 8..=131_072;
/// The accepted dimensions of shortened vectors.
const DIMENSION_RANGE: std::ops::RangeInclusive<usize> = 1..=65_536;

/// Reads the text of a file of settings. Returns `None` if there is no file.
pub(in crate::encode) fn read(path: &Path) -> Result<Option<String>, EncodeError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(EncodeError::Io { path: path.to_owned(), source }),
    }
}

/// Parses a file of settings. Text that is not TOML is its only fault.
pub(in crate::encode) fn table(text: &str) -> Result<Table, Vec<String>> {
    text.parse().map_err(|error: toml::de::Error| {
        vec![format!("is not TOML: {}", error.to_string().trim_end())]
    })
}

/// A reader of the keys of a table, which collects their faults.
pub(in crate::encode) struct SettingsReader<'a> {
    table: &'a Table,
    faults: Vec<String>,
}

impl<'a> SettingsReader<'a> {
    /// Starts reading, and collects a fault for every key that is not in `keys`.
    pub(in crate::encode) fn new(table: &'a Table, keys: &[&str]) -> Self {
        let mut reader = Self { table, faults: Vec::new() };
        reader.refuse_unknown(keys);
        reader
    }

    /// Returns the settings, or all faults if there are any.
    pub(in crate::encode) fn finish<T>(self, settings: T) -> Result<T, Vec<String>> {
        if self.faults.is_empty() { Ok(settings) } else { Err(self.faults) }
    }

    fn refuse_unknown(&mut self, keys: &[&str]) {
        for (key, value) in self.table.iter().filter(|(key, _)| !keys.contains(&key.as_str())) {
            let nearest = keys
                .iter()
                .max_by(|left, right| strsim::jaro(left, key).total_cmp(&strsim::jaro(right, key)));
            let nearest = nearest.expect("every file of settings has keys");
            self.faults.push(format!(
                "{key} = {value}: unknown key, did you mean {nearest}? accepted keys are {}",
                keys.join(", ")
            ));
        }
    }

    /// Returns the value of a key as `parse` converts it. If `parse` returns `None`, that is a fault,
    /// whose text names the `accepted` values.
    fn take<T>(
        &mut self,
        key: &str,
        accepted: &str,
        parse: impl Fn(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.table.get(key)?;
        let parsed = parse(value);
        if parsed.is_none() {
            self.faults.push(format!("{key} = {value}: expected {accepted}"));
        }
        parsed
    }

    pub(in crate::encode) fn choice<T: Copy>(
        &mut self,
        key: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.take(key, &alternatives(&names), |value| {
            let entry = choices.iter().find(|(name, _)| Some(*name) == value.as_str());
            entry.map(|(_, choice)| *choice)
        })
    }

    /// Returns one choice or several, which the file writes as a string or as an array of strings.
    pub(in crate::encode) fn choices<T: Copy>(
        &mut self,
        key: &str,
        choices: &[(&str, T)],
    ) -> Option<Vec<T>> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let chosen = |value: &Value| {
            let entry = choices.iter().find(|(name, _)| Some(*name) == value.as_str());
            entry.map(|(_, choice)| *choice)
        };
        self.take(key, &format!("{}, or an array of them", alternatives(&names)), |value| {
            match value {
                Value::Array(values) if !values.is_empty() => values.iter().map(chosen).collect(),
                value => chosen(value).map(|choice| vec![choice]),
            }
        })
    }

    /// Collects a fault.
    pub(in crate::encode) fn refuse(&mut self, fault: String) {
        self.faults.push(fault);
    }

    pub(in crate::encode) fn flag(&mut self, key: &str) -> Option<bool> {
        self.take(key, "true or false", Value::as_bool)
    }

    pub(in crate::encode) fn text(&mut self, key: &str) -> Option<&'a str> {
        self.take(key, "a quoted string", Value::as_str)
    }

    pub(in crate::encode) fn tokens(&mut self, key: &str) -> Option<usize> {
        self.integer(key, TOKENS_RANGE)
    }

    pub(in crate::encode) fn dimension(&mut self, key: &str) -> Option<usize> {
        self.integer(key, DIMENSION_RANGE)
    }

    fn integer(&mut self, key: &str, range: std::ops::RangeInclusive<usize>) -> Option<usize> {
        let accepted = format!("an integer from {} to {}", range.start(), range.end());
        self.take(key, &accepted, |value| {
            let number = usize::try_from(value.as_integer()?).ok()?;
            range.contains(&number).then_some(number)
        })
    }
}

/// Joins names as in `"a", "b" or "c"`.
pub(in crate::encode) fn alternatives(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}
