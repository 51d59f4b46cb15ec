//! The models that both sides read: Phi-4-mini's shape with random weights, and SmolLM2-135M with its own.

use super::contender::{Program, output};
use crate::{process, setup};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const WRITER: &str = include_str!("random_gguf.py");

/// A model in the formats of either side.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) title: &'static str,
    /// As `outpost import` packs it.
    pub(super) packed: PathBuf,
    /// Bytes of its weights that a token needs.
    pub(super) read_per_token: f64,
    gguf: PathBuf,
    /// What the GGUF file of random weights is written from.
    checkpoint: Option<PathBuf>,
}

impl Model {
    /// The GGUF file that a program can read.
    pub(super) fn file_for(&self, program: &Program) -> Result<PathBuf> {
        let fork = matches!(program, Program::Llama { repacks_on_request: true, .. });
        let Some(checkpoint) = self.checkpoint.as_ref().filter(|_| fork) else {
            return Ok(self.gguf.clone());
        };
        let file = self.gguf.with_extension("plain.gguf");
        write_gguf(checkpoint, &file, true)?;
        Ok(file)
    }
}

/// Which of the models to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Models {
    All,
    /// Those that need little disk and time.
    Small,
}

/// Makes what is missing.
pub(super) fn ensure(
    which: Models,
    root: &Path,
    work: &Path,
    outpost: &Path,
) -> Result<Vec<Model>> {
    let small = smollm2(root, work, outpost)?;
    Ok(match which {
        Models::All => vec![phi(work, outpost)?, small],
        Models::Small => vec![small],
    })
}

fn phi(work: &Path, outpost: &Path) -> Result<Model> {
    let (checkpoint, packed) = (work.join("phi-4-mini"), work.join("phi-4-mini-int4"));
    if !is_whole(outpost, &packed) {
        let synth = outpost.with_file_name("outpost-synth");
        process::run(Command::new(synth).args(["--preset", "phi-4-mini"]).arg(&checkpoint))?;
        import(outpost, &checkpoint, &packed, "int4")?;
        // 8 GB that can be made again in a minute.
        for entry in fs::read_dir(&checkpoint)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "safetensors") {
                fs::remove_file(path)?;
            }
        }
    }
    let gguf = work.join("phi-4-mini-q4_0.gguf");
    write_gguf(&checkpoint, &gguf, false)?;
    Ok(Model {
        title: "Phi-4-mini's shape, random weights",
        read_per_token: read_per_token(outpost, &packed)?,
        packed,
        gguf,
        checkpoint: Some(checkpoint),
    })
}

fn smollm2(root: &Path, work: &Path, outpost: &Path) -> Result<Model> {
    let (gguf, packed) = (smollm2_file(root)?, work.join("smollm2-int4"));
    if !is_whole(outpost, &packed) {
        import(outpost, &gguf, &packed, "int4")?;
    }
    Ok(Model {
        title: "SmolLM2-135M-Instruct",
        read_per_token: read_per_token(outpost, &packed)?,
        packed,
        gguf,
        checkpoint: None,
    })
}

/// The file of real weights, fetched if need be.
pub(super) fn smollm2_file(root: &Path) -> Result<PathBuf> {
    setup::weights(root);
    let file = root.join(".outpost/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    fs::metadata(&file).with_context(|| file.display().to_string())?;
    Ok(file)
}

/// Packs a model, in place of an older one.
pub(super) fn import(outpost: &Path, from: &Path, to: &Path, quant: &str) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    process::run(Command::new(outpost).arg("import").args([from, to]).args(["--quant", quant]))
}

/// Whether a packed model is there, undamaged and of today's format.
fn is_whole(outpost: &Path, packed: &Path) -> bool {
    packed.exists() && process::capture(Command::new(outpost).arg("inspect").arg(packed)).is_some()
}

fn write_gguf(checkpoint: &Path, file: &Path, plain: bool) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    let mut python = Command::new(setup::python());
    python.args(["-c", WRITER]).arg(checkpoint).arg(file);
    if plain {
        python.arg("--plain");
    }
    process::run(&mut python)
}

/// Bytes of the layers and the head in int4, as `outpost plan` counts them.
fn read_per_token(outpost: &Path, packed: &Path) -> Result<f64> {
    let plan = output(Command::new(outpost).arg("plan").arg("--model").arg(packed))?;
    read_in_plan(&plan).with_context(|| format!("the layers are not in the plan:\n{plan}"))
}

fn read_in_plan(plan: &str) -> Option<f64> {
    let unit = if plan.lines().next()?.ends_with("MiB") { 20 } else { 30 };
    let size = |part: &str| -> Option<f64> {
        let line = plan.lines().find(|line| line.split_whitespace().next() == Some(part))?;
        line.split_whitespace().last()?.parse().ok()
    };
    // The head of a tied model is its embedding.
    let head = size("head").filter(|size| *size > 0.0).or_else(|| size("embedding"))?;
    Some((size("decoder")? + head) * f64::from(1 << unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_and_head_of_a_plan_are_added_up() {
        let plan = "phi, GiB\n                bf16  int8  int4\ndecoder   6.00  3.00  1.75\nembedding 0.5 0.5 0.5\nhead   0.00  0.00  0.25\n";
        assert_eq!(read_in_plan(plan), Some(2.0 * f64::from(1 << 30)));
        let tied = "phi, GiB\n                bf16  int8  int4\ndecoder   6.00  3.00  1.75\nembedding 0.5 0.5 0.5\n";
        assert_eq!(read_in_plan(tied), Some(2.25 * f64::from(1 << 30)));
        assert_eq!(read_in_plan("phi, GiB\n"), None);
    }
}
