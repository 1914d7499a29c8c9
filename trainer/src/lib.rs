//! The trainer: rolls a policy out against `/retrieve`, scores it, updates it, saves it.
//!
//! Modules in reading order, which is the order a trajectory takes.

pub mod algo;
pub mod chat;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod convert;
pub mod data;
pub mod engine;
pub mod eval;
pub mod policy;
pub mod report;
pub mod reward;
pub mod rollout;
pub mod run;
pub mod search;
pub mod token;
pub mod track;
pub mod update;
