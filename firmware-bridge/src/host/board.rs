//! The handle to a board.

use crate::wire::{
    Action, AgentState, Answer, Cue, Function, Hello, Message, Outcome, Refusal, Stats, Text,
};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// A board behind a link; clones are the same board.
#[derive(Debug, Clone)]
pub struct Board {
    pub(super) outgoing: mpsc::Sender<Outgoing>,
    pub(super) shown: watch::Sender<AgentState>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) timeout: Duration,
}

/// How a board is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Why the port cannot be opened, if it cannot.
    pub port: Option<std::string::String>,
    /// The board, while there is a session with it.
    pub peer: Option<Hello>,
    /// Why the board cannot be spoken to, if its firmware does not fit.
    pub refusal: Option<Refusal>,
    /// What the link has counted since the port was last opened.
    pub stats: Stats,
}

/// What the task is asked for.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A command, and where its reply goes.
    Command { channel: u8, action: Action, reply: oneshot::Sender<Result<Option<i32>, BoardError>> },
    /// Anything that has no reply. Dropped where there is no session.
    Tell(Message),
}

/// Why a board did not do what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BoardError {
    /// There is no session.
    #[error("the board is not connected")]
    NotConnected,
    /// The firmware does not know commands.
    #[error("the board's firmware takes no commands")]
    NotUnderstood,
    /// The board has no such channel.
    #[error("the board has no such channel")]
    NoChannel,
    /// The channel cannot do that.
    #[error("this channel of the board cannot do that")]
    Unsupported,
    /// Not now.
    #[error("the board is busy: try again")]
    Busy,
    /// It was tried and failed.
    #[error("the board tried and failed")]
    Failed,
    /// There was no reply in time. It may have been done all the same.
    #[error("the board did not answer in time")]
    Timeout,
    /// The session ended before the reply. It may have been done all the same.
    #[error("the connection to the board was lost before it answered")]
    Lost,
}

impl Board {
    /// Carries out a command; gives the value that was read, for [`Action::Read`].
    ///
    /// # Errors
    /// [`BoardError`] says why it was not carried out, or not known to be.
    pub async fn command(&self, channel: u8, action: Action) -> Result<Option<i32>, BoardError> {
        let (reply, answered) = oneshot::channel();
        let ask = async {
            let command = Outgoing::Command { channel, action, reply };
            self.outgoing.send(command).await.map_err(|_| BoardError::NotConnected)?;
            answered.await.unwrap_or(Err(BoardError::Lost))
        };
        tokio::time::timeout(self.timeout, ask).await.unwrap_or(Err(BoardError::Timeout))
    }

    /// Shows what the agent does; a board that connects later is told too.
    pub fn show(&self, state: AgentState) {
        self.shown.send_replace(state);
    }

    /// Gives a short signal, if the board is there and not overrun with things to do.
    pub fn cue(&self, cue: Cue) {
        self.outgoing.try_send(Outgoing::Tell(Message::Cue(cue))).ok();
    }

    /// Answers a question of the board's; a text that is too long is cut.
    pub fn answer(&self, request: u8, ok: bool, text: &str) {
        let mut cut = Text::new();
        for character in text.chars() {
            if cut.push(character).is_err() {
                break;
            }
        }
        let answer = Message::Answer(Answer { request, ok, text: cut });
        self.outgoing.try_send(Outgoing::Tell(answer)).ok();
    }

    /// How the board is, and a way to wait for a change.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// The board's channel of this name, if it is connected and has one.
    pub fn channel(&self, name: &str) -> Option<(u8, Function)> {
        let status = self.status.borrow();
        let mut channels = status.peer.iter().flat_map(|peer| &peer.capabilities);
        channels.find(|known| known.name == name).map(|known| (known.channel, known.function))
    }
}

impl BoardError {
    /// What an outcome means to who gave the command.
    pub(super) fn from_outcome(outcome: Outcome) -> Result<(), Self> {
        match outcome {
            Outcome::Done => Ok(()),
            Outcome::NoChannel => Err(Self::NoChannel),
            Outcome::Unsupported => Err(Self::Unsupported),
            Outcome::Busy => Err(Self::Busy),
            Outcome::Failed => Err(Self::Failed),
        }
    }
}
