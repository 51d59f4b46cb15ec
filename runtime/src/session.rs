//! The mutable half of a model: the positions seen so far under one adapter.

use std::borrow::Cow;

use crate::decoder::{Decoder, Regime, Sequence};
use crate::error::{Error, Result};
use crate::features::Features;

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

/// Keys and values of a sequence, and what is needed to compute them again.
#[derive(Debug)]
pub struct Session {
    adapter: Adapter,
    sequence: Box<dyn Sequence>,
    /// Most positions.
    limit: usize,
    /// The factors that the keys were rotated with.
    regime: Regime,
    kept: Kept,
}

/// Embeddings of the first positions, media included, for when the regime changes: a sequence that is computed again is never
/// longer than the short regime.
#[derive(Debug, Clone)]
struct Kept {
    embeds: Vec<f32>,
    /// Positions that are kept at most; 0 where the sequence's bound rules a change out.
    most: usize,
}

impl Kept {
    /// Keeps of some embeddings as many as are still wanted.
    fn push(&mut self, embeds: &Features) {
        let len = self.embeds.len() / embeds.width;
        let n = embeds.rows.min(self.most - len);
        self.embeds.extend_from_slice(&embeds.data[..n * embeds.width]);
    }
}

/// Embeddings that must be computed.
pub(crate) struct Admitted<'a> {
    pub(crate) data: Cow<'a, [f32]>,
    pub(crate) rows: usize,
    pub(crate) width: usize,
    /// Rows at the end that are new, rather than computed again.
    pub(crate) new: usize,
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
            sequence: decoder.sequence(limit)?,
            limit,
            regime: Regime::Short,
            kept: Kept { embeds: Vec::new(), most: decoder.recomputed(limit) },
        })
    }

    /// Positions seen so far.
    pub fn len(&self) -> usize {
        self.sequence.len()
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
    /// When memory is short.
    pub fn fork(&self, len: usize) -> Result<Self> {
        let len = len.min(self.len());
        let width = self.width_of_kept();
        let kept = &self.kept.embeds[..self.kept.embeds.len().min(len * width)];
        Ok(Self {
            adapter: self.adapter,
            sequence: self.sequence.fork(len)?,
            limit: self.limit,
            regime: self.regime,
            kept: Kept { embeds: kept.to_vec(), most: self.kept.most },
        })
    }

    /// As [`Session::fork`], of a session that is not needed any more.
    ///
    /// # Errors
    /// When memory is short.
    pub(crate) fn cut(mut self, len: usize) -> Result<Self> {
        let width = self.width_of_kept();
        let len = len.min(self.len());
        self.kept.embeds.truncate(len * width);
        Ok(Self { sequence: self.sequence.cut(len)?, ..self })
    }

    /// Numbers of an embedding that is kept.
    fn width_of_kept(&self) -> usize {
        self.kept.embeds.len().checked_div(self.len().min(self.kept.most)).unwrap_or(0)
    }

    /// Takes in embeddings of a sequence that now has `regime`, and gives those that must be computed: the same, or those of all
    /// positions when the regime changed.
    pub(crate) fn admit<'a>(
        &mut self,
        embeds: &'a Features,
        regime: Regime,
    ) -> Result<Admitted<'a>> {
        if self.len() + embeds.rows > self.limit {
            return Err(Error::ContextFull {
                prompt: self.len(),
                new: embeds.rows,
                limit: self.limit,
            });
        }
        let changed = regime != self.regime && !self.is_empty();
        self.regime = regime;
        let (width, new) = (embeds.width, embeds.rows);
        if !changed {
            self.kept.push(embeds);
            return Ok(Admitted { data: Cow::Borrowed(&embeds.data), rows: new, width, new });
        }
        let whole = [&self.kept.embeds[..self.len() * width], &embeds.data].concat();
        self.sequence.clear();
        self.kept.push(embeds);
        Ok(Admitted { rows: whole.len() / width, data: Cow::Owned(whole), width, new })
    }

    pub(crate) fn sequence(&mut self) -> &mut dyn Sequence {
        &mut *self.sequence
    }

    /// Appends positions of noise to an empty session, for measurements behind a long context: neither memory nor time depend
    /// on what keys and values say.
    ///
    /// # Errors
    /// [`Error::ContextFull`] beyond the bound.
    pub(crate) fn pad(&mut self, regime: Regime, positions: usize) -> Result<()> {
        if self.len() + positions > self.limit {
            let (prompt, limit) = (self.len(), self.limit);
            return Err(Error::ContextFull { prompt, new: positions, limit });
        }
        self.regime = regime;
        self.sequence.pad(positions)
    }

    /// Keys and values of a prefix that can be kept on disk, or `None` where the backend has no such form, or embeddings would
    /// have to be kept with them.
    pub(crate) fn save(&self) -> Option<Vec<u8>> {
        self.sequence.save()
    }

    /// Takes over the first `embeds.rows` positions that [`Session::save`] gave. `false` if they don't fit.
    pub(crate) fn restore(&mut self, embeds: &Features, bytes: &[u8]) -> Result<bool> {
        if embeds.rows > self.limit || !self.sequence.restore(embeds.rows, bytes)? {
            return Ok(false);
        }
        self.kept.embeds.clear();
        self.kept.push(embeds);
        Ok(true)
    }
}
