//! Where the decoder computes: chosen once, said once in the log, never a silent fall-back.

use tch::{Cuda, Device};

use crate::error::{Error, Result};

/// What the configuration asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// CUDA where it is present, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA or nothing.
    Cuda,
}

/// The device for a choice.
///
/// # Errors
/// [`Error::Device`] when CUDA is asked for and libtorch finds none.
pub fn choose(choice: DeviceChoice) -> Result<Device> {
    let present = choice != DeviceChoice::Cpu && Cuda::is_available();
    match (choice, present) {
        (DeviceChoice::Cuda, false) => Err(Error::Device(
            "CUDA is asked for, but this libtorch finds no CUDA device: set up libtorch with CUDA, or choose `cpu`"
                .into(),
        )),
        (_, true) => {
            tracing::info!(devices = Cuda::device_count(), "the decoder runs on CUDA device 0");
            Ok(Device::Cuda(0))
        }
        (_, false) => {
            tracing::info!(threads = tch::get_num_threads(), "the decoder runs on the CPU");
            Ok(Device::Cpu)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuda_is_never_replaced_silently() {
        assert_eq!(choose(DeviceChoice::Cpu).unwrap(), Device::Cpu);
        if !Cuda::is_available() {
            assert!(matches!(choose(DeviceChoice::Cuda), Err(Error::Device(_))));
            assert_eq!(choose(DeviceChoice::Auto).unwrap(), Device::Cpu);
        }
    }
}
