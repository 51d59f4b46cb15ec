//! LoRA adapters in folders as PEFT writes them: the user's own, and those beside the port of Phi-4-multimodal.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

use super::UserAdapter;
use super::checkpoint::Checkpoint;
use super::source::TensorSource;
use super::{neutral, text};
use crate::error::{Error, Result};

const CONFIG: &str = "adapter_config.json";
pub(crate) const WEIGHTS: &str = "adapter_model.safetensors";

/// What this runtime reads of `adapter_config.json`.
#[derive(Debug, Deserialize)]
struct AdapterConfig {
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    rank_pattern: Option<BTreeMap<String, usize>>,
    #[serde(default)]
    alpha_pattern: Option<BTreeMap<String, f64>>,
}

/// Rank and scaling of an adapter, which may be others for some of its modules.
#[derive(Debug)]
pub(crate) struct Scaling {
    rank: usize,
    alpha: f64,
    /// Rank-stabilized LoRA scales by alpha / sqrt(r) instead of alpha / r (Kalajdzievski 2023).
    stabilized: bool,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
}

impl Scaling {
    /// Reads the configuration in a folder.
    ///
    /// # Errors
    /// When it is not there, damaged, or of an adapter that is computed otherwise.
    pub(crate) fn read(dir: &Path, ignored: &[String]) -> Result<Self> {
        let path = dir.join(CONFIG);
        let fault = |reason: String| Error::config(&path, reason);
        let text = text::read(&path)?;
        let keys = serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
        neutral::check_adapter(&keys, ignored).map_err(fault)?;
        let config: AdapterConfig = serde_json::from_value(Value::Object(keys))
            .map_err(|error| fault(error.to_string()))?;
        let AdapterConfig { r, lora_alpha, use_rslora, rank_pattern, alpha_pattern } = config;
        Ok(Self {
            rank: r,
            alpha: lora_alpha,
            stabilized: use_rslora,
            ranks: patterns(rank_pattern, "rank_pattern").map_err(fault)?,
            alphas: patterns(alpha_pattern, "alpha_pattern").map_err(fault)?,
        })
    }

    /// In the form of the model's config. Modules of a lower rank are filled up to the highest, and those of another scaling have it
    /// in their weights.
    pub(crate) fn sizes(&self) -> Value {
        let rank = self.widest();
        json!({"r": rank, "lora_alpha": self.scale(self.rank, self.alpha) * rank as f64})
    }

    /// As [`Scaling::sizes`], of an adapter whose modules have to be alike.
    ///
    /// # Errors
    /// When they are not.
    pub(crate) fn uniform(&self, dir: &Path) -> Result<Value> {
        if self.ranks.is_empty() && self.alphas.is_empty() {
            return Ok(self.sizes());
        }
        Err(Error::config(
            &dir.join(CONFIG),
            "rank_pattern and alpha_pattern are not read of a part of the model",
        ))
    }

    fn widest(&self) -> usize {
        self.ranks.iter().map(|(_, rank)| *rank).fold(self.rank, usize::max)
    }

    fn scale(&self, rank: usize, alpha: f64) -> f64 {
        let rank = rank as f64;
        if self.stabilized { alpha / rank.sqrt() } else { alpha / rank }
    }

    /// The rank of a module, and what its scaling is to the others'.
    fn of(&self, module: &str) -> (usize, f32) {
        let rank = found(&self.ranks, module).unwrap_or(self.rank);
        let alpha = found(&self.alphas, module).unwrap_or(self.alpha);
        (rank, (self.scale(rank, alpha) / self.scale(self.rank, self.alpha)) as f32)
    }
}

/// As PEFT takes them: a pattern is of the end of a module's name.
fn patterns<T>(written: Option<BTreeMap<String, T>>, key: &str) -> Result<Vec<(Regex, T)>, String> {
    let compiled = |(pattern, value): (String, T)| {
        let whole =
            RegexBuilder::new(&format!(r"^(?:.*\.)?(?:{pattern})$")).size_limit(1 << 20).build();
        Ok((whole.map_err(|fault| format!("{key}: `{pattern}` is no pattern: {fault}"))?, value))
    };
    written.unwrap_or_default().into_iter().map(compiled).collect()
}

fn found<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.is_match(module)).map(|(_, value)| *value)
}

/// Reads an adapter's configuration, once its name was found to be usable.
///
/// # Errors
/// As [`Scaling::read`], and for a name that is taken or would not stand in a tensor's name.
pub(crate) fn check(adapter: &UserAdapter, ignored: &[String]) -> Result<Scaling> {
    let name = &adapter.name;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty()
        || !name.chars().all(is_plain)
        || matches!(name.as_str(), "vision" | "speech")
    {
        return Err(Error::Request(format!(
            "adapter name `{name}`: use letters, digits, `-` and `_`, and neither `vision` nor `speech`"
        )));
    }
    Scaling::read(&adapter.dir, ignored)
}

/// The name of an adapter's tensor in the model: `base_model.model.X.lora_A.weight` is `X.lora_A.NAME.weight`.
pub(crate) fn tensor_name(name: &str, adapter: &str) -> String {
    let name = name.strip_prefix("base_model.model.").unwrap_or(name);
    match name.strip_suffix(".weight") {
        Some(stem) => format!("{stem}.{adapter}.weight"),
        None => name.to_owned(),
    }
}

/// The files that are read of a folder.
pub(crate) fn files(dir: &Path) -> [PathBuf; 2] {
    [dir.join(CONFIG), dir.join(WEIGHTS)]
}

/// Whether a path is one of an adapter's files.
pub(crate) fn is_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == CONFIG || name == WEIGHTS)
}

/// A model and an adapter of the user's own.
pub(crate) struct Adapted {
    model: Box<dyn TensorSource>,
    adapter: Checkpoint,
    /// Tensors of the adapter that are not as its others are.
    fitted: BTreeMap<String, Fit>,
}

/// How a tensor is brought to the rank and the scaling of the others.
#[derive(Debug)]
struct Fit {
    /// The shape it gets.
    shape: [usize; 2],
    /// The shape it has.
    own: [usize; 2],
    /// For what its values are multiplied by.
    factor: f32,
}

impl Adapted {
    /// Opens the adapter's folder beside the model.
    ///
    /// # Errors
    /// When the adapter's file is missing or damaged.
    pub(crate) fn open(
        model: Box<dyn TensorSource>,
        adapter: &UserAdapter,
        scaling: &Scaling,
    ) -> Result<Self> {
        let file = adapter.dir.join(WEIGHTS);
        let opened = Checkpoint::of_file(&file, |name| tensor_name(name, &adapter.name))?;
        let (down, up) = (
            format!(".lora_A.{}.weight", adapter.name),
            format!(".lora_B.{}.weight", adapter.name),
        );
        let (mut fitted, mut faults) = (BTreeMap::new(), Vec::new());
        for name in opened.names() {
            let (module, is_up) = match (name.strip_suffix(&*down), name.strip_suffix(&*up)) {
                (Some(module), _) => (module, false),
                (_, Some(module)) => (module, true),
                _ => continue,
            };
            let ((rank, factor), widest) = (scaling.of(module), scaling.widest());
            let fit = match opened.shape(name) {
                Some(&[own, width]) if !is_up && own == rank => {
                    Fit { shape: [widest, width], own: [own, width], factor: 1.0 }
                }
                Some(&[rows, own]) if is_up && own == rank => {
                    Fit { shape: [rows, widest], own: [rows, own], factor }
                }
                shape => {
                    let shape = shape.unwrap_or_default();
                    faults.push(format!(
                        "`{name}` has shape {shape:?}, but {CONFIG} says that its rank is {rank}"
                    ));
                    continue;
                }
            };
            fitted.insert(name.to_owned(), fit);
        }
        if !faults.is_empty() {
            return Err(Error::Weights { path: file, faults });
        }
        Ok(Self { model, adapter: opened, fitted })
    }

    fn part(&self, name: &str) -> &dyn TensorSource {
        if self.adapter.contains(name) { &self.adapter } else { &*self.model }
    }
}

impl TensorSource for Adapted {
    fn path(&self) -> &Path {
        self.model.path()
    }

    fn files(&self) -> Vec<&Path> {
        [self.model.files(), self.adapter.files()].concat()
    }

    fn names(&self) -> Vec<&str> {
        let mut names = [self.model.names(), self.adapter.names()].concat();
        names.sort_unstable();
        names
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        match self.fitted.get(name) {
            Some(fit) => Some(&fit.shape),
            None => self.part(name).shape(name),
        }
    }

    fn unreadable(&self, name: &str) -> Option<String> {
        self.part(name).unreadable(name)
    }

    fn read(&self, name: &str, rows: Range<usize>) -> Result<Option<Vec<f32>>> {
        let Some(fit) = self.fitted.get(name) else { return self.part(name).read(name, rows) };
        let ([_, width], [own_rows, own_width]) = (fit.shape, fit.own);
        let there = rows.start.min(own_rows)..rows.end.min(own_rows);
        let Some(values) = self.adapter.read(name, there)? else { return Ok(None) };
        let mut filled = vec![0.0; rows.len() * width];
        for (to, from) in
            filled.chunks_exact_mut(width.max(1)).zip(values.chunks_exact(own_width.max(1)))
        {
            for (to, from) in to.iter_mut().zip(from) {
                *to = from * fit.factor;
            }
        }
        Ok(Some(filled))
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::{Dtype, TensorView};

    use super::*;
    use crate::import::source::Nothing;

    fn adapter(config: &Value, ranks: [usize; 2]) -> (tempfile::TempDir, UserAdapter) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
        let mut tensors = Vec::new();
        for (module, rank) in ["o_proj", "qkv_proj"].into_iter().zip(ranks) {
            for (part, shape) in [("lora_A", vec![rank, 3]), ("lora_B", vec![2, rank])] {
                let bytes: Vec<u8> = (0..shape[0] * shape[1])
                    .flat_map(|index| (index as f32 + 1.0).to_le_bytes())
                    .collect();
                let name =
                    format!("base_model.model.model.layers.0.self_attn.{module}.{part}.weight");
                tensors.push((name, shape, bytes));
            }
        }
        let views = tensors.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        std::fs::write(dir.path().join(WEIGHTS), safetensors::serialize(views, None).unwrap())
            .unwrap();
        let adapter = UserAdapter { name: "x".into(), dir: dir.path().to_owned() };
        (dir, adapter)
    }

    /// What an adapter adds for an input of ones, by a module's tensors and the sizes in the config.
    fn added(source: &Adapted, sizes: &Value, module: &str) -> Vec<f64> {
        let rank = sizes["r"].as_u64().unwrap() as usize;
        let name = |part: &str| format!("model.layers.0.self_attn.{module}.{part}.x.weight");
        let down = source.f32(&name("lora_A"), &[rank, 3]).unwrap();
        let up = source.f32(&name("lora_B"), &[2, rank]).unwrap();
        let inner: Vec<f64> =
            down.chunks(3).map(|row| row.iter().map(|value| f64::from(*value)).sum()).collect();
        let scale = sizes["lora_alpha"].as_f64().unwrap() / rank as f64;
        up.chunks(rank)
            .map(|row| scale * row.iter().zip(&inner).map(|(a, b)| f64::from(*a) * b).sum::<f64>())
            .collect()
    }

    /// The sum of a module's own product, scaled as PEFT does.
    fn by_hand(rank: usize, scale: f64) -> Vec<f64> {
        let inner: Vec<f64> = (0..rank)
            .map(|row| (0..3).map(|column| (row * 3 + column) as f64 + 1.0).sum())
            .collect();
        (0..2)
            .map(|row| {
                scale
                    * (0..rank)
                        .map(|column| ((row * rank + column) as f64 + 1.0) * inner[column])
                        .sum::<f64>()
            })
            .collect()
    }

    #[test]
    fn ranks_and_scalings_of_single_modules_are_applied() {
        let base = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8});
        let with = |key: &str, value: Value| {
            let mut config = base.clone();
            config[key] = value;
            config
        };
        for (config, ranks, [o_proj, qkv_proj]) in [
            (base.clone(), [4, 4], [2.0, 2.0]),
            (with("alpha_pattern", json!({"o_proj": 32})), [4, 4], [8.0, 2.0]),
            (with("rank_pattern", json!({"o_proj": 2})), [2, 4], [4.0, 2.0]),
            (
                with("rank_pattern", json!({r"layers\.\d+\.self_attn\.qkv_proj": 8})),
                [4, 8],
                [2.0, 1.0],
            ),
            (with("use_rslora", json!(true)), [4, 4], [4.0, 4.0]),
        ] {
            let (_dir, adapter) = adapter(&config, ranks);
            let scaling = check(&adapter, &[]).unwrap();
            let source = Adapted::open(Box::new(Nothing), &adapter, &scaling).unwrap();
            for (module, rank, scale) in
                [("o_proj", ranks[0], o_proj), ("qkv_proj", ranks[1], qkv_proj)]
            {
                let (found, wanted) =
                    (added(&source, &scaling.sizes(), module), by_hand(rank, scale));
                for (found, wanted) in found.iter().zip(&wanted) {
                    assert!(
                        (found - wanted).abs() < 1e-3 * wanted,
                        "{config} {module}: {found} for {wanted}"
                    );
                }
            }
        }
        let (_dir, wrong) = adapter(&with("rank_pattern", json!({"o_proj": 2})), [4, 4]);
        let opened = Adapted::open(Box::new(Nothing), &wrong, &check(&wrong, &[]).unwrap());
        let fault = opened.err().unwrap().to_string();
        assert!(fault.contains("o_proj.lora_A") && fault.contains("its rank is 2"), "{fault}");
        let (_dir, adapter) = adapter(&with("rank_pattern", json!({"(": 2})), [4, 4]);
        assert!(
            check(&adapter, &[])
                .unwrap_err()
                .to_string()
                .contains("rank_pattern: `(` is no pattern")
        );
    }
}
