//! AVX2, with or without VNNI: half a panel, 8 rows, at a time.

#![expect(unsafe_code, reason = "loads of whole vectors")]

use std::arch::x86_64::*;

use super::{common_width, four};
use crate::PANEL;
use crate::activations::{Group, Quantized};
use crate::matrix::{Q4Panel, Q8Panel};

const HALF: usize = PANEL / 2;

/// How far ahead of the multiplication codes are fetched when one position streams through the weights.
const AHEAD: usize = 4096;

/// Has a group's lines, some way ahead, fetched into the cache.
#[target_feature(enable = "avx2")]
fn fetch<const N: usize>(lines: &[[u8; 64]], half: usize) {
    if N == 1 && half == 0 {
        for line in lines {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(AHEAD).cast());
        }
    }
}

#[target_feature(enable = "avx2")]
fn load(line: &[u8; 64], half: usize) -> __m256i {
    let bytes: &[u8; 32] = &line.as_chunks().0[half];
    // SAFETY: 32 bytes are there; the load asks for no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
fn floats(values: &[f32; PANEL], half: usize) -> __m256 {
    let values: &[f32; HALF] = &values.as_chunks().0[half];
    // SAFETY: 8 numbers are there; the load asks for no alignment.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

#[target_feature(enable = "avx2")]
fn store(values: __m256, out: &mut [f32; PANEL], half: usize) {
    let out: &mut [f32; HALF] = &mut out.as_chunks_mut().0[half];
    // SAFETY: 8 numbers have room; the store asks for no alignment.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), values) }
}

/// 8 scale codes and minimum codes of a group.
#[target_feature(enable = "avx2")]
fn scale_min(scales: &[u8; 2 * PANEL], half: usize) -> (__m256, __m256) {
    let eight = |at: usize| {
        let bytes: &[u8; HALF] = &scales.as_chunks().0[at];
        _mm_cvtsi64_si128(i64::from_le_bytes(*bytes))
    };
    (
        _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight(half))),
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight(2 + half))),
    )
}

/// Both halves of a Q4 tile, given what adds up a group's products: from its lines and a position's codes, in 8 rows.
macro_rules! q4_tile {
    ($panel:ident, $input:ident, $first:ident, $tile:ident, $dots:ident) => {
        for half in 0..2 {
            let mut by_scale = [_mm256_setzero_ps(); N];
            let mut by_min = [_mm256_setzero_ps(); N];
            for (group, (codes, scales)) in $panel.codes.iter().zip($panel.scales).enumerate() {
                let x: Group<'_, N> = $input.group(group, $first);
                fetch::<N>(codes.as_chunks().0, half);
                let dots: [__m256i; N] = $dots(codes.as_chunks().0, half, x.codes);
                let (scale, min) = scale_min(scales, half);
                for p in 0..N {
                    let dot =
                        _mm256_mul_ps(_mm256_cvtepi32_ps(dots[p]), _mm256_set1_ps(x.scales[p]));
                    by_scale[p] = _mm256_fmadd_ps(dot, scale, by_scale[p]);
                    by_min[p] = _mm256_fmadd_ps(_mm256_set1_ps(x.sums[p]), min, by_min[p]);
                }
            }
            let scale = floats(&$panel.scale_unit, half);
            let min = floats(&$panel.min_unit, half);
            for p in 0..N {
                let constant = _mm256_mul_ps(by_min[p], min);
                store(_mm256_fmadd_ps(by_scale[p], scale, constant), &mut $tile[p], half);
            }
        }
    };
}

/// As `q4_tile`, for Q8. The codes' offset of 128 is taken off at the end where `$offset` says that they are multiplied as they
/// lie.
macro_rules! q8_tile {
    ($panel:ident, $input:ident, $first:ident, $tile:ident, $dots:ident, $offset:expr) => {
        for half in 0..2 {
            let mut sums = [_mm256_setzero_ps(); N];
            let mut constant = [0.0; N];
            for (group, codes) in $panel.codes.iter().enumerate() {
                let x: Group<'_, N> = $input.group(group, $first);
                fetch::<N>(codes.as_chunks().0, half);
                let dots: [__m256i; N] = $dots(codes.as_chunks().0, half, x.codes);
                for p in 0..N {
                    let dot = _mm256_cvtepi32_ps(dots[p]);
                    sums[p] = _mm256_fmadd_ps(dot, _mm256_set1_ps(x.scales[p]), sums[p]);
                    constant[p] += x.sums[p];
                }
            }
            let scale = floats(&$panel.scale, half);
            for p in 0..N {
                let sum = _mm256_sub_ps(sums[p], _mm256_set1_ps($offset * constant[p]));
                store(_mm256_mul_ps(sum, scale), &mut $tile[p], half);
            }
        }
    };
}

/// Sums of a group by `vpmaddubsw`. A sum of two products is at most 2 * 15 * 127, and eight of them are within 16 bits.
#[target_feature(enable = "avx2,fma")]
fn q4_dots<const N: usize>(lines: &[[u8; 64]], half: usize, x: &[[u8; 32]; N]) -> [__m256i; N] {
    let low = _mm256_set1_epi8(15);
    let mut sums = [_mm256_setzero_si256(); N];
    for (line, bytes) in lines.iter().enumerate() {
        let bytes = load(bytes, half);
        let lower = _mm256_and_si256(bytes, low);
        let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low);
        for p in 0..N {
            let x = |line| _mm256_set1_epi32(four(&x[p], line));
            sums[p] = _mm256_add_epi16(sums[p], _mm256_maddubs_epi16(lower, x(2 * line)));
            sums[p] = _mm256_add_epi16(sums[p], _mm256_maddubs_epi16(upper, x(2 * line + 1)));
        }
    }
    let ones = _mm256_set1_epi16(1);
    sums.map(|sum| _mm256_madd_epi16(sum, ones))
}

#[target_feature(enable = "avx2,fma,avxvnni")]
fn q4_dots_vnni<const N: usize>(
    lines: &[[u8; 64]],
    half: usize,
    x: &[[u8; 32]; N],
) -> [__m256i; N] {
    let low = _mm256_set1_epi8(15);
    let mut sums = [_mm256_setzero_si256(); N];
    for (line, bytes) in lines.iter().enumerate() {
        let bytes = load(bytes, half);
        let lower = _mm256_and_si256(bytes, low);
        let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low);
        for p in 0..N {
            let x = |line| _mm256_set1_epi32(four(&x[p], line));
            sums[p] = _mm256_dpbusd_avx_epi32(sums[p], lower, x(2 * line));
            sums[p] = _mm256_dpbusd_avx_epi32(sums[p], upper, x(2 * line + 1));
        }
    }
    sums
}

/// Sums of a group in 16 bits a code, less its offset: products of 8 bits would overflow `vpmaddubsw`.
#[target_feature(enable = "avx2,fma")]
fn q8_dots<const N: usize>(lines: &[[u8; 64]], half: usize, x: &[[u8; 32]; N]) -> [__m256i; N] {
    let offset = _mm256_set1_epi16(128);
    let mut sums = [[_mm256_setzero_si256(); 2]; N];
    for (line, bytes) in lines.iter().enumerate() {
        let bytes = load(bytes, half);
        // Four rows of four codes each.
        let lower = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(bytes));
        let upper = _mm256_cvtepu8_epi16(_mm256_extracti128_si256::<1>(bytes));
        let (lower, upper) = (_mm256_sub_epi16(lower, offset), _mm256_sub_epi16(upper, offset));
        for p in 0..N {
            let x = _mm_cvtepi8_epi16(_mm_cvtsi32_si128(four(&x[p], line)));
            let x = _mm256_broadcastq_epi64(x);
            sums[p][0] = _mm256_add_epi32(sums[p][0], _mm256_madd_epi16(lower, x));
            sums[p][1] = _mm256_add_epi32(sums[p][1], _mm256_madd_epi16(upper, x));
        }
    }
    // Two sums a row become one; `vphaddd` works within 128 bits.
    sums.map(|[lower, upper]| {
        _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(lower, upper))
    })
}

#[target_feature(enable = "avx2,fma,avxvnni")]
fn q8_dots_vnni<const N: usize>(
    lines: &[[u8; 64]],
    half: usize,
    x: &[[u8; 32]; N],
) -> [__m256i; N] {
    let mut sums = [_mm256_setzero_si256(); N];
    for (line, bytes) in lines.iter().enumerate() {
        let bytes = load(bytes, half);
        for p in 0..N {
            let x = _mm256_set1_epi32(four(&x[p], line));
            sums[p] = _mm256_dpbusd_avx_epi32(sums[p], bytes, x);
        }
    }
    sums
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn q4<const N: usize>(
    panel: Q4Panel<'_>,
    input: &Quantized,
    first: usize,
    tile: &mut [[f32; PANEL]; N],
) {
    q4_tile!(panel, input, first, tile, q4_dots);
}

#[target_feature(enable = "avx2,fma,avxvnni")]
pub(super) fn q4_vnni<const N: usize>(
    panel: Q4Panel<'_>,
    input: &Quantized,
    first: usize,
    tile: &mut [[f32; PANEL]; N],
) {
    q4_tile!(panel, input, first, tile, q4_dots_vnni);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn q8<const N: usize>(
    panel: Q8Panel<'_>,
    input: &Quantized,
    first: usize,
    tile: &mut [[f32; PANEL]; N],
) {
    q8_tile!(panel, input, first, tile, q8_dots, 0.0);
}

#[target_feature(enable = "avx2,fma,avxvnni")]
pub(super) fn q8_vnni<const N: usize>(
    panel: Q8Panel<'_>,
    input: &Quantized,
    first: usize,
    tile: &mut [[f32; PANEL]; N],
) {
    q8_tile!(panel, input, first, tile, q8_dots_vnni, 128.0);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn bf16<const N: usize>(
    lines: &[[u8; 64]],
    xs: [&[f32]; N],
    tile: &mut [[f32; PANEL]; N],
) {
    let width = common_width(&xs);
    let high = _mm256_set1_epi32(0xffff_0000_u32.cast_signed());
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    let xs = xs.map(|xs| &xs[..width]);
    for (pair, line) in lines.iter().enumerate().take(width / 2) {
        for half in 0..2 {
            let pairs = load(line, half);
            let even = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs));
            let odd = _mm256_castsi256_ps(_mm256_and_si256(pairs, high));
            for p in 0..N {
                let sum = &mut sums[p][half];
                *sum = _mm256_fmadd_ps(even, _mm256_set1_ps(xs[p][2 * pair]), *sum);
                *sum = _mm256_fmadd_ps(odd, _mm256_set1_ps(xs[p][2 * pair + 1]), *sum);
            }
        }
    }
    if !width.is_multiple_of(2) {
        for half in 0..2 {
            let pairs = load(&lines[width / 2], half);
            let even = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs));
            for p in 0..N {
                let sum = &mut sums[p][half];
                *sum = _mm256_fmadd_ps(even, _mm256_set1_ps(xs[p][width - 1]), *sum);
            }
        }
    }
    for p in 0..N {
        store(sums[p][0], &mut tile[p], 0);
        store(sums[p][1], &mut tile[p], 1);
    }
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn f32<const N: usize>(
    lines: &[[u8; 64]],
    xs: [&[f32]; N],
    tile: &mut [[f32; PANEL]; N],
) {
    let width = common_width(&xs).min(lines.len());
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    let xs = xs.map(|xs| &xs[..width]);
    for (column, line) in lines.iter().enumerate().take(width) {
        for half in 0..2 {
            let weights = _mm256_castsi256_ps(load(line, half));
            for p in 0..N {
                let sum = &mut sums[p][half];
                *sum = _mm256_fmadd_ps(weights, _mm256_set1_ps(xs[p][column]), *sum);
            }
        }
    }
    for p in 0..N {
        store(sums[p][0], &mut tile[p], 0);
        store(sums[p][1], &mut tile[p], 1);
    }
}
