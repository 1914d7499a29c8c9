//! The records of a run in progress: a metrics row and a timeline per step, the time of each phase, and
//! progress on the terminal. Draws no conclusions; `report` does.

mod guard;
mod metrics;
mod phases;
mod progress;
mod reward;
mod trace;

pub use guard::GuardMetrics;
pub use metrics::{
    AheadMetrics, AlgorithmMetrics, MetricsError, MetricsFile, RecordMetrics, StepMetrics,
    StepSeconds, read_metrics,
};
pub use phases::{Phase, read_phases, record_phase};
pub use progress::{LogWriter, Progress};
pub use reward::RewardMetrics;
pub use trace::{Trace, Track};
