//! The device and number type that the model computes with.

use shared::machine::instruction_set::{InstructionSet, widest};
use tch::{Device, Kind};

/// A device, and the type of activations and matrix products on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compute {
    pub device: Device,
    pub kind: Kind,
}

/// The reason why a device or type cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("model.device = {name}; accepted: auto, cpu, cuda and cuda:N")]
    UnknownDevice { name: String },
    #[error("model.device = {name}: this machine has {devices} CUDA devices, counted from cuda:0")]
    NoCuda { name: String, devices: usize },
    #[error("model.dtype = {name}; accepted: auto, f32 and bf16")]
    UnknownDtype { name: String },
}

/// Chooses the device and type from `model.device` (`auto`, `cpu`, `cuda`, `cuda:N`) and `model.dtype` (`auto`,
/// `f32`, `bf16`). `auto` selects CUDA if there is a device, and bf16 if the hardware multiplies it faster than
/// f32.
///
/// # Errors
/// Fails on an unknown name or a device that does not exist.
pub fn select_compute(device: &str, dtype: &str) -> Result<Compute, DeviceError> {
    let wants_cuda = device == "auto" || device.starts_with("cuda");
    let cuda_devices = if wants_cuda { cuda::device_count() } else { 0 };
    let device = match device {
        "auto" if cuda_devices > 0 => Device::Cuda(0),
        "auto" | "cpu" => Device::Cpu,
        name => {
            let index = match name.strip_prefix("cuda") {
                Some("") => Some(0),
                Some(rest) => rest.strip_prefix(':').and_then(|index| index.parse::<usize>().ok()),
                None => None,
            };
            let index =
                index.ok_or_else(|| DeviceError::UnknownDevice { name: name.to_owned() })?;
            if index >= cuda_devices {
                let (name, devices) = (name.to_owned(), cuda_devices);
                return Err(DeviceError::NoCuda { name, devices });
            }
            Device::Cuda(index)
        }
    };
    let kind = match dtype {
        "bf16" => Kind::BFloat16,
        "auto" if device.is_cuda() || cpu_multiplies_bf16() => Kind::BFloat16,
        "auto" | "f32" => Kind::Float,
        name => return Err(DeviceError::UnknownDtype { name: name.to_owned() }),
    };
    Ok(Compute { device, kind })
}

/// Sets the number of threads of one tensor operation. 0 keeps libtorch's choice, one per core.
pub fn set_threads(threads: usize) {
    if threads > 0 {
        tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    }
}

/// Returns the number of threads of one tensor operation.
pub fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).expect("libtorch computes with at least one thread")
}

fn cpu_multiplies_bf16() -> bool {
    widest() >= InstructionSet::Avx512Bf16
}

mod cuda {
    //! The only code that loads `libtorch_cuda`.
    //!
    //! Linkers drop a library if no symbol of it is used, so the CUDA half of libtorch is loaded by hand. This
    //! happens before the first query about CUDA, because libtorch caches its first answer.

    use std::sync::OnceLock;

    static DEVICES: OnceLock<usize> = OnceLock::new();

    /// Returns the number of CUDA devices: 0 without the CUDA libtorch, a driver or a device.
    pub(super) fn device_count() -> usize {
        *DEVICES.get_or_init(|| {
            load();
            let devices = if tch::Cuda::is_available() { tch::Cuda::device_count() } else { 0 };
            usize::try_from(devices).expect("a number of devices is not negative")
        })
    }

    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "loading a library runs its initialisers")]
    fn load() {
        use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
        // SAFETY: `libtorch_cuda.so` is libtorch's own library, and its initialisers only register operators.
        // The handle is leaked, so the library is never unloaded.
        match unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) } {
            Ok(library) => std::mem::forget(library),
            Err(error) => tracing::debug!(%error, "no CUDA libtorch, computing on the CPU"),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn load() {}
}
