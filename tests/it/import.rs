//! One model in the layouts in which it is published.

use outpost_runtime::import::checkpoint::Checkpoint;
use outpost_runtime::import::manifest::Manifest;
use outpost_runtime::import::source::TensorSource as _;
use outpost_runtime::import::{ImportOptions, Quant, UserAdapter, import, import_with, published};
use outpost_runtime::{
    Audio, Engine, EngineOptions, Generation, Part, PrefixCache, Request, Result, Role, Stop, Turn,
};
use outpost_tests::root;
use tempfile::TempDir;

fn imported(folder: &str) -> (TempDir, Manifest) {
    let dir = tempfile::tempdir().unwrap();
    let source = root().join("tests/fixtures/phi4mm").join(folder);
    let options = ImportOptions { quant: Quant::Int4 };
    let manifest = import(&source, &dir.path().join("packed"), &options, &mut |_| ()).unwrap();
    (dir, manifest)
}

#[test]
fn a_config_tells_every_tensor_of_its_checkpoint() {
    let dir = root().join("tests/fixtures/phi4mm/checkpoint");
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let mut tensors = published(&outpost_runtime::import::config(&dir).unwrap());
    let there: Vec<(String, Vec<usize>)> = checkpoint
        .names()
        .into_iter()
        .map(|name| {
            let plain = name.replace(".base_layer.", ".");
            (plain, checkpoint.shape(name).unwrap().to_vec())
        })
        .collect();
    for (name, shape) in &mut tensors {
        *name = name.replace(".base_layer.", ".");
        assert!(there.contains(&(name.clone(), shape.clone())), "{name} {shape:?}");
    }
    assert_eq!(tensors.len(), there.len());
}

#[test]
fn the_port_of_transformers_is_the_released_model() {
    let (released_dir, mut released) = imported("checkpoint");
    let (native_dir, mut native) = imported("native");
    let config = |dir: &TempDir| {
        let path = dir.path().join("packed/config.json");
        outpost_runtime::config::Config::read(&path).unwrap()
    };
    assert_eq!(config(&native_dir), config(&released_dir));
    // A plan needs no import: it reads the config of either folder, and of the packed model.
    let config_of = |folder: &str| {
        outpost_runtime::import::config(&root().join("tests/fixtures/phi4mm").join(folder)).unwrap()
    };
    assert_eq!(config_of("native"), config_of("checkpoint"));
    let packed = native_dir.path().join("packed");
    assert_eq!(outpost_runtime::import::config(&packed).unwrap(), config_of("checkpoint"));
    released.parts.remove("config.json");
    native.parts.remove("config.json");
    assert!(released.parts.contains_key("decoder.safetensors"));
    assert_eq!(native.parts, released.parts);
}

#[test]
fn an_adapter_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let source = root().join("tests/fixtures/phi4mm/native");
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(source.join(name), dir.path().join(name)).unwrap();
    }
    let options = ImportOptions::default();
    let fault = import(dir.path(), &dir.path().join("packed"), &options, &mut |_| ()).unwrap_err();
    assert!(fault.to_string().contains("vision-lora/adapter_config.json"), "{fault}");
}

#[test]
fn an_adapter_is_chosen_by_name_and_for_text_only() {
    let fixtures = root().join("tests/fixtures/phi4mm");
    let dir = tempfile::tempdir().unwrap();
    let packed = dir.path().join("packed");
    let mine = [UserAdapter { name: "mine".into(), dir: fixtures.join("native/speech-lora") }];
    let options = ImportOptions { quant: Quant::F32 };
    import_with(&fixtures.join("checkpoint"), &mine, &packed, &options, &mut |_| ()).unwrap();
    let engine = Engine::load(&packed, &EngineOptions::default()).unwrap();
    let answer = |adapter: Option<&str>, turn: Turn| -> Result<Generation> {
        let mut request = Request::new(vec![turn]);
        (request.adapter, request.max_new_tokens) = (adapter.map(str::to_owned), 12);
        engine.generate(&mut PrefixCache::new(), &request, &Stop::never(), &mut |_| ())
    };
    let hello = || Turn::text(Role::User, "hello");
    let plain = answer(None, hello()).unwrap();
    assert_ne!(answer(Some("mine"), hello()).unwrap().text, plain.text);

    let fault = answer(Some("other"), hello()).unwrap_err().to_string();
    assert!(fault.contains("`other`") && fault.contains("mine"), "{fault}");
    let sound = Part::Audio(Audio { samples: vec![0.0; 16_000].into(), rate: 16_000 });
    let spoken = Turn { role: Role::User, parts: vec![sound] };
    let fault = answer(Some("mine"), spoken).unwrap_err().to_string();
    assert!(fault.contains("`mine` is for text"), "{fault}");
}
