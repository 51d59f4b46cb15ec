//! Rounding rows into the formats of 4 and 8 bits.

mod lanes;

use self::lanes::{Lanes, ROUND};
use crate::format::{Format, Q4_GROUP, Q4_SCALES, Q8_GROUP};
use crate::level::{Level, levels};
use crate::{GROUP, PANEL};

/// Shares of a group's range that are tried as the range of its codes: what is clipped may cost less than what is gained.
const CLIPS: [f32; 7] = [1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.75];

/// Rounds of fitting scale and minimum to the codes by least squares.
const FITS: usize = 2;

/// A group of some rows, column by column.
type Group<L> = [L; GROUP];

/// Scale and minimum of a group in some rows: `w = code * scale + min`.
#[derive(Clone, Copy)]
struct Line<L> {
    scale: L,
    min: L,
}

impl<L: Lanes> Line<L> {
    #[inline(always)]
    fn zero() -> Self {
        Self { scale: L::zero(), min: L::zero() }
    }

    #[inline(always)]
    fn code(self, inverse: L, values: L) -> L {
        values.sub(self.min).mul(inverse).within(0.0, 15.0).round()
    }

    #[inline(always)]
    fn inverse(self) -> L {
        L::all(1.0).over(self.scale)
    }

    /// Two bytes of codes side by side, a whole number in the low bits. A byte has one of the first four columns in its low
    /// nibble, one of the others in its high nibble.
    #[inline(always)]
    fn pair(self, columns: &[L; 8], first: usize) -> L {
        let inverse = self.inverse();
        let mut pair = L::all(ROUND);
        for (at, place) in
            [first, 4 + first, first + 1, 5 + first].into_iter().zip([1.0, 16.0, 256.0, 4096.0])
        {
            pair = pair.add(self.code(inverse, columns[at]).mul(L::all(place)));
        }
        pair
    }

    /// Summed squares of what rounding changes, in steps; for a constant line, none are seen.
    #[inline(always)]
    fn error(self, group: &Group<L>) -> L {
        let inverse = self.inverse();
        let mut sum = L::zero();
        for values in group {
            let exact = values.sub(self.min).mul(inverse);
            let error = exact.sub(exact.within(0.0, 15.0).round());
            sum = sum.add(error.mul(error));
        }
        sum.mul(self.scale.mul(self.scale))
    }

    /// The line that is best for the codes that this one leads to. A constant for codes that are all the same.
    #[inline(always)]
    fn fit(self, group: &Group<L>) -> Self {
        let inverse = self.inverse();
        let share = L::all(1.0 / GROUP as f32);
        let (mut codes, mut sum) = (L::zero(), L::zero());
        for values in group {
            codes = codes.add(self.code(inverse, *values));
            sum = sum.add(*values);
        }
        let (code_mean, mean) = (codes.mul(share), sum.mul(share));
        let (mut covariance, mut variance) = (L::zero(), L::zero());
        for values in group {
            let code = self.code(inverse, *values).sub(code_mean);
            covariance = covariance.add(code.mul(values.sub(mean)));
            variance = variance.add(code.mul(code));
        }
        let scale = covariance.over(variance);
        Self { scale, min: mean.sub(scale.mul(code_mean)) }
    }

    /// The line of least squared error.
    #[inline(always)]
    fn best(group: &Group<L>) -> Self {
        let (mut least, mut largest) = (group[0], group[0]);
        for values in group {
            (least, largest) = (values.min(least), values.max(largest));
        }
        let middle = least.add(largest).mul(L::all(0.5));
        let mut best = Best::new(Self { scale: L::zero(), min: middle });
        for clip in CLIPS {
            let scale = largest.sub(least).mul(L::all(clip / 15.0));
            best.offer(Self { scale, min: middle.sub(scale.mul(L::all(7.5))) }, group);
        }
        for _ in 0..FITS {
            best.offer(best.line.fit(group), group);
        }
        best.line
    }

    /// The best line around this one that is made of whole units.
    #[inline(always)]
    fn in_units(self, unit: Self, group: &Group<L>) -> Self {
        let mut best = Best::new(Self::zero());
        let near = nearest(self.scale, unit.scale);
        for step in [-1.0, 0.0, 1.0] {
            // At least a step wide: what a constant line stands for, one of a single code does as well.
            let scale = near.add(L::all(step)).within(1.0, 255.0).mul(unit.scale);
            // The middle of the codes keeps its place when the scale is rounded.
            let middle = self.min.add(self.scale.sub(scale).mul(L::all(7.5)));
            for min in [middle, self.min] {
                let min = nearest(min, unit.min).within(-127.0, 127.0).mul(unit.min);
                best.offer(Self { scale, min }, group);
            }
        }
        best.line
    }
}

/// The line of least squared error so far.
struct Best<L> {
    line: Line<L>,
    error: L,
}

impl<L: Lanes> Best<L> {
    #[inline(always)]
    fn new(line: Line<L>) -> Self {
        Self { line, error: L::all(f32::INFINITY) }
    }

    #[inline(always)]
    fn offer(&mut self, line: Line<L>, group: &Group<L>) {
        let error = line.error(group);
        let Self { line: old, error: least } = *self;
        self.line.scale = error.less(least, line.scale, old.scale);
        self.line.min = error.less(least, line.min, old.min);
        self.error = error.less(least, error, least);
    }
}

/// How many units a value is, rounded.
#[inline(always)]
fn nearest<L: Lanes>(values: L, unit: L) -> L {
    values.over(unit).within(-512.0, 512.0).round()
}

impl Level {
    /// A Q4 panel of up to 16 rows.
    pub(crate) fn q4_panel(self, values: &[f32], width: usize) -> Vec<u8> {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        fn avx2(values: &[f32], width: usize) -> Vec<u8> {
            q4_panel::<lanes::Eight>(values, width)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        fn avx512(values: &[f32], width: usize) -> Vec<u8> {
            q4_panel::<lanes::Sixteen>(values, width)
        }
        match self {
            Self::Base => q4_panel::<lanes::Four>(values, width),
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "a function for CPU features")]
            // SAFETY: the level is made from an instruction set that this CPU has.
            Self::Avx2 => unsafe { avx2(values, width) },
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "a function for CPU features")]
            // SAFETY: as above.
            Self::Avx512 => unsafe { avx512(values, width) },
        }
    }
}

#[inline(always)]
fn q4_panel<L: Lanes>(values: &[f32], width: usize) -> Vec<u8> {
    let groups = width / GROUP;
    let mut panel = vec![0; Format::Q4.panel_bytes(width).unwrap_or_default()];
    let (codes, scales) = panel.split_at_mut(groups * Q4_GROUP);
    let (scales, units) = scales.split_at_mut(scales.len() - 2 * PANEL * size_of::<f32>());
    let mut lines: Vec<Line<L>> = Vec::with_capacity(groups);
    for first in (0..PANEL).step_by(L::COUNT) {
        let mut unit = Line::<L>::zero();
        lines.clear();
        for index in 0..groups {
            let line = Line::<L>::best(&load_group(values, width, index, first));
            unit.scale = unit.scale.max(line.scale.abs().div(L::all(255.0)));
            unit.min = unit.min.max(line.min.abs().div(L::all(127.0)));
            lines.push(line);
        }
        for (at, unit) in [(first, unit.scale), (PANEL + first, unit.min)] {
            for (row, unit) in (at..).zip(&rows(unit)[..L::COUNT]) {
                units[4 * row..][..4].copy_from_slice(&unit.to_le_bytes());
            }
        }
        let places = codes.as_chunks_mut().0.iter_mut().zip(scales.as_chunks_mut().0);
        for ((index, line), (codes, scales)) in lines.iter().enumerate().zip(places) {
            let group = load_group(values, width, index, first);
            let line = line.in_units(unit, &group);
            write_group(line, unit, first, &group, codes, scales);
        }
    }
    panel
}

/// A group of some of up to 16 rows, zeros where there is no row. No closures here and below: they would be compiled without the
/// CPU feature.
#[inline(always)]
fn load_group<L: Lanes>(values: &[f32], width: usize, group: usize, first: usize) -> Group<L> {
    let mut columns = [[0.0; PANEL]; GROUP];
    for (row, values) in values.chunks_exact(width).skip(first).take(L::COUNT).enumerate() {
        for (column, value) in columns.iter_mut().zip(&values[group * GROUP..]) {
            column[row] = *value;
        }
    }
    let mut group = [L::zero(); GROUP];
    for (lanes, column) in group.iter_mut().zip(&columns) {
        *lanes = L::load(column);
    }
    group
}

/// The lanes one by one.
#[inline(always)]
fn rows<L: Lanes>(values: L) -> [f32; PANEL] {
    let mut rows = [0.0; PANEL];
    values.store(&mut rows);
    rows
}

/// Writes the codes of a group of rows, from row `first` of the panel on, and those of its line, which is in whole units.
#[inline(always)]
fn write_group<L: Lanes>(
    line: Line<L>,
    unit: Line<L>,
    first: usize,
    group: &Group<L>,
    codes: &mut [u8; Q4_GROUP],
    scales: &mut [u8; Q4_SCALES],
) {
    let (scale, min) = (rows(nearest(line.scale, unit.scale)), rows(nearest(line.min, unit.min)));
    for row in 0..L::COUNT {
        scales[first + row] = scale[row] as u8;
        scales[PANEL + first + row] = (min[row] as i8).cast_unsigned();
    }
    let lines = codes.as_chunks_mut::<64>().0.iter_mut();
    for (columns, bytes) in group.as_chunks::<8>().0.iter().zip(lines) {
        let (low, high) = (rows(line.pair(columns, 0)), rows(line.pair(columns, 2)));
        for (row, place) in bytes.as_chunks_mut().0[first..][..L::COUNT].iter_mut().enumerate() {
            let word = low[row].to_bits() & 0xffff | high[row].to_bits() << 16;
            *place = word.to_le_bytes();
        }
    }
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

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use crate::format::Format;
    use crate::level::Level;
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

    #[test]
    fn every_vector_width_rounds_to_the_same_codes() {
        for (rows, width) in [(16, 512), (5, 32), (1, 96)] {
            let mut values = weights(rows * width);
            // Groups that are hard on arithmetic: constant, zero, far from zero, tiny.
            values[..32].fill(0.25);
            for value in &mut values[width - 32..width] {
                *value = *value * 1e-30 + 7.0;
            }
            let base = Level::Base.q4_panel(&values, width);
            for level in Level::available() {
                assert!(
                    level.q4_panel(&values, width) == base,
                    "{level:?}, {rows} rows of {width}"
                );
            }
        }
    }
}
