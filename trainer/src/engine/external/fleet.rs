//! The replicas of an external engine. The fleet chooses the replica of each turn, keeps its weights current,
//! and plays a turn again if its replica fails.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Client, Url};
use shared::contract::retry::{Backoff, RetryPolicy};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::ExternalEngineConfig;
use super::dialect::Dialect;
use super::http::{Fault, send};
use super::protocol::{SampledTurn, TurnEnding, TurnRequest, weights_name};

/// A turn that was played to its end.
#[derive(Debug)]
pub(super) struct PlayedTurn {
    pub(super) sampled: SampledTurn,
    /// The replica that played it.
    pub(super) replica: usize,
    /// The version of the weights that the replica reports.
    pub(super) version: u64,
}

/// The weights that every turn must be sampled with.
#[derive(Clone, Debug)]
struct TargetWeights {
    version: u64,
    /// Their name at the servers. It is unique to this process, so the weights of another run are never
    /// mistaken for them.
    name: String,
    folder: String,
}

/// The last known state of a replica.
#[derive(Debug, Default)]
struct ReplicaState {
    /// The name of its weights; `None` at first and after every failure.
    weights: Option<String>,
    /// The model's name in requests.
    model: String,
    /// `true` if its last request failed.
    is_down: bool,
    /// Running turns.
    running: usize,
}

/// A server.
#[derive(Debug)]
struct Replica {
    /// The base URL, without a slash at the end.
    url: String,
    /// A permit for each turn that may run concurrently.
    permits: Semaphore,
    /// Held while its weights are checked or replaced.
    updating: tokio::sync::Mutex<()>,
    state: Mutex<ReplicaState>,
}

impl Replica {
    fn state(&self) -> MutexGuard<'_, ReplicaState> {
        // The state is consistent after every statement that changes it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A count of one running turn, which ends when the value is dropped.
struct RunningCount<'r>(&'r Replica);

impl<'r> RunningCount<'r> {
    fn new(replica: &'r Replica) -> Self {
        replica.state().running += 1;
        Self(replica)
    }
}

impl Drop for RunningCount<'_> {
    fn drop(&mut self) {
        self.0.state().running -= 1;
    }
}

/// All replicas, and the weights that they must have.
#[derive(Debug)]
pub(super) struct Fleet {
    client: Client,
    dialect: Dialect,
    retry: RetryPolicy,
    max_context_tokens: usize,
    replicas: Vec<Replica>,
    target: Mutex<Option<TargetWeights>>,
    /// Distinguishes the weights of this process from those of other processes.
    nonce: String,
}

impl Fleet {
    pub(super) fn new(config: &ExternalEngineConfig) -> Result<Self, String> {
        let client = shared::machine::http::client_builder()
            .timeout(config.attempt_timeout)
            // Engines are addressed directly, even if a proxy is set for downloads.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| format!("cannot create an HTTP client: {error}"))?;
        let mut replicas = Vec::with_capacity(config.urls.len());
        for url in &config.urls {
            Url::parse(url).map_err(|error| format!("engine.urls: {url:?}: {error}"))?;
            replicas.push(Replica {
                url: url.trim_end_matches('/').to_owned(),
                permits: Semaphore::new(config.max_in_flight.max(1)),
                updating: tokio::sync::Mutex::new(()),
                state: Mutex::new(ReplicaState::default()),
            });
        }
        if replicas.is_empty() {
            return Err("engine.urls names no server".to_owned());
        }
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let nonce = format!("{:x}-{:x}", std::process::id(), since.as_nanos());
        Ok(Self {
            client,
            dialect: config.dialect,
            retry: config.retry,
            max_context_tokens: config.max_context_tokens,
            replicas,
            target: Mutex::new(None),
            nonce,
        })
    }

    /// Sets the weights of all later turns.
    pub(super) fn set_target(&self, folder: &Path, version: u64) {
        let name = format!("{}-{version}", self.nonce);
        let target = TargetWeights { version, name, folder: folder.to_string_lossy().into_owned() };
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
    }

    fn target(&self) -> Result<TargetWeights, Fault> {
        let target = self.target.lock().unwrap_or_else(PoisonError::into_inner).clone();
        target.ok_or_else(|| Fault::Final("the engine has no weights yet".to_owned()))
    }

    /// Plays a turn at `preferred`, if that replica answers. Repeats it there or elsewhere until the deadline.
    pub(super) async fn play(
        &self,
        turn: &TurnRequest,
        preferred: Option<usize>,
    ) -> Result<PlayedTurn, String> {
        let started = Instant::now();
        let mut backoff = Backoff::new(self.retry);
        let mut attempts = 0_usize;
        loop {
            let index = self.choose(preferred, attempts);
            attempts += 1;
            let remaining = self.retry.deadline.saturating_sub(started.elapsed());
            let attempt = tokio::time::timeout(remaining, self.attempt(index, turn));
            let outcome = attempt.await.unwrap_or_else(|_| {
                Err(Fault::retry(format!("{}: no answer in time", self.replicas[index].url)))
            });
            let (reason, requested_pause) = match outcome {
                Ok(played) => return Ok(played),
                Err(Fault::Final(reason)) => return Err(reason),
                Err(Fault::Retry { reason, requested_pause }) => (reason, requested_pause),
            };
            let was_down = self.mark_down(index);
            let elapsed = started.elapsed();
            // No pause is needed if another replica can play the turn now.
            let another = self.replicas.iter().any(|replica| !replica.state().is_down);
            let pause = backoff.next_pause(elapsed, requested_pause.filter(|_| !another));
            let Some(pause) = pause else {
                let elapsed_ms = elapsed.as_millis();
                return Err(format!(
                    "no answer from the engine after {attempts} attempts in {elapsed_ms} ms: {reason}"
                ));
            };
            if !was_down {
                warn!(reason, "a turn failed and is submitted again");
            }
            if !another {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Returns the replica for the next attempt: the one that caches the conversation if it is up, otherwise the
    /// least busy one that is up, otherwise each in turn.
    fn choose(&self, preferred: Option<usize>, attempts: usize) -> usize {
        let is_up = |index: &usize| !self.replicas[*index].state().is_down;
        preferred
            .filter(is_up)
            .or_else(|| {
                let up = (0..self.replicas.len()).filter(is_up);
                up.min_by_key(|&index| self.replicas[index].state().running)
            })
            .unwrap_or_else(|| (preferred.unwrap_or(0) + attempts) % self.replicas.len())
    }

    /// Records that a replica failed; returns `true` if it was already down.
    fn mark_down(&self, index: usize) -> bool {
        let mut state = self.replicas[index].state();
        state.weights = None;
        std::mem::replace(&mut state.is_down, true)
    }

    async fn attempt(&self, index: usize, turn: &TurnRequest) -> Result<PlayedTurn, Fault> {
        let replica = &self.replicas[index];
        let _counted = RunningCount::new(replica);
        let _permit = replica.permits.acquire().await.expect("the semaphore is never closed");
        let target = self.target()?;
        let model = self.make_current(replica, &target).await?;
        let call = self.dialect.generate(turn, &model);
        let answer = send(&self.client, &replica.url, &call).await?;
        let refuse = |reason: String| Fault::Final(format!("{}: {reason}", replica.url));
        let sampled = self.dialect.read(&answer).map_err(refuse)?;
        if sampled.ending == TurnEnding::Aborted {
            return Err(Fault::retry(format!("{}: the turn was aborted", replica.url)));
        }
        // A server that was restarted after its weights were checked has sampled with other weights.
        let weights = match &sampled.weights {
            Some(name) => name.clone(),
            None => self.weights_of(replica).await?,
        };
        if weights != target.name {
            return Err(Fault::retry(format!(
                "{}: sampled with the weights {weights:?} instead of {:?}",
                replica.url, target.name
            )));
        }
        Ok(PlayedTurn { sampled, replica: index, version: target.version })
    }

    /// Asks a replica for the name of its weights.
    async fn weights_of(&self, replica: &Replica) -> Result<String, Fault> {
        let answer = send(&self.client, &replica.url, &self.dialect.ask_weights()).await?;
        let refuse = |reason: String| Fault::Final(format!("{}: {reason}", replica.url));
        weights_name(&answer).map_err(refuse)
    }

    /// Loads the current weights into a replica, unless it is known to have them. Returns the name of its model.
    async fn make_current(
        &self,
        replica: &Replica,
        target: &TargetWeights,
    ) -> Result<String, Fault> {
        let _alone = replica.updating.lock().await;
        {
            let state = replica.state();
            if state.weights.as_ref() == Some(&target.name) {
                return Ok(state.model.clone());
            }
        }
        let refuse = |reason: String| Fault::Final(format!("{}: {reason}", replica.url));
        let answer = send(&self.client, &replica.url, &self.dialect.ask_served()).await?;
        let served = self.dialect.read_served(&answer).map_err(refuse)?;
        let limit = served.max_context_tokens.filter(|&limit| limit < self.max_context_tokens);
        if let Some(limit) = limit {
            return Err(refuse(format!(
                "it takes {limit} tokens of context, episodes may need {}: start it with a longer \
                 context, or lower rollout.max_context_tokens",
                self.max_context_tokens
            )));
        }
        if self.weights_of(replica).await? != target.name {
            self.replace_weights(replica, target).await?;
        }
        let mut state = replica.state();
        state.weights = Some(target.name.clone());
        state.model.clone_from(&served.model);
        state.is_down = false;
        Ok(served.model)
    }

    /// Replaces the weights of a replica and checks that it reports the new ones.
    async fn replace_weights(
        &self,
        replica: &Replica,
        target: &TargetWeights,
    ) -> Result<(), Fault> {
        let started = Instant::now();
        let update = self.dialect.update(&target.folder, &target.name);
        let mut result = Ok(());
        for call in &update.calls {
            result = match send(&self.client, &replica.url, call).await {
                Ok(answer) => match self.dialect.refusal(&answer) {
                    Some(reason) => {
                        Err(Fault::Final(format!("{}{}: {reason}", replica.url, call.path)))
                    }
                    None => Ok(()),
                },
                Err(fault) => Err(fault),
            };
            if result.is_err() {
                break;
            }
        }
        let resumed = send(&self.client, &replica.url, &update.resume).await;
        result?;
        resumed?;
        let weights = self.weights_of(replica).await?;
        if weights != target.name {
            return Err(Fault::retry(format!(
                "{}: it has the weights {weights:?} after {:?} were loaded",
                replica.url, target.name
            )));
        }
        info!(
            engine = replica.url,
            folder = target.folder,
            version = target.version,
            seconds = started.elapsed().as_secs_f64(),
            "the engine has new weights"
        );
        Ok(())
    }

    /// Checks failed replicas as long as the runtime lives. A replica that answers again gets the current
    /// weights and plays turns again.
    pub(super) async fn watch_health(self: Arc<Self>, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            for replica in &self.replicas {
                if !replica.state().is_down {
                    continue;
                }
                let Ok(target) = self.target() else { continue };
                if self.make_current(replica, &target).await.is_ok() {
                    info!(engine = replica.url, "the engine answers again");
                }
            }
        }
    }
}
