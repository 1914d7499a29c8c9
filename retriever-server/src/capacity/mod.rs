//! What an index needs of memory and disk, before anything is built or loaded, beside what the
//! machine has.
//!
//! [`collection`] finds out how large the collection is, [`needs`] has the formulas, [`machine`]
//! asks the operating system, [`report`] shows the one beside the other.

pub mod collection;
pub mod machine;
pub mod needs;
pub mod report;
