//! A matrix in the order in which it is multiplied.
//!
//! # Layout
//! A `[rows, width]` matrix is a run of panels of 16 rows; the last one is filled up with zeros. A panel is a multiple of 64
//! bytes, and everything in it is little-endian.
//!
//! | format | a panel | bits a weight |
//! | --- | --- | --- |
//! | [`Format::Q4`] | for each group of 32 columns 256 bytes of codes; then for each group 16 `u8` scale codes and 16 `i8` minimum codes, filled up to 64 bytes; then 16 `f32` scale units and 16 `f32` minimum units | 4.5 |
//! | [`Format::Q8`] | for each group of 32 columns 512 bytes of codes; then 16 `f32` scales | 8 |
//! | [`Format::Bf16`] | for each pair of columns 64 bytes: 16 times `bf16` of the even and of the odd column | 16 |
//! | [`Format::F32`] | for each column 64 bytes: 16 `f32` | 32 |
//!
//! Codes of a group lie in lines of 64 bytes, four bytes a row: byte `4 n + k` is row `n`.
//! - Q4: line `j` has column `8 j + k` in the low nibble and column `8 j + 4 + k` in the high one. A weight is
//!   `scale_code * scale_unit * code + min_code * min_unit`, with `code` in 0..=15.
//! - Q8: line `j` has column `4 j + k`. A weight is `(code - 128) * scale`.
//!
//! This serves `vpdpbusd`, `vpmaddubsw` and `sdot`, which all take four columns of a row, and AMX, whose tiles of bf16 pairs are
//! made from it by permutes.

use std::fmt;
use std::ops::Range;

use half::bf16;

use crate::format::{Format, Q4_GROUP, Q4_SCALES, Q8_GROUP, scales_bytes};
use crate::level::Level;
use crate::mapping::{ALIGN, AlignedBytes, Bytes};
use crate::{GROUP, PANEL};

impl Format {
    /// Packs up to 16 rows of `width` values into a panel.
    ///
    /// # Panics
    /// When `values` are no whole rows or more than 16, or the format doesn't take the width.
    pub fn pack(self, values: &[f32], width: usize) -> Vec<u8> {
        assert!(
            self.takes(width)
                && values.len().is_multiple_of(width)
                && values.len() <= PANEL * width,
            "up to {PANEL} rows of {width} for {self:?}"
        );
        match self {
            Self::Q4 => Level::widest().q4_panel(values, width),
            Self::Q8 => Level::widest().q8_panel(values, width),
            Self::Bf16 => bf16_panel(values, width),
            Self::F32 => f32_panel(values, width),
        }
    }
}

fn bf16_panel(values: &[f32], width: usize) -> Vec<u8> {
    let mut panel = vec![0; width.div_ceil(2) * ALIGN];
    for (row, values) in values.chunks_exact(width).enumerate() {
        for (column, value) in values.iter().enumerate() {
            let at = column / 2 * ALIGN + 4 * row + 2 * (column % 2);
            panel[at..at + 2].copy_from_slice(&bf16::from_f32(*value).to_le_bytes());
        }
    }
    panel
}

fn f32_panel(values: &[f32], width: usize) -> Vec<u8> {
    let mut panel = vec![0; width * ALIGN];
    for (row, values) in values.chunks_exact(width).enumerate() {
        for (column, value) in values.iter().enumerate() {
            let at = column * ALIGN + 4 * row;
            panel[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
    panel
}

/// What is wrong with the bytes of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatrixError {
    /// The format doesn't take this width, or the size is beyond what can be counted.
    Size {
        /// The format.
        format: Format,
        /// Rows asked for.
        rows: usize,
        /// Width asked for.
        width: usize,
    },
    /// There are more or fewer bytes than the size asks for.
    Length {
        /// Bytes there are.
        found: usize,
        /// Bytes there should be.
        expected: usize,
    },
}

impl fmt::Display for MatrixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { format, rows, width } => {
                write!(f, "{format:?} has no matrix of {rows} rows of {width}")
            }
            Self::Length { found, expected } => write!(f, "{found} bytes instead of {expected}"),
        }
    }
}

impl std::error::Error for MatrixError {}

/// A packed `[rows, width]` matrix.
#[derive(Debug, Clone)]
pub struct Matrix {
    format: Format,
    rows: usize,
    width: usize,
    panel_bytes: usize,
    bytes: Bytes,
}

/// A view of a Q4 panel.
#[derive(Clone, Copy)]
pub(crate) struct Q4Panel<'a> {
    /// Lines of a group.
    pub(crate) codes: &'a [[u8; Q4_GROUP]],
    /// Scale codes and minimum codes of a group.
    pub(crate) scales: &'a [[u8; Q4_SCALES]],
    pub(crate) scale_unit: [f32; PANEL],
    pub(crate) min_unit: [f32; PANEL],
}

/// A view of a Q8 panel.
#[derive(Clone, Copy)]
pub(crate) struct Q8Panel<'a> {
    /// Lines of a group.
    pub(crate) codes: &'a [[u8; Q8_GROUP]],
    pub(crate) scale: [f32; PANEL],
}

impl Matrix {
    /// Takes bytes for a packed matrix.
    ///
    /// # Errors
    /// When the bytes are not as many as the size asks for.
    pub fn new(
        format: Format,
        rows: usize,
        width: usize,
        bytes: Bytes,
    ) -> Result<Self, MatrixError> {
        let size = MatrixError::Size { format, rows, width };
        let panel_bytes = format.panel_bytes(width).ok_or(size)?;
        let expected = format.bytes(rows, width).ok_or(size)?;
        if bytes.len() != expected || rows == 0 {
            return Err(MatrixError::Length { found: bytes.len(), expected });
        }
        Ok(Self { format, rows, width, panel_bytes, bytes })
    }

    /// Packs `[rows, width]` values.
    ///
    /// # Errors
    /// When the format doesn't take the width, or `values` are no whole rows.
    pub fn pack(format: Format, values: &[f32], width: usize) -> Result<Self, MatrixError> {
        let rows = values.len().checked_div(width).unwrap_or(0);
        if !format.takes(width) || rows * width != values.len() {
            return Err(MatrixError::Size { format, rows, width });
        }
        let bytes: Vec<u8> =
            values.chunks(PANEL * width).flat_map(|rows| format.pack(rows, width)).collect();
        Self::new(format, rows, width, AlignedBytes::copy_of(&bytes).into())
    }

    /// The number format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The packed bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL)
    }

    pub(crate) fn panel(&self, index: usize) -> &[u8] {
        &self.bytes[index * self.panel_bytes..][..self.panel_bytes]
    }

    pub(crate) fn q4(&self, index: usize) -> Q4Panel<'_> {
        Q4Panel::new(self.panel(index), self.width / GROUP)
    }

    pub(crate) fn q8(&self, index: usize) -> Q8Panel<'_> {
        Q8Panel::new(self.panel(index), self.width / GROUP)
    }

    /// The codes and scales of some rows of a Q4 matrix, row by row: two codes a byte, the even column in the high nibble,
    /// `[rows, width / 2]`; and for each group and row a scale and what code 8 stands for, `[width / 32, rows, 2]`.
    ///
    /// # Panics
    /// When the matrix is in another format, or there are no such rows.
    pub fn q4_codes(&self, rows: Range<usize>) -> (Vec<u8>, Vec<f32>) {
        assert_eq!(self.format, Format::Q4, "codes of 4 bits");
        assert!(rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        let mut codes = vec![0; rows.len() * self.width / 2];
        let mut scales = vec![0.0; self.width / GROUP * rows.len() * 2];
        for (number, codes) in codes.chunks_exact_mut(self.width / 2).enumerate() {
            let row = rows.start + number;
            let (panel, n) = (self.q4(row / PANEL), row % PANEL);
            for (group, (lines, codes)) in
                panel.codes.iter().zip(codes.as_chunks_mut::<16>().0).enumerate()
            {
                let (scale, min) = panel.scale_min(group, n);
                let at = 2 * (group * rows.len() + number);
                (scales[at], scales[at + 1]) = (scale, min + 8.0 * scale);
                for (line, codes) in
                    lines.as_chunks::<64>().0.iter().zip(codes.as_chunks_mut::<4>().0)
                {
                    let four = &line[4 * n..4 * n + 4];
                    let pair = |even: u8, odd: u8| even << 4 | odd;
                    *codes = [
                        pair(four[0] & 15, four[1] & 15),
                        pair(four[2] & 15, four[3] & 15),
                        pair(four[0] >> 4, four[1] >> 4),
                        pair(four[2] >> 4, four[3] >> 4),
                    ];
                }
            }
        }
        (codes, scales)
    }

    /// The codes of some rows of a Q8 matrix, row by row, `[rows, width]`, and the scale of each row.
    ///
    /// # Panics
    /// When the matrix is in another format, or there are no such rows.
    pub fn q8_codes(&self, rows: Range<usize>) -> (Vec<i8>, Vec<f32>) {
        assert_eq!(self.format, Format::Q8, "codes of 8 bits");
        assert!(rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        let mut codes = vec![0; rows.len() * self.width];
        let mut scales = Vec::with_capacity(rows.len());
        for (row, codes) in rows.zip(codes.chunks_exact_mut(self.width)) {
            let (panel, n) = (self.q8(row / PANEL), row % PANEL);
            scales.push(panel.scale[n]);
            let lines = panel.codes.as_flattened().chunks_exact(ALIGN);
            for (line, codes) in lines.zip(codes.chunks_exact_mut(4)) {
                for (code, byte) in codes.iter_mut().zip(&line[4 * n..]) {
                    // Less 128, in eight bits.
                    *code = (byte ^ 128).cast_signed();
                }
            }
        }
        (codes, scales)
    }

    /// A row in f32.
    ///
    /// # Panics
    /// When there is no such row, or `out` isn't `width` long.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.width, "row {row} of {}", self.rows);
        let (index, n) = (row / PANEL, row % PANEL);
        let panel = self.panel(index);
        match self.format {
            Format::Q4 => self.q4(index).row(n, out),
            Format::Q8 => self.q8(index).row(n, out),
            Format::Bf16 => {
                for (column, value) in out.iter_mut().enumerate() {
                    let at = column / 2 * ALIGN + 4 * n + 2 * (column % 2);
                    *value = bf16::from_le_bytes([panel[at], panel[at + 1]]).to_f32();
                }
            }
            Format::F32 => {
                for (column, value) in out.iter_mut().enumerate() {
                    [*value] = f32s(&panel[column * ALIGN + 4 * n..]);
                }
            }
        }
    }
}

/// The first `N` f32 of some bytes.
fn f32s<const N: usize>(bytes: &[u8]) -> [f32; N] {
    let mut values = [0.0; N];
    for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
        *value = f32::from_le_bytes(*bytes);
    }
    values
}

impl<'a> Q4Panel<'a> {
    fn new(panel: &'a [u8], groups: usize) -> Self {
        let (codes, rest) = panel.split_at(groups * Q4_GROUP);
        let (scales, units) = rest.split_at(scales_bytes(groups));
        Self {
            codes: codes.as_chunks().0,
            scales: &scales.as_chunks().0[..groups],
            scale_unit: f32s(units),
            min_unit: f32s(&units[PANEL * size_of::<f32>()..]),
        }
    }

    /// Scale and minimum of a row in a group.
    fn scale_min(&self, group: usize, row: usize) -> (f32, f32) {
        let scales = &self.scales[group];
        (
            f32::from(scales[row]) * self.scale_unit[row],
            f32::from(scales[PANEL + row].cast_signed()) * self.min_unit[row],
        )
    }

    fn row(&self, row: usize, out: &mut [f32]) {
        for (group, (codes, out)) in self.codes.iter().zip(out.chunks_exact_mut(GROUP)).enumerate()
        {
            let (scale, min) = self.scale_min(group, row);
            for (line, out) in codes.chunks_exact(ALIGN).zip(out.chunks_exact_mut(8)) {
                for k in 0..4 {
                    let byte = line[4 * row + k];
                    out[k] = f32::from(byte & 15) * scale + min;
                    out[4 + k] = f32::from(byte >> 4) * scale + min;
                }
            }
        }
    }
}

impl<'a> Q8Panel<'a> {
    fn new(panel: &'a [u8], groups: usize) -> Self {
        let (codes, scales) = panel.split_at(groups * Q8_GROUP);
        Self { codes: codes.as_chunks().0, scale: f32s(scales) }
    }

    fn row(&self, row: usize, out: &mut [f32]) {
        let lines = self.codes.as_flattened().chunks_exact(ALIGN);
        for (line, out) in lines.zip(out.chunks_exact_mut(4)) {
            for (k, out) in out.iter_mut().enumerate() {
                *out = (f32::from(line[4 * row + k]) - 128.0) * self.scale[row];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_gives_back_its_rows() {
        let (rows, width) = (37, 96);
        let values: Vec<f32> =
            (0..rows * width).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        for (format, bound) in
            [(Format::F32, 0.0), (Format::Bf16, 0.004), (Format::Q8, 0.005), (Format::Q4, 0.09)]
        {
            let matrix = Matrix::pack(format, &values, width).unwrap();
            assert_eq!(matrix.bytes().len(), format.bytes(rows, width).unwrap());
            let mut row = vec![0.0; width];
            for (number, expected) in values.chunks_exact(width).enumerate() {
                matrix.row(number, &mut row);
                for (found, expected) in row.iter().zip(expected) {
                    assert!((found - expected).abs() <= bound, "{format:?}: {found} {expected}");
                }
            }
        }
    }

    #[test]
    fn codes_row_by_row_stand_for_the_same_numbers() {
        let (rows, width) = (20, 96);
        let values: Vec<f32> = (0..rows * width).map(|i| ((i * 53) % 97) as f32 - 40.0).collect();
        let [four, eight] =
            [Format::Q4, Format::Q8].map(|format| Matrix::pack(format, &values, width).unwrap());
        let (first, count) = (3, 15);
        let (codes, scales) = four.q4_codes(first..first + count);
        let (bytes, factors) = eight.q8_codes(first..first + count);
        let (mut of_q4, mut of_q8) = (vec![0.0; width], vec![0.0; width]);
        for row in 0..count {
            four.row(first + row, &mut of_q4);
            eight.row(first + row, &mut of_q8);
            for (column, (q4, q8)) in of_q4.iter().zip(&of_q8).enumerate() {
                let byte = codes[row * width / 2 + column / 2];
                let code = if column % 2 == 0 { byte >> 4 } else { byte & 15 };
                let at = 2 * (column / GROUP * count + row);
                let found = (f32::from(code) - 8.0) * scales[at] + scales[at + 1];
                assert!((found - q4).abs() < 1e-4, "{row} {column}: {found}");
                let found = f32::from(bytes[row * width + column]) * factors[row];
                assert!((found - q8).abs() < 1e-4, "{row} {column}: {found}");
            }
        }
    }

    #[test]
    fn odd_widths_are_for_floats_alone() {
        let values = vec![0.5; 3 * 7];
        for format in [Format::F32, Format::Bf16] {
            let matrix = Matrix::pack(format, &values, 7).unwrap();
            let mut row = [0.0; 7];
            matrix.row(2, &mut row);
            assert_eq!(row.map(|value| (value * 2.0) as i32), [1; 7]);
        }
        assert!(Matrix::pack(Format::Q4, &values, 7).is_err());
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        let bytes = || Bytes::from(AlignedBytes::zeroed(100));
        assert_eq!(
            Matrix::new(Format::Q4, 16, 32, bytes()).unwrap_err().to_string(),
            "100 bytes instead of 448"
        );
        assert!(Matrix::new(Format::Q4, usize::MAX, 32, bytes()).is_err());
        assert!(Matrix::new(Format::F32, usize::MAX, usize::MAX, bytes()).is_err());
        assert!(Matrix::new(Format::Q8, 0, 32, Bytes::from(AlignedBytes::zeroed(0))).is_err());
    }
}
