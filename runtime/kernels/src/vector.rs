//! The operations between products, compiled for each vector width: RMSNorm, rotary embedding, SwiGLU, softmax's parts.

use crate::activations::Shared;
use crate::level::{Level, levels};
use crate::product::Kernels;

levels!(norm_row(xs: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> () = norm_row);
levels!(swiglu_row(gate_up: &[f32], out: &mut [f32]) -> () = swiglu_row);

/// Rows that a thread takes at a time.
const ROWS: usize = 8;

impl Kernels {
    /// `x / sqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich 2019) for each row of `xs`, `weight.len()` wide.
    ///
    /// # Panics
    /// When `xs` and `out` are not of the same size.
    pub fn rms_norm(&self, xs: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        assert_eq!(xs.len(), out.len(), "a norm keeps the size");
        let (level, width) = (Level::of(self.isa()), weight.len());
        self.by_rows(out, width, |row, out| {
            level.norm_row(&xs[row * width..][..width], weight, eps, out);
        });
    }

    /// `silu(gate) * up` (Shazeer 2020) for each row of `gate_up` `[n, 2 * width]`, gate first.
    ///
    /// # Panics
    /// When `out` is not half as large.
    pub fn swiglu(&self, gate_up: &[f32], width: usize, out: &mut [f32]) {
        assert_eq!(gate_up.len(), 2 * out.len(), "two halves become one");
        let level = Level::of(self.isa());
        self.by_rows(out, width, |row, out| {
            level.swiglu_row(&gate_up[row * 2 * width..][..2 * width], out);
        });
    }

    /// Has the threads share the rows of `out`.
    #[expect(unsafe_code, reason = "tasks write to rows of their own")]
    fn by_rows(&self, out: &mut [f32], width: usize, run: impl Fn(usize, &mut [f32]) + Sync) {
        let rows = out.len() / width;
        let place = Shared(out.as_mut_ptr());
        self.pool().run(rows.div_ceil(ROWS), |task| {
            for row in task * ROWS..rows.min((task + 1) * ROWS) {
                // SAFETY: the row is within `out`, and no other task has it.
                run(row, unsafe { std::slice::from_raw_parts_mut(place.at(row * width), width) });
            }
        });
    }
}

/// Rotates a head: pair `(j, j + cos.len())` by the angle of `cos[j]` and `sin[j]`; what is beyond stays.
pub fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    let (first, rest) = head.split_at_mut(half);
    for (((a, b), cos), sin) in first.iter_mut().zip(rest).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

#[inline(always)]
fn norm_row(xs: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let (lanes, rest) = xs.as_chunks::<16>();
    let mut sums = [0.0_f32; 16];
    for lanes in lanes {
        for (sum, x) in sums.iter_mut().zip(lanes) {
            *sum += x * x;
        }
    }
    let sum = sums.iter().sum::<f32>() + rest.iter().map(|x| x * x).sum::<f32>();
    let scale = (sum / xs.len() as f32 + eps).sqrt().recip();
    for ((out, x), weight) in out.iter_mut().zip(xs).zip(weight) {
        *out = x * scale * weight;
    }
}

#[inline(always)]
fn swiglu_row(gate_up: &[f32], out: &mut [f32]) {
    let (gate, up) = gate_up.split_at(out.len());
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate / (1.0 + exp(-gate)) * up;
    }
}

/// `e^x` to 2 units in the last place, by a polynomial that becomes vector instructions: `2^n * 2^f` with `|f| <= 1/2`, the
/// second factor by its Taylor series. 0 below -87, capped at 88.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.5, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, so that their product with n is exact.
    let r = x - n * 0.693_145_75 - n * 1.428_606_8e-6;
    let mut p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(power)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    #[test]
    fn exp_is_near_over_its_range() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) / expected - 1.0).abs();
            assert!(error < 4e-7, "{x}: {error}");
        }
        assert!(exp(-1000.0) < 1e-37);
        assert!(exp(1000.0).is_finite());
    }

    #[test]
    fn norm_swiglu_and_rotation_are_what_they_say() {
        let xs: Vec<f32> = (0..40).map(|i| i as f32 / 10.0 - 2.0).collect();
        let weight: Vec<f32> = (0..20).map(|i| 1.0 + i as f32 / 20.0).collect();
        for isa in Isa::available() {
            let mut out = vec![0.0; 40];
            let kernels = Kernels::new(isa, 2);
            kernels.rms_norm(&xs, &weight, 1e-5, &mut out);
            for (xs, out) in xs.chunks(20).zip(out.chunks(20)) {
                let mean = xs.iter().map(|x| f64::from(x * x)).sum::<f64>() / 20.0;
                for ((x, out), weight) in xs.iter().zip(out).zip(&weight) {
                    let expected = f64::from(*x) / (mean + 1e-5).sqrt() * f64::from(*weight);
                    assert!((f64::from(*out) - expected).abs() < 1e-5);
                }
            }
            let mut out = vec![0.0; 20];
            kernels.swiglu(&xs, 10, &mut out);
            for (at, out) in out.iter().enumerate() {
                let row = at / 10 * 20 + at % 10;
                let (gate, up) = (xs[row], xs[row + 10]);
                assert!((out - gate / (1.0 + (-gate).exp()) * up).abs() < 1e-6);
            }
        }
        let mut head = [1.0, 2.0, 3.0, 4.0, 9.0];
        rotate(&mut head, &[0.0, 0.6], &[1.0, 0.8]);
        let expected = [-3.0, 1.2 - 3.2, 1.0, 2.4 + 1.6, 9.0];
        assert!(head.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{head:?}");
    }
}
