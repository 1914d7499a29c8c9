//! Exact search on CUDA devices. CUDA is loaded when it is asked for: the same program runs where
//! there is none, and says so.
//!
//! The way of a search: queries are packed as the rows on the devices are (`pack`), every device
//! searches its own part of the rows (`owner`, one thread each), in phases that grow (`search`).
//! A phase multiplies rows with queries and compares each product with its query's threshold
//! before it leaves its register; the few that pass go to a list a query, which is then sorted and
//! cut (`kernels/search.cu`). What the devices find is scored again from the rows of the host, so
//! that what they store coarsely only decides who is looked at.
//!
//! **Invariant:** a hit is never lost: a list that runs over has its phase done again with fewer
//! rows, and a phase of few enough rows cannot run over.
//! **Invariant:** `twin` does on the processor what the kernels do, under the same loop of phases.

mod compile;
mod cuda;
#[cfg(test)]
mod emulated;
mod index;
mod keys;
mod owner;
mod pack;
mod plan;
mod probe;
mod search;
mod shape;
pub mod synthetic;
mod twin;

pub use compile::compile;
pub use cuda::Board;
pub use index::{GpuIndex, GpuOptions, choose};
pub use pack::{DeviceFormat, Layout, PackedQueries};
pub use probe::{DeviceSummary, devices};
pub use search::{Machine, search};
pub use shape::{BATCH_QUERIES_MAX, KEEP_MAX};
pub use twin::Twin;

use thiserror::Error;

/// Why CUDA devices cannot be used, or stopped working.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GpuError {
    /// The driver's library is not there.
    #[error("there is no NVIDIA driver (libcuda.so.1)")]
    NoDriver,
    /// The driver has no device.
    #[error("the NVIDIA driver has no device: {0}")]
    NoDevice(String),
    /// A device that was asked for is not there.
    #[error("there is no CUDA device {asked}, expected a number below {count}")]
    NoSuchDevice {
        /// Number that was asked for.
        asked: usize,
        /// Devices that are there.
        count: usize,
    },
    /// The device lacks instructions that the kernels need.
    #[error("CUDA device {device} has compute capability {major}.{minor}, expected at least 8.0")]
    TooOld {
        /// Its number.
        device: usize,
        /// Its generation.
        major: i32,
        /// Its variant.
        minor: i32,
    },
    /// The compiler's library is not there.
    #[error("NVRTC is missing: found no libnvrtc.so that the loader knows (LD_LIBRARY_PATH)")]
    NoCompiler,
    /// The kernels did not compile.
    #[error("the kernels do not compile for {architecture}: {log}")]
    Compile {
        /// What they were compiled for.
        architecture: String,
        /// What the compiler said.
        log: String,
    },
    /// The rows do not fit.
    #[error("{}", plan::too_large(*needed_bytes, *free_bytes, *devices, *bytes_as_i8))]
    TooLarge {
        /// Bytes of rows and of buffers, on all devices.
        needed_bytes: u64,
        /// Bytes that are free on all devices.
        free_bytes: u64,
        /// Number of devices.
        devices: usize,
        /// Bytes that would be needed for rows of bytes; `None` if they are.
        bytes_as_i8: Option<u64>,
    },
    /// The driver refused something.
    #[error("CUDA device {device}: {reason}")]
    Driver {
        /// Its number.
        device: usize,
        /// What the driver said.
        reason: String,
    },
    /// A function of the libraries is missing, or something else that should not happen did.
    #[error("CUDA failed: {0}")]
    Panicked(String),
    /// More searches wait for a device than its queue takes.
    #[error("too many searches wait for CUDA device {0}")]
    Busy(usize),
}

/// A machine that cannot fail, such as the twin, goes where one that can does.
impl From<std::convert::Infallible> for GpuError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
