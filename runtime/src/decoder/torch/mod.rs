//! The decoder on libtorch: on CUDA, and on the CPU as the reference that reads like the paper.

mod angles;
mod attention;
mod kv_cache;
mod linear;
mod lora;
mod mlp;
mod norm;

use std::sync::{Arc, Mutex, PoisonError};

use outpost_kernels::Format;
use tch::{Device, Kind, Tensor};

use self::angles::{Angles, Tables};
use self::attention::Attention;
use self::kv_cache::{KvCache, KvShape};
use self::linear::Linear;
use self::mlp::Mlp;
use self::norm::RmsNorm;
use super::backend::{Backend, Pass, Sequence, Wanted};
use super::kv::KvFormat;
use crate::config::Config;
use crate::error::Result;
use crate::features::Features;
use crate::session::Adapter;
use crate::weights::Weights;

/// Bytes of a layer's intermediate results at a time. A matrix product of some hundred rows is as fast a row as one of
/// thousands; what more rows at a time would add is memory.
const ACTIVATIONS: usize = 20 << 20;

/// The same for a GPU, where more positions share the unpacking of a tile of codes.
const GPU_ACTIVATIONS: usize = 64 << 20;

#[derive(Debug)]
pub(crate) struct TorchBackend {
    /// Behind a lock, since libtorch's tensors may go from thread to thread but not be used by several.
    model: Arc<Mutex<Model>>,
    kv_shape: KvShape,
    chunk: usize,
}

#[derive(Debug)]
struct Model {
    layers: Vec<Layer>,
    norm: RmsNorm,
    lm_head: Linear,
    tables: Tables,
}

#[derive(Debug)]
struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

/// What a matrix becomes on the way to the device.
#[derive(Debug, Clone, Copy)]
struct Target {
    device: Device,
    kind: Kind,
    /// Laid out as for a GPU: codes stay packed.
    as_gpu: bool,
}

impl TorchBackend {
    /// Brings the weights of a packed directory to libtorch. With `as_gpu` codes stay packed, and keys and values lie in one
    /// piece, whatever the device is; else all is as plain as in the paper.
    pub(crate) fn load(
        weights: &Weights,
        config: &Config,
        device: Device,
        as_gpu: bool,
        threads: usize,
    ) -> Result<Self> {
        let _no_grad = tch::no_grad_guard();
        if device == Device::Cpu {
            tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
        }
        let sizes = &config.decoder;
        let head = weights.head(sizes)?;
        let is_f32 = head.format() == Format::F32;
        let kind = if is_f32 { Kind::Float } else { Kind::BFloat16 };
        let target = Target { device, kind, as_gpu };
        let layers = (0..sizes.num_hidden_layers)
            .map(|layer| Layer::load(weights, config, &format!("model.layers.{layer}"), target))
            .collect::<Result<_>>()?;
        let model = Model {
            layers,
            norm: RmsNorm::load(weights, config, "model.norm", target)?,
            lm_head: Linear::of(&head, target)?,
            tables: Tables::new(sizes.head_dim(), kind, device),
        };
        // At a layer's widest point gate and up, and what an adapter adds to them, are held at once.
        let position = 2 * 2 * sizes.intermediate_size * kind.elt_size_in_bytes();
        Ok(Self {
            model: Arc::new(Mutex::new(model)),
            kv_shape: KvShape::new(sizes, target),
            chunk: (if as_gpu { GPU_ACTIVATIONS } else { ACTIVATIONS } / position).max(1),
        })
    }
}

impl Layer {
    fn load(weights: &Weights, config: &Config, path: &str, target: Target) -> Result<Self> {
        let norm = |name: &str| RmsNorm::load(weights, config, &format!("{path}.{name}"), target);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::load(weights, config, &format!("{path}.self_attn"), target)?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: Mlp::load(weights, config, &format!("{path}.mlp"), target)?,
        })
    }

    fn forward(
        &self,
        xs: &Tensor,
        layer: usize,
        kv: &mut KvCache,
        angles: &Angles,
        adapter: Adapter,
    ) -> Tensor {
        let ys = self.input_layernorm.forward(xs);
        let xs = xs + self.self_attn.forward(&ys, layer, kv, angles, adapter);
        &xs + self.mlp.forward(&self.post_attention_layernorm.forward(&xs), adapter)
    }
}

impl Backend for TorchBackend {
    fn sequence(&self, format: KvFormat, limit: usize) -> Result<Box<dyn Sequence>> {
        let shape = KvShape { format, ..self.kv_shape };
        let kv = KvCache::new(shape, limit);
        Ok(Box::new(TorchSequence { model: Arc::clone(&self.model), shape, kv }))
    }

    fn chunk(&self) -> usize {
        self.chunk
    }

    fn kernel(&self) -> &'static str {
        match self.kv_shape.device {
            Device::Cpu => "libtorch",
            _ => "libtorch-cuda",
        }
    }

    fn threads(&self) -> usize {
        usize::try_from(tch::get_num_threads()).unwrap_or(1)
    }

    fn synchronize(&self) {
        if let Device::Cuda(index) = self.kv_shape.device {
            tch::Cuda::synchronize(index as i64);
        }
    }
}

#[derive(Debug)]
struct TorchSequence {
    model: Arc<Mutex<Model>>,
    shape: KvShape,
    kv: KvCache,
}

impl Model {
    /// Logits of rows of the residual stream behind the last layer.
    fn logits(&self, xs: &Tensor, wanted: Wanted<'_>) -> Result<Features> {
        let (n, vocab) = (xs.size()[0], self.lm_head.rows());
        let rows = match wanted {
            Wanted::Last(rows) => (rows as i64).min(n),
            Wanted::Ids(_) => 1,
        };
        if rows == 0 {
            return Ok(Features::new(vocab, Vec::new()));
        }
        let xs = self.norm.forward(&xs.f_narrow(0, n - rows, rows)?);
        let logits = self.lm_head.forward(&xs).f_to_kind(Kind::Float)?;
        let mut data = Vec::try_from(logits.f_to(Device::Cpu)?.f_reshape([-1])?)?;
        if let Wanted::Ids(ids) = wanted {
            let whole = std::mem::replace(&mut data, vec![f32::NAN; vocab]);
            for id in ids {
                data[*id as usize] = whole[*id as usize];
            }
        }
        Ok(Features::new(vocab, data))
    }
}

impl Sequence for TorchSequence {
    fn len(&self) -> usize {
        self.kv.len()
    }

    fn clear(&mut self) {
        self.kv.clear();
    }

    fn fork(&self, len: usize) -> Result<Box<dyn Sequence>> {
        let _no_grad = tch::no_grad_guard();
        let kv = self.kv.fork(len)?;
        Ok(Box::new(Self { model: Arc::clone(&self.model), shape: self.shape, kv }))
    }

    fn cut(mut self: Box<Self>, len: usize) -> Result<Box<dyn Sequence>> {
        if self.kv.cut(len) { Ok(self) } else { self.fork(len) }
    }

    fn forward(&mut self, pass: &Pass<'_>) -> Result<Features> {
        let _no_grad = tch::no_grad_guard();
        let KvShape { kind, device, .. } = self.shape;
        let n = pass.rows;
        self.kv.reserve(n)?;
        let mut xs = Tensor::f_from_slice(pass.embeds)?
            .f_view([n as i64, -1])?
            .f_to_kind(kind)?
            .f_to(device)?;
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let positions = self.kv.len()..self.kv.len() + n;
        let angles = model.tables.of(pass.rope, pass.regime, &positions)?;
        for (index, layer) in model.layers.iter().enumerate() {
            xs = layer.forward(&xs, index, &mut self.kv, &angles, pass.adapter);
        }
        self.kv.advance(n);
        model.logits(&xs, pass.logits)
    }

    fn pad(&mut self, positions: usize) -> Result<()> {
        let KvShape { kind, device, layers, heads, head_dim, .. } = self.shape;
        let mut left = positions;
        while left > 0 {
            let n = left.min(KvCache::BLOCK);
            self.kv.reserve(n)?;
            for layer in 0..layers as usize {
                let noise = || Tensor::randn([n as i64, heads, head_dim], (kind, device));
                let _ = self.kv.append(layer, &noise(), &noise());
            }
            self.kv.advance(n);
            left -= n;
        }
        Ok(())
    }

    fn save(&self) -> Option<Vec<u8>> {
        None
    }

    fn restore(&mut self, _positions: usize, _bytes: &[u8]) -> Result<bool> {
        Ok(false)
    }
}
