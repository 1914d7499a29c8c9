//! Kernels compiled for a CUDA device and launched on it, together with libtorch.
//!
//! **Invariant:** the context is the device's primary context and the stream is the legacy default stream,
//! which libtorch uses too. Kernels of both therefore run in the order of their launches, and libtorch's
//! allocator reuses freed memory only for later launches.

#![expect(unsafe_code, reason = "kernels run outside of Rust, on a device")]

use std::sync::Arc;

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{
    CudaContext, CudaFunction, CudaStream, DeviceRepr, DriverError, LaunchConfig, PushKernelArg,
    sys,
};
use cudarc::nvrtc::Ptx;
use shared::machine::cuda::{compile, guarded};

use super::arguments::{Launch, Launcher};
use super::shape::KernelShape;

/// The kernels' text.
pub(super) const SOURCE: &str = include_str!("kernels/rollout.cu");

/// The oldest supported compute capability, the same as for the retriever's kernels.
const CAPABILITY_LEAST: (i32, i32) = (8, 0);

/// A device with the kernels that are compiled for one model's shape.
#[derive(Debug)]
pub(super) struct CudaLauncher {
    device: usize,
    stream: Arc<CudaStream>,
    /// In the order of [`Launch::NAMES`].
    kernels: Vec<CudaFunction>,
    multiprocessors: u32,
}

impl CudaLauncher {
    /// Compiles the kernels for a device.
    ///
    /// # Errors
    /// The driver is missing, the device is too old, or a call of the driver or the compiler failed.
    pub(super) fn open(device: usize, shape: KernelShape) -> Result<Self, String> {
        let opened = guarded(|| {
            // SAFETY: this only checks that the loader finds the library, whose initialisers are NVIDIA's.
            if !unsafe { sys::is_culib_present() } {
                return Err("there is no NVIDIA driver (libcuda.so.1)".to_owned());
            }
            let fail = driver_error(device);
            let context = CudaContext::new(device).map_err(&fail)?;
            let capability = context.compute_capability().map_err(&fail)?;
            if capability < CAPABILITY_LEAST {
                let (major, minor) = capability;
                return Err(format!(
                    "CUDA device {device} has compute capability {major}.{minor}, expected at least 8.0"
                ));
            }
            let count = Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
            let multiprocessors = context.attribute(count).map_err(&fail)? as u32;
            let code = compile(SOURCE, c"rollout.cu", capability, &shape.macros())
                .map_err(|error| error.to_string())?;
            let module = context.load_module(Ptx::from_binary(code)).map_err(&fail)?;
            let function = |name: &&str| module.load_function(name).map_err(&fail);
            let kernels = Launch::NAMES.iter().map(function).collect::<Result<_, _>>()?;
            Ok(Self { device, stream: context.default_stream(), kernels, multiprocessors })
        });
        opened.unwrap_or_else(Err)
    }

    /// Launches a kernel with its arguments.
    ///
    /// # Safety
    /// The contract of [`Launcher::launch`]; `arguments` must be those of the kernel.
    unsafe fn start<A: DeviceRepr>(
        &self,
        launch: &Launch,
        blocks: u32,
        arguments: &A,
    ) -> Result<(), String> {
        let config = LaunchConfig {
            grid_dim: (blocks, 1, 1),
            block_dim: (launch.threads(), 1, 1),
            shared_mem_bytes: 0,
        };
        let mut builder = self.stream.launch_builder(&self.kernels[launch.number()]);
        builder.arg(arguments);
        // SAFETY: the caller upholds the contract of `Launcher::launch`.
        let launched = unsafe { builder.launch(config) };
        launched.map(drop).map_err(driver_error(self.device))
    }
}

impl Launcher for CudaLauncher {
    type Fault = String;

    unsafe fn launch(&self, launch: &Launch, blocks: u32) -> Result<(), String> {
        // SAFETY: the caller upholds the contract, and each kernel gets the arguments of its own variant.
        unsafe {
            match launch {
                Launch::AddNorm(arguments) => self.start(launch, blocks, arguments),
                Launch::RotateAndStore(arguments) => self.start(launch, blocks, arguments),
                Launch::Attend(arguments) | Launch::JoinParts(arguments) => {
                    self.start(launch, blocks, arguments)
                }
                Launch::Gate(arguments) => self.start(launch, blocks, arguments),
                Launch::DrawTokens(arguments) => self.start(launch, blocks, arguments),
            }
        }
    }

    fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }
}

/// Describes an error of the driver by its number, without calling the driver.
fn driver_error(device: usize) -> impl Fn(DriverError) -> String {
    move |error| format!("CUDA device {device}: {:?}", error.0)
}
