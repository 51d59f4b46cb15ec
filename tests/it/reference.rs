//! What the reference implementation recorded in `fixtures/phi4mm`, and the checkpoint that it ran on.

use std::path::{Path, PathBuf};

use outpost_runtime::config::Config;
use outpost_runtime::import::{ImportOptions, Quant, import};
use outpost_runtime::media::read_wav;
use outpost_runtime::{Audio, Engine, EngineOptions, Image, Part, Request, Role, Stop, Turn};
use safetensors::tensor::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

/// Bound of `max |got - expected| / max |expected|` where both sides compute in f32.
pub(crate) const F32: f32 = 1e-3;

/// What the reference recorded.
pub(crate) struct Reference {
    pub(crate) cases: Value,
    tensors: Vec<u8>,
}

impl Reference {
    /// What `make.py` recorded.
    pub(crate) fn read() -> Self {
        Self::open("cases.json", "expected.safetensors")
    }

    /// What `make_sweep.py` recorded.
    pub(crate) fn sweep() -> Self {
        Self::open("sweep.json", "sweep.safetensors")
    }

    fn open(cases: &str, tensors: &str) -> Self {
        let cases = std::fs::read_to_string(fixture(cases)).unwrap();
        Self {
            cases: serde_json::from_str(&cases).unwrap(),
            tensors: std::fs::read(fixture(tensors)).unwrap(),
        }
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.tensors).unwrap().tensor(name).unwrap().data().to_vec()
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    pub(crate) fn ids(&self, name: &str) -> Vec<u32> {
        self.bytes(name)
            .as_chunks()
            .0
            .iter()
            .map(|bytes| i64::from_le_bytes(*bytes).try_into().unwrap())
            .collect()
    }

    pub(crate) fn sounds(&self) -> impl Iterator<Item = (&String, Audio, &Value)> {
        self.cases["audio"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, case)| (name, sound(case), case))
    }

    pub(crate) fn pictures(&self) -> impl Iterator<Item = (&String, Image, &Value)> {
        self.cases["images"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, case)| (name, picture(case), case))
    }

    pub(crate) fn prompts(&self) -> impl Iterator<Item = (&str, Request, &Value)> {
        self.prompts_of("prompts")
    }

    /// The prompts of a section.
    pub(crate) fn prompts_of(
        &self,
        section: &str,
    ) -> impl Iterator<Item = (&str, Request, &Value)> {
        self.cases[section].as_array().unwrap().iter().map(|case| {
            let turns =
                case["turns"].as_array().unwrap().iter().map(|turn| self.turn(turn)).collect();
            let max_new_tokens = case["greedy"].as_array().unwrap().len();
            (
                case["name"].as_str().unwrap(),
                Request { max_new_tokens, ..Request::new(turns) },
                case,
            )
        })
    }

    fn turn(&self, turn: &Value) -> Turn {
        let role = if turn["role"] == "system" { Role::System } else { Role::User };
        let part = |part: &Value| {
            let (kind, value) = part.as_object().unwrap().iter().next().unwrap();
            let value = value.as_str().unwrap();
            match kind.as_str() {
                "audio" => Part::Audio(sound(&self.cases["audio"][value])),
                "image" => Part::Image(picture(&self.cases["images"][value])),
                _ => Part::Text(value.to_owned()),
            }
        };
        Turn { role, parts: turn["parts"].as_array().unwrap().iter().map(part).collect() }
    }
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/phi4mm").join(name)
}

fn input(case: &Value) -> PathBuf {
    fixture("inputs").join(case["file"].as_str().unwrap())
}

pub(crate) fn sound(case: &Value) -> Audio {
    let audio = read_wav(&input(case)).unwrap();
    let mut samples = audio.samples.repeat(number(&case["repeat"]));
    if let Some(kept) = case["samples"].as_u64() {
        samples.truncate(usize::try_from(kept).unwrap());
    }
    Audio { samples: samples.into(), ..audio }
}

/// A picture as the reference opens it: without its transparency, which `read_image` lays on a ground.
pub(crate) fn picture(case: &Value) -> Image {
    let rgb = image::open(input(case)).unwrap().into_rgb8();
    Image { width: rgb.width(), height: rgb.height(), rgb: rgb.into_raw().into() }
}

pub(crate) fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

pub(crate) fn pair(value: &Value) -> (usize, usize) {
    (number(&value[0]), number(&value[1]))
}

/// A checkpoint, the fixture's own unless another is named, imported.
pub(crate) struct Packed {
    dir: TempDir,
    pub(crate) config: Config,
}

impl Packed {
    pub(crate) fn new(quant: Quant) -> Self {
        Self::of(&fixture("checkpoint"), quant)
    }

    /// Another checkpoint folder, imported.
    pub(crate) fn of(source: &Path, quant: Quant) -> Self {
        let dir = TempDir::new().unwrap();
        let options = ImportOptions { quant };
        import(source, &dir.path().join("model"), &options, &mut |_| ()).unwrap();
        Self { config: Config::read(&source.join("config.json")).unwrap(), dir }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("model")
    }

    pub(crate) fn engine(&self) -> Engine {
        self.engine_with(&EngineOptions::default())
    }

    pub(crate) fn engine_with(&self, options: &EngineOptions) -> Engine {
        let options = EngineOptions { device: outpost_tests::device(), ..options.clone() };
        Engine::load(&self.path(), &options).unwrap()
    }
}

/// `max |got - expected| / max |expected|`.
fn error(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let largest = |values: &mut dyn Iterator<Item = f32>| {
        values.fold(0.0, |a: f32, b| if b.is_nan() { b } else { a.max(b) })
    };
    largest(&mut got.iter().zip(expected).map(|(a, b)| (a - b).abs()))
        / largest(&mut expected.iter().map(|b| b.abs()))
}

pub(crate) fn assert_close(what: &str, got: &[f32], expected: &[f32], bound: f32) {
    let error = error(got, expected);
    println!("{what}: {error:.2e}");
    assert!(error <= bound, "{what}: relative error {error}, at most {bound} is allowed");
}

/// The logits of a prompt at the positions that the reference kept.
pub(crate) fn logits(engine: &Engine, request: &Request, case: &Value) -> Vec<f32> {
    let prompt = engine.render(request).unwrap();
    let all = engine.logits(&prompt, &Stop::never()).unwrap();
    let positions = case["positions"].as_array().unwrap().iter();
    positions.flat_map(|at| all.row(number(at))).copied().collect()
}
