//! Which libtorch fits the board: its CUDA to the driver, its architectures to the GPU; and whether what it needs is there.

use super::libtorch::python;
use crate::process;
use anyhow::{Result, bail};
use std::{collections::BTreeSet, env, fs, path::Path, process::Command};

/// Where the table of all boards is.
const TABLE: &str = "docs/jetson.md says which libtorch fits which board";
/// The driver's own library, which no wheel brings.
const DRIVER: &str = "libcuda.so.1";
/// Tries a libtorch that does not fit, as `tch` calls it.
const BYPASS: &str = "LIBTORCH_BYPASS_VERSION_CHECK";

/// An NVIDIA GPU, as far as its libtorch goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Board {
    name: String,
    /// Its architecture, as in `8.7`.
    architecture: String,
    /// Major version of Jetson Linux: 35 is of `JetPack` 5, 36 of 6, 38 of 7, 39 of 7.2. None on other computers.
    jetson_linux: Option<u32>,
}

/// Whether the wheels for CUDA 13 that `setup --cuda` fetches fit.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fit {
    Yes,
    /// They load, and may have no kernels for the GPU.
    Doubtful(&'static str),
    No(&'static str),
}

/// Says what fits this board, before anything is fetched.
///
/// # Errors
/// When what would be fetched cannot work on it.
pub(super) fn announce() -> Result<()> {
    let Some(board) = Board::find(Path::new("/")) else {
        println!("no NVIDIA GPU is known here; {TABLE}");
        return Ok(());
    };
    let Board { name, architecture, .. } = &board;
    match board.fit() {
        Fit::Yes => println!("{name} ({architecture}): the wheels for CUDA 13 fit"),
        Fit::Doubtful(reason) => println!("{name} ({architecture}): {reason}; {TABLE}"),
        Fit::No(reason) if env::var_os(BYPASS).is_some() => {
            println!("{name} ({architecture}): {reason}; tried all the same");
        }
        Fit::No(reason) => {
            bail!(
                "{name} ({architecture}): {reason}; {TABLE}, and {BYPASS}=1 fetches them all the same"
            )
        }
    }
    Ok(())
}

/// Checks a libtorch with CUDA: that the loader finds all it needs, and that it has the board's architecture.
///
/// # Errors
/// When a library is missing.
pub(super) fn check(home: &Path) -> Result<()> {
    let library = home.join("lib/libtorch_cuda.so");
    if !library.exists() {
        return Ok(());
    }
    let needed = process::capture(Command::new("ldd").arg(&library)).unwrap_or_default();
    let mut missing = missing(&needed);
    if missing.remove(DRIVER) {
        println!("{DRIVER} is not there: it comes with the NVIDIA driver");
    }
    if !missing.is_empty() {
        let names: Vec<&str> = missing.into_iter().collect();
        bail!("{} needs what is not there: {}; {TABLE}", library.display(), names.join(", "));
    }
    let known = architectures(home, &library);
    if known.is_empty() {
        println!(
            "which GPUs libtorch is built for is not known here: neither cuobjdump nor PyTorch says it"
        );
        return Ok(());
    }
    let list: Vec<&str> = known.iter().map(String::as_str).collect();
    println!("libtorch is built for {}", list.join(", "));
    if let Some(Board { name, architecture, .. }) = Board::find(Path::new("/"))
        && !known.contains(&architecture)
    {
        println!(
            "WARNING: {architecture}, that of {name}, is not among them: `outpost doctor` shows whether it computes all the same"
        );
    }
    Ok(())
}

impl Board {
    /// The board or card of this machine.
    fn find(root: &Path) -> Option<Self> {
        let compatible = fs::read(root.join("proc/device-tree/compatible")).unwrap_or_default();
        let chips = [
            ("nvidia,tegra264", "Jetson Thor", "11.0"),
            ("nvidia,tegra234", "Jetson Orin", "8.7"),
            ("nvidia,tegra194", "Jetson Xavier", "7.2"),
        ];
        let is =
            |chip: &str| compatible.split(|byte| *byte == 0).any(|name| name == chip.as_bytes());
        if let Some((_, name, architecture)) = chips.into_iter().find(|(chip, ..)| is(chip)) {
            let release = fs::read_to_string(root.join("etc/nv_tegra_release"));
            let jetson_linux = release.ok().and_then(|text| jetson_linux(&text));
            let (name, architecture) = (name.to_owned(), architecture.to_owned());
            return Some(Self { name, architecture, jetson_linux });
        }
        let mut smi = Command::new("nvidia-smi");
        smi.args(["--query-gpu=name,compute_cap", "--format=csv,noheader"]);
        process::capture(&mut smi).as_deref().and_then(card)
    }

    fn fit(&self) -> Fit {
        match (self.architecture.as_str(), self.jetson_linux) {
            ("7.2", _) => Fit::No("the int4 kernel needs architecture 8.0 or newer: use the CPU"),
            ("8.7", Some(..=37)) => Fit::No(
                "the driver of JetPack 6 is for CUDA 12.6: install PyTorch 2.13 for CUDA 12.6 with architecture 8.7, and run setup with LIBTORCH_USE_PYTORCH=1",
            ),
            ("8.7", _) => Fit::Doubtful(
                "the wheels for CUDA 13 have 8.0 but not 8.7, whose code may not run: PyTorch 2.13 with 8.7, and LIBTORCH_USE_PYTORCH=1, is safer",
            ),
            _ => Fit::Yes,
        }
    }
}

/// 36 of `# R36 (release), REVISION: 4.3, GCID: …`.
fn jetson_linux(release: &str) -> Option<u32> {
    release.trim_start_matches("# R").split_whitespace().next()?.parse().ok()
}

/// The first card of `NVIDIA H200, 9.0`.
fn card(text: &str) -> Option<Board> {
    let (name, architecture) = text.lines().next()?.rsplit_once(", ")?;
    let (name, architecture) = (name.to_owned(), architecture.trim().to_owned());
    Some(Board { name, architecture, jetson_linux: None })
}

/// What `ldd` does not find.
fn missing(ldd: &str) -> BTreeSet<&str> {
    ldd.lines().filter_map(|line| line.trim().strip_suffix(" => not found")).collect()
}

/// The architectures that a libtorch is built for: from its code, or from the Python package that it is part of.
fn architectures(home: &Path, library: &Path) -> BTreeSet<String> {
    let mut cuobjdump = Command::new("cuobjdump");
    let listed = process::capture(cuobjdump.args(["--list-elf", "--list-ptx"]).arg(library));
    let listed = listed.or_else(|| {
        // One that setup unpacked has no PyTorch around it.
        let folder = fs::canonicalize(home).ok()?;
        let site = folder.parent().filter(|_| home.is_symlink())?;
        let mut list = Command::new(python());
        list.env("PYTHONPATH", site)
            .args(["-c", "import torch; print(*torch._C._cuda_getArchFlags().split())"]);
        process::capture(&mut list)
    });
    listed.as_deref().map(sm).unwrap_or_default()
}

/// `8.7` for each `sm_87` in a text, `11.0` for `sm_110`. Letters behind it, as in `sm_90a`, don't count.
fn sm(text: &str) -> BTreeSet<String> {
    let number = |rest: &str| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let (major, minor) = digits.split_at_checked(digits.len().checked_sub(1)?)?;
        (!major.is_empty()).then(|| format!("{major}.{minor}"))
    };
    text.split("sm_").skip(1).filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(files: &[(&str, &str)]) -> Option<Board> {
        let root = env::temp_dir().join(format!("outpost-board-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = Board::find(&root);
        fs::remove_dir_all(&root).unwrap();
        found
    }

    #[test]
    fn a_jetson_is_known_by_its_chip_and_its_linux() {
        let chip = |chip: &'static str| ("proc/device-tree/compatible", chip);
        let linux = |text: &'static str| ("etc/nv_tegra_release", text);
        let orin = chip("nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0");
        let six = linux("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n");
        let found = board(&[orin, six]).unwrap();
        assert_eq!((found.architecture.as_str(), found.jetson_linux), ("8.7", Some(36)));
        assert!(matches!(found.fit(), Fit::No(reason) if reason.contains("12.6")));
        let found = board(&[orin, linux("# R39 (release), REVISION: 0.0\n")]).unwrap();
        assert!(matches!(found.fit(), Fit::Doubtful(reason) if reason.contains("8.7")));
        let thor = chip("nvidia,p4071-0000+p3834-0008\0nvidia,tegra264\0");
        let found = board(&[thor, linux("# R38 (release), REVISION: 2.0\n")]).unwrap();
        assert_eq!((found.name.as_str(), found.fit()), ("Jetson Thor", Fit::Yes));
        let xavier = chip("nvidia,p2972-0000\0nvidia,tegra194\0");
        assert!(matches!(board(&[xavier]).unwrap().fit(), Fit::No(_)));
    }

    #[test]
    fn a_card_is_known_by_what_the_driver_says() {
        let found = card("NVIDIA GeForce RTX 4090, 8.9\nNVIDIA H200, 9.0\n").unwrap();
        assert_eq!(
            (found.name.as_str(), found.architecture.as_str()),
            ("NVIDIA GeForce RTX 4090", "8.9")
        );
        assert_eq!(found.fit(), Fit::Yes);
        assert_eq!(card("no devices were found\n"), None);
    }

    #[test]
    fn what_the_loader_does_not_find_is_named() {
        let ldd = "\tlinux-vdso.so.1 (0x0000ffff)\n\tlibc10.so => /opt/lib/libc10.so (0x0000ffff)\n\
                   \tlibcudss.so.0 => not found\n\tlibnvpl_blas_lp64_gomp.so.0 => not found\n";
        let expected = BTreeSet::from(["libcudss.so.0", "libnvpl_blas_lp64_gomp.so.0"]);
        assert_eq!(missing(ldd), expected);
    }

    #[test]
    fn architectures_are_read_from_the_code_and_from_pytorch() {
        let code = "ELF file    1: a.1.sm_80.cubin\nELF file    2: a.2.sm_90a.cubin\nPTX file    1: a.3.sm_120.ptx\n";
        assert_eq!(sm(code), BTreeSet::from(["12.0", "8.0", "9.0"].map(String::from)));
        assert_eq!(
            sm("sm_87 sm_110 compute_110"),
            BTreeSet::from(["11.0", "8.7"].map(String::from))
        );
        assert_eq!(sm("sm_"), BTreeSet::new());
    }
}
