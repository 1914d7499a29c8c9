//! The passages themselves. `record` reads those of a corpus file, `store` keeps passages on disk
//! and reads one by its row number, `compact` compresses them, and `pages` finds them by their addresses.

pub mod record;
pub mod compact;
pub mod store;
pub mod pages;
