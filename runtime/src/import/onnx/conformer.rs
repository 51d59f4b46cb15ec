//! The conformer (spec 4.5): subsampling, blocks and the two projectors, a graph each.

use super::graph::{Conv, Dim, GraphWriter, Value};
use crate::config::AudioConfig;
use crate::error::Result;

/// Names in the checkpoint begin so.
pub(super) const PREFIX: &str = "model.embed_tokens_extend.audio_embed";
/// Epsilon of every layer normalisation.
const EPSILON: f32 = 1e-5;

/// Log-mel frames → rows of one token each (spec 4.5 a, b).
///
/// Input: `mel [1, 1, frames, mels]`. Output: `[tokens, D]`, a token per eight frames begun.
pub(super) fn subsample(mut g: GraphWriter<'_>, config: &AudioConfig) -> Result<u64> {
    let (mels, channels) = (config.input_size, config.nemo_conv_settings.conv_channels);
    let mel = g.input("mel", &[Dim::Is(1), Dim::Is(1), Dim::Free("frames"), Dim::Is(mels)]);

    let mean = g.weight(&format!("{PREFIX}.encoder.encoder_embedding.global_mean"), &[mels])?;
    let deviation =
        g.weight(&format!("{PREFIX}.encoder.encoder_embedding.global_invstd"), &[mels])?;
    let xs = g.node("Sub", &[&mel, &mean], vec![]);
    let xs = g.mul(&xs, &deviation);

    let prefix = format!("{PREFIX}.encoder.embed");
    let first = Conv { shape: &[channels, 1, 3, 3], stride: 2, pads: &[1; 4], groups: 1 };
    let depthwise = Conv { groups: channels, ..first };
    let pointwise =
        Conv { shape: &[channels, channels, 1, 1], stride: 1, pads: &[0; 4], groups: 1 };
    let xs = g.conv(&xs, &format!("{prefix}.conv.0"), &first)?;
    let mut xs = g.relu(&xs);
    for layer in [2, 5] {
        xs = g.conv(&xs, &format!("{prefix}.conv.{layer}"), &depthwise)?;
        xs = g.conv(&xs, &format!("{prefix}.conv.{}", layer + 1), &pointwise)?;
        xs = g.relu(&xs);
    }

    let flat = channels * mels.div_ceil(8);
    let xs = g.transpose(&xs, &[0, 2, 1, 3]);
    let xs = g.reshape(&xs, &[-1, flat as i64]);
    let xs = g.linear(&xs, &format!("{prefix}.out"), flat, config.attention_dim)?;
    g.finish(&xs, &[Dim::Free("tokens"), Dim::Is(config.attention_dim)])
}

/// What distances add to the scores of every block (spec 4.5 d).
///
/// Input: `distance [T, T]`: row of the relative-bias table for each query and key. Output: `[heads, T, T]`.
pub(super) fn distance_bias(mut g: GraphWriter<'_>, config: &AudioConfig) -> Result<u64> {
    let heads = config.attention_heads;
    let distance = g.index_input("distance", &[Dim::Free("T"), Dim::Free("T")]);
    let table = format!("{PREFIX}.encoder.relative_attention_bias_layer.bias_values.weight");
    let table =
        g.weight(&table, &[2 * config.relative_attention_bias_args.t5_bias_max_distance, heads])?;
    let table = g.transpose(&table, &[1, 0]);
    let bias = g.gather(&table, &distance, 1);
    g.finish(&bias, &[Dim::Is(heads), Dim::Free("T"), Dim::Free("T")])
}

/// One block over one segment (spec 4.5 g).
///
/// Inputs: `rows [T, D]`, `bias [heads, T, T]` added to the scores. Output: `[T, D]`.
pub(super) fn block(mut g: GraphWriter<'_>, config: &AudioConfig, block: usize) -> Result<u64> {
    let (width, heads) = (config.attention_dim, config.attention_heads);
    let xs = g.input("rows", &[Dim::Free("T"), Dim::Is(width)]);
    let bias = g.input("bias", &[Dim::Is(heads), Dim::Free("T"), Dim::Free("T")]);

    let prefix = format!("{PREFIX}.encoder.encoders.{block}");
    let ys = feed_forward(&mut g, config, &format!("{prefix}.feed_forward_in"), &xs)?;
    let xs = half_step(&mut g, &xs, &ys);
    let ys = attention(&mut g, config, &prefix, &xs, &bias)?;
    let xs = g.add(&xs, &ys);
    let ys = convolution(&mut g, config, &format!("{prefix}.conv"), &xs)?;
    let xs = g.add(&xs, &ys);
    let ys = feed_forward(&mut g, config, &format!("{prefix}.feed_forward_out"), &xs)?;
    let xs = half_step(&mut g, &xs, &ys);
    let xs = g.layer_norm(&xs, &format!("{prefix}.layer_norm"), width, EPSILON)?;
    g.finish(&xs, &[Dim::Free("T"), Dim::Is(width)])
}

/// `xs + ys / 2`.
fn half_step(g: &mut GraphWriter<'_>, xs: &Value, ys: &Value) -> Value {
    let half = g.scale(ys, 0.5);
    g.add(xs, &half)
}

/// The gate is the second half, unlike in the decoder.
fn feed_forward(
    g: &mut GraphWriter<'_>,
    config: &AudioConfig,
    prefix: &str,
    xs: &Value,
) -> Result<Value> {
    let (width, inner) = (config.attention_dim, config.linear_units);
    let xs = g.layer_norm(xs, &format!("{prefix}.layer_norm"), width, EPSILON)?;
    let xs = g.linear(&xs, &format!("{prefix}.net.0.linear"), width, 2 * inner)?;
    let [up, gate] = g.halves(&xs, inner);
    let gate = g.swish(&gate);
    let ys = g.mul(&up, &gate);
    g.linear(&ys, &format!("{prefix}.net.2"), inner, width)
}

fn attention(
    g: &mut GraphWriter<'_>,
    config: &AudioConfig,
    prefix: &str,
    xs: &Value,
    bias: &Value,
) -> Result<Value> {
    let (width, heads) = (config.attention_dim, config.attention_heads);
    let xs = g.layer_norm(xs, &format!("{prefix}.layer_norm_att"), width, EPSILON)?;
    let q = g.linear(&xs, &format!("{prefix}.self_attn.linear_q"), width, width)?;
    let k = g.linear(&xs, &format!("{prefix}.self_attn.linear_k"), width, width)?;
    let v = g.linear(&xs, &format!("{prefix}.self_attn.linear_v"), width, width)?;
    let ys = g.attention([&q, &k, &v], bias, heads, width / heads);
    g.linear(&ys, &format!("{prefix}.self_attn.linear_out"), width, width)
}

/// Pointwise with gate, depthwise looking back only, pointwise, swish, pointwise.
fn convolution(
    g: &mut GraphWriter<'_>,
    config: &AudioConfig,
    prefix: &str,
    xs: &Value,
) -> Result<Value> {
    let (width, kernel) = (config.attention_dim, config.kernel_size);
    let xs = g.layer_norm(xs, &format!("{prefix}.layer_norm"), width, EPSILON)?;

    let xs = g.pointwise(&xs, &format!("{prefix}.glu.ext_pw_conv_1d"), width, 2 * width)?;
    let halves = g.halves(&xs, width);
    let mut shifted = Vec::with_capacity(2);
    for (half, name) in halves.iter().zip(["b1", "b2"]) {
        let shift = g.weight(&format!("{prefix}.glu.{name}"), &[1, width, 1])?;
        let shift = g.reshape(&shift, &[width as i64]);
        shifted.push(g.add(half, &shift));
    }
    let gate = g.swish(&shifted[1]);
    let xs = g.mul(&shifted[0], &gate);

    let xs = g.transpose(&xs, &[1, 0]);
    let xs = g.reshape(&xs, &[1, width as i64, -1]);
    let back = [kernel as i64 - 1, 0];
    let depthwise = Conv { shape: &[width, 1, kernel], stride: 1, pads: &back, groups: width };
    let xs = g.conv(&xs, &format!("{prefix}.dw_sep_conv_1d.dw_conv"), &depthwise)?;
    let xs = g.reshape(&xs, &[width as i64, -1]);
    let xs = g.transpose(&xs, &[1, 0]);

    let xs = g.pointwise(&xs, &format!("{prefix}.dw_sep_conv_1d.pw_conv"), width, width)?;
    let xs = g.swish(&xs);
    g.pointwise(&xs, &format!("{prefix}.ext_pw_conv_1d"), width, width)
}

/// Rows of the conformer → rows for the decoder (spec 4.5 i); `which` is `speech`, or `vision` when a picture is there too.
///
/// Input: `rows [T, D]`. Output: `[T, H]`.
pub(super) fn projector(
    mut g: GraphWriter<'_>,
    which: &str,
    width: usize,
    hidden: usize,
) -> Result<u64> {
    let xs = g.input("rows", &[Dim::Free("T"), Dim::Is(width)]);
    let xs = super::projector(
        &mut g,
        &format!("{PREFIX}.audio_projection.{which}"),
        &xs,
        width,
        hidden,
    )?;
    g.finish(&xs, &[Dim::Free("T"), Dim::Is(hidden)])
}
