//! Where values come from. The process environment is read once, in [`environment`]; everything
//! else takes a [`Source`], so that tests pass a map.

use std::collections::BTreeMap;

use crate::config::variables::PREFIX;

/// Gives values by the name of their variable.
pub trait Source {
    /// The value, if one is set.
    fn get(&self, name: &str) -> Option<String>;
}

impl Source for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        self.get(name).cloned()
    }
}

/// Flags over the environment.
#[derive(Clone, Debug, Default)]
pub struct Layered {
    /// Values of flags, by the name of their variable.
    pub flags: BTreeMap<String, String>,
    /// Values of the environment.
    pub environment: BTreeMap<String, String>,
}

impl Source for Layered {
    fn get(&self, name: &str) -> Option<String> {
        self.flags.get(name).or_else(|| self.environment.get(name)).cloned()
    }
}

/// The variables of this process that concern the retriever. Bytes that are not UTF-8 become
/// replacement characters, which no variable accepts where it matters.
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        })
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect()
}
