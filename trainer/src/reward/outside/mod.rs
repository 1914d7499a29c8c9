//! Rewards from outside the process: users' own code over HTTP, and a language model as judge.
//!
//! Asks for all items of a step at once and waits for the answers; a stop ends the wait. An item that a service fails
//! has no score: its caller drops it and counts it.

mod agreement;
mod judge;
mod post;
mod service;
#[cfg(test)]
mod tests;
mod verdicts;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use serde::Serialize;
use shared::contract::digest::Digest;
use tokio::runtime::{Builder, Runtime};

pub use self::agreement::agreement;
pub use self::judge::{CORRECTNESS_TEMPLATE, JudgeRules, RUBRIC_TEMPLATE};
use self::post::Endpoint;
pub use self::post::EndpointSettings;
use self::verdicts::Verdicts;
use crate::stop::StopFlag;

/// Scores that are remembered, so that a trajectory is not scored twice in one step.
const MAX_REMEMBERED: usize = 65_536;

/// A trajectory as services see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutsideItem {
    /// Id of the question's record.
    pub id: String,
    pub question: String,
    pub golden_answers: Vec<String>,
    /// All text from the prompt on, as it was decoded.
    pub trajectory: String,
    /// The answer as written; `null` without one.
    pub answer: Option<String>,
    /// Number of searches.
    pub searches: usize,
    /// 0 or 1.
    pub exact_match: f64,
    /// The score by the built-in rules.
    pub score: f64,
}

/// The score of one item by users' own code.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Part {
    pub(crate) score: f64,
    pub(crate) parts: BTreeMap<String, f64>,
}

/// The scores of an item.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutsideScore {
    /// The sum of the services' scores times their weights.
    pub total: f64,
    /// The score of users' own code, if it was asked.
    pub service: Option<f64>,
    /// Its named parts.
    pub parts: BTreeMap<String, f64>,
    /// The verdict of the judge, in [0, 1], if there is one.
    pub judge: Option<f64>,
    /// `true` if the verdict was known before.
    pub is_known_verdict: bool,
}

/// Users' own code.
#[derive(Clone, Debug)]
pub struct ServiceSettings {
    pub endpoint: EndpointSettings,
    pub weight: f64,
    /// Most items of a request.
    pub batch: usize,
}

/// A judge.
#[derive(Clone, Debug)]
pub struct JudgeSettings {
    pub endpoint: EndpointSettings,
    pub weight: f64,
    pub rules: JudgeRules,
    /// File of the verdicts.
    pub verdicts: PathBuf,
}

/// The reason why outside rewards cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    #[error("{url:?} is not an address: {reason}")]
    Address { url: String, reason: String },
    #[error("cannot use {} for verdicts: {source}", path.display())]
    Verdicts { path: PathBuf, source: std::io::Error },
    #[error("cannot start a thread for outside rewards: {0}")]
    Thread(std::io::Error),
}

/// Services that score trajectories.
#[derive(Debug)]
pub struct OutsideRewards {
    service: Option<(Endpoint, ServiceSettings)>,
    judge: Option<(Endpoint, JudgeSettings, Mutex<Verdicts>)>,
    remembered: Mutex<HashMap<Digest, Part>>,
    runtime: Runtime,
}

impl OutsideRewards {
    /// Opens the services without connecting.
    ///
    /// # Errors
    /// An invalid address, a file of verdicts that cannot be opened, or a thread that cannot be started.
    pub fn new(
        service: Option<ServiceSettings>,
        judge: Option<JudgeSettings>,
    ) -> Result<Self, OutsideError> {
        let service = match service {
            Some(settings) => Some((Endpoint::new(settings.endpoint.clone())?, settings)),
            None => None,
        };
        let judge = match judge {
            Some(settings) => {
                let path = settings.verdicts.clone();
                let verdicts = Verdicts::open(&path)
                    .map_err(|source| OutsideError::Verdicts { path, source })?;
                let endpoint = Endpoint::new(settings.endpoint.clone())?;
                Some((endpoint, settings, Mutex::new(verdicts)))
            }
            None => None,
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("reward")
            .enable_all()
            .build()
            .map_err(OutsideError::Thread)?;
        Ok(Self { service, judge, remembered: Mutex::default(), runtime })
    }

    /// Scores the items, in their order. Returns the reason for each that could not be scored. If `stop` is raised
    /// first, that is the reason for all.
    pub fn scores(
        &self,
        items: &[OutsideItem],
        stop: &StopFlag,
    ) -> Vec<Result<OutsideScore, String>> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = stop.raised() => vec![Err("stopped".to_owned()); items.len()],
                scores = self.all_scores(items) => scores,
            }
        })
    }

    async fn all_scores(&self, items: &[OutsideItem]) -> Vec<Result<OutsideScore, String>> {
        let (services, judges) = tokio::join!(
            self.service_scores(items),
            join_all(items.iter().map(|item| self.verdict(item)))
        );
        services
            .into_iter()
            .zip(judges)
            .map(|(service, judge)| {
                let (service, judge) = (service?, judge?);
                let weighted = |score: Option<f64>, weight: Option<f64>| {
                    score.unwrap_or(0.0) * weight.unwrap_or(0.0)
                };
                let score = service.as_ref().map(|part| part.score);
                let verdict = judge.map(|(verdict, _)| verdict);
                Ok(OutsideScore {
                    total: weighted(score, self.service.as_ref().map(|(_, of)| of.weight))
                        + weighted(verdict, self.judge.as_ref().map(|(_, of, _)| of.weight)),
                    service: score,
                    parts: service.map(|part| part.parts).unwrap_or_default(),
                    judge: verdict,
                    is_known_verdict: judge.is_some_and(|(_, is_known)| is_known),
                })
            })
            .collect()
    }

    /// Returns the scores of users' own code, `None` without it.
    async fn service_scores(&self, items: &[OutsideItem]) -> Vec<Result<Option<Part>, String>> {
        let Some((endpoint, settings)) = &self.service else { return vec![Ok(None); items.len()] };
        let digests: Vec<Digest> = items.iter().map(digest_of).collect();
        let mut scores: Vec<Option<Result<Part, String>>> = {
            let remembered = locked(&self.remembered);
            digests.iter().map(|digest| remembered.get(digest).cloned().map(Ok)).collect()
        };
        let asked: Vec<usize> = (0..items.len()).filter(|&index| scores[index].is_none()).collect();
        let batches = asked.chunks(settings.batch).map(|indices| async move {
            let batch: Vec<OutsideItem> =
                indices.iter().map(|&index| items[index].clone()).collect();
            (indices, service::scores(endpoint, &batch).await)
        });
        for (indices, answers) in join_all(batches).await {
            let mut remembered = locked(&self.remembered);
            for (&index, answer) in indices.iter().zip(answers) {
                if let Ok(part) = &answer {
                    if remembered.len() >= MAX_REMEMBERED {
                        remembered.clear();
                    }
                    remembered.insert(digests[index], part.clone());
                }
                scores[index] = Some(answer);
            }
        }
        let scored = |score: Option<Result<Part, String>>| {
            score.expect("every item is remembered or in a batch").map(Some)
        };
        scores.into_iter().map(scored).collect()
    }

    /// Returns the verdict on an item, and `true` if it was known before. Without a judge there is none; and a missing
    /// answer is wrong without asking, unless a rubric judges the whole trajectory.
    async fn verdict(&self, item: &OutsideItem) -> Result<Option<(f64, bool)>, String> {
        let Some((endpoint, settings, verdicts)) = &self.judge else { return Ok(None) };
        if item.answer.is_none() && settings.rules.rubric.is_none() {
            return Ok(Some((0.0, false)));
        }
        let request = judge::request(&settings.rules, item);
        let key = Digest::of_bytes(request.to_string().as_bytes()).to_string();
        if let Some(known) = locked(verdicts).get(&key) {
            return Ok(Some((known, true)));
        }
        let verdict = judge::verdict(&endpoint.ask(&request).await?)?;
        locked(verdicts).add(key, verdict);
        Ok(Some((verdict, false)))
    }
}

fn digest_of(item: &OutsideItem) -> Digest {
    Digest::of_bytes(&serde_json::to_vec(item).expect("texts and numbers are JSON"))
}

/// Locks what no panic leaves half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
