//! Episodes, their trajectories and the scheduler that runs many of them.

pub mod config;
pub mod episode;
pub mod observation;
pub mod parse;
pub mod scheduler;
#[cfg(test)]
pub(crate) mod tests;
pub mod trajectory;
pub mod work;

pub use self::episode::{EpisodeJob, EpisodeLimits};
pub use self::scheduler::{
    Arrival, Arrivals, CarriedEpisode, Rollout, RolloutConfig, RolloutError, RolloutEvent,
    RolloutObserver, RolloutTimes, RolloutWork, roll_out, roll_out_as_they_come,
};
pub use self::trajectory::{EndReason, SearchRecord, Segment, SegmentKind, Trajectory};
