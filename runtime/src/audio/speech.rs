//! Whether someone speaks: silero VAD, whose graph is part of the program (`models/silero-vad`).

use std::path::Path;

use crate::error::{Error, Result};
use crate::graph::{Array, Graph};
use crate::request::Audio;

const MODEL: &[u8] = include_bytes!("../../../models/silero-vad/silero_vad_16k.onnx");
/// Samples before a frame that are looked at with it.
const CONTEXT: usize = 64;
/// Frames that look like speech, so likely and so many, make a sound that has some: less than it takes to begin an utterance, since
/// a recording that is given was given for a reason.
const LIKELY: f32 = 0.3;
const FRAMES: usize = 2;
/// Frames below this peak hold nothing that could be heard.
const SILENCE: f32 = 1e-4;
/// Power below which a recording is silent: -60 dB.
const QUIETEST: f32 = 1e-6;
/// Of the recurrent layer.
const STATE: [usize; 3] = [1, 1, 128];

/// Judges frames of a stream at 16 kHz, one after the other.
#[derive(Debug)]
pub struct SpeechDetector {
    graph: Graph,
    /// The end of the frame before, then the frame.
    window: [f32; CONTEXT + Self::FRAME],
    /// Its output and its cell.
    state: [Array; 2],
}

impl SpeechDetector {
    /// Samples in a frame, 32 ms.
    pub const FRAME: usize = 512;

    /// A detector at the start of a stream.
    ///
    /// # Errors
    /// [`crate::Error::Encoder`] when the ONNX runner does not take the graph.
    pub fn new() -> Result<Self> {
        let shapes: [&[usize]; 3] = [&[1, CONTEXT + Self::FRAME], &STATE, &STATE];
        Ok(Self {
            graph: Graph::parse("silero_vad_16k", MODEL, &shapes)?,
            window: [0.0; CONTEXT + Self::FRAME],
            state: silent()?,
        })
    }

    /// How likely someone speaks in the next frame, from 0 to 1.
    ///
    /// # Errors
    /// [`crate::Error::Encoder`] when the graph fails, which is a defect.
    pub fn judge(&mut self, frame: &[f32; Self::FRAME]) -> Result<f32> {
        self.window.copy_within(Self::FRAME.., 0);
        self.window[CONTEXT..].copy_from_slice(frame);
        let window = Array::new(&[1, self.window.len()], &self.window)?;
        let [output, cell] = self.state.clone();
        let outputs = self.graph.run_all(&[window, output, cell])?;
        let Ok([speech, output, cell]) = <[Array; 3]>::try_from(outputs) else { return Ok(0.0) };
        self.state = [output, cell];
        Ok(speech.numbers()?.first().copied().unwrap_or(0.0))
    }

    /// Forgets the stream.
    ///
    /// # Errors
    /// As [`SpeechDetector::judge`].
    pub fn reset(&mut self) -> Result<()> {
        self.window.fill(0.0);
        self.state = silent()?;
        Ok(())
    }
}

/// Whether somebody speaks in a sound, found without looking further than need be.
///
/// # Errors
/// As [`at_16_khz`](super::at_16_khz), and as [`SpeechDetector::judge`].
pub fn has_speech(audio: &Audio) -> Result<bool> {
    let audio = super::at_16_khz(audio)?;
    let mut detector = SpeechDetector::new()?;
    let mut found = 0;
    for frame in audio.samples.as_chunks().0 {
        if frame.iter().all(|sample| sample.abs() < SILENCE) {
            continue;
        }
        found += usize::from(detector.judge(frame)? >= LIKELY);
        if found == FRAMES {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Refuses a recording of nothing, and warns of one in which nobody seems to speak: the detector misses some voices, so that it is
/// not for it to refuse. `path` is for messages.
///
/// # Errors
/// [`Error::Audio`] for silence, and as [`has_speech`].
pub fn expect_speech(audio: &Audio, path: Option<&Path>) -> Result<()> {
    let power = |piece: &[f32]| {
        piece.iter().map(|sample| sample * sample).sum::<f32>() / piece.len() as f32
    };
    let loudest = audio.samples.chunks(SpeechDetector::FRAME).map(power).fold(0.0, f32::max);
    let seconds = audio.samples.len() as f64 / f64::from(audio.rate);
    if loudest < QUIETEST {
        let reason = format!(
            "these {seconds:.1} s are silent: is it the right recording, or is the right channel another?"
        );
        return Err(Error::Audio { path: path.map(Path::to_owned), reason });
    }
    if !has_speech(audio)? {
        let file = path.map_or_else(String::new, |path| path.display().to_string());
        tracing::warn!(file, "nobody seems to speak in this sound of {seconds:.1} s");
    }
    Ok(())
}

fn silent() -> Result<[Array; 2]> {
    let zeros = Array::new(&STATE, &[0.0f32; 128])?;
    Ok([zeros.clone(), zeros])
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::media::read_wav;

    /// As in `tests/fixtures/silero/make.py`.
    fn noise() -> impl Iterator<Item = f32> {
        let mut state = 1u64;
        std::iter::repeat_with(move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f64 / f64::from(1 << 23) - 1.0) as f32
        })
    }

    #[test]
    fn probabilities_are_those_of_the_published_graph() {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let text = std::fs::read_to_string(root.join("tests/fixtures/silero/probabilities.json"));
        let cases: Vec<Value> = serde_json::from_str(&text.unwrap()).unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let name = case["wav"].as_str().unwrap();
            let sound = read_wav(&root.join("models/nano/samples").join(name)).unwrap();
            let gain = case["noise"].as_f64().unwrap() as f32;
            let mixed: Vec<f32> = sound
                .samples
                .iter()
                .zip(noise())
                .map(|(sample, noise)| sample + gain * noise)
                .collect();
            let mut detector = SpeechDetector::new().unwrap();
            let expected = case["probabilities"].as_array().unwrap();
            assert_eq!(mixed.len() / SpeechDetector::FRAME, expected.len());
            for (index, (frame, expected)) in
                mixed.chunks_exact(SpeechDetector::FRAME).zip(expected).enumerate()
            {
                let got = detector.judge(frame.try_into().unwrap()).unwrap();
                let expected = expected.as_f64().unwrap() as f32;
                // Two runners of the same numbers in f32.
                assert!((got - expected).abs() < 1e-3, "{name} {gain} {index}: {got} {expected}");
            }
        }
    }

    #[test]
    fn a_detector_that_was_reset_has_no_memory() {
        let frame = [0.3; SpeechDetector::FRAME];
        let mut detector = SpeechDetector::new().unwrap();
        let first = detector.judge(&frame).unwrap();
        detector.judge(&[-0.9; SpeechDetector::FRAME]).unwrap();
        detector.reset().unwrap();
        assert_eq!(detector.judge(&frame).unwrap().to_bits(), first.to_bits());
    }

    #[test]
    fn a_sound_without_speech_is_told_from_one_with_it() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let speech = read_wav(&root.join("models/nano/samples/lock_the_front_door.wav")).unwrap();
        let quiet = speech.samples.iter().map(|sample| sample * 0.05).collect();
        for audio in [speech.clone(), Audio { samples: quiet, rate: speech.rate }] {
            assert!(has_speech(&audio).unwrap() && expect_speech(&audio, None).is_ok());
        }
        let hum = (0..32_000).map(|index| 0.3 * (index as f32 * 0.02).sin()).collect();
        let hum = Audio { samples: hum, rate: 16_000 };
        assert!(!has_speech(&hum).unwrap() && expect_speech(&hum, None).is_ok());
        let silence = Audio { samples: vec![0.0005; 32_000].into(), rate: 16_000 };
        let fault = expect_speech(&silence, Some(Path::new("a.wav"))).unwrap_err().to_string();
        assert!(fault.contains("a.wav") && fault.contains("2.0 s are silent"), "{fault}");
    }
}
