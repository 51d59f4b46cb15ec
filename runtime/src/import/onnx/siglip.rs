//! The vision tower, SigLIP with a mask (spec 3.1, 3.3, 3.4), and its projector (spec 3.5).

use super::graph::{Conv, Dim, GraphWriter, Value};
use crate::config::VisionConfig;
use crate::error::Result;

/// Names in the checkpoint begin so.
pub(super) const PREFIX: &str = "model.embed_tokens_extend.image_embed";

/// One crop → its patches, each with its place.
///
/// Inputs: `pixels [1, 3, S, S]`, `positions [P]` rows of the position table. Output: `[P, D]`.
pub(super) fn embeddings(mut g: GraphWriter<'_>, config: &VisionConfig) -> Result<u64> {
    let (side, width, patch) = (config.image_size, config.hidden_size, config.patch_size);
    let patches = config.grid().pow(2);
    let pixels = g.input("pixels", &[Dim::Is(1), Dim::Is(3), Dim::Is(side), Dim::Is(side)]);
    let positions = g.index_input("positions", &[Dim::Is(patches)]);

    let prefix = format!("{PREFIX}.img_processor.embeddings");
    let conv = Conv { shape: &[width, 3, patch, patch], stride: patch, pads: &[0; 4], groups: 1 };
    let xs = g.conv(&pixels, &format!("{prefix}.patch_embedding"), &conv)?;
    let xs = g.reshape(&xs, &[width as i64, patches as i64]);
    let xs = g.transpose(&xs, &[1, 0]);
    let table = g.weight(&format!("{prefix}.position_embedding.weight"), &[patches, width])?;
    let places = g.gather(&table, &positions, 0);
    let xs = g.add(&xs, &places);
    g.finish(&xs, &[Dim::Is(patches), Dim::Is(width)])
}

/// One layer. The tower gives the output of the last layer but one.
///
/// Inputs: `rows [P, D]`, `key_bias [1, 1, P]` added to the scores (0 for a valid patch, hugely negative for a masked one).
/// Output: `[P, D]`.
pub(super) fn layer(mut g: GraphWriter<'_>, config: &VisionConfig, layer: usize) -> Result<u64> {
    let (width, patches) = (config.hidden_size, config.grid().pow(2));
    let xs = g.input("rows", &[Dim::Is(patches), Dim::Is(width)]);
    let key_bias = g.input("key_bias", &[Dim::Is(1), Dim::Is(1), Dim::Is(patches)]);
    let prefix = format!("{PREFIX}.img_processor.encoder.layers.{layer}");
    let ys = attention(&mut g, config, &prefix, &xs, &key_bias)?;
    let xs = g.add(&xs, &ys);
    let ys = mlp(&mut g, config, &prefix, &xs)?;
    let xs = g.add(&xs, &ys);
    g.finish(&xs, &[Dim::Is(patches), Dim::Is(width)])
}

fn attention(
    g: &mut GraphWriter<'_>,
    config: &VisionConfig,
    prefix: &str,
    xs: &Value,
    bias: &Value,
) -> Result<Value> {
    let (width, heads) = (config.hidden_size, config.num_attention_heads);
    let xs = g.layer_norm(xs, &format!("{prefix}.layer_norm1"), width, config.layer_norm_eps)?;
    let q = g.linear(&xs, &format!("{prefix}.self_attn.q_proj"), width, width)?;
    let k = g.linear(&xs, &format!("{prefix}.self_attn.k_proj"), width, width)?;
    let v = g.linear(&xs, &format!("{prefix}.self_attn.v_proj"), width, width)?;
    let ys = g.attention([&q, &k, &v], bias, heads, width / heads);
    g.linear(&ys, &format!("{prefix}.self_attn.out_proj"), width, width)
}

fn mlp(g: &mut GraphWriter<'_>, config: &VisionConfig, prefix: &str, xs: &Value) -> Result<Value> {
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    let xs = g.layer_norm(xs, &format!("{prefix}.layer_norm2"), width, config.layer_norm_eps)?;
    let ys = g.linear(&xs, &format!("{prefix}.mlp.fc1"), width, inner)?;
    let ys = g.gelu_tanh(&ys);
    g.linear(&ys, &format!("{prefix}.mlp.fc2"), inner, width)
}

/// Pooled patches with separators between them → rows for the decoder (spec 3.5).
///
/// Inputs: `pooled [M, D]`, and `order [N]`: which of the pooled rows, of `sub_GN` (row M) and `glb_GN` (row M + 1) comes
/// where. Output: `[N, H]`.
pub(super) fn projector(mut g: GraphWriter<'_>, width: usize, hidden: usize) -> Result<u64> {
    let pooled = g.input("pooled", &[Dim::Free("M"), Dim::Is(width)]);
    let order = g.index_input("order", &[Dim::Free("N")]);
    let row_end = g.weight(&format!("{PREFIX}.sub_GN"), &[1, 1, 1, width])?;
    let row_end = g.reshape(&row_end, &[1, width as i64]);
    let part_end = g.weight(&format!("{PREFIX}.glb_GN"), &[1, 1, width])?;
    let part_end = g.reshape(&part_end, &[1, width as i64]);
    let rows = g.concat_rows(&[&pooled, &row_end, &part_end]);
    let xs = g.gather(&rows, &order, 0);
    let xs = super::projector(&mut g, &format!("{PREFIX}.img_projection"), &xs, width, hidden)?;
    g.finish(&xs, &[Dim::Free("N"), Dim::Is(hidden)])
}
