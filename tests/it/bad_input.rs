//! Wrong files and requests: each a typed error that names the thing.

use std::path::{Path, PathBuf};

use outpost_agent::model_dir;
use outpost_agent_core::config::MicrophoneConfig;
use outpost_runtime::import::{ImportOptions, import, import_ignoring};
use outpost_runtime::media::{read_image, read_wav};
use outpost_runtime::{Engine, EngineOptions, Error};
use outpost_senses::files::FileMicrophone;
use outpost_tests::media::{RATE, write_png, write_wav};
use outpost_tests::root;

/// A copy of the small checkpoint of the parity tests, for a test to spoil.
fn checkpoint(dir: &Path) -> PathBuf {
    let copy = dir.join("checkpoint");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(root().join("tests/fixtures/phi4mm/checkpoint")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    copy
}

fn import_error(source: &Path, dir: &Path) -> Error {
    import(source, &dir.join("packed"), &ImportOptions::default(), &mut |_| ())
        .expect_err("it is spoilt")
}

#[test]
fn truncated_weights_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let source = checkpoint(dir.path());
    let weights = source.join("model.safetensors");
    let file = std::fs::OpenOptions::new().write(true).open(&weights).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let error = import_error(&source, dir.path());
    assert!(
        matches!(error, Error::Weights { .. }) && error.to_string().contains("model.safetensors"),
        "{error}"
    );
    assert!(!dir.path().join("packed").exists(), "nothing half-written is left");
}

#[test]
fn tensors_that_do_not_fit_the_config_are_all_named() {
    let dir = tempfile::tempdir().unwrap();
    let source = checkpoint(dir.path());
    let path = source.join("config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let width = config["intermediate_size"].as_u64().unwrap();
    config["intermediate_size"] = (width * 2).into();
    std::fs::write(&path, config.to_string()).unwrap();
    let error = import_error(&source, dir.path());
    let Error::Weights { faults, .. } = &error else { panic!("{error}") };
    for name in ["layers.0.mlp.gate_up_proj", "layers.0.mlp.down_proj"] {
        assert!(faults.iter().any(|fault| fault.contains(name)), "{name} is not in {error}");
    }
}

#[test]
fn a_missing_or_empty_model_is_named() {
    let missing = Path::new("/nowhere/model");
    let error = Engine::load(missing, &EngineOptions::default()).expect_err("there is none");
    assert!(error.to_string().contains("/nowhere/model"), "{error}");
    let error = model_dir::find(Some(missing), None).expect_err("there is none");
    assert!(error.to_string().contains("no such folder"), "{error}");
    let fixture = root().join("tests/fixtures/phi4mm/checkpoint");
    let error = model_dir::find(Some(&fixture), None).expect_err("it is not packed");
    assert!(error.to_string().contains("outpost import"), "{error}");
}

#[test]
fn sounds_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text.wav");
    std::fs::write(&text, "this is no sound").unwrap();
    let empty = dir.path().join("empty.wav");
    std::fs::write(&empty, "").unwrap();
    let silent = write_wav(&dir.path().join("silent.wav"), &[]).unwrap();
    for path in [&text, &empty, &silent, &dir.path().join("missing.wav")] {
        let error = read_wav(path).expect_err("unusable");
        assert!(matches!(error, Error::Audio { .. } | Error::Io { .. }), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn an_hour_of_sound_is_refused_by_name_before_it_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let hour = write_wav(&dir.path().join("hour.wav"), &vec![0.0; 3600 * RATE as usize]).unwrap();
    let error = read_wav(&hour).expect_err("too long");
    assert!(
        matches!(error, Error::Audio { .. }) && error.to_string().contains("hour.wav"),
        "{error}"
    );
    let config = MicrophoneConfig::default();
    let error = FileMicrophone::open(&hour, &config).expect_err("too long");
    assert!(error.to_string().contains("hour.wav"), "{error}");
}

#[test]
fn pictures_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text.png");
    std::fs::write(&text, "this is no picture").unwrap();
    let huge = write_png(&dir.path().join("huge.png"), 10_000, 5_100).unwrap();
    for path in [&text, &huge, &dir.path().join("missing.png")] {
        let error = read_image(path).expect_err("unusable");
        assert!(matches!(error, Error::Image { .. } | Error::Io { .. }), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn marks_are_skipped_and_pointers_and_foreign_keys_named() {
    let dir = tempfile::tempdir().unwrap();
    let source = checkpoint(dir.path());
    let pack = |ignored: &[String]| {
        let packed = dir.path().join("packed");
        import_ignoring(&source, (&[], ignored), &packed, &ImportOptions::default(), &mut |_| ())
    };
    let original = std::fs::read(source.join("config.json")).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        let text = std::fs::read(source.join(file)).unwrap();
        std::fs::write(source.join(file), [b"\xef\xbb\xbf", &*text].concat()).unwrap();
    }
    pack(&[]).unwrap();

    let mut config: serde_json::Value = serde_json::from_slice(&original).unwrap();
    config["embedding_multiplier"] = 12.0.into();
    std::fs::write(source.join("config.json"), config.to_string()).unwrap();
    let fault = pack(&[]).unwrap_err().to_string();
    assert!(
        fault.contains("config.json") && fault.contains("`embedding_multiplier` is 12.0"),
        "{fault}"
    );
    pack(&["embedding_multiplier".to_owned()]).unwrap();

    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 123456789\n";
    for file in ["model.safetensors", "tokenizer.json", "config.json"] {
        std::fs::write(source.join(file), pointer).unwrap();
        let fault = pack(&["embedding_multiplier".to_owned()]).unwrap_err().to_string();
        assert!(fault.contains(file) && fault.contains("git lfs pull"), "{fault}");
    }
}
