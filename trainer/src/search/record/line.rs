//! The lines of a record. Each is one JSON object with one key, its kind.
//!
//! A passage is written once, under its digest; an answer names its passages by their digests. A line refers only to
//! lines before it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::contract::digest::Digest;

use super::source::Source;
use crate::search::Passage;

/// The version of the format that this program writes, and the only one that it reads.
pub(super) const VERSION: u32 = 1;

/// A line of a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// The first line: the version of the format.
    SearchRecord(u32),
    /// A retriever that later lines name.
    Source { id: Digest, facts: Value },
    /// A passage that later lines name.
    Passage { id: Digest, passage: Passage },
    /// The passages of a query, best first.
    Answer { id: Digest, source: Digest, top_k: usize, query: String, passages: Vec<Digest> },
}

/// A query to a source: all that an answer depends on.
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    pub source: &'q Source,
    pub top_k: usize,
    pub query: &'q str,
}

impl Question<'_> {
    /// Returns the digest under which the answer is kept.
    pub(super) fn id(self) -> Digest {
        question_id(self.source.id, self.top_k, self.query)
    }
}

fn question_id(source: Digest, top_k: usize, query: &str) -> Digest {
    digest_of(&(source, top_k, query))
}

/// Returns the digest of a passage with all of its fields.
pub(super) fn passage_id(passage: &Passage) -> Digest {
    digest_of(passage)
}

fn digest_of(value: &impl Serialize) -> Digest {
    let text = serde_json::to_vec(value).expect("texts and numbers can be written as JSON");
    Digest::of_bytes(&text)
}

impl Line {
    /// Returns the line with its line break.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("texts and numbers can be written as JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Reads a line without its line break, and compares its id with its content.
    ///
    /// # Errors
    /// The fault of the line.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let line: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let (id, content) = match &line {
            Self::SearchRecord(_) => return Ok(line),
            Self::Source { id, facts } => (*id, Source::new(facts.clone()).id),
            Self::Passage { id, passage } => (*id, passage_id(passage)),
            Self::Answer { id, source, top_k, query, .. } => {
                (*id, question_id(*source, *top_k, query))
            }
        };
        if id == content {
            Ok(line)
        } else {
            Err(format!("its content has the digest {content}, and its id is {id}"))
        }
    }
}
