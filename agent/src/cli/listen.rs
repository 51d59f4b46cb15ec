//! `outpost listen`: what the microphone hears, for setting one up. No model is needed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use outpost_agent_core::config::{Config, MicrophoneConfig, Pace, Vad};
use outpost_agent_core::microphone::Heard;
use outpost_agent_core::report::{MicrophoneState, Presence};
use outpost_runtime::audio::RATE;
use outpost_senses::AudioSource;
use outpost_senses::microphone::meter::Meter;
use outpost_senses::microphone::open;
use outpost_senses::microphone::pipeline::SpeechPipeline;
use serde_json::{Value, json};

use crate::cli::out::out;

/// A device that is not there after this many reads without sound is given up.
const MOST_SILENT_READS: usize = 20;

/// Show what the microphone hears: its level, and what is cut out of it as utterances.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration whose `[microphone]` is used.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// An ALSA device instead, as `arecord -L` lists it.
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    device: Option<String>,
    /// A WAV file or a folder of them instead, as fast as it goes.
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// What tells speech from other sound.
    #[arg(long, value_enum)]
    vad: Option<Vad>,
    /// How much sound to listen to.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    seconds: f64,
    /// Write one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = microphone(args)?;
    let Some(mut source) = open(&config)? else {
        bail!("no microphone: give --device, --file or a configuration that names one")
    };
    let mut pipeline = SpeechPipeline::new(&config, source.name())?;
    let mut meter = Meter::default();
    let mut chunk = Vec::new();
    let mut heard = Vec::new();
    let total = (args.seconds * f64::from(RATE)) as usize;
    let mut samples = 0;
    let mut silent_reads = 0;
    let mut shown = 0;
    while samples < total {
        chunk.clear();
        let more = source.read(&mut chunk)?;
        silent_reads = if chunk.is_empty() { silent_reads + 1 } else { 0 };
        if let Presence::Lost(reason) = source.state().condition
            && silent_reads >= MOST_SILENT_READS
        {
            bail!("{}: {reason}", source.name());
        }
        chunk.truncate(total - samples);
        samples += chunk.len();
        meter.push(&chunk);
        pipeline.push(&chunk, &mut heard);
        if !more || samples >= total {
            pipeline.finish(&mut heard);
        }
        heard.drain(..).for_each(|heard| show(args.json, &heard));
        if samples / RATE as usize > shown || !more {
            shown = samples / RATE as usize;
            show_level(args.json, samples, &state(source.as_ref(), &meter));
        }
        if !more {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn microphone(args: &Args) -> anyhow::Result<MicrophoneConfig> {
    let configured = args.config.as_deref().map(|path: &Path| Config::read(path)).transpose()?;
    let mut config = configured.map(|config| config.microphone).unwrap_or_default();
    if args.device.is_some() || args.file.is_some() {
        (config.device, config.path) = (args.device.clone(), args.file.clone());
        (config.pace, config.repeat) = (Pace::Fast, false);
    }
    config.vad = args.vad.unwrap_or(config.vad);
    Ok(config)
}

fn state(source: &dyn AudioSource, meter: &Meter) -> MicrophoneState {
    MicrophoneState { level: meter.level(), ..source.state() }
}

fn show(as_json: bool, heard: &Heard) {
    let (what, start, duration) = match heard {
        Heard::Utterance(utterance) => ("utterance", utterance.start, utterance.duration()),
        Heard::Nothing { why, start, duration, .. } => (why.as_str(), *start, *duration),
        Heard::Started | Heard::Paused(_) | Heard::Resumed | Heard::Changed => return,
    };
    if as_json {
        let seconds = |duration: Duration| duration.as_secs_f64();
        out!("{}", json!({"heard": what, "start": seconds(start), "seconds": seconds(duration)}));
    } else {
        out!("{:7.2} s  {what}, {:.2} s long", start.as_secs_f64(), duration.as_secs_f64());
    }
}

fn show_level(as_json: bool, samples: usize, state: &MicrophoneState) {
    let at = samples as f64 / f64::from(RATE);
    let level = state.level;
    if as_json {
        let format = state.format.as_ref().map_or(Value::Null, |format| format.as_str().into());
        out!(
            "{}",
            json!({"at": at, "format": format, "rms_dbfs": level.rms_dbfs, "peak_dbfs": level.peak_dbfs,
                "clipping": level.clipping, "dead": level.dead, "overruns": state.overruns,
                "reopened": state.reopened})
        );
        return;
    }
    let mut notes = String::new();
    for (is_so, note) in [(level.clipping, ", clipping"), (level.dead, ", only zeros")] {
        notes += if is_so { note } else { "" };
    }
    out!(
        "{at:7.2} s  level {:.1} dBFS, peak {:.1} dBFS{notes}; {}",
        level.rms_dbfs,
        level.peak_dbfs,
        state.format.as_deref().unwrap_or(&state.source)
    );
}
