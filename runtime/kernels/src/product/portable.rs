//! Plain Rust: what every other kernel is held against.

use half::bf16;

use crate::activations::{Group, Quantized};
use crate::matrix::{Q4Panel, Q8Panel};
use crate::{GROUP, PANEL};

pub(super) fn q4<const N: usize>(
    panel: Q4Panel<'_>,
    input: &Quantized,
    first: usize,
    tile: &mut [[f32; PANEL]; N],
) {
    let (mut by_scale, mut by_min) = ([[0.0; PANEL]; N], [[0.0; PANEL]; N]);
    for (group, (codes, scales)) in panel.codes.iter().zip(panel.scales).enumerate() {
        let x: Group<'_, N> = input.group(group, first);
        for p in 0..N {
            for row in 0..PANEL {
                let mut dot = 0;
                for (line, bytes) in codes.as_chunks::<64>().0.iter().enumerate() {
                    for k in 0..4 {
                        let byte = bytes[4 * row + k];
                        let x = |column: usize| i32::from(x.codes[p][column].cast_signed());
                        dot += i32::from(byte & 15) * x(8 * line + k);
                        dot += i32::from(byte >> 4) * x(8 * line + 4 + k);
                    }
                }
                let min = f32::from(scales[PANEL + row].cast_signed());
                by_scale[p][row] += dot as f32 * x.scales[p] * f32::from(scales[row]);
                by_min[p][row] += x.sums[p] * min;
            }
        }
    }
    for p in 0..N {
        for row in 0..PANEL {
            tile[p][row] =
                by_scale[p][row] * panel.scale_unit[row] + by_min[p][row] * panel.min_unit[row];
        }
    }
}

pub(super) fn q8<const N: usize>(
    panel: Q8Panel<'_>,
    input: &Quantized,
    first: usize,
    tile: &mut [[f32; PANEL]; N],
) {
    let (mut sums, mut constant) = ([[0.0; PANEL]; N], [0.0; N]);
    for (group, codes) in panel.codes.iter().enumerate() {
        let x: Group<'_, N> = input.group(group, first);
        for p in 0..N {
            for (row, sum) in sums[p].iter_mut().enumerate() {
                let mut dot = 0;
                for column in 0..GROUP {
                    let code = codes[column / 4 * 64 + 4 * row + column % 4];
                    dot += i32::from(code) * i32::from(x.codes[p][column].cast_signed());
                }
                *sum += dot as f32 * x.scales[p];
            }
            constant[p] += x.sums[p];
        }
    }
    for p in 0..N {
        for row in 0..PANEL {
            tile[p][row] = (sums[p][row] - 128.0 * constant[p]) * panel.scale[row];
        }
    }
}

pub(super) fn bf16<const N: usize>(
    lines: &[[u8; 64]],
    xs: [&[f32]; N],
    tile: &mut [[f32; PANEL]; N],
) {
    *tile = [[0.0; PANEL]; N];
    for (pair, line) in lines.iter().enumerate() {
        for (xs, sums) in xs.iter().zip(&mut *tile) {
            for (k, x) in xs[2 * pair..].iter().take(2).enumerate() {
                for (sum, weights) in sums.iter_mut().zip(line.as_chunks::<4>().0) {
                    *sum += bf16::from_le_bytes([weights[2 * k], weights[2 * k + 1]]).to_f32() * x;
                }
            }
        }
    }
}

pub(super) fn f32<const N: usize>(
    lines: &[[u8; 64]],
    xs: [&[f32]; N],
    tile: &mut [[f32; PANEL]; N],
) {
    *tile = [[0.0; PANEL]; N];
    for (column, line) in lines.iter().enumerate() {
        for (xs, sums) in xs.iter().zip(&mut *tile) {
            for (sum, weight) in sums.iter_mut().zip(line.as_chunks().0) {
                *sum += f32::from_le_bytes(*weight) * xs[column];
            }
        }
    }
}
