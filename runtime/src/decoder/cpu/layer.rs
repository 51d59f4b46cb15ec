//! The layers (spec 1.3): attention and feed-forward around a residual stream, every matrix with its adapters.

use std::sync::Arc;

use outpost_kernels::{Epilogue, Input, Kernels, KvBlock, Matrix, Queries, attend, rotate};

use super::{Room, Sizes};
use crate::config::Config;
use crate::decoder::adapters::{Lora, Loras};
use crate::decoder::rope::Rotation;
use crate::error::Result;
use crate::session::Adapter;
use crate::weights::Weights;

#[derive(Debug)]
pub(super) struct Layer {
    input_layernorm: Vec<f32>,
    qkv_proj: AdaptedLinear,
    o_proj: AdaptedLinear,
    post_attention_layernorm: Vec<f32>,
    gate_up_proj: AdaptedLinear,
    down_proj: AdaptedLinear,
}

/// A matrix and what the adapters add to it.
#[derive(Debug)]
struct AdaptedLinear {
    base: Matrix,
    loras: Loras<Matrix>,
}

/// Where a pass stands: what its layers share.
pub(super) struct Step<'a> {
    pub(super) kernels: &'a Kernels,
    pub(super) sizes: Sizes,
    pub(super) rotation: &'a Rotation,
    pub(super) adapter: Adapter,
    /// Positions before these.
    pub(super) start: usize,
    /// These positions.
    pub(super) count: usize,
}

impl Layer {
    pub(super) fn load(weights: &Weights, config: &Config, path: &str) -> Result<Self> {
        let sizes = &config.decoder;
        let (hidden, ffn) = (sizes.hidden_size, sizes.intermediate_size);
        let linear = |name: &str, rows, width| {
            AdaptedLinear::load(weights, config, &format!("{path}.{name}"), rows, width)
        };
        let norm = |name: &str| weights.vector(&format!("{path}.{name}.weight"), hidden);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            qkv_proj: linear("self_attn.qkv_proj", sizes.qkv_rows(), hidden)?,
            o_proj: linear(
                "self_attn.o_proj",
                hidden,
                sizes.num_attention_heads * sizes.head_dim(),
            )?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            gate_up_proj: linear("mlp.gate_up_proj", 2 * ffn, hidden)?,
            down_proj: linear("mlp.down_proj", hidden, ffn)?,
        })
    }

    /// Adds what this layer makes of the residual stream to it, and stores keys and values.
    pub(super) fn forward(
        &self,
        step: &Step<'_>,
        layer: usize,
        blocks: &mut [Arc<KvBlock>],
        room: &mut Room,
    ) {
        self.attention(step, layer, blocks, room);
        self.mlp(step, room);
    }

    fn attention(
        &self,
        step: &Step<'_>,
        layer: usize,
        blocks: &mut [Arc<KvBlock>],
        room: &mut Room,
    ) {
        let Sizes { hidden, heads, kv_heads, head_dim, eps, .. } = step.sizes;
        let count = step.count;
        let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
        let Room { xs, input, low_rank, qkv, queries: rotated, .. } = room;
        step.kernels.rms_norm(xs, &self.input_layernorm, eps, input.begin(count, hidden));
        let qkv = resize(qkv, count * (queries + 2 * keys));
        self.qkv_proj.forward(step, input, low_rank, qkv, false);

        let rotated = resize(rotated, count * queries);
        for (position, (row, rotated)) in qkv
            .chunks_exact_mut(queries + 2 * keys)
            .zip(rotated.chunks_exact_mut(queries))
            .enumerate()
        {
            let (cos, sin) = step.rotation.of(position);
            let (qk, values) = row.split_at_mut(queries + keys);
            for head in qk.chunks_exact_mut(head_dim) {
                rotate(head, cos, sin);
            }
            rotated.copy_from_slice(&qk[..queries]);
            let place = step.start + position;
            // A block that another sequence shares is copied before it is written to.
            let block = Arc::make_mut(&mut blocks[place / KvBlock::POSITIONS]);
            let pairs = qk[queries..].chunks_exact(head_dim).zip(values.chunks_exact(head_dim));
            for (head, (key, value)) in pairs.enumerate() {
                block.store(layer, head, place % KvBlock::POSITIONS, key, value);
            }
        }
        let queries = Queries { values: rotated, heads, start: step.start };
        attend(step.kernels, blocks, layer, queries, input.begin(count, heads * head_dim));
        self.o_proj.forward(step, input, low_rank, xs, true);
    }

    /// SwiGLU: the gate is the first half of `gate_up_proj`.
    fn mlp(&self, step: &Step<'_>, room: &mut Room) {
        let Sizes { hidden, ffn, eps, .. } = step.sizes;
        let Room { xs, input, low_rank, gate_up, .. } = room;
        step.kernels.rms_norm(
            xs,
            &self.post_attention_layernorm,
            eps,
            input.begin(step.count, hidden),
        );
        let gate_up = resize(gate_up, step.count * 2 * ffn);
        self.gate_up_proj.forward(step, input, low_rank, gate_up, false);
        step.kernels.swiglu(gate_up, ffn, input.begin(step.count, ffn));
        self.down_proj.forward(step, input, low_rank, xs, true);
    }
}

/// The first `len` numbers of a buffer that grows.
fn resize(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

impl AdaptedLinear {
    fn load(
        weights: &Weights,
        config: &Config,
        path: &str,
        rows: usize,
        width: usize,
    ) -> Result<Self> {
        let matrix = |path: &str, rows, width| weights.matrix(path, rows, width);
        let loras = Loras::load(weights, config, path, [rows, width], matrix)?;
        Ok(Self { base: matrix(path, rows, width)?, loras })
    }

    /// The product with the positions of `input`, put into `out` or added to it.
    fn forward(
        &self,
        step: &Step<'_>,
        input: &mut Input,
        low_rank: &mut Input,
        out: &mut [f32],
        adds: bool,
    ) {
        let epilogue = if adds { Epilogue::Add(1.0) } else { Epilogue::Store };
        step.kernels.product(&self.base, input, out, epilogue);
        if let Some(Lora { a, b, scaling }) = self.loras.get(step.adapter) {
            let low = low_rank.begin(step.count, a.rows());
            step.kernels.product(a, input, low, Epilogue::Store);
            step.kernels.product(b, low_rank, out, Epilogue::Add(*scaling as f32));
        }
    }
}
