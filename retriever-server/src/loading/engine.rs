//! Opens an engine of another machine, and checks that its collection fits the encoder.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tracing::{info, warn};

use super::ServeError;
use crate::backend::engine::EngineSource;
use crate::encode::Encoder;
use crate::engine::patience::Patience;
use crate::engine::{self, EngineConfig, Note};
use crate::index::dense;
use crate::state::{AppState, IndexFacts};

/// Longest wait for an engine that is still starting.
const START_LIMIT: Duration = Duration::from_mins(1);
/// Longest time for one question at the start.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(20);

/// Opens the engine of a configuration, and returns it with the facts about the index that it was loaded from, if it was
/// loaded by this program. This blocks, and must not run on an async thread.
pub(super) fn open(
    state: &AppState,
    config: &EngineConfig,
    encoder: Option<Arc<Encoder>>,
) -> Result<(EngineSource, Option<IndexFacts>), ServeError> {
    let engine = engine::open(config)?;
    let digest = match &encoder {
        Some(encoder) => Some((dense::encoder_digest(encoder.settings())?, encoder.dimension())),
        None => None,
    };
    let patience = Patience::new(config, START_LIMIT, ATTEMPT_LIMIT);
    let asked = patience.ask(|_| engine::inspect(&*engine, config, digest));
    let note = match Handle::try_current() {
        Ok(runtime) => runtime.block_on(asked)?,
        Err(_) => Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ServeError::Threads)?
            .block_on(asked)?,
    };
    // Connections end with the runtime in which they were made, and searches may run in another one.
    let engine = engine::open(config)?;
    let (engine_name, collection) = (config.kind.name(), &config.collection);
    if let Some(note) = &note {
        info!(
            engine = engine_name,
            collection,
            passages = note.passage_count,
            index_digest = %note.index,
            "the engine is ready"
        );
    } else {
        warn!(
            engine = engine_name,
            collection,
            "the collection was not loaded by this program: nothing tells which encoder its vectors are of"
        );
    }
    let facts = |note: Note| IndexFacts {
        digest: note.index,
        passage_count: note.passage_count,
        analyzer: None,
    };
    Ok((EngineSource::new(engine, config, encoder, &state.pool), note.map(facts)))
}
