//! The variables of an engine of another machine.

use std::fs;
use std::path::Path;

use super::reader::{FaultNoted, Reader, path};
use super::variables as var;
use crate::engine::config::Address;
use crate::engine::{EngineConfig, EngineKind};
use crate::upstream::secret::Secret;

/// The most characters of a collection's name: PostgreSQL cuts names at 63 bytes.
const MAX_NAME_CHARS: usize = 60;

impl Reader<'_> {
    /// Reads the settings of an engine. Its address and key may be secret, so messages do not repeat them.
    pub(super) fn engine(&mut self, kind: EngineKind) -> Result<EngineConfig, FaultNoted> {
        let url = self.engine_url(kind);
        let collection = self.take(&var::ENGINE_COLLECTION, |name| collection(kind, name));
        let ef = self.count(&var::HNSW_EF);
        let key = self.engine_key();
        Ok(EngineConfig { kind, url: url?, collection: collection?, key: key?, ef: ef? })
    }

    fn engine_url(&mut self, kind: EngineKind) -> Result<Address, FaultNoted> {
        let schemes = kind.schemes().join(" or ");
        let accepts = format!("an address of {} that begins with {schemes}://", kind.name());
        let Some(text) = self.get(&var::ENGINE_URL) else {
            return Err(self.note(&var::ENGINE_URL, None, accepts));
        };
        Address::parse(kind, &text).map_err(|reason| {
            self.note_problem(&var::ENGINE_URL, "(hidden)".to_owned(), reason, accepts)
        })
    }

    fn engine_key(&mut self) -> Result<Option<Secret>, FaultNoted> {
        let key = self.get(&var::ENGINE_KEY);
        let file = self.take_optional(&var::ENGINE_KEY_FILE, |text| path(text).map(Some))?;
        match (key, file) {
            (Some(_), Some(file)) => {
                let accepts = "either this or RETRIEVER_ENGINE_KEY, not both".to_owned();
                let shown = file.display().to_string();
                Err(self.note(&var::ENGINE_KEY_FILE, Some(shown), accepts))
            }
            (Some(key), None) => Ok(Secret::new(&key)),
            (None, Some(file)) => read_key(&file).map(Some).map_err(|problem| {
                let (shown, accepts) =
                    (file.display().to_string(), "a file with one key".to_owned());
                self.note_problem(&var::ENGINE_KEY_FILE, shown, problem, accepts)
            }),
            (None, None) => Ok(None),
        }
    }
}

fn read_key(file: &Path) -> Result<Secret, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("it cannot be read: {error}"))?;
    Secret::new(&text).ok_or_else(|| "it is empty".to_owned())
}

/// Accepts names that every engine of the kind accepts.
fn collection(kind: EngineKind, name: &str) -> Option<String> {
    let fits = |letter: char| {
        letter.is_ascii_alphanumeric()
            || letter == '_'
            || (kind.has_dashes() && "-.".contains(letter))
    };
    let is_named = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.len() <= MAX_NAME_CHARS
        && name.chars().all(fits);
    is_named.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(values: &[(&str, &str)]) -> Result<EngineConfig, String> {
        let source: BTreeMap<String, String> =
            values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut vars = Reader::new(&source);
        let engine = vars.engine(EngineKind::Pgvector);
        vars.finish(engine).map_err(|error| error.to_string())
    }

    #[test]
    fn messages_name_the_variable_and_keep_its_secret() {
        let url = ("RETRIEVER_ENGINE_URL", "postgres://u:hunter2@host/db");
        let config = read(&[url, ("RETRIEVER_ENGINE_KEY", "hunter3")]).unwrap();
        assert_eq!(config.collection, "passages");
        assert!(!format!("{config:?}").contains("hunter"));
        for (values, expected) in [
            (
                vec![],
                "RETRIEVER_ENGINE_URL (--engine-url) is not set: expected an address of pgvector",
            ),
            (
                vec![("RETRIEVER_ENGINE_URL", "http://u:hunter2@host")],
                "RETRIEVER_ENGINE_URL (--engine-url) is \"(hidden)\", but its scheme is \"http\"",
            ),
            (
                vec![url, ("RETRIEVER_ENGINE_KEY_FILE", "/nowhere/key")],
                "RETRIEVER_ENGINE_KEY_FILE (--engine-key-file) is \"/nowhere/key\", but it cannot be read",
            ),
            (
                vec![
                    url,
                    ("RETRIEVER_ENGINE_KEY_FILE", "/nowhere/key"),
                    ("RETRIEVER_ENGINE_KEY", "hunter3"),
                ],
                "expected either this or RETRIEVER_ENGINE_KEY, not both",
            ),
            (
                vec![url, ("RETRIEVER_ENGINE_COLLECTION", "a b")],
                "RETRIEVER_ENGINE_COLLECTION (--engine-collection) is \"a b\": expected a name",
            ),
        ] {
            let message = read(&values).unwrap_err();
            assert!(message.contains(expected) && !message.contains("hunter"), "{message}");
        }
    }

    #[test]
    fn a_key_is_read_from_a_file_without_its_line_break() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "hunter4\n").unwrap();
        let values = [
            ("RETRIEVER_ENGINE_URL", "postgres://host/db"),
            ("RETRIEVER_ENGINE_KEY_FILE", file.path().to_str().unwrap()),
        ];
        assert_eq!(read(&values).unwrap().key, Secret::new("hunter4"));
        fs::write(file.path(), "\n").unwrap();
        assert!(read(&values).unwrap_err().contains("but it is empty"));
    }
}
