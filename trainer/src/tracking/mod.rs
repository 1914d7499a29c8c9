//! Sends the metrics of a run to the programs in which people look at them: TensorBoard, MLflow, trackio, and Weights &
//! Biases by its offline files. `metrics.jsonl` remains the record of the run.
//!
//! Invariant: a tracker never stops a run and never delays a step. Each has a thread and a bounded queue; a point that
//! finds the queue full is counted and left out, and a point that a server does not take is sent again later.

mod lane;
mod mlflow;
mod point;
mod server;
mod tensorboard;
mod trackio;
mod wandb;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use lane::{Lane, Memory};
pub use point::Point;
use server::Server;

use crate::track::StepMetrics;

/// The folder of the trackers' memories in a run's folder.
const MEMORY_FOLDER: &str = "tracking";

/// The trackers to write to.
#[derive(Clone, Debug, Default)]
pub struct TrackingSettings {
    /// Writes event files for TensorBoard.
    pub tensorboard: bool,
    /// Writes offline files of Weights & Biases.
    pub wandb: bool,
    /// The tracking server of MLflow.
    pub mlflow: Option<ServerSettings>,
    /// The server of trackio.
    pub trackio: Option<ServerSettings>,
    /// The name of the experiment or project.
    pub project: String,
    /// The name of the run.
    pub name: String,
    /// The configuration, shown with the run: dotted keys with values as text.
    pub parameters: Vec<(String, String)>,
}

/// The server of a tracker.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The address, without a path of its API.
    pub url: String,
    /// The file with the token, read for each request.
    pub token_file: Option<PathBuf>,
    /// The time limit of a request.
    pub timeout: Duration,
}

/// The facts about a run that every tracker gets.
#[derive(Clone, Debug)]
struct Run {
    folder: PathBuf,
    project: String,
    name: String,
    /// The identifier, the same after each resume.
    id: String,
    parameters: Vec<(String, String)>,
}

/// The result of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// A signal stopped it. It may be resumed.
    Stopped,
    /// An error ended it.
    Failed,
}

/// A failed attempt to write points. They stay, and are tried again later.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Fault(String);

/// A place where points go.
trait Tracker: Send {
    /// Writes points, in order. Returns the position of the last one that a kill cannot lose any more.
    fn send(&mut self, points: &[Arc<Point>], memory: &mut Memory) -> Result<Option<u64>, Fault>;

    /// Notes the end of the run.
    fn end(&mut self, outcome: Outcome, memory: &mut Memory) -> Result<(), Fault>;
}

/// The trackers of a run in progress.
#[derive(Debug, Default)]
pub struct Trackers {
    lanes: Vec<Lane>,
}

impl Trackers {
    /// Starts the trackers of the run in `run_dir`, which has done the steps in `history` and went back to an earlier
    /// step `rollbacks` times. Points that a tracker has not got yet, because the run was killed, are sent first; steps
    /// that follow a rollback are sent again. A tracker that cannot be started is left out with a warning.
    pub fn start(
        settings: &TrackingSettings,
        run_dir: &Path,
        history: &[StepMetrics],
        rollbacks: u64,
    ) -> Self {
        let done = history.last().map_or(0, |row| row.step);
        let resumed_at = (done > 0 || rollbacks > 0).then_some(done);
        let folder = run_dir.join(MEMORY_FOLDER);
        let mut lanes = Vec::new();
        let mut add =
            |name: &'static str, open: &dyn Fn(Run) -> Result<Box<dyn Tracker>, Fault>| {
                let start = || -> Result<Lane, Fault> {
                    fs::create_dir_all(&folder).map_err(|error| Fault(error.to_string()))?;
                    let memory =
                        Memory::load(&folder.join(format!("{name}.json")), resumed_at, rollbacks);
                    let run = Run {
                        folder: run_dir.to_owned(),
                        project: settings.project.clone(),
                        name: settings.name.clone(),
                        id: memory.id().to_owned(),
                        parameters: settings.parameters.clone(),
                    };
                    let tracker = open(run)?;
                    let missing = history.iter().map(Point::of_step);
                    let missing =
                        missing.filter(|point| !memory.has(point)).map(Arc::new).collect();
                    Lane::start(name, tracker, memory, missing)
                };
                match start() {
                    Ok(lane) => {
                        info!(tracker = name, "metrics are also sent to this tracker");
                        lanes.push(lane);
                    }
                    Err(fault) => {
                        warn!(tracker = name, %fault, "the run goes on without this tracker");
                    }
                }
            };
        if settings.tensorboard {
            add("tensorboard", &|run| {
                Ok(Box::new(tensorboard::EventFile::create(&run, resumed_at)?))
            });
        }
        if settings.wandb {
            add("wandb", &|run| Ok(Box::new(wandb::OfflineRun::create(&run, resumed_at)?)));
        }
        if let Some(server) = &settings.mlflow {
            add("mlflow", &|run| Ok(Box::new(mlflow::Mlflow::new(run, Server::open(server)?))));
        }
        if let Some(server) = &settings.trackio {
            add("trackio", &|run| Ok(Box::new(trackio::Trackio::new(run, Server::open(server)?))));
        }
        Self { lanes }
    }

    /// Hands a point to every tracker, without waiting for any.
    pub fn log(&mut self, point: Point) {
        if self.lanes.is_empty() {
            return;
        }
        let point = Arc::new(point);
        for lane in &mut self.lanes {
            lane.log(&point);
        }
    }

    /// Ends all trackers. Waits some seconds for servers that have not got everything.
    pub fn end(self, outcome: Outcome) {
        // All of them wait at the same time.
        let ending: Vec<_> = self.lanes.into_iter().map(|lane| lane.end(outcome)).collect();
        for lane in ending {
            lane.join();
        }
    }
}

#[cfg(test)]
mod tests;
