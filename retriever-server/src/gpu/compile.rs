//! The kernels, compiled at run time for the device of this machine.

use std::ffi::CStr;

use shared::machine::cuda::{self, CompileError};

use super::pack::DeviceFormat;

/// The source of the search kernels.
pub(super) const SEARCH_SOURCE: &str = include_str!("kernels/search.cu");
/// The source of the kernels that generate rows and measure a device.
const GAUGE_SOURCE: &str = include_str!("kernels/gauge.cu");

/// Compiles the search kernels for a compute capability such as (9, 0). Needs NVRTC, but neither a
/// driver nor a device.
pub fn compile(capability: (i32, i32), format: DeviceFormat) -> Result<Vec<u8>, CompileError> {
    compile_source(SEARCH_SOURCE, c"search.cu", capability, format)
}

/// Compiles the kernels that generate rows and measure a device.
pub(super) fn compile_gauge(
    capability: (i32, i32),
    format: DeviceFormat,
) -> Result<Vec<u8>, CompileError> {
    compile_source(GAUGE_SOURCE, c"gauge.cu", capability, format)
}

fn compile_source(
    source: &str,
    name: &CStr,
    capability: (i32, i32),
    format: DeviceFormat,
) -> Result<Vec<u8>, CompileError> {
    let macros = [format!("FORMAT={}", format.name())];
    cuda::compile(source, name, capability, &macros)
}
