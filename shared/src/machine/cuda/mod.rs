//! CUDA kernels that are compiled at run time: by NVRTC for a device, and by a C++ compiler for tests on machines
//! without one.
//!
//! Check that the library exists before any other call: the bindings panic if a library or one of its functions is
//! missing.

#![expect(unsafe_code, reason = "NVRTC is a C library")]

pub mod emulated;

use std::ffi::{CStr, CString};
use std::panic::{AssertUnwindSafe, catch_unwind};

use cudarc::nvrtc::{result, sys};
use thiserror::Error;

/// The reason why kernels were not compiled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompileError {
    /// The compiler's library is missing.
    #[error("NVRTC is missing: found no libnvrtc.so that the loader knows (LD_LIBRARY_PATH)")]
    NoCompiler,
    /// The kernels did not compile.
    #[error("the kernels do not compile for {architecture}: {log}")]
    Failed {
        /// Target architecture.
        architecture: String,
        /// Output of the compiler.
        log: String,
    },
    /// A function of the library is missing, or the bindings panicked for another reason.
    #[error("NVRTC failed: {0}")]
    Panicked(String),
}

/// Runs `work`, which calls the bindings.
///
/// # Errors
/// The text of a panic in `work`.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
    })
}

/// Compiles `source` to machine code for a compute capability such as (9, 0), with macros such as `WIDTH=4`; `name`
/// is the name of the source in messages. It compiles to machine code because a driver refuses PTX of a compiler that
/// is newer than itself. Needs NVRTC, but neither a driver nor a device.
pub fn compile(
    source: &str,
    name: &CStr,
    capability: (i32, i32),
    macros: &[String],
) -> Result<Vec<u8>, CompileError> {
    let compiled = guarded(|| {
        // SAFETY: the call only loads the library, whose initialisers are NVIDIA's.
        if !unsafe { sys::is_culib_present() } {
            return Err(CompileError::NoCompiler);
        }
        let architecture = format!("sm_{}{}", capability.0, capability.1);
        let fail = |log: String| CompileError::Failed { architecture: architecture.clone(), log };
        let source = CString::new(source).map_err(|error| fail(error.to_string()))?;
        let program = Program(
            result::create_program(&source, Some(name))
                .map_err(|error| fail(format!("{error:?}")))?,
        );
        let mut options =
            vec![format!("--gpu-architecture={architecture}"), "--std=c++17".to_owned()];
        options.extend(macros.iter().map(|definition| format!("--define-macro={definition}")));
        // SAFETY: the program was made above and is destroyed when it is dropped.
        unsafe { result::compile_program(program.0, &options) }.map_err(|error| {
            let log = program.log();
            fail(if log.is_empty() { format!("{error:?}") } else { log })
        })?;
        program.machine_code().map_err(fail)
    });
    compiled.unwrap_or_else(|text| Err(CompileError::Panicked(text)))
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
        // SAFETY: the program is alive, and the pointer is that of a `usize`.
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
        // SAFETY: the program is alive and is not used after this. A failure cannot be handled here.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}
