//! Rounding rows into the formats of 4 and 8 bits.

use crate::format::{Format, Q4_GROUP, Q4_SCALES, Q8_GROUP};
use crate::level::{Level, levels};
use crate::{GROUP, PANEL};

/// Shares of a group's range that are tried as the range of its codes: what is clipped may cost less than what is gained.
const CLIPS: [f32; 7] = [1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.75];

/// Rounds of fitting scale and minimum to the codes by least squares.
const FITS: usize = 2;

/// Scale and minimum of a group: `w = code * scale + min`.
#[derive(Clone, Copy)]
struct Line {
    scale: f32,
    min: f32,
}

/// Added and taken away, it rounds a number below 2^22 to the nearest integer, ties to even, where there may be no instruction
/// for it.
const ROUND: f32 = 12_582_912.0;

/// Lanes of sums, so that loops over a group become vector instructions.
const LANES: usize = 16;

impl Line {
    #[inline(always)]
    fn code(self, inverse: f32, value: f32) -> f32 {
        (((value - self.min) * inverse).clamp(0.0, 15.0) + ROUND) - ROUND
    }

    #[inline(always)]
    fn inverse(self) -> f32 {
        if self.scale == 0.0 { 0.0 } else { self.scale.recip() }
    }

    /// Summed squares of what rounding changes.
    #[inline(always)]
    fn error(self, group: &[f32; GROUP]) -> f32 {
        let inverse = self.inverse();
        let mut sums = [0.0_f32; LANES];
        for values in group.as_chunks::<LANES>().0 {
            for (sum, value) in sums.iter_mut().zip(values) {
                let error = self.code(inverse, *value) * self.scale + self.min - value;
                *sum += error * error;
            }
        }
        total(&sums)
    }

    /// The line that is best for the codes that this one leads to.
    #[inline(always)]
    fn fit(self, group: &[f32; GROUP]) -> Self {
        let inverse = self.inverse();
        let mut codes = [0.0; GROUP];
        for (code, value) in codes.iter_mut().zip(group) {
            *code = self.code(inverse, *value);
        }
        let (code_mean, mean) = (mean(&codes), mean(group));
        let (mut covariance, mut variance) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        for (codes, values) in codes.as_chunks::<LANES>().0.iter().zip(group.as_chunks::<LANES>().0)
        {
            for lane in 0..LANES {
                let code = codes[lane] - code_mean;
                covariance[lane] += code * (values[lane] - mean);
                variance[lane] += code * code;
            }
        }
        let variance = total(&variance);
        if variance == 0.0 {
            return self;
        }
        let scale = total(&covariance) / variance;
        Self { scale, min: mean - scale * code_mean }
    }

    /// The line of least squared error.
    #[inline(always)]
    fn best(group: &[f32; GROUP]) -> Self {
        let (least, largest) = range(group);
        let mut best = Self { scale: 0.0, min: f32::midpoint(least, largest) };
        let mut error = f32::INFINITY;
        for clip in CLIPS {
            let scale = (largest - least) * clip / 15.0;
            let line = Self { scale, min: f32::midpoint(least, largest) - 7.5 * scale };
            (error, best) = line.or(group, error, best);
        }
        for _ in 0..FITS {
            (error, best) = best.fit(group).or(group, error, best);
        }
        best
    }

    /// This line and its error if that is less.
    #[inline(always)]
    fn or(self, group: &[f32; GROUP], error: f32, other: Self) -> (f32, Self) {
        let own = self.error(group);
        if own < error { (own, self) } else { (error, other) }
    }
}

#[inline(always)]
fn total(sums: &[f32; LANES]) -> f32 {
    let mut sums = *sums;
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}

#[inline(always)]
fn mean(values: &[f32; GROUP]) -> f32 {
    let mut sums = [0.0; LANES];
    for values in values.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            sums[lane] += values[lane];
        }
    }
    total(&sums) / GROUP as f32
}

/// The least and the largest value.
#[inline(always)]
fn range(group: &[f32; GROUP]) -> (f32, f32) {
    let (mut least, mut largest) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    for values in group.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            least[lane] = if values[lane] < least[lane] { values[lane] } else { least[lane] };
            largest[lane] = if values[lane] > largest[lane] { values[lane] } else { largest[lane] };
        }
    }
    let mut range = (least[0], largest[0]);
    for lane in 1..LANES {
        range = (range.0.min(least[lane]), range.1.max(largest[lane]));
    }
    range
}

/// A Q4 panel of up to 16 rows.
#[inline(always)]
pub(crate) fn q4_panel(values: &[f32], width: usize) -> Vec<u8> {
    let groups = width / GROUP;
    let mut panel = vec![0; Format::Q4.panel_bytes(width).unwrap_or_default()];
    let (codes, scales) = panel.split_at_mut(groups * Q4_GROUP);
    let units = scales.len() - 2 * PANEL * size_of::<f32>();
    let (scales, units) = scales.split_at_mut(units);
    let mut lines = Vec::with_capacity(groups);
    for (row, values) in values.chunks_exact(width).enumerate() {
        let (values, _) = values.as_chunks::<GROUP>();
        let mut unit = Line { scale: 0.0, min: 0.0 };
        lines.clear();
        for group in values {
            let line = Line::best(group);
            unit = Line {
                scale: unit.scale.max(line.scale.abs() / 255.0),
                min: unit.min.max(line.min.abs() / 127.0),
            };
            lines.push(line);
        }
        units[4 * row..][..4].copy_from_slice(&unit.scale.to_le_bytes());
        units[4 * (PANEL + row)..][..4].copy_from_slice(&unit.min.to_le_bytes());
        for (group, (line, values)) in lines.iter().zip(values).enumerate() {
            let (scale, min, line) = coded(*line, unit, values);
            scales[group * Q4_SCALES + row] = scale;
            scales[group * Q4_SCALES + PANEL + row] = min.cast_unsigned();
            let inverse = line.inverse();
            for (at, value) in values.iter().enumerate() {
                let code = line.code(inverse, *value) as u8;
                let byte = group * Q4_GROUP + at / 8 * 64 + 4 * row + at % 4;
                codes[byte] |= if at % 8 < 4 { code } else { code << 4 };
            }
        }
    }
    panel
}

/// The codes of a line in the units of its row, and the line that they stand for: the best of those around the nearest.
#[inline(always)]
fn coded(line: Line, unit: Line, group: &[f32; GROUP]) -> (u8, i8, Line) {
    let mut best = (f32::INFINITY, 0.0, 0.0, Line { scale: 0.0, min: 0.0 });
    // A scale fitted to a constant group may be negative; its codes are then of no use.
    let near = nearest(line.scale, unit.scale);
    for step in [-1.0, 0.0, 1.0] {
        let scale = (near + step).clamp(0.0, 255.0);
        // The middle of the codes keeps its place when the scale is rounded.
        let middle = line.min + 7.5 * (line.scale - scale * unit.scale);
        for min in [middle, line.min] {
            let min = nearest(min, unit.min).clamp(-127.0, 127.0);
            let line = Line { scale: scale * unit.scale, min: min * unit.min };
            let error = line.error(group);
            if error < best.0 {
                best = (error, scale, min, line);
            }
        }
    }
    (best.1 as u8, best.2 as i8, best.3)
}

/// How many units a value is, rounded.
#[inline(always)]
fn nearest(value: f32, unit: f32) -> f32 {
    if unit == 0.0 { 0.0 } else { ((value / unit).clamp(-512.0, 512.0) + ROUND) - ROUND }
}

/// A Q8 panel of up to 16 rows.
#[inline(always)]
pub(crate) fn q8_panel(values: &[f32], width: usize) -> Vec<u8> {
    // 128 is the code of 0: rows that aren't there stay 0.
    let mut panel = vec![128; Format::Q8.panel_bytes(width).unwrap_or_default()];
    let (codes, scales) = panel.split_at_mut(width / GROUP * Q8_GROUP);
    scales.fill(0);
    for (row, values) in values.chunks_exact(width).enumerate() {
        let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let scale = largest / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { scale.recip() };
        scales[4 * row..][..4].copy_from_slice(&scale.to_le_bytes());
        for (column, value) in values.iter().enumerate() {
            let code = ((value * inverse).clamp(-127.0, 127.0) + ROUND) - ROUND + 128.0;
            codes[column / 4 * 64 + 4 * row + column % 4] = code as u8;
        }
    }
    panel
}

levels!(q8_panel(values: &[f32], width: usize) -> Vec<u8> = q8_panel);
levels!(q4_panel(values: &[f32], width: usize) -> Vec<u8> = q4_panel);

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use crate::format::Format;
    use crate::matrix::Matrix;

    /// Near to Gaussian.
    fn weights(count: usize) -> Vec<f32> {
        let mut rng = StdRng::seed_from_u64(1);
        (0..count).map(|_| (0..12).map(|_| rng.random_range(-0.05..0.05)).sum()).collect()
    }

    /// The error's share of the numbers, by their squares.
    fn relative(format: Format, values: &[f32], width: usize) -> f64 {
        let matrix = Matrix::pack(format, values, width).unwrap();
        let mut row = vec![0.0; width];
        let (mut error, mut whole) = (0.0, 0.0);
        for (number, values) in values.chunks_exact(width).enumerate() {
            matrix.row(number, &mut row);
            for (found, expected) in row.iter().zip(values) {
                error += f64::from(found - expected).powi(2);
                whole += f64::from(*expected).powi(2);
            }
        }
        (error / whole).sqrt()
    }

    #[test]
    fn rounding_stays_within_its_bound() {
        let values = weights(64 * 1024);
        let (q4, q8) = (relative(Format::Q4, &values, 1024), relative(Format::Q8, &values, 1024));
        println!("q4 {q4:.5} q8 {q8:.5}");
        assert!(q4 < 0.078, "{q4}");
        assert!(q8 < 0.01, "{q8}");
    }

    #[test]
    fn numbers_that_lie_on_sixteen_steps_are_kept() {
        // As files in Q4_1 have them: any scale and minimum a group.
        let mut rng = StdRng::seed_from_u64(2);
        let mut values = Vec::new();
        for _ in 0..64 {
            let (scale, min) = (rng.random_range(0.01..0.03), rng.random_range(-0.3..-0.1));
            let mut codes: Vec<u8> = (0..32).map(|_| rng.random_range(0..16)).collect();
            (codes[3], codes[9]) = (0, 15);
            values.extend(codes.iter().map(|code| f32::from(*code) * scale + min));
        }
        let error = relative(Format::Q4, &values, 256);
        assert!(error < 0.01, "{error}");
    }

    #[test]
    fn constant_and_zero_rows_survive() {
        for value in [0.0, 0.5, -3.0] {
            for format in [Format::Q4, Format::Q8] {
                let matrix = Matrix::pack(format, &[value; 64], 64).unwrap();
                let mut row = [9.0; 64];
                matrix.row(0, &mut row);
                let near = row.iter().all(|found| (found - value).abs() <= 1e-6 * value.abs());
                assert!(near, "{format:?} {value}: {row:?}");
            }
        }
    }
}
