//! Passages: the unit that is indexed, retrieved and shown to the policy. This module owns their fields and the
//! division into title and text. The trainer renders passages into prompts.
//!
//! It also reads passages from the rows of corpora as they are published: Search-R1's and FlashRAG's
//! (`id`, `contents`), BEIR's (`_id`, `title`, `text`), DPR's (`id`, `text`, `title`), MS MARCO's (without names) and
//! KILT's (`_id`, `wikipedia_title`, `text` as a list of paragraphs).

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::rows::{Row, RowsError, kind_of};

/// A passage of a corpus, as it is sent on the wire.
///
/// `contents` is searched and shown. Its first line is the title, by the convention of Search-R1's corpora
/// (`"Title"\nText`). The optional fields are kept if the corpus has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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

    /// Reads a passage from a row of a corpus.
    ///
    /// `contents` counts if it is there. Otherwise, the contents are the title in quotes, a line break and the text, as in
    /// Search-R1's corpora, or the text alone if there is no title. Keys of the wrong type are an error only where they
    /// are needed.
    ///
    /// # Errors
    /// The row, with the key that is missing or wrong.
    pub fn from_row(row: &Row) -> Result<Self, RowsError> {
        Self::from_fields(&row.fields).map_err(|reason| row.fault(reason))
    }

    fn from_fields(fields: &Map<String, Value>) -> Result<Self, String> {
        let id = id(fields)?;
        let kept = |key: &str| fields.get(key).and_then(Value::as_str).map(str::to_owned);
        let url = kept("url");
        let contents = match fields.get("contents") {
            Some(Value::String(contents)) => {
                let (title, text) = (kept("title"), kept("text"));
                return Ok(Self { id, contents: contents.clone(), title, text, url });
            }
            Some(Value::Null) | None => from_parts(fields)?,
            Some(other) => {
                return Err(format!("contents is {}, expected a string", kind_of(other)));
            }
        };
        Ok(Self { url, ..Self::new(id, contents) })
    }

    /// Returns the contents of a document: those it has, or those that its title and text make, as in a corpus.
    pub fn contents_of(document: &Value) -> Option<String> {
        let fields = document.as_object()?;
        match fields.get("contents") {
            Some(Value::String(contents)) => Some(contents.clone()),
            Some(Value::Null) | None => from_parts(fields).ok(),
            Some(_) => None,
        }
    }

    /// Returns the first line of `contents` and the rest. A passage of one line has a title and no text, as in
    /// Search-R1.
    pub fn title_and_text(&self) -> (&str, &str) {
        self.contents.split_once('\n').unwrap_or((&self.contents, ""))
    }
}

/// Keys that may hold the identifier, the title and the text, in order of precedence.
const ID_KEYS: [&str; 10] = [
    "id",
    "_id",
    "docid",
    "doc_id",
    "doc-id",
    "docno",
    "pid",
    "passage_id",
    "document_id",
    "corpus_id",
];
const TITLE_KEYS: [&str; 2] = ["title", "wikipedia_title"];
const TEXT_KEYS: [&str; 6] = ["text", "passage", "passage_text", "content", "body", "segment"];

/// Returns the first of the keys that is there and not null.
fn first<'a>(
    fields: &'a Map<String, Value>,
    keys: &[&'static str],
) -> Option<(&'static str, &'a Value)> {
    let mut present = keys.iter().filter_map(|&key| Some((key, fields.get(key)?)));
    present.find(|(_, value)| !value.is_null())
}

/// Returns the identifier. Numbers and truth values become text, as in Anserini.
fn id(fields: &Map<String, Value>) -> Result<String, String> {
    match first(fields, &ID_KEYS) {
        Some((_, Value::String(id))) if !id.is_empty() => Ok(id.clone()),
        Some((_, id @ (Value::Number(_) | Value::Bool(_)))) => Ok(id.to_string()),
        Some((key, Value::String(_))) => Err(format!("{key} is empty")),
        Some((key, other)) => Err(format!("{key} is {}, expected a string", kind_of(other))),
        // A key with null is there, but holds nothing.
        None => Err(match ID_KEYS.iter().find(|key| fields.contains_key(**key)) {
            Some(key) => format!("{key} is null, expected a string"),
            None => format!("id is missing, expected one of {}", ID_KEYS.join(", ")),
        }),
    }
}

/// Makes the contents from title and text.
fn from_parts(fields: &Map<String, Value>) -> Result<String, String> {
    let title = match first(fields, &TITLE_KEYS) {
        Some((_, Value::String(title))) => title.trim(),
        Some((key, other)) => {
            return Err(format!("{key} is {}, expected a string", kind_of(other)));
        }
        None => "",
    };
    let text = match first(fields, &TEXT_KEYS) {
        Some((_, Value::String(text))) => text.clone(),
        Some((key, Value::Array(parts))) => paragraphs(parts, title).ok_or_else(|| {
            format!("{key} is a list of more than strings, expected a string or a list of strings")
        })?,
        Some((key, other)) => {
            return Err(format!("{key} is {}, expected a string", kind_of(other)));
        }
        None if fields.get("contents").is_some_and(Value::is_null) => {
            return Err("contents is null, expected a string".to_owned());
        }
        None => return Err("contents is missing, expected contents, or title and text".to_owned()),
    };
    Ok(if title.is_empty() { text } else { format!("\"{title}\"\n{text}") })
}

/// Joins paragraphs. In KILT, the first one repeats the title, and each ends in a line break.
fn paragraphs(parts: &[Value], title: &str) -> Option<String> {
    let mut parts: Vec<&str> = parts
        .iter()
        .map(|part| part.as_str().map(|text| text.trim_end_matches('\n')))
        .collect::<Option<_>>()?;
    if !title.is_empty() && parts.first().is_some_and(|first| first.trim() == title) {
        parts.remove(0);
    }
    Some(parts.join("\n"))
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
    use serde_json::json;

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

    fn read(row: Value) -> Result<Passage, String> {
        let Value::Object(fields) = row else { panic!("not an object") };
        Passage::from_fields(&fields)
    }

    #[test]
    fn rows_of_published_corpora_become_passages() {
        let contents =
            |row: Value| read(row).map(|passage| (passage.id, passage.contents)).unwrap();
        let expected = |id: &str, contents: &str| (id.to_owned(), contents.to_owned());
        let lima = "\"Lima\"\nLima is the capital.";
        for (row, passage) in [
            (json!({"id": "0", "contents": lima}), expected("0", lima)),
            (
                json!({"id": "a", "title": "Lima", "text": "Lima is the capital."}),
                expected("a", lima),
            ),
            (
                json!({"_id": "b", "title": "", "text": "No title.", "metadata": {"url": 1}}),
                expected("b", "No title."),
            ),
            (json!({"id": 7, "contents": ""}), expected("7", "")),
            (json!({"id": 7.5, "contents": "x"}), expected("7.5", "x")),
            (json!({"id": true, "contents": "x"}), expected("true", "x")),
            (
                json!({"_id": "290", "wikipedia_id": "290", "wikipedia_title": "A",
                       "text": ["A\n", "A is a letter.\n", "Section::::History.\n"], "anchors": [{}]}),
                expected("290", "\"A\"\nA is a letter.\nSection::::History."),
            ),
            (json!({"docid": "d", "passage": "x", "id": null}), expected("d", "x")),
            (json!({"passage_id": 3, "passage_text": "x"}), expected("3", "x")),
            (json!({"corpus_id": "c", "text": "x"}), expected("c", "x")),
            (json!({"id": "1", "contents": null, "text": "x"}), expected("1", "x")),
        ] {
            assert_eq!(contents(row.clone()), passage, "{row}");
        }
    }

    #[test]
    fn unused_keys_may_have_any_type() {
        let row = json!({"id": "1", "contents": "x", "title": 7, "text": ["a"], "url": {"u": 1}});
        assert_eq!(read(row).unwrap(), Passage::new("1", "x"));
        let row = json!({"id": "1", "contents": "x", "title": "t", "text": "y", "url": "u"});
        let kept = Passage {
            title: Some("t".to_owned()),
            text: Some("y".to_owned()),
            url: Some("u".to_owned()),
            ..Passage::new("1", "x")
        };
        assert_eq!(read(row).unwrap(), kept);
    }

    #[test]
    fn keys_that_are_needed_are_named() {
        for (row, expected) in [
            (json!({"id": "1"}), "contents is missing, expected contents, or title and text"),
            (
                json!({"id": "1", "title": "t"}),
                "contents is missing, expected contents, or title and",
            ),
            (json!({"id": "1", "contents": null}), "contents is null, expected a string"),
            (json!({"id": "1", "contents": ["x"]}), "contents is a list, expected a string"),
            (json!({"contents": "x"}), "id is missing, expected one of id, _id, docid, doc_id"),
            (json!({"id": "", "contents": "x"}), "id is empty"),
            (json!({"_id": ["1"], "text": "x"}), "_id is a list, expected a string"),
            (json!({"id": "1", "text": 7}), "text is a number, expected a string"),
            (json!({"id": "1", "text": [7]}), "text is a list of more than strings"),
            (json!({"id": "1", "title": 7, "text": "x"}), "title is a number, expected a string"),
        ] {
            let error = read(row.clone()).unwrap_err();
            assert!(error.starts_with(expected), "{row}: {error}");
        }
    }
}
