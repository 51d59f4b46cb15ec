//! Where the decoder computes: chosen once, said once in the log, never a silent fall-back.

mod cuda;
#[cfg(feature = "torch")]
mod library;
#[cfg(any(feature = "torch", test))]
mod probe;

use std::path::Path;
use std::str::FromStr;
use std::sync::OnceLock;

use outpost_kernels::Isa;

pub use self::cuda::NoCuda;
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

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "cuda" => Self::Cuda,
            "reference" => Self::Reference,
            _ => {
                return Err(Error::Device(format!(
                    "no device `{name}`: there are auto, cpu, cuda and reference"
                )));
            }
        })
    }
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

impl Device {
    /// Whether it is a GPU.
    pub fn is_gpu(self) -> bool {
        self != Self::Cpu && !self.is_reference()
    }

    #[cfg(feature = "torch")]
    fn is_reference(self) -> bool {
        self == Self::Torch(tch::Device::Cpu)
    }

    #[cfg(not(feature = "torch"))]
    fn is_reference(self) -> bool {
        false
    }
}

/// The name of the kernels that this CPU takes.
///
/// # Errors
/// [`Error::Device`] when the environment asks for kernels that this CPU lacks.
pub fn cpu_kernels() -> Result<&'static str> {
    Isa::detect().map(Isa::name).map_err(Error::Device)
}

/// The device for a choice. The first time that a GPU may be meant, CUDA's part of libtorch is loaded and small products are
/// computed on the GPU and compared.
///
/// # Errors
/// [`Error::Device`] when what is asked for isn't there.
pub fn choose(choice: DeviceChoice) -> Result<Device> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Auto => Ok(gpu().as_ref().copied().unwrap_or(Device::Cpu)),
        DeviceChoice::Cuda => gpu().clone().map_err(|reason| {
            Error::Device(format!("CUDA is asked for, but {reason}: {}", reason.remedy()))
        }),
        #[cfg(feature = "torch")]
        DeviceChoice::Reference => Ok(Device::Torch(tch::Device::Cpu)),
        #[cfg(not(feature = "torch"))]
        DeviceChoice::Reference => Err(Error::Device(
            "the reference needs libtorch: build with the feature `torch`".into(),
        )),
    }
}

/// Why no GPU is used, whether or not the machine has one, if [`choose`] was asked for [`DeviceChoice::Auto`] or
/// [`DeviceChoice::Cuda`].
pub fn no_gpu() -> Option<&'static NoCuda> {
    GPU.get()?.as_ref().err()
}

/// Why the GPU of this machine is passed over, if it has one and [`choose`] was asked for [`DeviceChoice::Auto`] or
/// [`DeviceChoice::Cuda`].
pub fn unused_gpu() -> Option<&'static NoCuda> {
    no_gpu().filter(|_| cuda::node(Path::new("/")).is_some())
}

/// What a process finds out once: CUDA's part of libtorch can't be loaded later, or another device appear.
static GPU: OnceLock<std::result::Result<Device, NoCuda>> = OnceLock::new();

fn gpu() -> &'static std::result::Result<Device, NoCuda> {
    GPU.get_or_init(|| {
        let found = examine();
        match &found {
            Ok(device) => tracing::info!(?device, "a GPU is there, and computes as it should"),
            Err(reason) if cuda::node(Path::new("/")).is_some() => {
                tracing::warn!(%reason, remedy = reason.remedy(), "the GPU of this machine is not used");
            }
            Err(reason) => tracing::info!(%reason, "no GPU"),
        }
        found
    })
}

#[cfg(not(feature = "torch"))]
fn examine() -> std::result::Result<Device, NoCuda> {
    Err(NoCuda::NotBuilt)
}

#[cfg(feature = "torch")]
fn examine() -> std::result::Result<Device, NoCuda> {
    probe::examine(&here::Here).map(|()| Device::Torch(here::DEVICE))
}

/// This machine.
#[cfg(feature = "torch")]
mod here {
    use std::fs::OpenOptions;
    use std::io;
    use std::path::Path;

    use super::NoCuda;
    use super::library;
    use super::probe::Machine;
    use crate::quantized;

    pub(super) const DEVICE: tch::Device = tch::Device::Cuda(0);

    pub(super) struct Here;

    impl Machine for Here {
        fn root(&self) -> &Path {
            Path::new("/")
        }

        fn open(&self, node: &Path) -> io::Result<()> {
            OpenOptions::new().read(true).write(true).open(node).map(drop)
        }

        fn load(&self) -> Result<(), NoCuda> {
            library::load_cuda()
        }

        fn cuda_version(&self) -> Option<u32> {
            library::cuda_version()
        }

        fn has_device(&self) -> bool {
            tch::Cuda::is_available()
        }

        fn product(&self) -> Result<(), String> {
            quantized::check(DEVICE).unwrap_or_else(|fault| Err(fault.to_string()))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Where tests compute: what `OUTPOST_TEST_DEVICE` names, else the CPU.
    pub(crate) fn test_device() -> DeviceChoice {
        match std::env::var("OUTPOST_TEST_DEVICE") {
            Ok(name) => name.parse().unwrap(),
            Err(_) => DeviceChoice::Cpu,
        }
    }

    /// The same for tests of what libtorch computes.
    #[cfg(feature = "torch")]
    pub(crate) fn torch_device() -> tch::Device {
        match choose(test_device()).unwrap() {
            Device::Cpu => tch::Device::Cpu,
            Device::Torch(device) => device,
        }
    }

    #[test]
    fn cuda_is_never_replaced_silently() {
        assert_eq!(choose(DeviceChoice::Cpu).unwrap(), Device::Cpu);
        match gpu() {
            Ok(device) => {
                assert_eq!(choose(DeviceChoice::Auto).unwrap(), *device);
                assert_eq!(unused_gpu(), None);
            }
            Err(reason) => {
                assert_eq!(choose(DeviceChoice::Auto).unwrap(), Device::Cpu);
                let fault = choose(DeviceChoice::Cuda).unwrap_err().to_string();
                assert!(fault.contains(&reason.to_string()), "{fault}");
                assert!(fault.contains(reason.remedy()), "{fault}");
                assert_eq!(unused_gpu().is_some(), cuda::node(Path::new("/")).is_some());
            }
        }
    }

    #[test]
    fn devices_have_names() {
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda);
        let fault = "gpu".parse::<DeviceChoice>().unwrap_err().to_string();
        assert!(fault.contains("reference"), "{fault}");
    }
}
