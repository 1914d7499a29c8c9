//! The settings of a run's parts, each a function from the configuration to the type that a part takes.
//!
//! Below the commands, only these functions read [`Config`](crate::config::Config): everything else is passed
//! the settings that it needs.

pub(super) mod guard;
pub(super) mod model;
pub(super) mod objective;
pub(super) mod questions;
pub(super) mod reward;
pub(super) mod rollout;
pub(super) mod tracking;
