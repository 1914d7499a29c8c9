//! Where values come from. The process environment is read once, in [`environment`]; everything
//! else takes a [`Source`], so that tests pass a map.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::variables::PREFIX;

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
    /// Values of the environment, none of them empty.
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
    concerning(std::env::vars_os())
}

/// An empty variable counts as not set: compose files pass on what is not set that way.
fn concerning(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> BTreeMap<String, String> {
    variables
        .into_iter()
        .map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        })
        .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        let variables = [
            ("RETRIEVER_TOP_K", ""),
            ("RETRIEVER_INDEX", "i"),
            ("RETRIEVER_LOG", " "),
            ("HOME", "h"),
        ];
        let found = concerning(variables.map(|(name, value)| (name.into(), value.into())));
        let expected = [("RETRIEVER_INDEX", "i"), ("RETRIEVER_LOG", " ")];
        assert_eq!(found, BTreeMap::from(expected.map(|(n, v)| (n.to_owned(), v.to_owned()))));
    }
}
