//! Number formats of the KV cache, and what they take.

use crate::config::DecoderConfig;

/// How keys and values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvFormat {
    /// In bf16; in f32 beside weights in f32.
    #[default]
    Bf16,
    /// In 8 bits, 32 numbers of a head with a scale of their own: little more than half the memory.
    Int8,
}

impl KvFormat {
    /// Numbers that share a scale in int8.
    const GROUP: usize = 32;

    /// Scales of a head at one position.
    pub(crate) fn scales(head_dim: usize) -> usize {
        if head_dim.is_multiple_of(Self::GROUP) { head_dim / Self::GROUP } else { 1 }
    }

    /// Bytes of a position's keys and values in all layers, where numbers are computed in `width` bytes.
    pub(crate) fn position(self, config: &DecoderConfig, width: usize) -> u64 {
        let heads = 2 * config.num_hidden_layers * config.num_key_value_heads;
        let head = match self {
            Self::Bf16 => config.head_dim() * width,
            Self::Int8 => config.head_dim() + Self::scales(config.head_dim()) * width,
        };
        (heads * head) as u64
    }
}
