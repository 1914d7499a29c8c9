//! Engines of other machines that hold a corpus: what each of them is asked, and what it answers. An engine
//! is loaded from an index ([`load`]) and then searched; nothing here knows requests of clients.
//!
//! In reading order: their names and settings ([`config`]), why one fails ([`error`]), what all of them do
//! ([`Engine`]), and what engines with an HTTP interface share (`http`). Then one file for each protocol,
//! repeated requests (`patience`), and the loader.
//!
//! **Invariant:** a failed search is an error, never an empty list. An answer that is not understood, or that
//! only some shards gave, is a failure.

pub mod config;
pub mod error;
mod http;
mod fields;
mod pgvector;
mod chroma;
mod qdrant;
mod milvus;
mod search_api;
pub mod patience;
pub mod load;

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::contract::digest::Digest;
use shared::contract::passage::Passage;

use crate::query::Answer;
pub use config::{EngineConfig, EngineKind};
pub use error::EngineError;

/// The outcome of a request to an engine, as a future.
pub type EngineFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, EngineError>> + Send + 'a>>;

/// The passages of each query, in order, or the reasons why there are none.
pub type EngineAnswers = Vec<Result<Vec<Answer>, EngineError>>;

/// The outcome of a search, as a future.
pub type AnswersFuture<'a> = Pin<Box<dyn Future<Output = EngineAnswers> + Send + 'a>>;

/// The origin of a collection, which is stored with it: queries of another encoder would find nonsense in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The program that made the collection, and its version.
    pub writer: String,
    /// The digest of the index that it is loaded from.
    pub index: Digest,
    /// The number of passages in that index.
    pub passage_count: u64,
    /// The digest of the encoder; `None` for an engine that searches words.
    pub encoder: Option<Digest>,
    /// The number of components of a vector; 0 for an engine that searches words.
    pub dimension: usize,
    /// A number that was drawn when the collection was made. A load resumes only in the same collection.
    pub load: u64,
    /// `true` once all passages are loaded.
    pub complete: bool,
}

impl Note {
    /// Returns `true` if the other collection is made of the same passages and vectors.
    pub fn has_origin_of(&self, other: &Self) -> bool {
        (self.index, self.encoder, self.dimension, self.passage_count)
            == (other.index, other.encoder, other.dimension, other.passage_count)
    }
}

/// The collection that was found under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is none.
    Nothing,
    /// It was not made by this program, so it says nothing about its origin.
    Foreign,
    /// It was loaded by this program.
    Ours(Note),
}

/// A passage with its vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The passage.
    pub passage: Passage,
    /// Its vector; empty for an engine that searches words.
    pub vector: Vec<f32>,
}

/// Queries of one request.
#[derive(Clone, Copy, Debug)]
pub enum Queries<'a> {
    /// Texts, for an engine that searches words.
    Words(&'a [String]),
    /// Vectors of equal length.
    Vectors(&'a [Vec<f32>]),
}

impl<'a> Queries<'a> {
    /// Returns the vectors, for an engine that searches them.
    fn vectors(self, kind: EngineKind) -> Result<&'a [Vec<f32>], EngineError> {
        match self {
            Self::Vectors(vectors) => Ok(vectors),
            Self::Words(_) => {
                Err(EngineError::Unfit(format!("{} searches vectors, not words", kind.name())))
            }
        }
    }

    /// Returns the number of queries.
    pub fn len(&self) -> usize {
        match self {
            Self::Words(texts) => texts.len(),
            Self::Vectors(vectors) => vectors.len(),
        }
    }

    /// Returns `true` if there are no queries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The size and the time limit of a search.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// The most passages of a query.
    pub top_k: usize,
    /// The number of candidates that a search along a graph keeps.
    pub ef: usize,
    /// The time after which nobody waits for the answer.
    pub limit: Duration,
}

/// An engine with one collection.
pub trait Engine: Debug + Send + Sync {
    /// Returns the collection's note.
    fn find(&self) -> EngineFuture<'_, Found>;

    /// Makes an empty collection, with a note in it.
    fn create<'a>(&'a self, note: &'a Note) -> EngineFuture<'a, ()>;

    /// Removes the collection with all its passages.
    fn remove(&self) -> EngineFuture<'_, ()>;

    /// Stores records. A record whose passage is stored already replaces it, so that a request may be repeated.
    fn insert<'a>(&'a self, records: &'a [Record]) -> EngineFuture<'a, ()>;

    /// Makes everything that was stored searchable, and returns the number of stored passages.
    fn settle<'a>(&'a self, note: &'a Note) -> EngineFuture<'a, u64>;

    /// Replaces the note of the collection.
    fn annotate<'a>(&'a self, note: &'a Note) -> EngineFuture<'a, ()>;

    /// Answers every query, in order.
    fn search<'a>(&'a self, queries: Queries<'a>, search: Search) -> AnswersFuture<'a>;
}

/// Opens the engine of a configuration. It is not asked anything yet.
pub fn open(config: &EngineConfig) -> Result<Arc<dyn Engine>, EngineError> {
    match config.kind {
        EngineKind::Pgvector => Ok(Arc::new(pgvector::Pgvector::open(config)?)),
        EngineKind::Chroma => Ok(Arc::new(chroma::Chroma::open(config)?)),
        EngineKind::Milvus => Ok(Arc::new(milvus::Milvus::open(config)?)),
        EngineKind::Qdrant => Ok(Arc::new(qdrant::Qdrant::open(config)?)),
        EngineKind::OpenSearch | EngineKind::Elasticsearch | EngineKind::Quickwit => {
            Ok(Arc::new(search_api::SearchApi::open(config)?))
        }
    }
}

/// Checks that a collection was loaded to its end, from passages and with vectors that fit. Returns its note;
/// `None` for a collection of another program, whose vectors nobody can vouch for.
pub async fn inspect(
    engine: &dyn Engine,
    config: &EngineConfig,
    encoder: Option<(Digest, usize)>,
) -> Result<Option<Note>, EngineError> {
    let note = match engine.find().await? {
        Found::Nothing => return Err(config.missing()),
        Found::Foreign => return Ok(None),
        Found::Ours(note) => note,
    };
    let collection = config.collection.clone();
    if !note.complete {
        return Err(EngineError::Incomplete { collection, engine: config.kind.name() });
    }
    match encoder {
        Some((digest, dimension)) if note.encoder != Some(digest) => {
            let found = match note.encoder {
                Some(digest) => format!("{} components by the encoder {digest}", note.dimension),
                None => "no vectors".to_owned(),
            };
            let expected = format!("{dimension} components by the encoder {digest}");
            Err(EngineError::OtherVectors { collection, found, expected })
        }
        _ => Ok(Some(note)),
    }
}
