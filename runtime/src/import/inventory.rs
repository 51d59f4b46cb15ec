//! The decoder's tensors: their names in the checkpoint and in the packed file, and their shapes (spec 1.2 and 2).

use super::checkpoint::Checkpoint;
use crate::config::{Config, LoraConfig};

/// How a tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A weight of RMSNorm.
    Norm,
    /// A matrix that is multiplied with.
    Linear,
    /// The embedding, looked up by rows.
    Embedding,
    /// The head: the embedding again in a tied model.
    Head,
}

/// One tensor of the decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Name in the checkpoint.
    pub(crate) source: String,
    /// Name in the packed file.
    pub(crate) packed: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) role: Role,
}

pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(crate) const HEAD: &str = "lm_head.weight";

/// Every tensor of the decoder, in the order of the packed file.
pub(crate) fn decoder(config: &Config, checkpoint: &Checkpoint) -> Vec<Entry> {
    let sizes = &config.decoder;
    let (hidden, ffn) = (sizes.hidden_size, sizes.intermediate_size);
    let heads = sizes.num_attention_heads * sizes.head_dim();
    let vocab = [sizes.vocab_size, hidden];
    let head = if sizes.tie_word_embeddings { EMBEDDING } else { HEAD };
    let mut entries = vec![
        entry(EMBEDDING, EMBEDDING, &vocab, Role::Embedding),
        entry(head, HEAD, &vocab, Role::Head),
    ];
    for layer in 0..sizes.num_hidden_layers {
        let prefix = format!("model.layers.{layer}");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            let name = format!("{prefix}.{norm}.weight");
            entries.push(entry(&name, &name, &[hidden], Role::Norm));
        }
        for (module, rows, width) in [
            ("self_attn.qkv_proj", sizes.qkv_rows(), hidden),
            ("self_attn.o_proj", hidden, heads),
            ("mlp.gate_up_proj", 2 * ffn, hidden),
            ("mlp.down_proj", hidden, ffn),
        ] {
            linear(config, checkpoint, &format!("{prefix}.{module}"), rows, width, &mut entries);
        }
    }
    entries.push(entry("model.norm.weight", "model.norm.weight", &[hidden], Role::Norm));
    entries
}

/// A matrix and its adapters.
fn linear(
    config: &Config,
    checkpoint: &Checkpoint,
    module: &str,
    rows: usize,
    width: usize,
    entries: &mut Vec<Entry>,
) {
    let packed = format!("{module}.weight");
    let wrapped = format!("{module}.base_layer.weight");
    // Text-only checkpoints have no adapters and so no wrapper around the base layer.
    let adapted = checkpoint.contains(&wrapped)
        || config.vision_lora.is_some()
        || config.speech_lora.is_some();
    let source = if adapted && !checkpoint.contains(&packed) { &wrapped } else { &packed };
    entries.push(entry(source, &packed, &[rows, width], Role::Linear));
    let adapters = [("vision", &config.vision_lora), ("speech", &config.speech_lora)];
    for (adapter, lora) in adapters {
        if let Some(LoraConfig { r, .. }) = lora {
            for (half, shape) in [("lora_A", [*r, width]), ("lora_B", [rows, *r])] {
                let name = format!("{module}.{half}.{adapter}.weight");
                entries.push(entry(&name, &name, &shape, Role::Linear));
            }
        }
    }
}

fn entry(source: &str, packed: &str, shape: &[usize], role: Role) -> Entry {
    Entry { source: source.to_owned(), packed: packed.to_owned(), shape: shape.to_owned(), role }
}
