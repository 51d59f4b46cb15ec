//! Every size of every medium, many media in one prompt and the released limits of the rope regimes, held against the reference
//! (`fixtures/phi4mm/make_sweep.py`).

use outpost_runtime::audio::{AudioEncoder, log_mel, token_count};
use outpost_runtime::import::Quant;
use outpost_runtime::vision::{self, Layout, VisionEncoder};
use outpost_runtime::{
    Audio, EncoderWeights, Engine, EngineOptions, Finish, PrefixCache, Request, Stop,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::reference::{
    F32, Packed, Reference, assert_close, fixture, logits, number, pair, sound,
};

/// Filters up to 5 kHz, below the slopes of all low-passes.
const BELOW_THE_SLOPE: usize = 65;
/// How far half of such log-mel values, and all but a hundredth, may be off, in nats. The reference resamples with another
/// filter: so far are two good filters from one another, where a sound is next to silent.
const HALF_OF_RESAMPLED: f32 = 0.005;
const MOST_OF_RESAMPLED: f32 = 0.15;

/// A copy of the checkpoint with a document changed.
fn changed(document: &str, change: impl FnOnce(&mut Value)) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("checkpoint")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = dir.path().join(document);
    let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
    dir
}

fn answer(engine: &Engine, request: &Request) -> (String, Finish, usize) {
    let mut cache = PrefixCache::new();
    let answer = engine.generate(&mut cache, request, &Stop::never(), &mut |_| ()).unwrap();
    (answer.text, answer.finish, answer.usage.new_tokens)
}

#[test]
fn pictures_of_every_size_are_cut_as_by_the_reference() {
    let dir = changed("config.json", |config| {
        let image = &mut config["embd_layer"]["image_embd_layer"];
        image.as_object_mut().unwrap().remove("img_processor");
        (image["crop_size"], image["dynamic_hd"]) = (448.into(), 36.into());
    });
    let config = outpost_runtime::import::config(dir.path()).unwrap();
    let image = config.image().unwrap();
    let table: Vec<(u32, u32, Option<[usize; 5]>)> =
        serde_json::from_slice(&std::fs::read(fixture("tiling.json")).unwrap()).unwrap();
    assert!(table.len() > 400);
    for (width, height, expected) in table {
        let found = Layout::of(width, height, image).ok().map(|layout| {
            let (rows, columns) = layout.valid;
            [layout.columns, layout.rows, rows, columns, layout.tokens()]
        });
        assert_eq!(found, expected, "{width}x{height}");
        let tokens = vision::token_count(width, height, image).ok();
        assert_eq!(tokens, expected.map(|cut| cut[4]), "{width}x{height}");
    }
}

#[test]
fn sounds_of_every_length_are_encoded_as_by_the_reference() {
    let (reference, packed) = (Reference::sweep(), Packed::new(Quant::F32));
    let (config, hidden) = (packed.config.audio().unwrap(), packed.config.decoder.hidden_size);
    let encoder =
        AudioEncoder::load(&packed.path(), config, hidden, EncoderWeights::Resident).unwrap();
    for (name, audio, case) in reference.sounds() {
        let mel = log_mel(&audio).unwrap();
        assert_eq!(mel.rows, number(&case["frames"]), "{name}");
        assert_eq!(token_count(&audio).unwrap(), number(&case["tokens"]), "{name}");
        let rows = encoder.conform(&mel, &Stop::never()).unwrap();
        assert_eq!(rows.rows, number(&case["tokens"]), "{name}");
        let kept = || case["rows"].as_array().unwrap().iter().map(number);
        let first_frames: Vec<f32> = kept().flat_map(|at| mel.row(8 * at)).copied().collect();
        assert_close(name, &first_frames, &reference.floats(&format!("mel.{name}")), F32);
        let found: Vec<f32> = kept().flat_map(|at| rows.row(at)).copied().collect();
        assert_close(name, &found, &reference.floats(&format!("conformer.{name}")), F32);
    }
}

#[test]
fn sounds_at_other_rates_are_heard_as_at_16_khz() {
    let reference = Reference::sweep();
    for (name, case) in reference.cases["resampled"].as_object().unwrap() {
        let audio: Audio = sound(case);
        assert_eq!(u64::from(audio.rate), case["rate"].as_u64().unwrap());
        let mel = log_mel(&audio).unwrap();
        let expected = reference.floats(&format!("mel.{name}"));
        assert_eq!(mel.data.len(), expected.len(), "{name}");
        // The ends ring: there a filter sees the silence around the sound.
        let inner = 4..mel.rows - 4;
        let mut off: Vec<f32> = inner
            .flat_map(|at| {
                let expected = &expected[at * mel.width..];
                mel.row(at).iter().zip(expected).take(BELOW_THE_SLOPE).map(|(a, b)| (a - b).abs())
            })
            .collect();
        off.sort_unstable_by(f32::total_cmp);
        let [half, most] = [off[off.len() / 2], off[off.len() * 99 / 100]];
        println!("{name}: {half:.2e} {most:.2e}");
        assert!(half < HALF_OF_RESAMPLED && most < MOST_OF_RESAMPLED, "{name}: {half}, {most} off");
    }
}

#[test]
fn odd_pictures_and_many_media_in_a_prompt_are_as_by_the_reference() {
    let reference = Reference::sweep();
    let packed = Packed::new(Quant::F32);
    let engine = packed.engine();
    let image_config = packed.config.image().unwrap();
    let hidden = packed.config.decoder.hidden_size;
    let encoder =
        VisionEncoder::load(&packed.path(), image_config, hidden, EncoderWeights::Resident)
            .unwrap();
    for (name, image, case) in reference.pictures() {
        assert_eq!((image.width, image.height), size(case), "{name}");
        let rows = encoder.encode(&image, &Stop::never()).unwrap();
        assert_eq!(rows.rows, number(&case["tokens"]), "{name}");
        assert_close(name, &rows.data, &reference.floats(&format!("image.{name}")), F32);
    }
    for (name, request, case) in reference.prompts() {
        let prompt = engine.render(&request).unwrap();
        assert_eq!(prompt.ids, reference.ids(&format!("ids.{name}")), "{name}");
        let got = logits(&engine, &request, case);
        assert_close(name, &got, &reference.floats(&format!("logits.{name}")), F32);
        let expected = (case["text"].as_str().unwrap().to_owned(), Finish::Length);
        let (text, finish, new_tokens) = answer(&engine, &request);
        assert_eq!((text, finish), expected, "{name}");
        assert_eq!(new_tokens, request.max_new_tokens, "{name}");
    }
}

fn size(case: &Value) -> (u32, u32) {
    let (width, height) = pair(&json!([case["width"], case["height"]]));
    (width as u32, height as u32)
}

/// With the released limits: one prompt goes past 4096 positions while it is answered, the other begins beyond 8 k.
#[test]
fn long_prompts_have_the_regime_of_their_length() {
    let reference = Reference::sweep();
    let dir = changed("config.json", |config| {
        config["original_max_position_embeddings"] = 4096.into();
        config["max_position_embeddings"] = 131_072.into();
    });
    let packed = Packed::of(dir.path(), Quant::F32);
    let engine = packed.engine_with(&EngineOptions { context: 16_384, ..EngineOptions::default() });
    for (name, request, case) in reference.prompts_of("long") {
        assert_eq!(engine.render(&request).unwrap().ids.len(), number(&case["tokens"]), "{name}");
        let got = logits(&engine, &request, case);
        assert_close(name, &got, &reference.floats(&format!("logits.{name}")), F32);
        let (text, ..) = answer(&engine, &request);
        assert_eq!(text, case["text"].as_str().unwrap(), "{name}");
    }
}

#[test]
fn every_stop_id_of_the_generation_config_ends_an_answer() {
    let reference = Reference::read();
    let (_, request, case) = reference.prompts().next().unwrap();
    let greedy: Vec<usize> = case["greedy"].as_array().unwrap().iter().map(number).collect();
    let last = 5;
    assert!(!greedy[..last].contains(&greedy[last]));
    for ids in [json!(greedy[last]), json!([400, greedy[last]])] {
        let dir = changed("generation_config.json", |config| config["eos_token_id"] = ids);
        let engine = Packed::of(dir.path(), Quant::F32).engine();
        let (text, finish, _) = answer(&engine, &request);
        let ids: Vec<u32> = greedy[..last].iter().map(|id| *id as u32).collect();
        assert_eq!((text, finish), (engine.tokenizer().decode(&ids), Finish::EndOfTurn));
    }
}
