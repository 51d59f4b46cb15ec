//! Partial rotary position embedding with LongRoPE factors (Ding et al. 2024; spec 1.4).
//!
//! The regime follows the length of the whole sequence: up to the original context all positions take the short factors,
//! beyond it all take the long ones. The attention scale stands in cos and sin in both regimes.

use crate::config::DecoderConfig;

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
}

/// cos and sin of some positions, `[n, pairs]`: pair `j` of a head is the dimensions `j` and `j + pairs`, what is beyond stays.
#[derive(Debug)]
pub(crate) struct Rotation {
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
    pub(crate) pairs: usize,
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
    pub(crate) fn rotation(&self, regime: Regime, start: usize, n: usize) -> Rotation {
        let frequencies = match regime {
            Regime::Short => &self.short,
            Regime::Long => &self.long,
        };
        let angles = (start..start + n).flat_map(|position| {
            frequencies.iter().map(move |frequency| position as f32 * frequency)
        });
        let (sin, cos) = angles
            .map(|angle| {
                let (sin, cos) = angle.sin_cos();
                (sin * self.attention_scale, cos * self.attention_scale)
            })
            .unzip();
        Rotation { cos, sin, pairs: frequencies.len() }
    }
}

impl Rotation {
    /// cos and sin of the position with that number among these.
    pub(crate) fn of(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.pairs..(position + 1) * self.pairs;
        (&self.cos[range.clone()], &self.sin[range])
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
    fn tables_are_the_scaled_angles_of_the_positions() {
        let rope = Rope::new(&released());
        let rotation = rope.rotation(Regime::Long, 3, 4);
        assert_eq!((rotation.pairs, rotation.cos.len()), (48, 4 * 48));
        let (cos, sin) = rotation.of(2);
        let (s, c) = (5.0 * rope.long[7]).sin_cos();
        assert!((cos[7] - rope.attention_scale * c).abs() < 1e-6);
        assert!((sin[7] - rope.attention_scale * s).abs() < 1e-6);
    }
}
