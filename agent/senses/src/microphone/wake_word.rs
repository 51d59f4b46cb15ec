//! Wake word detection that idles in silence: its graphs cost ten times as much as detecting
//! silence.
//!
//! Skipping is lossless. A score depends on the latest [`REACH`] steps only, so the graphs are
//! skipped while all of these are quiet, and catch up on the skipped steps before the next score.
//! The scores are the same as if they always ran.

use std::collections::VecDeque;

use outpost_agent_core::config::Vad;
use outpost_runtime::audio::{WakeWord, WakeWordFiles};

use crate::SenseError;
use crate::microphone::quiet::QuietDetector;

/// One step: 80 ms of sound.
type Step = [f32; WakeWord::STEP];

/// Number of steps that a score depends on, including its own: sixteen embeddings of ten steps of
/// mel frames each, the first of which reach back into the previous step.
const REACH: usize = 16 + 9 + 1;

/// Detects the wake word in a 16 kHz stream.
#[derive(Debug)]
pub(super) struct WakeWordDetector {
    detector: WakeWord,
    quiet: QuietDetector,
    /// Steps not yet shown to the graphs, oldest first.
    spared: VecDeque<Step>,
}

impl WakeWordDetector {
    /// Loads the graphs. `vad` decides how possible speech is told from silence.
    ///
    /// # Errors
    /// When a graph cannot be read.
    pub(super) fn load(files: &WakeWordFiles, vad: Vad) -> Result<Self, SenseError> {
        Ok(Self {
            detector: WakeWord::load(files)?,
            quiet: QuietDetector::new(vad),
            spared: VecDeque::with_capacity(REACH),
        })
    }

    /// Probability that the word ends in this step. `None` if it has been quiet for as long as a
    /// word can last.
    pub(super) fn score(&mut self, step: &Step) -> Option<f32> {
        self.skip(step);
        if self.quiet.push(step) >= REACH {
            return None;
        }
        let mut score = None;
        for step in self.spared.drain(..) {
            // Cannot fail: the graphs ran at load, and their input shape is fixed.
            score = Some(self.detector.judge(&step).unwrap_or(0.0));
        }
        score
    }

    /// Takes a step without scoring it.
    pub(super) fn skip(&mut self, step: &Step) {
        if self.spared.len() == REACH {
            self.spared.pop_front();
        }
        self.spared.push_back(*step);
    }

    /// Resets the stream, so that one word is not detected twice.
    pub(super) fn reset(&mut self) {
        self.detector.reset();
        self.quiet.reset();
        self.spared.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::path::{Path, PathBuf};

    use outpost_runtime::media::read_wav;

    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    fn files() -> WakeWordFiles {
        let folder = root().join("tests/fixtures/wake_word");
        WakeWordFiles {
            melspectrogram: folder.join("melspectrogram.onnx"),
            embedding: folder.join("embedding_model.onnx"),
            word: folder.join("word.onnx"),
        }
    }

    /// The hiss of a quiet room, -60 dBFS.
    fn hiss() -> impl Iterator<Item = f32> {
        let mut state = 1u64;
        std::iter::repeat_with(move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            0.0017 * ((state >> 40) as f32 / 8_388_608.0 - 1.0)
        })
    }

    fn steps(sound: &[f32]) -> &[Step] {
        sound.as_chunks::<{ WakeWord::STEP }>().0
    }

    /// Somebody says a command, again soon after, again much later, and finally so softly that it
    /// hardly stands out of the hiss.
    fn conversation() -> (Vec<f32>, Vec<Range<usize>>) {
        let clip = root().join("models/nano/samples/lock_the_front_door.wav");
        let clip = read_wav(&clip).unwrap().samples;
        let mut sound = Vec::new();
        let mut spoken = Vec::new();
        for (pause, gain) in [(4, 1.0), (1, 0.3), (9, 1.0), (5, 0.05)] {
            sound.resize(sound.len() + pause * 16_000, 0.0);
            spoken.push(sound.len()..sound.len() + clip.len());
            sound.extend(clip.iter().map(|sample| gain * sample));
        }
        sound.resize(sound.len() + 5 * 16_000, 0.0);
        sound.iter_mut().zip(hiss()).for_each(|(sample, hiss)| *sample += hiss);
        (sound, spoken)
    }

    #[test]
    fn speech_scores_as_with_graphs_that_always_run() {
        for vad in [Vad::Silero, Vad::Energy] {
            let (sound, spoken) = conversation();
            let mut always = WakeWord::load(&files()).unwrap();
            let mut wake_word = WakeWordDetector::load(&files(), vad).unwrap();
            let mut spared = 0;
            for (index, step) in steps(&sound).iter().enumerate() {
                let expected = always.judge(step).unwrap();
                let at = (index + 1) * WakeWord::STEP;
                if let Some(score) = wake_word.score(step) {
                    assert_eq!(score.to_bits(), expected.to_bits(), "{vad:?} step {index}");
                    continue;
                }
                spared += 1;
                // The recording begins with 300 ms of silence, and no word is over 200 ms after it began.
                let is_near =
                    |said: &Range<usize>| (said.start + 8_000..said.end + 16_000).contains(&at);
                assert!(!spoken.iter().any(is_near), "{vad:?} step {index} has no score");
            }
            assert!(spared > 60, "{vad:?}: {spared} steps spared");
        }
    }

    #[test]
    fn in_a_quiet_room_the_graphs_do_not_run() {
        let sound: Vec<f32> = hiss().take(30 * 16_000).collect();
        let mut wake_word = WakeWordDetector::load(&files(), Vad::Silero).unwrap();
        let scored = steps(&sound).iter().filter_map(|step| wake_word.score(step)).count();
        assert!(scored < REACH * 2, "{scored} steps scored");
    }

    #[test]
    fn a_reset_detector_starts_from_scratch() {
        let (sound, spoken) = conversation();
        let begin = spoken[0].start - WakeWord::STEP;
        let heard = &sound[begin..spoken[0].end];
        let mut fresh = WakeWordDetector::load(&files(), Vad::Silero).unwrap();
        let mut used = WakeWordDetector::load(&files(), Vad::Silero).unwrap();
        for step in steps(&sound[..begin]) {
            used.score(step);
        }
        used.reset();
        for step in steps(heard) {
            assert_eq!(used.score(step), fresh.score(step));
        }
    }
}
