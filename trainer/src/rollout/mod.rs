//! Episodes, their trajectories and the scheduler that runs many of them.

pub mod trajectory;
