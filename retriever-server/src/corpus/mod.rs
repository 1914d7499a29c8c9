//! The passages themselves. `record` parses a line of a corpus file, `store` keeps passages on disk
//! and reads one by its row number, and `compact` compresses them.

pub mod record;
pub mod compact;
pub mod store;
