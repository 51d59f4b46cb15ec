//! What a decoder's arithmetic is asked for. There are two: [`super::cpu`] on kernels of our own, and [`super::torch`] on libtorch
//! for CUDA, which on a CPU is the reference.

use super::kv::KvFormat;
use super::rope::{Regime, Rope};
use crate::error::Result;
use crate::features::Features;
use crate::session::Adapter;

/// A decoder's weights, and how they are multiplied with.
pub(crate) trait Backend: std::fmt::Debug + Send + Sync {
    /// An empty sequence that never gets longer than `limit`.
    fn sequence(&self, kv: KvFormat, limit: usize) -> Result<Box<dyn Sequence>>;

    /// Positions that should go through the layers at a time: few enough for the memory plan.
    fn chunk(&self) -> usize;

    /// The name of the kernels.
    fn kernel(&self) -> &'static str;

    /// Threads on the CPU.
    fn threads(&self) -> usize;

    /// Waits until all that was asked for is computed. Panics where the device can't be used any more.
    fn synchronize(&self) {}
}

/// Keys and values of a sequence, and the arithmetic that adds to them.
pub(crate) trait Sequence: std::fmt::Debug + Send {
    /// Positions so far.
    fn len(&self) -> usize;

    /// Forgets all positions.
    fn clear(&mut self);

    /// The first `len` positions. What is full is shared; neither sees what is appended to the other.
    fn fork(&self, len: usize) -> Result<Box<dyn Sequence>>;

    /// As [`Sequence::fork`], of a sequence that is not needed any more: no second copy where that can be avoided.
    fn cut(self: Box<Self>, len: usize) -> Result<Box<dyn Sequence>>;

    /// Runs positions through all layers and appends them; the logits that are wanted.
    fn forward(&mut self, pass: &Pass<'_>) -> Result<Features>;

    /// Appends positions whose keys and values are noise, for measurements behind a long context.
    fn pad(&mut self, positions: usize) -> Result<()>;

    /// Keys and values as bytes that [`Sequence::restore`] of the same backend takes; `None` where that is not supported.
    fn save(&self) -> Option<Vec<u8>>;

    /// Takes over what [`Sequence::save`] gave. `false` if it doesn't fit; the sequence is then empty.
    fn restore(&mut self, positions: usize, bytes: &[u8]) -> Result<bool>;
}

/// Some positions on their way through the layers.
pub(crate) struct Pass<'a> {
    /// Embeddings, `[rows, hidden]`.
    pub(crate) embeds: &'a [f32],
    pub(crate) rows: usize,
    /// The angles of all positions.
    pub(crate) rope: &'a Rope,
    /// Which of them hold for this sequence.
    pub(crate) regime: Regime,
    pub(crate) adapter: Adapter,
    pub(crate) logits: Wanted<'a>,
}

/// The logits that a pass computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    /// Those of the last so many positions; 0 for none.
    Last(usize),
    /// Those of these ids, which ascend, at the last position. The others are NaN.
    Ids(&'a [u32]),
}
