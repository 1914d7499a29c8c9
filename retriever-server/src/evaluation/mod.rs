//! Scores back ends with queries whose answers are known.

pub mod queries;
