//! Whether a GPU can be used, and if not, why: asked of the machine in the order in which things go wrong.

use std::io;
use std::path::{Path, PathBuf};

use super::cuda::{NoCuda, node};

/// What CUDA opens beside them, where it is there.
const BESIDE: [&str; 4] = ["dev/nvidiactl", "dev/nvidia-uvm", "dev/nvmap", "dev/host1x-fence"];
/// Major versions of CUDA, and of the oldest driver that runs them.
const DRIVERS: [(u32, u32); 3] = [(11, 450), (12, 525), (13, 580)];

/// What is asked of a machine.
pub(super) trait Machine {
    /// Root of the file system.
    fn root(&self) -> &Path;
    /// Opens a device node and closes it.
    fn open(&self, node: &Path) -> io::Result<()>;
    /// Loads CUDA's part of libtorch.
    fn load(&self) -> Result<(), NoCuda>;
    /// Major version of CUDA that libtorch brings.
    fn cuda_version(&self) -> Option<u32>;
    /// Whether libtorch counts a device.
    fn has_device(&self) -> bool;
    /// Multiplies small matrices on the device and compares.
    fn product(&self) -> Result<(), String>;
}

/// Whether the GPU of a machine can be used.
pub(super) fn examine(machine: &dyn Machine) -> Result<(), NoCuda> {
    machine.load()?;
    if !machine.has_device() {
        return Err(reason(machine));
    }
    machine.product().map_err(NoCuda::Broken)
}

/// Why libtorch counts no device.
fn reason(machine: &dyn Machine) -> NoCuda {
    let root = machine.root();
    let Some(node) = node(root) else { return NoCuda::NoDevice };
    let beside = BESIDE.iter().map(|node| root.join(node)).filter(|node| node.exists());
    for node in files(&node).into_iter().chain(beside) {
        let refused =
            machine.open(&node).is_err_and(|fault| fault.kind() == io::ErrorKind::PermissionDenied);
        if refused {
            return NoCuda::NoPermission { node };
        }
    }
    let driver = std::fs::read_to_string(root.join("proc/driver/nvidia/version"));
    let driver = driver.ok().and_then(|text| driver_version(&text));
    let needed = machine
        .cuda_version()
        .and_then(|cuda| DRIVERS.into_iter().find(|(version, _)| *version == cuda));
    if let (Some(driver), Some((cuda, needed))) = (driver, needed)
        && major(&driver).is_some_and(|major| major < needed)
    {
        return NoCuda::DriverTooOld { driver, cuda, needed };
    }
    NoCuda::NotFound { node }
}

/// The node itself, or one of each folder below it: on a Jetson, `/dev/nvgpu/igpu0/ctrl`.
fn files(node: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(node) else { return vec![node.to_path_buf()] };
    let folders = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    folders.map(|folder| folder.join("ctrl")).filter(|ctrl| ctrl.exists()).collect()
}

/// The version in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan …`.
fn driver_version(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version"))?;
    let is_version =
        |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(is_version).map(str::to_owned)
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine of files, on which these nodes may not be opened.
    struct Stub {
        root: tempfile::TempDir,
        closed: &'static str,
        load: Result<(), NoCuda>,
        cuda: Option<u32>,
        has_device: bool,
        product: Result<(), String>,
    }

    impl Stub {
        /// All is well, but for what libtorch counts.
        fn new(files: &[(&str, &str)]) -> Self {
            let root = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = root.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            let (load, product, cuda) = (Ok(()), Ok(()), Some(13));
            Self { root, closed: "none", load, cuda, has_device: false, product }
        }
    }

    impl Machine for Stub {
        fn root(&self) -> &Path {
            self.root.path()
        }

        fn open(&self, node: &Path) -> io::Result<()> {
            if node.ends_with(self.closed) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            std::fs::File::open(node).map(drop)
        }

        fn load(&self) -> Result<(), NoCuda> {
            self.load.clone()
        }

        fn cuda_version(&self) -> Option<u32> {
            self.cuda
        }

        fn has_device(&self) -> bool {
            self.has_device
        }

        fn product(&self) -> Result<(), String> {
            self.product.clone()
        }
    }

    const DESKTOP: (&str, &str) = ("dev/nvidia0", "");
    const JETSON: (&str, &str) = ("dev/nvgpu/igpu0/ctrl", "");
    const OLD: (&str, &str) = (
        "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\nGCC version:  gcc 11.4.0\n",
    );

    #[test]
    fn a_gpu_that_computes_is_used() {
        let stub = Stub { has_device: true, ..Stub::new(&[DESKTOP]) };
        assert_eq!(examine(&stub), Ok(()));
    }

    #[test]
    fn a_libtorch_without_cuda_or_that_does_not_load_is_said_first() {
        for fault in [
            NoCuda::NotInstalled { folder: "/opt/libtorch/lib".into() },
            NoCuda::NotLoaded { reason: "libcudss.so.0: cannot open shared object file".into() },
        ] {
            let stub = Stub { load: Err(fault.clone()), ..Stub::new(&[DESKTOP]) };
            let found = examine(&stub).unwrap_err();
            assert_eq!(found, fault);
            assert!(found.to_string().contains("lib"), "{found}");
        }
    }

    #[test]
    fn a_machine_without_a_gpu_says_so() {
        assert_eq!(examine(&Stub::new(&[])), Err(NoCuda::NoDevice));
    }

    #[test]
    fn a_node_that_may_not_be_opened_is_named() {
        for (files, closed) in [
            (&[DESKTOP, OLD][..], "dev/nvidia0"),
            (&[JETSON][..], "dev/nvgpu/igpu0/ctrl"),
            (&[JETSON, ("dev/nvmap", "")][..], "dev/nvmap"),
            (&[("dev/nvhost-gpu", ""), OLD][..], "dev/nvhost-gpu"),
        ] {
            let stub = Stub { closed, ..Stub::new(files) };
            let node = stub.root.path().join(closed);
            assert_eq!(examine(&stub), Err(NoCuda::NoPermission { node }));
        }
    }

    #[test]
    fn a_driver_that_is_too_old_is_told_from_one_that_finds_nothing() {
        let old = NoCuda::DriverTooOld { driver: "540.4.0".into(), cuda: 13, needed: 580 };
        let stub = Stub::new(&[JETSON, OLD]);
        assert_eq!(examine(&stub), Err(old));
        // The same driver runs CUDA 12.
        let stub = Stub { cuda: Some(12), ..Stub::new(&[JETSON, OLD]) };
        let node = stub.root.path().join("dev/nvgpu");
        assert_eq!(examine(&stub), Err(NoCuda::NotFound { node: node.clone() }));
        // A driver without a version says nothing.
        let stub = Stub::new(&[JETSON]);
        let node = stub.root.path().join("dev/nvgpu");
        assert_eq!(examine(&stub), Err(NoCuda::NotFound { node }));
    }

    #[test]
    fn a_gpu_that_computes_wrong_is_not_used() {
        let words = "no kernel image is available for execution on the device";
        let stub = Stub { has_device: true, product: Err(words.into()), ..Stub::new(&[DESKTOP]) };
        assert_eq!(examine(&stub), Err(NoCuda::Broken(words.into())));
    }

    #[test]
    fn versions_are_read_from_either_driver() {
        let open = driver_version(OLD.1);
        let closed = driver_version(
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 03:03:03 UTC 2026\n",
        );
        assert_eq!((open.as_deref(), closed.as_deref()), (Some("540.4.0"), Some("570.86.15")));
        assert_eq!(driver_version("something else"), None);
    }
}
