//! AVX-512 with VNNI: `vpdpbusd` adds four products of an unsigned code with a signed one in each of 16 rows.

#![expect(unsafe_code, reason = "loads of whole vectors")]

use std::arch::x86_64::*;

use super::{common_width, four};
use crate::PANEL;
use crate::activations::{Group, Quantized};
use crate::matrix::{Q4Panel, Q8Panel};

/// How far ahead of the multiplication codes are fetched when one position streams through the weights.
const AHEAD: usize = 4096;

#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes are there; the load asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn store(values: __m512, out: &mut [f32; PANEL]) {
    // SAFETY: 16 numbers have room; the store asks for no alignment.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), values) }
}

#[target_feature(enable = "avx512f")]
fn floats(values: &[f32; PANEL]) -> __m512 {
    // SAFETY: 16 numbers are there; the load asks for no alignment.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

/// Scale codes and minimum codes of a group.
#[target_feature(enable = "avx512f")]
pub(super) fn scale_min(scales: &[u8; 2 * PANEL]) -> (__m512, __m512) {
    // SAFETY: 32 bytes are there; the loads ask for no alignment.
    let (scale, min) = unsafe {
        let at = scales.as_ptr();
        (_mm_loadu_si128(at.cast()), _mm_loadu_si128(at.add(PANEL).cast()))
    };
    (_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(scale)), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(min)))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn q4<const N: usize>(
    panel: Q4Panel<'_>,
    input: &Quantized,
    first: usize,
    tile: &mut [[f32; PANEL]; N],
) {
    let low = _mm512_set1_epi8(15);
    let mut by_scale = [_mm512_setzero_ps(); N];
    let mut by_min = [_mm512_setzero_ps(); N];
    for (group, (codes, scales)) in panel.codes.iter().zip(panel.scales).enumerate() {
        let x: Group<'_, N> = input.group(group, first);
        // Two sums each while registers last, so that no product waits for the one before it.
        let mut even = [_mm512_setzero_si512(); N];
        let mut odd = [_mm512_setzero_si512(); N];
        for (line, bytes) in codes.as_chunks::<64>().0.iter().enumerate() {
            if N == 1 {
                _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(AHEAD).cast());
            }
            let bytes = load(bytes);
            let lower = _mm512_and_si512(bytes, low);
            let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), low);
            for p in 0..N {
                let x = |line| _mm512_set1_epi32(four(&x.codes[p], line));
                even[p] = _mm512_dpbusd_epi32(even[p], lower, x(2 * line));
                let sum = if N <= 4 { &mut odd[p] } else { &mut even[p] };
                *sum = _mm512_dpbusd_epi32(*sum, upper, x(2 * line + 1));
            }
        }
        let (scale, min) = scale_min(scales);
        for p in 0..N {
            let dot = if N <= 4 { _mm512_add_epi32(even[p], odd[p]) } else { even[p] };
            let dot = _mm512_mul_ps(_mm512_cvtepi32_ps(dot), _mm512_set1_ps(x.scales[p]));
            by_scale[p] = _mm512_fmadd_ps(dot, scale, by_scale[p]);
            by_min[p] = _mm512_fmadd_ps(_mm512_set1_ps(x.sums[p]), min, by_min[p]);
        }
    }
    let (scale, min) = (floats(&panel.scale_unit), floats(&panel.min_unit));
    for p in 0..N {
        let constant = _mm512_mul_ps(by_min[p], min);
        store(_mm512_fmadd_ps(by_scale[p], scale, constant), &mut tile[p]);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn q8<const N: usize>(
    panel: Q8Panel<'_>,
    input: &Quantized,
    first: usize,
    tile: &mut [[f32; PANEL]; N],
) {
    let mut sums = [_mm512_setzero_ps(); N];
    let mut constant = [0.0; N];
    for (group, codes) in panel.codes.iter().enumerate() {
        let x: Group<'_, N> = input.group(group, first);
        let mut dots = [[_mm512_setzero_si512(); 2]; N];
        for (line, bytes) in codes.as_chunks::<64>().0.iter().enumerate() {
            if N == 1 {
                _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(AHEAD).cast());
            }
            let bytes = load(bytes);
            for p in 0..N {
                let dot = &mut dots[p][line % 2];
                *dot = _mm512_dpbusd_epi32(*dot, bytes, _mm512_set1_epi32(four(&x.codes[p], line)));
            }
        }
        for p in 0..N {
            let dot = _mm512_cvtepi32_ps(_mm512_add_epi32(dots[p][0], dots[p][1]));
            sums[p] = _mm512_fmadd_ps(dot, _mm512_set1_ps(x.scales[p]), sums[p]);
            constant[p] += x.sums[p];
        }
    }
    let scale = floats(&panel.scale);
    for p in 0..N {
        let sum = _mm512_sub_ps(sums[p], _mm512_set1_ps(128.0 * constant[p]));
        store(_mm512_mul_ps(sum, scale), &mut tile[p]);
    }
}

#[target_feature(enable = "avx512f")]
pub(super) fn bf16<const N: usize>(
    lines: &[[u8; 64]],
    xs: [&[f32]; N],
    tile: &mut [[f32; PANEL]; N],
) {
    let width = common_width(&xs);
    let high = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
    let mut sums = [_mm512_setzero_ps(); N];
    let xs = xs.map(|xs| &xs[..width]);
    for (pair, line) in lines.iter().enumerate().take(width / 2) {
        let pairs = load(line);
        let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs));
        let odd = _mm512_castsi512_ps(_mm512_and_si512(pairs, high));
        for p in 0..N {
            sums[p] = _mm512_fmadd_ps(even, _mm512_set1_ps(xs[p][2 * pair]), sums[p]);
            sums[p] = _mm512_fmadd_ps(odd, _mm512_set1_ps(xs[p][2 * pair + 1]), sums[p]);
        }
    }
    if !width.is_multiple_of(2) {
        let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(load(&lines[width / 2])));
        for p in 0..N {
            sums[p] = _mm512_fmadd_ps(even, _mm512_set1_ps(xs[p][width - 1]), sums[p]);
        }
    }
    for p in 0..N {
        store(sums[p], &mut tile[p]);
    }
}

#[target_feature(enable = "avx512f")]
pub(super) fn f32<const N: usize>(
    lines: &[[u8; 64]],
    xs: [&[f32]; N],
    tile: &mut [[f32; PANEL]; N],
) {
    let width = common_width(&xs).min(lines.len());
    let mut sums = [_mm512_setzero_ps(); N];
    let xs = xs.map(|xs| &xs[..width]);
    for (column, line) in lines.iter().enumerate().take(width) {
        let weights = _mm512_castsi512_ps(load(line));
        for p in 0..N {
            sums[p] = _mm512_fmadd_ps(weights, _mm512_set1_ps(xs[p][column]), sums[p]);
        }
    }
    for p in 0..N {
        store(sums[p], &mut tile[p]);
    }
}
