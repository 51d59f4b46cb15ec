//! One model in the layouts in which it is published.

use outpost_runtime::import::manifest::Manifest;
use outpost_runtime::import::{ImportOptions, Quant, import};
use outpost_tests::root;
use tempfile::TempDir;

fn imported(folder: &str) -> (TempDir, Manifest) {
    let dir = tempfile::tempdir().unwrap();
    let source = root().join("tests/fixtures/phi4mm").join(folder);
    let options = ImportOptions { quant: Quant::Int4, group: 32 };
    let manifest = import(&source, &dir.path().join("packed"), &options, &mut |_| ()).unwrap();
    (dir, manifest)
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
