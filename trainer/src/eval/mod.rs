//! Evaluation on held-out questions: what came of it, and how sure that is.

mod result;
mod statistics;
mod table;

pub use result::{EvalError, EvalResult, EvalRow, Searches};
pub use statistics::{Interval, Mean, Proportion};
pub use table::{aligned, summary_table};
