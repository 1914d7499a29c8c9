//! Results of evaluations on held-out questions, with confidence intervals: of one set, of several, and of two models on
//! the same questions. Also the ceiling of a corpus.

mod statistics;
pub mod audit;
mod result;
mod sets;
mod paired;
mod table;
mod suite;

pub use paired::{Flip, PairedDifference, Pairing, bootstrap, mcnemar, pair};
pub use result::{EvalError, EvalResult, EvalRow, Method, Searches};
pub use sets::{Coverage, OtherSet, PUBLISHED_SETS, PublishedSet, coverage};
pub use statistics::{Interval, Mean, Proportion};
pub use suite::{Averages, Figure, Suite, SuiteAverage, SuiteRow};
pub use table::{aligned, summary_table};
