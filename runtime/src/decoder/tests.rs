//! The decoder on small random weights: everything that must not depend on how a sequence is cut up.

use std::cell::RefCell;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::*;
use crate::device::tests::test_device;
use crate::import::{ImportOptions, Quant, UserAdapter, import, import_with};
use crate::tokenizer::tests::byte_tokenizer_json;

const HIDDEN: usize = 128;
const FFN: usize = 192;
const VOCAB: usize = 320;

fn config() -> Value {
    let long: Vec<f64> = (0..12).map(|pair| 1.0 + f64::from(pair)).collect();
    json!({
        "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
        "max_position_embeddings": 512, "original_max_position_embeddings": 24, "partial_rotary_factor": 0.75,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "longrope", "short_factor": vec![1.0; 12], "long_factor": long},
        "vision_lora": {"r": 32, "lora_alpha": 64}, "speech_lora": {"r": 64, "lora_alpha": 96},
    })
}

/// Names and shapes of the checkpoint's tensors (spec 1.2 and 2).
fn tensors() -> Vec<(String, Vec<usize>)> {
    let mut tensors = vec![
        ("model.embed_tokens.weight".into(), vec![VOCAB, HIDDEN]),
        ("model.norm.weight".into(), vec![HIDDEN]),
    ];
    for layer in 0..2 {
        let prefix = format!("model.layers.{layer}");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            tensors.push((format!("{prefix}.{norm}.weight"), vec![HIDDEN]));
        }
        for (module, rows, width) in [
            ("self_attn.qkv_proj", 2 * HIDDEN, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HIDDEN),
            ("mlp.gate_up_proj", 2 * FFN, HIDDEN),
            ("mlp.down_proj", HIDDEN, FFN),
        ] {
            tensors.push((format!("{prefix}.{module}.base_layer.weight"), vec![rows, width]));
            for (adapter, r) in [("vision", 32), ("speech", 64)] {
                tensors
                    .push((format!("{prefix}.{module}.lora_A.{adapter}.weight"), vec![r, width]));
                tensors.push((format!("{prefix}.{module}.lora_B.{adapter}.weight"), vec![rows, r]));
            }
        }
    }
    tensors
}

fn write_checkpoint(dir: &Path, config: &Value, rename: impl Fn(&str) -> Option<String>) {
    let mut rng = StdRng::seed_from_u64(3);
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = tensors()
        .into_iter()
        .filter_map(|(name, shape)| Some((rename(&name)?, shape)))
        .map(|(name, shape)| {
            let spread = 1.2 / (shape[shape.len() - 1] as f32).sqrt();
            let bytes = (0..shape.iter().product())
                .map(|_| {
                    rng.random_range(-spread..spread) + if shape.len() == 1 { 1.0 } else { 0.0 }
                })
                .flat_map(|value: f32| half::bf16::from_f32(value).to_le_bytes())
                .collect();
            (name, shape, bytes)
        })
        .collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(Dtype::BF16, shape.clone(), bytes).unwrap())
    });
    std::fs::write(dir.join("model.safetensors"), safetensors::serialize(views, None).unwrap())
        .unwrap();
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let specials = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"];
    std::fs::write(dir.join("tokenizer.json"), byte_tokenizer_json(&specials)).unwrap();
}

fn load(quant: Quant) -> Decoder {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    write_checkpoint(&source, &config(), |name| Some(name.to_owned()));
    load_from(&source, quant)
}

fn load_from(source: &Path, quant: Quant) -> Decoder {
    load_on(source, quant, test_device())
}

fn load_on(source: &Path, quant: Quant, device: DeviceChoice) -> Decoder {
    let packed = source.with_file_name(format!("packed-{quant}"));
    import(source, &packed, &ImportOptions { quant }, &mut |_| ()).unwrap();
    let config = Config::read(&packed.join("config.json")).unwrap();
    Decoder::load(&packed, &config, device, Some(2)).unwrap()
}

/// The same weights on our kernels and on libtorch.
fn both(quant: Quant) -> Vec<Decoder> {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    write_checkpoint(&source, &config(), |name| Some(name.to_owned()));
    let devices: &[_] = if cfg!(feature = "torch") {
        &[test_device(), DeviceChoice::Reference]
    } else {
        &[test_device()]
    };
    devices.iter().map(|device| load_on(&source, quant, *device)).collect()
}

fn ids(count: u32) -> Vec<u32> {
    (0..count).map(|i| (i * 37 + 11) % VOCAB as u32).collect()
}

/// Logits of all positions, passed in pieces of those lengths.
fn run(decoder: &Decoder, adapter: Adapter, pieces: &[usize]) -> Features {
    let mut session = Session::new(decoder, adapter, 512).unwrap();
    let ids = ids(pieces.iter().sum::<usize>() as u32);
    let mut start = 0;
    let logits = pieces.iter().flat_map(|n| {
        let embeds = decoder.embed(&ids[start..start + n]).unwrap();
        start += n;
        decoder.forward(&mut session, &embeds, Logits::All).unwrap().data
    });
    Features::new(VOCAB, logits.collect())
}

/// Some rows.
fn rows(logits: &Features, start: usize, n: usize) -> Features {
    let width = logits.width;
    Features::new(width, logits.data[start * width..(start + n) * width].to_vec())
}

/// Logits of the last of `count` positions, which go through the layers `chunk` at a time.
fn last_logits(decoder: &mut Decoder, count: u32, chunk: usize) -> Features {
    decoder.chunk = chunk;
    let mut session = Session::new(decoder, Adapter::None, count as usize).unwrap();
    decoder.forward(&mut session, &decoder.embed(&ids(count)).unwrap(), Logits::Last).unwrap()
}

/// As a share of the largest number.
fn largest_difference(a: &Features, b: &Features) -> f32 {
    assert_eq!(a.data.len(), b.data.len());
    let difference = a.data.iter().zip(&b.data).map(|(a, b)| (a - b).abs());
    difference.fold(0.0, f32::max) / b.data.iter().map(|b| b.abs()).fold(0.0, f32::max)
}

/// The error's share of the numbers, by their squares.
fn relative(found: &Features, expected: &Features) -> f32 {
    let square = |xs: &mut dyn Iterator<Item = f32>| xs.map(|x| x * x).sum::<f32>().sqrt();
    square(&mut found.data.iter().zip(&expected.data).map(|(a, b)| a - b))
        / square(&mut expected.data.iter().copied())
}

#[test]
fn logits_do_not_depend_on_how_the_prompt_is_cut() {
    for decoder in both(Quant::F32) {
        for adapter in [Adapter::None, Adapter::Vision, Adapter::Speech] {
            let whole = run(&decoder, adapter, &[20]);
            assert_eq!((whole.rows, whole.width), (20, VOCAB));
            for pieces in [&[7, 13][..], &[1, 18, 1], &[1; 20]] {
                let difference = largest_difference(&run(&decoder, adapter, pieces), &whole);
                assert!(difference < 1e-4, "{pieces:?}: {difference}");
            }
        }
    }
}

/// The same weights, the same numbers: rounding of activations is all that is left between the kernels and libtorch.
#[cfg(feature = "torch")]
#[test]
fn the_kernels_compute_what_the_reference_computes() {
    // libtorch rounds every intermediate result to bf16, the kernels round activations to 8 bits or to bf16.
    for (quant, bound) in
        [(Quant::F32, 1e-5), (Quant::Bf16, 0.05), (Quant::Int8, 0.05), (Quant::Int4, 0.05)]
    {
        let decoders = both(quant);
        for adapter in [Adapter::None, Adapter::Vision, Adapter::Speech] {
            for pieces in [&[40][..], &[1; 6]] {
                let [found, expected] =
                    [0, 1].map(|which: usize| run(&decoders[which], adapter, pieces));
                let error = relative(&found, &expected);
                println!("{quant}, {adapter:?}, {pieces:?}: {error}");
                assert!(error < bound, "{quant}, {adapter:?}, {pieces:?}: {error}");
            }
        }
    }
}

#[test]
fn logits_of_some_ids_are_those_of_all() {
    let wanted = [0, 5, 17, VOCAB as u32 - 1];
    for decoder in both(Quant::Int4) {
        let all = run(&decoder, Adapter::None, &[7]);
        let mut session = Session::new(&decoder, Adapter::None, 512).unwrap();
        let embeds = decoder.embed(&ids(7)).unwrap();
        let some = decoder.forward(&mut session, &embeds, Logits::Of(&wanted)).unwrap();
        assert_eq!((some.rows, some.width), (1, VOCAB));
        for id in 0..VOCAB {
            let (found, expected) = (some.row(0)[id], all.row(6)[id]);
            if wanted.contains(&(id as u32)) {
                assert!((found - expected).abs() < 1e-3, "{id}: {found} {expected}");
            } else {
                assert!(found.is_nan());
            }
        }
    }
}

#[test]
fn keys_and_values_that_were_kept_go_on_like_their_session() {
    for format in [KvFormat::Bf16, KvFormat::Int8] {
        let decoder = load(Quant::Int4).with_kv(format);
        let mut session = Session::new(&decoder, Adapter::Speech, 512).unwrap();
        let begin = decoder.embed(&ids(21)).unwrap();
        decoder.forward(&mut session, &begin, Logits::Last).unwrap();
        // libtorch's has no form that could be kept.
        let Some(bytes) = session.save() else {
            assert_ne!(test_device(), DeviceChoice::Cpu);
            return;
        };
        let mut restored = Session::new(&decoder, Adapter::Speech, 512).unwrap();
        assert!(!restored.restore(&begin, &bytes[1..]).unwrap());
        assert!(restored.restore(&begin, &bytes).unwrap());
        // Across the change of regime, for which the embeddings are needed.
        for n in [1, 1, 1, 1, 1] {
            let next = decoder.embed(&ids(n)).unwrap();
            let expected = decoder.forward(&mut session, &next, Logits::Last).unwrap();
            let found = decoder.forward(&mut restored, &next, Logits::Last).unwrap();
            assert_eq!(found.data, expected.data);
        }
    }
}

/// Whatever goes through the layers at a time, on either side of the original context and across it.
#[test]
fn logits_do_not_depend_on_the_chunk() {
    let decoder = RefCell::new(load(Quant::F32));
    let cut_up = (1_usize..30, prop::collection::vec(1_usize..30, 1..4));
    let mut runner = TestRunner::new(ProptestConfig::with_cases(12));
    let result = runner.run(&cut_up, |(chunk, pieces)| {
        let decoder = &mut *decoder.borrow_mut();
        let count = pieces.iter().sum::<usize>();
        decoder.chunk = 2 * count;
        let whole = run(decoder, Adapter::Speech, &[count]);
        decoder.chunk = chunk;
        let cut = run(decoder, Adapter::Speech, &pieces);
        let mut start = 0;
        for n in &pieces {
            // Logits of a piece that ended in the short regime are not those of the whole in the long one.
            if decoder.rope.regime(start + n) == decoder.rope.regime(count) {
                let difference =
                    largest_difference(&rows(&cut, start, *n), &rows(&whole, start, *n));
                prop_assert!(difference < 1e-4, "{chunk}, {pieces:?}: {difference}");
            }
            start += n;
        }
        Ok(())
    });
    result.unwrap();
}

/// Many blocks of keys, and pieces that straddle them: the last piece is a single position.
#[test]
fn a_prompt_over_several_blocks_does_not_depend_on_the_chunk() {
    let count = 1084;
    for (format, bound) in [(KvFormat::Bf16, 1e-4), (KvFormat::Int8, 5e-3)] {
        let mut decoder = load(Quant::F32).with_kv(format);
        let whole = last_logits(&mut decoder, count, 2048);
        let cut = last_logits(&mut decoder, count, 361);
        let difference = largest_difference(&cut, &whole);
        assert!(difference < bound, "{format:?}: {difference}");
    }
}

#[test]
fn a_long_prompt_can_be_stopped_on_the_way() {
    let mut decoder = load(Quant::F32);
    decoder.chunk = 4;
    let mut session = Session::new(&decoder, Adapter::None, 512).unwrap();
    let stop = Stop::never();
    stop.cancel();
    let embeds = decoder.embed(&ids(20)).unwrap();
    let fault = decoder.forward_until(&mut session, &embeds, Logits::Last, &stop).unwrap_err();
    assert!(matches!(fault, Error::Stopped(_)), "{fault}");
}

/// The likeliest continuation of a prompt, and the logits of every step `[steps, vocab]`.
fn greedy(decoder: &Decoder, prompt: &[u32], steps: usize) -> (Vec<u32>, Features) {
    let mut session = Session::new(decoder, Adapter::Vision, 512).unwrap();
    let (mut answer, mut logits, mut next) = (Vec::new(), Vec::new(), prompt.to_vec());
    let mut width = 1;
    for _ in 0..steps {
        let embeds = decoder.embed(&next).unwrap();
        let last = decoder.forward(&mut session, &embeds, Logits::Last).unwrap();
        let best = (0..last.width).max_by(|a, b| last.data[*a].total_cmp(&last.data[*b])).unwrap();
        next = vec![best as u32];
        answer.extend(&next);
        width = last.width;
        logits.extend(last.data);
    }
    (answer, Features::new(width, logits))
}

/// Each key and value is off by 1/254 of its group's largest at most. Random weights are the worst case, since nothing in them
/// is redundant and the errors of all layers add up. An answer can become another only where the likeliest token led by less
/// than twice the bound.
#[test]
fn keys_and_values_in_int8_change_an_answer_in_close_calls_only() {
    let checkpoint =
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/phi4mm/checkpoint"));
    let dir = tempfile::tempdir().unwrap();
    let packed = dir.path().join("packed");
    let bound = 0.1;
    for quant in [Quant::F32, Quant::Bf16] {
        import(checkpoint, &packed, &ImportOptions { quant }, &mut |_| ()).unwrap();
        let config = Config::read(&packed.join("config.json")).unwrap();
        let open = |format| {
            Decoder::load(&packed, &config, test_device(), Some(1)).unwrap().with_kv(format)
        };
        let (plain, int8) = (open(KvFormat::Bf16), open(KvFormat::Int8));
        for first in [3, 40, 99] {
            let prompt: Vec<u32> = ids(30).iter().map(|id| (id + first) % 256).collect();
            let (expected, wanted) = greedy(&plain, &prompt, 32);
            let (found, logits) = greedy(&int8, &prompt, 32);
            let same = found.iter().zip(&expected).take_while(|(a, b)| a == b).count();
            // Behind the first difference the two go on from different texts.
            let steps = |logits: &Features| rows(logits, 0, (same + 1).min(32));
            let difference = largest_difference(&steps(&logits), &steps(&wanted));
            eprintln!("{quant}, {first}: {same} tokens are the same, logits within {difference}");
            assert!(difference < bound, "{quant}, {first}: {difference}");
        }
    }
}

#[test]
fn only_the_last_row_goes_through_the_head_when_asked() {
    let decoder = load(Quant::F32);
    let all = run(&decoder, Adapter::None, &[9]);
    let mut session = Session::new(&decoder, Adapter::None, 512).unwrap();
    let last =
        decoder.forward(&mut session, &decoder.embed(&ids(9)).unwrap(), Logits::Last).unwrap();
    assert_eq!((last.rows, last.width), (1, VOCAB));
    assert!(largest_difference(&last, &rows(&all, 8, 1)) < 1e-5);
}

/// 24 positions have short factors; with the 25th the whole sequence has long ones.
#[test]
fn crossing_the_original_context_equals_a_prompt_that_starts_beyond_it() {
    let decoder = load(Quant::F32);
    let whole = rows(&run(&decoder, Adapter::Speech, &[40]), 30, 10);
    for pieces in [&[20, 10, 10][..], &[24, 1, 5, 10], &[1; 40]] {
        let cut = rows(&run(&decoder, Adapter::Speech, pieces), 30, 10);
        assert!(largest_difference(&cut, &whole) < 1e-4, "{pieces:?}");
    }
    let short = run(&decoder, Adapter::Speech, &[24]);
    assert!(
        largest_difference(&rows(&run(&decoder, Adapter::Speech, &[40]), 0, 24), &short) > 1e-2
    );
}

#[test]
fn a_fork_from_beyond_the_original_context_goes_back_to_short_factors() {
    let decoder = load(Quant::F32);
    let mut long = Session::new(&decoder, Adapter::None, 512).unwrap();
    let _ = decoder.forward(&mut long, &decoder.embed(&ids(40)).unwrap(), Logits::Last).unwrap();
    let mut fork = long.fork(10).unwrap();
    let logits =
        decoder.forward(&mut fork, &decoder.embed(&ids(11)[10..]).unwrap(), Logits::All).unwrap();
    assert!(largest_difference(&logits, &rows(&run(&decoder, Adapter::None, &[11]), 10, 1)) < 1e-4);
}

#[test]
fn forks_go_their_own_ways() {
    let decoder = load(Quant::F32);
    let step = |session: &mut Session, ids: &[u32]| {
        decoder.forward(session, &decoder.embed(ids).unwrap(), Logits::Last).unwrap()
    };
    let mut one = Session::new(&decoder, Adapter::Vision, 512).unwrap();
    let _ = step(&mut one, &ids(12));
    let mut two = one.fork(8).unwrap();
    assert_eq!((one.len(), two.len()), (12, 8));
    let of_two = step(&mut two, &[5, 6]);
    let of_one = step(&mut one, &[9, 9]);

    let alone =
        |tokens: &[u32]| step(&mut Session::new(&decoder, Adapter::Vision, 512).unwrap(), tokens);
    assert!(largest_difference(&of_two, &alone(&[&ids(8)[..], &[5, 6]].concat())) < 1e-4);
    assert!(largest_difference(&of_one, &alone(&[&ids(12)[..], &[9, 9]].concat())) < 1e-4);
}

#[test]
fn the_bound_of_a_session_is_a_typed_error() {
    let decoder = load(Quant::F32);
    let mut session = Session::new(&decoder, Adapter::None, 10).unwrap();
    let fault =
        decoder.forward(&mut session, &decoder.embed(&ids(11)).unwrap(), Logits::Last).unwrap_err();
    assert!(matches!(fault, Error::ContextFull { prompt: 0, new: 11, limit: 10 }));
    assert!(decoder.forward(&mut session, &decoder.embed(&ids(10)).unwrap(), Logits::Last).is_ok());
    assert!(matches!(decoder.embed(&[VOCAB as u32]), Err(Error::Request(_))));
}

/// `(W + s B A) x = W x + s B (A x)` (spec 10.6): a model whose matrices have an adapter added to them answers without it as the
/// other one does with it.
#[test]
fn an_adapter_is_a_change_of_the_matrix() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    write_checkpoint(&source, &config(), |name| Some(name.to_owned()));
    let plain = load_from(&source, Quant::F32);
    let with_adapter = run(&plain, Adapter::Speech, &[20]);

    let merged = dir.path().join("merged");
    std::fs::create_dir(&merged).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(source.join(file), merged.join(file)).unwrap();
    }
    let bytes = std::fs::read(source.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: &str| -> Vec<f32> {
        let data = tensors.tensor(name).unwrap().data().as_chunks().0;
        data.iter().map(|bytes| half::bf16::from_le_bytes(*bytes).to_f32()).collect()
    };
    let changed: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .names()
        .into_iter()
        .map(|name| {
            let shape = tensors.tensor(name).unwrap().shape().to_vec();
            let mut values = floats(name);
            if let Some(module) = name.strip_suffix(".base_layer.weight") {
                let (a, b) = (
                    floats(&format!("{module}.lora_A.speech.weight")),
                    floats(&format!("{module}.lora_B.speech.weight")),
                );
                for (at, value) in values.iter_mut().enumerate() {
                    let (row, column) = (at / shape[1], at % shape[1]);
                    let sum: f32 =
                        (0..64).map(|r| b[row * 64 + r] * a[r * shape[1] + column]).sum();
                    *value += 1.5 * sum;
                }
            }
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (name.to_owned(), shape, bytes)
        })
        .collect();
    let views = changed.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    std::fs::write(merged.join("model.safetensors"), safetensors::serialize(views, None).unwrap())
        .unwrap();
    let merged = run(&load_from(&merged, Quant::F32), Adapter::None, &[20]);
    assert!(largest_difference(&merged, &with_adapter) < 1e-4);
    assert!(largest_difference(&run(&plain, Adapter::None, &[20]), &with_adapter) > 1e-2);
}

#[test]
fn packed_formats_stay_near_f32() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    write_checkpoint(&source, &config(), |name| Some(name.to_owned()));
    let exact = load_from(&source, Quant::F32);
    // Random weights are the worst case of few bits: nothing in them is redundant, and 17 matrices add up. Activations have 8
    // bits as well beside weights of 8 and 4.
    for (quant, bound) in [(Quant::Bf16, 0.02), (Quant::Int8, 0.04), (Quant::Int4, 0.4)] {
        let decoder = load_from(&source, quant);
        // Few rows and many rows take different kernels.
        for pieces in [&[20][..], &[1; 20]] {
            let found = run(&decoder, Adapter::Speech, pieces);
            let expected = run(&exact, Adapter::Speech, pieces);
            let error = relative(&found, &expected);
            assert!(error < bound, "{quant}, {pieces:?}: {error}");
        }
    }
}

/// Many positions take other kernels than few.
#[test]
fn a_long_prompt_is_the_one_that_short_pieces_make() {
    let decoder = load(Quant::Int4);
    // Beyond the original context from the first piece on.
    let pieces = [&[30][..], &[10; 10]].concat();
    for adapter in [Adapter::None, Adapter::Vision] {
        let (whole, cut) = (run(&decoder, adapter, &[130]), run(&decoder, adapter, &pieces));
        // What is left is rounding activations to 8 bits or to bf16, in each layer.
        let error = relative(&whole, &cut);
        assert!(error < 0.05, "{adapter:?}: {error}");
    }
}

#[test]
fn a_text_only_model_with_a_head_of_its_own_loads() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let mut config = config();
    config["tie_word_embeddings"] = json!(false);
    config.as_object_mut().unwrap().retain(|key, _| !key.ends_with("_lora"));
    write_checkpoint(&source, &config, |name| {
        (!name.contains("lora")).then(|| name.replace(".base_layer", ""))
    });
    let fault =
        import(&source, &dir.path().join("x"), &ImportOptions::default(), &mut |_| ()).unwrap_err();
    assert!(fault.to_string().contains("`lm_head.weight` is missing"), "{fault}");

    config["tie_word_embeddings"] = json!(true);
    std::fs::write(source.join("config.json"), config.to_string()).unwrap();
    let decoder = load_from(&source, Quant::Int4);
    assert_eq!(run(&decoder, Adapter::None, &[5]).rows, 5);
    assert!(matches!(Session::new(&decoder, Adapter::Speech, 512), Err(Error::Request(_))));
}

#[test]
fn an_import_appears_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    write_checkpoint(&source, &config(), |name| Some(name.to_owned()));
    let packed = dir.path().join("packed");
    let options = ImportOptions::default();
    let manifest = import(&source, &packed, &options, &mut |_| ()).unwrap();
    manifest.verify(&packed).unwrap();
    assert!(manifest.is_of(&source).unwrap());
    assert_eq!(crate::import::manifest::Manifest::read(&packed).unwrap(), manifest);

    std::fs::remove_file(source.join("tokenizer.json")).unwrap();
    assert!(import(&source, &packed, &options, &mut |_| ()).is_err());
    crate::import::manifest::Manifest::read(&packed).unwrap();
    assert!(!manifest.is_of(&source).unwrap());
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(
        import(&source, &source, &options, &mut |_| ())
            .unwrap_err()
            .to_string()
            .contains("other things")
    );
}

#[test]
fn an_adapter_of_the_users_own_is_applied_like_the_models() {
    let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/phi4mm"));
    let adapter = |name: &str| {
        [UserAdapter { name: name.to_owned(), dir: fixtures.join("native/vision-lora") }]
    };
    let dir = tempfile::tempdir().unwrap();
    let packed = dir.path().join("packed");
    let options = ImportOptions { quant: Quant::F32 };
    let source = fixtures.join("checkpoint");
    import_with(&source, &adapter("mine"), &packed, &options, &mut |_| ()).unwrap();
    let config = Config::read(&packed.join("config.json")).unwrap();
    let decoder = Decoder::load(&packed, &config, test_device(), Some(1)).unwrap();
    let mine = run(&decoder, Adapter::User(0), &[20]);
    assert!(largest_difference(&mine, &run(&decoder, Adapter::Vision, &[20])) < 1e-6);
    assert!(largest_difference(&mine, &run(&decoder, Adapter::None, &[20])) > 1e-2);
    assert!(matches!(Session::new(&decoder, Adapter::User(1), 512), Err(Error::Request(_))));

    let fault =
        import_with(&source, &adapter("speech"), &packed, &options, &mut |_| ()).unwrap_err();
    assert!(fault.to_string().contains("`speech`"), "{fault}");
}

mod layout;
