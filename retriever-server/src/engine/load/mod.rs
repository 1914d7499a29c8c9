//! Loads the passages of an index, and their vectors, into an engine.
//!
//! Batches travel concurrently, as many and as large as the engine takes (`pace`). What is stored for certain
//! is noted next to the index (`bookmark`), so that a load that was killed goes on where it was; batches in
//! flight at that moment are sent again, which replaces equal records by equal ones. A collection of other
//! passages or of another encoder is replaced on request only.

mod bookmark;
mod pace;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use shared::contract::digest::Digest;
use thiserror::Error;
use tracing::warn;

use super::patience::Patience;
use super::{Engine, EngineConfig, EngineError, Found, Note, Record};
use crate::corpus::store::{PassageStore, StoreError};
use crate::index::IndexError;
use crate::index::progress::Progress;
use crate::vector::Rows;
use bookmark::Bookmark;
use pace::Pace;

/// Longest time to store one batch, with all attempts. An engine may be restarted meanwhile.
const BATCH_LIMIT: Duration = Duration::from_mins(10);
/// Longest time for one attempt to store a batch.
const ATTEMPT_LIMIT: Duration = Duration::from_mins(2);
/// Longest time to build an index over everything that was stored.
const SETTLE_LIMIT: Duration = Duration::from_hours(24 * 7);
/// The most bytes of passages and vectors in a batch. Engines take from 10 MB on in a request; JSON writes a
/// number of a vector in about 12 bytes.
const BATCH_BYTES: usize = 4 << 20;

/// A load failed.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The engine failed. What was stored before is noted.
    #[error(
        "{error}; {stored} of {total} passages are stored, and the same command goes on from there"
    )]
    Engine {
        /// The reason.
        error: EngineError,
        /// The number of passages that are stored for certain.
        stored: u64,
        /// The number of all passages.
        total: u64,
    },
    /// There is a collection of that name already.
    #[error(
        "the collection {collection:?} exists and {reason}: set RETRIEVER_ENGINE_COLLECTION to another name, or \
         give --force to replace it"
    )]
    Occupied {
        /// The name of the collection.
        collection: String,
        /// The difference to the load.
        reason: String,
    },
    /// The engine lost what it had acknowledged.
    #[error(
        "the collection {collection:?} has {found} passages after {expected} were stored: the same command \
         sends all of them again"
    )]
    Lost {
        /// The name of the collection.
        collection: String,
        /// The number of passages in the engine.
        found: u64,
        /// The number of passages that it acknowledged.
        expected: u64,
    },
    /// The passages or vectors of the index cannot be read, or the progress cannot be noted.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A passage cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The records to load.
#[derive(Clone, Copy, Debug)]
pub struct LoadSource<'a> {
    /// Folder of the index.
    pub index: &'a Path,
    /// The digest of the index.
    pub digest: Digest,
    /// The passages of the index.
    pub passages: &'a PassageStore,
    /// Their vectors with the digest of the encoder; `None` for an engine that searches words.
    pub vectors: Option<(Rows<'a>, Digest)>,
}

impl LoadSource<'_> {
    fn note(&self) -> Note {
        Note {
            writer: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
            index: self.digest,
            passage_count: self.passages.len() as u64,
            encoder: self.vectors.as_ref().map(|(_, encoder)| *encoder),
            dimension: self.vectors.as_ref().map_or(0, |(rows, _)| rows.dimension()),
            load: bookmark::draw(),
            complete: false,
        }
    }

    fn record(&self, row: u64) -> Result<Record, LoadError> {
        let passage = self.passages.get(row as u32)?;
        let vector = self.vectors.as_ref().map_or_else(Vec::new, |(rows, _)| {
            let mut numbers = vec![0.0; rows.dimension()];
            rows.read_row(row as usize, &mut numbers);
            numbers
        });
        Ok(Record { passage, vector })
    }

    /// Returns the records from `first` on, at most `count` and at least one.
    fn batch(&self, first: u64, count: usize) -> Result<Vec<Record>, LoadError> {
        let last = (first + count as u64).min(self.passages.len() as u64);
        let (mut records, mut bytes) = (Vec::new(), 0);
        for row in first..last {
            let record = self.record(row)?;
            bytes += record.passage.contents.len() + size_of_val(&record.vector[..]);
            if bytes > BATCH_BYTES && !records.is_empty() {
                break;
            }
            records.push(record);
        }
        Ok(records)
    }
}

/// The result of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The number of passages in the collection.
    pub passage_count: u64,
    /// The number of passages that were stored before.
    pub stored_before: u64,
}

/// Loads an engine. With `force`, a collection of another origin is replaced.
pub async fn load(
    engine: &dyn Engine,
    config: &EngineConfig,
    source: LoadSource<'_>,
    force: bool,
    report: &mut dyn FnMut(Progress),
) -> Result<Loaded, LoadError> {
    let mut loading = Loading::begin(engine, config, source, force).await?;
    let passage_count = loading.note.passage_count;
    let stored_before = loading.bookmark.stored;
    if loading.note.complete {
        return Ok(Loaded { passage_count, stored_before: passage_count });
    }
    loading.send(report).await?;
    report(Progress::Settling);
    loading.end().await?;
    Ok(Loaded { passage_count, stored_before })
}

/// A load in progress.
struct Loading<'a> {
    engine: &'a dyn Engine,
    config: &'a EngineConfig,
    source: LoadSource<'a>,
    note: Note,
    bookmark: Bookmark,
}

impl<'a> Loading<'a> {
    /// Finds the collection, or makes it, and the place where the load goes on.
    async fn begin(
        engine: &'a dyn Engine,
        config: &'a EngineConfig,
        source: LoadSource<'a>,
        force: bool,
    ) -> Result<Self, LoadError> {
        let wanted = source.note();
        let total = wanted.passage_count;
        let failed = |error| LoadError::Engine { error, stored: 0, total };
        let patience = Patience::new(config, BATCH_LIMIT, ATTEMPT_LIMIT);
        let found = patience.ask(|_| engine.find()).await.map_err(failed)?;
        let reason = match &found {
            Found::Nothing => None,
            Found::Ours(note) if note.has_origin_of(&wanted) => None,
            Found::Foreign => Some("was not made by this program".to_owned()),
            Found::Ours(note) => Some(difference(note, &wanted)),
        };
        let note = match (found, reason) {
            (Found::Ours(note), None) => note,
            (_, Some(reason)) if !force => {
                let collection = config.collection.clone();
                return Err(LoadError::Occupied { collection, reason });
            }
            (_, replaced) => {
                if replaced.is_some() {
                    patience.ask(|_| engine.remove()).await.map_err(failed)?;
                }
                patience.ask(|_| engine.create(&wanted)).await.map_err(failed)?;
                wanted
            }
        };
        let bookmark = Bookmark::open(source.index, config, note.load, total)?;
        Ok(Self { engine, config, source, note, bookmark })
    }

    /// Sends every record that is not stored yet.
    async fn send(&mut self, report: &mut dyn FnMut(Progress)) -> Result<(), LoadError> {
        let (total, done_before) = (self.note.passage_count, self.bookmark.stored);
        let action = "stored in the engine";
        report(Progress::Rows { action, rows: done_before, total, done_before });
        let mut pace = Pace::default();
        let mut next = done_before;
        let mut flying = FuturesOrdered::new();
        loop {
            while next < total && flying.len() < pace.requests() {
                let records = Arc::new(self.source.batch(next, pace.records())?);
                next += records.len() as u64;
                flying.push_back(store(self.engine, self.config, records));
            }
            let Some(outcome) = flying.next().await else { break };
            let Stored { count, was_refused } = outcome.map_err(|error| self.failed(error))?;
            pace.note(was_refused);
            self.bookmark.advance(count as u64)?;
            report(Progress::Rows { action, rows: self.bookmark.stored, total, done_before });
        }
        Ok(())
    }

    /// Makes the collection searchable, counts it and marks it as complete.
    async fn end(mut self) -> Result<(), LoadError> {
        let expected = self.note.passage_count;
        let patience = Patience::new(self.config, SETTLE_LIMIT, SETTLE_LIMIT);
        let settled = patience.ask(|_| self.engine.settle(&self.note)).await;
        let found = settled.map_err(|error| self.failed(error))?;
        if found != expected {
            self.bookmark.reset()?;
            let collection = self.config.collection.clone();
            return Err(LoadError::Lost { collection, found, expected });
        }
        self.note.complete = true;
        let annotated = patience.ask(|_| self.engine.annotate(&self.note)).await;
        annotated.map_err(|error| self.failed(error))?;
        self.bookmark.remove()?;
        Ok(())
    }

    fn failed(&self, error: EngineError) -> LoadError {
        let (stored, total) = (self.bookmark.stored, self.note.passage_count);
        LoadError::Engine { error, stored, total }
    }
}

/// A batch that was stored.
struct Stored {
    count: usize,
    /// `true` if the engine asked for less.
    was_refused: bool,
}

/// Stores a batch. One that is too large for the engine is stored in halves.
async fn store(
    engine: &dyn Engine,
    config: &EngineConfig,
    records: Arc<Vec<Record>>,
) -> Result<Stored, EngineError> {
    let patience = Patience::new(config, BATCH_LIMIT, ATTEMPT_LIMIT);
    let (count, mut was_refused) = (records.len(), false);
    let mut parts = vec![&records[..]];
    while let Some(part) = parts.pop() {
        let mut attempts = 0;
        let insert = |_| {
            attempts += 1;
            engine.insert(part)
        };
        match patience.ask(insert).await {
            Err(EngineError::TooLarge { .. }) if part.len() > 1 => {
                warn!(records = part.len(), "the engine takes no batch as large as this one");
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
                was_refused = true;
            }
            outcome => outcome?,
        }
        was_refused |= attempts > 1;
    }
    Ok(Stored { count, was_refused })
}

/// Says how a collection differs from what is to be loaded.
fn difference(found: &Note, wanted: &Note) -> String {
    if found.index != wanted.index {
        format!("was loaded from another index, of {} passages", found.passage_count)
    } else if found.dimension != wanted.dimension {
        format!("has vectors of {} components, not {}", found.dimension, wanted.dimension)
    } else {
        "has vectors of another encoder".to_owned()
    }
}

#[cfg(test)]
mod tests;
