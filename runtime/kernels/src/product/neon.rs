//! NEON with the dot product extension: `sdot` adds four products of signed codes in each of four rows, a quarter of a panel.
//!
//! No machine has compiled this yet, for want of a standard library for 64-bit Arm where it was written: there it was held
//! against the portable kernels with its intrinsics replaced by plain loops.

#![expect(unsafe_code, reason = "loads of whole vectors, and an instruction without an intrinsic")]

use std::arch::aarch64::*;
use std::arch::asm;

use super::{common_width, four};
use crate::activations::{Group, Quantized};
use crate::matrix::{Q4Panel, Q8Panel};
use crate::{GROUP, PANEL};

/// Rows of a vector, and vectors of a panel.
const QUARTER: usize = PANEL / 4;

#[target_feature(enable = "neon")]
fn load(line: &[u8; 64], quarter: usize) -> uint8x16_t {
    let bytes: &[u8; 16] = &line.as_chunks().0[quarter];
    // SAFETY: 16 bytes are there; the load asks for no alignment.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[target_feature(enable = "neon")]
fn floats(values: &[f32; PANEL], quarter: usize) -> float32x4_t {
    let values: &[f32; QUARTER] = &values.as_chunks().0[quarter];
    // SAFETY: 4 numbers are there.
    unsafe { vld1q_f32(values.as_ptr()) }
}

#[target_feature(enable = "neon")]
fn store(values: float32x4_t, out: &mut [f32; PANEL], quarter: usize) {
    let out: &mut [f32; QUARTER] = &mut out.as_chunks_mut().0[quarter];
    // SAFETY: 4 numbers have room.
    unsafe { vst1q_f32(out.as_mut_ptr(), values) }
}

/// Four scale codes and minimum codes of a group.
#[target_feature(enable = "neon")]
fn scale_min(scales: &[u8; 2 * PANEL], quarter: usize) -> (float32x4_t, float32x4_t) {
    let (scales, mins) = scales.split_at(PANEL);
    let four = |bytes: &[u8]| bytes.as_chunks::<QUARTER>().0[quarter];
    let scale = four(scales).map(f32::from);
    let min = four(mins).map(|min| f32::from(min.cast_signed()));
    // SAFETY: both have 4 numbers.
    unsafe { (vld1q_f32(scale.as_ptr()), vld1q_f32(min.as_ptr())) }
}

/// Adds to each row the product of its four codes with the four of an activation.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot(mut sums: int32x4_t, codes: int8x16_t, x: &[u8; GROUP], line: usize) -> int32x4_t {
    let x = vreinterpretq_s8_s32(vdupq_n_s32(four(x, line)));
    // SAFETY: callers are compiled for CPUs with the instruction, which works on registers alone.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {codes:v}.16b, {x:v}.16b",
            sums = inout(vreg) sums,
            codes = in(vreg) codes,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

#[target_feature(enable = "neon,dotprod")]
pub(super) fn q4<const N: usize>(
    panel: Q4Panel<'_>,
    input: &Quantized,
    first: usize,
    tile: &mut [[f32; PANEL]; N],
) {
    let low = vdupq_n_u8(15);
    let mut by_scale = [[vdupq_n_f32(0.0); N]; 4];
    let mut by_min = [[vdupq_n_f32(0.0); N]; 4];
    for (group, (codes, scales)) in panel.codes.iter().zip(panel.scales).enumerate() {
        let x: Group<'_, N> = input.group(group, first);
        for quarter in 0..4 {
            let mut dots = [vdupq_n_s32(0); N];
            for (line, bytes) in codes.as_chunks::<64>().0.iter().enumerate() {
                let bytes = load(bytes, quarter);
                let lower = vreinterpretq_s8_u8(vandq_u8(bytes, low));
                let upper = vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes));
                for p in 0..N {
                    dots[p] = dot(dots[p], lower, &x.codes[p], 2 * line);
                    dots[p] = dot(dots[p], upper, &x.codes[p], 2 * line + 1);
                }
            }
            let (scale, min) = scale_min(scales, quarter);
            for p in 0..N {
                let dot = vmulq_n_f32(vcvtq_f32_s32(dots[p]), x.scales[p]);
                by_scale[quarter][p] = vfmaq_f32(by_scale[quarter][p], dot, scale);
                by_min[quarter][p] = vfmaq_n_f32(by_min[quarter][p], min, x.sums[p]);
            }
        }
    }
    for quarter in 0..4 {
        let scale = floats(&panel.scale_unit, quarter);
        let min = floats(&panel.min_unit, quarter);
        for p in 0..N {
            let constant = vmulq_f32(by_min[quarter][p], min);
            store(vfmaq_f32(constant, by_scale[quarter][p], scale), &mut tile[p], quarter);
        }
    }
}

#[target_feature(enable = "neon,dotprod")]
pub(super) fn q8<const N: usize>(
    panel: Q8Panel<'_>,
    input: &Quantized,
    first: usize,
    tile: &mut [[f32; PANEL]; N],
) {
    let offset = vdupq_n_u8(128);
    let mut sums = [[vdupq_n_f32(0.0); N]; 4];
    for (group, codes) in panel.codes.iter().enumerate() {
        let x: Group<'_, N> = input.group(group, first);
        for quarter in 0..4 {
            let mut dots = [vdupq_n_s32(0); N];
            for (line, bytes) in codes.as_chunks::<64>().0.iter().enumerate() {
                // The code less 128, as a signed number.
                let codes = vreinterpretq_s8_u8(veorq_u8(load(bytes, quarter), offset));
                for p in 0..N {
                    dots[p] = dot(dots[p], codes, &x.codes[p], line);
                }
            }
            for p in 0..N {
                let dot = vcvtq_f32_s32(dots[p]);
                sums[quarter][p] = vfmaq_n_f32(sums[quarter][p], dot, x.scales[p]);
            }
        }
    }
    for quarter in 0..4 {
        let scale = floats(&panel.scale, quarter);
        for p in 0..N {
            store(vmulq_f32(sums[quarter][p], scale), &mut tile[p], quarter);
        }
    }
}

#[target_feature(enable = "neon")]
pub(super) fn bf16<const N: usize>(
    lines: &[[u8; 64]],
    xs: [&[f32]; N],
    tile: &mut [[f32; PANEL]; N],
) {
    let width = common_width(&xs);
    let high = vdupq_n_u32(0xffff_0000);
    for quarter in 0..4 {
        let mut sums = [vdupq_n_f32(0.0); N];
        for (pair, line) in lines.iter().enumerate().take(width.div_ceil(2)) {
            let pairs = vreinterpretq_u32_u8(load(line, quarter));
            let even = vreinterpretq_f32_u32(vshlq_n_u32::<16>(pairs));
            let odd = vreinterpretq_f32_u32(vandq_u32(pairs, high));
            for (sum, xs) in sums.iter_mut().zip(xs) {
                *sum = vfmaq_n_f32(*sum, even, xs[2 * pair]);
                // An odd width ends in half a pair.
                if let Some(x) = xs[..width].get(2 * pair + 1) {
                    *sum = vfmaq_n_f32(*sum, odd, *x);
                }
            }
        }
        for (sum, tile) in sums.into_iter().zip(&mut *tile) {
            store(sum, tile, quarter);
        }
    }
}

#[target_feature(enable = "neon")]
pub(super) fn f32<const N: usize>(
    lines: &[[u8; 64]],
    xs: [&[f32]; N],
    tile: &mut [[f32; PANEL]; N],
) {
    let width = common_width(&xs);
    for quarter in 0..4 {
        let mut sums = [vdupq_n_f32(0.0); N];
        for (column, line) in lines.iter().enumerate().take(width) {
            let weights = vreinterpretq_f32_u8(load(line, quarter));
            for (sum, xs) in sums.iter_mut().zip(xs) {
                *sum = vfmaq_n_f32(*sum, weights, xs[column]);
            }
        }
        for (sum, tile) in sums.into_iter().zip(&mut *tile) {
            store(sum, tile, quarter);
        }
    }
}
