//! The section of the record of searches.

use std::path::PathBuf;

use super::section::section;
use crate::search::record::{MissRule, RecordMode};

section! {
    /// A record of all searches and their passages, with which a run or an evaluation is repeated without a retriever.
    pub struct RecordConfig in "record" {
        /// Use of the record: `record` asks the retriever and records its answers, `replay` answers from the record
        /// alone, `fill` asks the retriever for what the record lacks and records that.
        mode: RecordMode = RecordMode::Off;
        /// File of the record; without it, `searches.jsonl` in the run folder. Runs and evaluations may share one, and one
        /// process at a time writes it.
        file: Option<PathBuf> = None;
        /// For `replay`: consequence of a query that the record has no answer to. `stop` ends the command with an error
        /// that names the query, `drop` drops the trajectory as a failed search does.
        on_miss: MissRule = MissRule::Stop;
        /// For `replay` of a record with several sources: beginning of the id, or of the index digest, of the one to
        /// replay.
        source: String = String::new();
    }
}
