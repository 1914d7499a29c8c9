//! A record of searches: every answer of a retriever is kept under its content, so that a run can be repeated without the
//! retriever and is then equal.
//!
//! In reading order: what a record is of (`source`), its lines (`line`), the file (`file`), and the searcher that reads and
//! writes it (`searcher`). A failure is never recorded: it is not an answer.

mod source;
mod line;
mod file;
mod searcher;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use file::{Record, RecordError};
pub use searcher::RecordedSearcher;
pub use source::Source;

/// The use of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordMode {
    /// There is no record.
    Off,
    /// Asks the retriever once for each query of the process, and records the answers.
    Record,
    /// Answers from the record alone; no retriever is needed.
    Replay,
    /// Answers from the record what it has, asks the retriever for the rest, and records that.
    Fill,
}

/// The consequence of a query that a replayed record has no answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissRule {
    /// The command ends with an error that names the query.
    Stop,
    /// The search has failed, which drops its trajectory.
    Drop,
}

/// The settings of a record.
#[derive(Clone, Debug)]
pub struct RecordSettings {
    pub mode: RecordMode,
    /// The file of the record.
    pub file: PathBuf,
    pub on_miss: MissRule,
    /// The beginning of the id of the source to replay; empty if the record has only one.
    pub source: String,
    /// Longest wait for a retriever to say what it serves.
    pub patience: Duration,
}

/// The number of queries by where their answers came from. All are 0 without a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordCounters {
    /// Queries that the record answered.
    pub hits: u64,
    /// Queries that it had no answer to.
    pub misses: u64,
    /// Answers that were added to it.
    pub recorded: u64,
}

impl RecordCounters {
    /// Adds other counts.
    pub fn add(&mut self, other: Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.recorded += other.recorded;
    }
}
