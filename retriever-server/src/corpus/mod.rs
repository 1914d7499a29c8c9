//! The passages themselves: how a line of a corpus file becomes a passage, and how passages are
//! kept on disk so that a row number finds one without a search.

pub mod record;
pub mod compact;
pub mod store;
