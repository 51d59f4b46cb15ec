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
    kept: Kept,
}

/// Embeddings of the first positions, media included, for when the regime changes: a sequence that is computed anew is never
/// longer than the short regime.
#[derive(Debug)]
struct Kept {
    embeds: Vec<Tensor>,
    len: usize,
    /// Positions that are kept at most; 0 where the sequence's bound rules a change out.
    most: usize,
}

impl Kept {
    /// Keeps of some embeddings `[n, hidden]` as many as are still wanted.
    fn push(&mut self, embeds: &Tensor) -> Result<()> {
        let n = (embeds.size()[0] as usize).min(self.most - self.len);
        if n > 0 {
            self.embeds.push(embeds.f_narrow(0, 0, n as i64)?.f_detach_copy()?);
            self.len += n;
        }
        Ok(())
    }

    /// A copy of the first `len`.
    fn fork(&self, len: usize) -> Result<Self> {
        let len = len.min(self.len);
        let mut fork = Self { embeds: Vec::new(), len, most: self.most };
        if len > 0 {
            fork.embeds.push(Tensor::f_cat(&self.embeds, 0)?.f_narrow(0, 0, len as i64)?);
        }
        Ok(fork)
    }
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
            kept: Kept { embeds: Vec::new(), len: 0, most: decoder.recomputed(limit) },
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
        Ok(Self {
            adapter: self.adapter,
            kv: self.kv.fork(len)?,
            regime: self.regime,
            kept: self.kept.fork(len)?,
        })
    }

    /// Takes in embeddings `[n, hidden]` of a sequence that now has `regime`, and gives those that must be computed: the same,
    /// or those of all positions when the regime changed.
    pub(crate) fn admit(&mut self, embeds: &Tensor, regime: Regime) -> Result<Tensor> {
        self.kv.reserve(embeds.size()[0] as usize)?;
        let changed = regime != self.regime && !self.is_empty();
        self.regime = regime;
        if !changed {
            self.kept.push(embeds)?;
            return Ok(embeds.shallow_clone());
        }
        self.kv.clear();
        let all: Vec<&Tensor> = self.kept.embeds.iter().chain([embeds]).collect();
        let whole = Tensor::f_cat(&all, 0)?;
        self.kept.push(embeds)?;
        Ok(whole)
    }

    pub(crate) fn kv(&mut self) -> &mut KvCache {
        &mut self.kv
    }
}
