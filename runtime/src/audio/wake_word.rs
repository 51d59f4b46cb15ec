//! Whether the wake word was said: the three graphs of an `openWakeWord` model (mel spectrum, embedding, word).

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::graph::{Array, Graph};

/// Mel bins of a frame.
const BINS: usize = 32;
/// Mel frames under one embedding.
const FRAMES: usize = 76;
/// Numbers of an embedding.
const EMBEDDING: usize = 96;
/// Embeddings that a word is looked for in, 1.28 s.
const EMBEDDINGS: usize = 16;
/// Samples before a step that its mel frames reach back to.
const CONTEXT: usize = 480;
/// The graphs were trained on 16-bit integers.
const SCALE: f32 = 32768.0;

/// Where the graphs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WakeWordFiles {
    /// `melspectrogram.onnx`, common to all words.
    pub melspectrogram: PathBuf,
    /// `embedding_model.onnx`, common to all words.
    pub embedding: PathBuf,
    /// The graph of the word.
    pub word: PathBuf,
}

/// Listens for a word in a stream at 16 kHz.
#[derive(Debug)]
pub struct WakeWord {
    melspectrogram: Graph,
    embedding: Graph,
    word: Graph,
    sound: [f32; CONTEXT + Self::STEP],
    mel: VecDeque<f32>,
    embeddings: VecDeque<f32>,
}

impl WakeWord {
    /// Samples that are taken at a time, 80 ms.
    pub const STEP: usize = 1280;

    /// Loads the graphs of a word.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be read, [`Error::Encoder`] when it is no such graph.
    pub fn load(files: &WakeWordFiles) -> Result<Self> {
        let mut wake_word = Self {
            melspectrogram: load(&files.melspectrogram, &[1, CONTEXT + Self::STEP])?,
            embedding: load(&files.embedding, &[1, FRAMES, BINS, 1])?,
            word: load(&files.word, &[1, EMBEDDINGS, EMBEDDING])?,
            sound: [0.0; CONTEXT + Self::STEP],
            mel: VecDeque::new(),
            embeddings: VecDeque::new(),
        };
        wake_word.reset();
        // A file that is another graph than it should be is to be found now, and not when somebody speaks.
        wake_word.judge(&[0.0; Self::STEP])?;
        wake_word.reset();
        Ok(wake_word)
    }

    /// How likely the word ends in the next 80 ms, from 0 to 1.
    ///
    /// # Errors
    /// [`Error::Encoder`] when a graph gives something else than is expected of it.
    pub fn judge(&mut self, step: &[f32; Self::STEP]) -> Result<f32> {
        self.sound.copy_within(Self::STEP.., 0);
        for (place, sample) in self.sound[CONTEXT..].iter_mut().zip(step) {
            *place = sample * SCALE;
        }
        let sound = Array::new(&[1, self.sound.len()], &self.sound)?;
        let mel = self.melspectrogram.run(&[sound])?;
        slide(&mut self.mel, mel.numbers()?.iter().map(|mel| mel / 10.0 + 2.0));
        let frames = Array::new(&[1, FRAMES, BINS, 1], self.mel.make_contiguous())?;
        let embedding = self.embedding.run(&[frames])?;
        slide(&mut self.embeddings, embedding.numbers()?.iter().copied());
        let embeddings =
            Array::new(&[1, EMBEDDINGS, EMBEDDING], self.embeddings.make_contiguous())?;
        let score = self.word.run(&[embeddings])?;
        score.numbers()?.first().copied().ok_or_else(|| Error::Encoder {
            graph: "wake word".into(),
            reason: "the word's graph gives no score: use an openWakeWord model".into(),
        })
    }

    /// Forgets the stream, so that the word is not heard twice.
    pub fn reset(&mut self) {
        self.sound.fill(0.0);
        self.mel = VecDeque::from(vec![1.0; FRAMES * BINS]);
        self.embeddings = VecDeque::from(vec![0.0; EMBEDDINGS * EMBEDDING]);
    }
}

fn load(path: &Path, shape: &[usize]) -> Result<Graph> {
    let onnx = std::fs::read(path).map_err(Error::io(path))?;
    Graph::parse(&path.display().to_string(), &onnx, &[shape])
}

/// Takes in the new numbers and lets as many of the oldest go.
fn slide(kept: &mut VecDeque<f32>, new: impl Iterator<Item = f32>) {
    let length = kept.len();
    kept.extend(new);
    kept.drain(..kept.len() - length);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::read_wav;

    fn files() -> (PathBuf, WakeWordFiles) {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let folder = root.join("tests/fixtures/wake_word");
        let files = WakeWordFiles {
            melspectrogram: folder.join("melspectrogram.onnx"),
            embedding: folder.join("embedding_model.onnx"),
            word: folder.join("word.onnx"),
        };
        (root.to_owned(), files)
    }

    #[test]
    fn scores_are_those_of_the_published_steps() {
        let (root, files) = files();
        let text = std::fs::read_to_string(files.word.with_file_name("scores.json")).unwrap();
        let expected: Vec<f32> = serde_json::from_str(&text).unwrap();
        let sound = read_wav(&root.join("models/nano/samples/lock_the_front_door.wav")).unwrap();
        let mut wake_word = WakeWord::load(&files).unwrap();
        let steps = sound.samples.chunks_exact(WakeWord::STEP);
        assert_eq!(steps.len(), expected.len());
        for (index, (step, expected)) in steps.zip(expected).enumerate() {
            let got = wake_word.judge(step.try_into().unwrap()).unwrap();
            assert!((got - expected).abs() < 1e-3, "step {index}: {got} {expected}");
        }
    }

    #[test]
    fn a_graph_in_the_wrong_place_is_named() {
        let (_, files) = files();
        let swapped = WakeWordFiles { word: files.embedding.clone(), ..files };
        let fault = WakeWord::load(&swapped).unwrap_err();
        assert!(
            matches!(&fault, Error::Encoder { graph, .. } if graph.contains("embedding")),
            "{fault}"
        );
        let missing = WakeWordFiles { word: "nowhere.onnx".into(), ..swapped };
        assert!(matches!(WakeWord::load(&missing), Err(Error::Io { .. })));
    }
}
