//! A firmware's main loop: give it the board's UART and pins as [`Hardware`], and call [`Device::turn`] for ever.

use crate::wire::{
    AgentState, Answer, Bytes, Clock, Command, Cue, EncodeError, Event, Link, Message, Millis,
    Outcome, Refusal, Reply, Stats, Step,
};
use heapless::Deque;

/// What the loop needs of a board. No method may wait.
pub trait Hardware {
    /// The next byte that arrived, if there is one.
    fn read(&mut self) -> Option<u8>;

    /// Takes as many of these bytes for sending as there is room for now; gives how many.
    fn write(&mut self, bytes: &[u8]) -> usize;

    /// Carries out a command; gives what came of it, and the value that was read.
    fn command(&mut self, command: Command) -> (Outcome, Option<i32>);

    /// The next thing to tell the host: a reading, an input, a log line, a question. Asked for only while there is a
    /// session: what happens without one is for the board to keep or to forget.
    fn next_message(&mut self) -> Option<Message>;

    /// The agent does this now: show it.
    fn show(&mut self, state: AgentState);

    /// A session began or ended.
    fn linked(&mut self, up: bool) {
        let _ = up;
    }

    /// The other end was not built for this firmware.
    fn refused(&mut self, why: Refusal) {
        let _ = why;
    }

    /// A short signal is to be given.
    fn cue(&mut self, cue: Cue) {
        let _ = cue;
    }

    /// The time, where the board had asked for it.
    fn clock(&mut self, clock: Clock) {
        let _ = clock;
    }

    /// The answer to a question of the board's.
    fn answer(&mut self, answer: Answer) {
        let _ = answer;
    }
}

/// Replies that may wait for room on the line; while they are as many, no further command is taken.
const REPLIES: usize = 4;

/// A board at work.
#[derive(Debug)]
pub struct Device<H, const WINDOW: usize> {
    /// The board itself.
    pub hardware: H,
    link: Link<WINDOW>,
    replies: Deque<Reply, REPLIES>,
    /// What the UART had no room for yet.
    unsent: Bytes,
    written: usize,
}

impl<H: Hardware, const WINDOW: usize> Device<H, WINDOW> {
    /// A board that begins to say hello.
    pub fn new(hardware: H, link: Link<WINDOW>) -> Self {
        Self { hardware, link, replies: Deque::new(), unsent: Bytes::new(), written: 0 }
    }

    /// Whether there is a session.
    pub fn is_linked(&self) -> bool {
        self.link.peer().is_some()
    }

    /// What the link has counted.
    pub fn stats(&self) -> Stats {
        self.link.stats()
    }

    /// Does all there is to do at this time; gives when to come again at the latest, if no byte arrives and nothing
    /// happens before.
    ///
    /// # Errors
    /// [`EncodeError`], which no message of the table causes.
    pub fn turn(&mut self, now: Millis) -> Result<Millis, EncodeError> {
        while let Some(byte) = self.hardware.read() {
            self.link.set_ready(!self.replies.is_full());
            if let Some(event) = self.link.receive(byte, now) {
                self.happened(event);
            }
        }
        loop {
            self.link.set_ready(!self.replies.is_full());
            self.fill();
            if !self.flush() {
                return Ok(now.saturating_add(1));
            }
            match self.link.poll(now)? {
                Step::Send(bytes) => (self.unsent, self.written) = (bytes, 0),
                Step::Event(event) => self.happened(event),
                Step::Wait(until) => return Ok(until),
            }
        }
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Up => self.hardware.linked(true),
            Event::Down { .. } => {
                self.replies.clear();
                self.hardware.linked(false);
            }
            Event::Refused(why) => self.hardware.refused(why),
            Event::Unknown(_) => {}
            Event::Message(message) => match message {
                Message::Command(command) => {
                    let (outcome, value) = self.hardware.command(command);
                    // There is room: without it, the command would not have been taken.
                    let reply = Reply { request: command.request, outcome, value };
                    self.replies.push_back(reply).ok();
                }
                Message::Agent(state) => self.hardware.show(state),
                Message::Cue(cue) => self.hardware.cue(cue),
                Message::Clock(clock) => self.hardware.clock(clock),
                Message::Answer(answer) => self.hardware.answer(answer),
                Message::Reading(_)
                | Message::Input(_)
                | Message::Reply(_)
                | Message::Log(_)
                | Message::ClockAsk(_)
                | Message::Ask(_) => {}
            },
        }
    }

    /// Gives the link what is to be told, as far as it has room.
    fn fill(&mut self) {
        while self.link.has_room() {
            let reply = self.replies.pop_front().map(Message::Reply);
            let Some(message) = reply.or_else(|| self.hardware.next_message()) else { return };
            // A host that does not know this kind of message has no use for it.
            self.link.send(message).ok();
        }
    }

    /// Whether all that was to be sent is with the UART.
    fn flush(&mut self) -> bool {
        if let Some(rest) = self.unsent.get(self.written..).filter(|rest| !rest.is_empty()) {
            self.written = self.written.saturating_add(self.hardware.write(rest));
        }
        self.written >= self.unsent.len()
    }
}

#[cfg(test)]
mod tests;
