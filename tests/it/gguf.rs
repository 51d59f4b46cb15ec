//! The decoder of the small checkpoint written as a GGUF file of the architecture phi3: the same model, adapters of the user's own
//! included.

use std::path::{Path, PathBuf};

use outpost_runtime::import::checkpoint::Checkpoint;
use outpost_runtime::import::source::TensorSource as _;
use outpost_runtime::import::{ImportOptions, Quant, UserAdapter, import_ignoring, import_with};
use outpost_runtime::{Engine, EngineOptions, PrefixCache, Request, Role, Stop, Turn};
use serde_json::Value;

use crate::reference::fixture;

/// A value of metadata.
#[derive(Clone)]
enum Meta {
    Number(u32),
    Float(f32),
    Text(&'static str),
    Numbers(Vec<u32>),
    Texts(Vec<String>),
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn list(kind: u32, items: &[Vec<u8>]) -> Vec<u8> {
    [&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &(items.len() as u64).to_le_bytes()]
        .concat()
        .into_iter()
        .chain(items.concat())
        .collect()
}

impl Meta {
    fn bytes(&self) -> Vec<u8> {
        let of_kind = |kind: u32, bytes: &[u8]| [&kind.to_le_bytes()[..], bytes].concat();
        match self {
            Self::Number(number) => of_kind(4, &number.to_le_bytes()),
            Self::Float(number) => of_kind(6, &number.to_le_bytes()),
            Self::Text(string) => of_kind(8, &text(string)),
            Self::Numbers(numbers) => {
                let items: Vec<_> =
                    numbers.iter().map(|item| item.to_le_bytes().to_vec()).collect();
                list(4, &items)
            }
            Self::Texts(strings) => {
                let items: Vec<_> = strings.iter().map(|item| text(item)).collect();
                list(8, &items)
            }
        }
    }
}

/// A file of tensors in F32, by name, shape and values.
fn file(metadata: &[(&str, Meta)], tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let mut head = [&b"GGUF\x03\0\0\0"[..], &(tensors.len() as u64).to_le_bytes()].concat();
    head.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        head.extend([text(key), value.bytes()].concat());
    }
    let mut data = Vec::new();
    for (name, shape, values) in tensors {
        head.extend(text(name));
        head.extend((shape.len() as u32).to_le_bytes());
        head.extend(shape.iter().rev().flat_map(|size| (*size as u64).to_le_bytes()));
        head.extend(0u32.to_le_bytes());
        head.extend((data.len() as u64).to_le_bytes());
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        data.resize(data.len().next_multiple_of(32), 0);
    }
    head.resize(head.len().next_multiple_of(32), 0);
    [head, data].concat()
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture("checkpoint").join(name)).unwrap()).unwrap()
}

/// Sizes, tokens and merges of the checkpoint, as converters write them.
fn metadata() -> Vec<(&'static str, Meta)> {
    let (config, tokenizer) = (json("config.json"), json("tokenizer.json"));
    let size = |key: &str| Meta::Number(config[key].as_u64().unwrap() as u32);
    let vocab = tokenizer["model"]["vocab"].as_object().unwrap();
    let added = tokenizer["added_tokens"].as_array().unwrap();
    let named = vocab.iter().map(|(name, id)| (id.as_u64().unwrap(), name.as_str(), 1));
    let special =
        |token: &Value| token["id"].as_u64().zip(token["content"].as_str().map(str::to_owned));
    let added: Vec<(u64, String)> = added.iter().filter_map(special).collect();
    let mut tokens: Vec<(u64, &str, u32)> =
        named.chain(added.iter().map(|(id, name)| (*id, name.as_str(), 3))).collect();
    tokens.sort_unstable();
    let merge = |merge: &Value| match merge {
        Value::Array(pair) => {
            format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap())
        }
        merge => merge.as_str().unwrap().to_owned(),
    };
    let merges = tokenizer["model"]["merges"].as_array().unwrap().iter().map(merge).collect();
    let end = added.iter().find(|(_, name)| name == "<|end|>").unwrap().0;
    vec![
        ("general.architecture", Meta::Text("phi3")),
        ("phi3.embedding_length", size("hidden_size")),
        ("phi3.feed_forward_length", size("intermediate_size")),
        ("phi3.block_count", size("num_hidden_layers")),
        ("phi3.attention.head_count", size("num_attention_heads")),
        ("phi3.attention.head_count_kv", size("num_key_value_heads")),
        ("phi3.attention.layer_norm_rms_epsilon", Meta::Float(1e-5)),
        ("phi3.context_length", size("max_position_embeddings")),
        ("phi3.rope.dimension_count", Meta::Number(24)),
        ("phi3.rope.freq_base", Meta::Float(1e4)),
        ("phi3.rope.scaling.original_context_length", size("original_max_position_embeddings")),
        ("tokenizer.ggml.model", Meta::Text("gpt2")),
        ("tokenizer.ggml.pre", Meta::Text("gpt-4o")),
        (
            "tokenizer.ggml.tokens",
            Meta::Texts(tokens.iter().map(|token| token.1.to_owned()).collect()),
        ),
        ("tokenizer.ggml.token_type", Meta::Numbers(tokens.iter().map(|token| token.2).collect())),
        ("tokenizer.ggml.merges", Meta::Texts(merges)),
        ("tokenizer.ggml.eos_token_id", Meta::Number(end as u32)),
    ]
}

/// The decoder's tensors under the names that GGUF has for them, adapters left out.
fn tensors() -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let source = Checkpoint::open(&fixture("checkpoint")).unwrap();
    let mut names = vec![
        ("model.embed_tokens".to_owned(), "token_embd".to_owned()),
        ("model.norm".to_owned(), "output_norm".to_owned()),
    ];
    for layer in 0..2 {
        for (long, short) in [
            ("input_layernorm", "attn_norm"),
            ("post_attention_layernorm", "ffn_norm"),
            ("self_attn.qkv_proj.base_layer", "attn_qkv"),
            ("self_attn.o_proj.base_layer", "attn_output"),
            ("mlp.gate_up_proj.base_layer", "ffn_up"),
            ("mlp.down_proj.base_layer", "ffn_down"),
        ] {
            names.push((format!("model.layers.{layer}.{long}"), format!("blk.{layer}.{short}")));
        }
    }
    let read = |(long, short): &(String, String)| {
        let name = format!("{long}.weight");
        let shape = source.shape(&name).unwrap().to_vec();
        let values = source.f32(&name, &shape).unwrap();
        (format!("{short}.weight"), shape, values)
    };
    let config = json("config.json");
    let factors = ["long", "short"].map(|which| {
        let factors = &config["rope_scaling"][format!("{which}_factor")];
        let factors: Vec<f32> = serde_json::from_value(factors.clone()).unwrap();
        (format!("rope_factors_{which}.weight"), vec![factors.len()], factors)
    });
    names.iter().map(read).chain(factors).collect()
}

fn engine(source: &Path, dir: &Path, name: &str) -> Engine {
    let packed: PathBuf = dir.join(name);
    let mine = [UserAdapter { name: "mine".into(), dir: fixture("native/speech-lora") }];
    let options = ImportOptions { quant: Quant::F32 };
    import_with(source, &mine, &packed, &options, &mut |_| ()).unwrap();
    Engine::load(&packed, &EngineOptions::default()).unwrap()
}

#[test]
fn a_gguf_file_and_an_adapter_over_it_are_the_checkpoint_and_one_over_that() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, file(&metadata(), &tensors())).unwrap();
    let engines = [
        engine(&fixture("checkpoint"), dir.path(), "checkpoint"),
        engine(&path, dir.path(), "gguf"),
    ];
    // The second goes past 256 positions, where the long rope factors hold.
    for words in ["turn on the kitchen light", &"lock the front door, ".repeat(30)] {
        let mut answers = Vec::new();
        for adapter in [None, Some("mine".to_owned())] {
            let mut request = Request::new(vec![Turn::text(Role::User, words)]);
            (request.adapter, request.max_new_tokens) = (adapter, 12);
            let [from_checkpoint, from_gguf] = engines.each_ref().map(|engine| {
                let mut cache = PrefixCache::new();
                engine.generate(&mut cache, &request, &Stop::never(), &mut |_| ()).unwrap().text
            });
            assert_eq!(from_gguf, from_checkpoint);
            answers.push(from_gguf);
        }
        assert_ne!(answers[0], answers[1], "the adapter changes the answer");
    }
}

#[test]
fn a_file_in_parts_is_read_whole_from_any_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = tensors();
    let second = tensors.split_off(5);
    let part = |index: usize| dir.path().join(format!("m-{index:05}-of-00002.gguf"));
    std::fs::write(part(1), file(&metadata(), &tensors)).unwrap();
    let whole = dir.path().join("whole.gguf");
    std::fs::write(&whole, file(&metadata(), &[tensors, second.clone()].concat())).unwrap();
    let options = ImportOptions { quant: Quant::F32 };
    let packed = |source: &Path, name: &str| {
        let folder = dir.path().join(name);
        import_with(source, &[], &folder, &options, &mut |_| ())?;
        Ok::<_, outpost_runtime::Error>(std::fs::read(folder.join("decoder.safetensors")).unwrap())
    };
    let missing = packed(&part(1), "missing").unwrap_err().to_string();
    assert!(
        missing.contains("m-00002-of-00002.gguf") && missing.contains("one of 2 files"),
        "{missing}"
    );
    std::fs::write(part(2), file(&[], &second)).unwrap();
    let wanted = packed(&whole, "whole").unwrap();
    assert!(
        packed(&part(1), "first").unwrap() == wanted
            && packed(&part(2), "second").unwrap() == wanted
    );
}

#[test]
fn what_may_change_the_arithmetic_is_refused_by_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let scaled = [metadata(), vec![("phi3.logit_scale", Meta::Float(8.0))]].concat();
    std::fs::write(&path, file(&scaled, &tensors())).unwrap();
    let options = ImportOptions { quant: Quant::F32 };
    let packed = dir.path().join("packed");
    let fault = import_with(&path, &[], &packed, &options, &mut |_| ()).unwrap_err().to_string();
    assert!(fault.contains("`phi3.logit_scale`") && fault.contains("--ignore-key"), "{fault}");
    let ignored = ["logit_scale".to_owned()];
    import_ignoring(&path, (&[], &ignored), &packed, &options, &mut |_| ()).unwrap();
}
