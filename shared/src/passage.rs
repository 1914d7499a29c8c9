//! A passage: the unit that is indexed, retrieved and shown to the policy. This module owns its
//! fields and how a title is told from the text; how a passage is rendered into a prompt belongs
//! to the trainer.

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

/// One passage of a corpus, as it travels on the wire.
///
/// `contents` is what is searched and shown. Its first line is the title by the convention of
/// Search-R1 corpora (`"Title"\nText`). The optional fields are kept where the corpus has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Identifier, unique in its corpus. Some servers leave it out; it is empty then.
    #[serde(default, deserialize_with = "string_or_integer")]
    pub id: String,
    /// Title line and text.
    pub contents: String,
    /// Title alone, where the corpus stores it apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Text alone, where the corpus stores it apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Address of the page that the passage was taken from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl Passage {
    /// A passage without the optional fields.
    pub fn new(id: impl Into<String>, contents: impl Into<String>) -> Self {
        Self { id: id.into(), contents: contents.into(), ..Self::default() }
    }

    /// The first line of `contents`, and all that follows it. A passage of one line has a title
    /// and no text, which is how Search-R1 reads it too.
    pub fn title_and_text(&self) -> (&str, &str) {
        self.contents.split_once('\n').unwrap_or((&self.contents, ""))
    }
}

/// Accepts `"17"` and `17`: corpora in use have both, and the first is what goes out.
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
