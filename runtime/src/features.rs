//! Rows of numbers on their way from an encoder to the decoder.

/// A matrix in row-major order: mel frames, encoder states or rows for the decoder's placeholders.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Features {
    /// Rows: frames or tokens.
    pub rows: usize,
    /// Numbers per row.
    pub width: usize,
    /// `rows * width` numbers.
    pub data: Vec<f32>,
}

impl Features {
    /// Takes `data` as rows of `width` numbers; a tail shorter than a row is dropped.
    pub fn new(width: usize, mut data: Vec<f32>) -> Self {
        let rows = data.len().checked_div(width).unwrap_or(0);
        data.truncate(rows * width);
        Self { rows, width, data }
    }

    /// One row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.width..(row + 1) * self.width]
    }
}
