//! Episodes, their trajectories, and the scheduler that runs many episodes over one engine.

pub mod episode;
pub mod observation;
pub mod parse;
pub mod scheduler;
pub mod settings;
#[cfg(test)]
pub(crate) mod tests;
pub mod trajectory;
pub mod work;

pub use self::episode::{EpisodeJob, EpisodeLimits};
pub use self::scheduler::{
    Arrival, Arrivals, CarriedEpisode, Rollout, RolloutError, RolloutEvent, RolloutObserver,
    RolloutSettings, RolloutTimes, RolloutWork, roll_out, roll_out_as_they_come,
};
pub use self::trajectory::{EndReason, SearchRecord, Segment, SegmentKind, Trajectory};
