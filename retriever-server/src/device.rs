//! The devices of models and of vector search.

use std::fmt;
use std::str::FromStr;

/// A requested device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The first CUDA device if ONNX Runtime can use it, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device with this number; it is an error if it does not exist.
    Cuda(u16),
    /// Every CUDA device that can share the work; it is an error if there is none. Work that cannot be
    /// shared runs on the first.
    EveryCuda,
}

impl Device {
    /// Returns the number of the CUDA device for work that cannot be shared.
    pub(crate) fn first_cuda(self) -> u16 {
        match self {
            Self::Cuda(number) => number,
            Self::Auto | Self::Cpu | Self::EveryCuda => 0,
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::EveryCuda),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("is {text:?}, expected auto, cpu, cuda or cuda:N")),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
            Self::EveryCuda => formatter.write_str("cuda"),
        }
    }
}

/// The device that a model was opened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// The CPU, with ONNX Runtime's own kernels.
    Cpu,
    /// The CUDA device with this number.
    Cuda(u16),
}

impl fmt::Display for Provider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_as_it_is_written() {
        for device in
            [Device::Auto, Device::Cpu, Device::Cuda(0), Device::Cuda(7), Device::EveryCuda]
        {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!("cuda".parse(), Ok(Device::EveryCuda));
        for text in ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cuda:70000"] {
            let refused = text.parse::<Device>().unwrap_err();
            assert_eq!(refused, format!("is {text:?}, expected auto, cpu, cuda or cuda:N"));
        }
    }
}
