//! A picture reduced to a grid of luma cells, the input of motion detection. Pure.

use outpost_runtime::Image;

/// Cells in a row.
pub const COLUMNS: usize = 64;
/// Rows of cells.
pub const ROWS: usize = 48;
/// All cells.
pub const CELLS: usize = COLUMNS * ROWS;

/// Sample points per cell and direction: enough to average out sensor noise.
const POINTS: usize = 5;

/// Mean luma per cell, 0 to 255, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Thumbnail(Vec<f32>);

impl Thumbnail {
    /// Reduces a picture. An empty one is black.
    pub fn new(image: &Image) -> Self {
        let width = image.width as usize;
        let height = image.height as usize;
        if width == 0 || height == 0 {
            return Self(vec![0.0; CELLS]);
        }
        let columns: Vec<usize> = points(COLUMNS, width);
        let rows: Vec<usize> = points(ROWS, height);
        let mut sums = vec![0u32; CELLS];
        for (y, row) in rows.iter().enumerate() {
            let line = &image.rgb[row * width * 3..(row + 1) * width * 3];
            for (x, column) in columns.iter().enumerate() {
                let pixel = &line[column * 3..column * 3 + 3];
                let luma =
                    77 * u32::from(pixel[0]) + 150 * u32::from(pixel[1]) + 29 * u32::from(pixel[2]);
                sums[y / POINTS * COLUMNS + x / POINTS] += luma;
            }
        }
        let scale = 1.0 / (256 * POINTS * POINTS) as f32;
        Self(sums.into_iter().map(|sum| sum as f32 * scale).collect())
    }

    /// The cells.
    pub fn cells(&self) -> &[f32] {
        &self.0
    }

    pub(super) fn cells_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }

    /// A picture of given cells, for tests.
    #[cfg(test)]
    pub(crate) fn of(cell: impl Fn(usize, usize) -> f32) -> Self {
        Self(
            (0..CELLS)
                .map(|index| cell(index % COLUMNS, index / COLUMNS).clamp(0.0, 255.0))
                .collect(),
        )
    }
}

/// Where the points of `cells` cells lie among `length` pixels.
fn points(cells: usize, length: usize) -> Vec<usize> {
    let count = cells * POINTS;
    (0..count).map(|point| (2 * point + 1) * length / (2 * count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_means_whatever_the_size() {
        for (width, height) in [(1, 1), (63, 47), (640, 480), (1921, 1081)] {
            let rgb = vec![100; width * height * 3];
            let image = Image { width: width as u32, height: height as u32, rgb: rgb.into() };
            let thumbnail = Thumbnail::new(&image);
            assert!(thumbnail.cells().iter().all(|cell| (cell - 100.0).abs() < 0.5));
        }
        let left_white: Vec<u8> =
            (0..640 * 480).flat_map(|at| [if at % 640 < 320 { 255 } else { 0 }; 3]).collect();
        let thumbnail = Thumbnail::new(&Image { width: 640, height: 480, rgb: left_white.into() });
        assert_eq!((thumbnail.cells()[31].round(), thumbnail.cells()[32]), (255.0, 0.0));
    }
}
