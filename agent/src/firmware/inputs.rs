//! Inputs of the board → reports, asks, push-to-talk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use outpost_agent_core::agent::ENDS;
use outpost_agent_core::event;
use outpost_agent_core::event::{Consent, Inbound};
use outpost_agent_core::microphone::{Holder, Microphone};
use outpost_agent_core::report::{
    AnswerReport, BoardReport, BoardState, Body, InputReport, ReadingReport, Report, Sink,
};
use outpost_firmware_bridge::host::{Board, Status};
use outpost_firmware_bridge::wire::{Ask, Function, InputKind, Message, Reading, Version};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::firmware::board_sink::transaction;
use crate::firmware::function_name;

/// Minimum interval between reports of a sensor.
const READING_INTERVAL: Duration = Duration::from_secs(1);

/// Names of the buttons that control the agent.
#[derive(Debug)]
pub(super) struct Buttons {
    /// Push-to-talk.
    pub(super) talk: Option<String>,
    /// Toggles mute.
    pub(super) mute: Option<String>,
    /// Confirms the pending call.
    pub(super) confirm: Option<String>,
}

/// Handles messages of the board.
pub(super) struct BoardInputs {
    board: Board,
    sink: Arc<dyn Sink>,
    inbound: mpsc::Sender<Inbound>,
    buttons: Buttons,
    microphone: Arc<dyn Microphone>,
    reported: Option<BoardReport>,
    read: BTreeMap<u8, Instant>,
}

impl BoardInputs {
    pub(super) fn new(
        board: Board,
        sink: Arc<dyn Sink>,
        inbound: mpsc::Sender<Inbound>,
        buttons: Buttons,
        microphone: Arc<dyn Microphone>,
    ) -> Self {
        let read = BTreeMap::new();
        Self { board, sink, inbound, buttons, microphone, reported: None, read }
    }

    /// Runs until the end of the link.
    pub(super) async fn run(&mut self, told: &mut mpsc::Receiver<Message>) {
        let mut status = self.board.status();
        loop {
            let now = status.borrow_and_update().clone();
            self.report_board(&now).await;
            tokio::select! {
                message = told.recv() => match message {
                    Some(message) => {
                        // Report the board before its messages.
                        let now = status.borrow_and_update().clone();
                        self.report_board(&now).await;
                        self.hear(message).await;
                    }
                    None => return,
                },
                changed = status.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn hear(&mut self, message: Message) {
        match message {
            Message::Input(input) => {
                let Some((name, _)) = self.channel(input.channel) else { return };
                if self.buttons.mute.as_ref() == Some(&name) && input.kind == InputKind::Pressed {
                    self.toggle_mute().await;
                }
                if self.buttons.confirm.as_ref() == Some(&name) && input.kind == InputKind::Pressed
                {
                    let consent = Consent { call: None, yes: true };
                    self.inbound.send(Inbound::Confirm(consent)).await.ok();
                }
                if self.buttons.talk.as_ref() == Some(&name) {
                    match input.kind {
                        InputKind::Pressed => self.talk(true).await,
                        InputKind::Released => self.talk(false).await,
                        _ => {}
                    }
                }
                let kind = match input.kind {
                    InputKind::Pressed => "pressed",
                    InputKind::Released => "released",
                    InputKind::MotionStarted => "motion_started",
                    InputKind::MotionEnded => "motion_ended",
                    InputKind::Woke => "woke",
                };
                self.sink.send(Report::now(Body::Input(InputReport { input: name, kind })));
            }
            Message::Reading(reading) => self.read(reading),
            Message::Ask(Ask { request, text }) => {
                let ask = event::Ask {
                    transaction: Some(transaction(request)),
                    prompt: text.as_str().to_owned(),
                    origin: event::Origin::Firmware,
                    ..event::Ask::default()
                };
                let transaction = ask.transaction.clone();
                if self.inbound.send(Inbound::Ask(ask)).await.is_err() {
                    let answer = AnswerReport { transaction, ..AnswerReport::refusal(ENDS.into()) };
                    self.sink.send(Report::now(Body::Answer(answer)));
                }
            }
            _ => {}
        }
    }

    async fn talk(&self, held: bool) {
        self.microphone.hold(Holder::Board, held);
        self.inbound.send(Inbound::Talk(held)).await.ok();
    }

    /// Close the microphone right away, then tell the agent.
    async fn toggle_mute(&self) {
        let muted = !self.microphone.is_muted();
        self.microphone.mute(muted);
        self.inbound.send(Inbound::Set(event::Setting::Mute(muted))).await.ok();
    }

    fn read(&mut self, Reading { channel, value, .. }: Reading) {
        let Some((name, Function::Sensor(quantity))) = self.channel(channel) else { return };
        let now = Instant::now();
        if self.read.get(&channel).is_some_and(|last| now - *last < READING_INTERVAL) {
            return;
        }
        self.read.insert(channel, now);
        let (unit, divisor) = quantity.unit();
        let value = f64::from(value) / f64::from(divisor);
        self.sink.send(Report::now(Body::Reading(ReadingReport { sensor: name, value, unit })));
    }

    fn channel(&self, channel: u8) -> Option<(String, Function)> {
        let status = self.board.status();
        let status = status.borrow();
        let mut known = status.peer.iter().flat_map(|peer| &peer.capabilities);
        known
            .find(|known| known.channel == channel)
            .map(|known| (known.name.as_str().to_owned(), known.function))
    }

    /// Reports when the board comes, goes or is refused. Releases push-to-talk when it is gone.
    async fn report_board(&mut self, status: &Status) {
        let report = describe(status);
        if self.reported.as_ref() == Some(&report) {
            return;
        }
        let was_up = self.reported.as_ref().is_some_and(|last| last.state == BoardState::Up);
        if was_up && self.buttons.talk.is_some() {
            self.talk(false).await;
        }
        self.reported = Some(report.clone());
        self.sink.send(Report::now(Body::Board(report)));
    }
}

fn describe(status: &Status) -> BoardReport {
    let Some(peer) = &status.peer else {
        let reason = status.refusal.map(|why| why.to_string()).or_else(|| status.port.clone());
        let state = if status.refusal.is_some() { BoardState::Refused } else { BoardState::Down };
        return BoardReport { state, reason, ..BoardReport::default() };
    };
    let Version { major, minor, patch } = peer.version;
    let channels = peer.capabilities.iter();
    BoardReport {
        state: BoardState::Up,
        firmware: Some(peer.firmware.as_str().to_owned()),
        version: Some(format!("{major}.{minor}.{patch}")),
        channels: channels
            .map(|known| (known.name.as_str().to_owned(), function_name(known.function)))
            .collect(),
        reason: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use outpost_agent_core::report::{Act, Intent};
    use outpost_firmware_bridge::host::{self, HostConfig};
    use outpost_firmware_bridge::wire::{Check, Text};
    use outpost_senses::microphone::gate::MicGate;
    use outpost_tools::ToolError;
    use outpost_tools::tool::BoxFuture;

    use super::*;

    #[derive(Debug, Default)]
    struct Notes(Mutex<Vec<Body>>);

    impl Sink for Notes {
        fn send(&self, report: Report) {
            self.0.lock().unwrap().push(report.body);
        }

        fn act(&self, _: Act, _: Instant) -> BoxFuture<'_, Result<(), ToolError>> {
            Box::pin(std::future::ready(Ok(())))
        }

        fn intend<'a>(&'a self, _: &'a Intent) -> BoxFuture<'a, ()> {
            Box::pin(std::future::ready(()))
        }
    }

    #[tokio::test]
    async fn a_question_that_comes_as_the_agent_ends_is_answered_with_an_error() {
        let port = "/dev/nothing".parse().unwrap();
        let timeout = Duration::from_secs(1);
        let config = HostConfig { port, baud: 115_200, check: Check::Crc32, timeout };
        let (board, _told, _task) = host::connect(config);
        let (notes, microphone) = (Arc::new(Notes::default()), Arc::new(MicGate::always_open()));
        let (inbound, agent) = mpsc::channel(1);
        drop(agent);
        let buttons = Buttons { talk: None, mute: None, confirm: None };
        let mut inputs = BoardInputs::new(board, notes.clone(), inbound, buttons, microphone);
        let text = Text::try_from("turn on the light").unwrap();
        inputs.hear(Message::Ask(Ask { request: 7, text })).await;
        let answers = notes.0.lock().unwrap().clone();
        let [Body::Answer(answer)] = answers.as_slice() else { panic!("{answers:?}") };
        assert_eq!(answer.transaction.as_deref(), Some("board:7"));
        assert_eq!(answer.error.as_deref(), Some(ENDS));
    }
}
