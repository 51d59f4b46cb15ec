//! Times a loaded model the way `llama-bench` does, and scores how well it predicts a text.
//!
//! Everything here goes through [`Bench`]: prefill, fill, step. A backend needs no other surface to be measured.

use std::time::{Duration, Instant};

use tch::{Kind, Tensor};

use super::Engine;
use crate::decoder::{KvCache, KvShape, Regime};
use crate::error::Result;
use crate::prompt::Prompt;
use crate::request::Stop;
use crate::session::{Adapter, Session};

impl Engine {
    /// A session fed with synthetic tokens.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] when memory is short.
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
        "libtorch"
    }

    /// Threads of the decoder on a CPU.
    pub fn threads(&self) -> usize {
        usize::try_from(tch::get_num_threads()).unwrap_or(1)
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
        let _no_grad = tch::no_grad_guard();
        let prompt = Prompt { ids: ids.to_vec(), media: Vec::new(), adapter: None, prefix: 0 };
        // The logits at a position predict the token after it.
        let scored = (ids.len() - from) as i64;
        let logits = self.logits(&prompt, &Stop::never())?.f_narrow(0, from as i64 - 1, scored)?;
        let wanted: Vec<i64> = ids[from..].iter().map(|id| i64::from(*id)).collect();
        let wanted = Tensor::f_from_slice(&wanted)?.f_to(logits.device())?.f_unsqueeze(1)?;
        let chosen = logits.f_log_softmax(-1, Kind::Float)?.f_gather(1, &wanted, false)?;
        Ok(Vec::try_from(chosen.f_reshape([-1])?.f_to_kind(Kind::Double)?)?)
    }
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
    /// [`crate::Error::ContextFull`] beyond the context, [`crate::Error::Torch`] when memory is short.
    pub fn prefill(&mut self, tokens: usize) -> Result<Duration> {
        let ids = self.ids(tokens);
        let started = Instant::now();
        self.engine.step(&mut self.session, &ids)?;
        Ok(started.elapsed())
    }

    /// Feeds `tokens` tokens one at a time and returns how long that took.
    ///
    /// # Errors
    /// As [`Bench::prefill`].
    pub fn decode(&mut self, tokens: usize) -> Result<Duration> {
        let ids = self.ids(tokens);
        let started = Instant::now();
        for id in &ids {
            self.engine.step(&mut self.session, &[*id])?;
        }
        Ok(started.elapsed())
    }

    /// An independent copy, so that the same place can be measured again.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] when memory is short.
    pub fn fork(&self) -> Result<Self> {
        Ok(Self { engine: self.engine, session: self.session.fork(self.session.len())? })
    }

    /// Puts an empty session behind `positions` positions, with `tokens` more to come. Keys and values are noise: computing them can
    /// take an hour, and the time of a token doesn't depend on what they say.
    ///
    /// # Errors
    /// As [`Bench::prefill`].
    pub fn fill(&mut self, positions: usize, tokens: usize) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let decoder = &self.engine.decoder;
        // A sequence that outgrows the short regime is recomputed once; no step measured here should be that one.
        let (regime, positions) = match decoder.recomputed(positions + tokens) {
            0 => (Regime::Short, positions),
            original => (Regime::Long, positions.max(original)),
        };
        let KvShape { layers, heads, head_dim, kind, device, .. } = decoder.kv_shape();
        let hidden = self.engine.config.decoder.hidden_size as i64;
        let _ = self.session.admit(&Tensor::f_zeros([1, hidden], (kind, device))?, regime)?;
        let kv = self.session.kv();
        for start in (0..positions).step_by(KvCache::BLOCK) {
            let new = KvCache::BLOCK.min(positions - start);
            kv.reserve(new)?;
            for layer in 0..layers {
                let noise = || Tensor::f_randn([new as i64, heads, head_dim], (kind, device));
                let _ = kv.append(layer as usize, &noise()?, &noise()?);
            }
            kv.advance(new);
        }
        Ok(())
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
        let options = ImportOptions { quant: Quant::F32, group: 32 };
        import(&checkpoint, &packed, &options, &mut |_| ()).unwrap();
        let engine = Engine::load(&packed, &EngineOptions::default()).unwrap();
        let ids = [5, 9, 17, 33, 65];
        let found = engine.log_probabilities(&ids, 3).unwrap();
        let prompt = Prompt { ids: ids.to_vec(), media: Vec::new(), adapter: None, prefix: 0 };
        let logits = engine.logits(&prompt, &Stop::never()).unwrap();
        let expected: Vec<f64> = [(2, 33), (3, 65)]
            .map(|(at, id)| logits.get(at).log_softmax(-1, Kind::Double).double_value(&[id]))
            .into();
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}");
        assert_eq!(engine.log_probabilities(&ids, 5).unwrap(), Vec::<f64>::new());
    }
}
