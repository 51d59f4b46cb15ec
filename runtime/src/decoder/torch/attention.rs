//! Grouped-query attention with a fused projection, over the KV cache (spec 1.3).

use tch::{Device, Kind, Tensor};

use super::Target;
use super::angles::Angles;
use super::kv_cache::KvCache;
use super::lora::AdaptedLinear;
use crate::config::Config;
use crate::error::Result;
use crate::session::Adapter;
use crate::weights::Weights;

#[derive(Debug)]
pub(super) struct Attention {
    qkv_proj: AdaptedLinear,
    o_proj: AdaptedLinear,
    heads: i64,
    kv_heads: i64,
    head_dim: i64,
}

/// Keys that one part of a long context has.
const PART: i64 = 1024;

/// Attention to some of the keys, to be joined with that to the others.
struct Partial {
    /// `[kv_heads, heads / kv_heads, n, head_dim]`
    ys: Tensor,
    /// Logarithm of the sum of what the softmax is over, `[kv_heads, heads / kv_heads, n]` in f32.
    weight: Tensor,
}

impl Partial {
    /// `softmax(q k^T / sqrt(head_dim)) v` for `q` `[kv_heads, g, n, head_dim]` and keys and values
    /// `[kv_heads, g, m, head_dim]`, without a matrix of the scores. With `causal`, query `i` sees the keys up to `i`.
    fn of(q: &Tensor, keys: &Tensor, values: &Tensor, causal: bool) -> Self {
        let none = None::<&Tensor>;
        let (ys, weight) = if q.device() == Device::Cpu {
            Tensor::internal_scaled_dot_product_flash_attention_for_cpu(
                q, keys, values, 0.0, causal, none, None,
            )
        } else {
            let (ys, weight, ..) = Tensor::internal_scaled_dot_product_efficient_attention(
                q, keys, values, none, true, 0.0, causal, None,
            );
            // This kernel rounds the number of its sums up.
            (ys, weight.narrow(2, 0, q.size()[2]))
        };
        Self { ys, weight }
    }

    /// The same attention, its queries arranged as `[kv_heads, g, n, ..]`.
    fn arranged(self, g: i64, n: i64) -> Self {
        let size = self.ys.size();
        Self {
            ys: self.ys.reshape([size[0], g, n, size[3]]),
            weight: self.weight.reshape([size[0], g, n]),
        }
    }

    /// Attention to all keys, of attention to parts of them that stand in the second dimension:
    /// `[kv_heads, 1, n, ..]`.
    fn gathered(self) -> Self {
        let weight = self.weight.logsumexp(1, true);
        let share = (&self.weight - &weight).exp().unsqueeze(-1);
        let ys = (self.ys.to_kind(Kind::Float) * share).sum_dim_intlist(1_i64, true, Kind::Float);
        Self { ys, weight }
    }

    /// Attention to the keys of both, each by its share of the softmax's sum.
    fn join(self, other: &Self) -> Self {
        let share = (&other.weight - &self.weight).sigmoid().unsqueeze(-1);
        let ys = |partial: &Self| partial.ys.to_kind(Kind::Float);
        Self {
            ys: ys(&self).lerp_tensor(&ys(other), &share),
            weight: self.weight.logaddexp(&other.weight),
        }
    }
}

impl Attention {
    pub(super) fn load(
        weights: &Weights,
        config: &Config,
        path: &str,
        target: Target,
    ) -> Result<Self> {
        let sizes = &config.decoder;
        let (hidden, width) = (sizes.hidden_size, sizes.num_attention_heads * sizes.head_dim());
        Ok(Self {
            qkv_proj: AdaptedLinear::load(
                weights,
                config,
                &format!("{path}.qkv_proj"),
                sizes.qkv_rows(),
                hidden,
                target,
            )?,
            o_proj: AdaptedLinear::load(
                weights,
                config,
                &format!("{path}.o_proj"),
                hidden,
                width,
                target,
            )?,
            heads: sizes.num_attention_heads as i64,
            kv_heads: sizes.num_key_value_heads as i64,
            head_dim: sizes.head_dim() as i64,
        })
    }

    pub(super) fn forward(
        &self,
        xs: &Tensor,
        layer: usize,
        kv: &mut KvCache,
        angles: &Angles,
        adapter: Adapter,
    ) -> Tensor {
        let n = xs.size()[0];
        let qkv = self.qkv_proj.forward(xs, adapter).view([
            n,
            self.heads + 2 * self.kv_heads,
            self.head_dim,
        ]);
        let qk = angles.apply(&qkv.narrow(1, 0, self.heads + self.kv_heads));
        let (q, k) = (qk.narrow(1, 0, self.heads), qk.narrow(1, self.heads, self.kv_heads));
        let v = qkv.narrow(1, self.heads + self.kv_heads, self.kv_heads);
        let own = kv.append(layer, &k, &v);
        let ys = self.attend(&q, kv, layer, &own);
        self.o_proj.forward(&ys, adapter)
    }

    /// `softmax(q k^T / sqrt(head_dim)) v` for queries `[n, heads, head_dim]`, whose own keys and values
    /// `[kv_heads, n, head_dim]` stand behind those that the cache counts: `[n, heads * head_dim]`. Query head `h` reads key
    /// head `h / (heads / kv_heads)`.
    fn attend(&self, q: &Tensor, kv: &KvCache, layer: usize, own: &(Tensor, Tensor)) -> Tensor {
        let (n, group) = (q.size()[0], self.heads / self.kv_heads);
        let q = q.transpose(0, 1).reshape([self.kv_heads, group, n, self.head_dim]);
        // The query heads of a group stand where positions would: earlier keys are neither repeated nor masked.
        let folded = q.reshape([self.kv_heads, 1, group * n, self.head_dim]);
        let earlier =
            |(keys, values): (Tensor, Tensor)| to_all(&folded, &keys, &values).arranged(group, n);
        let own = || {
            let each = |xs: &Tensor| xs.unsqueeze(1).expand_as(&q);
            Partial::of(&q, &each(&own.0), &each(&own.1), true)
        };
        // A single query sees its own key as it sees the others.
        let (own, seen) = if n == 1 { (None, kv.len() + 1) } else { (Some(own()), kv.len()) };
        let parts = own.into_iter().chain(kv.read(layer, seen).map(earlier));
        let Some(all) = parts.reduce(|all, part| all.join(&part)) else { return q };
        all.ys.permute([2, 0, 1, 3]).reshape([n, -1]).to_kind(q.kind())
    }
}

/// Attention of queries `[kv_heads, 1, n, head_dim]` to all keys and values `[kv_heads, m, head_dim]`. Many keys are shared
/// out in parts, all in one call: few heads alone would keep few of a GPU's processors busy.
fn to_all(q: &Tensor, keys: &Tensor, values: &Tensor) -> Partial {
    let size = keys.size();
    let (heads, m, head_dim) = (size[0], size[1], size[2]);
    let parts = m / PART;
    let part = |start: i64, n: i64| {
        let rows = |xs: &Tensor| xs.narrow(1, start, n).unsqueeze(1);
        Partial::of(q, &rows(keys), &rows(values), false)
    };
    if parts < 2 {
        return part(0, m);
    }
    let rows = |xs: &Tensor| xs.narrow(1, 0, parts * PART).reshape([heads, parts, PART, head_dim]);
    let each = q.expand([heads, parts, q.size()[2], head_dim], true);
    let whole = Partial::of(&each, &rows(keys), &rows(values), false).gathered();
    match m - parts * PART {
        0 => whole,
        rest => whole.join(&part(parts * PART, rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::tests::torch_device;

    fn random<const N: usize>(shape: [i64; N]) -> Tensor {
        Tensor::randn(shape, (Kind::Float, torch_device()))
    }

    #[test]
    fn many_keys_in_one_call_are_attended_to_as_in_one_piece() {
        for head_dim in [32, 128] {
            // Less than two parts, parts alone, and parts with a rest.
            for m in [1, 5, PART + 7, 2 * PART, 3 * PART + 90] {
                let q = random([2, 1, 3, head_dim]);
                let (keys, values) = (random([2, m + 4, head_dim]), random([2, m + 4, head_dim]));
                // As in a cache that has room for more.
                let rows = |xs: &Tensor| xs.narrow(1, 0, m);
                let found = to_all(&q, &rows(&keys), &rows(&values));
                let scores =
                    q.matmul(&rows(&keys).unsqueeze(1).transpose(2, 3)) / (head_dim as f64).sqrt();
                let expected = scores.softmax(-1, Kind::Float).matmul(&rows(&values).unsqueeze(1));
                assert_eq!(found.ys.size(), expected.size());
                assert!((found.ys - expected).abs().max().double_value(&[]) < 1e-4, "{m}");
                let weight = scores.logsumexp(-1, false);
                assert!((found.weight - weight).abs().max().double_value(&[]) < 1e-4, "{m}");
            }
        }
    }

    #[test]
    fn attention_to_parts_of_the_keys_joins_to_attention_to_all() {
        let (q, keys, values) =
            (random([2, 3, 5, 32]), random([2, 3, 90, 32]), random([2, 3, 90, 32]));
        let part = |start: i64, n: i64| {
            let rows = |xs: &Tensor| xs.narrow(2, start, n);
            Partial::of(&q, &rows(&keys), &rows(&values), false)
        };
        let joined = part(0, 64).join(&part(64, 25)).join(&part(89, 1));
        let scores = q.matmul(&keys.transpose(2, 3)) / 32_f64.sqrt();
        let expected = scores.softmax(-1, Kind::Float).matmul(&values);
        assert!((joined.ys - expected).abs().max().double_value(&[]) < 1e-5);
        let weight = scores.logsumexp(-1, false);
        assert!((joined.weight - weight).abs().max().double_value(&[]) < 1e-5);
    }
}
