//! AMX: products of tiles of 16 positions with 16 rows, 32 columns deep, in bf16.
//!
//! Some rows of the matrix, a block, are turned into tiles of bf16 pairs for some columns at a time, so that they stay in a
//! core's second cache; then all positions pass over them, two tiles of positions by two panels, which are the eight tile
//! registers. The sums of a block stay in a core's second cache as well until the last columns.

#![expect(unsafe_code, reason = "tile registers are reached by assembly alone")]

use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use super::Out;
use super::avx512::scale_min;
use crate::activations::Shared;
use crate::format::Format;
use crate::mapping::AlignedBytes;
use crate::matrix::Matrix;
use crate::pool::Pool;
use crate::{GROUP, PANEL};

/// Positions from which tiles are faster than the products with codes: before that the matrix is turned into bf16 for too few.
pub(super) const FROM: usize = 12;

/// Bytes of a tile: 16 rows of 64.
const TILE: usize = 1024;

/// Positions that pass over a block at a time: their sums stay in a core's cache.
const POSITIONS: usize = 512;

/// Panels of a block, at most.
const PANELS: usize = 16;

/// Groups of 32 columns of a block that are turned into tiles at a time.
const GROUPS: usize = 32;

/// Positions in bf16, as the left operand's tiles: `[tile of 16 positions][group][position][32]`, tiles of zeros behind the
/// last up to an even number.
#[derive(Debug, Default)]
pub(super) struct Tiles {
    bytes: AlignedBytes,
    is_loaded: bool,
}

impl Tiles {
    pub(super) fn clear(&mut self) {
        self.is_loaded = false;
    }

    fn load(&mut self, pool: &Pool, xs: &[f32], width: usize) {
        if self.is_loaded {
            return;
        }
        self.is_loaded = true;
        let (positions, groups) = (xs.len() / width, width.div_ceil(GROUP));
        let tiles = positions.div_ceil(2 * PANEL) * 2;
        self.bytes.grow(tiles * groups * TILE);
        let bytes = Shared(self.bytes.as_mut_slice().as_mut_ptr());
        pool.run(tiles, |tile| {
            // SAFETY: there is room for so many tiles, and each task has its own.
            let room = unsafe {
                std::slice::from_raw_parts_mut(bytes.at(tile * groups * TILE), groups * TILE)
            };
            for row in 0..PANEL {
                let position = tile * PANEL + row;
                let xs = if position < positions { &xs[position * width..][..width] } else { &[] };
                // SAFETY: this instruction set was chosen, so the CPU has AVX-512 with bf16.
                unsafe { to_tile_row(xs, row, room) };
            }
        });
    }
}

/// Rounds a position to bf16, into its row of each group's tile; zeros where there is none.
#[target_feature(enable = "avx512f,avx512bf16")]
fn to_tile_row(xs: &[f32], row: usize, room: &mut [u8]) {
    for (group, tile) in room.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
        let mut values = [0.0_f32; GROUP];
        if let Some(xs) = xs.get(group * GROUP..) {
            let count = xs.len().min(GROUP);
            values[..count].copy_from_slice(&xs[..count]);
        }
        let place = &mut tile.as_chunks_mut::<64>().0[row];
        // SAFETY: 32 numbers are there, 64 bytes have room, and neither asks for an alignment.
        unsafe {
            let lower = _mm512_loadu_ps(values.as_ptr());
            let upper = _mm512_loadu_ps(values.as_ptr().add(16));
            store(_mm512_cvtne2ps_pbh(upper, lower), place);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn store(pairs: __m512bh, place: &mut [u8; 64]) {
    // SAFETY: 64 bytes have room; the store asks for no alignment. Both vectors are 64 bytes of plain numbers.
    unsafe {
        _mm512_storeu_si512(
            place.as_mut_ptr().cast(),
            std::mem::transmute::<__m512bh, __m512i>(pairs),
        );
    }
}

/// Room of a thread: a block's tiles, and its sums.
#[derive(Default)]
struct Room {
    tiles: AlignedBytes,
    sums: AlignedBytes,
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::default();
}

/// `xs @ matrix^T`, written to `out`.
pub(super) fn product(pool: &Pool, matrix: &Matrix, tiles: &mut Tiles, xs: &[f32], out: Out) {
    let width = matrix.width();
    tiles.load(pool, xs, width);
    let positions = xs.len() / width;
    let panels = matrix.panels();
    // As many blocks as keep all threads busy to the end, of an even number of panels.
    let threads = pool.threads();
    let blocks = threads * panels.div_ceil(PANELS * threads);
    let block = panels.div_ceil(blocks).next_multiple_of(2);
    for first in (0..positions).step_by(POSITIONS) {
        let range = first..positions.min(first + POSITIONS);
        pool.run(panels.div_ceil(block), |task| {
            let panels = task * block..panels.min((task + 1) * block);
            ROOM.with_borrow_mut(|room| {
                // SAFETY: the CPU has AMX and the system permits it, since this instruction set was chosen.
                unsafe { one_block(matrix, tiles, room, range.clone(), panels, out) };
            });
        });
    }
}

/// Some panels for some positions. `positions` begin with a tile.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn one_block(
    matrix: &Matrix,
    inputs: &Tiles,
    room: &mut Room,
    positions: Range<usize>,
    panels: Range<usize>,
    out: Out,
) {
    let groups = matrix.width().div_ceil(GROUP);
    let pairs = positions.len().div_ceil(2 * PANEL);
    let count = panels.len().next_multiple_of(2);
    let row = count * PANEL;
    room.tiles.grow(count * GROUPS * TILE);
    room.sums.grow(pairs * 2 * PANEL * row * size_of::<f32>());
    let sums = room.sums.as_mut_slice().as_mut_ptr().cast::<f32>();
    configure();
    for start in (0..groups).step_by(GROUPS) {
        let depth = GROUPS.min(groups - start);
        let tiles = room.tiles.as_mut_slice();
        for (at, tiles) in tiles.chunks_exact_mut(GROUPS * TILE).enumerate().take(count) {
            let tiles = &mut tiles[..depth * TILE];
            if at < panels.len() {
                to_tiles(matrix, panels.start + at, start, tiles);
            } else {
                tiles.fill(0);
            }
        }
        for pair in 0..pairs {
            let tile = positions.start / PANEL + 2 * pair;
            let input = |tile: usize| inputs.bytes[(tile * groups + start) * TILE..].as_ptr();
            for panel in (0..count).step_by(2) {
                let weights = |panel: usize| room.tiles[panel * GROUPS * TILE..].as_ptr();
                // SAFETY: both input tiles have `depth` groups from `start` on, there being an even number of them; both panels
                // have `depth` tiles; and the sums have 32 positions from `pair * 32` on with 32 rows from `panel * 16` on.
                unsafe {
                    multiply(
                        [input(tile), input(tile + 1)],
                        [weights(panel), weights(panel + 1)],
                        sums.add(pair * 2 * PANEL * row + panel * PANEL),
                        row * size_of::<f32>(),
                        depth,
                        start > 0,
                    );
                }
            }
        }
    }
    release();
    for position in positions.clone() {
        for (at, panel) in panels.clone().enumerate() {
            let place = (position - positions.start) * row + at * PANEL;
            // SAFETY: the sums have `row` numbers for each position, all of them written above.
            let values = unsafe { &*sums.add(place).cast::<[f32; PANEL]>() };
            out.write_row(values, position, panel);
        }
    }
}

/// All eight tile registers with 16 rows of 64 bytes.
fn configure() {
    #[repr(C, align(64))]
    struct Config {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes: [u16; 16],
        rows: [u8; 16],
    }
    let (mut bytes, mut rows) = ([0; 16], [0; 16]);
    bytes[..8].fill(64);
    rows[..8].fill(16);
    let config = Config { palette: 1, start_row: 0, reserved: [0; 14], bytes, rows };
    // SAFETY: the CPU has AMX; the assembly reads the 64 bytes of the configuration, which the compiler has stored, since it
    // takes any assembly to read memory unless told otherwise.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, preserves_flags)) }
}

/// Empties the tile registers, so that the system need not save them.
fn release() {
    // SAFETY: the CPU has AMX.
    unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
}

/// `sums[32][32] (+)= inputs[32] @ weights[32]^T`, `depth` groups of 32 columns deep.
///
/// # Safety
/// The tile registers are configured. Inputs and weights have `depth` tiles each, one after the other; `sums` has 32 rows of 32
/// numbers, `stride` bytes apart.
unsafe fn multiply(
    inputs: [*const u8; 2],
    weights: [*const u8; 2],
    sums: *mut f32,
    stride: usize,
    depth: usize,
    adds: bool,
) {
    // SAFETY: the caller's. The tile registers are nobody else's: the compiler doesn't know them.
    unsafe {
        asm!(
            "test {adds:e}, {adds:e}",
            "jz 2f",
            "tileloadd tmm0, [{upper} + {stride}*1]",
            "tileloadd tmm1, [{upper} + {stride}*1 + 64]",
            "tileloadd tmm2, [{lower} + {stride}*1]",
            "tileloadd tmm3, [{lower} + {stride}*1 + 64]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "3:",
            "tileloadd tmm4, [{input0} + {row}*1]",
            "tileloadd tmm6, [{weights0} + {row}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{input1} + {row}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tileloadd tmm7, [{weights1} + {row}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {input0}, 1024",
            "add {input1}, 1024",
            "add {weights0}, 1024",
            "add {weights1}, 1024",
            "dec {depth}",
            "jnz 3b",
            "tilestored [{upper} + {stride}*1], tmm0",
            "tilestored [{upper} + {stride}*1 + 64], tmm1",
            "tilestored [{lower} + {stride}*1], tmm2",
            "tilestored [{lower} + {stride}*1 + 64], tmm3",
            adds = in(reg) u32::from(adds),
            upper = in(reg) sums,
            lower = in(reg) sums.byte_add(PANEL * stride),
            stride = in(reg) stride,
            row = in(reg) 64_usize,
            input0 = inout(reg) inputs[0] => _,
            input1 = inout(reg) inputs[1] => _,
            weights0 = inout(reg) weights[0] => _,
            weights1 = inout(reg) weights[1] => _,
            depth = inout(reg) depth => _,
            options(nostack),
        );
    }
}

/// Turns some groups of a panel, from `start` on, into tiles of bf16 pairs: row `r` of a tile has columns `2 r` and `2 r + 1` of
/// each of the panel's 16 rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn to_tiles(matrix: &Matrix, panel: usize, start: usize, tiles: &mut [u8]) {
    let (tiles, _) = tiles.as_chunks_mut::<TILE>();
    match matrix.format() {
        Format::Q4 => {
            let panel = matrix.q4(panel);
            let unit = both(floats(&panel.scale_unit));
            let min_unit = both(floats(&panel.min_unit));
            let groups = panel.codes.iter().zip(panel.scales).skip(start);
            for ((codes, scales), tile) in groups.zip(tiles) {
                let (scale, min) = scale_min(scales);
                let (scale, min) = (both(scale), both(min));
                let scale = [0, 1].map(|half| _mm512_mul_ps(scale[half], unit[half]));
                let min = [0, 1].map(|half| _mm512_mul_ps(min[half], min_unit[half]));
                q4_tile(codes.as_chunks().0, scale, min, tile);
            }
        }
        Format::Q8 => {
            let panel = matrix.q8(panel);
            let scale = both(floats(&panel.scale));
            for (codes, tile) in panel.codes.iter().skip(start).zip(tiles) {
                q8_tile(codes.as_chunks().0, scale, tile);
            }
        }
        Format::Bf16 | Format::F32 => {
            let bytes = matrix.panel(panel);
            for (group, tile) in (start..).zip(tiles) {
                let bytes = bytes.get(group * TILE..).unwrap_or_default();
                let (there, rest) = tile.split_at_mut(bytes.len().min(TILE));
                there.copy_from_slice(&bytes[..there.len()]);
                rest.fill(0);
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
fn floats(values: &[f32; PANEL]) -> __m512 {
    // SAFETY: 16 numbers are there; the load asks for no alignment.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

/// Each of the first eight numbers twice, and each of the last eight.
#[target_feature(enable = "avx512f")]
fn both(values: __m512) -> [__m512; 2] {
    TWICE.map(|twice| _mm512_permutexvar_ps(indices(twice), values))
}

const TWICE: [[i32; 16]; 2] = [
    [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7],
    [8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15],
];

#[target_feature(enable = "avx512f")]
fn indices(values: [i32; 16]) -> __m512i {
    // SAFETY: 64 bytes are there; the load asks for no alignment.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

/// Shifts that bring the codes of an even and an odd column to the low bits, by turns.
#[target_feature(enable = "avx512f")]
fn shifts(even: i32, odd: i32) -> __m512i {
    _mm512_set1_epi64(i64::from(odd) << 32 | i64::from(even))
}

#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes are there; the load asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn q4_tile(lines: &[[u8; 64]], scale: [__m512; 2], min: [__m512; 2], tile: &mut [u8; TILE]) {
    let numbers = _mm512_set_ps(
        15.0, 14.0, 13.0, 12.0, 11.0, 10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0,
    );
    let columns = [shifts(0, 8), shifts(16, 24), shifts(4, 12), shifts(20, 28)];
    for (line, places) in lines.iter().zip(tile.as_chunks_mut::<64>().0.as_chunks_mut::<4>().0) {
        let line = load(line);
        let codes = TWICE.map(|twice| _mm512_permutexvar_epi32(indices(twice), line));
        for (columns, place) in columns.into_iter().zip(places) {
            // The permute looks at the low four bits of an index alone.
            let half = |half: usize| {
                let codes = _mm512_srlv_epi32(codes[half], columns);
                let number = _mm512_permutexvar_ps(codes, numbers);
                _mm512_fmadd_ps(number, scale[half], min[half])
            };
            store(_mm512_cvtne2ps_pbh(half(1), half(0)), place);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn q8_tile(lines: &[[u8; 64]], scale: [__m512; 2], tile: &mut [u8; TILE]) {
    let (byte, offset) = (_mm512_set1_epi32(255), _mm512_set1_epi32(128));
    let columns = [shifts(0, 8), shifts(16, 24)];
    for (line, places) in lines.iter().zip(tile.as_chunks_mut::<64>().0.as_chunks_mut::<2>().0) {
        let line = load(line);
        let codes = TWICE.map(|twice| _mm512_permutexvar_epi32(indices(twice), line));
        for (columns, place) in columns.into_iter().zip(places) {
            let half = |half: usize| {
                let codes = _mm512_and_si512(_mm512_srlv_epi32(codes[half], columns), byte);
                let number = _mm512_cvtepi32_ps(_mm512_sub_epi32(codes, offset));
                _mm512_mul_ps(number, scale[half])
            };
            store(_mm512_cvtne2ps_pbh(half(1), half(0)), place);
        }
    }
}

/// Attention by tiles: what a thread keeps of the left operands.
#[derive(Default)]
pub(crate) struct AttentionTiles {
    /// Queries, `[tile of 16 rows][group of 32 dimensions]`.
    queries: AlignedBytes,
    /// Softmax, `[tile of 16 rows][group of 32 keys]`.
    weights: AlignedBytes,
}

/// Keys of a block.
const KEYS: usize = crate::kv::KvBlock::POSITIONS;

impl AttentionTiles {
    /// Takes queries `[rows, padded]`; behind the last are zeros up to a multiple of 32 rows.
    pub(crate) fn load_queries(&mut self, queries: &[f32], rows: usize, padded: usize) {
        // SAFETY: attention takes this way where the CPU has AMX with bf16.
        unsafe { to_rows(queries, rows, padded, &mut self.queries) }
    }

    /// `scores[rows][KEYS] = queries @ keys^T` for keys in panels of 16.
    pub(crate) fn scores(
        &mut self,
        keys: &[[u8; 64]],
        rows: usize,
        padded: usize,
        scores: &mut [f32],
    ) {
        let depth = padded / GROUP;
        assert!(
            keys.len() == KEYS * padded / 32
                && scores.len() >= rows.next_multiple_of(2 * PANEL) * KEYS,
            "sizes differ"
        );
        by_tiles(&self.queries, keys, rows, depth, KEYS / PANEL, scores, false);
    }

    /// `sums[rows][padded] += weights @ values` for values in panels of 16 dimensions.
    pub(crate) fn add_values(
        &mut self,
        values: &[[u8; 64]],
        weights: &[f32],
        rows: usize,
        padded: usize,
        sums: &mut [f32],
    ) {
        assert!(
            values.len() == KEYS * padded / 32
                && sums.len() >= rows.next_multiple_of(2 * PANEL) * padded,
            "sizes differ"
        );
        // SAFETY: as in `load_queries`.
        unsafe { to_rows(weights, rows, KEYS, &mut self.weights) }
        by_tiles(&self.weights, values, rows, KEYS / GROUP, padded / PANEL, sums, true);
    }
}

/// `out[rows][panels * 16] (+)= inputs @ panels^T`, rows filled up to 32, for an even number of panels.
fn by_tiles(
    inputs: &AlignedBytes,
    lines: &[[u8; 64]],
    rows: usize,
    depth: usize,
    panels: usize,
    out: &mut [f32],
    adds: bool,
) {
    let row = panels * PANEL;
    configure();
    for pair in 0..rows.div_ceil(2 * PANEL) {
        let input = |tile: usize| inputs[tile * depth * TILE..].as_ptr();
        for panel in (0..panels).step_by(2) {
            let weights = |panel: usize| lines[panel * depth * PANEL..].as_ptr().cast();
            // SAFETY: both input tiles have `depth` groups, there being an even number of them; a panel has `depth` tiles of 16
            // lines, and there is an even number of panels, since heads are filled up to 32; callers checked the room of `out`.
            unsafe {
                multiply(
                    [input(2 * pair), input(2 * pair + 1)],
                    [weights(panel), weights(panel + 1)],
                    out.as_mut_ptr().add(pair * 2 * PANEL * row + panel * PANEL),
                    row * size_of::<f32>(),
                    depth,
                    adds,
                );
            }
        }
    }
    release();
}

/// Rows `[rows, width]` as a left operand's tiles, zeros up to a multiple of 32 rows.
#[target_feature(enable = "avx512f,avx512bf16")]
fn to_rows(xs: &[f32], rows: usize, width: usize, tiles: &mut AlignedBytes) {
    let groups = width.div_ceil(GROUP);
    tiles.grow(rows.next_multiple_of(2 * PANEL) * groups * GROUP * 2);
    let tiles = tiles.as_mut_slice().chunks_exact_mut(groups * TILE);
    for (tile, room) in tiles.enumerate().take(rows.div_ceil(2 * PANEL) * 2) {
        for row in 0..PANEL {
            let number = tile * PANEL + row;
            let xs = if number < rows { &xs[number * width..][..width] } else { &[] };
            to_tile_row(xs, row, room);
        }
    }
}
