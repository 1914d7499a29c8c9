//! The checks that CUDA can be used. Their order matters: the bindings panic where a library or one
//! of its functions is missing.

#![expect(unsafe_code, reason = "the driver is a C library")]

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, DriverError, sys};

use super::GpuError;

/// The first generation with all the instructions that the kernels use.
const CAPABILITY_LEAST: (i32, i32) = (8, 0);

/// The properties of a device.
#[derive(Clone, Debug)]
pub struct DeviceSummary {
    /// The device's name.
    pub name: String,
    /// The compute capability: generation and variant.
    pub capability: (i32, i32),
    /// The number of multiprocessors.
    pub multiprocessors: u32,
    /// The most shared memory that a block can have, in bytes.
    pub shared_bytes: usize,
    /// Free memory, in bytes.
    pub free_bytes: u64,
    /// Total memory, in bytes.
    pub total_bytes: u64,
}

/// Runs code that calls the bindings, and turns a panic into an error.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, GpuError>) -> Result<T, GpuError> {
    shared::machine::cuda::guarded(work).unwrap_or_else(|text| Err(GpuError::Panicked(text)))
}

/// Converts a driver error without asking the driver for its text.
pub(super) fn driver_error(device: usize) -> impl Fn(DriverError) -> GpuError {
    move |error| GpuError::Driver { device, reason: format!("{:?}", error.0) }
}

/// Returns the number of CUDA devices, which is at least one.
pub fn devices() -> Result<usize, GpuError> {
    guarded(|| {
        // SAFETY: it only checks that the loader finds the library; the initialisers that run are
        // NVIDIA's.
        if !unsafe { sys::is_culib_present() } {
            return Err(GpuError::NoDriver);
        }
        match CudaContext::device_count() {
            Ok(count) if count > 0 => Ok(count as usize),
            Ok(_) => Err(GpuError::NoDevice("its list is empty".to_owned())),
            Err(error) => Err(GpuError::NoDevice(format!("{:?}", error.0))),
        }
    })
}

/// Returns the properties of a device, if it exists and is new enough.
pub(super) fn summary(device: usize) -> Result<DeviceSummary, GpuError> {
    let count = devices()?;
    if device >= count {
        return Err(GpuError::NoSuchDevice { asked: device, count });
    }
    guarded(|| {
        let context = CudaContext::new(device).map_err(driver_error(device))?;
        let attribute = |name| context.attribute(name).map_err(driver_error(device));
        let capability = context.compute_capability().map_err(driver_error(device))?;
        if capability < CAPABILITY_LEAST {
            let (major, minor) = capability;
            return Err(GpuError::TooOld { device, major, minor });
        }
        let (free, total) = context.mem_get_info().map_err(driver_error(device))?;
        Ok(DeviceSummary {
            name: context.name().map_err(driver_error(device))?,
            capability,
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
            shared_bytes: attribute(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )? as usize,
            free_bytes: free as u64,
            total_bytes: total as u64,
        })
    })
}

#[cfg(test)]
mod tests;
