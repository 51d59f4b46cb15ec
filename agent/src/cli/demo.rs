//! `outpost demo`: the whole path on sample inputs, in one process: broker, daemon, and a subscriber that prints what arrives.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use outpost_agent_core::config::{Config, WatchRule};
use outpost_mqtt::subscriber::{Received, Subscriber};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::demo_firmware;
use super::demo_report::{DEVICE, Expected, GAP, describe, sound_length};

use crate::app::App;
use crate::cli::out::out;
use crate::model_dir;

/// See it work: a spoken command and a picture become tool calls on MQTT.
///
/// Ends by itself: with 0, or with 1 if a report that should have come did not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A WAV file, or a folder of them, instead of the sample commands.
    #[arg(long)]
    audio: Option<PathBuf>,
    /// A picture, or a folder of them, instead of the sample sign.
    #[arg(long)]
    image: Option<PathBuf>,
    /// A packed model instead of the bundled one.
    #[arg(long)]
    model: Option<PathBuf>,
    /// With a simulated board: its button opens the microphone, a tool call switches its relay, its LED follows the agent.
    #[arg(long, conflicts_with = "image")]
    firmware: bool,
}

/// The sample inputs, below the root of the repository.
const SAMPLES: &str = "models/nano/samples";
/// What the sample sign says.
const SIGN: &str = "EXIT 4";
/// The end, whatever has arrived until then: this long after the last of the sound was played.
const TIMEOUT: Duration = Duration::from_secs(10);
/// With the user's own files, nothing more is expected when it was quiet for this long.
const QUIET: Duration = Duration::from_secs(3);

/// What is said while the simulated board's button is held.
const COMMAND: &str = "turn_on_the_kitchen_light.wav";

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let dir = super::model_dir(args.model.as_deref(), None)?;
    let runtime = tokio::runtime::Runtime::new().context("starting tokio")?;
    if args.firmware {
        let recording = args.audio.clone().map_or_else(|| sample(COMMAND), Ok)?;
        return runtime.block_on(demo_firmware::show(&recording, &dir));
    }
    let inputs = Inputs::find(args)?;
    runtime.block_on(show(&inputs, &dir))
}

/// What is played and shown, and which reports that should cause.
struct Inputs {
    audio: PathBuf,
    image: PathBuf,
    expected: Vec<Expected>,
    /// Whether more can come than is expected.
    open_end: bool,
    /// How long the sound lasts, with the pauses.
    length: Duration,
}

impl Inputs {
    fn find(args: &Args) -> anyhow::Result<Self> {
        let audio = args.audio.clone().map_or_else(|| sample(""), Ok)?;
        let image = args.image.clone().map_or_else(|| sample("sign.png"), Ok)?;
        let mut expected = Vec::new();
        let mut expect = |topic, fields| expected.push(Expected { topic, fields });
        if args.audio.is_none() {
            let done =
                |arguments: Value| json!({"arguments": arguments, "outcome": {"status": "done"}});
            expect("tool/set_light", done(json!({"room": "kitchen", "state": "on"})));
            expect("tool/set_lock", done(json!({"door": "front", "locked": true})));
            let text = if args.image.is_none() { json!({"text": SIGN}) } else { json!({}) };
            expect("tool/read_camera", json!({"outcome": {"status": "done", "result": text}}));
        }
        if args.image.is_none() {
            expect("event/camera", json!({"text": SIGN}));
            expect("alert", json!({"rule": "exit sign"}));
        } else {
            expect("event/camera", json!({}));
        }
        expect("event/voice", json!({}));
        let length = sound_length(&audio)?;
        Ok(Self {
            length,
            audio,
            image,
            expected,
            open_end: args.audio.is_some() || args.image.is_some(),
        })
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        config.mqtt.device = DEVICE.into();
        config.agent.transcribe = true;
        config.microphone.path = Some(self.audio.clone());
        config.microphone.gap = GAP;
        config.camera.path = Some(self.image.clone());
        config.watch = vec![WatchRule {
            name: "exit sign".into(),
            wildcard: Some("EXIT*".into()),
            message: "an exit is in sight".into(),
            ..WatchRule::default()
        }];
        config
    }
}

/// A file of the samples.
fn sample(name: &str) -> anyhow::Result<PathBuf> {
    let root = model_dir::repository();
    let root = root
        .context("the samples are in the repository: run inside it, or give --audio and --image")?;
    Ok(root.join(SAMPLES).join(name))
}

async fn show(inputs: &Inputs, dir: &Path) -> anyhow::Result<ExitCode> {
    let loading = Instant::now();
    let app = App::build(inputs.config(), dir).await?;
    let broker = app.broker().context("the demo has a broker of its own")?;
    super::say(&format!(
        "model loaded in {:.1} s, MQTT broker on {broker}",
        loading.elapsed().as_secs_f64()
    ));
    super::say(&format!(
        "microphone: {}   camera: {}\n",
        inputs.audio.display(),
        inputs.image.display()
    ));
    let mut subscriber =
        Subscriber::connect(broker, "demo-subscriber", &format!("outpost/{DEVICE}/#")).await?;
    let started = Instant::now();
    let running = app.spawn()?;

    let mut missing: Vec<&Expected> = inputs.expected.iter().collect();
    let mut voices = 0;
    let sound_ends = started + inputs.length;
    let mut last = started;
    let base = format!("outpost/{DEVICE}/");
    loop {
        if let Some(received) = subscriber.next(Duration::from_millis(100)).await {
            let topic = received.topic.strip_prefix(&base).unwrap_or(&received.topic);
            print(started.elapsed(), topic, &received);
            missing.retain(|expected| !expected.is(topic, &received.payload));
            voices += usize::from(topic == "event/voice");
            last = Instant::now();
        }
        let all_came = missing.is_empty() && (inputs.open_end || voices >= 3);
        let quiet =
            !inputs.open_end || (Instant::now() > sound_ends + QUIET && last.elapsed() > QUIET);
        if (all_came && quiet) || Instant::now() > sound_ends + TIMEOUT {
            break;
        }
    }
    running.drain(Duration::from_secs(2)).await;
    while let Some(received) = subscriber.next(Duration::from_millis(100)).await {
        print(
            started.elapsed(),
            received.topic.strip_prefix(&base).unwrap_or(&received.topic),
            &received,
        );
    }
    Ok(conclude(&missing))
}

fn conclude(missing: &[&Expected]) -> ExitCode {
    if missing.is_empty() {
        super::say("\neverything that was expected has arrived");
        return ExitCode::SUCCESS;
    }
    for Expected { topic, fields } in missing {
        super::say(&format!("\nmissing: {topic} with {fields}"));
    }
    ExitCode::FAILURE
}

fn print(at: Duration, topic: &str, received: &Received) {
    out!("{:7.2} s  {topic:<22} {}", at.as_secs_f64(), describe(topic, &received.payload));
}
