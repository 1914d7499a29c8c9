//! The memory and disk space that an index needs, compared with the machine's before anything is built
//! or loaded.
//!
//! [`collection`] measures the collection, [`needs`] has the formulas, [`machine`] queries the operating
//! system, and [`report`] compares the results.

pub mod collection;
pub mod needs;
pub mod machine;
pub mod report;
