//! The code that `retriever-server` and `trainer` share. It names neither axum nor tch.
//!
//! [`contract`] is what both services must agree on: the wire types of `/retrieve` and their client, the formats of
//! passages, questions and digests, the normalisation of answers, and everything that both must compute in the same
//! way. A change there changes both services.
//!
//! [`machine`] is what a machine offers to a program: files that are whole or absent, signals, the log, HTTP
//! clients with the system's certificates, matrix tiles of x86 processors, CUDA compilers. It knows nothing of searching
//! or training. `contract` uses `machine`, never the other way round.

pub mod contract;
pub mod machine;
