//! The audit of a corpus: for each question, whether an accepted answer stands in it, and how far from the top a
//! retriever finds it.
//!
//! Owns the search for answers in passages (`answers`), the pass over a corpus (`pass`), and the result as a file with
//! the ceiling that follows (`file`, `ceiling`). Asks no retriever: `run` does. A text has an answer if the normalised
//! text contains the normalised answer as whole words, so the classes agree with what exact match can score.

mod answers;
mod ceiling;
mod file;
mod pass;
mod table;
#[cfg(test)]
mod tests;

pub use answers::{AnswerSet, MatchScratch};
pub use ceiling::{Ceiling, RetrieverCeiling};
pub use file::{
    AnswerClass, Audit, AuditError, AuditRow, AuditedCorpus, AuditedRetriever, AuditedSet,
    ClassWeights,
};
pub use pass::{CorpusCount, PassProgress, count_answers};
pub use table::audit_table;
