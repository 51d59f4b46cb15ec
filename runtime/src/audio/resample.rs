//! Any sample rate → 16 kHz (spec 4.1).
//!
//! The reference divides the rate by 16,000 as an integer, so that 44.1 kHz becomes 22.05 kHz taken for 16 kHz, and 24 kHz is
//! not resampled at all. Here every sound comes out at 16 kHz exactly; only at 16 kHz, and at 8 kHz, which has its
//! own spectrum in the front end, are the frames the reference's to the bit.

use std::borrow::Cow;

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler};

use super::unusable;
use crate::error::Result;
use crate::request::Audio;

/// Samples per second that most sounds are brought to.
pub(super) const RATE: u32 = super::RATE;
/// Least length of the low-pass filter in samples of the input.
const FILTER: usize = 1024;

/// The two spectra of spec 4.1 and 4.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrontEnd {
    /// 16 kHz.
    Wide,
    /// 8 kHz: the upper half of the spectrum is silent.
    Phone,
}

impl FrontEnd {
    /// The one that serves sounds of this rate.
    pub(super) fn of(rate: u32) -> Self {
        if rate == RATE / 2 { Self::Phone } else { Self::Wide }
    }

    /// Samples under one window, 25 ms.
    pub(super) fn window(self) -> usize {
        self.scaled(400)
    }

    /// Samples from a frame to the next, 10 ms.
    pub(super) fn hop(self) -> usize {
        self.scaled(160)
    }

    /// Points of the spectrum.
    pub(super) fn points(self) -> usize {
        self.scaled(512)
    }

    /// Frames of so many samples; a tail that does not fill a window is dropped.
    pub(super) fn frames(self, samples: usize) -> usize {
        samples.checked_sub(self.window()).map_or(0, |rest| rest / self.hop() + 1)
    }

    fn scaled(self, wide: usize) -> usize {
        match self {
            Self::Wide => wide,
            Self::Phone => wide / 2,
        }
    }
}

/// Samples that a sound of this rate has at the rate of its front end.
pub(super) fn length(samples: usize, rate: u32) -> usize {
    match FrontEnd::of(rate) {
        FrontEnd::Phone => samples,
        FrontEnd::Wide => (samples as u64 * u64::from(RATE)).div_ceil(u64::from(rate)) as usize,
    }
}

/// The sound at the rate of its front end.
///
/// # Errors
/// [`Error::Audio`](crate::Error::Audio) when a sample is not a finite number.
pub(super) fn prepare(audio: &Audio) -> Result<(Cow<'_, [f32]>, FrontEnd)> {
    if let Some(at) = audio.samples.iter().position(|sample| !sample.is_finite()) {
        return Err(unusable(format!(
            "sample {at} is {}, but must be a number in [-1, 1]",
            audio.samples[at]
        )));
    }
    let front_end = FrontEnd::of(audio.rate);
    let samples = match front_end {
        FrontEnd::Wide if audio.rate != RATE => Cow::Owned(resample(&audio.samples, audio.rate)?),
        _ => Cow::Borrowed(&*audio.samples),
    };
    Ok((samples, front_end))
}

/// The samples of a sound at 16 kHz.
///
/// # Errors
/// [`Error::Audio`](crate::Error::Audio) when the rate cannot be resampled from.
pub(super) fn resample(samples: &[f32], rate: u32) -> Result<Vec<f32>> {
    let fault = |e: &dyn std::fmt::Display| fault(rate, e);
    let mut resampler = resampler(rate)?;
    let input = InterleavedSlice::new(samples, 1, samples.len()).map_err(|e| fault(&e))?;
    let mut out =
        resampler.process_all(&input, samples.len(), None).map_err(|e| fault(&e))?.take_data();
    out.resize(length(samples.len(), rate), 0.0);
    Ok(out)
}

/// What brings blocks of sound at a rate to 16 kHz.
pub(super) fn resampler(rate: u32) -> Result<Fft<f32>> {
    Fft::<f32>::new_custom(
        rate as usize,
        RATE as usize,
        filter_length(rate as usize),
        1,
        1,
        rubato::WindowFunction::BlackmanHarris2,
        FixedSync::Both,
    )
    .map_err(|e| fault(rate, &e))
}

pub(super) fn fault(rate: u32, fault: &dyn std::fmt::Display) -> crate::Error {
    unusable(format!("cannot be resampled from {rate} Hz: {fault}"))
}

/// A multiple of what both rates are whole periods of, and even: the middle of an odd filter lies between two samples, which would
/// move the sound by half a sample.
fn filter_length(rate: usize) -> usize {
    let (mut common, mut rest) = (RATE as usize, rate);
    while rest != 0 {
        (common, rest) = (rest, common % rest);
    }
    FILTER.next_multiple_of(2 * (rate / common))
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    fn tone(hertz: f64, rate: u32) -> Audio {
        let samples =
            (0..rate).map(|n| (0.5 * (TAU * hertz * f64::from(n) / f64::from(rate)).sin()) as f32);
        Audio { samples: samples.collect(), rate }
    }

    #[test]
    fn a_tone_keeps_its_pitch_and_phase() {
        let expected = tone(440.0, RATE);
        for rate in [8_001, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000] {
            let given = tone(440.0, rate);
            let (got, _) = prepare(&given).unwrap();
            assert_eq!(got.len(), RATE as usize);
            // The ends ring: there the filter sees the silence around the sound.
            for n in 1_600..14_400 {
                assert!(
                    (got[n] - expected.samples[n]).abs() < 2e-3,
                    "{rate} Hz, sample {n}: {}",
                    got[n]
                );
            }
        }
    }

    #[test]
    fn what_16_khz_cannot_hold_is_removed() {
        let given = tone(10_000.0, 48_000);
        let (got, _) = prepare(&given).unwrap();
        assert!(got[1_600..14_400].iter().all(|sample| sample.abs() < 1e-3));
    }

    #[test]
    fn sounds_at_the_front_ends_rates_are_not_touched() {
        for rate in [8_000, 16_000] {
            let given = tone(440.0, rate);
            assert_eq!(*prepare(&given).unwrap().0, *given.samples);
        }
    }
}
