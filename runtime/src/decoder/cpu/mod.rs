//! The decoder on the CPU: packed weights multiplied as they lie in their file, activations in f32.

mod layer;
mod sequence;

use std::sync::{Arc, Mutex};

use outpost_kernels::{Format, Input, Isa, Kernels, Matrix};

use self::layer::Layer;
use self::sequence::CpuSequence;
use super::backend::{Backend, Sequence};
use super::kv::KvFormat;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::weights::Weights;

/// Weights, kernels and room to work.
#[derive(Debug)]
pub(crate) struct CpuBackend {
    model: Arc<Model>,
}

/// What sequences share.
#[derive(Debug)]
struct Model {
    kernels: Kernels,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    lm_head: Matrix,
    sizes: Sizes,
    /// One pass at a time: intermediate results are the largest part of a session.
    room: Mutex<Room>,
}

/// Numbers of the config that the layers need.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    ffn: usize,
    eps: f32,
    /// Whether weights are f32, and so keys and values too.
    is_f32: bool,
}

/// Intermediate results, kept from pass to pass.
#[derive(Debug, Default)]
struct Room {
    /// The residual stream.
    xs: Vec<f32>,
    /// What a matrix and its adapter are multiplied with.
    input: Input,
    /// What an adapter's first half gives.
    low_rank: Input,
    qkv: Vec<f32>,
    queries: Vec<f32>,
    gate_up: Vec<f32>,
}

/// Bytes of intermediate results of a chunk.
const ROOM: usize = 96 << 20;

impl CpuBackend {
    /// Maps the weights of a packed directory.
    pub(crate) fn load(
        weights: &Weights,
        config: &Config,
        isa: Isa,
        threads: usize,
    ) -> Result<Self> {
        let sizes = &config.decoder;
        let lm_head = weights.head(sizes)?;
        let layers = (0..sizes.num_hidden_layers)
            .map(|layer| Layer::load(weights, config, &format!("model.layers.{layer}")))
            .collect::<Result<_>>()?;
        let model = Model {
            kernels: Kernels::new(isa, threads),
            layers,
            norm: weights.vector("model.norm.weight", sizes.hidden_size)?,
            sizes: Sizes {
                hidden: sizes.hidden_size,
                heads: sizes.num_attention_heads,
                kv_heads: sizes.num_key_value_heads,
                head_dim: sizes.head_dim(),
                ffn: sizes.intermediate_size,
                eps: sizes.rms_norm_eps as f32,
                is_f32: lm_head.format() == Format::F32,
            },
            lm_head,
            room: Mutex::default(),
        };
        Ok(Self { model: Arc::new(model) })
    }
}

impl Backend for CpuBackend {
    fn sequence(&self, kv: KvFormat, _limit: usize) -> Result<Box<dyn Sequence>> {
        Ok(Box::new(CpuSequence::new(Arc::clone(&self.model), kv)))
    }

    fn chunk(&self) -> usize {
        let Sizes { hidden, heads, kv_heads, head_dim, ffn, .. } = self.model.sizes;
        let qkv = (heads + 2 * kv_heads) * head_dim;
        let position = size_of::<f32>() * (3 * hidden + 2 * qkv + 4 * ffn);
        (ROOM / position).clamp(32, 512) / 32 * 32
    }

    fn kernel(&self) -> &'static str {
        self.model.kernels.isa().name()
    }

    fn threads(&self) -> usize {
        self.model.kernels.pool().threads()
    }
}

/// The kernels of this CPU.
///
/// # Errors
/// [`Error::Device`] when the environment asks for kernels that this CPU can't run.
pub(crate) fn isa() -> Result<Isa> {
    Isa::detect().map_err(Error::Device)
}

/// Physical cores that this process may use: two threads of a core would only share its multipliers.
pub(crate) fn cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    allowed.min(num_cpus::get_physical()).max(1)
}
