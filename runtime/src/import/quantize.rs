//! Number formats of packed matrices, and the rounding into them.
//!
//! - **int4**, group-wise and asymmetric, for libtorch's `_weight_int4pack_mm`: `w = (q - 8) * scale + zero` with `q` in 0..=15
//!   and one bf16 `scale` and `zero` per group of a row. The range is clipped, and then fitted to the
//!   codes, for the least squared error.
//! - **int8**, symmetric per row, for `_weight_int8pack_mm`: `w = q * scale` with `q` in -127..=127.
//! - **bf16** and **f32** as they are.

use std::fmt;
use std::str::FromStr;

use half::bf16;
use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};

/// How the decoder's matrices are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quant {
    /// 32-bit floats, computed in f32: the yardstick.
    F32,
    /// The checkpoint's own precision.
    Bf16,
    /// 8 bits, one scale a row: the careful choice.
    Int8,
    /// 4 bits in groups: the fast choice.
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

/// The format of one matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    F32,
    Bf16,
    Int8,
    Int4 { group: usize },
}

impl Format {
    /// The format of a `[rows, width]` matrix: bf16 where the int4 kernel does not take its size.
    pub(crate) fn of(quant: Quant, group: usize, rows: usize, width: usize) -> Self {
        match quant {
            Quant::F32 => Self::F32,
            Quant::Bf16 => Self::Bf16,
            Quant::Int8 => Self::Int8,
            Quant::Int4 => {
                let fits = |group: &usize| width.is_multiple_of(*group) && rows.is_multiple_of(16);
                let group = [group, 128, 64, 32].into_iter().find(fits);
                group.map_or(Self::Bf16, |group| Self::Int4 { group })
            }
        }
    }

    /// Name suffix, number format and shape of the tensors that hold a `[rows, width]` matrix.
    pub(crate) fn tensors(
        self,
        rows: usize,
        width: usize,
    ) -> Vec<(&'static str, Dtype, Vec<usize>)> {
        match self {
            Self::F32 => vec![("", Dtype::F32, vec![rows, width])],
            Self::Bf16 => vec![("", Dtype::BF16, vec![rows, width])],
            Self::Int8 => {
                vec![(".int8", Dtype::I8, vec![rows, width]), (".scale", Dtype::BF16, vec![rows])]
            }
            Self::Int4 { group } => vec![
                (".int4", Dtype::U8, vec![rows, width / 2]),
                (".scale_zero", Dtype::BF16, vec![rows, width / group, 2]),
            ],
        }
    }

    /// The bytes of [`Format::tensors`] for some rows of `width` values.
    pub(crate) fn pack(self, values: &[f32], width: usize) -> Vec<Vec<u8>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let rows = values.len() / width;
        let share = rows.div_ceil(threads).max(1) * width;
        let mut packed: Vec<Vec<u8>> = vec![Vec::new(); self.tensors(1, width).len()];
        std::thread::scope(|scope| {
            let parts: Vec<_> = values
                .chunks(share)
                .map(|part| scope.spawn(move || self.pack_rows(part, width)))
                .collect();
            for part in parts {
                // A panic in a part goes on in the caller.
                let part = part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                packed.iter_mut().zip(part).for_each(|(whole, part)| whole.extend(part));
            }
        });
        packed
    }

    fn pack_rows(self, values: &[f32], width: usize) -> Vec<Vec<u8>> {
        match self {
            Self::F32 => vec![values.iter().flat_map(|value| value.to_le_bytes()).collect()],
            Self::Bf16 => {
                vec![values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()]
            }
            Self::Int8 => {
                let (mut codes, mut scales) = (Vec::with_capacity(values.len()), Vec::new());
                for row in values.chunks_exact(width) {
                    scales.extend(int8_row(row, &mut codes).to_le_bytes());
                }
                vec![codes, scales]
            }
            Self::Int4 { group } => {
                let (mut codes, mut scales) = (Vec::with_capacity(values.len() / 2), Vec::new());
                for group in values.chunks_exact(group) {
                    let (scale, zero) = int4_group(group, &mut codes);
                    scales.extend(scale.to_le_bytes());
                    scales.extend(zero.to_le_bytes());
                }
                vec![codes, scales]
            }
        }
    }
}

fn int8_row(row: &[f32], codes: &mut Vec<u8>) -> bf16 {
    let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = bf16::from_f32(largest / 127.0);
    let inverse = inverse(scale);
    codes.extend(
        row.iter()
            .map(|value| ((value * inverse).round().clamp(-127.0, 127.0) as i8).cast_unsigned()),
    );
    scale
}

/// Shares of a group's range that are tried as the range of the codes.
const CLIPS: [f32; 7] = [1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.75];

/// Rounds of fitting scale and zero to the codes.
const FITS: usize = 2;

fn int4_group(group: &[f32], codes: &mut Vec<u8>) -> (bf16, bf16) {
    let least = group.iter().copied().fold(f32::INFINITY, f32::min);
    let largest = group.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut best = (f32::INFINITY, bf16::ZERO, bf16::ZERO);
    let mut offer = |scale: bf16, zero: bf16| {
        let error = int4_error(group, scale, zero);
        if error < best.0 {
            best = (error, scale, zero);
        }
        (best.1, best.2)
    };
    for clip in CLIPS {
        let scale = bf16::from_f32((largest - least) * clip / 15.0);
        // The middle of the codes, 7.5, stands for the middle of the range.
        offer(scale, bf16::from_f32(f32::midpoint(least, largest) + 0.5 * scale.to_f32()));
    }
    for _ in 0..FITS {
        let (scale, zero) = offer(bf16::ZERO, bf16::ZERO);
        let (scale, zero) = int4_fit(group, scale, zero);
        offer(scale, zero);
    }
    let (_, scale, zero) = best;
    let inverse = inverse(scale);
    codes.extend(group.as_chunks().0.iter().map(|[even, odd]| {
        let code = |value: &f32| int4_code(*value, inverse, zero.to_f32()) as u8;
        code(even) << 4 | code(odd)
    }));
    (scale, zero)
}

/// The scale and zero with the least squared error for the codes that the given ones lead to.
fn int4_fit(group: &[f32], scale: bf16, zero: bf16) -> (bf16, bf16) {
    let (inverse, old_zero, count) = (inverse(scale), zero.to_f32(), group.len() as f32);
    let code = |value: f32| int4_code(value, inverse, old_zero) - 8.0;
    let codes_mean = group.iter().map(|value| code(*value)).sum::<f32>() / count;
    let mean = group.iter().sum::<f32>() / count;
    let (mut covariance, mut variance) = (0.0, 0.0);
    for value in group {
        let code = code(*value) - codes_mean;
        covariance += code * (value - mean);
        variance += code * code;
    }
    if variance == 0.0 {
        return (scale, zero);
    }
    let scale = bf16::from_f32(covariance / variance);
    (scale, bf16::from_f32(scale.to_f32().mul_add(-codes_mean, mean)))
}

fn int4_error(group: &[f32], scale: bf16, zero: bf16) -> f32 {
    let (scale, inverse, zero) = (scale.to_f32(), inverse(scale), zero.to_f32());
    group
        .iter()
        .map(|value| (int4_code(*value, inverse, zero) - 8.0).mul_add(scale, zero) - value)
        .map(|e| e * e)
        .sum()
}

fn int4_code(value: f32, inverse: f32, zero: f32) -> f32 {
    ((value - zero) * inverse + 8.0).round_ties_even().clamp(0.0, 15.0)
}

/// 0 for a scale of 0, so that a constant group or row keeps finite codes.
fn inverse(scale: bf16) -> f32 {
    if scale == bf16::ZERO { 0.0 } else { scale.to_f32().recip() }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    fn weights(count: usize) -> Vec<f32> {
        let mut rng = StdRng::seed_from_u64(1);
        (0..count).map(|_| (0..4).map(|_| rng.random_range(-0.05..0.05)).sum()).collect()
    }

    fn bf16s(bytes: &[u8]) -> Vec<f32> {
        bytes.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect()
    }

    fn relative(found: &[f32], expected: &[f32]) -> f32 {
        let norm = |values: &mut dyn Iterator<Item = f32>| {
            values.map(|value| value * value).sum::<f32>().sqrt()
        };
        norm(&mut found.iter().zip(expected).map(|(a, b)| a - b))
            / norm(&mut expected.iter().copied())
    }

    fn unpack_int4(packed: &[Vec<u8>], group: usize) -> Vec<f32> {
        let codes: Vec<f32> =
            packed[0].iter().flat_map(|byte| [byte >> 4, byte & 15]).map(f32::from).collect();
        let scales = bf16s(&packed[1]);
        codes
            .chunks(group)
            .zip(scales.chunks(2))
            .flat_map(|(codes, sz)| codes.iter().map(move |code| (code - 8.0) * sz[0] + sz[1]))
            .collect()
    }

    #[test]
    fn rounding_stays_within_its_bound() {
        let values = weights(64 * 256);
        let int8 = Format::Int8.pack(&values, 256);
        let scales = bf16s(&int8[1]);
        let back: Vec<f32> = int8[0]
            .chunks(256)
            .zip(&scales)
            .flat_map(|(row, scale)| {
                row.iter().map(move |code| f32::from(code.cast_signed()) * scale)
            })
            .collect();
        assert!(relative(&back, &values) < 0.01, "int8: {}", relative(&back, &values));
        for (group, bound) in [(32, 0.085), (64, 0.095), (128, 0.11)] {
            let error =
                relative(&unpack_int4(&Format::Int4 { group }.pack(&values, 256), group), &values);
            assert!(error < bound, "int4 group {group}: {error}");
        }
    }

    #[test]
    fn constant_and_zero_groups_survive() {
        for value in [0.0, 0.5, -3.0] {
            let packed = Format::Int4 { group: 32 }.pack(&[value; 64], 64);
            assert_eq!(unpack_int4(&packed, 32), [value; 64]);
        }
        assert_eq!(Format::Int8.pack(&[0.0; 8], 8), [vec![0; 8], vec![0; 2]]);
    }

    #[test]
    fn the_group_gives_way_to_the_width() {
        assert_eq!(Format::of(Quant::Int4, 128, 64, 320), Format::Int4 { group: 64 });
        assert_eq!(Format::of(Quant::Int4, 32, 64, 256), Format::Int4 { group: 32 });
        assert_eq!(Format::of(Quant::Int4, 32, 64, 100), Format::Bf16);
        assert_eq!(Format::of(Quant::Int4, 32, 8, 256), Format::Bf16);
        assert_eq!("int8".parse(), Ok(Quant::Int8));
        assert!("int3".parse::<Quant>().is_err());
    }
}
