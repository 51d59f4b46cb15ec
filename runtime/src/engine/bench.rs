//! Times a loaded model the way `llama-bench` does, and scores how well it predicts a text.
//!
//! Everything here goes through [`Bench`]: prefill, fill, step. A backend needs no other surface to be measured.

use std::time::{Duration, Instant};

use super::Engine;
use crate::decoder::{Logits, Regime};
use crate::error::Result;
use crate::prompt::Prompt;
use crate::request::Stop;
use crate::session::{Adapter, Session};

impl Engine {
    /// A session fed with synthetic tokens.
    ///
    /// # Errors
    /// When memory is short.
    pub fn bench(&self) -> Result<Bench<'_>> {
        let session = Session::new(&self.decoder, Adapter::None, self.context)?;
        Ok(Bench { engine: self, session })
    }

    /// Longest sequence, in tokens: the configured bound or the model's own, whichever is smaller.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Kernels that multiply the decoder's matrices.
    pub fn kernel_name(&self) -> &'static str {
        self.decoder.kernel()
    }

    /// Threads of the decoder on a CPU.
    pub fn threads(&self) -> usize {
        self.decoder.threads()
    }

    /// Log-probabilities, in nats, of the tokens of a window from index `from` on (at least 1), each given all tokens before it.
    ///
    /// # Errors
    /// [`crate::Error::ContextFull`] when the window exceeds the context, otherwise as [`Engine::embed`].
    pub fn log_probabilities(&self, ids: &[u32], from: usize) -> Result<Vec<f64>> {
        let from = from.max(1);
        if from >= ids.len() {
            return Ok(Vec::new());
        }
        let prompt = Prompt { ids: ids.to_vec(), media: Vec::new(), adapter: None, prefix: 0 };
        // The logits at a position predict the token after it.
        let logits = self.logits(&prompt, &Stop::never())?;
        let scored = (from..).zip(&ids[from..]);
        Ok(scored.map(|(at, id)| log_probability(logits.row(at - 1), *id)).collect())
    }
}

/// The logarithm of a token's share in the softmax of `logits`.
fn log_probability(logits: &[f32], id: u32) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum();
    f64::from(logits[id as usize]) - largest - sum.ln()
}

/// A sequence of synthetic tokens.
#[derive(Debug)]
pub struct Bench<'a> {
    engine: &'a Engine,
    session: Session,
}

impl Bench<'_> {
    /// Feeds `tokens` tokens as one prompt and returns how long that took.
    ///
    /// # Errors
    /// [`crate::Error::ContextFull`] beyond the context.
    pub fn prefill(&mut self, tokens: usize) -> Result<Duration> {
        let ids = self.ids(tokens);
        // A fork's keys and values may still be on their way.
        self.engine.synchronize();
        let started = Instant::now();
        self.engine.step(&mut self.session, &ids, Logits::Last)?;
        Ok(started.elapsed())
    }

    /// Feeds `tokens` tokens one at a time and returns how long that took.
    ///
    /// # Errors
    /// As [`Bench::prefill`].
    pub fn decode(&mut self, tokens: usize) -> Result<Duration> {
        let ids = self.ids(tokens);
        // A fork's keys and values may still be on their way.
        self.engine.synchronize();
        let started = Instant::now();
        for id in &ids {
            self.engine.step(&mut self.session, &[*id], Logits::Last)?;
        }
        Ok(started.elapsed())
    }

    /// An independent copy, so that the same place can be measured again.
    ///
    /// # Errors
    /// When memory is short.
    pub fn fork(&self) -> Result<Self> {
        Ok(Self { engine: self.engine, session: self.session.fork(self.session.len())? })
    }

    /// Puts an empty session behind `positions` positions, with `tokens` more to come. Keys and values are noise: computing them can
    /// take an hour, and the time of a token doesn't depend on what they say.
    ///
    /// # Errors
    /// As [`Bench::prefill`].
    pub fn fill(&mut self, positions: usize, tokens: usize) -> Result<()> {
        let decoder = &self.engine.decoder;
        // A sequence that outgrows the short regime is recomputed once; no step measured here should be that one.
        let (regime, positions) = match decoder.recomputed(positions + tokens) {
            0 => (Regime::Short, positions),
            original => (Regime::Long, positions.max(original)),
        };
        self.session.pad(regime, positions)
    }

    /// Token ids spread over the vocabulary.
    fn ids(&self, tokens: usize) -> Vec<u32> {
        let vocab = self.engine.config.decoder.vocab_size;
        (0..tokens).map(|index| ((index * 7919 + 13) % vocab) as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::EngineOptions;
    use crate::import::{ImportOptions, Quant, import};

    #[test]
    fn a_window_is_scored_as_its_logits_say() {
        let checkpoint =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/phi4mm/checkpoint");
        let dir = tempfile::tempdir().unwrap();
        let packed = dir.path().join("packed");
        let options = ImportOptions { quant: Quant::F32 };
        import(&checkpoint, &packed, &options, &mut |_| ()).unwrap();
        let engine = Engine::load(&packed, &EngineOptions::default()).unwrap();
        let ids = [5, 9, 17, 33, 65];
        let found = engine.log_probabilities(&ids, 3).unwrap();
        let prompt = Prompt { ids: ids.to_vec(), media: Vec::new(), adapter: None, prefix: 0 };
        let logits = engine.logits(&prompt, &Stop::never()).unwrap();
        let expected: Vec<f64> = [(2, 33), (3, 65)]
            .map(|(at, id): (usize, usize)| {
                let weights: Vec<f64> =
                    logits.row(at).iter().map(|x| f64::from(*x).exp()).collect();
                (weights[id] / weights.iter().sum::<f64>()).ln()
            })
            .into();
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}");
        assert_eq!(engine.log_probabilities(&ids, 5).unwrap(), Vec::<f64>::new());
    }
}
