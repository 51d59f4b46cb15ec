//! Blocks of quantized numbers in GGUF files, back to f32.
//!
//! A row is cut into blocks of 32 (or 256, in the K formats) neighbours that share scales. The layouts are those of ggml's
//! `ggml-common.h`; all numbers are little-endian.

use half::{bf16, f16};

/// A number format of GGUF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
    Mxfp4,
}

/// What the codes of the IQ4 formats stand for: closer together where most weights are.
const CURVE: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// Twice the values of a float of four bits: a sign, two bits of exponent, one of mantissa.
const FLOATS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The name of a type that cannot be read.
pub(crate) fn name(number: u32) -> String {
    let name = match number {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        40 => "NVFP4",
        other => return format!("of number {other}"),
    };
    name.to_owned()
}

/// Values of a block of the K formats.
const SUPER: usize = 256;

impl BlockType {
    /// The format of a type number in a tensor's entry; the number itself where it is none of ours.
    pub(crate) fn of(number: u32) -> Result<Self, u32> {
        Ok(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            20 => Self::Iq4Nl,
            23 => Self::Iq4Xs,
            39 => Self::Mxfp4,
            30 => Self::Bf16,
            other => return Err(other),
        })
    }

    /// Values of a block, and its bytes.
    pub(crate) fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 | Self::Iq4Nl => (32, 2 + 16),
            Self::Q4_1 => (32, 4 + 16),
            Self::Q5_0 => (32, 2 + 4 + 16),
            Self::Q5_1 => (32, 4 + 4 + 16),
            Self::Q8_0 => (32, 2 + 32),
            Self::Q4K => (SUPER, 4 + 12 + 128),
            Self::Q5K => (SUPER, 4 + 12 + 32 + 128),
            Self::Q6K => (SUPER, 128 + 64 + 16 + 2),
            Self::Iq4Xs => (SUPER, 2 + 2 + 4 + 128),
            Self::Mxfp4 => (32, 1 + 16),
        }
    }

    /// The values of whole blocks.
    pub(crate) fn unpack(self, bytes: &[u8]) -> Vec<f32> {
        let (values, size) = self.block();
        let mut out = Vec::with_capacity(bytes.len() / size * values);
        for block in bytes.chunks_exact(size) {
            match self {
                Self::F32 => out.push(f32::from_le_bytes(array(block, 0))),
                Self::F16 => out.push(half(block, 0)),
                Self::Bf16 => out.push(bf16::from_le_bytes(array(block, 0)).to_f32()),
                Self::Q4_0 => nibbles(&block[2..], None, half(block, 0), -8.0, &mut out),
                Self::Q4_1 => {
                    let (scale, least) = (half(block, 0), half(block, 2));
                    affine(&block[4..], None, scale, least, &mut out);
                }
                Self::Q5_0 => {
                    let high = u32::from_le_bytes(array(block, 2));
                    nibbles(&block[6..], Some(high), half(block, 0), -16.0, &mut out);
                }
                Self::Q5_1 => {
                    let (scale, least) = (half(block, 0), half(block, 2));
                    let high = u32::from_le_bytes(array(block, 4));
                    affine(&block[8..], Some(high), scale, least, &mut out);
                }
                Self::Q8_0 => {
                    let scale = half(block, 0);
                    out.extend(block[2..].iter().map(|code| signed(*code) * scale));
                }
                Self::Q4K => k_block(block, None, &block[16..], &mut out),
                Self::Q5K => k_block(block, Some(&block[16..48]), &block[48..], &mut out),
                Self::Q6K => q6_block(block, &mut out),
                Self::Iq4Nl => listed(&block[2..], &CURVE, half(block, 0), &mut out),
                Self::Iq4Xs => iq4_xs_block(block, &mut out),
                Self::Mxfp4 => listed(&block[1..], &FLOATS, exponent(block[0]), &mut out),
            }
        }
        out
    }
}

/// 32 codes: the low nibbles first, then the high ones, each with its fifth bit from `high`.
fn codes(packed: &[u8], high: Option<u32>) -> impl Iterator<Item = f32> {
    let fifth = move |index: usize| high.map_or(0, |high| ((high >> index) & 1) as u8 * 16);
    let low = packed[..16].iter().enumerate().map(move |(i, byte)| (byte & 15) + fifth(i));
    let upper = packed[..16].iter().enumerate().map(move |(i, byte)| (byte >> 4) + fifth(i + 16));
    low.chain(upper).map(f32::from)
}

fn nibbles(packed: &[u8], high: Option<u32>, scale: f32, offset: f32, out: &mut Vec<f32>) {
    out.extend(codes(packed, high).map(|code| (code + offset) * scale));
}

fn affine(packed: &[u8], high: Option<u32>, scale: f32, least: f32, out: &mut Vec<f32>) {
    out.extend(codes(packed, high).map(|code| code * scale + least));
}

/// 256 values of `Q4_K` or `Q5_K`: eight groups of 32, each with a 6-bit scale and minimum of the block's own.
fn k_block(block: &[u8], fifth: Option<&[u8]>, packed: &[u8], out: &mut Vec<f32>) {
    let (scale, least) = (half(block, 0), half(block, 2));
    let small = &block[4..16];
    for group in 0..8 {
        let (group_scale, group_least) = six_bits(small, group);
        let (scale, least) = (scale * group_scale, least * group_least);
        let bytes = &packed[group / 2 * 32..][..32];
        out.extend(bytes.iter().enumerate().map(|(i, byte)| {
            let low = if group % 2 == 0 { byte & 15 } else { byte >> 4 };
            let high = fifth.map_or(0, |fifth| (fifth[i] >> group & 1) * 16);
            f32::from(low + high) * scale - least
        }));
    }
}

/// Scale and minimum of a group, out of twelve bytes: the first four groups lie in the low six bits, the others are spread over
/// the last four bytes and the upper bits of the first eight.
fn six_bits(small: &[u8], group: usize) -> (f32, f32) {
    let (scale, least) = if group < 4 {
        (small[group] & 63, small[group + 4] & 63)
    } else {
        (
            (small[group + 4] & 15) | (small[group - 4] >> 6) << 4,
            (small[group + 4] >> 4) | (small[group] >> 6) << 4,
        )
    };
    (f32::from(scale), f32::from(least))
}

/// 256 values of `Q6_K`: two halves of 128 with their low four bits, high two bits and eight scales.
fn q6_block(block: &[u8], out: &mut Vec<f32>) {
    let scale = half(block, 208);
    for side in 0..2 {
        let low = &block[side * 64..][..64];
        let high = &block[128 + side * 32..][..32];
        let scales = &block[192 + side * 8..][..8];
        for quarter in 0..4 {
            out.extend((0..32).map(|i| {
                let byte = low[i + 32 * (quarter % 2)];
                let four = if quarter < 2 { byte & 15 } else { byte >> 4 };
                let two = high[i] >> (2 * quarter) & 3;
                let code = f32::from(four | two << 4) - 32.0;
                scale * signed(scales[2 * quarter + i / 16]) * code
            }));
        }
    }
}

/// 32 values out of a list: the low nibbles first, then the high ones.
fn listed(packed: &[u8], values: &[i8; 16], scale: f32, out: &mut Vec<f32>) {
    out.extend(codes(packed, None).map(|code| f32::from(values[code as usize]) * scale));
}

/// 256 values of `IQ4_XS`: eight groups of 32, each with a scale of six bits, of which two lie apart.
fn iq4_xs_block(block: &[u8], out: &mut Vec<f32>) {
    let scale = half(block, 0);
    let high = u16::from_le_bytes(array(block, 2));
    for group in 0..8 {
        let low = block[4 + group / 2] >> (4 * (group % 2)) & 15;
        let six = low | ((high >> (2 * group) & 3) as u8) << 4;
        listed(&block[8 + 16 * group..][..16], &CURVE, scale * (f32::from(six) - 32.0), out);
    }
}

/// Half of the power of two that an exponent of eight bits stands for.
fn exponent(byte: u8) -> f32 {
    // The two smallest are below what a normal float can be.
    let bits = if byte < 2 { 0x0020_0000 << byte } else { u32::from(byte - 1) << 23 };
    f32::from_bits(bits)
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes(array(block, at)).to_f32()
}

fn signed(byte: u8) -> f32 {
    f32::from(byte.cast_signed())
}

/// Some bytes of a block; its length was checked by the caller.
fn array<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&block[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    /// Random blocks of every format, unpacked by the reference (`tests/fixtures/gguf/make.py`).
    #[test]
    fn blocks_are_unpacked_as_by_the_reference() {
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/gguf/blocks.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut formats = 0;
        for (name, packed) in file.tensors() {
            let Some(number) = name.strip_prefix("packed.") else { continue };
            let format = BlockType::of(number.parse().unwrap()).unwrap();
            let wanted = file.tensor(&format!("values.{number}")).unwrap();
            let wanted = BlockType::F32.unpack(wanted.data());
            let found = format.unpack(packed.data());
            assert_eq!(found.len(), wanted.len(), "{format:?}");
            for (found, wanted) in found.iter().zip(&wanted) {
                let bound = 1e-6 * wanted.abs().max(1e-3);
                assert!((found - wanted).abs() <= bound, "{format:?}: {found} for {wanted}");
            }
            formats += 1;
        }
        assert_eq!(formats, 14);
    }
}
