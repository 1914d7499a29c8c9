//! The passages themselves. `record` reads those of a corpus file, `store` keeps passages on disk
//! and reads one by its row number, and `compact` compresses them.

pub mod record;
pub mod compact;
pub mod store;
