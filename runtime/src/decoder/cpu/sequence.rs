//! A sequence on the CPU: blocks of keys and values, shared with its forks until one of them writes.

use std::sync::{Arc, PoisonError};

use outpost_kernels::{Epilogue, KvBlock, KvShape};

use super::layer::Step;
use super::{Model, Room};
use crate::decoder::backend::{Pass, Sequence, Wanted};
use crate::decoder::kv::KvFormat;
use crate::error::Result;
use crate::features::Features;

#[derive(Debug)]
pub(super) struct CpuSequence {
    model: Arc<Model>,
    shape: KvShape,
    blocks: Vec<Arc<KvBlock>>,
    len: usize,
}

impl CpuSequence {
    pub(super) fn new(model: Arc<Model>, kv: KvFormat) -> Self {
        let sizes = model.sizes;
        let format = match kv {
            KvFormat::Int8 => outpost_kernels::KvFormat::Int8,
            KvFormat::Bf16 if sizes.is_f32 => outpost_kernels::KvFormat::F32,
            KvFormat::Bf16 => outpost_kernels::KvFormat::Bf16,
        };
        let shape = KvShape {
            layers: model.layers.len(),
            heads: sizes.kv_heads,
            head_dim: sizes.head_dim,
            format,
        };
        Self { model, shape, blocks: Vec::new(), len: 0 }
    }

    /// Room for so many positions.
    fn reserve(&mut self, positions: usize) {
        while self.blocks.len() * KvBlock::POSITIONS < positions {
            self.blocks.push(Arc::new(KvBlock::new(self.shape)));
        }
    }

    /// The logits that are wanted, of the residual stream behind the last layer.
    fn logits(&self, room: &mut Room, count: usize, wanted: Wanted<'_>) -> Features {
        let Model { kernels, norm, lm_head, sizes, .. } = &*self.model;
        let vocab = lm_head.rows();
        let rows = match wanted {
            Wanted::Last(rows) => rows.min(count),
            Wanted::Ids(_) => 1,
        };
        if rows == 0 {
            return Features::new(vocab, Vec::new());
        }
        let xs = &room.xs[(count - rows) * sizes.hidden..count * sizes.hidden];
        kernels.rms_norm(xs, norm, sizes.eps, room.input.begin(rows, sizes.hidden));
        let data = match wanted {
            Wanted::Last(_) => {
                let mut data = vec![0.0; rows * vocab];
                kernels.product(lm_head, &mut room.input, &mut data, Epilogue::Store);
                data
            }
            Wanted::Ids(ids) => {
                let mut some = vec![0.0; ids.len()];
                kernels.product_of_rows(lm_head, &mut room.input, ids, &mut some);
                let mut data = vec![f32::NAN; vocab];
                for (id, logit) in ids.iter().zip(some) {
                    data[*id as usize] = logit;
                }
                data
            }
        };
        Features::new(vocab, data)
    }
}

impl Sequence for CpuSequence {
    fn len(&self) -> usize {
        self.len
    }

    fn clear(&mut self) {
        self.blocks.clear();
        self.len = 0;
    }

    fn fork(&self, len: usize) -> Result<Box<dyn Sequence>> {
        let len = len.min(self.len);
        Ok(Box::new(Self {
            model: Arc::clone(&self.model),
            shape: self.shape,
            blocks: self.blocks[..len.div_ceil(KvBlock::POSITIONS)].to_vec(),
            len,
        }))
    }

    fn cut(self: Box<Self>, len: usize) -> Result<Box<dyn Sequence>> {
        // Blocks are copied when they are written to, if then.
        self.fork(len)
    }

    fn forward(&mut self, pass: &Pass<'_>) -> Result<Features> {
        let model = Arc::clone(&self.model);
        let sizes = model.sizes;
        let count = pass.rows;
        self.reserve(self.len + count);
        let rotation = pass.rope.rotation(pass.regime, self.len, count);
        let mut room = model.room.lock().unwrap_or_else(PoisonError::into_inner);
        room.xs.clear();
        room.xs.extend_from_slice(pass.embeds);
        let step = Step {
            kernels: &model.kernels,
            sizes,
            rotation: &rotation,
            adapter: pass.adapter,
            start: self.len,
            count,
        };
        for (number, layer) in model.layers.iter().enumerate() {
            layer.forward(&step, number, &mut self.blocks, &mut room);
        }
        self.len += count;
        Ok(self.logits(&mut room, count, pass.logits))
    }

    fn pad(&mut self, positions: usize) -> Result<()> {
        self.reserve(self.len + positions);
        for position in self.len..self.len + positions {
            let block = Arc::make_mut(&mut self.blocks[position / KvBlock::POSITIONS]);
            let noise = |seed: usize| -> Vec<f32> {
                (0..self.shape.head_dim).map(|i| ((seed * 31 + i * 17) as f32).sin()).collect()
            };
            let (key, value) = (noise(position), noise(position + 1));
            for layer in 0..self.shape.layers {
                for head in 0..self.shape.heads {
                    block.store(layer, head, position % KvBlock::POSITIONS, &key, &value);
                }
            }
        }
        self.len += positions;
        Ok(())
    }

    fn save(&self) -> Option<Vec<u8>> {
        let blocks = &self.blocks[..self.len.div_ceil(KvBlock::POSITIONS)];
        Some(blocks.iter().flat_map(|block| block.bytes().iter().copied()).collect())
    }

    fn restore(&mut self, positions: usize, bytes: &[u8]) -> Result<bool> {
        self.clear();
        let size = self.shape.block_bytes();
        let count = positions.div_ceil(KvBlock::POSITIONS);
        if size.checked_mul(count) != Some(bytes.len()) {
            return Ok(false);
        }
        let blocks = bytes.chunks_exact(size).map(|bytes| KvBlock::from_bytes(self.shape, bytes));
        let Some(blocks) = blocks.map(|block| block.map(Arc::new)).collect() else {
            return Ok(false);
        };
        (self.blocks, self.len) = (blocks, positions);
        Ok(true)
    }
}
