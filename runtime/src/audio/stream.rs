//! A stream of sound → 16 kHz, block by block.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, Resampler};

use super::resample::{fault, resampler};
use super::{RATE, RATES, unusable};
use crate::error::Result;

/// Resamples sound as it comes. It lags by about 40 ms at 48 kHz, and gives what it has in blocks of about 20 ms.
pub struct Stream {
    rate: u32,
    /// `None` if the sound is at 16 kHz already.
    resampler: Option<Fft<f32>>,
    waiting: Vec<f32>,
    block: Vec<f32>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("rate", &self.rate).finish_non_exhaustive()
    }
}

impl Stream {
    /// For mono sound of `rate` samples per second.
    ///
    /// # Errors
    /// [`Error::Audio`](crate::Error::Audio) when the rate is none of [`RATES`].
    pub fn new(rate: u32) -> Result<Self> {
        if !RATES.contains(&rate) {
            return Err(unusable(format!(
                "the sample rate is {rate} Hz, but must be from {} to {} Hz",
                RATES.start(),
                RATES.end()
            )));
        }
        let resampler = if rate == RATE { None } else { Some(resampler(rate)?) };
        Ok(Self { rate, resampler, waiting: Vec::new(), block: Vec::new() })
    }

    /// Takes the next samples; appends what can be told of them at 16 kHz.
    ///
    /// # Errors
    /// [`Error::Audio`](crate::Error::Audio) when the resampler refuses a block, which is a defect.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) -> Result<()> {
        let Some(resampler) = &mut self.resampler else {
            out.extend_from_slice(samples);
            return Ok(());
        };
        let fault = |e: &dyn std::fmt::Display| fault(self.rate, e);
        self.waiting.extend_from_slice(samples);
        let mut taken = 0;
        while self.waiting.len() - taken >= resampler.input_frames_next() {
            let block = &self.waiting[taken..taken + resampler.input_frames_next()];
            self.block.resize(resampler.output_frames_next(), 0.0);
            let room = self.block.len();
            let input = InterleavedSlice::new(block, 1, block.len()).map_err(|e| fault(&e))?;
            let mut output =
                InterleavedSlice::new_mut(&mut self.block, 1, room).map_err(|e| fault(&e))?;
            let (read, written) =
                resampler.process_into_buffer(&input, &mut output, None).map_err(|e| fault(&e))?;
            out.extend_from_slice(&self.block[..written]);
            taken += read;
        }
        self.waiting.drain(..taken);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    #[test]
    fn a_tone_keeps_its_level_and_length_however_it_is_cut() {
        for rate in [8_000, 16_000, 22_050, 44_100, 48_000] {
            let tone: Vec<f32> = (0..rate * 2)
                .map(|n| (0.5 * (TAU * 440.0 * f64::from(n) / f64::from(rate)).sin()) as f32)
                .collect();
            let resampled = |chunk: usize| {
                let (mut stream, mut out) = (Stream::new(rate).unwrap(), Vec::new());
                tone.chunks(chunk).for_each(|chunk| stream.push(chunk, &mut out).unwrap());
                out
            };
            let whole = resampled(tone.len());
            assert!((30_000..=32_000).contains(&whole.len()), "{rate} Hz: {}", whole.len());
            assert_eq!(resampled(777), whole, "{rate} Hz");
            let power: f32 = whole[8_000..24_000].iter().map(|sample| sample * sample).sum();
            assert!((power / 16_000.0 - 0.125).abs() < 1e-3, "{rate} Hz: {power}");
        }
    }

    #[test]
    fn a_rate_out_of_bounds_is_named() {
        let fault = Stream::new(4_000).unwrap_err().to_string();
        assert!(fault.contains("4000 Hz"), "{fault}");
    }
}
