//! What answered the searches of a record: the index, the back end and their settings.

use serde_json::Value;
use shared::contract::client::Serving;
use shared::contract::digest::Digest;

/// Digits of an id that messages show.
const SHOWN_DIGITS: usize = 12;

/// A retriever as far as its answers depend on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The digest of `facts`.
    pub id: Digest,
    /// What the retriever says of itself; null if it says nothing.
    pub facts: Value,
}

impl Source {
    /// Returns the source with these facts.
    pub fn new(facts: Value) -> Self {
        Self { id: Digest::of_bytes(facts.to_string().as_bytes()), facts }
    }

    /// Returns the source of a retriever. Those that say nothing of themselves are all the same one.
    pub fn of(serving: Option<&Serving>) -> Self {
        Self::new(serving.map_or(Value::Null, Serving::facts))
    }

    /// Returns the beginning of the id.
    pub fn short_id(&self) -> String {
        self.id.to_string()[..SHOWN_DIGITS].to_owned()
    }

    /// Returns the source for messages: its id, its back end and its index.
    pub fn in_words(&self) -> String {
        let id = self.short_id();
        match (self.facts["backend"].as_str(), self.facts["index_digest"].as_str()) {
            (Some(backend), Some(index)) => format!("{id} (back end {backend}, index {index})"),
            (Some(backend), None) => format!("{id} (back end {backend})"),
            (None, _) => format!("{id} (a retriever that does not say what it serves)"),
        }
    }
}
