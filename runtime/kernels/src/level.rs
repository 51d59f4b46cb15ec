//! Plain loops compiled for each vector width.

use crate::isa::Isa;

/// The vector instructions that plain loops are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Base,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    pub(crate) fn of(isa: Isa) -> Self {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Avx512Vnni => Self::Avx512,
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni | Isa::Avx2 => Self::Avx2,
            _ => Self::Base,
        }
    }

    /// The widest that this CPU has.
    pub(crate) fn widest() -> Self {
        Isa::available().next().map_or(Self::Base, Self::of)
    }

    #[cfg(test)]
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        let mut levels: Vec<Self> = Isa::available().map(Self::of).collect();
        levels.dedup();
        levels.into_iter()
    }
}

/// Makes a method of [`Level`] that runs an `#[inline(always)]` function compiled for it.
macro_rules! levels {
    ($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) -> $result:ty = $body:path) => {
        impl Level {
            $(#[$doc])*
            pub(crate) fn $name(self, $($arg: $type),*) -> $result {
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $type),*) -> $result { $body($($arg),*) }
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
                fn avx512($($arg: $type),*) -> $result { $body($($arg),*) }
                match self {
                    Self::Base => $body($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    #[expect(unsafe_code, reason = "a function for CPU features")]
                    // SAFETY: the level is made from an instruction set that this CPU has.
                    Self::Avx2 => unsafe { avx2($($arg),*) },
                    #[cfg(target_arch = "x86_64")]
                    #[expect(unsafe_code, reason = "a function for CPU features")]
                    // SAFETY: as above.
                    Self::Avx512 => unsafe { avx512($($arg),*) },
                }
            }
        }
    };
}
pub(crate) use levels;
