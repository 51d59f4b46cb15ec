//! Grouped-query attention over blocks of keys and values, without a matrix of all scores (Dao et al. 2022): for each block, the
//! scores, their softmax by the largest so far, and its product with the values; what came before is scaled when the largest
//! grows.

#![expect(unsafe_code, reason = "tasks write to places of their own")]

use std::borrow::Borrow;
use std::cell::RefCell;
use std::ops::Range;

use crate::activations::Shared;
use crate::kv::{KvBlock, KvShape, Side};
use crate::level::{Level, levels};
use crate::mapping::AlignedBytes;
use crate::product::Kernels;
use crate::{GROUP, Isa, PANEL};

/// Positions whose queries share a pass over the keys.
const POSITIONS: usize = 32;

const KEYS: usize = KvBlock::POSITIONS;

/// Queries of some positions, and where they stand.
#[derive(Debug, Clone, Copy)]
pub struct Queries<'a> {
    /// `[positions, heads, head_dim]`, rotated, not scaled.
    pub values: &'a [f32],
    /// Query heads; head `h` reads key head `h / (heads / kv_heads)`.
    pub heads: usize,
    /// Number of the first position in the sequence: a position sees the keys up to its own.
    pub start: usize,
}

/// `softmax(q k^T / sqrt(head_dim)) v` over the keys of a layer, `[positions, heads * head_dim]`. The blocks hold the positions'
/// own keys.
///
/// # Panics
/// When the sizes don't fit each other, or keys are missing.
pub fn attend<B: Borrow<KvBlock> + Sync>(
    kernels: &Kernels,
    blocks: &[B],
    layer: usize,
    queries: Queries<'_>,
    out: &mut [f32],
) {
    let Queries { values, heads, start } = queries;
    let Some(first) = blocks.first() else { return };
    let shape = first.borrow().shape();
    let row = heads * shape.head_dim;
    let positions = values.len() / row;
    assert!(
        out.len() == values.len()
            && heads.is_multiple_of(shape.heads)
            && start + positions <= blocks.len() * KEYS,
        "{positions} positions from {start} on, {} blocks",
        blocks.len()
    );
    let place = Shared(out.as_mut_ptr());
    let parts = positions.div_ceil(POSITIONS);
    kernels.pool().run(parts * shape.heads, |task| {
        // The last positions see the most keys: first, so that no thread is left alone with them.
        let (part, head) = (parts - 1 - task / shape.heads, task % shape.heads);
        let range = part * POSITIONS..positions.min((part + 1) * POSITIONS);
        ROOM.with_borrow_mut(|room| {
            room.pass(kernels, blocks, layer, head, queries, range, shape, place);
        });
    });
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::default();
}

/// What a thread works with. Rows are queries: of a position all heads that read the same key head, then of the next.
#[derive(Default)]
struct Room {
    /// `[rows, padded head]`, scaled.
    queries: Vec<f32>,
    /// `[rows, KEYS]`
    scores: Vec<f32>,
    /// `[rows, padded head]`
    sums: Vec<f32>,
    /// Largest score of a row so far, and the sum of its softmax.
    largest: Vec<f32>,
    weight: Vec<f32>,
    unpacked: AlignedBytes,
    #[cfg(target_arch = "x86_64")]
    tiles: crate::product::amx::AttentionTiles,
}

impl Room {
    #[expect(clippy::too_many_arguments, reason = "the loop over tasks, in a function of its own")]
    fn pass<B: Borrow<KvBlock>>(
        &mut self,
        kernels: &Kernels,
        blocks: &[B],
        layer: usize,
        head: usize,
        queries: Queries<'_>,
        range: Range<usize>,
        shape: KvShape,
        place: Shared<f32>,
    ) {
        let (dim, padded) = (shape.head_dim, shape.padded());
        let group = queries.heads / shape.heads;
        let rows = range.len() * group;
        let offset = |row: usize| {
            ((range.start + row / group) * queries.heads + head * group + row % group) * dim
        };
        self.begin(rows, padded);
        let scale = (dim as f32).sqrt().recip();
        for (row, scaled) in self.queries.chunks_exact_mut(padded).enumerate().take(rows) {
            for (scaled, q) in scaled.iter_mut().zip(&queries.values[offset(row)..][..dim]) {
                *scaled = q * scale;
            }
        }
        #[cfg(target_arch = "x86_64")]
        let in_tiles =
            kernels.isa() == Isa::Amx && rows >= PANEL && shape.format != crate::kv::KvFormat::F32;
        #[cfg(target_arch = "x86_64")]
        if in_tiles {
            self.tiles.load_queries(&self.queries, rows, padded);
        }
        let seen = |row: usize| queries.start + range.start + row / group + 1;
        let end = seen(rows - 1);
        for (number, block) in blocks.iter().enumerate().take(end.div_ceil(KEYS)) {
            let first = number * KEYS;
            let keys = block.borrow().side(kernels.isa(), layer, head, false, &mut self.unpacked);
            #[cfg(target_arch = "x86_64")]
            if in_tiles {
                self.tiles.scores(keys.lines, rows, padded, &mut self.scores);
            } else {
                scores(kernels, &keys, &self.queries, rows, padded, &mut self.scores);
            }
            #[cfg(not(target_arch = "x86_64"))]
            scores(kernels, &keys, &self.queries, rows, padded, &mut self.scores);
            self.softmax(kernels.isa(), rows, padded, |row| {
                seen(row).saturating_sub(first).min(KEYS)
            });
            let values = block.borrow().side(kernels.isa(), layer, head, true, &mut self.unpacked);
            #[cfg(target_arch = "x86_64")]
            if in_tiles {
                self.tiles.add_values(values.lines, &self.scores, rows, padded, &mut self.sums);
                continue;
            }
            add_values(kernels, &values, &self.scores, rows, padded, &mut self.sums);
        }
        for (row, sums) in self.sums.chunks_exact(padded).enumerate().take(rows) {
            let share = self.weight[row].recip();
            // SAFETY: `out` is as long as the queries, and nobody else has this position and head.
            let out = unsafe { std::slice::from_raw_parts_mut(place.at(offset(row)), dim) };
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum * share;
            }
        }
    }

    /// Room for so many rows, filled up to what a kernel takes at a time; queries and sums of zeros.
    fn begin(&mut self, rows: usize, padded: usize) {
        let filled = rows.next_multiple_of(2 * PANEL);
        self.queries.clear();
        self.queries.resize(filled * padded, 0.0);
        self.sums.clear();
        self.sums.resize(filled * padded, 0.0);
        self.scores.resize(filled * KEYS, 0.0);
        self.largest.clear();
        self.largest.resize(rows, f32::NEG_INFINITY);
        self.weight.clear();
        self.weight.resize(rows, 0.0);
    }

    /// Turns scores into `e^(score - largest)`, 0 for keys that a row doesn't see, and scales what the row has summed before.
    fn softmax(&mut self, isa: Isa, rows: usize, padded: usize, seen: impl Fn(usize) -> usize) {
        let level = Level::of(isa);
        for row in 0..rows {
            let scores = &mut self.scores[row * KEYS..][..KEYS];
            let seen = seen(row);
            scores[seen..].fill(0.0);
            if seen == 0 {
                continue;
            }
            let (before, weight) = (self.largest[row], &mut self.weight[row]);
            let (largest, sum) = level.softmax_row(&mut scores[..seen], before);
            self.largest[row] = largest;
            if largest > before {
                let factor = (before - largest).exp();
                *weight *= factor;
                for sum in &mut self.sums[row * padded..][..padded] {
                    *sum *= factor;
                }
            }
            *weight += sum;
        }
    }
}

/// Turns scores into `e^(score - largest)`, where the largest is theirs or the one so far; the largest, and the sum.
#[inline(always)]
pub(crate) fn softmax_row(scores: &mut [f32], so_far: f32) -> (f32, f32) {
    let (lanes, rest) = scores.as_chunks_mut::<16>();
    let mut most = [so_far; 16];
    for lanes in &*lanes {
        for (most, score) in most.iter_mut().zip(lanes) {
            *most = if *score > *most { *score } else { *most };
        }
    }
    let largest = most.iter().chain(&*rest).copied().fold(so_far, f32::max);
    let mut sums = [0.0_f32; 16];
    for lanes in lanes {
        for (sum, score) in sums.iter_mut().zip(lanes) {
            *score = crate::vector::exp(*score - largest);
            *sum += *score;
        }
    }
    let mut sum = sums.iter().sum::<f32>();
    for score in rest {
        *score = crate::vector::exp(*score - largest);
        sum += *score;
    }
    (largest, sum)
}

/// `scores[rows][KEYS] = queries @ keys^T`.
fn scores(
    kernels: &Kernels,
    keys: &Side<'_>,
    queries: &[f32],
    rows: usize,
    padded: usize,
    out: &mut [f32],
) {
    let lines = keys.lines.len() / (KEYS / PANEL);
    by_rows(rows, |first, step| {
        for panel in 0..KEYS / PANEL {
            let lines = &keys.lines[panel * lines..][..lines];
            let xs = |row: usize| &queries[row * padded..][..padded];
            rows_tile(kernels, keys.is_bf16, lines, first, step, xs, |row, values| {
                out[row * KEYS + panel * PANEL..][..PANEL].copy_from_slice(values);
            });
        }
    });
}

/// `sums[rows][padded] += weights @ values`.
fn add_values(
    kernels: &Kernels,
    values: &Side<'_>,
    weights: &[f32],
    rows: usize,
    padded: usize,
    sums: &mut [f32],
) {
    let panels = padded / PANEL;
    let lines = values.lines.len() / panels;
    by_rows(rows, |first, step| {
        for panel in 0..panels {
            let lines = &values.lines[panel * lines..][..lines];
            let xs = |row: usize| &weights[row * KEYS..][..KEYS];
            rows_tile(kernels, values.is_bf16, lines, first, step, xs, |row, values| {
                let sums = &mut sums[row * padded + panel * PANEL..][..PANEL];
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            });
        }
    });
}

/// Cuts rows into eights, the last of which may be a four; both may reach beyond the last row, where there is room.
fn by_rows(rows: usize, mut run: impl FnMut(usize, usize)) {
    let mut at = 0;
    while at < rows {
        let step = if rows - at > 4 { 8 } else { 4 };
        run(at, step);
        at += step;
    }
}

/// The product of `step` rows with lines of a panel, 4 or 8.
fn rows_tile<'a>(
    kernels: &Kernels,
    is_bf16: bool,
    lines: &[[u8; 64]],
    first: usize,
    step: usize,
    xs: impl Fn(usize) -> &'a [f32],
    mut take: impl FnMut(usize, &[f32; PANEL]),
) {
    if step == 8 {
        let mut tile = [[0.0; PANEL]; 8];
        kernels.lines_tile(is_bf16, lines, std::array::from_fn(|i| xs(first + i)), &mut tile);
        (first..).zip(&tile).for_each(|(row, values)| take(row, values));
    } else {
        let mut tile = [[0.0; PANEL]; 4];
        kernels.lines_tile(is_bf16, lines, std::array::from_fn(|i| xs(first + i)), &mut tile);
        (first..).zip(&tile).for_each(|(row, values)| take(row, values));
    }
}

const _: () = assert!(KEYS.is_multiple_of(GROUP) && KEYS.is_multiple_of(PANEL));

levels!(softmax_row(scores: &mut [f32], so_far: f32) -> (f32, f32) = softmax_row);

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;
    use crate::kv::KvFormat;

    /// Keys and values `[positions, kv_heads, head_dim]` of a layer, in blocks.
    fn blocks(shape: KvShape, layer: usize, keys: &[f32], values: &[f32]) -> Vec<KvBlock> {
        let row = shape.heads * shape.head_dim;
        let mut blocks = Vec::new();
        for (position, (keys, values)) in
            keys.chunks_exact(row).zip(values.chunks_exact(row)).enumerate()
        {
            if position % KEYS == 0 {
                blocks.push(KvBlock::new(shape));
            }
            let block: &mut KvBlock = blocks.last_mut().unwrap();
            let heads = keys.chunks_exact(shape.head_dim).zip(values.chunks_exact(shape.head_dim));
            for (head, (key, value)) in heads.enumerate() {
                block.store(layer, head, position % KEYS, key, value);
            }
        }
        blocks
    }

    fn expected(shape: KvShape, keys: &[f32], values: &[f32], queries: Queries<'_>) -> Vec<f64> {
        let (dim, row) = (shape.head_dim, shape.heads * shape.head_dim);
        let group = queries.heads / shape.heads;
        let mut out = Vec::new();
        for (number, q) in queries.values.chunks_exact(dim).enumerate() {
            let (position, head) =
                (queries.start + number / queries.heads, number % queries.heads / group);
            let at = |xs: &[f32], position: usize| -> Vec<f64> {
                xs[position * row + head * dim..][..dim].iter().map(|x| f64::from(*x)).collect()
            };
            let weights: Vec<f64> = (0..=position)
                .map(|seen| {
                    let dot: f64 =
                        q.iter().zip(at(keys, seen)).map(|(q, k)| f64::from(*q) * k).sum();
                    (dot / (dim as f64).sqrt()).exp()
                })
                .collect();
            let whole: f64 = weights.iter().sum();
            let mut sums = vec![0.0; dim];
            for (seen, weight) in weights.iter().enumerate() {
                for (sum, value) in sums.iter_mut().zip(at(values, seen)) {
                    *sum += weight / whole * value;
                }
            }
            out.extend(sums);
        }
        out
    }

    #[test]
    fn attention_is_the_softmax_over_what_a_position_sees() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut random = |count: usize| -> Vec<f32> {
            (0..count).map(|_| rng.random_range(-2.0..2.0)).collect()
        };
        // Whole and broken blocks, one position and many, heads that need filling up.
        for (start, positions, heads, kv_heads, head_dim) in [
            (0, 1, 2, 1, 32),
            (130, 1, 6, 2, 64),
            (0, 70, 6, 2, 128),
            (63, 40, 4, 4, 48),
            (100, 5, 3, 1, 16),
        ] {
            for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Int8] {
                let shape = KvShape { layers: 2, heads: kv_heads, head_dim, format };
                let total = start + positions;
                let keys = random(total * kv_heads * head_dim);
                let values = random(total * kv_heads * head_dim);
                let q = random(positions * heads * head_dim);
                let queries = Queries { values: &q, heads, start };
                let expected = expected(shape, &keys, &values, queries);
                let blocks = blocks(shape, 1, &keys, &values);
                for isa in Isa::available() {
                    let kernels = Kernels::new(isa, 2);
                    let mut out = vec![f32::NAN; q.len()];
                    attend(&kernels, &blocks, 1, queries, &mut out);
                    let tolerance = if format == KvFormat::F32 { 1e-5 } else { 0.06 };
                    for (found, expected) in out.iter().zip(&expected) {
                        let error = (f64::from(*found) - expected).abs();
                        assert!(error < tolerance, "{isa} {format:?} {start}+{positions}: {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_block_is_restored_from_its_bytes() {
        let shape = KvShape { layers: 1, heads: 1, head_dim: 32, format: KvFormat::Bf16 };
        let mut block = KvBlock::new(shape);
        block.store(0, 0, 5, &[1.5; 32], &[2.5; 32]);
        let copy = KvBlock::from_bytes(shape, block.bytes()).unwrap();
        assert_eq!(copy.bytes(), block.bytes());
        assert!(KvBlock::from_bytes(shape, &block.bytes()[1..]).is_none());
    }
}
