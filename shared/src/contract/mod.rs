//! Formats, protocols and computations that both services must agree on.

pub mod answer;
pub mod client;
pub mod dataset;
pub mod digest;
pub mod env_example;
pub mod gold;
pub mod jsonl;
pub mod passage;
pub mod python_json;
pub mod question;
pub mod retry;
pub mod rows;
pub mod splitmix;
pub mod wire;
