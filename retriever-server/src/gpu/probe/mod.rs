//! Whether there is anything to compute on. Nothing here may be asked in another order: the
//! bindings panic where a library or one of its functions is missing.

#![expect(unsafe_code, reason = "the driver is a C library")]

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, DriverError, sys};

use super::GpuError;

/// The first generation with all that the kernels use.
const CAPABILITY_LEAST: (i32, i32) = (8, 0);

/// What a device says of itself.
#[derive(Clone, Debug)]
pub struct DeviceSummary {
    /// Its name.
    pub name: String,
    /// Its generation and variant.
    pub capability: (i32, i32),
    /// Its processors.
    pub multiprocessors: u32,
    /// Shared memory that a block can have, in bytes.
    pub shared_bytes: usize,
    /// Free memory, in bytes.
    pub free_bytes: u64,
    /// All memory, in bytes.
    pub total_bytes: u64,
}

/// Runs what calls the bindings; a panic of theirs becomes an error.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, GpuError>) -> Result<T, GpuError> {
    shared::cuda::guarded(work).unwrap_or_else(|text| Err(GpuError::Panicked(text)))
}

/// An error of the driver, without asking the driver for its text.
pub(super) fn driver_error(device: usize) -> impl Fn(DriverError) -> GpuError {
    move |error| GpuError::Driver { device, reason: format!("{:?}", error.0) }
}

/// How many CUDA devices there are; at least one.
pub fn devices() -> Result<usize, GpuError> {
    guarded(|| {
        // SAFETY: only looks whether the loader finds the library; its initialisers are NVIDIA's.
        if !unsafe { sys::is_culib_present() } {
            return Err(GpuError::NoDriver);
        }
        match CudaContext::device_count() {
            Ok(count) if count > 0 => Ok(count as usize),
            Ok(_) => Err(GpuError::NoDevice("it lists none".to_owned())),
            Err(error) => Err(GpuError::NoDevice(format!("{:?}", error.0))),
        }
    })
}

/// What a device says of itself, if it is there and new enough.
pub(super) fn summary(device: usize) -> Result<DeviceSummary, GpuError> {
    let count = devices()?;
    if device >= count {
        return Err(GpuError::NoSuchDevice { asked: device, count });
    }
    guarded(|| {
        let context = CudaContext::new(device).map_err(driver_error(device))?;
        let ask = |attribute| context.attribute(attribute).map_err(driver_error(device));
        let capability = context.compute_capability().map_err(driver_error(device))?;
        if capability < CAPABILITY_LEAST {
            let (major, minor) = capability;
            return Err(GpuError::TooOld { device, major, minor });
        }
        let (free, total) = context.mem_get_info().map_err(driver_error(device))?;
        Ok(DeviceSummary {
            name: context.name().map_err(driver_error(device))?,
            capability,
            multiprocessors: ask(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
            shared_bytes: ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?
                as usize,
            free_bytes: free as u64,
            total_bytes: total as u64,
        })
    })
}

#[cfg(test)]
mod tests;
