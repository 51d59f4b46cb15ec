//! Grouped-query attention with a fused projection, over the KV cache (spec 1.3).

use tch::{Device, Kind, Tensor};

use super::kv_cache::KvCache;
use super::lora::AdaptedLinear;
use super::rope::Rotation;
use crate::config::Config;
use crate::error::Result;
use crate::session::Adapter;
use crate::weights::Weights;

#[derive(Debug)]
pub(crate) struct Attention {
    qkv_proj: AdaptedLinear,
    o_proj: AdaptedLinear,
    heads: i64,
    kv_heads: i64,
    head_dim: i64,
}

/// Which positions a query sees.
#[derive(Debug)]
pub(crate) enum Mask {
    /// One query behind all keys: everything.
    Nothing,
    /// As many keys as queries: those up to its own.
    Causal,
    /// More keys than queries: `-inf` `[n, keys]` where the key is later.
    Later(Tensor),
}

impl Mask {
    /// The mask of `n` queries behind `start` earlier positions.
    pub(crate) fn new(start: usize, n: usize, kind: Kind, device: Device) -> Result<Self> {
        match (start, n) {
            (_, 1) => Ok(Self::Nothing),
            (0, _) => Ok(Self::Causal),
            _ => {
                let shape = [n as i64, (start + n) as i64];
                let hidden = Tensor::f_full(shape, f64::NEG_INFINITY, (kind, device))?;
                Ok(Self::Later(hidden.f_triu(start as i64 + 1)?))
            }
        }
    }
}

impl Attention {
    pub(crate) fn load(weights: &Weights, config: &Config, path: &str) -> Result<Self> {
        let sizes = &config.decoder;
        let (hidden, width) = (sizes.hidden_size, sizes.num_attention_heads * sizes.head_dim());
        Ok(Self {
            qkv_proj: AdaptedLinear::load(
                weights,
                config,
                &format!("{path}.qkv_proj"),
                sizes.qkv_rows(),
                hidden,
            )?,
            o_proj: AdaptedLinear::load(weights, config, &format!("{path}.o_proj"), hidden, width)?,
            heads: sizes.num_attention_heads as i64,
            kv_heads: sizes.num_key_value_heads as i64,
            head_dim: sizes.head_dim() as i64,
        })
    }

    pub(crate) fn forward(
        &self,
        xs: &Tensor,
        layer: usize,
        kv: &mut KvCache,
        rotation: &Rotation,
        mask: &Mask,
        adapter: Adapter,
    ) -> Tensor {
        let n = xs.size()[0];
        let qkv = self.qkv_proj.forward(xs, adapter).view([
            n,
            self.heads + 2 * self.kv_heads,
            self.head_dim,
        ]);
        let qk = rotation.apply(&qkv.narrow(1, 0, self.heads + self.kv_heads));
        let (q, k) = (qk.narrow(1, 0, self.heads), qk.narrow(1, self.heads, self.kv_heads));
        let v = qkv.narrow(1, self.heads + self.kv_heads, self.kv_heads);
        let (keys, values) = kv.append(layer, &k, &v);
        let ys = self.attend(&q, &keys.unsqueeze(0), &values.unsqueeze(0), mask);
        self.o_proj.forward(&ys, adapter)
    }

    /// `softmax(q k^T / sqrt(head_dim)) v` for queries `[n, heads, head_dim]`: `[n, heads * head_dim]`. Query head `h` reads
    /// key head `h / (heads / kv_heads)`.
    fn attend(&self, q: &Tensor, keys: &Tensor, values: &Tensor, mask: &Mask) -> Tensor {
        let n = q.size()[0];
        let attention = |q: &Tensor, mask: Option<&Tensor>, causal: bool, grouped: bool| {
            Tensor::scaled_dot_product_attention(q, keys, values, mask, 0.0, causal, None, grouped)
        };
        let q = match mask {
            // The query heads of a group stand where its positions would: no key is repeated.
            Mask::Nothing => {
                let q = q.reshape([1, self.kv_heads, self.heads / self.kv_heads, self.head_dim]);
                return attention(&q, None, false, false).reshape([1, -1]);
            }
            _ => q.transpose(0, 1).unsqueeze(0),
        };
        let ys = match mask {
            Mask::Later(mask) => attention(&q, Some(mask), false, true),
            _ => attention(&q, None, true, true),
        };
        ys.transpose(1, 2).reshape([n, -1])
    }
}
