//! The Phi-4 decoder (spec 1): embeddings in, logits out. Weights are shared and never change; what changes is in a
//! [`Session`].
//!
//! ```text
//! xs ─ input_layernorm ─ self_attn ─(+)─ post_attention_layernorm ─ mlp ─(+)─ ... ─ norm ─ head
//! ```
//! This module cuts a prompt into chunks and knows the angles of its positions; the arithmetic is a `backend`'s.

mod adapters;
pub(crate) mod backend;
mod cpu;
mod kv;
mod rope;
#[cfg(feature = "torch")]
mod torch;

use std::path::Path;

use outpost_kernels::Matrix;

pub(crate) use self::backend::Sequence;
use self::backend::{Backend, Pass, Wanted};
pub use self::kv::KvFormat;
pub(crate) use self::rope::Regime;
use self::rope::Rope;
use crate::config::Config;
use crate::device::{self, Device, DeviceChoice};
use crate::error::{Error, Result};
use crate::features::Features;
use crate::request::Stop;
use crate::session::{Adapter, Session};
use crate::weights::Weights;

/// Positions to compute logits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits<'a> {
    /// The last one.
    Last,
    /// All that are passed in.
    All,
    /// The last one, of these ids alone; they ascend. The other logits are NaN.
    Of(&'a [u32]),
}

/// A loaded decoder.
#[derive(Debug)]
pub struct Decoder {
    /// Looked up by rows, which no backend does faster.
    embed_tokens: Matrix,
    backend: Box<dyn Backend>,
    rope: Rope,
    kv: KvFormat,
    /// Positions that go through the layers at a time.
    chunk: usize,
    vocab_size: usize,
    adapters: Adapters,
}

/// The adapters that a model has.
#[derive(Debug, Clone, Copy)]
struct Adapters {
    vision: bool,
    speech: bool,
    /// Of the user's own.
    user: usize,
}

impl Decoder {
    /// Loads the decoder of a packed directory. `threads` are those of a CPU; `None` means all physical cores.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Weights`] when a tensor is missing or damaged, [`Error::Device`] when the device isn't there.
    pub fn load(
        dir: &Path,
        config: &Config,
        device: DeviceChoice,
        threads: Option<usize>,
    ) -> Result<Self> {
        let weights = Weights::open(dir)?;
        let threads = threads.unwrap_or_else(cpu::cores).max(1);
        let (backend, weights): (Box<dyn Backend>, _) = match device::choose(device)? {
            Device::Cpu => {
                let backend = cpu::CpuBackend::load(&weights, config, cpu::isa()?, threads)?;
                (Box::new(backend), weights)
            }
            #[cfg(feature = "torch")]
            Device::Torch(device) => {
                let as_gpu = device != tch::Device::Cpu;
                let backend = torch::TorchBackend::load(&weights, config, device, as_gpu, threads)?;
                // All but the rows of the embedding is on the GPU by now.
                (Box::new(backend), if as_gpu { weights.uncached()? } else { weights })
            }
        };
        Self::on(backend, &weights, config)
    }

    /// The decoder on a loaded backend.
    fn on(backend: Box<dyn Backend>, weights: &Weights, config: &Config) -> Result<Self> {
        let (kernel, threads) = (backend.kernel(), backend.threads());
        tracing::info!(kernel, threads, "decoder loaded");
        Ok(Self {
            embed_tokens: weights.embedding(&config.decoder)?,
            chunk: backend.chunk(),
            backend,
            rope: Rope::new(&config.decoder),
            kv: KvFormat::default(),
            vocab_size: config.decoder.vocab_size,
            adapters: Adapters {
                vision: config.vision_lora.is_some(),
                speech: config.speech_lora.is_some(),
                user: config.adapters.len(),
            },
        })
    }

    /// The same decoder, whose sessions keep their keys and values in that format.
    #[must_use]
    pub fn with_kv(mut self, format: KvFormat) -> Self {
        self.kv = format;
        self
    }

    /// Name of the kernels that multiply its matrices.
    pub fn kernel(&self) -> &'static str {
        self.backend.kernel()
    }

    /// Threads on the CPU.
    pub fn threads(&self) -> usize {
        self.backend.threads()
    }

    /// Waits for the device, so that what is timed next starts with nothing left to do.
    ///
    /// # Panics
    /// Where the device can't be used any more, such as a GPU after a fault in one of its kernels.
    pub fn synchronize(&self) {
        self.backend.synchronize();
    }

    /// Token embeddings `[n, hidden]`.
    ///
    /// # Errors
    /// [`Error::Request`] for an id outside the vocabulary.
    pub fn embed(&self, ids: &[u32]) -> Result<Features> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocab_size) {
            return Err(Error::Request(format!(
                "token {id} is outside the vocabulary of {}",
                self.vocab_size
            )));
        }
        let table = &self.embed_tokens;
        let mut data = vec![0.0; ids.len() * table.width()];
        for (id, row) in ids.iter().zip(data.chunks_exact_mut(table.width())) {
            table.row(*id as usize, row);
        }
        Ok(Features::new(table.width(), data))
    }

    /// Appends embeddings `[n, hidden]` to the session and gives logits `[n or 1, vocab]`.
    ///
    /// Where the sequence leaves the original context, everything before is computed again with the long factors (spec 1.4).
    ///
    /// # Errors
    /// [`Error::ContextFull`] beyond the session's bound; otherwise the session must be dropped.
    pub fn forward(
        &self,
        session: &mut Session,
        embeds: &Features,
        logits: Logits<'_>,
    ) -> Result<Features> {
        self.forward_until(session, embeds, logits, &Stop::never())
    }

    /// As [`Decoder::forward`]; a long prompt can be stopped on the way.
    ///
    /// # Errors
    /// As [`Decoder::forward`], and [`Error::Stopped`]; the session must then be dropped.
    pub fn forward_until(
        &self,
        session: &mut Session,
        embeds: &Features,
        logits: Logits<'_>,
        stop: &Stop,
    ) -> Result<Features> {
        let regime = self.rope.regime(session.len() + embeds.rows);
        // A tokenizer may know ids that the model has no row for.
        let is_there = |id: &u32| (*id as usize) < self.vocab_size;
        let logits = match logits {
            Logits::Of(ids) if ids.is_empty() || !ids.iter().all(is_there) => Logits::Last,
            logits => logits,
        };
        let embeds = session.admit(embeds, regime)?;
        let (rows, width) = (embeds.rows, embeds.width);
        // After a change of regime, earlier positions are among these; their logits were given before.
        let wanted = if logits == Logits::All { embeds.new } else { 1 };
        let mut found = Features::new(self.vocab_size, Vec::new());
        for start in (0..rows).step_by(self.chunk) {
            stop.check()?;
            let count = self.chunk.min(rows - start);
            let left = rows - start - count;
            let here = wanted.saturating_sub(left).min(count);
            let pass = Pass {
                embeds: &embeds.data[start * width..(start + count) * width],
                rows: count,
                rope: &self.rope,
                regime,
                adapter: session.adapter(),
                logits: match logits {
                    Logits::Of(ids) if left == 0 => Wanted::Ids(ids),
                    Logits::Of(_) => Wanted::Last(0),
                    Logits::Last | Logits::All => Wanted::Last(here),
                },
            };
            let some = session.sequence().forward(&pass)?;
            found.rows += some.rows;
            found.data.extend(some.data);
        }
        Ok(found)
    }

    /// An empty sequence of at most `limit` positions.
    pub(crate) fn sequence(&self, limit: usize) -> Result<Box<dyn Sequence>> {
        self.backend.sequence(self.kv, limit)
    }

    /// Whether the model has that adapter.
    pub fn has(&self, adapter: Adapter) -> bool {
        match adapter {
            Adapter::None => true,
            Adapter::Vision => self.adapters.vision,
            Adapter::Speech => self.adapters.speech,
            Adapter::User(index) => index < self.adapters.user,
        }
    }

    /// Positions that may have to be computed again in a sequence of at most `limit`: those of the short regime, if it can be
    /// left.
    pub(crate) fn recomputed(&self, limit: usize) -> usize {
        match self.rope.regime(limit) {
            Regime::Short => 0,
            Regime::Long => self.rope.original(),
        }
    }
}

#[cfg(test)]
mod long_context;
#[cfg(test)]
mod tests;
