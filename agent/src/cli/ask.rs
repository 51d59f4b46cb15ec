//! `outpost ask`: one question to the model, without the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use outpost_agent_core::config::{Capable, Encoders, Kv, ModelConfig};
use outpost_agent_core::event::Task;
use outpost_agent_core::memory::engine_options;
use outpost_agent_core::model_thread::{EngineModel, Model as _};
use outpost_agent_core::prompting::NOT_UNDERSTOOD;
use outpost_agent_core::shortcomings::check_task;
use outpost_agent_core::tasks::{Given, Pair, split_transcript};
use outpost_agent_core::toolset::bundled_tools;
use outpost_runtime::audio::expect_speech;
use outpost_runtime::frames::read_frames;
use outpost_runtime::import::manifest::Manifest;
use outpost_runtime::media::{Channel, read_audio, read_image};
use outpost_runtime::{Confidence, Generation, Image, Request, Stop, ToolSpec, Usage};
use serde_json::{Value, json};

use crate::cli::out::out;

/// Ask the model something: text, sound, pictures, or several of them.
///
/// Without --task, a command without a picture is answered with tool calls, which are printed and not carried out; a picture
/// alone is read; all else is answered in words.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The question or command, in place of the task's own.
    prompt: Option<String>,
    /// What to do: `outpost tasks` lists them.
    #[arg(long, value_enum)]
    task: Option<Task>,
    /// A sound file to listen to: WAV, FLAC, MP3, Ogg, Opus, M4A and others.
    #[arg(long)]
    audio: Option<PathBuf>,
    /// Which of its channels: `auto`, the mean where they agree and else the loudest; `mix`; or a number from 1 on.
    #[arg(long, default_value_t)]
    channel: Channel,
    /// A picture to look at; may be given several times.
    #[arg(long)]
    image: Vec<PathBuf>,
    /// A clip to watch: a folder of pictures, a .y4m or .mjpeg file.
    #[arg(long)]
    video: Option<PathBuf>,
    /// Frames of the clip that are looked at, at most.
    #[arg(long, default_value_t = 8)]
    frames: usize,
    /// The languages to translate between, such as `de-en`: `outpost tasks` lists them.
    #[arg(long, conflicts_with = "to")]
    pair: Option<Pair>,
    /// The language to translate into.
    #[arg(long)]
    to: Option<String>,
    /// With a translation, give what was said as well.
    #[arg(long)]
    transcript: bool,
    /// Longest answer, in tokens; none: the daemon's default.
    #[arg(long)]
    max_tokens: Option<usize>,
    /// An adapter that was given at import, for text.
    #[arg(long)]
    lora: Option<String>,
    /// A packed model.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Where the encoders' weights are between runs.
    #[arg(long, value_enum, default_value = "auto")]
    encoders: Encoders,
    /// Bound on prompt and answer together, in tokens; none: the daemon's default.
    #[arg(long)]
    context: Option<usize>,
    /// How keys and values are kept.
    #[arg(long, value_enum, default_value = "bf16")]
    kv: Kv,
    /// What the model is taken to be capable of.
    #[arg(long, value_enum, default_value = "stated")]
    capabilities: Capable,
    /// Offer no tools.
    #[arg(long)]
    no_tools: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut config = ModelConfig { encoders: args.encoders, kv: args.kv, ..ModelConfig::default() };
    config.context = args.context.unwrap_or(config.context);
    let given = args.given()?;
    let dir = super::model_dir(args.model.as_deref(), None)?;
    let capabilities = args.capabilities.of(Manifest::read(&dir)?.capabilities.as_ref());
    let task = args.task.unwrap_or_else(|| args.natural_task());
    check_task(task, &capabilities)?;
    let known = |tool: &ToolSpec| capabilities.tools.include(&tool.name);
    let tools: Vec<ToolSpec> = bundled_tools().into_iter().filter(known).collect();
    let max_new_tokens = args.max_tokens.unwrap_or(config.max_new_tokens);
    let request = task.request(given, &tools, max_new_tokens)?;
    let request = Request { adapter: args.lora.clone(), ..request };
    let mut model = EngineModel::load(&dir, &engine_options(&dir, &config)?, args.capabilities)?;
    let mut generation = model.generate(&request, &Stop::never(), &mut |_| ())?;
    // Nothing was called, so nothing can be done.
    let offered = !request.tools.is_empty();
    if offered && generation.calls.is_empty() && capabilities.acknowledges(&generation.text) {
        NOT_UNDERSTOOD.clone_into(&mut generation.text);
    }
    print(&generation, args);
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// What the task is given.
    fn given(&self) -> anyhow::Result<Given> {
        let mut images: Vec<Image> =
            self.image.iter().map(|path| read_image(path)).collect::<Result<_, _>>()?;
        if let Some(clip) = &self.video {
            images.extend(read_frames(clip, self.frames.max(1))?);
        }
        let audio = self.audio.as_deref().map(|path| read_audio(path, self.channel)).transpose()?;
        if let Some(audio) = &audio {
            expect_speech(audio, self.audio.as_deref())?;
        }
        let prompt = self.prompt.clone();
        let of_pair = self.pair.map(|pair| pair.language().to_owned());
        let language = of_pair.or_else(|| self.to.clone());
        let transcript = self.transcript;
        if prompt.is_none() && audio.is_none() && images.is_empty() {
            bail!("nothing to ask: give a prompt, --audio, --image or --video");
        }
        Ok(Given { images, audio, prompt, language, transcript })
    }

    /// The task that the given media call for.
    fn natural_task(&self) -> Task {
        let sees = !self.image.is_empty() || self.video.is_some();
        match (sees, &self.audio, &self.prompt) {
            (true, None, None) if self.video.is_some() => Task::Video,
            (true, None, None) => Task::Ocr,
            (false, Some(_), None) | (false, None, Some(_)) if !self.no_tools => Task::Call,
            (_, Some(_), _) => Task::SpeechQa,
            _ => Task::Chat,
        }
    }
}

fn print(generation: &Generation, args: &Args) {
    let parts = split_transcript(&generation.text).filter(|_| args.transcript);
    if args.json {
        let mut answer = as_json(generation);
        if let Some((transcript, translation)) = parts {
            answer["transcript"] = transcript.into();
            answer["text"] = translation.into();
        }
        out!("{answer}");
        return;
    }
    if let Some((transcript, translation)) = parts {
        out!("{transcript}\n{translation}");
        return;
    }
    for call in &generation.calls {
        out!("{} {}", call.name, Value::Object(call.arguments.clone()));
    }
    if !generation.text.is_empty() {
        out!("{}", generation.text);
    }
}

fn as_json(generation: &Generation) -> Value {
    let calls = generation
        .calls
        .iter()
        .map(|call| json!({ "name": call.name, "arguments": call.arguments }));
    let sure = generation.confidence.map(Confidence::probabilities);
    let Usage { prompt_tokens, new_tokens, encode, prefill, decode, .. } = generation.usage;
    json!({
        "text": generation.text,
        "calls": calls.collect::<Vec<_>>(),
        "confidence": sure.map(|(mean, least)| json!({ "mean": mean, "least": least })),
        "usage": {
            "prompt_tokens": prompt_tokens,
            "new_tokens": new_tokens,
            "encode_ms": encode.as_millis(),
            "prefill_ms": prefill.as_millis(),
            "decode_ms": decode.as_millis(),
        },
    })
}
