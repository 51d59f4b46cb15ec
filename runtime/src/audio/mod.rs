//! Sound → features: resampling, log-mel frames, conformer, projector (spec 4). And what a microphone needs before that: [`Stream`]
//! resamples sound as it comes, [`SpeechDetector`] tells speech from noise, [`WakeWord`] hears its word.

mod encoder;
mod log_mel;
mod resample;
mod speech;
mod stream;
mod wake_word;

pub use encoder::{AudioEncoder, AudioProjector};
pub use speech::{SpeechDetector, expect_speech, has_speech};
pub use stream::Stream;
pub use wake_word::{WakeWord, WakeWordFiles};

use crate::error::{Error, Result};
use crate::features::Features;
use crate::request::Audio;

/// Samples per second that most sounds are brought to, and that detectors take.
pub const RATE: u32 = 16_000;
/// Longest sound in seconds: 22,500 tokens.
pub const MAX_SECONDS: u32 = 30 * 60;
/// Sample rates that are taken.
pub const RATES: std::ops::RangeInclusive<u32> = 8_000..=192_000;
/// Mel frames that become one token.
pub const FRAMES_PER_TOKEN: usize = 8;

/// Log-mel frames `[T, 80]`, 10 ms each (spec 4.2).
///
/// # Errors
/// [`Error::Audio`] when the sound is too short, too long, at an unknown rate or holds a number that is not finite.
pub fn log_mel(audio: &Audio) -> Result<Features> {
    check(audio)?;
    let (samples, rate) = resample::prepare(audio)?;
    Ok(log_mel::log_mel(&samples, rate))
}

/// Placeholders that the sound takes in the prompt, one per 80 ms (spec 4.3). Looks at no sample.
///
/// # Errors
/// [`Error::Audio`] as for [`log_mel()`], but for numbers that are not finite.
pub fn token_count(audio: &Audio) -> Result<usize> {
    check(audio)?;
    let rate = resample::FrontEnd::of(audio.rate);
    let frames = rate.frames(resample::length(audio.samples.len(), audio.rate));
    Ok(frames.div_ceil(FRAMES_PER_TOKEN))
}

/// The sound at 16 kHz.
///
/// # Errors
/// [`Error::Audio`] as for [`log_mel()`], but for numbers that are not finite.
pub fn at_16_khz(audio: &Audio) -> Result<Audio> {
    check(audio)?;
    if audio.rate == RATE {
        return Ok(audio.clone());
    }
    Ok(Audio { samples: resample::resample(&audio.samples, audio.rate)?.into(), rate: RATE })
}

fn check(audio: &Audio) -> Result<()> {
    check_length(audio.samples.len() as u64, audio.rate).map_err(unusable)
}

/// Whether so many samples at this rate can be taken; the fault says what would be.
pub(crate) fn check_length(samples: u64, rate: u32) -> Result<(), String> {
    if !RATES.contains(&rate) {
        return Err(format!(
            "the sample rate is {rate} Hz, but must be from {} to {} Hz",
            RATES.start(),
            RATES.end()
        ));
    }
    let seconds = samples as f64 / f64::from(rate);
    if samples > u64::from(MAX_SECONDS) * u64::from(rate) {
        return Err(format!(
            "{seconds:.1} s long, but at most {MAX_SECONDS} s are taken: cut it into pieces"
        ));
    }
    let front_end = resample::FrontEnd::of(rate);
    if resample::length(samples as usize, rate) < front_end.window() {
        return Err(format!(
            "{seconds:.3} s long ({samples} samples), but at least 0.025 s are needed"
        ));
    }
    Ok(())
}

fn unusable(reason: impl Into<String>) -> Error {
    Error::Audio { path: None, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence(samples: usize, rate: u32) -> Audio {
        Audio { samples: vec![0.0; samples].into(), rate }
    }

    #[test]
    fn tokens_are_counted_as_in_the_reference() {
        for (seconds, tokens) in
            [(1, 13), (10, 125), (30, 375), (40, 500), (60, 750), (300, 3750), (1800, 22_500)]
        {
            assert_eq!(token_count(&silence(seconds * 16_000, 16_000)).unwrap(), tokens);
        }
    }

    #[test]
    fn count_and_frames_agree_at_every_rate() {
        for rate in [
            8_000, 8_001, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000,
            192_000,
        ] {
            for samples in [rate as usize / 40, rate as usize / 3, rate as usize + 17] {
                let audio = silence(samples + 1, rate);
                let frames = log_mel(&audio).unwrap().rows;
                assert_eq!(
                    token_count(&audio).unwrap(),
                    frames.div_ceil(8),
                    "{samples} samples at {rate} Hz"
                );
            }
        }
    }

    #[test]
    fn unusable_sounds_are_named() {
        for (samples, rate, text) in [
            (0, 16_000, "0.000 s long (0 samples), but at least 0.025 s"),
            (399, 16_000, "(399 samples), but at least 0.025 s"),
            (16_000, 7_999, "7999 Hz, but must be from 8000 to 192000 Hz"),
            (8_000 * 3_600, 8_000, "3600.0 s long, but at most 1800 s"),
        ] {
            let fault = log_mel(&silence(samples, rate)).unwrap_err().to_string();
            assert!(fault.contains(text), "{fault}");
        }
        let mut samples = vec![0.0; 16_000];
        samples[77] = f32::NAN;
        let fault =
            log_mel(&Audio { samples: samples.into(), rate: 16_000 }).unwrap_err().to_string();
        assert!(fault.contains("sample 77"), "{fault}");
    }
}
