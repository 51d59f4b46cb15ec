//! The Phi-4 decoder (spec 1): embeddings in, logits out. Weights are shared and never change; what changes is in a
//! [`Session`].
//!
//! ```text
//! xs ─ input_layernorm ─ self_attn ─(+)─ post_attention_layernorm ─ mlp ─(+)─ ... ─ norm ─ head
//! ```
//! Each matrix knows its number format (`linear`) and its adapters (`lora`). Activations are bf16, or f32 over f32 weights.

mod attention;
mod dense;
mod kv_cache;
mod linear;
mod lora;
mod mlp;
mod norm;
mod rope;

use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tch::{Device, Kind, Tensor};

use self::attention::Attention;
pub use self::kv_cache::KvFormat;
pub(crate) use self::kv_cache::{KvCache, KvShape};
use self::linear::Linear;
use self::mlp::Mlp;
use self::norm::RmsNorm;
pub(crate) use self::rope::Regime;
use self::rope::{Rope, Rotation};
use crate::config::{Config, DecoderConfig};
use crate::error::{Error, Result};
use crate::request::Stop;
use crate::session::{Adapter, Session};
use crate::weights::Weights;

/// The positions whose logits are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// The last one.
    Last,
    /// Every one that was passed in.
    All,
}

/// A loaded decoder.
#[derive(Debug)]
pub struct Decoder {
    embed_tokens: Linear,
    layers: Vec<Layer>,
    norm: RmsNorm,
    lm_head: Linear,
    rope: Rope,
    kv_shape: KvShape,
    /// Positions that go through the layers at a time.
    chunk: usize,
    vocab_size: usize,
    /// Whether there is a vision adapter, a speech adapter, and how many of the user's own.
    adapters: (bool, bool, usize),
}

#[derive(Debug)]
struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

/// What all layers share in a pass over some positions.
struct Pass {
    rotation: Rotation,
    adapter: Adapter,
}

impl Layer {
    fn load(weights: &Weights, config: &Config, path: &str) -> Result<Self> {
        let norm = |name: &str| {
            RmsNorm::load(
                weights,
                &format!("{path}.{name}"),
                config.decoder.hidden_size,
                config.decoder.rms_norm_eps,
            )
        };
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::load(weights, config, &format!("{path}.self_attn"))?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: Mlp::load(weights, config, &format!("{path}.mlp"))?,
        })
    }

    fn forward(&self, xs: &Tensor, layer: usize, kv: &mut KvCache, pass: &Pass) -> Tensor {
        let ys = self.input_layernorm.forward(xs);
        let xs = xs + self.self_attn.forward(&ys, layer, kv, &pass.rotation, pass.adapter);
        &xs + self.mlp.forward(&self.post_attention_layernorm.forward(&xs), pass.adapter)
    }
}

impl Decoder {
    /// Loads the decoder of a packed directory.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Weights`] when a tensor is missing or damaged, [`Error::Torch`] when memory is short.
    pub fn load(dir: &Path, config: &Config, device: Device) -> Result<Self> {
        let _no_grad = tch::no_grad_guard();
        let weights = &Weights::open(dir, device)?;
        let sizes = &config.decoder;
        let embed_tokens =
            Linear::load(weights, "model.embed_tokens", sizes.vocab_size, sizes.hidden_size)?;
        let (layers, lm_head) = load_most(weights, config)?;
        let lm_head = lm_head.unwrap_or_else(|| embed_tokens.share());
        let kind = match &embed_tokens {
            Linear::Dense(weight) => weight.kind(),
            _ => Kind::BFloat16,
        };
        Ok(Self {
            embed_tokens,
            layers,
            norm: RmsNorm::load(weights, "model.norm", sizes.hidden_size, sizes.rms_norm_eps)?,
            lm_head,
            rope: Rope::new(sizes),
            kv_shape: KvShape::new(sizes, kind, device),
            chunk: chunk(sizes, kind),
            vocab_size: sizes.vocab_size,
            adapters: (
                config.vision_lora.is_some(),
                config.speech_lora.is_some(),
                config.adapters.len(),
            ),
        })
    }

    /// The same decoder, whose sessions keep their keys and values in that format.
    #[must_use]
    pub fn with_kv(mut self, format: KvFormat) -> Self {
        self.kv_shape.format = format;
        self
    }

    /// Token embeddings `[n, hidden]`.
    ///
    /// # Errors
    /// [`Error::Request`] for an id outside the vocabulary.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocab_size) {
            return Err(Error::Request(format!(
                "token {id} is outside the vocabulary of {}",
                self.vocab_size
            )));
        }
        let _no_grad = tch::no_grad_guard();
        let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        let ids = Tensor::f_from_slice(&ids)?.f_to(self.kv_shape.device)?;
        Ok(match &self.embed_tokens {
            Linear::Dense(weight) => weight.f_index_select(0, &ids)?,
            Linear::Int8(weight) => weight.rows(&ids),
            Linear::Int4(_) => {
                return Err(Error::Request("the embedding is packed in int4".into()));
            }
        })
    }

    /// Appends embeddings `[n, hidden]` to the session and gives logits `[n or 1, vocab]` in f32.
    ///
    /// Where the sequence leaves the original context, everything before is computed again with the long factors (spec 1.4).
    ///
    /// # Errors
    /// [`Error::ContextFull`] beyond the session's bound, [`Error::Torch`] when memory is short; the session must then be
    /// dropped.
    pub fn forward(&self, session: &mut Session, embeds: &Tensor, rows: Logits) -> Result<Tensor> {
        self.forward_until(session, embeds, rows, &Stop::never())
    }

    /// As [`Decoder::forward`]; a long prompt can be stopped on the way.
    ///
    /// # Errors
    /// As [`Decoder::forward`], and [`Error::Stopped`]; the session must then be dropped.
    pub fn forward_until(
        &self,
        session: &mut Session,
        embeds: &Tensor,
        rows: Logits,
        stop: &Stop,
    ) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let new = embeds.size()[0];
        let regime = self.rope.regime(session.len() + new as usize);
        let embeds = session.admit(embeds, regime)?;
        let adapter = session.adapter();
        let wanted = if rows == Logits::All { new } else { 1 };
        let mut last = Vec::new();
        let mut left = embeds.size()[0];
        for chunk in embeds.f_split(self.chunk as i64, 0)? {
            stop.check()?;
            let xs = self.hidden(session.kv(), &chunk, regime, adapter)?;
            left -= xs.size()[0];
            let keep = (wanted - left).min(xs.size()[0]);
            if keep > 0 {
                last.push(xs.f_narrow(0, xs.size()[0] - keep, keep)?);
            }
        }
        let xs = self.norm.forward(&Tensor::f_cat(&last, 0)?);
        Ok(self.lm_head.forward(&xs).f_to_kind(Kind::Float)?)
    }

    /// The residual stream behind the last layer.
    fn hidden(
        &self,
        kv: &mut KvCache,
        embeds: &Tensor,
        regime: Regime,
        adapter: Adapter,
    ) -> Result<Tensor> {
        let KvShape { kind, device, .. } = self.kv_shape;
        let (start, n) = (kv.len(), embeds.size()[0] as usize);
        kv.reserve(n)?;
        let pass = Pass { rotation: self.rope.rotation(regime, start, n, kind, device)?, adapter };
        let mut xs = embeds.shallow_clone();
        for (index, layer) in self.layers.iter().enumerate() {
            xs = layer.forward(&xs, index, kv, &pass);
        }
        kv.advance(n);
        Ok(xs)
    }

    /// Whether the model has that adapter.
    pub fn has(&self, adapter: Adapter) -> bool {
        match adapter {
            Adapter::None => true,
            Adapter::Vision => self.adapters.0,
            Adapter::Speech => self.adapters.1,
            Adapter::User(index) => index < self.adapters.2,
        }
    }

    pub(crate) fn kv_shape(&self) -> KvShape {
        self.kv_shape
    }

    /// Positions that may have to be computed anew in a sequence of at most `limit`: those of the short regime, if it can be
    /// left.
    pub(crate) fn recomputed(&self, limit: usize) -> usize {
        match self.rope.regime(limit) {
            Regime::Short => 0,
            Regime::Long => self.rope.original(),
        }
    }
}

/// All layers, and the head if it is not the embedding. What takes the time is to lay int4 weights out for the CPU's kernel, so
/// several threads share them; few, since each holds a block of wide codes.
fn load_most(weights: &Weights, config: &Config) -> Result<(Vec<Layer>, Option<Linear>)> {
    let sizes = &config.decoder;
    // A tied head is stored only where its format differs from the embedding's.
    let has_head = weights.has_matrix("lm_head") || !sizes.tie_word_embeddings;
    let threads = thread::available_parallelism().map_or(1, usize::from).min(8);
    let next = AtomicUsize::new(0);
    let share = || {
        let _no_grad = tch::no_grad_guard();
        let (mut layers, mut head) = (Vec::new(), None);
        loop {
            match next.fetch_add(1, Ordering::Relaxed) {
                // The head comes first: it is as large as several layers.
                0 if has_head => {
                    let (rows, width) = (sizes.vocab_size, sizes.hidden_size);
                    head = Some(Linear::load(weights, "lm_head", rows, width)?);
                }
                0 => {}
                number if number <= sizes.num_hidden_layers => {
                    let path = format!("model.layers.{}", number - 1);
                    layers.push((number, Layer::load(weights, config, &path)?));
                }
                _ => return Ok((layers, head)),
            }
        }
    };
    // These threads share the work already; libtorch's own would only wait for each other.
    let of_torch = tch::get_num_threads();
    tch::set_num_threads(1);
    let shares = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(share)).collect();
        let ended =
            running.into_iter().map(|share| share.join().unwrap_or_else(|p| resume_unwind(p)));
        ended.collect::<Result<Vec<_>>>()
    });
    tch::set_num_threads(of_torch);
    let (layers, heads): (Vec<_>, Vec<_>) = shares?.into_iter().unzip();
    let mut layers: Vec<_> = layers.into_iter().flatten().collect();
    layers.sort_unstable_by_key(|(number, _)| *number);
    Ok((layers.into_iter().map(|(_, layer)| layer).collect(), heads.into_iter().flatten().next()))
}

/// Bytes of a layer's intermediate results at a time. A matrix product of some hundred rows is as fast a row as one of
/// thousands; what more rows at a time would add is memory.
const ACTIVATIONS: usize = 20 << 20;

/// How many positions go through the layers at a time: as many as [`ACTIVATIONS`] allows for at a layer's widest point, where
/// gate and up and what an adapter adds to them are held at once.
fn chunk(sizes: &DecoderConfig, kind: Kind) -> usize {
    let position = 2 * 2 * sizes.intermediate_size * kind.elt_size_in_bytes();
    (ACTIVATIONS / position).max(1)
}

#[cfg(test)]
mod long_context;
#[cfg(test)]
mod tests;
