//! Log-mel frames (spec 4.2, and 4.1 for 8 kHz).

use std::f64::consts::TAU;
use std::ops::Range;

use realfft::RealFftPlanner;

use super::resample::FrontEnd;
use crate::features::Features;

/// Mel bins.
const MELS: usize = 80;
/// Top of the highest filter, in hertz.
const MAX_HERTZ: f64 = 7690.0;
/// Width of a bin of the spectrum, in hertz; the same at both rates.
const BIN_HERTZ: f64 = 31.25;
/// Bins of the 16 kHz spectrum that a filter may look at: the reference leaves out the first and the top eleven.
const USED_BINS: Range<usize> = 1..246;
/// First-order high-pass within each frame.
const PRE_EMPHASIS: f32 = 0.97;
/// Samples are scaled as 16-bit integers.
const SCALE: f32 = 32768.0;

/// Samples at the front end's rate → frames `[T, 80]`. A frame depends on its own window alone.
pub(super) fn log_mel(samples: &[f32], front_end: FrontEnd) -> Features {
    let window = hamming(front_end.window());
    let filters = filters();
    let fft = RealFftPlanner::<f64>::new().plan_fft_forward(front_end.points());
    let (mut frame, mut spectrum) = (fft.make_input_vec(), fft.make_output_vec());
    let mut scratch = fft.make_scratch_vec();
    // At 8 kHz the Nyquist bin is dropped, and all above it are silent.
    let bins = if front_end == FrontEnd::Phone { front_end.points() / 2 } else { spectrum.len() };
    let mut power = vec![0.0f32; front_end.points() / 2 + 1];

    let frames = front_end.frames(samples.len());
    let mut data = Vec::with_capacity(frames * MELS);
    for start in (0..frames).map(|t| t * front_end.hop()) {
        emphasised(&samples[start..start + window.len()], &window, &mut frame);
        // Cannot fail: the buffers are the plan's own.
        let _ = fft.process_with_scratch(&mut frame, &mut spectrum, &mut scratch);
        for (power, bin) in power.iter_mut().zip(&spectrum[..bins]) {
            let magnitude = (bin.re as f32).hypot(bin.im as f32);
            *power = magnitude * magnitude;
        }
        data.extend(filters.iter().map(|filter| filter.apply(&power[..bins]).max(1.0).ln()));
    }
    Features::new(MELS, data)
}

/// `frame[n] = (x[n] - 0.97 x[n-1]) * 32768 * window[n]` with `x[-1] = x[0]`, and zeros up to the spectrum's points.
fn emphasised(samples: &[f32], window: &[f64], frame: &mut [f64]) {
    frame.fill(0.0);
    let mut previous = samples[0];
    for ((frame, &sample), window) in frame.iter_mut().zip(samples).zip(window) {
        *frame = f64::from((sample - PRE_EMPHASIS * previous) * SCALE) * window;
        previous = sample;
    }
}

fn hamming(length: usize) -> Vec<f64> {
    (0..length).map(|n| 0.54 - 0.46 * (TAU * n as f64 / (length - 1) as f64).cos()).collect()
}

/// One triangle, equally wide on the mel scale.
struct Filter {
    first: usize,
    weights: Vec<f32>,
}

impl Filter {
    fn apply(&self, power: &[f32]) -> f32 {
        let covered = power.get(self.first..).unwrap_or_default();
        self.weights.iter().zip(covered).map(|(weight, power)| weight * power).sum()
    }
}

fn filters() -> Vec<Filter> {
    let mel = |hertz: f64| 1127.0 * (1.0 + hertz / 700.0).ln();
    let step = mel(MAX_HERTZ) / (MELS + 1) as f64;
    let weight = |filter: usize, bin: usize| {
        let distance = (mel(BIN_HERTZ * bin as f64) - step * (filter + 1) as f64).abs();
        (1.0 - distance / step).max(0.0) as f32
    };
    (0..MELS)
        .map(|filter| {
            let mut covered = USED_BINS.skip_while(|&bin| weight(filter, bin) == 0.0);
            let first = covered.next().unwrap_or(USED_BINS.start);
            let weights = (first..USED_BINS.end)
                .map(|bin| weight(filter, bin))
                .take_while(|&weight| weight > 0.0);
            Filter { first, weights: weights.collect() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tone(rate: f64) -> Vec<f32> {
        (0..1000).map(|n| (0.5 * (TAU * 440.0 * f64::from(n) / rate).sin()) as f32).collect()
    }

    fn assert_close(got: &[f32], expected: &[f32]) {
        for (bin, (got, expected)) in got.iter().zip(expected).enumerate() {
            assert!((got - expected).abs() < 1e-3, "mel {bin}: {got}, not {expected}");
        }
    }

    #[test]
    fn filters_have_the_reference_weights() {
        let filters = filters();
        assert_eq!(filters[0].first, 1);
        assert!((filters[0].weights[0] - 0.575_650).abs() < 1e-5);
        assert_eq!(filters[40].first, 54);
        for (got, expected) in
            filters[40].weights.iter().zip([0.012_901, 0.436_996, 0.855_646, 0.731_009, 0.322_838])
        {
            assert!((got - expected).abs() < 1e-5);
        }
        assert_eq!((filters[79].first, filters[79].weights.len()), (231, 15));
        assert!((filters[79].weights[7] - 0.996_555).abs() < 1e-5);
        assert!(filters.iter().all(|filter| !filter.weights.is_empty()));
    }

    #[test]
    fn a_tone_at_16_khz_has_the_reference_frames() {
        let frames = log_mel(&tone(16_000.0), FrontEnd::Wide);
        assert_eq!((frames.rows, frames.width), (4, 80));
        let first = frames.row(0);
        assert_close(
            &first[..12],
            &[
                11.4617, 12.0308, 12.8103, 13.1932, 12.3140, 11.6078, 12.4549, 13.7383, 14.4123,
                14.1660, 11.4922, 12.3908,
            ],
        );
        assert_close(
            &[first[20], first[40], first[60], first[79]],
            &[15.8796, 13.4962, 12.3488, 12.1886],
        );
        assert_close(&frames.row(1)[..4], &[13.6488, 14.1418, 14.8628, 14.8498]);
        assert_close(&frames.row(1)[79..], &[11.6814]);
    }

    #[test]
    fn a_tone_at_8_khz_leaves_the_upper_half_silent() {
        let frames = log_mel(&tone(8_000.0), FrontEnd::Phone);
        assert_eq!(frames.rows, 11);
        assert_close(&frames.row(0)[..4], &[11.6381, 12.0468, 12.6931, 13.3152]);
        assert_close(&frames.row(0)[58..61], &[12.9020, 12.9060, 12.9575]);
        assert_eq!(frames.row(0)[62..], [0.0; 18]);
    }

    proptest! {
        #[test]
        fn frames_do_not_depend_on_what_is_around_them(
            samples in proptest::collection::vec(-1.0f32..1.0, 400..3000),
            skipped in 0usize..16,
        ) {
            let whole = log_mel(&samples, FrontEnd::Wide);
            let skipped = skipped.min(whole.rows - 1);
            let tail = log_mel(&samples[160 * skipped..], FrontEnd::Wide);
            prop_assert_eq!(&whole.data[skipped * MELS..], &tail.data[..]);
        }
    }
}
