//! `outpost soak`: a day of simulated sound through the endpointing, much faster than it would take.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use outpost_agent_core::config::{EndpointConfig, Vad};
use outpost_agent_core::memory::resident;
use outpost_runtime::audio::at_16_khz;
use outpost_runtime::media::read_wav;

use crate::cli::out::out;
use crate::soak::{Day, Tally};

/// Run hours of simulated sound through the endpointing: commands missed, false alarms, memory.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A folder of WAV files that are spoken as commands.
    #[arg(long, value_name = "DIR")]
    speech: PathBuf,
    /// Hours of sound.
    #[arg(long, default_value_t = 24)]
    hours: u32,
    /// What tells speech from other sound.
    #[arg(long, value_enum, default_value = "silero")]
    vad: Vad,
    /// Another seed is another day.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&args.speech)
        .with_context(|| args.speech.display().to_string())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "wav"))
        .collect();
    paths.sort();
    if paths.is_empty() {
        bail!("{}: there is no WAV file in it", args.speech.display());
    }
    let clip = |path: &PathBuf| Ok(at_16_khz(&read_wav(path)?)?.samples.to_vec());
    let clips = paths.iter().map(clip).collect::<anyhow::Result<Vec<_>>>()?;
    let started = Instant::now();
    let mut day = Day::new(clips, args.vad, &EndpointConfig::default(), args.seed);
    let mut total = Tally::default();
    let mut sizes = Vec::new();
    say("hour  spoken  missed  false  noises  MiB");
    for hour in 1..=args.hours {
        let tally = day.go_on(3600.0);
        let size = resident().unwrap_or(0) as f64 / f64::from(1 << 20);
        sizes.push(size);
        let Tally { spoken, missed, false_alarms, noises } = tally;
        say(&format!("{hour:4}  {spoken:6}  {missed:6}  {false_alarms:5}  {noises:6}  {size:.1}"));
        total.spoken += spoken;
        total.missed += missed;
        total.false_alarms += false_alarms;
    }
    let hours = f64::from(args.hours.max(1));
    say(&format!(
        "{} of {} commands missed, {:.2} false alarms an hour, memory {:+.3} MiB an hour, {:.0} times faster than life",
        total.missed,
        total.spoken,
        total.false_alarms as f64 / hours,
        slope(&sizes),
        hours * 3600.0 / started.elapsed().as_secs_f64()
    ));
    Ok(if total.missed * 100 <= total.spoken { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(line: &str) {
    out!("{line}");
}

/// How much the values grow from one to the next, by least squares; the first quarter is warming up.
fn slope(values: &[f64]) -> f64 {
    let values = &values[values.len() / 4..];
    let count = values.len();
    let middle = (values.len() as f64 - 1.0) / 2.0;
    let average = values.iter().sum::<f64>() / count as f64;
    let offsets = || (0..count).map(|index| index as f64 - middle);
    let spread: f64 = offsets().map(|offset| offset * offset).sum();
    let product: f64 =
        offsets().zip(values).map(|(offset, value)| offset * (value - average)).sum();
    if spread > 0.0 { product / spread } else { 0.0 }
}
