//! The instruction sets that there are kernels for, and which one this CPU takes.

use std::fmt;
use std::str::FromStr;

/// An instruction set with kernels of its own, the fastest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isa {
    /// AVX-512 with VNNI and bf16, and AMX tiles of bf16.
    Amx,
    /// AVX-512 with VNNI.
    Avx512Vnni,
    /// AVX2 with the 256-bit form of VNNI.
    AvxVnni,
    /// AVX2 with FMA.
    Avx2,
    /// 64-bit Arm with the dot product extension.
    Neon,
    /// Plain Rust.
    Portable,
}

impl Isa {
    /// All of them, the fastest first.
    pub const ALL: [Self; 6] =
        [Self::Amx, Self::Avx512Vnni, Self::AvxVnni, Self::Avx2, Self::Neon, Self::Portable];

    /// The environment variable that overrides [`Isa::detect`].
    pub const OVERRIDE: &str = "OUTPOST_KERNEL";

    /// The name, as [`Isa::OVERRIDE`] takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx",
            Self::Avx512Vnni => "avx512-vnni",
            Self::AvxVnni => "avx-vnni",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }

    /// The instruction sets of this CPU, the fastest first; [`Isa::Portable`] is always among them.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The fastest instruction set of this CPU, or the one that [`Isa::OVERRIDE`] names.
    ///
    /// # Errors
    /// When the variable names no instruction set, or one that this CPU doesn't have.
    pub fn detect() -> Result<Self, String> {
        let fastest = Self::available().next().unwrap_or(Self::Portable);
        match std::env::var(Self::OVERRIDE) {
            Ok(name) if !name.is_empty() => {
                let isa: Self = name.parse()?;
                if isa.is_available() {
                    return Ok(isa);
                }
                Err(format!(
                    "{}={name}: this CPU lacks it; the fastest that it has is `{fastest}`",
                    Self::OVERRIDE
                ))
            }
            _ => Ok(fastest),
        }
    }

    /// Whether this CPU, and the operating system, let it run.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => Self::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Amx => {
                Self::Avx512Vnni.is_available()
                    && is_x86_feature_detected!("avx512bf16")
                    && tiles_are_permitted()
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "x86_64")]
            Self::Neon => false,
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Isa {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{name}` is no instruction set: choose one of {names}")
        })
    }
}

/// Whether the CPU has tiles of bf16, and the system lets this process use them.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "a system call")]
fn tiles_are_permitted() -> bool {
    /// `arch_prctl` for a feature that has to be asked for, and the number of the tiles' data.
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    static PERMITTED: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| {
        let leaf = std::arch::x86_64::__cpuid_count(7, 0);
        let (bf16, tile) = (leaf.edx >> 22 & 1, leaf.edx >> 24 & 1);
        // SAFETY: the call takes numbers only, and reports by its result.
        let ask = || unsafe {
            libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0
        };
        bf16 == 1 && tile == 1 && ask()
    });
    *PERMITTED
}
