//! Passages: the unit that is indexed, retrieved and shown to the policy. This module owns their fields and the
//! division into title and text. The trainer renders passages into prompts.

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

/// A passage of a corpus, as it is sent on the wire.
///
/// `contents` is searched and shown. Its first line is the title, by the convention of Search-R1's corpora
/// (`"Title"\nText`). The optional fields are kept if the corpus has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Identifier, unique in its corpus; empty if a server leaves it out.
    #[serde(default, deserialize_with = "string_or_integer")]
    pub id: String,
    /// Title line and text.
    pub contents: String,
    /// The title, if the corpus stores it separately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The text, if the corpus stores it separately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Address of the page that the passage comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl Passage {
    /// Makes a passage without the optional fields.
    pub fn new(id: impl Into<String>, contents: impl Into<String>) -> Self {
        Self { id: id.into(), contents: contents.into(), ..Self::default() }
    }

    /// Returns the first line of `contents` and the rest. A passage of one line has a title and no text, as in
    /// Search-R1.
    pub fn title_and_text(&self) -> (&str, &str) {
        self.contents.split_once('\n').unwrap_or((&self.contents, ""))
    }
}

/// Accepts `"17"` and `17`, because existing corpora have both. The first form is written.
fn string_or_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Id;
    impl Visitor<'_> for Id {
        type Value = String;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a string or an integer")
        }

        fn visit_str<E: de::Error>(self, value: &str) -> Result<String, E> {
            Ok(value.to_owned())
        }

        fn visit_string<E: de::Error>(self, value: String) -> Result<String, E> {
            Ok(value)
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<String, E> {
            Ok(value.to_string())
        }

        fn visit_i64<E: de::Error>(self, value: i64) -> Result<String, E> {
            Ok(value.to_string())
        }
    }
    deserializer.deserialize_any(Id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passage(json: &str) -> Passage {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn title_is_the_first_line() {
        let two_lines = passage(r#"{"id":"1","contents":"\"Oslo\"\nA city.\nIn Norway."}"#);
        assert_eq!(two_lines.title_and_text(), ("\"Oslo\"", "A city.\nIn Norway."));
        assert_eq!(passage(r#"{"id":"1","contents":"Oslo"}"#).title_and_text(), ("Oslo", ""));
    }

    #[test]
    fn integer_ids_become_strings_and_absent_fields_stay_absent() {
        let passage = passage(r#"{"id":7,"contents":"x"}"#);
        assert_eq!(serde_json::to_string(&passage).unwrap(), r#"{"id":"7","contents":"x"}"#);
    }
}
