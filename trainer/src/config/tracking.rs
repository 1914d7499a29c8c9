//! The section `[tracking]`.

use std::path::PathBuf;

use super::section::section;
use super::value::Range;

section! {
    /// Programs that also get the metrics; `metrics.jsonl` always does. None of them can stop or delay a run.
    pub struct TrackingConfig in "tracking" {
        /// Writes event files for TensorBoard to `tensorboard/` in the run folder.
        tensorboard: bool = false;
        /// Writes an offline run of Weights & Biases to `wandb/` in the run folder, for `wandb sync`.
        wandb: bool = false;
        /// Address of an MLflow tracking server, such as `http://localhost:5000`. Empty: none.
        mlflow_url: String = String::new();
        /// File with the token of the MLflow server, read for each request; without it, none is sent.
        mlflow_token_file: Option<PathBuf> = None;
        /// Address of a trackio server, such as `http://localhost:7860`. Empty: none.
        trackio_url: String = String::new();
        /// File with the write token of the trackio server, read for each request.
        trackio_token_file: Option<PathBuf> = None;
        /// Name of the experiment (MLflow) or project (trackio, Weights & Biases).
        project: String = "search-r1".to_owned();
        /// Name of the run; if empty, the name of its folder.
        name: String = String::new();
        /// Time limit for one request to a server.
        timeout_ms: u64 ["ms"] = 10_000, Range::at_least(1.0);
    }
}
