//! The sources of values. [`environment`] reads the environment of the process once; everything else
//! takes a [`Source`], so that tests can pass a map.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::variables::PREFIX;

/// A source of values by the names of their variables.
pub trait Source {
    /// Returns the value, if one is set.
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
    /// The values of flags, by the names of their variables.
    pub flags: BTreeMap<String, String>,
    /// The values of the environment, none of them empty.
    pub environment: BTreeMap<String, String>,
}

impl Source for Layered {
    fn get(&self, name: &str) -> Option<String> {
        self.flags.get(name).or_else(|| self.environment.get(name)).cloned()
    }
}

/// Returns the variables of this process that concern the retriever. Bytes that are not UTF-8 become
/// replacement characters, which a check of the value refuses if it matters.
pub fn environment() -> BTreeMap<String, String> {
    concerning(std::env::vars_os())
}

/// Keeps the variables of the retriever. An empty variable counts as not set, because compose files
/// pass unset variables on as empty ones.
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
        let concerning = concerning(variables.map(|(name, value)| (name.into(), value.into())));
        let expected = [("RETRIEVER_INDEX", "i"), ("RETRIEVER_LOG", " ")];
        assert_eq!(concerning, BTreeMap::from(expected.map(|(n, v)| (n.to_owned(), v.to_owned()))));
    }
}
