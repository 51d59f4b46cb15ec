//! What a model needs of memory, from its sizes alone: before a byte of it is fetched, and before it is loaded.
//!
//! Weights are counted as they lie in memory once loaded: the decoder in the format of its packed file, the encoders in f32 as
//! `tract` runs them, all of them or one layer at a time. Keys and values grow with the context; what else a run needs is an allowance.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::Config;
use crate::decoder::KvFormat;
use crate::error::Result;
use crate::graph::EncoderWeights;
use crate::import::{ImportOptions, Quant, onnx, stored};

/// Code and data of the program, libtorch and the encoders' intermediate results.
pub const ALLOWANCE: u64 = 400 << 20;

/// On a GPU: the CUDA context, its kernels, libtorch's and cuBLAS's workspaces, and what tiles of codes are unpacked to. An estimate
/// that no GPU has confirmed yet; others measured 0.4 to 1 GiB.
pub const CUDA_ALLOWANCE: u64 = 800 << 20;

/// Positions of kept system prefixes, all together: on a GPU they are copies, four at most, each a multiple of 64 positions.
const PREFIXES: u64 = 4 * 512;

/// Parts that lie on the GPU where there is one.
const ON_GPU: [&str; 5] = ["decoder", "head", "vision adapter", "speech adapter", "CUDA"];

/// The sizes of published models by name, so that a plan needs no download.
pub const PRESETS: [(&str, &str); 3] = [
    ("phi-4-multimodal", include_str!("../presets/phi-4-multimodal.json")),
    ("phi-4-mini", include_str!("../presets/phi-4-mini.json")),
    ("phi-4", include_str!("../presets/phi-4.json")),
];

/// The memory of a model's parts, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Name and size of each part.
    pub parts: Vec<(&'static str, u64)>,
    /// Keys and values of one position, as they are computed and in int8.
    positions: [u64; 2],
    /// The embedding of one position: those of a prompt are held while it is read.
    embedding: u64,
    /// What of the encoders is in layers.
    layers: u64,
    /// The largest of these layers.
    layer: u64,
    /// Positions of kept prefixes.
    prefixes: u64,
    /// Bits of a packed weight on a GPU, by those in the file.
    gpu_bits: [u64; 2],
}

/// The sizes of a published model; none for an unknown name.
///
/// # Errors
/// Never for the presets that there are: a test reads them all.
pub fn preset(name: &str) -> Option<Result<Config>> {
    let (name, text) = PRESETS.iter().find(|(known, _)| *known == name)?;
    Some(Config::parse(text, Path::new(name)))
}

impl Plan {
    /// The memory of a model that is imported with `options`.
    pub fn of(config: &Config, options: ImportOptions) -> Self {
        let mut parts = stored(config, options);
        let width = size_of::<f32>() as u64;
        let mut encoders = [("vision encoder", 0), ("audio encoder", 0)];
        let mut layers: BTreeMap<String, u64> = BTreeMap::new();
        for (name, shape) in onnx::running(config) {
            let bytes = shape.iter().product::<usize>() as u64 * width;
            encoders[usize::from(!name.contains("image_embed"))].1 += bytes;
            if let Some(layer) = onnx::layer_of(&name) {
                *layers.entry(layer.to_owned()).or_default() += bytes;
            }
        }
        parts.extend(encoders.into_iter().filter(|(_, bytes)| *bytes > 0));
        parts.push(("allowance", ALLOWANCE));
        let sizes = &config.decoder;
        let computed = if options.quant == Quant::F32 { 4 } else { 2 };
        Self {
            parts,
            positions: [KvFormat::Bf16, KvFormat::Int8]
                .map(|format| format.position(sizes, computed)),
            embedding: (sizes.hidden_size * size_of::<f32>()) as u64,
            layers: layers.values().sum(),
            layer: layers.values().copied().max().unwrap_or(0),
            prefixes: 0,
            // Scales and zeros of 32 codes are two bf16 there.
            gpu_bits: if options.quant == Quant::Int4 { [10, 9] } else { [1, 1] },
        }
    }

    /// The same model with its decoder on a GPU. A head that is the embedding is there once more: tokens are looked up on the
    /// host.
    #[must_use]
    pub fn on_gpu(mut self) -> Self {
        let [there, here] = self.gpu_bits;
        if !self.parts.iter().any(|(name, _)| *name == "head") {
            let embedding = self.parts.iter().position(|(name, _)| *name == "embedding");
            if let Some(at) = embedding {
                self.parts.insert(at + 1, ("head", self.parts[at].1));
            }
        }
        for (name, bytes) in &mut self.parts {
            if ON_GPU.contains(name) {
                *bytes = *bytes * there / here;
            }
        }
        self.parts.push(("CUDA", CUDA_ALLOWANCE));
        Self { prefixes: PREFIXES, ..self }
    }

    /// Keys and values of kept prefixes, where they are counted.
    pub fn prefixes(&self, kv: KvFormat) -> u64 {
        self.prefixes * self.cache(1, kv)
    }

    /// Of a model [on a GPU](Plan::on_gpu), what lies there: all of it in memory of its own, or in that of the board.
    pub fn gpu(&self, context: usize, kv: KvFormat) -> u64 {
        let parts = self.parts.iter().filter(|(name, _)| ON_GPU.contains(name));
        parts.map(|(_, bytes)| bytes).sum::<u64>() + self.cache(context, kv) + self.prefixes(kv)
    }

    /// Keys and values of a whole context.
    pub fn cache(&self, context: usize, kv: KvFormat) -> u64 {
        let [plain, int8] = self.positions;
        let position = match kv {
            KvFormat::Bf16 => plain,
            KvFormat::Int8 => int8,
        };
        position * context as u64
    }

    /// The embeddings of a prompt that fills the context.
    pub fn prompt(&self, context: usize) -> u64 {
        self.embedding * context as u64
    }

    /// Everything, at a context of that many positions.
    pub fn total(&self, context: usize, kv: KvFormat, encoders: EncoderWeights) -> u64 {
        let parts: u64 = self.parts.iter().map(|(_, bytes)| bytes).sum();
        let all = parts + self.cache(context, kv) + self.prefixes(kv) + self.prompt(context);
        match encoders {
            EncoderWeights::Resident => all,
            EncoderWeights::OnDemand => all - self.layers + self.layer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::Quant;

    fn plan(name: &str, quant: Quant) -> Plan {
        Plan::of(&preset(name).unwrap().unwrap(), ImportOptions { quant })
    }

    #[test]
    fn every_preset_is_a_config() {
        for (name, _) in PRESETS {
            let total =
                plan(name, Quant::Int4).total(4096, KvFormat::Bf16, EncoderWeights::OnDemand);
            assert!(total > 1 << 30, "{name}");
        }
    }

    #[test]
    fn the_text_model_in_bf16_has_two_bytes_for_each_of_its_numbers() {
        // Spec 7: 3,836,021,760 parameters of Phi-4-mini-instruct; the tied head is the embedding.
        let plan = plan("phi-4-mini", Quant::Bf16);
        assert_eq!(
            plan.total(0, KvFormat::Bf16, EncoderWeights::Resident) - ALLOWANCE,
            // Norms are in f32.
            2 * 3_836_021_760 + 2 * 65 * 3072
        );
    }

    #[test]
    fn keys_and_values_are_counted_in_either_format() {
        // Spec 1.5, with a scale of two bytes for every 32 numbers in int8.
        for quant in [Quant::Bf16, Quant::Int8, Quant::Int4] {
            let plan = plan("phi-4-multimodal", quant);
            assert_eq!(plan.cache(4096, KvFormat::Bf16), 512 << 20);
            assert_eq!(plan.cache(131_072, KvFormat::Bf16), 16 << 30);
            assert_eq!(plan.cache(1, KvFormat::Int8), 69_632);
            assert_eq!(
                plan.total(8192, KvFormat::Bf16, EncoderWeights::Resident)
                    - plan.total(8192, KvFormat::Int8, EncoderWeights::Resident),
                8192 * (131_072 - 69_632)
            );
        }
        // Beside weights in f32, what is computed is f32.
        assert_eq!(plan("phi-4-mini", Quant::F32).cache(4096, KvFormat::Bf16), 1 << 30);
    }

    #[test]
    fn on_a_gpu_there_is_room_for_cuda_the_head_and_kept_prefixes() {
        let (context, kv, encoders) = (4096, KvFormat::Bf16, EncoderWeights::Resident);
        for quant in [Quant::Bf16, Quant::Int8, Quant::Int4] {
            let on_cpu = plan("phi-4-multimodal", quant);
            let on_gpu = on_cpu.clone().on_gpu();
            let part = |plan: &Plan, name: &str| {
                plan.parts.iter().find(|(known, _)| *known == name).map_or(0, |part| part.1)
            };
            assert_eq!(on_gpu.prefixes(kv), 256 << 20);
            assert!(part(&on_gpu, "head") >= part(&on_cpu, "embedding"));
            assert!(part(&on_gpu, "decoder") >= part(&on_cpu, "decoder"));
            let more = on_gpu.total(context, kv, encoders) - on_cpu.total(context, kv, encoders);
            assert!(more >= CUDA_ALLOWANCE + (256 << 20) + part(&on_cpu, "embedding"), "{more}");
            // The encoders, the table of embeddings, the prompt and the program's own stay on the host.
            let host = on_gpu.total(context, kv, encoders) - on_gpu.gpu(context, kv);
            let named = ["embedding", "vision encoder", "audio encoder", "allowance"]
                .map(|name| part(&on_cpu, name));
            assert_eq!(host, named.iter().sum::<u64>() + on_cpu.prompt(context));
        }
    }

    #[test]
    fn four_bits_take_less_than_eight_and_these_less_than_sixteen() {
        let totals = [Quant::Int4, Quant::Int8, Quant::Bf16, Quant::F32].map(|quant| {
            plan("phi-4-multimodal", quant).total(4096, KvFormat::Bf16, EncoderWeights::Resident)
        });
        assert!(totals.is_sorted(), "{totals:?}");
        let on_demand = plan("phi-4-multimodal", Quant::Int4).total(
            4096,
            KvFormat::Bf16,
            EncoderWeights::OnDemand,
        );
        // A board of 8 GB has room beside it.
        assert!(on_demand < (45 << 30) / 10, "{on_demand}");
        let unknown = preset("phi-5");
        assert!(unknown.is_none());
    }
}
