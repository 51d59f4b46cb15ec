//! `outpost demo --firmware`: a simulated board whose button, relay and LED take part.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use outpost_agent_core::config::Config;
use outpost_agent_core::toolset::bundled_tools;
use outpost_firmware_bridge::simulator::{Bench, Deed, Seen, Simulator};
use outpost_firmware_bridge::wire::AgentState;
use outpost_mqtt::subscriber::{Received, Subscriber};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::demo_report::{DEVICE, Expected, describe, sound_length};
use super::firmware_sim;

use crate::app::App;
use crate::cli::out::out;

/// The button is pressed this long after the board is there.
const PAUSE: Duration = Duration::from_millis(500);
/// The end, whatever has arrived until then: this long after the button came up.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Plays a recording while the simulated board's button is held.
pub(super) async fn show(recording: &Path, dir: &Path) -> anyhow::Result<ExitCode> {
    let (simulator, bench) = Simulator::new().context("opening a pseudo-terminal")?;
    let port = simulator.port.display().to_string();
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    tasks.spawn(simulator.run(stop.clone()));
    let app = App::build(config(&port, recording), dir).await?;
    let broker = app.broker().context("the demo has a broker of its own")?;
    super::say(&format!("simulated board on {port}, MQTT broker on {broker}"));
    super::say(&format!("while its button is held, {} is played\n", recording.display()));
    let filter = format!("outpost/{DEVICE}/#");
    let subscriber = Subscriber::connect(broker, "demo-subscriber", &filter).await?;
    let length = sound_length(recording)?;
    let running = app.spawn()?;
    let mut stage = Stage::new(subscriber, bench, length);
    while !stage.is_over() {
        stage.step().await?;
    }
    running.drain(Duration::from_secs(2)).await;
    stop.cancel();
    Ok(stage.conclude())
}

fn config(port: &str, recording: &Path) -> Config {
    let mut config = Config::default();
    config.mqtt.device = DEVICE.into();
    config.microphone.path = Some(recording.to_owned());
    config.firmware.port = Some(port.to_owned());
    config.firmware.push_to_talk = Some("talk".into());
    // The bundled model was shown these tools; the board's relay bears the name of the kitchen's light.
    config.agent.tools = Some(bundled_tools().into_iter().map(|tool| tool.name).collect());
    config
}

/// What is still to come, and the hand on the button.
struct Stage {
    subscriber: Subscriber,
    bench: Bench,
    start: Instant,
    /// How long the button is held.
    length: Duration,
    press_at: Option<Instant>,
    release_at: Option<Instant>,
    end_at: Option<Instant>,
    reports: Vec<Expected>,
    sights: Vec<Seen>,
}

impl Stage {
    fn new(subscriber: Subscriber, bench: Bench, length: Duration) -> Self {
        let report = |topic, fields: Value| Expected { topic, fields };
        Self {
            subscriber,
            bench,
            start: Instant::now(),
            length,
            press_at: None,
            release_at: None,
            end_at: None,
            reports: vec![
                report("firmware", json!({"state": "up", "firmware": "simulator"})),
                report("event/input", json!({"input": "talk", "kind": "pressed"})),
                report("tool/set_light", json!({"outcome": {"status": "done"}})),
                report("event/voice", json!({"calls": ["set_light"]})),
            ],
            // In this order.
            sights: vec![
                Seen::Led(AgentState::Listening),
                Seen::Led(AgentState::Thinking),
                Seen::Switched("light/kitchen", 1000),
                Seen::Led(AgentState::Idle),
            ],
        }
    }

    fn is_over(&self) -> bool {
        self.is_complete() || self.end_at.is_some_and(|end| Instant::now() > end)
    }

    /// Waits a little for the next report, looks at the board, and moves the hand when it is time.
    async fn step(&mut self) -> anyhow::Result<()> {
        while let Ok(seen) = self.bench.seen.try_recv() {
            self.print("board", &firmware_sim::describe(seen));
            if self.sights.first() == Some(&seen) {
                self.sights.remove(0);
            }
        }
        if let Some(Received { topic, payload, .. }) =
            self.subscriber.next(Duration::from_millis(20)).await
        {
            let base = format!("outpost/{DEVICE}/");
            let topic = topic.strip_prefix(&base).unwrap_or(&topic);
            self.print(topic, &describe(topic, &payload));
            self.reports.retain(|expected| !expected.is(topic, &payload));
            if topic == "firmware" && payload["state"] == "up" && self.press_at.is_none() {
                self.press_at = Some(Instant::now() + PAUSE);
            }
        }
        self.move_hand().await
    }

    async fn move_hand(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        let fault = "the simulated board has ended";
        if self.release_at.is_none() && self.press_at.is_some_and(|at| now > at) {
            self.print("hand", "presses the button");
            self.bench.deeds.send(Deed::Press).await.context(fault)?;
            self.release_at = Some(now + self.length);
        }
        if self.end_at.is_none() && self.release_at.is_some_and(|at| now > at) {
            self.print("hand", "lets it go");
            self.bench.deeds.send(Deed::Release).await.context(fault)?;
            self.end_at = Some(now + TIMEOUT);
        }
        // A board that never comes ends the demo too.
        if self.press_at.is_none() && self.start.elapsed() > TIMEOUT {
            self.end_at = Some(self.start);
        }
        Ok(())
    }

    fn print(&self, who: &str, what: &str) {
        out!("{:7.2} s  {who:<22} {what}", self.start.elapsed().as_secs_f64());
    }

    fn conclude(&self) -> ExitCode {
        if self.is_complete() {
            super::say("\neverything that was expected has happened");
            return ExitCode::SUCCESS;
        }
        for Expected { topic, fields } in &self.reports {
            super::say(&format!("\nmissing: {topic} with {fields}"));
        }
        for seen in &self.sights {
            super::say(&format!("\nmissing on the board: {}", firmware_sim::describe(*seen)));
        }
        ExitCode::FAILURE
    }

    fn is_complete(&self) -> bool {
        self.reports.is_empty() && self.sights.is_empty()
    }
}
