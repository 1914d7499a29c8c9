//! The replicas: which one plays a turn, whether it has the present weights, and what happens to a
//! turn whose replica fails.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Client, Url};
use shared::retry::{Backoff, RetryPolicy};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::ExternalEngineConfig;
use super::dialect::{Dialect, Ending, Sampled, TurnRequest, weights_name};
use super::http::{Fault, send};

/// A turn that was played to its end.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) sampled: Sampled,
    /// Who played it.
    pub(super) replica: usize,
    /// Of the weights that the replica says it has.
    pub(super) version: u64,
}

/// The weights that every turn is sampled by.
#[derive(Clone, Debug)]
struct Target {
    version: u64,
    /// How servers call them; of this process alone, so that no other run's weights are mistaken
    /// for them.
    name: String,
    folder: String,
}

#[derive(Debug, Default)]
struct ReplicaState {
    /// Name of the weights that it is known to have; unknown at first and after every failure.
    weights: Option<String>,
    /// How requests name the model.
    model: String,
    /// It failed last time it was asked.
    is_down: bool,
    /// Turns under way.
    running: usize,
}

#[derive(Debug)]
struct Replica {
    /// Without a slash at the end.
    url: String,
    places: Semaphore,
    /// Held while its weights are looked at or exchanged.
    updating: tokio::sync::Mutex<()>,
    state: Mutex<ReplicaState>,
}

impl Replica {
    fn state(&self) -> MutexGuard<'_, ReplicaState> {
        // The state is whole after every statement that changes it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a turn for as long as it is under way, also if it is dropped.
struct Counted<'r>(&'r Replica);

impl<'r> Counted<'r> {
    fn new(replica: &'r Replica) -> Self {
        replica.state().running += 1;
        Self(replica)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.state().running -= 1;
    }
}

/// All replicas.
#[derive(Debug)]
pub(super) struct Fleet {
    client: Client,
    dialect: Dialect,
    retry: RetryPolicy,
    max_context_tokens: usize,
    replicas: Vec<Replica>,
    target: Mutex<Option<Target>>,
    /// Tells this process's weights from those of others.
    nonce: String,
}

impl Fleet {
    pub(super) fn new(config: &ExternalEngineConfig) -> Result<Self, String> {
        let client = shared::http::client_builder()
            .timeout(config.attempt_timeout)
            // Engines are addressed directly: a proxy that is set for downloads is not for them.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| format!("cannot make an HTTP client: {error}"))?;
        let mut replicas = Vec::with_capacity(config.urls.len());
        for url in &config.urls {
            Url::parse(url).map_err(|error| format!("engine.urls: {url:?}: {error}"))?;
            replicas.push(Replica {
                url: url.trim_end_matches('/').to_owned(),
                places: Semaphore::new(config.max_in_flight.max(1)),
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

    pub(super) fn set_target(&self, folder: &Path, version: u64) {
        let name = format!("{}-{version}", self.nonce);
        let target = Target { version, name, folder: folder.to_string_lossy().into_owned() };
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
    }

    fn target(&self) -> Result<Target, Fault> {
        let target = self.target.lock().unwrap_or_else(PoisonError::into_inner).clone();
        target.ok_or_else(|| Fault::Final("the engine was given no weights".to_owned()))
    }

    /// Plays a turn, at `preferred` if that answers; again, and elsewhere, until the deadline.
    pub(super) async fn play(
        &self,
        turn: &TurnRequest,
        preferred: Option<usize>,
    ) -> Result<Played, String> {
        let started = Instant::now();
        let mut backoff = Backoff::new(self.retry);
        let mut attempts = 0_usize;
        loop {
            let index = self.choose(preferred, attempts);
            attempts += 1;
            let left = self.retry.deadline.saturating_sub(started.elapsed());
            let attempt = tokio::time::timeout(left, self.attempt(index, turn));
            let outcome = attempt.await.unwrap_or_else(|_| {
                Err(Fault::retry(format!("{}: no answer in time", self.replicas[index].url)))
            });
            let (reason, asked) = match outcome {
                Ok(played) => return Ok(played),
                Err(Fault::Final(reason)) => return Err(reason),
                Err(Fault::Retry { reason, asked }) => (reason, asked),
            };
            let was_down = self.mark_down(index);
            let elapsed = started.elapsed();
            // What another replica can do at once is not waited for.
            let another = self.replicas.iter().any(|replica| !replica.state().is_down);
            let pause = backoff.next_pause(elapsed, asked.filter(|_| !another));
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

    /// The replica that holds the conversation's cache if it answers; else the least busy of those
    /// that do; else one after the other.
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

    /// Remembers that a replica failed; whether that was known.
    fn mark_down(&self, index: usize) -> bool {
        let mut state = self.replicas[index].state();
        state.weights = None;
        std::mem::replace(&mut state.is_down, true)
    }

    async fn attempt(&self, index: usize, turn: &TurnRequest) -> Result<Played, Fault> {
        let replica = &self.replicas[index];
        let _counted = Counted::new(replica);
        // The semaphore is never closed; if it were, the turn would be played all the same.
        let _place = replica.places.acquire().await;
        let target = self.target()?;
        let model = self.make_current(replica, &target).await?;
        let call = self.dialect.generate(turn, &model);
        let answer = send(&self.client, &replica.url, &call).await?;
        let refuse = |reason: String| Fault::Final(format!("{}: {reason}", replica.url));
        let sampled = self.dialect.read(&answer).map_err(refuse)?;
        if sampled.ending == Ending::Aborted {
            return Err(Fault::retry(format!("{}: the turn was aborted", replica.url)));
        }
        // A server that was started anew since its weights were looked at has sampled by others.
        let weights = match &sampled.weights {
            Some(name) => name.clone(),
            None => self.weights_of(replica).await?,
        };
        if weights != target.name {
            return Err(Fault::retry(format!(
                "{}: sampled by the weights {weights:?} instead of {:?}",
                replica.url, target.name
            )));
        }
        Ok(Played { sampled, replica: index, version: target.version })
    }

    async fn weights_of(&self, replica: &Replica) -> Result<String, Fault> {
        let answer = send(&self.client, &replica.url, &self.dialect.ask_weights()).await?;
        let refuse = |reason: String| Fault::Final(format!("{}: {reason}", replica.url));
        weights_name(&answer).map_err(refuse)
    }

    /// Loads the present weights into a replica that is not known to have them; returns the name of
    /// its model.
    async fn make_current(&self, replica: &Replica, target: &Target) -> Result<String, Fault> {
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
        if let Some(limit) = served.max_context_tokens.filter(|&one| one < self.max_context_tokens)
        {
            return Err(refuse(format!(
                "it takes {limit} tokens of context, episodes may need {}: start it with a longer \
                 context, or lower rollout.max_context_tokens",
                self.max_context_tokens
            )));
        }
        if self.weights_of(replica).await? != target.name {
            self.exchange_weights(replica, target).await?;
        }
        let mut state = replica.state();
        state.weights = Some(target.name.clone());
        state.model.clone_from(&served.model);
        state.is_down = false;
        Ok(served.model)
    }

    async fn exchange_weights(&self, replica: &Replica, target: &Target) -> Result<(), Fault> {
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
        let found = self.weights_of(replica).await?;
        if found != target.name {
            return Err(Fault::retry(format!(
                "{}: it has the weights {found:?} after {:?} were loaded",
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

    /// Looks after replicas that failed, for as long as the runtime lives: one that answers again
    /// gets the present weights and plays turns again.
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
