//! Level meter: loudness, clipping and dead input. Pure: time is a count of samples.

use std::time::Duration;

use outpost_agent_core::report::Level;
use outpost_runtime::audio::RATE;

/// Window for level and peak.
const WINDOW: usize = RATE as usize;
/// Samples at or above this count as clipped.
const CLIPPED: f32 = 0.999;
/// Share of clipped samples at which clipping is reported.
const MOST_CLIPPED: f32 = 0.001;
/// After exact zeros for this long the input counts as dead.
const DEAD: Duration = Duration::from_secs(5);

/// Measures a stream at 16 kHz.
#[derive(Debug, Default)]
pub struct Meter {
    level: Level,
    samples: usize,
    power: f64,
    peak: f32,
    clipped: usize,
    zeros: usize,
}

impl Meter {
    /// Takes the next samples.
    pub fn push(&mut self, samples: &[f32]) {
        for &sample in samples {
            let size = sample.abs();
            self.samples += 1;
            self.power += f64::from(size * size);
            self.peak = self.peak.max(size);
            self.clipped += usize::from(size >= CLIPPED);
            self.zeros = if sample == 0.0 { self.zeros + 1 } else { 0 };
            if self.samples == WINDOW {
                self.level.rms_dbfs = decibels((self.power / WINDOW as f64).sqrt() as f32);
                self.level.peak_dbfs = decibels(self.peak);
                self.level.clipping = self.clipped as f32 > MOST_CLIPPED * WINDOW as f32;
                (self.samples, self.power, self.peak, self.clipped) = (0, 0.0, 0.0, 0);
            }
        }
        self.level.dead = self.zeros as f64 / f64::from(RATE) >= DEAD.as_secs_f64();
    }

    /// What it shows now.
    pub fn level(&self) -> Level {
        self.level
    }
}

fn decibels(amplitude: f32) -> f32 {
    (20.0 * amplitude.log10()).max(Level::SILENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(samples: impl IntoIterator<Item = f32>) -> Level {
        let mut meter = Meter::default();
        samples.into_iter().collect::<Vec<_>>().chunks(333).for_each(|chunk| meter.push(chunk));
        meter.level()
    }

    #[test]
    fn a_sine_is_three_decibels_below_its_peak() {
        let sine = level((0..32_000).map(|i| 0.5 * (i as f32 * 0.2).sin()));
        assert!(
            (sine.peak_dbfs + 6.02).abs() < 0.05 && (sine.rms_dbfs + 9.03).abs() < 0.05,
            "{sine:?}"
        );
        assert!(!sine.clipping && !sine.dead);
    }

    #[test]
    fn clipping_and_zeros_are_noticed_and_forgotten() {
        let loud = |i: usize| (3.0 * (i as f32 * 0.2).sin()).clamp(-1.0, 1.0);
        assert!(level((0..16_000).map(loud)).clipping);
        assert!(!level((0..16_000).map(loud).chain((0..16_000).map(|_| 0.001))).clipping);
        assert!(level((0..80_000).map(|_| 0.0)).dead);
        assert!(!level((0..80_000).map(|_| 0.0).chain([1e-4])).dead);
    }
}
