//! The agent loop: one `select!` that waits for what happens, and one dispatch that feeds it to the state machine.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outpost_runtime::{Image, ToolSpec};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::config::{Faults, seconds};
use crate::dispatch::bundled_tools;
use crate::event::{Event, Frame, Inbound, Payload, Setting};
use crate::firmware::hands;
use crate::pending::Pending;
use crate::report::{Body, Report, Sink, StateReport};
use crate::senses::Heard;
use crate::senses::mailbox::Receiver;
use crate::state::{Input, Limits, Machine, State};
use crate::turn::{Progress, Turns};

/// `[agent]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentConfig {
    /// Names of the tools to offer; none: all.
    pub tools: Option<Vec<String>>,
    /// Rounds of tool calls for one event at most.
    pub max_steps: usize,
    /// A tool that takes longer has failed.
    #[serde(with = "seconds", rename = "tool_timeout_seconds")]
    pub tool_timeout: Duration,
    /// Whether the words of each utterance are reported too, which costs a second pass of the model.
    pub transcribe: bool,
    /// How long the agent waits for the work under way when it is told to end.
    #[serde(with = "seconds", rename = "grace_seconds")]
    pub grace: Duration,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            tools: None,
            max_steps: 3,
            tool_timeout: Duration::from_secs(10),
            transcribe: false,
            grace: Duration::from_secs(5),
        }
    }
}

impl AgentConfig {
    /// The tools that the model is told of.
    pub fn offered(&self) -> Vec<ToolSpec> {
        let offered =
            |tool: &ToolSpec| self.tools.as_ref().is_none_or(|names| names.contains(&tool.name));
        bundled_tools().into_iter().filter(offered).collect()
    }

    pub(crate) fn check(&self, faults: &mut Faults) {
        if !(1..=16).contains(&self.max_steps) {
            faults.add("agent.max_steps", self.max_steps, "use a value from 1 to 16");
        }
        if self.tool_timeout.is_zero() {
            faults.add("agent.tool_timeout_seconds", 0, "use more than 0");
        }
        let known = bundled_tools();
        let bundled = known.iter().map(|tool| tool.name.as_str());
        let names: Vec<&str> = bundled.chain(hands::TOOLS).collect();
        for name in self.tools.iter().flatten().filter(|name| !names.contains(&name.as_str())) {
            faults.add(
                "agent.tools",
                format!("{name:?}"),
                format!("no such tool; known are {}", names.join(", ")),
            );
        }
    }
}

/// The latest picture of the camera, for the agent loop to set and `read_camera` to look at.
#[derive(Debug, Clone, Default)]
pub struct Eye(Arc<Mutex<Sight>>);

#[derive(Debug, Default)]
struct Sight {
    closed: bool,
    frame: Option<Frame>,
}

impl Eye {
    /// The latest picture; none before the first one, and none while the camera is switched off.
    pub fn look(&self) -> Option<Frame> {
        let sight = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sight.closed { None } else { sight.frame.clone() }
    }

    fn see(&self, frame: Frame) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).frame = Some(frame);
    }

    fn close(&self, closed: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).closed = closed;
    }
}

/// Where events come from.
#[derive(Debug)]
pub struct Inputs {
    /// The microphone, if there is one.
    pub microphone: Option<Receiver<Heard>>,
    /// The camera, if there is one.
    pub camera: Option<Receiver<Frame>>,
    /// MQTT.
    pub inbound: mpsc::Receiver<Inbound>,
}

/// The agent: its state, what waits, and what it does about events.
#[derive(Debug)]
pub struct Agent {
    inputs: Inputs,
    turns: Arc<Turns>,
    sink: Arc<dyn Sink>,
    eye: Eye,
    machine: Machine,
    pending: Pending,
    /// Whether pictures are looked at.
    camera_on: bool,
    /// Whether pictures are read as they come.
    watching: bool,
    last_image: Option<Image>,
}

/// One thing that happened in the loop.
enum Next {
    Stop,
    Progress(Progress),
    TurnEnded { done: bool },
    Inbound(Inbound),
    Heard(Option<Heard>),
    Seen(Option<Frame>),
    Tick,
}

type Work = Pin<Box<dyn Future<Output = bool> + Send>>;

impl Agent {
    /// An agent at rest. With `watching`, every new picture is read.
    pub fn new(
        inputs: Inputs,
        turns: Turns,
        sink: Arc<dyn Sink>,
        eye: Eye,
        watching: bool,
    ) -> Self {
        Self {
            camera_on: inputs.camera.is_some(),
            inputs,
            turns: Arc::new(turns),
            sink,
            eye,
            machine: Machine::new(Limits::default(), Instant::now()),
            pending: Pending::default(),
            watching,
            last_image: None,
        }
    }

    /// Runs until told to stop; the turn at work then has `grace` to end.
    pub async fn run(mut self, stop: CancellationToken, grace: Duration) {
        let (progress, mut told) = mpsc::channel(8);
        let mut work: Option<Work> = None;
        self.report_state();
        loop {
            if work.is_none()
                && self.machine.at_rest()
                && let Some(event) = self.pending.pop(self.machine.state() == State::Listening)
            {
                debug!(event = %event.id, "turn starts");
                let (turns, progress) = (self.turns.clone(), progress.clone());
                work = Some(Box::pin(async move { turns.handle(event, progress).await }));
                self.step(Input::TurnStarted);
            }
            match self.next(&stop, &mut told, &mut work).await {
                Next::Stop => break,
                Next::TurnEnded { done } => {
                    work = None;
                    self.step(if done { Input::TurnEnded } else { Input::TurnFailed });
                }
                Next::Tick => {
                    if self.step(Input::Tick) {
                        warn!("the turn at work took too long and was dropped");
                        work = None;
                    }
                }
                next => self.take(next),
            }
        }
        if let Some(work) = work
            && tokio::time::timeout(grace, work).await.is_err()
        {
            warn!("the turn at work did not end in time and was dropped");
        }
        info!("the agent ends");
    }

    /// Waits for the next thing to happen.
    async fn next(
        &mut self,
        stop: &CancellationToken,
        told: &mut mpsc::Receiver<Progress>,
        work: &mut Option<Work>,
    ) -> Next {
        let deadline = self.machine.deadline();
        let Inputs { microphone, camera, inbound } = &mut self.inputs;
        // Progress comes before the end of the turn that sent it.
        tokio::select! {
            biased;
            () = stop.cancelled() => Next::Stop,
            Some(progress) = told.recv() => Next::Progress(progress),
            done = ready(work) => Next::TurnEnded { done },
            Some(message) = inbound.recv() => Next::Inbound(message),
            heard = receive(microphone), if self.pending.has_room_for_voice() => Next::Heard(heard),
            seen = receive(camera), if self.pending.has_room_for_frame() => Next::Seen(seen),
            () = sleep_until(deadline) => Next::Tick,
        }
    }

    fn take(&mut self, next: Next) {
        match next {
            Next::Progress(Progress::CallsStarted) => drop(self.step(Input::CallsStarted)),
            Next::Progress(Progress::CallsEnded) => drop(self.step(Input::CallsEnded)),
            Next::Inbound(Inbound::Ask(ask)) => self.wait(Event::now(Payload::Ask(ask))),
            Next::Inbound(Inbound::Set(Setting::Mute(muted))) => {
                if muted {
                    self.pending.forget_voice();
                }
                self.step(Input::Mute(muted));
            }
            Next::Inbound(Inbound::Set(Setting::Camera(on))) => self.switch_camera(on),
            Next::Inbound(Inbound::Talk(held)) => {
                // When it comes up, the microphone tells what was heard.
                if held && !self.machine.muted() {
                    self.step(Input::SpeechStarted);
                }
            }
            Next::Heard(heard) => self.hear(heard),
            Next::Seen(seen) => self.see(seen),
            Next::Stop | Next::TurnEnded { .. } | Next::Tick => {}
        }
    }

    fn hear(&mut self, heard: Option<Heard>) {
        match heard {
            None => self.inputs.microphone = None,
            Some(_) if self.machine.muted() => {}
            Some(Heard::Started) => drop(self.step(Input::SpeechStarted)),
            Some(Heard::Dropped) => drop(self.step(Input::SpeechDropped)),
            Some(Heard::Utterance(utterance)) => {
                self.wait(Event::now(Payload::Utterance(utterance)));
            }
        }
    }

    fn see(&mut self, seen: Option<Frame>) {
        let Some(frame) = seen else {
            self.inputs.camera = None;
            return;
        };
        if !self.camera_on {
            return;
        }
        self.eye.see(frame.clone());
        let is_new =
            self.last_image.replace(frame.image.clone()).is_none_or(|last| last != frame.image);
        if self.watching && is_new {
            self.wait(Event::now(Payload::Frame(frame)));
        }
    }

    /// Puts an event to those that wait.
    fn wait(&mut self, event: Event) {
        if let Some(refused) = self.pending.push(event)
            && let Payload::Ask(ask) = refused.payload
        {
            self.turns.refuse(refused.id, ask, "busy: too many questions wait already");
        }
    }

    fn switch_camera(&mut self, on: bool) {
        if self.camera_on != on {
            self.camera_on = on;
            self.last_image = None;
            self.eye.close(!on);
            self.report_state();
        }
    }

    /// Feeds the state machine; true if the turn at work has to be dropped.
    fn step(&mut self, input: Input) -> bool {
        let (machine, effects) = self.machine.step(input, Instant::now());
        self.machine = machine;
        if effects.changed {
            self.report_state();
        }
        effects.cancel_turn
    }

    fn report_state(&self) {
        let dropped = |microphone: &Receiver<Heard>| microphone.dropped();
        self.sink.send(Report::now(Body::State(StateReport {
            state: self.machine.state(),
            muted: self.machine.muted(),
            camera: self.camera_on,
            dropped: self.pending.dropped() + self.inputs.microphone.as_ref().map_or(0, dropped),
        })));
    }
}

/// The end of the work, if there is any.
async fn ready(work: &mut Option<Work>) -> bool {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// The next item of a sense, if there is one.
async fn receive<T>(sense: &mut Option<Receiver<T>>) -> Option<T> {
    match sense {
        Some(sense) => sense.recv().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
