//! `outpost import`: a checkpoint folder into a packed model.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::ValueEnum;
use outpost_runtime::import::{ImportOptions, Quant, UserAdapter, import_ignoring};

use super::progress::ProgressBar;

/// Pack a checkpoint for use: done once for each model.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A folder with `config.json`, `tokenizer.json` and safetensors, or a GGUF file.
    source: PathBuf,
    /// The folder to write.
    destination: PathBuf,
    /// How the decoder's weights are stored.
    #[arg(long, value_enum, default_value_t = Precision::Int4)]
    quant: Precision,
    /// An adapter of your own, as PEFT writes it: `NAME=FOLDER`; may be given several times.
    #[arg(long, value_parser = adapter)]
    lora: Vec<UserAdapter>,
    /// A key of a configuration that is not known here, and that you know to change nothing; may be given several times.
    #[arg(long, value_name = "NAME")]
    ignore_key: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Precision {
    F32,
    Bf16,
    Int8,
    Int4,
}

impl From<Precision> for Quant {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
            Precision::Int8 => Self::Int8,
            Precision::Int4 => Self::Int4,
        }
    }
}

fn adapter(text: &str) -> Result<UserAdapter, String> {
    let (name, dir) = text.split_once('=').ok_or("write NAME=FOLDER")?;
    Ok(UserAdapter { name: name.to_owned(), dir: dir.into() })
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let options = ImportOptions { quant: args.quant.into() };
    let mut bar = ProgressBar::new();
    let extras = (&*args.lora, &*args.ignore_key);
    let imported =
        import_ignoring(&args.source, extras, &args.destination, &options, &mut |progress| {
            bar.show(progress);
        });
    bar.clear();
    imported?;
    super::say(&format!(
        "{} written in {:.1} s",
        args.destination.display(),
        started.elapsed().as_secs_f64()
    ));
    Ok(ExitCode::SUCCESS)
}
