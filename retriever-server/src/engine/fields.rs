//! Passages as the fields of a record, which engines store next to its vector.

use serde_json::{Map, Value};
use shared::contract::passage::Passage;

/// The names of the fields besides the identifier.
pub(super) const CONTENTS: &str = "contents";
pub(super) const TITLE: &str = "title";
pub(super) const TEXT: &str = "text";
pub(super) const URL: &str = "url";
/// The name of the identifier, where an engine has no place of its own for it.
pub(super) const ID: &str = "id";

/// Returns the fields that a corpus may leave out, with their values.
pub(super) fn optional(passage: &Passage) -> [(&'static str, Option<&str>); 3] {
    [
        (TITLE, passage.title.as_deref()),
        (TEXT, passage.text.as_deref()),
        (URL, passage.url.as_deref()),
    ]
}

/// Returns identifier, contents and what else the passage has.
pub(super) fn of(passage: &Passage) -> Map<String, Value> {
    let required = [(ID, Some(passage.id.as_str())), (CONTENTS, Some(passage.contents.as_str()))];
    let fields = required.into_iter().chain(optional(passage));
    fields.filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?)))).collect()
}

/// Reads a passage from its fields. `id` is the identifier, where the engine has a place of its own for it.
pub(super) fn passage(id: Option<&str>, fields: &Value) -> Result<Passage, String> {
    let field = |name: &str| fields[name].as_str().map(str::to_owned);
    let contents = field(CONTENTS).ok_or_else(|| {
        format!("a hit has no text {CONTENTS:?}; its fields are {}", names(fields))
    })?;
    // Collections of other programs name their records in many ways; `/retrieve` does without a name.
    let id = id.map(str::to_owned).or_else(|| field(ID)).unwrap_or_default();
    Ok(Passage { id, contents, title: field(TITLE), text: field(TEXT), url: field(URL) })
}

/// Lists the names of fields, for a message.
fn names(fields: &Value) -> String {
    match fields.as_object() {
        Some(map) if !map.is_empty() => map.keys().cloned().collect::<Vec<_>>().join(", "),
        _ => "none".to_owned(),
    }
}

/// Reads a score, which must be a finite number: a rank by anything else would be as good as none.
pub(super) fn score(value: &Value) -> Result<f32, String> {
    let score = value.as_f64().map(|score| score as f32).filter(|score| score.is_finite());
    score.ok_or_else(|| format!("a hit has the score {value}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_passage_survives_its_fields() {
        let whole = Passage {
            title: Some("Oslo".to_owned()),
            text: Some("A city.".to_owned()),
            url: Some("https://example.org/oslo".to_owned()),
            ..Passage::new("p1", "\"Oslo\"\nA city.")
        };
        for expected in [whole, Passage::new("p2", "no title")] {
            let fields = Value::Object(of(&expected));
            assert_eq!(passage(None, &fields).unwrap(), expected);
        }
        let named = passage(Some("p3"), &json!({"contents": "text"})).unwrap();
        assert_eq!(named, Passage::new("p3", "text"));
    }

    #[test]
    fn a_hit_without_text_or_score_is_an_error() {
        let reason = passage(Some("p"), &json!({"body": "x", "lang": "en"})).unwrap_err();
        assert_eq!(reason, "a hit has no text \"contents\"; its fields are body, lang");
        assert_eq!(score(&json!(1.5)), Ok(1.5));
        for bad in [json!(null), json!("1"), json!(1e300)] {
            assert!(score(&bad).is_err(), "{bad}");
        }
    }
}
