//! Why a GPU is not used, and whether there is one.

use std::path::{Path, PathBuf};

/// Device nodes that only a machine with an NVIDIA GPU has: of the desktop driver, and of Jetson's, new and old.
const NODES: [&str; 3] = ["dev/nvidia0", "dev/nvgpu", "dev/nvhost-gpu"];

/// Why the decoder can't compute on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoCuda {
    /// Built without libtorch.
    #[error("this program was built without libtorch")]
    NotBuilt,
    /// libtorch is one for the CPU.
    #[error("libtorch in {} has no CUDA part, libtorch_cuda.so", folder.display())]
    NotInstalled {
        /// Where libtorch lies.
        folder: PathBuf,
    },
    /// The CUDA part is there, and the loader refuses it.
    #[error("the CUDA part of libtorch was not loaded: {reason}")]
    NotLoaded {
        /// The loader's words.
        reason: String,
    },
    /// No NVIDIA GPU.
    #[error("CUDA was loaded, and there is no NVIDIA GPU in this machine")]
    NoDevice,
    /// There is one that this user, or the service's walls, may not open.
    #[error("no permission to open {}", node.display())]
    NoPermission {
        /// The device node.
        node: PathBuf,
    },
    /// libtorch needs a newer driver.
    #[error(
        "driver {driver} is too old for CUDA {cuda} of this libtorch, which needs {needed} or newer"
    )]
    DriverTooOld {
        /// Version of the driver.
        driver: String,
        /// Major version of libtorch's CUDA.
        cuda: u32,
        /// Major version of the oldest driver that runs it.
        needed: u32,
    },
    /// Everything is there, and libtorch counts no device all the same.
    #[error("libtorch finds no CUDA device, although {} is there", node.display())]
    NotFound {
        /// The device node.
        node: PathBuf,
    },
    /// A small product was refused, or is wrong.
    #[error("the GPU does not compute as it should: {0}")]
    Broken(String),
}

impl NoCuda {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotBuilt => "build with the feature `torch`, or set model.device to cpu",
            Self::NotInstalled { .. } => {
                "set up libtorch with CUDA (`cargo xtask setup --cuda`; docs/jetson.md says which one), or set model.device to cpu"
            }
            Self::NotLoaded { .. } => {
                "install the library that the loader names; `ldd` on libtorch_cuda.so lists all that are missing"
            }
            Self::NoDevice => {
                "set model.device to cpu or auto, or see that the NVIDIA driver is loaded"
            }
            Self::NoPermission { .. } => {
                "add the user to the groups video and render; a service needs the drop-in packaging/gpu.conf"
            }
            Self::DriverTooOld { .. } => {
                "update the driver (on a Jetson: JetPack), or set up a libtorch for an older CUDA; docs/jetson.md says which one fits"
            }
            Self::NotFound { .. } => {
                "see what `nvidia-smi` and the kernel's log (`dmesg`) say, and that CUDA_VISIBLE_DEVICES is not set"
            }
            Self::Broken(_) => {
                "set up a libtorch that is built for this GPU's architecture; docs/jetson.md says which one; until then set model.device to cpu"
            }
        }
    }
}

/// The device node of a GPU, if there is one.
pub(super) fn node(root: &Path) -> Option<PathBuf> {
    NODES.iter().map(|node| root.join(node)).find(|node| node.exists())
}
