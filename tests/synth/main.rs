//! Writes a checkpoint of a published model's full shape with random weights, in the layout of the released one: what the real
//! weights would ask of a machine can be measured without them. `cargo xtask synth --preset NAME DIR` calls it. With `--packed`
//! it writes what `outpost import` would make of the checkpoint, without the checkpoint.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{Write as _, stderr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use half::bf16;
use outpost_runtime::config::Config;
use outpost_runtime::import::source::TensorSource;
use outpost_runtime::import::{self, ImportOptions, Quant};
use outpost_runtime::plan::PRESETS;
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use safetensors::tensor::{Dtype, View};
use serde_json::{Value, json};

/// Bytes of a shard, at most, unless a single tensor is larger.
const SHARD: usize = 4 << 30;
/// A byte-level tokenizer of the right kind, whose words are put at the released model's places.
const TOKENIZER: &str = include_str!("../fixtures/phi4mm/checkpoint/tokenizer.json");
/// Where its answers end.
const GENERATION: &str = r#"{"bos_token_id": 199999, "eos_token_id": [200020, 199999]}"#;
/// The released model's special tokens (spec 5.2).
const SPECIALS: [(&str, u64); 14] = [
    ("<|endoftext|>", 199_999),
    ("<|endoftext10|>", 200_010),
    ("<|endoftext11|>", 200_011),
    ("<|endofprompt|>", 200_018),
    ("<|assistant|>", 200_019),
    ("<|end|>", 200_020),
    ("<|user|>", 200_021),
    ("<|system|>", 200_022),
    ("<|tool|>", 200_023),
    ("<|/tool|>", 200_024),
    ("<|tool_call|>", 200_025),
    ("<|/tool_call|>", 200_026),
    ("<|tool_response|>", 200_027),
    ("<|tag|>", 200_028),
];

/// Write a checkpoint of full shape with random weights.
#[derive(Debug, Parser)]
struct Args {
    /// The model whose sizes it has.
    #[arg(long, default_value = "phi-4-multimodal")]
    preset: String,
    /// Fewer layers than the model has.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    layers: Option<u32>,
    /// Write a packed model in this number format: f32, bf16, int8 or int4.
    #[arg(long, value_name = "FORMAT")]
    packed: Option<Quant>,
    /// A folder for it.
    dir: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let names = PRESETS.map(|(name, _)| name).join(", ");
    let (name, text) = PRESETS
        .into_iter()
        .find(|(name, _)| *name == args.preset)
        .with_context(|| format!("no such preset: there are {names}"))?;
    let mut sizes: Value = serde_json::from_str(text)?;
    if let Some(layers) = args.layers {
        sizes["num_hidden_layers"] = layers.into();
    }
    let text = sizes.to_string();
    let config = Config::parse(&text, Path::new(name))?;
    let tokenizer = tokenizer()?.to_string();
    let started = Instant::now();
    if let Some(quant) = args.packed {
        let tensors = import::published(&config).into_iter();
        let tensors = tensors.map(|(name, shape)| (name.clone(), Random { name, shape })).collect();
        let documents = BTreeMap::from([
            ("config.json", text),
            ("generation_config.json", GENERATION.to_owned()),
            ("tokenizer.json", tokenizer),
        ]);
        let source = (name, Box::new(Made(tensors)) as Box<dyn TensorSource>);
        import::import_made(source, documents, &args.dir, &ImportOptions { quant }, &mut |_| ())?;
        return say_written(&args.dir, started);
    }
    std::fs::create_dir_all(&args.dir).with_context(|| args.dir.display().to_string())?;
    let write = |name: &str, text: &str| {
        let path = args.dir.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    };
    write("config.json", &text)?;
    write("generation_config.json", GENERATION)?;
    write("tokenizer.json", &tokenizer)?;
    let index = write_shards(&args.dir, import::published(&config))?;
    write("model.safetensors.index.json", &index.to_string())?;
    say_written(&args.dir, started)
}

fn say_written(dir: &Path, started: Instant) -> Result<()> {
    let seconds = started.elapsed().as_secs_f32();
    Ok(writeln!(stderr(), "{} is written after {seconds:.0} s", dir.display())?)
}

/// Writes the tensors in shards, and gives the index of them.
fn write_shards(dir: &Path, tensors: Vec<(String, Vec<usize>)>) -> Result<Value> {
    let mut shards: Vec<Vec<Random>> = vec![Vec::new()];
    let mut bytes = 0;
    for (name, shape) in tensors {
        let tensor = Random { name, shape };
        if bytes + tensor.bytes() > SHARD && bytes > 0 {
            shards.push(Vec::new());
            bytes = 0;
        }
        bytes += tensor.bytes();
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    let mut places = BTreeMap::new();
    for (number, shard) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        writeln!(stderr(), "{file}")?;
        let views = shard.iter().map(|tensor| (tensor.name.as_str(), tensor));
        safetensors::serialize_to_file(views, None, &dir.join(&file))
            .with_context(|| file.clone())?;
        places.extend(shard.iter().map(|tensor| (tensor.name.clone(), file.clone())));
    }
    Ok(json!({"metadata": {}, "weight_map": places}))
}

/// Tensors by name, none of which lies anywhere.
struct Made(BTreeMap<String, Random>);

impl TensorSource for Made {
    fn path(&self) -> &Path {
        Path::new("random")
    }

    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.0.get(name).map(|tensor| tensor.shape.as_slice())
    }

    fn unreadable(&self, _: &str) -> Option<String> {
        None
    }

    fn read(&self, name: &str, rows: Range<usize>) -> outpost_runtime::Result<Option<Vec<f32>>> {
        Ok(self.0.get(name).map(|tensor| tensor.rows(rows)))
    }
}

/// A tensor in bf16 whose numbers follow from its name, made when they are written.
struct Random {
    name: String,
    shape: Vec<usize>,
}

impl Random {
    /// Bytes of its numbers.
    fn bytes(&self) -> usize {
        2 * self.shape.iter().product::<usize>()
    }

    /// Some of its rows: the same each time that the same ones are asked for.
    fn rows(&self, rows: Range<usize>) -> Vec<f32> {
        let mut hasher = DefaultHasher::new();
        (&self.name, rows.start).hash(&mut hasher);
        let (middle, half) = self.range();
        let width: usize = self.shape.iter().skip(1).product();
        let mut bytes = vec![0; 2 * rows.len() * width];
        StdRng::seed_from_u64(hasher.finish()).fill_bytes(&mut bytes);
        let share = |pair: &[u8; 2]| f32::from(u16::from_le_bytes(*pair)) / 32_767.5 - 1.0;
        bytes.as_chunks().0.iter().map(|pair| middle + half * share(pair)).collect()
    }

    /// Middle and half-width of its numbers: such that signals keep their size from layer to layer.
    fn range(&self) -> (f32, f32) {
        let name = &self.name;
        if name.ends_with("global_invstd") || (name.contains("norm") && name.ends_with("weight")) {
            return (1.0, 0.0);
        }
        if name.contains("lora_B") || self.shape.len() == 1 {
            return (0.0, 0.01);
        }
        let inputs: usize = self.shape.iter().skip(1).product();
        (0.0, (3.0 / inputs.max(1) as f32).sqrt())
    }
}

impl View for &Random {
    fn dtype(&self) -> Dtype {
        Dtype::BF16
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        let (middle, half) = self.range();
        let table: Vec<[u8; 2]> = (0..=u16::MAX)
            .map(|code| {
                let share = f32::from(code) / 32_767.5 - 1.0;
                bf16::from_f32(middle + half * share).to_le_bytes()
            })
            .collect();
        let mut bytes = vec![0; self.bytes()];
        StdRng::seed_from_u64(hasher.finish()).fill_bytes(&mut bytes);
        for pair in bytes.as_chunks_mut().0 {
            *pair = table[usize::from(u16::from_le_bytes(*pair))];
        }
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.bytes()
    }
}

/// The byte-level tokenizer with the special tokens at their places, and words that no text is cut into between.
fn tokenizer() -> Result<Value> {
    let mut tokenizer: Value = serde_json::from_str(TOKENIZER)?;
    let specials: BTreeMap<u64, &str> = SPECIALS.iter().map(|(name, id)| (*id, *name)).collect();
    let vocab = tokenizer["model"]["vocab"].as_object_mut().context("a vocabulary")?;
    let known = vocab.len() as u64;
    let last = specials.keys().copied().max().unwrap_or(0);
    for id in known..=last {
        let word =
            specials.get(&id).map_or_else(|| format!("unused{id}"), |name| (*name).to_owned());
        vocab.insert(word, id.into());
    }
    for token in tokenizer["added_tokens"].as_array_mut().context("added tokens")? {
        let place = SPECIALS.iter().find(|(name, _)| token["content"] == *name);
        token["id"] = place.context("a special token that is not known")?.1.into();
    }
    Ok(tokenizer)
}
