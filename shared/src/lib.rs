//! What `retriever-server` and `trainer` must agree on, and nothing else: the wire types of
//! `/retrieve` and their client, HTTP clients, passages and dataset records, retry and deadlines,
//! telemetry, digests, atomic files, the normalisation of answers, the tiles of x86
//! processors, the compiling of CUDA kernels, the form of `.env.example`. It names neither axum nor tch.

pub mod answer;
pub mod atomic_file;
pub mod client;
pub mod cuda;
pub mod dataset;
pub mod digest;
pub mod env_example;
pub mod http;
pub mod instruction_set;
pub mod jsonl;
pub mod passage;
pub mod retry;
pub mod shutdown;
pub mod splitmix;
pub mod telemetry;
#[cfg(target_arch = "x86_64")]
pub mod tiles_x86;
pub mod wire;
