//! The decoder's tensors: their shapes (spec 1.2 and 2), their names in the packed file, and where their rows come from.
//!
//! Checkpoints differ in how they name and cut the same matrices: fused as published for Phi (spec 1.2), with `.base_layer`
//! where adapters wrap them (spec 2), split into query, key and value and into gate and up as in the Llama family, and by the
//! short names of GGUF. Every matrix takes the first of these that is there.

use std::ops::Range;

use super::source::TensorSource;
use crate::config::{Config, LoraConfig};
use crate::error::Result;

/// How a tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A weight of RMSNorm.
    Norm,
    /// A matrix that is multiplied with.
    Linear,
    /// The embedding, looked up by rows.
    Embedding,
    /// The head. A tied model has none: it is the embedding.
    Head,
}

/// One tensor of the decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Name in the packed file.
    pub(crate) packed: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) role: Role,
    /// The source's tensors whose rows, one after the other, are this tensor's.
    pub(crate) parts: Vec<Part>,
}

/// A tensor of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    order: RowOrder,
}

/// How the rows of a part lie in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowOrder {
    Same,
    /// The two rotated halves of each head of that many rows in turn, as GGUF files of the Llama architecture have them.
    Interleaved {
        head: usize,
    },
}

impl Entry {
    /// Some rows in f32; a vector is read whole.
    pub(crate) fn rows(&self, source: &dyn TensorSource, rows: Range<usize>) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        let mut start = 0;
        for part in &self.parts {
            let end = start + part.shape.first().copied().unwrap_or(1);
            let wanted = rows.start.max(start)..rows.end.min(end);
            if !wanted.is_empty() {
                values.extend(part.rows(source, wanted.start - start..wanted.end - start)?);
            }
            start = end;
        }
        Ok(values)
    }
}

impl Part {
    fn rows(&self, source: &dyn TensorSource, rows: Range<usize>) -> Result<Vec<f32>> {
        let RowOrder::Interleaved { head } = self.order else {
            return source.rows(&self.name, &self.shape, rows);
        };
        let mut values = Vec::new();
        for row in rows {
            let (start, place) = (row / head * head, row % head);
            let (half, pair) = (place / (head / 2), place % (head / 2));
            let row = start + 2 * pair + half;
            values.extend(source.rows(&self.name, &self.shape, row..row + 1)?);
        }
        Ok(values)
    }
}

const EMBEDDING: &str = "model.embed_tokens.weight";
pub(crate) const HEAD: &str = "lm_head.weight";

/// The names that the head of a tied model may be saved under a second time.
pub(crate) const HEADS: [&str; 2] = [HEAD, "output.weight"];

/// Every tensor of the decoder, in the order of the packed file.
pub(crate) fn decoder(config: &Config, source: &dyn TensorSource) -> Vec<Entry> {
    let sizes = &config.decoder;
    let hidden = sizes.hidden_size;
    let vocab = [sizes.vocab_size, hidden];
    let finder = Finder { config, source };
    let embedding = finder.first(&vocab, &[EMBEDDING, "token_embd.weight"]);
    let mut entries = vec![entry(EMBEDDING, &vocab, Role::Embedding, embedding)];
    if !sizes.tie_word_embeddings {
        entries.push(entry(HEAD, &vocab, Role::Head, finder.first(&vocab, &HEADS)));
    }
    for layer in 0..sizes.num_hidden_layers {
        let (long, short) = (format!("model.layers.{layer}"), format!("blk.{layer}"));
        for (norm, brief) in
            [("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm")]
        {
            let names = [format!("{long}.{norm}.weight"), format!("{short}.{brief}.weight")];
            let parts = finder.first(&[hidden], &[&names[0], &names[1]]);
            entries.push(entry(&names[0], &[hidden], Role::Norm, parts));
        }
        for linear in finder.linears(&long, &short) {
            finder.push(linear, &mut entries);
        }
    }
    let norm = "model.norm.weight";
    let parts = finder.first(&[hidden], &[norm, "output_norm.weight"]);
    entries.push(entry(norm, &[hidden], Role::Norm, parts));
    entries
}

/// A matrix of a layer: its module, its size, and what it may be made of.
struct Linear {
    module: String,
    rows: usize,
    width: usize,
    choices: Vec<Vec<Part>>,
}

struct Finder<'a> {
    config: &'a Config,
    source: &'a dyn TensorSource,
}

impl Finder<'_> {
    /// The first of these names that is there.
    fn first(&self, shape: &[usize], names: &[&str]) -> Vec<Part> {
        let choices = names.iter().map(|name| vec![part(name, shape)]).collect();
        self.choose(choices)
    }

    /// The first choice that is there whole; else the one of which most is there, so that what it lacks is reported.
    fn choose(&self, choices: Vec<Vec<Part>>) -> Vec<Part> {
        let found =
            |parts: &[Part]| parts.iter().filter(|part| self.source.contains(&part.name)).count();
        let mut best = Vec::new();
        for parts in choices {
            let count = found(&parts);
            if count == parts.len() {
                return parts;
            }
            if best.is_empty() || count > found(&best) {
                best = parts;
            }
        }
        best
    }

    fn linears(&self, long: &str, short: &str) -> [Linear; 4] {
        let sizes = &self.config.decoder;
        let (hidden, ffn, head) = (sizes.hidden_size, sizes.intermediate_size, sizes.head_dim());
        let (queries, keys) = (sizes.num_attention_heads * head, sizes.num_key_value_heads * head);
        let named = |name: String, rows: usize, width: usize| part(&name, &[rows, width]);
        let turned = |name: String, rows: usize| Part {
            order: RowOrder::Interleaved { head },
            ..part(&name, &[rows, hidden])
        };
        let linear = |module: &str, rows, width, other: Vec<Vec<Part>>| Linear {
            module: format!("{long}.{module}"),
            rows,
            width,
            choices: other,
        };
        let qkv = vec![
            vec![
                named(format!("{long}.self_attn.q_proj.weight"), queries, hidden),
                named(format!("{long}.self_attn.k_proj.weight"), keys, hidden),
                named(format!("{long}.self_attn.v_proj.weight"), keys, hidden),
            ],
            vec![named(format!("{short}.attn_qkv.weight"), sizes.qkv_rows(), hidden)],
            vec![
                turned(format!("{short}.attn_q.weight"), queries),
                turned(format!("{short}.attn_k.weight"), keys),
                named(format!("{short}.attn_v.weight"), keys, hidden),
            ],
        ];
        let gate_up = vec![
            vec![
                named(format!("{long}.mlp.gate_proj.weight"), ffn, hidden),
                named(format!("{long}.mlp.up_proj.weight"), ffn, hidden),
            ],
            vec![
                named(format!("{short}.ffn_gate.weight"), ffn, hidden),
                named(format!("{short}.ffn_up.weight"), ffn, hidden),
            ],
            vec![named(format!("{short}.ffn_up.weight"), 2 * ffn, hidden)],
        ];
        let out = vec![vec![named(format!("{short}.attn_output.weight"), hidden, queries)]];
        let down = vec![vec![named(format!("{short}.ffn_down.weight"), hidden, ffn)]];
        [
            linear("self_attn.qkv_proj", sizes.qkv_rows(), hidden, qkv),
            linear("self_attn.o_proj", hidden, queries, out),
            linear("mlp.gate_up_proj", 2 * ffn, hidden, gate_up),
            linear("mlp.down_proj", hidden, ffn, down),
        ]
    }

    /// Adds a matrix and its adapters.
    fn push(&self, linear: Linear, entries: &mut Vec<Entry>) {
        let Linear { module, rows, width, choices } = linear;
        let adapters = [("vision", &self.config.vision_lora), ("speech", &self.config.speech_lora)];
        let packed = format!("{module}.weight");
        let shape = [rows, width];
        let mut fused = vec![
            vec![part(&format!("{module}.base_layer.weight"), &shape)],
            vec![part(&packed, &shape)],
        ];
        if adapters.iter().all(|(_, lora)| lora.is_none()) {
            // Text-only checkpoints have no adapters and so no wrapper around the base layer.
            fused.reverse();
        }
        fused.extend(choices);
        entries.push(entry(&packed, &shape, Role::Linear, self.choose(fused)));
        let of_media =
            adapters.into_iter().filter_map(|(adapter, lora)| Some((adapter, lora.as_ref()?)));
        // The user's own may leave a matrix as it is.
        let touches = |(adapter, _): &(&str, &LoraConfig)| {
            self.source.contains(&format!("{module}.lora_A.{adapter}.weight"))
        };
        let of_user = self.config.adapters.iter().map(|(name, lora)| (name.as_str(), lora));
        for (adapter, LoraConfig { r, .. }) in of_media.chain(of_user.filter(touches)) {
            for (half, shape) in [("lora_A", [*r, width]), ("lora_B", [rows, *r])] {
                let name = format!("{module}.{half}.{adapter}.weight");
                entries.push(entry(&name, &shape, Role::Linear, vec![part(&name, &shape)]));
            }
        }
    }
}

fn part(name: &str, shape: &[usize]) -> Part {
    Part { name: name.to_owned(), shape: shape.to_owned(), order: RowOrder::Same }
}

fn entry(packed: &str, shape: &[usize], role: Role, parts: Vec<Part>) -> Entry {
    Entry { packed: packed.to_owned(), shape: shape.to_owned(), role, parts }
}
