//! Exact search on CUDA devices. CUDA is loaded on first use, so the same program also runs on
//! machines without it and reports what is missing.
//!
//! A search takes these steps:
//!
//! 1. `pack` packs the queries in the format of the rows on the devices.
//! 2. Each device searches its share of the rows on a thread of its own (`owner`), in phases of
//!    growing size (`search`).
//! 3. A phase multiplies rows with queries (`kernels/search.cu`) and compares each product with its
//!    query's threshold before the product leaves its register. The few that pass are appended to
//!    the query's list, which is then sorted and truncated.
//! 4. The hits are scored again from the host's rows, so the coarser format on the devices only
//!    selects the candidates.
//!
//! **Invariant:** no hit is lost. If a list overflows, its phase is repeated with fewer rows, and a
//! small enough phase cannot overflow.
//! **Invariant:** the tests run the text of the kernels on the processor (`emulated`), under the
//! same loop of phases.

mod pack;
mod keys;
mod shape;
mod plan;
mod compile;
mod search;
mod cuda;
#[cfg(test)]
mod emulated;
mod owner;
mod probe;
mod index;
pub mod synthetic;

pub use compile::compile;
pub use cuda::CudaDevice;
pub use index::{GpuIndex, GpuOptions, choose};
pub use pack::{DeviceFormat, Layout, PackedQueries};
pub use probe::{DeviceSummary, devices};
pub use search::{RowSearcher, search};
pub use shape::{BATCH_QUERIES_MAX, KEEP_MAX};

use shared::machine::cuda::CompileError;
use thiserror::Error;

/// A reason why CUDA devices cannot be used, or stopped working.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GpuError {
    /// The driver's library is missing.
    #[error("there is no NVIDIA driver (libcuda.so.1)")]
    NoDriver,
    /// The driver reports no device.
    #[error("the NVIDIA driver has no device: {0}")]
    NoDevice(String),
    /// The requested device does not exist.
    #[error("there is no CUDA device {asked}, expected a number below {count}")]
    NoSuchDevice {
        /// The requested number.
        asked: usize,
        /// The number of devices.
        count: usize,
    },
    /// The device lacks instructions that the kernels need.
    #[error("CUDA device {device} has compute capability {major}.{minor}, expected at least 8.0")]
    TooOld {
        /// The device's number.
        device: usize,
        /// The generation.
        major: i32,
        /// The variant within the generation.
        minor: i32,
    },
    /// The kernels could not be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The rows do not fit on the devices.
    #[error("{}", plan::too_large(*needed_bytes, *free_bytes, *devices, *bytes_as_i8))]
    TooLarge {
        /// Bytes of rows and buffers on all devices together.
        needed_bytes: u64,
        /// Free bytes on all devices together.
        free_bytes: u64,
        /// The number of devices.
        devices: usize,
        /// Bytes that `i8` rows would need; `None` if the rows are already `i8`.
        bytes_as_i8: Option<u64>,
    },
    /// A call of the driver failed.
    #[error("CUDA device {device}: {reason}")]
    Driver {
        /// The device's number.
        device: usize,
        /// The driver's error.
        reason: String,
    },
    /// The CUDA bindings panicked, for example because a function of the libraries is missing.
    #[error("CUDA failed: {0}")]
    Panicked(String),
    /// The queue of searches for a device is full.
    #[error("too many searches wait for CUDA device {0}")]
    Busy(usize),
}
