//! The conformer and its projectors (spec 4.5).

use std::path::Path;

use super::{FRAMES_PER_TOKEN, log_mel};
use crate::config::AudioConfig;
use crate::error::Result;
use crate::features::Features;
use crate::graph::{Array, EncoderWeights, Graph, Pass, Stack};
use crate::request::{Audio, Stop};

/// Rows that the blocks attend over at once, 40 s (spec 4.5 f).
const SEGMENT: usize = 500;
/// Rows that the subsampling makes at once, 5 s: bounds the memory of its first map.
const TILE: usize = 64;

/// Which projector follows the conformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AudioProjector {
    /// Sound without a picture.
    Speech,
    /// Sound together with a picture.
    Vision,
}

/// Sound → rows for the decoder.
#[derive(Debug)]
pub struct AudioEncoder {
    subsample: Graph,
    distance_bias: Graph,
    layers: Stack,
    speech: Graph,
    vision: Graph,
    width: usize,
    hidden: usize,
    max_distance: usize,
}

impl AudioEncoder {
    /// Loads the `audio_*` graphs of `dir`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when a graph is not there, [`Error::Encoder`](crate::Error::Encoder) when it is damaged.
    pub fn load(
        dir: &Path,
        config: &AudioConfig,
        hidden: usize,
        weights: EncoderWeights,
    ) -> Result<Self> {
        Ok(Self {
            subsample: Graph::load(dir, "audio_subsample")?,
            distance_bias: Graph::load(dir, "audio_distance_bias")?,
            layers: Stack::load(dir, "audio_layer", config.num_blocks, weights)?,
            speech: Graph::load(dir, "audio_projector_speech")?,
            vision: Graph::load(dir, "audio_projector_vision")?,
            width: config.attention_dim,
            hidden,
            max_distance: config.relative_attention_bias_args.t5_bias_max_distance,
        })
    }

    /// One row `[hidden]` for each placeholder of the sound.
    ///
    /// # Errors
    /// [`Error::Audio`](crate::Error::Audio) when the sound cannot be taken, [`Error::Stopped`](crate::Error::Stopped)
    /// between stages, [`Error::Encoder`](crate::Error::Encoder) when a graph does not fit the config.
    pub fn encode(
        &self,
        audio: &Audio,
        projector: AudioProjector,
        stop: &Stop,
    ) -> Result<Features> {
        stop.check()?;
        let rows = self.conform(&log_mel(audio)?, stop)?;
        self.project(&rows, projector)
    }

    /// Log-mel frames `[T, 80]` → rows of the conformer `[ceil(T / 8), D]`, before the projector.
    ///
    /// # Errors
    /// As for [`Self::encode`].
    pub fn conform(&self, mel: &Features, stop: &Stop) -> Result<Features> {
        let mut rows = self.subsample(mel, stop)?;
        let tokens = rows.rows;
        let segment = if tokens > SEGMENT {
            // The zero rows of the last segment are attended to: the reference does not mask them.
            rows.data.resize(tokens.next_multiple_of(SEGMENT) * self.width, 0.0);
            SEGMENT
        } else {
            tokens
        };
        let distances = Array::new(&[segment, segment], &self.distances(segment))?;
        let bias = self.distance_bias.run(&[distances])?;
        let passes = rows.data.chunks_exact(segment * self.width).map(|part| {
            Ok(Pass { rows: Array::new(&[segment, self.width], part)?, beside: bias.clone() })
        });
        let segments = self.layers.run(passes.collect::<Result<_>>()?, stop)?;
        let mut out = Vec::with_capacity(rows.data.len());
        for segment in &segments {
            out.extend_from_slice(segment.numbers()?);
        }
        out.truncate(tokens * self.width);
        Ok(Features::new(self.width, out))
    }

    /// Rows of the conformer → rows for the decoder.
    fn project(&self, rows: &Features, projector: AudioProjector) -> Result<Features> {
        let graph = match projector {
            AudioProjector::Speech => &self.speech,
            AudioProjector::Vision => &self.vision,
        };
        let out = graph.run(&[Array::new(&[rows.rows, rows.width], &rows.data)?])?;
        Ok(Features::new(self.hidden, out.numbers()?.to_vec()))
    }

    /// Eight frames become a row. Row t depends on frames 8t - 7 to 8t + 7, so that a tile that begins eight frames early gives, but
    /// for its first row, the rows of the whole.
    fn subsample(&self, mel: &Features, stop: &Stop) -> Result<Features> {
        let mut rows = Vec::new();
        for first in (0..mel.rows.div_ceil(FRAMES_PER_TOKEN)).step_by(TILE) {
            stop.check()?;
            let early = usize::from(first > 0);
            let begin = (first - early) * FRAMES_PER_TOKEN;
            let end = ((first + TILE) * FRAMES_PER_TOKEN).min(mel.rows);
            let frames = &mel.data[begin * mel.width..end * mel.width];
            let frames = Array::new(&[1, 1, end - begin, mel.width], frames)?;
            let tile = self.subsample.run(&[frames])?;
            rows.extend_from_slice(&tile.numbers()?[early * self.width..]);
        }
        Ok(Features::new(self.width, rows))
    }

    /// For each query and key, the row of the bias table: their distance, clamped (spec 4.5 d).
    fn distances(&self, rows: usize) -> Vec<i64> {
        let (rows, max) = (rows as i64, self.max_distance as i64);
        (0..rows)
            .flat_map(|query| (0..rows).map(move |key| (key - query).clamp(-max, max - 1) + max))
            .collect()
    }
}
