//! The trainer: rolls a policy out against `/retrieve`, scores it, updates it, saves it.
//!
//! The modules are in reading order, which follows a trajectory from its question to the updated weights.

#[cfg(test)]
mod golden;
pub mod config;
pub mod stop;
pub mod data;
pub mod token;
pub mod jinja;
pub mod hub;
pub mod policy;
pub mod engine;
pub mod search;
pub mod rollout;
pub mod reward;
pub mod algo;
pub mod update;
pub mod critic;
pub mod checkpoint;
pub mod eval;
pub mod track;
pub mod report;
pub mod tracking;
pub mod chat;
pub mod serve;
pub mod convert;
pub mod lint;
pub mod run;
pub mod cli;
