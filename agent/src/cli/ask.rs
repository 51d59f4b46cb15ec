//! `outpost ask`: one question to the model, without the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use outpost_runtime::media::{read_image, read_wav};
use outpost_runtime::{Generation, Request, Stop, Usage};
use serde_json::{Value, json};

use crate::config::ModelConfig;
use crate::dispatch::bundled_tools;
use crate::model_thread::{EngineModel, Model as _};
use crate::prompting;

/// Ask the model something: text, sound, a picture, or several of them.
///
/// A spoken or written command without a picture is answered with tool calls, which are printed and not carried out.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The question or command.
    prompt: Option<String>,
    /// A WAV file to listen to.
    #[arg(long)]
    audio: Option<PathBuf>,
    /// A picture to look at.
    #[arg(long)]
    image: Option<PathBuf>,
    /// A packed model.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Offer no tools.
    #[arg(long)]
    no_tools: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = ModelConfig::default();
    let request = request(args, config.max_new_tokens)?;
    let dir = super::model_dir(args.model.as_deref(), None)?;
    let mut model = EngineModel::load(&dir, &config.engine_options())?;
    let generation = model.generate(&request, &Stop::never())?;
    print(&generation, args.json);
    Ok(ExitCode::SUCCESS)
}

/// The prompt form that the given media call for.
fn request(args: &Args, max_new_tokens: usize) -> anyhow::Result<Request> {
    let audio = args.audio.as_deref().map(read_wav).transpose()?;
    let image = args.image.as_deref().map(read_image).transpose()?;
    let prompt = args.prompt.as_deref();
    let turn = match (image, audio, prompt) {
        (None, None, None) => bail!("nothing to ask: give a prompt, --audio or --image"),
        (Some(image), None, None) => return Ok(prompting::read_image(image, max_new_tokens)),
        (image, audio, prompt) => prompting::user(image, audio, prompt),
    };
    let is_command = args.image.is_none() && args.audio.is_some() != args.prompt.is_some();
    let tools = if is_command && !args.no_tools { bundled_tools() } else { Vec::new() };
    Ok(prompting::command(turn, &tools, max_new_tokens))
}

#[expect(clippy::print_stdout, reason = "the answer")]
fn print(generation: &Generation, json: bool) {
    if json {
        println!("{}", as_json(generation));
        return;
    }
    for call in &generation.calls {
        println!("{} {}", call.name, Value::Object(call.arguments.clone()));
    }
    if !generation.text.is_empty() {
        println!("{}", generation.text);
    }
}

fn as_json(generation: &Generation) -> Value {
    let calls = generation
        .calls
        .iter()
        .map(|call| json!({ "name": call.name, "arguments": call.arguments }));
    let Usage { prompt_tokens, new_tokens, encode, prefill, decode, .. } = generation.usage;
    json!({
        "text": generation.text,
        "calls": calls.collect::<Vec<_>>(),
        "usage": {
            "prompt_tokens": prompt_tokens,
            "new_tokens": new_tokens,
            "encode_ms": encode.as_millis(),
            "prefill_ms": prefill.as_millis(),
            "decode_ms": decode.as_millis(),
        },
    })
}
