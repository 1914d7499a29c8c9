//! Records and notes in the messages of Milvus.

use std::fmt::Display;

use prost::Message;
use serde_json::{Map, Value, json};

use super::super::{EngineError, Note, Record, fields};
use super::wire::{self, DataType, FieldData, FieldSchema, FieldValues, Pair, ScalarData};
use crate::query::Answer;

/// The key of the note among the properties of a collection.
pub(super) const NOTE: &str = "retriever_note";
/// The fields of a record: title, text and address are in one field, as JSON.
pub(super) const EXTRA: &str = "extra";
pub(super) const VECTOR: &str = "vector";
/// The longest identifier and the longest text; the latter is the limit of Milvus.
const MAX_ID_BYTES: usize = 512;
const MAX_TEXT_BYTES: usize = 65_535;

/// Returns the encoded schema of a collection.
pub(super) fn schema(name: String, dimension: usize) -> Vec<u8> {
    let text = |name: &str, key: bool, bytes: usize| FieldSchema {
        name: name.to_owned(),
        is_primary_key: key,
        data_type: DataType::VarChar.into(),
        type_params: vec![pair("max_length", bytes)],
        ..FieldSchema::default()
    };
    let vector = FieldSchema {
        name: VECTOR.to_owned(),
        data_type: DataType::FloatVector.into(),
        type_params: vec![pair("dim", dimension)],
        ..FieldSchema::default()
    };
    let mut fields = vec![
        text(fields::ID, true, MAX_ID_BYTES),
        text(fields::CONTENTS, false, MAX_TEXT_BYTES),
        text(EXTRA, false, MAX_TEXT_BYTES),
        vector,
    ];
    for (field, id) in fields.iter_mut().zip(100..) {
        field.field_id = id;
    }
    wire::CollectionSchema { name, fields }.encode_to_vec()
}

pub(super) fn hit(id: &str, contents: &str, extra: &str, score: f32) -> Result<Answer, String> {
    let mut record: Map<String, Value> = match extra {
        "" => Map::new(),
        extra => serde_json::from_str(extra).map_err(|error| format!("{EXTRA:?}: {error}"))?,
    };
    record.insert(fields::CONTENTS.to_owned(), json!(contents));
    let passage = fields::passage(Some(id), &Value::Object(record))?;
    Ok(Answer { passage, score: fields::score(&json!(score))? })
}

/// Returns the property with a note.
pub(super) fn noted(note: &Note) -> Pair {
    pair(NOTE, serde_json::to_string(note).expect("a note has no map with odd keys"))
}

pub(super) fn pair(key: &str, value: impl Display) -> Pair {
    Pair { key: key.to_owned(), value: format!("{value}") }
}

pub(super) fn texts(name: &str, data: Vec<String>) -> FieldData {
    let data = Some(ScalarData::Strings(wire::StringArray { data }));
    FieldData {
        data_type: DataType::VarChar.into(),
        field_name: name.to_owned(),
        values: Some(FieldValues::Scalars(wire::Scalars { data })),
    }
}

/// Returns the fields that a passage may have besides its contents, as JSON; nothing if it has none.
pub(super) fn extra(record: &Record) -> String {
    let set = fields::optional(&record.passage).into_iter();
    let set: Map<String, Value> =
        set.filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))).collect();
    if set.is_empty() { String::new() } else { Value::Object(set).to_string() }
}

/// Checks that Milvus takes the texts of a record.
pub(super) fn check(record: &Record) -> Result<(), EngineError> {
    let passage = &record.passage;
    let extra = extra(record).len();
    let lengths = [
        ("identifier", passage.id.len(), MAX_ID_BYTES),
        ("contents", passage.contents.len(), MAX_TEXT_BYTES),
        ("title, text and url", extra, MAX_TEXT_BYTES),
    ];
    match lengths.into_iter().find(|(_, bytes, limit)| bytes > limit) {
        None => Ok(()),
        Some((name, bytes, limit)) => {
            let id: String = passage.id.chars().take(40).collect();
            Err(EngineError::Unfit(format!(
                "the {name} of the passage {id:?} are {bytes} bytes, and Milvus stores at most {limit}"
            )))
        }
    }
}
