//! Products `ys = xs @ matrix^T` of positions with a packed matrix.
//!
//! A kernel computes a tile: one panel of 16 rows for a few positions, as many as its registers hold. This module cuts a product
//! into tiles, has the threads of a [`Pool`] share them, and writes them out.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use crate::activations::{Quantized, Shared};
use crate::format::Format;
use crate::isa::Isa;
use crate::level::Level;
use crate::matrix::Matrix;
use crate::pool::Pool;
use crate::{GROUP, PANEL};

/// An instruction set, and the threads that use it.
#[derive(Debug)]
pub struct Kernels {
    isa: Isa,
    pool: Pool,
}

/// What becomes of a product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Epilogue {
    /// It is the output.
    Store,
    /// It is multiplied and added to the output, as an adapter's is.
    Add(f32),
}

/// Positions that are multiplied with one or several matrices, and their conversions, made once for all of them. Its memory is
/// kept for the next positions.
#[derive(Debug, Default)]
pub struct Input {
    xs: Vec<f32>,
    width: usize,
    positions: usize,
    quantized: Option<Quantized>,
    spare: Option<Quantized>,
    #[cfg(target_arch = "x86_64")]
    tiles: amx::Tiles,
}

/// Room of a thread for what it computes before it is written out.
#[derive(Clone, Copy)]
struct Out {
    at: Shared<f32>,
    rows: usize,
    epilogue: Epilogue,
}

/// Bytes of activations that are multiplied with all panels before the next: they should stay in a core's own cache.
const ACTIVATIONS: usize = 768 << 10;

impl Input {
    /// Room for the positions, to be filled: `[positions, width]`.
    pub fn begin(&mut self, positions: usize, width: usize) -> &mut [f32] {
        (self.positions, self.width) = (positions, width);
        if let Some(quantized) = self.quantized.take() {
            self.spare = Some(quantized);
        }
        #[cfg(target_arch = "x86_64")]
        self.tiles.clear();
        if self.xs.len() < positions * width {
            self.xs.resize(positions * width, 0.0);
        }
        &mut self.xs[..positions * width]
    }

    /// The positions.
    pub fn values(&self) -> &[f32] {
        &self.xs[..self.positions * self.width]
    }

    fn quantized(&mut self, kernels: &Kernels) -> &Quantized {
        let (xs, width) = (&self.xs[..self.positions * self.width], self.width);
        let spare = &mut self.spare;
        self.quantized.get_or_insert_with(|| {
            let mut quantized = spare.take().unwrap_or_default();
            quantized.load(&kernels.pool, Level::of(kernels.isa), xs, width);
            quantized
        })
    }
}

impl Kernels {
    /// Kernels for an instruction set, on that many threads.
    ///
    /// # Panics
    /// When the CPU lacks the instruction set.
    pub fn new(isa: Isa, threads: usize) -> Self {
        assert!(isa.is_available(), "this CPU has no {isa}");
        Self { isa, pool: Pool::new(threads) }
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The threads.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// `xs @ matrix^T` for the positions of `input`, into `out` `[positions, rows]`.
    ///
    /// # Panics
    /// When the widths differ, or `out` has another size.
    pub fn product(&self, matrix: &Matrix, input: &mut Input, out: &mut [f32], epilogue: Epilogue) {
        let (positions, rows) = (input.positions, matrix.rows());
        assert!(
            input.width == matrix.width() && out.len() == positions * rows,
            "{positions} positions of {} for {rows} rows of {}",
            input.width,
            matrix.width()
        );
        #[cfg(target_arch = "x86_64")]
        if self.isa == Isa::Amx && positions >= amx::FROM && matrix.format() != Format::F32 {
            let Input { xs, tiles, width, .. } = input;
            let xs = &xs[..positions * *width];
            return amx::product(&self.pool, matrix, tiles, xs, Out::of(out, rows, epilogue));
        }
        let out = Out::of(out, rows, epilogue);
        match matrix.format() {
            Format::Q4 | Format::Q8 => {
                let input = input.quantized(self);
                self.by_tiles(matrix, positions, |panel, first, count| {
                    self.codes(matrix, panel, input, first, count, out);
                });
            }
            Format::Bf16 | Format::F32 => {
                let xs = input.values();
                self.by_tiles(matrix, positions, |panel, first, count| {
                    self.floats(matrix, panel, xs, first, count, out);
                });
            }
        }
    }

    /// Some rows of the product, for the last position alone: `out[i]` is that of row `rows[i]`. Only panels that have one of
    /// them are read. `rows` ascend.
    ///
    /// # Panics
    /// When the widths differ, or a row isn't there.
    pub fn product_of_rows(
        &self,
        matrix: &Matrix,
        input: &mut Input,
        rows: &[u32],
        out: &mut [f32],
    ) {
        assert!(input.width == matrix.width() && rows.len() == out.len(), "sizes differ");
        assert!(rows.iter().all(|row| (*row as usize) < matrix.rows()), "a row isn't there");
        let last = input.positions - 1;
        let runs: Vec<&[u32]> =
            rows.chunk_by(|a, b| *a as usize / PANEL == *b as usize / PANEL).collect();
        let mut starts = Vec::with_capacity(runs.len());
        let mut start = 0;
        for run in &runs {
            starts.push(start);
            start += run.len();
        }
        let place = Shared(out.as_mut_ptr());
        let coded = matches!(matrix.format(), Format::Q4 | Format::Q8);
        if coded {
            input.quantized(self);
        }
        let input = &*input;
        let step = runs.len().div_ceil(4 * self.pool.threads()).max(1);
        self.pool.run(runs.len().div_ceil(step), |task| {
            for index in task * step..runs.len().min((task + 1) * step) {
                let panel = runs[index][0] as usize / PANEL;
                let mut tile = [[0.0; PANEL]; 1];
                match &input.quantized {
                    Some(quantized) if coded => {
                        self.codes_tile(matrix, panel, quantized, last, &mut tile);
                    }
                    _ => {
                        let xs = &input.values()[last * input.width..];
                        self.floats_tile(matrix, panel, [xs], &mut tile);
                    }
                }
                for (at, row) in (starts[index]..).zip(runs[index]) {
                    #[expect(unsafe_code, reason = "tasks write to places of their own")]
                    // SAFETY: `at` is below `rows.len()`, which `out` is long, and belongs to this run alone.
                    unsafe {
                        place.at(at).write(tile[0][*row as usize % PANEL]);
                    }
                }
            }
        });
    }

    /// Has the threads share the panels; each takes some in a row, so that it reads one run of memory.
    fn by_tiles(
        &self,
        matrix: &Matrix,
        positions: usize,
        tile: impl Fn(usize, usize, usize) + Sync,
    ) {
        let panels = matrix.panels();
        let block = (ACTIVATIONS / matrix.width().max(1)).next_multiple_of(8).min(positions.max(1));
        let step = panels.div_ceil(4 * self.pool.threads()).max(1);
        for first in (0..positions).step_by(block) {
            let count = block.min(positions - first);
            self.pool.run(panels.div_ceil(step), |task| {
                for panel in task * step..panels.min((task + 1) * step) {
                    tile(panel, first, count);
                }
            });
        }
    }

    /// A panel of codes for `count` positions from `first` on.
    fn codes(
        &self,
        matrix: &Matrix,
        panel: usize,
        input: &Quantized,
        first: usize,
        count: usize,
        out: Out,
    ) {
        let mut at = first;
        let end = first + count;
        // What the registers of the instruction set hold.
        if matches!(self.isa, Isa::Amx | Isa::Avx512Vnni) {
            while end - at >= 8 {
                let mut tile = [[0.0; PANEL]; 8];
                self.codes_tile(matrix, panel, input, at, &mut tile);
                out.write(&tile, at, panel);
                at += 8;
            }
        }
        while end - at >= 4 {
            let mut tile = [[0.0; PANEL]; 4];
            self.codes_tile(matrix, panel, input, at, &mut tile);
            out.write(&tile, at, panel);
            at += 4;
        }
        while at < end {
            let mut tile = [[0.0; PANEL]; 1];
            self.codes_tile(matrix, panel, input, at, &mut tile);
            out.write(&tile, at, panel);
            at += 1;
        }
    }

    #[expect(unsafe_code, reason = "functions for CPU features")]
    fn codes_tile<const N: usize>(
        &self,
        matrix: &Matrix,
        panel: usize,
        input: &Quantized,
        first: usize,
        tile: &mut [[f32; PANEL]; N],
    ) {
        let is_q4 = matrix.format() == Format::Q4;
        // SAFETY: `Kernels::new` checked that this CPU has the instruction set.
        unsafe {
            match (self.isa, is_q4) {
                #[cfg(target_arch = "x86_64")]
                (Isa::Amx | Isa::Avx512Vnni, true) => {
                    avx512::q4(matrix.q4(panel), input, first, tile);
                }
                #[cfg(target_arch = "x86_64")]
                (Isa::Amx | Isa::Avx512Vnni, false) => {
                    avx512::q8(matrix.q8(panel), input, first, tile);
                }
                #[cfg(target_arch = "x86_64")]
                (Isa::AvxVnni, true) => avx2::q4_vnni(matrix.q4(panel), input, first, tile),
                #[cfg(target_arch = "x86_64")]
                (Isa::AvxVnni, false) => avx2::q8_vnni(matrix.q8(panel), input, first, tile),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx2, true) => avx2::q4(matrix.q4(panel), input, first, tile),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx2, false) => avx2::q8(matrix.q8(panel), input, first, tile),
                #[cfg(target_arch = "aarch64")]
                (Isa::Neon, true) => neon::q4(matrix.q4(panel), input, first, tile),
                #[cfg(target_arch = "aarch64")]
                (Isa::Neon, false) => neon::q8(matrix.q8(panel), input, first, tile),
                (_, true) => portable::q4(matrix.q4(panel), input, first, tile),
                (_, false) => portable::q8(matrix.q8(panel), input, first, tile),
            }
        }
    }

    /// As [`Kernels::codes`], for a panel of floats.
    fn floats(
        &self,
        matrix: &Matrix,
        panel: usize,
        xs: &[f32],
        first: usize,
        count: usize,
        out: Out,
    ) {
        let width = matrix.width();
        let row = |position: usize| &xs[position * width..][..width];
        let mut at = first;
        let end = first + count;
        if matches!(self.isa, Isa::Amx | Isa::Avx512Vnni) {
            while end - at >= 8 {
                let mut tile = [[0.0; PANEL]; 8];
                self.floats_tile(matrix, panel, std::array::from_fn(|i| row(at + i)), &mut tile);
                out.write(&tile, at, panel);
                at += 8;
            }
        }
        while end - at >= 4 {
            let mut tile = [[0.0; PANEL]; 4];
            self.floats_tile(matrix, panel, std::array::from_fn(|i| row(at + i)), &mut tile);
            out.write(&tile, at, panel);
            at += 4;
        }
        while at < end {
            let mut tile = [[0.0; PANEL]; 1];
            self.floats_tile(matrix, panel, [row(at)], &mut tile);
            out.write(&tile, at, panel);
            at += 1;
        }
    }

    fn floats_tile<const N: usize>(
        &self,
        matrix: &Matrix,
        panel: usize,
        xs: [&[f32]; N],
        tile: &mut [[f32; PANEL]; N],
    ) {
        let lines = matrix.panel(panel).as_chunks().0;
        self.lines_tile(matrix.format() == Format::Bf16, lines, xs, tile);
    }

    /// The product of lines of a panel of floats, of pairs in bf16 or of f32, with as many columns as `xs` have.
    #[expect(unsafe_code, reason = "functions for CPU features")]
    pub(crate) fn lines_tile<const N: usize>(
        &self,
        is_bf16: bool,
        lines: &[[u8; 64]],
        xs: [&[f32]; N],
        tile: &mut [[f32; PANEL]; N],
    ) {
        // SAFETY: as in `codes_tile`.
        unsafe {
            match (self.isa, is_bf16) {
                #[cfg(target_arch = "x86_64")]
                (Isa::Amx | Isa::Avx512Vnni, true) => avx512::bf16(lines, xs, tile),
                #[cfg(target_arch = "x86_64")]
                (Isa::Amx | Isa::Avx512Vnni, false) => avx512::f32(lines, xs, tile),
                #[cfg(target_arch = "x86_64")]
                (Isa::AvxVnni | Isa::Avx2, true) => avx2::bf16(lines, xs, tile),
                #[cfg(target_arch = "x86_64")]
                (Isa::AvxVnni | Isa::Avx2, false) => avx2::f32(lines, xs, tile),
                #[cfg(target_arch = "aarch64")]
                (Isa::Neon, true) => neon::bf16(lines, xs, tile),
                #[cfg(target_arch = "aarch64")]
                (Isa::Neon, false) => neon::f32(lines, xs, tile),
                (_, true) => portable::bf16(lines, xs, tile),
                (_, false) => portable::f32(lines, xs, tile),
            }
        }
    }
}

impl Out {
    fn of(out: &mut [f32], rows: usize, epilogue: Epilogue) -> Self {
        Self { at: Shared(out.as_mut_ptr()), rows, epilogue }
    }

    /// Writes the tile of `N` positions from `first` on and a panel's rows.
    fn write<const N: usize>(self, tile: &[[f32; PANEL]; N], first: usize, panel: usize) {
        for (position, values) in (first..).zip(tile) {
            self.write_row(values, position, panel);
        }
    }

    #[expect(unsafe_code, reason = "tasks write to places of their own")]
    fn write_row(self, values: &[f32; PANEL], position: usize, panel: usize) {
        let start = panel * PANEL;
        let count = PANEL.min(self.rows - start);
        // SAFETY: `out` has `rows` numbers for each position, and no two tiles share a panel and a position.
        let out = unsafe {
            std::slice::from_raw_parts_mut(self.at.at(position * self.rows + start), count)
        };
        match self.epilogue {
            Epilogue::Store => out.copy_from_slice(&values[..count]),
            Epilogue::Add(factor) => {
                for (out, value) in out.iter_mut().zip(values) {
                    *out += factor * value;
                }
            }
        }
    }
}

/// The four codes of an activation that meet line `line` of a group.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
fn four(codes: &[u8; GROUP], line: usize) -> i32 {
    let four = &codes[4 * line..4 * line + 4];
    i32::from_le_bytes([four[0], four[1], four[2], four[3]])
}

#[cfg(test)]
mod tests;

/// The columns that all positions have.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn common_width<const N: usize>(xs: &[&[f32]; N]) -> usize {
    xs.iter().map(|xs| xs.len()).min().unwrap_or(0)
}
