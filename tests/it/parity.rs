//! The runtime against the reference implementation, on the small random checkpoint of `fixtures/phi4mm` (its README says
//! what was recorded and how).

use std::path::Path;

use outpost_kernels::{AlignedBytes, Format, Matrix};
use outpost_runtime::audio::{AudioEncoder, AudioProjector, log_mel, token_count};
use outpost_runtime::config::Config;
use outpost_runtime::import::Quant;
use outpost_runtime::vision::{VisionEncoder, tile};
use outpost_runtime::{EncoderWeights, Engine, EngineOptions, Finish, PrefixCache, Stop};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;

use crate::reference::{F32, Packed, Reference, assert_close, fixture, logits, number, pair};

/// As [`F32`], for logits of a decoder that computes in bf16, whose result depends on the machine's kernels. The reference's own
/// bf16 is up to 0.05 away from its f32.
const BF16: f32 = 0.15;
/// Least cosine between such logits of a position and those in f32.
const BF16_COSINE: f32 = 0.99;
/// Least mean cosine between logits of packed weights and of the weights before rounding. Random weights have nothing that
/// would survive rounding to 16 levels well; what int4 costs a trained model is measured by `outpost eval`.
const INT8_MEAN_COSINE: f32 = 0.99;
const INT4_MEAN_COSINE: f32 = 0.85;

/// The cosine between the logits of each position.
fn cosines(engine: &Engine, a: &[f32], b: &[f32]) -> Vec<f32> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let vocab = engine.config().decoder.vocab_size;
    let rows = a.chunks_exact(vocab).zip(b.chunks_exact(vocab));
    rows.map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).collect()
}

#[test]
fn log_mel_frames_equal_the_reference() {
    let reference = Reference::read();
    for (name, audio, case) in reference.sounds() {
        let mel = log_mel(&audio).unwrap();
        assert_eq!(mel.rows, number(&case["frames"]), "{name}");
        assert_eq!(token_count(&audio).unwrap(), number(&case["tokens"]), "{name}");
        if name != "long" {
            assert_close(name, &mel.data, &reference.floats(&format!("mel.{name}")), F32);
        }
    }
}

#[test]
fn pictures_are_tiled_as_by_the_reference() {
    let reference = Reference::read();
    let config = Config::read(&fixture("checkpoint/config.json")).unwrap();
    for (name, image, case) in reference.pictures() {
        let tiles = tile(&image, config.image().unwrap()).unwrap();
        let layout = tiles.layout;
        assert_eq!((layout.columns, layout.rows), pair(&case["grid"]), "{name}");
        assert_eq!(layout.resized, pair(&case["resized"]), "{name}");
        assert_eq!(layout.tokens(), number(&case["tokens"]), "{name}");
        assert!(
            tiles.picture == reference.bytes(&format!("picture.{name}")),
            "{name}: pixels differ"
        );
        let mask: Vec<u8> =
            (0..layout.crops()).flat_map(|crop| tiles.mask(Some(crop))).map(u8::from).collect();
        assert_eq!(mask, reference.bytes(&format!("mask.{name}")), "{name}");
        assert_close(name, &tiles.global, &reference.floats(&format!("global.{name}")), F32);
    }
}

#[test]
fn sounds_are_encoded_as_by_the_reference() {
    let (reference, packed) = (Reference::read(), Packed::new(Quant::F32));
    let hidden = packed.config.decoder.hidden_size;
    let encoder = AudioEncoder::load(
        &packed.path(),
        packed.config.audio().unwrap(),
        hidden,
        EncoderWeights::Resident,
    )
    .unwrap();
    for (name, audio, _) in reference.sounds() {
        let rows = encoder.conform(&log_mel(&audio).unwrap(), &Stop::never()).unwrap();
        assert_close(name, &rows.data, &reference.floats(&format!("conformer.{name}")), F32);
        if name == "long" {
            continue;
        }
        for (projector, which) in
            [(AudioProjector::Speech, "speech"), (AudioProjector::Vision, "vision")]
        {
            let what = format!("audio.{name}.{which}");
            let rows = encoder.encode(&audio, projector, &Stop::never()).unwrap();
            assert_close(&what, &rows.data, &reference.floats(&what), F32);
        }
    }
}

#[test]
fn pictures_are_encoded_as_by_the_reference() {
    let (reference, packed) = (Reference::read(), Packed::new(Quant::F32));
    let (image_config, hidden) =
        (packed.config.image().unwrap(), packed.config.decoder.hidden_size);
    let encoder =
        VisionEncoder::load(&packed.path(), image_config, hidden, EncoderWeights::Resident)
            .unwrap();
    for (name, image, _) in reference.pictures() {
        if ["exact", "rows"].contains(&name.as_str()) {
            let patches =
                encoder.patches(&tile(&image, image_config).unwrap(), &Stop::never()).unwrap();
            let patches: Vec<f32> = patches.into_iter().flat_map(|crop| crop.data).collect();
            assert_close(name, &patches, &reference.floats(&format!("tower.{name}")), F32);
        }
        let what = format!("image.{name}");
        let rows = encoder.encode(&image, &Stop::never()).unwrap();
        assert_close(&what, &rows.data, &reference.floats(&what), F32);
    }
}

#[test]
fn prompts_and_merged_embeddings_equal_the_reference() {
    let reference = Reference::read();
    let engine = Packed::new(Quant::F32).engine();
    for (name, request, case) in reference.prompts() {
        let prompt = engine.render(&request).unwrap();
        assert_eq!(prompt.ids, reference.ids(&format!("ids.{name}")), "{name}");
        assert_eq!(prompt.ids.len(), number(&case["tokens"]), "{name}");
        if ["speech_two", "vision_two", "vision_speech"].contains(&name) {
            let embeds = engine.embed(&prompt, &Stop::never()).unwrap();
            assert_close(name, &embeds.data, &reference.floats(&format!("embeds.{name}")), F32);
        }
    }
}

#[test]
fn logits_of_every_mode_equal_the_reference() {
    let reference = Reference::read();
    let engine = Packed::new(Quant::F32).engine();
    for (name, request, case) in reference.prompts() {
        let got = logits(&engine, &request, case);
        assert_close(name, &got, &reference.floats(&format!("logits.{name}")), F32);
    }
}

#[test]
fn encoders_on_demand_give_the_same_numbers() {
    let (reference, packed) = (Reference::read(), Packed::new(Quant::F32));
    let [resident, on_demand] =
        [EncoderWeights::Resident, EncoderWeights::OnDemand].map(|encoders| {
            packed.engine_with(&EngineOptions { encoders, ..EngineOptions::default() })
        });
    for (name, request, case) in reference.prompts() {
        let [a, b] = [&resident, &on_demand].map(|engine| logits(engine, &request, case));
        assert!(a == b, "{name}");
    }
}

#[test]
fn greedy_answers_equal_the_reference_whatever_is_cached() {
    let reference = Reference::read();
    let engine = Packed::new(Quant::F32).engine();
    let prompts: Vec<_> = reference.prompts().collect();
    let mut shared = PrefixCache::new();
    // Twice there and back, so that each prompt follows others with the same beginning, in the other rope regime, or itself.
    for (name, request, case) in prompts.iter().chain(prompts.iter().rev()).chain(&prompts) {
        for cache in [&mut PrefixCache::new(), &mut shared] {
            let answer = engine.generate(cache, request, &Stop::never(), &mut |_| ()).unwrap();
            assert_eq!(answer.text, case["text"].as_str().unwrap(), "{name}");
            assert_eq!(
                (answer.finish, answer.usage.new_tokens),
                (Finish::Length, request.max_new_tokens),
                "{name}"
            );
        }
    }
}

#[test]
fn bf16_stays_near_the_reference() {
    let reference = Reference::read();
    let engine = Packed::new(Quant::Bf16).engine();
    for (name, request, case) in reference.prompts() {
        let expected = reference.floats(&format!("logits.{name}"));
        let got = logits(&engine, &request, case);
        assert_close(name, &got, &expected, BF16);
        let least = cosines(&engine, &got, &expected).into_iter().fold(1.0, f32::min);
        assert!(least >= BF16_COSINE, "{name}: cosine {least}, at least {BF16_COSINE} is asked");
    }
}

#[test]
fn packed_weights_compute_what_their_rounding_says() {
    let reference = Reference::read();
    for (quant, least_mean) in [(Quant::Int8, INT8_MEAN_COSINE), (Quant::Int4, INT4_MEAN_COSINE)] {
        let (packed, rounded) = (Packed::new(quant), Packed::new(Quant::F32));
        unpack(&packed.path(), &rounded.path());
        let (packed, rounded) = (packed.engine(), rounded.engine());
        let mut all = Vec::new();
        for (name, request, case) in reference.prompts() {
            let got = logits(&packed, &request, case);
            let expected = logits(&rounded, &request, case);
            assert_close(&format!("{name} in {quant}"), &got, &expected, BF16);
            all.extend(cosines(&packed, &got, &reference.floats(&format!("logits.{name}"))));
        }
        let mean = all.iter().sum::<f32>() / all.len() as f32;
        println!("{quant}: mean cosine to the weights before rounding {mean}");
        assert!(mean >= least_mean, "{quant}: mean cosine {mean}, at least {least_mean} is asked");
    }
}

/// Puts the f32 matrices that the packed ones of `from` stand for in the place of the decoder of `to`.
fn unpack(from: &Path, to: &Path) {
    let bytes = std::fs::read(from.join("decoder.safetensors")).unwrap();
    let packed = SafeTensors::deserialize(&bytes).unwrap();
    let target = std::fs::read(to.join("decoder.safetensors")).unwrap();
    let target = SafeTensors::deserialize(&target).unwrap();
    let formats = [(".q4", Format::Q4), (".q8", Format::Q8), (".bf16", Format::Bf16)];
    let mut tensors = Vec::new();
    for name in packed.names() {
        let tensor = packed.tensor(name).unwrap();
        let Some((name, format)) =
            formats.iter().find_map(|(suffix, format)| Some((name.strip_suffix(suffix)?, *format)))
        else {
            tensors.push((
                name.to_owned(),
                tensor.dtype(),
                tensor.shape().to_vec(),
                tensor.data().to_vec(),
            ));
            continue;
        };
        // A panel of f32 has 64 bytes for each column.
        let name = format!("{name}.f32");
        let panels = tensor.shape()[0];
        let width = target.tensor(&name).map_or_else(
            |_| target.tensor("model.embed_tokens.weight.f32").unwrap().shape()[1],
            |t| t.shape()[1],
        ) / 64;
        let data = AlignedBytes::copy_of(tensor.data());
        let matrix = Matrix::new(format, 16 * panels, width, data.into()).unwrap();
        let mut values = vec![0.0; 16 * panels * width];
        for (row, values) in values.chunks_exact_mut(width).enumerate() {
            matrix.row(row, values);
        }
        let bytes: Vec<u8> =
            values.chunks(16 * width).flat_map(|rows| Format::F32.pack(rows, width)).collect();
        tensors.push((name, Dtype::U8, vec![panels, 64 * width], bytes));
    }
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let decoder = safetensors::serialize(views, None).unwrap();
    std::fs::write(to.join("decoder.safetensors"), &decoder).unwrap();
    let manifest = to.join("manifest.json");
    let mut parts: Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    parts["parts"]["decoder.safetensors"]["bytes"] = decoder.len().into();
    std::fs::write(manifest, parts.to_string()).unwrap();
}
