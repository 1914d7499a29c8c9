//! The kernels, compiled at run time by NVRTC for the device at hand. Machine code rather than PTX
//! is asked for, as a driver refuses PTX of a compiler that is newer than itself.

#![expect(unsafe_code, reason = "NVRTC is a C library")]

use std::ffi::{CStr, CString};

use cudarc::nvrtc::{result, sys};

use super::GpuError;
use super::pack::DeviceFormat;
use super::probe::guarded;

/// The kernels of a search.
pub(super) const SEARCH_SOURCE: &str = include_str!("kernels/search.cu");
/// The kernels that make rows and measure a device.
pub(super) const GAUGE_SOURCE: &str = include_str!("kernels/gauge.cu");

/// Machine code of the search kernels for a compute capability, such as (9, 0). Needs NVRTC, but
/// neither a driver nor a device.
pub fn compile(capability: (i32, i32), format: DeviceFormat) -> Result<Vec<u8>, GpuError> {
    compile_source(SEARCH_SOURCE, capability, format)
}

pub(super) fn compile_source(
    source: &str,
    capability: (i32, i32),
    format: DeviceFormat,
) -> Result<Vec<u8>, GpuError> {
    guarded(|| {
        // SAFETY: only looks whether the loader finds the library; its initialisers are NVIDIA's.
        if !unsafe { sys::is_culib_present() } {
            return Err(GpuError::NoCompiler);
        }
        let architecture = format!("sm_{}{}", capability.0, capability.1);
        let fail = |log: String| GpuError::Compile { architecture: architecture.clone(), log };
        let source = CString::new(source).map_err(|error| fail(error.to_string()))?;
        let program = Program(
            result::create_program(&source, Some(c"search.cu"))
                .map_err(|error| fail(format!("{error:?}")))?,
        );
        let options = [
            format!("--gpu-architecture={architecture}"),
            "--std=c++17".to_owned(),
            format!("--define-macro=FORMAT={}", format.name()),
        ];
        // SAFETY: the program was made above and is destroyed when it is dropped.
        unsafe { result::compile_program(program.0, &options) }.map_err(|error| {
            let log = program.log();
            fail(if log.is_empty() { format!("{error:?}") } else { log })
        })?;
        program.machine_code().map_err(fail)
    })
}

/// A program of NVRTC, destroyed when dropped.
struct Program(sys::nvrtcProgram);

impl Program {
    fn log(&self) -> String {
        // SAFETY: the program is alive.
        let Ok(log) = (unsafe { result::get_program_log(self.0) }) else {
            return String::new();
        };
        let bytes: Vec<u8> = log.into_iter().map(|byte| byte as u8).collect();
        CStr::from_bytes_until_nul(&bytes)
            .map(|text| text.to_string_lossy().trim().to_owned())
            .unwrap_or_default()
    }

    fn machine_code(&self) -> Result<Vec<u8>, String> {
        let mut length = 0;
        // SAFETY: the program is alive, and the place is that of a `usize`.
        let code = unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut length) };
        code.result().map_err(|error| format!("{error:?}"))?;
        let mut bytes = vec![0u8; length];
        // SAFETY: the buffer has the length that was just asked for.
        let code = unsafe { sys::nvrtcGetCUBIN(self.0, bytes.as_mut_ptr().cast()) };
        code.result().map_err(|error| format!("{error:?}"))?;
        if bytes.is_empty() { Err("no machine code".to_owned()) } else { Ok(bytes) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program is alive, and nobody uses it after this. What it answers to that
        // changes nothing.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}
