//! The kernels' own text, compiled for the processor and driven by the same runner.

#![expect(unsafe_code, reason = "the kernels are C++")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use libloading::{Library, Symbol};

use super::arguments::{Launch, Launcher};
use super::device::SOURCE;
use super::shape::KernelShape;

type Emulate = unsafe extern "C" fn(*const c_char, u32, u32, *const c_void) -> c_int;

/// The libraries of the shapes so far. The lock also serialises launches, because the emulated device is global
/// to its library.
static LIBRARIES: LazyLock<Mutex<BTreeMap<Vec<String>, Arc<Library>>>> =
    LazyLock::new(|| Mutex::new(BTreeMap::new()));

/// An emulated device in the memory of the process.
#[derive(Debug)]
pub(super) struct EmulatedDevice {
    library: Arc<Library>,
    multiprocessors: u32,
}

impl EmulatedDevice {
    /// Creates a device for a shape, which reports `multiprocessors` multiprocessors.
    pub(super) fn new(shape: KernelShape, multiprocessors: u32) -> Self {
        let mut libraries = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
        let build = || {
            let folder = tempfile::tempdir().unwrap();
            let files =
                [("rollout.cc", SOURCE), ("emulated.cc", include_str!("kernels/emulated.cc"))];
            let library =
                shared::machine::cuda::emulated::build(folder.path(), &files, &shape.macros())
                    .unwrap();
            // SAFETY: the library was just built, and runs no code when it is loaded.
            Arc::new(unsafe { Library::new(library) }.unwrap())
        };
        let library = Arc::clone(libraries.entry(shape.macros()).or_insert_with(build));
        Self { library, multiprocessors }
    }

    /// Returns the size of a kernel's arguments in bytes.
    pub(super) fn argument_bytes(&self, kernel: &str) -> u32 {
        let name = CString::new(kernel).unwrap();
        // SAFETY: the function of `emulated.cc` has this type, and only reads the name.
        unsafe {
            let bytes: Symbol<'_, unsafe extern "C" fn(*const c_char) -> u32> =
                self.library.get(b"argument_bytes").unwrap();
            bytes(name.as_ptr())
        }
    }
}

impl Launcher for EmulatedDevice {
    type Fault = Infallible;

    unsafe fn launch(&self, launch: &Launch, blocks: u32) -> Result<(), Infallible> {
        let _alone = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
        let name = CString::new(Launch::NAMES[launch.number()]).unwrap();
        let arguments: *const c_void = match launch {
            Launch::AddNorm(arguments) => (&raw const *arguments).cast(),
            Launch::RotateAndStore(arguments) => (&raw const *arguments).cast(),
            Launch::Attend(arguments) | Launch::JoinParts(arguments) => {
                (&raw const *arguments).cast()
            }
            Launch::Gate(arguments) => (&raw const *arguments).cast(),
            Launch::DrawTokens(arguments) => (&raw const *arguments).cast(),
        };
        // SAFETY: the function of `emulated.cc` has this type, and the caller upholds the contract.
        let unknown = unsafe {
            let emulate: Symbol<'_, Emulate> = self.library.get(b"emulate").unwrap();
            emulate(name.as_ptr(), blocks, launch.threads(), arguments)
        };
        assert_eq!(unknown, 0, "{name:?}");
        Ok(())
    }

    fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }
}
