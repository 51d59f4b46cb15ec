//! A sink that shows reports on the board: LED, buzzer, relays.

use std::sync::Arc;

use outpost_agent_core::report::{
    Act, AlertReport, AnswerReport, Body, CommandReport, Intent, Phase, Report, Sink, State,
    StateReport,
};
use outpost_firmware_bridge::host::Board;
use outpost_firmware_bridge::wire::{Action, AgentState, Cue};
use outpost_tools::ToolError;
use outpost_tools::tool::BoxFuture;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use crate::firmware::channels::{action, is_actuator};

/// Queued commands; beyond that they are dropped, with a warning.
const ORDERS: usize = 16;
/// Prefix of a board's transactions; its number follows.
const TRANSACTION: &str = "board:";

/// Transaction of a board's question.
pub(super) fn transaction(request: u8) -> String {
    format!("{TRANSACTION}{request}")
}

/// A device command for an actuator with the same name.
#[derive(Debug)]
pub(super) struct Order {
    name: String,
    channel: u8,
    action: Action,
}

/// Forwards reports, and shows the board what concerns it.
#[derive(Debug)]
pub(super) struct BoardSink {
    board: Board,
    sink: Arc<dyn Sink>,
    orders: mpsc::Sender<Order>,
}

impl BoardSink {
    pub(super) fn new(board: Board, sink: Arc<dyn Sink>) -> (Self, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel(ORDERS);
        (Self { board, sink, orders }, receiver)
    }

    /// Passes a command to the board; false if it is not for an actuator of the board.
    fn obey(&self, command: &CommandReport) -> bool {
        let Some(name) = command.path.strip_prefix("command/") else { return false };
        let Some((channel, function)) =
            self.board.channel(name).filter(|(_, function)| is_actuator(*function))
        else {
            return false;
        };
        let Some(on) = switched(&command.payload) else { return false };
        let percent = command.payload.get("brightness").and_then(Value::as_u64);
        let percent = percent.and_then(|percent| u8::try_from(percent).ok());
        let action = action(function, on, percent);
        let order = Order { name: name.to_owned(), channel, action };
        let passed = self.orders.try_send(order).is_ok();
        if !passed {
            warn!(name, "dropped a command: too many wait for the board");
        }
        passed
    }
}

impl Sink for BoardSink {
    fn send(&self, report: Report) {
        match &report.body {
            Body::State(state) => self.board.show(shown(state)),
            // Somebody has to look, or confirm.
            Body::Alert(AlertReport { phase: Phase::New, .. }) | Body::Confirm(Some(_)) => {
                self.board.cue(Cue::Alert);
            }
            Body::Voice(voice) if voice.is_of_a_turn() => {
                self.board.cue(if voice.error.is_some() { Cue::Failed } else { Cue::Done });
            }
            Body::Answer(AnswerReport { transaction: Some(transaction), text, error, .. }) => {
                let request = transaction.strip_prefix(TRANSACTION).map(str::parse);
                if let Some(Ok(request)) = request {
                    let text = error.as_deref().unwrap_or(text);
                    self.board.answer(request, error.is_none(), text);
                }
            }
            _ => {}
        }
        self.sink.send(report);
    }

    fn act(&self, act: Act, deadline: Instant) -> BoxFuture<'_, Result<(), ToolError>> {
        let obeys = matches!(&act, Act::Command(command) if self.obey(command));
        let sent = self.sink.act(act, deadline);
        // The board needs no broker.
        Box::pin(async move { sent.await.or_else(|error| if obeys { Ok(()) } else { Err(error) }) })
    }

    fn intend<'a>(&'a self, intent: &'a Intent) -> BoxFuture<'a, ()> {
        self.sink.intend(intent)
    }
}

/// Sends device commands to the board, one at a time.
pub(super) async fn carry_out(board: &Board, orders: &mut mpsc::Receiver<Order>) {
    while let Some(Order { name, channel, action }) = orders.recv().await {
        if let Err(fault) = board.command(channel, action).await {
            warn!(name, "the board failed to execute a command: {fault}");
        }
    }
}

/// On or off, for devices that can be.
fn switched(payload: &Value) -> Option<bool> {
    match payload.get("state").and_then(Value::as_str) {
        Some("on") => Some(true),
        Some("off") => Some(false),
        _ => payload.get("locked").and_then(Value::as_bool),
    }
}

fn shown(report: &StateReport) -> AgentState {
    match report.state {
        State::Idle => AgentState::Idle,
        State::Listening => AgentState::Listening,
        State::Thinking => AgentState::Thinking,
        State::Acting => AgentState::Acting,
        State::Muted => AgentState::Muted,
        State::Error => AgentState::Failed,
    }
}
