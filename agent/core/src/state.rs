//! The agent's state machine. Pure: time is an argument, effects are returned.

use tokio::time::Instant;

use crate::config::Limits;
use crate::report::State;

/// An input of the state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Speech began.
    SpeechStarted,
    /// It was not speech, or too short.
    SpeechDropped,
    /// It ended: what was said waits for its turn.
    SpeechEnded,
    /// The model started on an event.
    TurnStarted,
    /// The model called tools.
    CallsStarted,
    /// The tools' results were handed to the model.
    CallsEnded,
    /// The turn ended.
    TurnEnded,
    /// The turn failed.
    TurnFailed,
    /// Mute was set or lifted.
    Mute(bool),
    /// Time passed.
    Tick,
}

/// Effects for the caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effects {
    /// State or mute changed: report it.
    pub changed: bool,
    /// The turn timed out: drop it.
    pub cancel_turn: bool,
}

/// The machine: state, since when, mute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    state: State,
    muted: bool,
    /// Whether somebody speaks, whatever the agent does meanwhile.
    speaking: bool,
    since: Instant,
    limits: Limits,
}

impl Machine {
    /// An idle machine.
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self { state: State::Idle, muted: false, speaking: false, since: now, limits }
    }

    /// What the agent does now.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether speech is ignored.
    pub fn muted(&self) -> bool {
        self.muted
    }

    /// Whether somebody speaks.
    pub fn speaking(&self) -> bool {
        self.speaking
    }

    /// Whether a new turn may start.
    pub fn at_rest(&self) -> bool {
        !matches!(self.state, State::Thinking | State::Acting)
    }

    /// Deadline for [`Input::Tick`]; `None` at rest.
    pub fn deadline(&self) -> Option<Instant> {
        let limit = match self.state {
            State::Idle | State::Muted => return None,
            State::Listening => self.limits.listening,
            State::Thinking => self.limits.thinking,
            State::Acting => self.limits.acting,
            State::Error => self.limits.error,
        };
        Some(self.since + limit)
    }

    /// Returns the next state and its effects.
    pub fn step(self, input: Input, now: Instant) -> (Self, Effects) {
        let muted = if let Input::Mute(muted) = input { muted } else { self.muted };
        let late = self.deadline().is_some_and(|deadline| now >= deadline);
        let speaking = match input {
            Input::SpeechStarted => !muted,
            Input::SpeechDropped | Input::SpeechEnded => false,
            // Speech without an end.
            Input::Tick if self.state == State::Listening && late => false,
            _ => self.speaking && !muted,
        };
        let rest = match (muted, speaking) {
            (true, _) => State::Muted,
            (false, true) => State::Listening,
            (false, false) => State::Idle,
        };
        let mut cancel_turn = false;
        let state = match (self.state, input) {
            (State::Idle | State::Error, Input::SpeechStarted) if !muted => State::Listening,
            (State::Listening, Input::SpeechDropped)
            | (State::Listening | State::Idle | State::Muted, Input::Mute(_))
            | (State::Thinking | State::Acting, Input::TurnEnded) => rest,
            (state, Input::TurnStarted) if !matches!(state, State::Thinking | State::Acting) => {
                State::Thinking
            }
            (State::Thinking, Input::CallsStarted) => State::Acting,
            (State::Acting, Input::CallsEnded) => State::Thinking,
            (State::Thinking | State::Acting, Input::TurnFailed) => State::Error,
            (State::Listening | State::Error, Input::Tick) if late => rest,
            (State::Thinking | State::Acting, Input::Tick) if late => {
                cancel_turn = true;
                State::Error
            }
            (state, _) => state,
        };
        let changed = state != self.state || muted != self.muted;
        let since = if state == self.state { self.since } else { now };
        (Self { state, muted, speaking, since, ..self }, Effects { changed, cancel_turn })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn machine(state: State, now: Instant) -> Machine {
        Machine { state, ..Machine::new(Limits::default(), now) }
    }

    #[test]
    fn follows_the_table() {
        use Input::{
            CallsEnded, CallsStarted, Mute, SpeechDropped, SpeechStarted, TurnEnded, TurnFailed,
            TurnStarted,
        };
        let now = Instant::now();
        let table = [
            (State::Idle, SpeechStarted, State::Listening),
            (State::Idle, TurnStarted, State::Thinking),
            (State::Idle, TurnEnded, State::Idle),
            (State::Idle, Mute(true), State::Muted),
            (State::Listening, SpeechDropped, State::Idle),
            (State::Listening, TurnStarted, State::Thinking),
            (State::Listening, Mute(true), State::Muted),
            (State::Thinking, SpeechStarted, State::Thinking),
            (State::Thinking, CallsStarted, State::Acting),
            (State::Thinking, TurnEnded, State::Idle),
            (State::Thinking, TurnFailed, State::Error),
            (State::Acting, CallsEnded, State::Thinking),
            (State::Acting, TurnEnded, State::Idle),
            (State::Acting, TurnFailed, State::Error),
            (State::Acting, TurnStarted, State::Acting),
            (State::Error, SpeechStarted, State::Listening),
            (State::Error, TurnStarted, State::Thinking),
            (State::Muted, Mute(false), State::Idle),
        ];
        for (from, input, to) in table {
            let (after, effects) = machine(from, now).step(input, now);
            assert_eq!(after.state(), to, "{from:?} on {input:?}");
            assert_eq!(effects.changed, from != to, "{from:?} on {input:?}");
            assert!(!effects.cancel_turn);
        }
    }

    #[test]
    fn every_busy_state_times_out() {
        let now = Instant::now();
        for (from, to, cancel) in [
            (State::Listening, State::Idle, false),
            (State::Thinking, State::Error, true),
            (State::Acting, State::Error, true),
            (State::Error, State::Idle, false),
        ] {
            let machine = machine(from, now);
            let deadline = machine.deadline().expect("a busy state has a deadline");
            let early = deadline.checked_sub(Duration::from_millis(1)).expect("after the start");
            assert_eq!(machine.step(Input::Tick, early).0.state(), from);
            let (after, effects) = machine.step(Input::Tick, deadline);
            assert_eq!((after.state(), effects.cancel_turn), (to, cancel), "{from:?}");
        }
    }

    #[test]
    fn speech_that_begins_while_an_answer_is_made_is_listened_to_when_it_ends() {
        use Input::{
            CallsStarted, Mute, SpeechDropped, SpeechEnded, SpeechStarted, Tick, TurnEnded,
            TurnFailed, TurnStarted,
        };
        let now = Instant::now();
        for (inputs, end, speaking) in [
            (&[SpeechStarted, TurnEnded][..], State::Listening, true),
            (&[SpeechStarted, CallsStarted, TurnEnded], State::Listening, true),
            (&[SpeechStarted, SpeechEnded, TurnEnded], State::Idle, false),
            (&[SpeechStarted, SpeechDropped, TurnEnded], State::Idle, false),
            (&[SpeechStarted, Mute(true), TurnEnded], State::Muted, false),
            (&[SpeechStarted, Mute(true), Mute(false), TurnEnded], State::Idle, false),
            (&[SpeechStarted, TurnEnded, TurnStarted, TurnEnded], State::Listening, true),
            (&[SpeechStarted, TurnFailed], State::Error, true),
        ] {
            let thinking = machine(State::Thinking, now);
            let after = inputs.iter().fold(thinking, |machine, input| machine.step(*input, now).0);
            assert_eq!((after.state(), after.speaking()), (end, speaking), "{inputs:?}");
            if end == State::Error {
                let rested = after.step(Tick, after.deadline().unwrap()).0;
                assert_eq!(rested.state(), State::Listening);
                // It has its own limit.
                let rested = rested.step(Tick, rested.deadline().unwrap()).0;
                assert_eq!((rested.state(), rested.speaking()), (State::Idle, false));
            }
        }
    }

    #[test]
    fn speech_is_ignored_while_muted_but_turns_are_not() {
        let now = Instant::now();
        let (muted, effects) = machine(State::Thinking, now).step(Input::Mute(true), now);
        assert_eq!((muted.state(), effects.changed), (State::Thinking, true));
        let (rest, _) = muted.step(Input::TurnEnded, now);
        assert_eq!(rest.state(), State::Muted);
        assert_eq!(rest.step(Input::SpeechStarted, now).0.state(), State::Muted);
        assert_eq!(rest.step(Input::TurnStarted, now).0.state(), State::Thinking);
    }
}
