//! Loads of an engine in memory, which fails as it is told.

use std::collections::BTreeMap;
use std::sync::Mutex;

use shared::contract::passage::Passage;
use tempfile::TempDir;

use super::*;
use crate::corpus::store::PassageWriter;
use crate::engine::config::Address;
use crate::engine::{AnswersFuture, EngineFuture, EngineKind, Queries, Search};
use crate::vector::RowFormat;

const TOTAL: usize = 700;

/// An engine in memory.
#[derive(Debug, Default)]
struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    note: Option<Note>,
    is_foreign: bool,
    records: BTreeMap<String, Record>,
    /// The number of insertions.
    insertions: usize,
    /// The insertion from which on all fail for good.
    dies_at: Option<usize>,
    /// Insertions that fail once, and succeed when they are repeated.
    overloaded: Vec<usize>,
    /// The most records of an insertion.
    max_records: Option<usize>,
    /// The number of records that are lost although they were acknowledged.
    loses: usize,
}

impl Memory {
    fn state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }
}

fn unavailable() -> EngineError {
    let (engine, url, reason) = ("chroma", "http://host".to_owned(), "status 503".to_owned());
    EngineError::Unavailable { engine, url, reason, pause: Some(Duration::from_secs(7)) }
}

impl State {
    fn insert(&mut self, records: &[Record]) -> Result<(), EngineError> {
        self.insertions += 1;
        if self.dies_at.is_some_and(|at| self.insertions >= at) {
            return Err(EngineError::Unfit("the engine is gone".to_owned()));
        }
        if self.max_records.is_some_and(|most| records.len() > most) {
            let (engine, url, reason) = ("chroma", "http://host".to_owned(), String::new());
            return Err(EngineError::TooLarge { engine, url, reason });
        }
        if let Some(at) = self.overloaded.iter().position(|at| *at == self.insertions) {
            self.overloaded.remove(at);
            return Err(unavailable());
        }
        for record in records {
            self.records.insert(record.passage.id.clone(), record.clone());
        }
        Ok(())
    }
}

impl Engine for Memory {
    fn find(&self) -> EngineFuture<'_, Found> {
        let found = self.state(|state| match &state.note {
            _ if state.is_foreign => Found::Foreign,
            Some(note) => Found::Ours(note.clone()),
            None => Found::Nothing,
        });
        Box::pin(async { Ok(found) })
    }

    fn create<'a>(&'a self, note: &'a Note) -> EngineFuture<'a, ()> {
        self.state(|state| state.note = Some(note.clone()));
        Box::pin(async { Ok(()) })
    }

    fn remove(&self) -> EngineFuture<'_, ()> {
        self.state(|state| *state = State { insertions: state.insertions, ..State::default() });
        Box::pin(async { Ok(()) })
    }

    fn insert<'a>(&'a self, records: &'a [Record]) -> EngineFuture<'a, ()> {
        Box::pin(async { self.state(|state| state.insert(records)) })
    }

    fn settle<'a>(&'a self, _note: &'a Note) -> EngineFuture<'a, u64> {
        let found = self.state(|state| state.records.len() - state.loses);
        Box::pin(async move { Ok(found as u64) })
    }

    fn annotate<'a>(&'a self, note: &'a Note) -> EngineFuture<'a, ()> {
        self.create(note)
    }

    fn search<'a>(&'a self, _queries: Queries<'a>, _search: Search) -> AnswersFuture<'a> {
        Box::pin(async { Vec::new() })
    }
}

/// Passages with vectors of two numbers.
struct World {
    folder: TempDir,
    passages: PassageStore,
    vectors: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = PassageWriter::create(folder.path()).unwrap();
        let mut vectors = Vec::new();
        for row in 0..TOTAL {
            writer.add(&Passage::new(format!("p{row}"), format!("passage {row}"))).unwrap();
            RowFormat::F32.append_row(&[row as f32, 1.0], &mut vectors);
        }
        writer.finish().unwrap();
        let passages = PassageStore::open(folder.path()).unwrap();
        Self { folder, passages, vectors }
    }

    fn source(&self, encoder: &str) -> LoadSource<'_> {
        let rows = Rows::new(&self.vectors, RowFormat::F32, 2).unwrap();
        LoadSource {
            index: self.folder.path(),
            digest: Digest::of_bytes(b"index"),
            passages: &self.passages,
            vectors: Some((rows, Digest::of_bytes(encoder.as_bytes()))),
        }
    }

    async fn load(&self, engine: &Memory, encoder: &str, force: bool) -> Result<Loaded, LoadError> {
        load(engine, &config(), self.source(encoder), force, &mut |_| {}).await
    }
}

fn config() -> EngineConfig {
    let kind = EngineKind::Chroma;
    EngineConfig {
        kind,
        url: Address::parse(kind, "http://host").unwrap(),
        collection: "passages".to_owned(),
        key: None,
        ef: 128,
    }
}

#[tokio::test(start_paused = true)]
async fn every_passage_arrives_with_its_own_vector() {
    let (world, engine) = (World::new(), Memory::default());
    let loaded = world.load(&engine, "e", false).await.unwrap();
    assert_eq!(loaded, Loaded { passage_count: TOTAL as u64, stored_before: 0 });
    engine.state(|state| {
        assert_eq!(state.records.len(), TOTAL);
        let record = &state.records["p412"];
        assert_eq!(
            (record.passage.contents.as_str(), &record.vector[..]),
            ("passage 412", &[412.0, 1.0][..])
        );
        assert!(state.note.as_ref().unwrap().complete);
    });
    // A second load sends nothing.
    let insertions = engine.state(|state| state.insertions);
    let again = world.load(&engine, "e", false).await.unwrap();
    assert_eq!(again.stored_before, TOTAL as u64);
    assert_eq!(engine.state(|state| state.insertions), insertions);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_failed_goes_on_where_it_was() {
    let (world, engine) = (World::new(), Memory::default());
    engine.state(|state| state.dies_at = Some(2));
    let error = world.load(&engine, "e", false).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "the engine is gone; 256 of 700 passages are stored, and the same command goes on from there"
    );
    assert!(!engine.state(|state| state.note.as_ref().unwrap().complete));
    engine.state(|state| state.dies_at = None);
    let loaded = world.load(&engine, "e", false).await.unwrap();
    assert_eq!(loaded.stored_before, 256);
    assert_eq!(engine.state(|state| state.records.len()), TOTAL);
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_engine_is_asked_again_after_its_pause() {
    let (world, engine) = (World::new(), Memory::default());
    engine.state(|state| state.overloaded = vec![1, 3]);
    let started = tokio::time::Instant::now();
    world.load(&engine, "e", false).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(7));
    assert_eq!(engine.state(|state| (state.records.len(), state.overloaded.len())), (TOTAL, 0));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_too_large_is_divided() {
    let (world, engine) = (World::new(), Memory::default());
    engine.state(|state| state.max_records = Some(40));
    world.load(&engine, "e", false).await.unwrap();
    assert_eq!(engine.state(|state| state.records.len()), TOTAL);
}

#[tokio::test(start_paused = true)]
async fn a_collection_of_another_origin_is_replaced_on_request_only() {
    let (world, engine) = (World::new(), Memory::default());
    world.load(&engine, "e", false).await.unwrap();
    let error = world.load(&engine, "other", false).await.unwrap_err().to_string();
    assert!(
        error.contains("has vectors of another encoder: set RETRIEVER_ENGINE_COLLECTION"),
        "{error}"
    );
    engine.state(|state| state.is_foreign = true);
    let error = world.load(&engine, "e", false).await.unwrap_err().to_string();
    assert!(error.contains("\"passages\" exists and was not made by this program"), "{error}");
    let loaded = world.load(&engine, "other", true).await.unwrap();
    assert_eq!(loaded.stored_before, 0);
}

#[tokio::test(start_paused = true)]
async fn a_collection_that_was_made_again_is_loaded_from_the_start() {
    let (world, engine) = (World::new(), Memory::default());
    engine.state(|state| state.dies_at = Some(2));
    world.load(&engine, "e", false).await.unwrap_err();
    engine.state(|state| *state = State::default());
    let loaded = world.load(&engine, "e", false).await.unwrap();
    assert_eq!(loaded.stored_before, 0);
    assert_eq!(engine.state(|state| state.records.len()), TOTAL);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_loses_passages_is_not_marked_as_complete() {
    let (world, engine) = (World::new(), Memory::default());
    engine.state(|state| state.loses = 3);
    let error = world.load(&engine, "e", false).await.unwrap_err().to_string();
    assert!(error.contains("has 697 passages after 700 were stored"), "{error}");
    engine.state(|state| state.loses = 0);
    let loaded = world.load(&engine, "e", false).await.unwrap();
    assert_eq!(loaded.stored_before, 0, "all are sent again");
}
