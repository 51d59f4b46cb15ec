//! The agent loop: one `select!` waits for events and feeds them to the state machine.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::camera::Camera;
use crate::config::Limits;
use crate::event::{Event, EventId, Frame, Inbound, Payload, Setting, Utterance};
use crate::heartbeat::Pulse;
use crate::mailbox::Receiver;
use crate::microphone::{Heard, Holder, Microphone};
use crate::pending::Pending;
use crate::report::{Body, Counts, Report, Sink, StateReport, VoiceReport};
use crate::state::{Input, Machine};
use crate::turn::{Ended, Progress, Turns};

/// Longest time between two rounds of the loop.
const ROUND: Duration = Duration::from_secs(10);
/// The loop is stuck if it takes longer than this for a round.
const STUCK: Duration = Duration::from_secs(40);
/// What is answered to questions that come to nothing at shutdown.
pub const ENDS: &str = "the agent ends: ask again once it is back";

/// Where events come from.
#[derive(Debug)]
pub struct Inputs {
    /// What the microphone hears, if there is one.
    pub microphone: Option<Receiver<Heard>>,
    /// Its switch, and how it is.
    pub switch: Arc<dyn Microphone>,
    /// Pictures for the model to look at, if there is a camera.
    pub frames: Option<Receiver<Frame>>,
    /// The camera's switch.
    pub camera: Arc<dyn Camera>,
    /// MQTT.
    pub inbound: mpsc::Receiver<Inbound>,
}

/// The agent: state, pending events, current turn.
#[derive(Debug)]
pub struct Agent {
    inputs: Inputs,
    turns: Arc<Turns>,
    sink: Arc<dyn Sink>,
    counts: watch::Sender<Counts>,
    machine: Machine,
    pending: Pending,
    /// A spoken answer to a pending confirmation, being transcribed.
    answer: Option<Answer>,
    /// Whether the camera is on.
    camera_on: bool,
}

/// Transcribes a spoken answer.
struct Answer(Pin<Box<dyn Future<Output = ()> + Send>>);

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

/// What the loop woke up for.
enum Next {
    Stop,
    Progress(Progress),
    TurnEnded(Ended),
    Inbound(Inbound),
    Heard(Option<Heard>),
    Seen(Option<Frame>),
    Answered,
    Tick,
}

/// The turn in progress.
struct Current {
    event: Event,
    give_way: CancellationToken,
    told: mpsc::Receiver<Progress>,
    work: Pin<Box<dyn Future<Output = Ended> + Send>>,
}

impl Current {
    fn is_of_camera(&self) -> bool {
        matches!(self.event.payload, Payload::Frame(_))
    }
}

impl Agent {
    /// An idle agent. Updates `counts`.
    pub fn new(
        inputs: Inputs,
        turns: Turns,
        sink: Arc<dyn Sink>,
        counts: watch::Sender<Counts>,
        limits: Limits,
    ) -> Self {
        Self {
            camera_on: inputs.frames.is_some(),
            inputs,
            turns: Arc::new(turns),
            sink,
            counts,
            machine: Machine::new(limits, Instant::now()),
            pending: Pending::default(),
            answer: None,
        }
    }

    /// Runs until `stop`; the turn in progress then has `grace` to finish.
    pub async fn run(mut self, stop: CancellationToken, grace: Duration, pulse: Pulse) {
        let mut current: Option<Current> = None;
        self.report_state();
        self.turns.scenes().report_open();
        loop {
            pulse.promise(Instant::now() + STUCK);
            self.turns.scenes().end_alerts();
            if current.is_none()
                && self.machine.at_rest()
                && let Some(event) = self.pending.pop(self.machine.speaking())
            {
                current = Some(self.begin(event));
            }
            match self.next(&stop, &mut current).await {
                Next::Stop => break,
                Next::TurnEnded(ended) => {
                    current = None;
                    self.end(ended);
                }
                Next::Tick => {
                    if self.step(Input::Tick)
                        && let Some(Current { event, work, .. }) = current.take()
                    {
                        // Calls in flight report their end first.
                        drop(work);
                        self.turns.abandon(event, "it took longer than agent.limits allows");
                    }
                }
                next => self.take(next),
            }
            if self.pending.has_voice()
                && let Some(turn) = current.as_ref().filter(|turn| turn.is_of_camera())
            {
                turn.give_way.cancel();
            }
        }
        self.refuse_the_rest().await;
        if let Some(Current { event, told, work, .. }) = current {
            // Nobody follows its progress any more.
            drop(told);
            if tokio::time::timeout(grace, work).await.is_err() {
                warn!("dropped the current turn at shutdown");
                self.turns.abandon(event, ENDS);
            }
        }
        self.turns.scenes().end_all_alerts();
        info!("the agent ends");
    }

    /// At shutdown: what was accepted and not begun is answered with an error. What comes later finds the door closed, and whoever
    /// sends it is told so.
    async fn refuse_the_rest(&mut self) {
        self.inputs.inbound.close();
        // What is half through the door is waited for.
        while let Some(message) = self.inputs.inbound.recv().await {
            self.take(Next::Inbound(message));
        }
        while let Some(event) = self.pending.pop(true) {
            self.turns.abandon(event, ENDS);
        }
    }

    fn begin(&mut self, event: Event) -> Current {
        debug!(event = %event.id, "turn starts");
        let (progress, told) = mpsc::channel(8);
        let turns = self.turns.clone();
        let give_way = CancellationToken::new();
        let of_turn = event.clone();
        let gives_way = give_way.clone();
        let work = Box::pin(async move { turns.handle(of_turn, progress, gives_way).await });
        self.counts.send_modify(|counts| counts.begun(&event));
        self.step(Input::TurnStarted);
        Current { event, give_way, told, work }
    }

    fn end(&mut self, ended: Ended) {
        let input = match ended {
            Ended::Done => Input::TurnEnded,
            Ended::Failed(again) => {
                self.counts.send_modify(|counts| counts.failed += 1);
                if let Some(event) = again {
                    self.pending.put_back(*event);
                }
                Input::TurnFailed
            }
            Ended::GaveWay(event) => {
                debug!(event = %event.id, "reading a picture is interrupted by speech");
                self.counts.send_modify(|counts| counts.gave_way += 1);
                self.pending.put_back(*event);
                Input::TurnEnded
            }
        };
        self.step(input);
    }

    /// Waits for the next event.
    async fn next(&mut self, stop: &CancellationToken, current: &mut Option<Current>) -> Next {
        let round = Instant::now() + ROUND;
        let deadlines = [self.machine.deadline(), self.turns.scenes().next_end()];
        let tick = deadlines.into_iter().flatten().fold(round, Instant::min);
        let Inputs { microphone, frames, inbound, .. } = &mut self.inputs;
        tokio::select! {
            biased;
            () = stop.cancelled() => Next::Stop,
            next = follow(current) => next,
            () = understand(&mut self.answer) => Next::Answered,
            Some(message) = inbound.recv() => Next::Inbound(message),
            heard = receive(microphone), if self.pending.has_room_for_voice() => Next::Heard(heard),
            seen = receive(frames), if self.pending.has_room_for_frame() => Next::Seen(seen),
            () = tokio::time::sleep_until(tick) => Next::Tick,
        }
    }

    fn take(&mut self, next: Next) {
        match next {
            Next::Progress(Progress::CallsStarted) => drop(self.step(Input::CallsStarted)),
            Next::Progress(Progress::CallsEnded) => drop(self.step(Input::CallsEnded)),
            Next::Inbound(Inbound::Ask(ask)) => {
                let id = EventId::new();
                if self.turns.is_new(id, &ask) {
                    self.wait(Event { id, ..Event::now(Payload::Ask(ask)) });
                }
            }
            Next::Inbound(Inbound::Set(Setting::Mute(muted))) => {
                // Close the microphone before reporting it.
                self.inputs.switch.mute(muted);
                if muted {
                    for event in self.pending.forget_voice() {
                        self.turns.leave_unheard(event);
                    }
                }
                self.step(Input::Mute(muted));
            }
            Next::Inbound(Inbound::Set(Setting::Listen(held))) => {
                self.inputs.switch.hold(Holder::Mqtt, held);
                self.take(Next::Inbound(Inbound::Talk(held)));
            }
            Next::Inbound(Inbound::Set(Setting::Camera(on))) => self.switch_camera(on),
            Next::Inbound(Inbound::Confirm(consent)) => self.turns.answer_call(&consent),
            Next::Answered => self.answer = None,
            Next::Inbound(Inbound::Evidence(name)) => self.turns.show_evidence(&name),
            Next::Inbound(Inbound::Talk(held)) => {
                if held && !self.machine.muted() {
                    self.step(Input::SpeechStarted);
                } else if self.inputs.microphone.is_none() {
                    // A microphone would send what it heard.
                    self.step(Input::SpeechDropped);
                }
            }
            Next::Heard(heard) => self.hear(heard),
            Next::Seen(seen) => self.see(seen),
            Next::Stop | Next::TurnEnded(_) | Next::Tick => {}
        }
    }

    fn hear(&mut self, heard: Option<Heard>) {
        match heard {
            None => {
                self.inputs.microphone = None;
                self.step(Input::SpeechDropped);
            }
            Some(Heard::Changed) => self.report_state(),
            Some(Heard::Nothing { why, source, start, duration }) => {
                let report = VoiceReport::nothing(why, source, start, duration);
                self.sink.send(Report::now(Body::Voice(report)));
                self.step(Input::SpeechDropped);
            }
            Some(_) if self.machine.muted() => {}
            Some(Heard::Started) => drop(self.step(Input::SpeechStarted)),
            Some(Heard::Paused(utterance)) if self.turns.asked_before(&utterance).is_none() => {
                self.turns.prefill(&utterance);
            }
            Some(Heard::Paused(_)) => {}
            Some(Heard::Resumed) => self.turns.cancel_prefill(),
            Some(Heard::Utterance(utterance)) => self.hear_utterance(utterance),
        }
    }

    /// An utterance during a pending confirmation is the answer to it.
    fn hear_utterance(&mut self, utterance: Utterance) {
        self.step(Input::SpeechEnded);
        let event = Event::now(Payload::Utterance(utterance.clone()));
        match self.turns.asked_before(&utterance) {
            Some(call) if self.answer.is_none() => {
                let turns = self.turns.clone();
                let hear = async move { turns.hear_answer(call, utterance, event.at).await };
                self.answer = Some(Answer(Box::pin(hear)));
            }
            _ => self.wait(event),
        }
    }

    fn see(&mut self, seen: Option<Frame>) {
        let Some(frame) = seen else {
            self.inputs.frames = None;
            return;
        };
        if !self.camera_on {
            return;
        }
        self.wait(Event::now(Payload::Frame(frame)));
    }

    /// Queues an event.
    fn wait(&mut self, event: Event) {
        if let Some(refused) = self.pending.push(event) {
            self.turns.refuse(refused);
        }
    }

    fn switch_camera(&mut self, on: bool) {
        if self.camera_on != on {
            self.camera_on = on;
            self.inputs.camera.switch(on);
            if !on {
                self.turns.scenes().look_away();
            }
            self.report_state();
        }
    }

    /// Feeds the state machine. Returns true if the turn in progress has to be dropped.
    fn step(&mut self, input: Input) -> bool {
        let before = self.machine.state();
        let now = Instant::now();
        let (machine, effects) = self.machine.step(input, now);
        self.machine = machine;
        let state = machine.state();
        if effects.cancel_turn {
            warn!(state = before.as_str(), "dropped the current turn: it took too long");
            self.counts.send_modify(|counts| counts.overdue += 1);
        }
        if state != before {
            self.counts.send_modify(|counts| counts.enter(state));
        }
        if effects.changed {
            self.report_state();
        }
        effects.cancel_turn
    }

    fn report_state(&self) {
        let dropped = |microphone: &Receiver<Heard>| microphone.dropped();
        let dropped = self.pending.dropped() + self.inputs.microphone.as_ref().map_or(0, dropped);
        self.counts
            .send_if_modified(|counts| std::mem::replace(&mut counts.dropped, dropped) != dropped);
        self.sink.send(Report::now(Body::State(StateReport {
            state: self.machine.state(),
            muted: self.machine.muted(),
            camera: self.camera_on,
            dropped,
            microphone: self.inputs.microphone.as_ref().map(|_| self.inputs.switch.state()),
        })));
    }
}

/// Progress of the turn, then its end.
async fn follow(current: &mut Option<Current>) -> Next {
    let Some(Current { told, work, .. }) = current else { return std::future::pending().await };
    tokio::select! {
        biased;
        Some(progress) = told.recv() => Next::Progress(progress),
        ended = work => Next::TurnEnded(ended),
    }
}

/// Waits until the spoken answer, if any, is handled.
async fn understand(answer: &mut Option<Answer>) {
    match answer {
        Some(Answer(hear)) => hear.await,
        None => std::future::pending().await,
    }
}

/// Next item of a source, if there is one.
async fn receive<T>(sense: &mut Option<Receiver<T>>) -> Option<T> {
    match sense {
        Some(sense) => sense.recv().await,
        None => std::future::pending().await,
    }
}
