//! Activations as the products with codes take them: 8 bits, with a scale for each position and group of 32 columns.

#![expect(unsafe_code, reason = "tasks write to places of their own in shared memory")]

use crate::level::{Level, levels};
use crate::mapping::AlignedBytes;
use crate::pool::Pool;
use crate::{GROUP, PANEL};

/// Quantized activations of some positions: `x = code * scale`.
#[derive(Debug, Default)]
pub(crate) struct Quantized {
    /// `[block of positions][group][position][32]`: a kernel reads one run of memory.
    codes: AlignedBytes,
    /// `[block of positions][group][position]`
    scales: Vec<f32>,
    /// The scale times the sum of the codes: what a weight's constant part is multiplied with.
    sums: Vec<f32>,
    places: Places,
}

/// Where a position's groups lie.
#[derive(Debug, Clone, Copy, Default)]
struct Places {
    groups: usize,
    /// Positions of a block, as a power of two: as many as a kernel takes at a time, if there are so many.
    block: u32,
}

impl Places {
    #[inline(always)]
    fn of(self, group: usize, position: usize) -> usize {
        let (block, within) = (position >> self.block, position & ((1 << self.block) - 1));
        ((block * self.groups + group) << self.block) + within
    }
}

/// `N` positions in a group.
pub(crate) struct Group<'a, const N: usize> {
    pub(crate) codes: &'a [[u8; GROUP]; N],
    pub(crate) scales: &'a [f32; N],
    pub(crate) sums: &'a [f32; N],
}

impl Quantized {
    /// Quantizes `xs` `[positions, width]`, a multiple of 32 wide.
    pub(crate) fn load(&mut self, pool: &Pool, level: Level, xs: &[f32], width: usize) {
        let (positions, groups) = (xs.len() / width, width / GROUP);
        let most = match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => 8,
            _ => 4_usize,
        };
        let block = most.min(positions.next_power_of_two());
        let places = Places { groups, block: block.trailing_zeros() };
        self.places = places;
        let room = groups * positions.next_multiple_of(block);
        self.codes.grow(room * GROUP);
        if self.scales.len() < room {
            self.scales.resize(room, 0.0);
            self.sums.resize(room, 0.0);
        }
        let codes = Shared(self.codes.as_mut_slice().as_mut_ptr());
        let (scales, sums) = (Shared(self.scales.as_mut_ptr()), Shared(self.sums.as_mut_ptr()));
        // A few positions are quantized sooner than a second thread begins.
        let step = if positions < PANEL { positions } else { PANEL };
        pool.run(positions.div_ceil(step.max(1)), |task| {
            for position in task * step..positions.min((task + 1) * step) {
                let values = xs[position * width..][..width].as_chunks::<GROUP>().0;
                for (group, values) in values.iter().enumerate() {
                    let at = places.of(group, position);
                    let (code, scale, sum) = level.quantize(values);
                    // SAFETY: `at` is below `room`, since the position's block is there as a whole, and no other task has
                    // this position.
                    unsafe {
                        codes.at(at * GROUP).cast::<[i8; GROUP]>().write(code);
                        scales.at(at).write(scale);
                        sums.at(at).write(sum);
                    }
                }
            }
        });
    }

    /// `N` positions of one block, from `first` on, in a group. It must become a part of its callers: a call would empty the vector registers.
    #[inline(always)]
    pub(crate) fn group<const N: usize>(&self, group: usize, first: usize) -> Group<'_, N> {
        let at = self.places.of(group, first);
        let codes = &self.codes[at * GROUP..(at + N) * GROUP];
        let (codes, _) = codes.as_chunks::<GROUP>();
        Group {
            codes: codes.first_chunk().unwrap_or(&[[0; GROUP]; N]),
            scales: self.scales[at..].first_chunk().unwrap_or(&[0.0; N]),
            sums: self.sums[at..].first_chunk().unwrap_or(&[0.0; N]),
        }
    }
}

/// A pointer that tasks write through at places of their own.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(pub(crate) *mut T);

// SAFETY: whoever writes through it says why no two tasks write to the same place.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The place `offset` elements on.
    ///
    /// # Safety
    /// The place lies within the allocation.
    pub(crate) unsafe fn at(&self, offset: usize) -> *mut T {
        // SAFETY: the caller's.
        unsafe { self.0.add(offset) }
    }
}

/// Codes, scale, and scale times the codes' sum of 32 values: the largest becomes 127.
#[inline(always)]
pub(crate) fn quantize(values: &[f32; GROUP]) -> ([i8; GROUP], f32, f32) {
    let mut most = [0.0_f32; 8];
    for values in values.as_chunks::<8>().0 {
        for (most, value) in most.iter_mut().zip(values) {
            *most = most.max(value.abs());
        }
    }
    let largest = most.iter().copied().fold(0.0_f32, f32::max);
    let scale = largest / 127.0;
    let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
    let mut codes = [0_i8; GROUP];
    let mut sum = 0_i32;
    for (code, value) in codes.iter_mut().zip(values) {
        // Adding and taking away 1.5 * 2^23 rounds to the nearest integer, which the low bits then are. It's what `round_ties_even`
        // means, without a call where there is no instruction for it.
        const ROUND: f32 = 12_582_912.0;
        let rounded = (value * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
        *code = rounded as i8;
        sum += rounded;
    }
    (codes, scale, scale * sum as f32)
}

levels!(quantize(values: &[f32; GROUP]) -> ([i8; GROUP], f32, f32) = quantize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_keep_their_values_within_half_a_step() {
        let (positions, width) = (21, 96);
        let xs: Vec<f32> =
            (0..positions * width).map(|i| ((i * 7919) % 1000) as f32 / 100.0 - 5.0).collect();
        for level in Level::available() {
            let mut quantized = Quantized::default();
            quantized.load(&Pool::new(2), level, &xs, width);
            for position in 0..positions {
                for group in 0..width / GROUP {
                    let Group::<1> { codes: [codes], scales: [scale], sums: [sum] } =
                        quantized.group(group, position);
                    let mut expected = 0.0;
                    for (code, x) in codes.iter().zip(&xs[position * width + group * GROUP..]) {
                        let found = f32::from(code.cast_signed()) * scale;
                        assert!((found - x).abs() <= scale * 0.5001, "{found} {x}");
                        expected += found;
                    }
                    assert!((sum - expected).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    fn zeros_have_no_scale() {
        let (codes, scale, sum) = quantize(&[0.0; GROUP]);
        assert_eq!((codes, scale, sum), ([0; GROUP], 0.0, 0.0));
    }
}
