//! Looks for the wake word, but only where there may be sound: its graphs cost ten times as much as to tell sound from silence.
//!
//! Nothing is missed by that. What the graphs say of a step depends on the latest [`REACH`] steps alone. So they are spared where all
//! of these are still, and are shown what they were spared before they are asked again: they say the same as if they ran always.

use std::collections::VecDeque;

use outpost_agent_core::config::Vad;
use outpost_runtime::audio::{WakeWord, WakeWordFiles};

use crate::SenseError;
use crate::microphone::stillness::Stillness;

/// 80 ms of sound.
type Step = [f32; WakeWord::STEP];

/// Steps that a score depends on, the one that it is given for among them: sixteen embeddings, each of ten steps of mel frames, the
/// first of which reach back into the step before.
const REACH: usize = 16 + 9 + 1;

/// Spots the wake word in a stream at 16 kHz.
#[derive(Debug)]
pub(super) struct Spotter {
    detector: WakeWord,
    stillness: Stillness,
    /// The latest steps that the graphs were spared, oldest first.
    spared: VecDeque<Step>,
}

impl Spotter {
    /// Loads the word's graphs; `vad` says how sound that might be speech is told from silence.
    ///
    /// # Errors
    /// When a graph cannot be read.
    pub(super) fn load(files: &WakeWordFiles, vad: Vad) -> Result<Self, SenseError> {
        Ok(Self {
            detector: WakeWord::load(files)?,
            stillness: Stillness::new(vad),
            spared: VecDeque::with_capacity(REACH),
        })
    }

    /// How likely the word ends in the next step, from 0 to 1; none where nothing stirred since it could have begun.
    pub(super) fn judge(&mut self, step: &Step) -> Option<f32> {
        self.skip(step);
        if self.stillness.take(step) >= REACH {
            return None;
        }
        let mut score = None;
        for step in self.spared.drain(..) {
            // The graphs ran when they were loaded, and their input has always the same shape.
            score = Some(self.detector.judge(&step).unwrap_or(0.0));
        }
        score
    }

    /// Takes a step in which the word is not looked for.
    pub(super) fn skip(&mut self, step: &Step) {
        if self.spared.len() == REACH {
            self.spared.pop_front();
        }
        self.spared.push_back(*step);
    }

    /// Forgets the stream, so that the word is not heard twice.
    pub(super) fn forget(&mut self) {
        self.detector.reset();
        self.stillness.forget();
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

    /// A room in which somebody says a command, again soon after, again much later, and last so softly that it hardly stands out of the hiss.
    fn conversation() -> (Vec<f32>, Vec<Range<usize>>) {
        let clip = root().join("models/nano/samples/lock_the_front_door.wav");
        let clip = read_wav(&clip).unwrap().samples;
        let (mut sound, mut spoken) = (Vec::new(), Vec::new());
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
    fn speech_is_judged_as_by_graphs_that_run_always() {
        for vad in [Vad::Silero, Vad::Energy] {
            let (sound, spoken) = conversation();
            let mut always = WakeWord::load(&files()).unwrap();
            let mut spotter = Spotter::load(&files(), vad).unwrap();
            let mut spared = 0;
            for (index, step) in steps(&sound).iter().enumerate() {
                let expected = always.judge(step).unwrap();
                let at = (index + 1) * WakeWord::STEP;
                if let Some(score) = spotter.judge(step) {
                    assert_eq!(score.to_bits(), expected.to_bits(), "{vad:?} step {index}");
                    continue;
                }
                spared += 1;
                // The recording begins with 300 ms of silence, and no word is over 200 ms after it began.
                let is_near =
                    |said: &Range<usize>| (said.start + 8_000..said.end + 16_000).contains(&at);
                assert!(!spoken.iter().any(is_near), "{vad:?} step {index} is not judged");
            }
            assert!(spared > 60, "{vad:?}: {spared} steps spared");
        }
    }

    #[test]
    fn in_a_quiet_room_the_graphs_do_not_run() {
        let sound: Vec<f32> = hiss().take(30 * 16_000).collect();
        let mut spotter = Spotter::load(&files(), Vad::Silero).unwrap();
        let judged = steps(&sound).iter().filter_map(|step| spotter.judge(step)).count();
        assert!(judged < REACH * 2, "{judged} steps judged");
    }

    #[test]
    fn a_spotter_that_forgot_starts_anew() {
        let (sound, spoken) = conversation();
        let begin = spoken[0].start - WakeWord::STEP;
        let heard = &sound[begin..spoken[0].end];
        let mut fresh = Spotter::load(&files(), Vad::Silero).unwrap();
        let mut used = Spotter::load(&files(), Vad::Silero).unwrap();
        for step in steps(&sound[..begin]) {
            used.judge(step);
        }
        used.forget();
        for step in steps(heard) {
            assert_eq!(used.judge(step), fresh.judge(step));
        }
    }
}
