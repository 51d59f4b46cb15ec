//! Partial rotary position embedding with LongRoPE factors (Ding et al. 2024; spec 1.4).
//!
//! The regime follows the length of the whole sequence: up to the original context all positions take the short factors,
//! beyond it all take the long ones. The attention scale stands in cos and sin in both regimes.

use tch::{Device, Kind, Tensor};

use crate::config::DecoderConfig;
use crate::error::Result;

/// Which factors hold for a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Regime {
    Short,
    Long,
}

/// The frequencies of a model.
#[derive(Debug)]
pub(crate) struct Rope {
    /// One a pair, `1 / (factor * theta^(2 j / rotary))`.
    short: Vec<f32>,
    long: Vec<f32>,
    attention_scale: f32,
    /// Longest sequence of the short regime.
    original: usize,
    head_dim: usize,
}

/// cos and sin of some positions, ready to be multiplied with heads: `[n, 1, head_dim]`.
#[derive(Debug)]
pub(crate) struct Rotation {
    cos: Tensor,
    /// Negative in the first half, as the formula asks; 0 where nothing is rotated.
    sin: Tensor,
    rotary: i64,
}

impl Rope {
    pub(crate) fn new(config: &DecoderConfig) -> Self {
        let rotary = config.rotary_dim();
        let frequencies = |factors: Option<&Vec<f32>>| {
            let factor =
                |pair: usize| factors.and_then(|factors| factors.get(pair)).copied().unwrap_or(1.0);
            let power =
                |pair: usize| (config.rope_theta as f32).powf(2.0 * pair as f32 / rotary as f32);
            (0..rotary / 2).map(|pair| (factor(pair) * power(pair)).recip()).collect()
        };
        let scaling = config.rope_scaling.as_ref();
        let longest = config.max_position_embeddings;
        let original = match scaling {
            Some(_) => config.original_max_position_embeddings.unwrap_or(longest),
            None => longest,
        };
        Self {
            short: frequencies(scaling.map(|scaling| &scaling.short_factor)),
            long: frequencies(scaling.map(|scaling| &scaling.long_factor)),
            attention_scale: attention_scale(longest, original),
            original,
            head_dim: config.head_dim(),
        }
    }

    /// The regime of a sequence of that length.
    pub(crate) fn regime(&self, length: usize) -> Regime {
        if length > self.original { Regime::Long } else { Regime::Short }
    }

    /// The longest sequence of the short regime.
    pub(crate) fn original(&self) -> usize {
        self.original
    }

    /// The tables of `n` positions from `start` on. Angles are computed in f32: bf16 positions break past 256.
    pub(crate) fn rotation(
        &self,
        regime: Regime,
        start: usize,
        n: usize,
        kind: Kind,
        device: Device,
    ) -> Result<Rotation> {
        let frequencies = match regime {
            Regime::Short => &self.short,
            Regime::Long => &self.long,
        };
        let half = frequencies.len();
        let mut cos = vec![1.0_f32; n * self.head_dim];
        let mut sin = vec![0.0_f32; n * self.head_dim];
        let rows = cos.chunks_exact_mut(self.head_dim).zip(sin.chunks_exact_mut(self.head_dim));
        for (position, (cos, sin)) in (start..).zip(rows) {
            for (pair, frequency) in frequencies.iter().enumerate() {
                let (s, c) = (position as f32 * frequency).sin_cos();
                let (s, c) = (s * self.attention_scale, c * self.attention_scale);
                (cos[pair], cos[pair + half]) = (c, c);
                (sin[pair], sin[pair + half]) = (-s, s);
            }
        }
        let shape = [n as i64, 1, self.head_dim as i64];
        let table = |values: &[f32]| {
            Tensor::f_from_slice(values)?.f_view(shape)?.f_to_kind(kind)?.f_to(device)
        };
        Ok(Rotation { cos: table(&cos)?, sin: table(&sin)?, rotary: 2 * half as i64 })
    }
}

impl Rotation {
    /// Rotates heads `[n, heads, head_dim]`: pair `(j, j + rotary / 2)` by the angle of its position, the rest stays.
    pub(crate) fn apply(&self, xs: &Tensor) -> Tensor {
        let half = self.rotary / 2;
        let rest = xs.size()[2] - self.rotary;
        let swapped = Tensor::cat(
            &[xs.narrow(2, half, half), xs.narrow(2, 0, half), xs.narrow(2, self.rotary, rest)],
            2,
        );
        (xs * &self.cos).addcmul_(&swapped, &self.sin)
    }
}

/// `sqrt(1 + ln(longest / original) / ln(original))`, 1 where the context was not stretched.
fn attention_scale(longest: usize, original: usize) -> f32 {
    if longest <= original {
        return 1.0;
    }
    let (longest, original) = (longest as f64, original as f64);
    (1.0 + (longest / original).ln() / original.ln()).sqrt() as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RopeScaling;

    /// The released checkpoint's numbers (spec 1.1), of the factors those that the golden values need.
    fn released() -> DecoderConfig {
        let mut long = vec![1.0; 48];
        (long[1], long[23], long[46], long[47]) = (1.118_320_7, 13.092_607, 44.16, 47.77);
        DecoderConfig {
            vocab_size: 200_064,
            hidden_size: 3072,
            intermediate_size: 8192,
            num_hidden_layers: 32,
            num_attention_heads: 24,
            num_key_value_heads: 8,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: true,
            max_position_embeddings: 131_072,
            original_max_position_embeddings: Some(4096),
            partial_rotary_factor: 0.75,
            rope_theta: 10_000.0,
            rope_scaling: Some(RopeScaling {
                r#type: "longrope".into(),
                short_factor: vec![1.0; 48],
                long_factor: long,
            }),
        }
    }

    #[test]
    fn frequencies_equal_the_golden_values() {
        let rope = Rope::new(&released());
        let near = |found: f32, expected: f32| {
            assert!((found / expected - 1.0).abs() < 2e-6, "{found} {expected}");
        };
        for (pair, expected) in [
            (0, 1.0),
            (1, 0.825_404_2),
            (23, 0.012_115_277),
            (46, 1.467_799_3e-4),
            (47, 1.211_527_7e-4),
        ] {
            near(rope.short[pair], expected);
        }
        for (pair, expected) in
            [(1, 0.738_074_7), (23, 9.253_525e-4), (46, 3.323_820_8e-6), (47, 2.536_168_4e-6)]
        {
            near(rope.long[pair], expected);
        }
        near(rope.attention_scale, 1.190_238_1);
    }

    #[test]
    fn the_regime_changes_behind_the_original_context() {
        let rope = Rope::new(&released());
        assert_eq!(rope.regime(4096), Regime::Short);
        assert_eq!(rope.regime(4097), Regime::Long);
        let unscaled = Rope::new(&DecoderConfig { rope_scaling: None, ..released() });
        assert_eq!(unscaled.regime(131_072), Regime::Short);
        assert!((unscaled.attention_scale - 1.0).abs() < f32::EPSILON);
    }

    #[test]
    fn pairs_rotate_and_the_rest_stays() {
        let rope = Rope::new(&released());
        let rotation = rope.rotation(Regime::Short, 3, 1, Kind::Float, Device::Cpu).unwrap();
        let xs = Tensor::arange(128, (Kind::Float, Device::Cpu)).view([1, 1, 128]);
        let ys: Vec<f32> = Vec::try_from(rotation.apply(&xs).view([-1])).unwrap();
        let (sin, cos) = (3.0 * rope.short[5]).sin_cos();
        let scale = rope.attention_scale;
        assert!((ys[5] - scale * (5.0 * cos - 53.0 * sin)).abs() < 1e-4);
        assert!((ys[53] - scale * (53.0 * cos + 5.0 * sin)).abs() < 1e-4);
        assert_eq!(ys[96..], (96..128).map(|x| x as f32).collect::<Vec<_>>());
    }
}
