//! Where the decoder computes: chosen once, said once in the log, never a silent fall-back.

use outpost_kernels::Isa;

use crate::error::{Error, Result};

/// What the configuration asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// CUDA where it is present, else the CPU.
    #[default]
    Auto,
    /// The CPU, on kernels of our own.
    Cpu,
    /// CUDA or nothing.
    Cuda,
    /// The CPU through libtorch, with unpacked weights: the reference that the kernels are held against. Slow.
    Reference,
}

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// Kernels of our own.
    Cpu,
    /// libtorch.
    #[cfg(feature = "torch")]
    Torch(tch::Device),
}

/// The name of the kernels that this CPU takes.
///
/// # Errors
/// [`Error::Device`] when the environment asks for kernels that this CPU lacks.
pub fn cpu_kernels() -> Result<&'static str> {
    Isa::detect().map(Isa::name).map_err(Error::Device)
}

/// The device for a choice.
///
/// # Errors
/// [`Error::Device`] when what is asked for isn't there.
pub fn choose(choice: DeviceChoice) -> Result<Device> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Auto => Ok(cuda().unwrap_or(Device::Cpu)),
        DeviceChoice::Cuda => cuda().ok_or_else(|| Error::Device(no_cuda().into())),
        #[cfg(feature = "torch")]
        DeviceChoice::Reference => Ok(Device::Torch(tch::Device::Cpu)),
        #[cfg(not(feature = "torch"))]
        DeviceChoice::Reference => Err(Error::Device(
            "the reference needs libtorch: build with the feature `torch`".into(),
        )),
    }
}

#[cfg(feature = "torch")]
fn cuda() -> Option<Device> {
    tch::Cuda::is_available().then_some(Device::Torch(tch::Device::Cuda(0)))
}

#[cfg(not(feature = "torch"))]
fn cuda() -> Option<Device> {
    None
}

fn no_cuda() -> &'static str {
    if cfg!(feature = "torch") {
        "CUDA is asked for, but this libtorch finds no CUDA device: set up libtorch with CUDA, or choose `cpu`"
    } else {
        "CUDA is asked for, but this program was built without libtorch: build it with the feature `torch`, or choose `cpu`"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuda_is_never_replaced_silently() {
        assert_eq!(choose(DeviceChoice::Cpu).unwrap(), Device::Cpu);
        if cuda().is_none() {
            assert!(matches!(choose(DeviceChoice::Cuda), Err(Error::Device(_))));
            assert_eq!(choose(DeviceChoice::Auto).unwrap(), Device::Cpu);
        }
    }
}
