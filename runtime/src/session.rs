//! The mutable half of a model: the positions seen so far under one adapter.

use tch::Tensor;

use crate::decoder::{Decoder, KvCache, Regime};
use crate::error::{Error, Result};

/// The LoRA adapter of a sequence, the same for all of its tokens and layers (spec 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Adapter {
    /// Text only: the base model.
    None,
    /// Any picture.
    Vision,
    /// Sound and no picture.
    Speech,
    /// One of the user's own, by its place among the config's `adapters`.
    User(usize),
}

/// Keys and values of a sequence, and what is needed to compute them anew.
#[derive(Debug)]
pub struct Session {
    adapter: Adapter,
    kv: KvCache,
    /// The factors that the keys were rotated with.
    regime: Regime,
    /// Embeddings of all positions, media included, for when the regime changes; none where the bound rules that out.
    embeds: Option<Vec<Tensor>>,
}

impl Session {
    /// An empty sequence of at most `limit` positions.
    ///
    /// # Errors
    /// [`Error::Request`] when the model has no such adapter.
    pub fn new(decoder: &Decoder, adapter: Adapter, limit: usize) -> Result<Self> {
        if !decoder.has(adapter) {
            let purpose = match adapter {
                Adapter::Vision => "pictures",
                Adapter::Speech => "sound",
                Adapter::None | Adapter::User(_) => "this request",
            };
            return Err(Error::Request(format!("this model has no adapter for {purpose}")));
        }
        Ok(Self {
            adapter,
            kv: KvCache::new(decoder.kv_shape(), limit),
            regime: Regime::Short,
            embeds: decoder.crosses(limit).then(Vec::new),
        })
    }

    /// Positions seen so far.
    pub fn len(&self) -> usize {
        self.kv.len()
    }

    /// Whether no position was seen yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The adapter.
    pub fn adapter(&self) -> Adapter {
        self.adapter
    }

    /// A copy of the first `len` positions; neither sees what is appended to the other.
    ///
    /// # Errors
    /// [`Error::Torch`] when memory is short.
    pub fn fork(&self, len: usize) -> Result<Self> {
        let len = len.min(self.len());
        let embeds = match self.embeds.as_deref() {
            None => None,
            Some([]) => Some(Vec::new()),
            // Embeddings are never written to, so one joined copy is a copy.
            Some(kept) => {
                Some(vec![Tensor::f_cat(kept, 0)?.f_narrow(0, 0, len as i64)?.f_detach_copy()?])
            }
        };
        Ok(Self { adapter: self.adapter, kv: self.kv.fork(len)?, regime: self.regime, embeds })
    }

    /// Takes in embeddings `[n, hidden]` of a sequence that now has `regime`, and gives those that must be computed: the same,
    /// or those of all positions when the regime changed.
    pub(crate) fn admit(&mut self, embeds: &Tensor, regime: Regime) -> Result<Tensor> {
        self.kv.reserve(embeds.size()[0] as usize)?;
        let changed = regime != self.regime && !self.is_empty();
        self.regime = regime;
        let Some(kept) = &mut self.embeds else { return Ok(embeds.shallow_clone()) };
        kept.push(embeds.f_detach_copy()?);
        if !changed {
            return Ok(embeds.shallow_clone());
        }
        self.kv.clear();
        let whole = Tensor::f_cat(kept, 0)?;
        *kept = vec![whole.shallow_clone()];
        Ok(whole)
    }

    pub(crate) fn kv(&mut self) -> &mut KvCache {
        &mut self.kv
    }
}
