//! Results of evaluations on held-out questions, with confidence intervals, and the ceiling of a corpus.

pub mod audit;
mod result;
mod statistics;
mod table;

pub use result::{EvalError, EvalResult, EvalRow, Searches};
pub use statistics::{Interval, Mean, Proportion};
pub use table::{aligned, summary_table};
