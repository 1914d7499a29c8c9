//! Files, signals, the log, traces, HTTP clients, processors and CUDA compilers, as the machine offers them.

pub mod atomic_file;
pub mod cuda;
pub mod http;
pub mod instruction_set;
pub mod shutdown;
pub mod telemetry;
pub mod traces;
#[cfg(target_arch = "x86_64")]
pub mod tiles_x86;
