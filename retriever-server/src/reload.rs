//! Loads the index again while the server answers. Requests in flight keep what they began with; later ones get the new
//! index. If anything of it cannot be opened, the one in use stays.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::contract::digest::Digest;
use thiserror::Error;
use tracing::{error, info};

use crate::access::AccessError;
use crate::loading::{self, ServeError};
use crate::state::{AppState, Loaded, Phase};

/// The outcome of loading the index again.
#[derive(Clone, Debug, Default)]
pub struct Reloaded {
    /// The digest of the index that answered before; `None` if there is no index.
    pub previous_index_digest: Option<Digest>,
    /// The digest of the index that answers now; `None` if there is no index.
    pub index_digest: Option<Digest>,
    /// The number of its passages.
    pub passage_count: Option<u64>,
    /// The time that loading took.
    pub duration: Duration,
}

/// The reason why nothing was replaced.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// The server has no index yet, or is ending.
    #[error("the server is {}", match .0 {
        Phase::Starting | Phase::Ready => "starting",
        Phase::Failed => "failing to start",
        Phase::Draining => "shutting down",
    })]
    NotReady(Phase),
    /// Keys or certificate could not be read.
    #[error("nothing was loaded, and everything stays as it was: {0}")]
    Access(#[from] AccessError),
    /// The index could not be opened.
    #[error("the new index was not loaded, and the old one stays: {0}")]
    Index(#[from] ServeError),
}

/// Reads keys and certificate again, then opens the index and puts it in place of the one in use. One reload runs at a
/// time; others wait for it. It is logged and counted.
pub(crate) async fn reload(state: Arc<AppState>) -> Result<Reloaded, ReloadError> {
    let _turn = state.reloading.lock().await;
    let outcome = replace(&state).await;
    if let Err(ReloadError::NotReady(_)) = outcome {
        return outcome;
    }
    state.metrics.reload(outcome.is_ok());
    match &outcome {
        Ok(Reloaded { index_digest: Some(digest), passage_count, duration, .. }) => {
            info!(index_digest = %digest, passages = passage_count, ?duration, "the index was loaded again");
        }
        Ok(Reloaded { duration, .. }) => {
            info!(?duration, "keys and certificate were read again; there is no index of ours");
        }
        Err(fault) => error!(%fault, "reload failed"),
    }
    outcome
}

async fn replace(state: &Arc<AppState>) -> Result<Reloaded, ReloadError> {
    let began = Instant::now();
    let before = state.index_digest().map_err(ReloadError::NotReady)?;
    state.access.reload()?;
    if state.config.backend.kind.is_remote() {
        let duration = began.elapsed();
        return Ok(Reloaded { duration, ..Reloaded::default() });
    }
    let state_of_load = Arc::clone(state);
    let open = move || loading::open_again(&state_of_load);
    let loaded: Loaded = tokio::task::spawn_blocking(open)
        .await
        .map_err(ServeError::from)
        .and_then(|opened| opened)?;
    let (index_digest, passage_count) = (loaded.index_digest(), loaded.passage_count());
    state.replace(loaded);
    let duration = began.elapsed();
    Ok(Reloaded { previous_index_digest: before, index_digest, passage_count, duration })
}
