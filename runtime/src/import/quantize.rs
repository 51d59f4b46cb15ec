//! The number formats that a user can choose from, and the one that each matrix takes.

use std::fmt;
use std::str::FromStr;

use outpost_kernels::Format;
use serde::{Deserialize, Serialize};

/// How the decoder's matrices are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quant {
    /// 32-bit floats, computed in f32: the yardstick.
    F32,
    /// The checkpoint's own precision.
    Bf16,
    /// 8 bits with a scale a row: the careful choice.
    Int8,
    /// 4 bits in groups of 32 with a scale and a minimum: the fast choice.
    Int4,
}

impl fmt::Display for Quant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        })
    }
}

impl FromStr for Quant {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::F32, Self::Bf16, Self::Int8, Self::Int4]
            .into_iter()
            .find(|quant| quant.to_string() == name)
            .ok_or_else(|| format!("`{name}` is none of f32, bf16, int8, int4"))
    }
}

impl Quant {
    /// The format of a matrix of that width: bf16 where the codes' groups don't divide it.
    pub(crate) fn format(self, width: usize) -> Format {
        let format = match self {
            Self::F32 => Format::F32,
            Self::Bf16 => Format::Bf16,
            Self::Int8 => Format::Q8,
            Self::Int4 => Format::Q4,
        };
        if format.takes(width) { format } else { Format::Bf16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_that_groups_do_not_divide_are_kept_in_bf16() {
        assert_eq!(Quant::Int4.format(320), Format::Q4);
        assert_eq!(Quant::Int8.format(96), Format::Q8);
        assert_eq!(Quant::Int4.format(100), Format::Bf16);
        assert_eq!(Quant::F32.format(7), Format::F32);
        assert_eq!("int8".parse(), Ok(Quant::Int8));
        assert!("int3".parse::<Quant>().is_err());
    }
}
